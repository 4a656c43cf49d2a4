// The processor's tile registers (AMX): a 16 x 16 block of sums that takes 32 bfloat16 or 64 byte products a sum at once.
//
// The panels of linear.h and the pages of attention.h are tiles as they lie in memory: 1024 bytes are the right-hand operand of one
// instruction. Left-hand operands are 16 rows of 64 bytes, at any stride.
#pragma once
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define SPOUTNIK_TILES 1
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace spoutnik {

constexpr int TILE_ROWS = 16, TILE_BYTES = 1024;

#if defined(SPOUTNIK_TILES)

// Whether the system lets this process use tiles; asked once, for it must be asked before the first use.
static inline bool tiles_granted() {
  constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
  static const bool granted = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
  return granted;
}

// Shapes of the eight registers: 0 to 3 sums, 4 and 5 left, 6 and 7 right. `depth` is the bytes of a left row.
static inline void shape_tiles(int depth) {
  struct alignas(64) {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } shape;
  for (int i = 0; i < 8; i++) shape.bytes[i] = i == 4 || i == 5 ? depth : 64, shape.rows[i] = i < 6 ? TILE_ROWS : depth / 4;
  __asm__ volatile("" ::"r"(&shape) : "memory");  // gcc 12 believes that only 8 bytes are read
  _tile_loadconfig(&shape);
}

// Tiles of full depth for one thread, from here to the end of the scope: while they are in use, switching threads is dearer.
class Tiles {
 public:
  Tiles() {
    if (granted_) shape_tiles(64);
  }
  ~Tiles() {
    if (granted_) _tile_release();
  }

 private:
  const bool granted_ = tiles_granted();
};

#else
static inline bool tiles_granted() { return false; }
struct Tiles {
  Tiles() {}
};
#endif

}  // namespace spoutnik
