// Zeroed memory that vectors can be read from, in huge pages where it is large: reading weights is then a few percent faster.
#pragma once
#include <cstdlib>
#include <cstring>
#include <new>
#include <sys/mman.h>

namespace spoutnik {

class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { std::free(data); }

  void take(size_t bytes) {
    constexpr size_t VECTOR = 64, HUGE_PAGE = 2 << 20;
    const size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : VECTOR;
    std::free(data);
    size = (bytes + VECTOR + alignment - 1) / alignment * alignment;  // a vector may be read past the end
    data = (char*)std::aligned_alloc(alignment, size);
    if (!data) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    if (alignment == HUGE_PAGE) madvise(data, size, MADV_HUGEPAGE);
#endif
    std::memset(data, 0, size);
  }

  char* data = nullptr;
  size_t size = 0;
};

}  // namespace spoutnik
