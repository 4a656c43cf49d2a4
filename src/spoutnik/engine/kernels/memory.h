// Zeroed memory that vectors can be read from, in huge pages where it is large: reading weights is then up to a third faster.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sys/mman.h>
#include <utility>
#include <vector>

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

// Many pieces that live as long as the arena, one after the other: small matrices share huge pages, and what is read next lies next.
// Pages cost memory only once they are written.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() {
    for (auto [data, size] : chunks_) munmap(data, size);
  }

  char* take(size_t bytes) {
    constexpr size_t LINE = 64, CHUNK = 64 << 20, HUGE_PAGE = 2 << 20;
    bytes = (bytes + LINE - 1) / LINE * LINE;
    if (bytes > left_) {
      const size_t size = (std::max(bytes, CHUNK) + 2 * HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
      void* chunk = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (chunk == MAP_FAILED) throw std::bad_alloc();
      chunks_.push_back({(char*)chunk, size});
#if defined(MADV_HUGEPAGE)
      madvise(chunk, size, MADV_HUGEPAGE);
#endif
      next_ = (char*)(((size_t)chunk + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE), left_ = size - (next_ - (char*)chunk) - LINE;
    }
    left_ -= bytes;
    return std::exchange(next_, next_ + bytes);
  }

 private:
  std::vector<std::pair<char*, size_t>> chunks_;
  char* next_ = nullptr;
  size_t left_ = 0;
};

}  // namespace spoutnik
