// Sixteen lanes at a time. GCC's vector extension compiles for any processor; only the dot products name instructions.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace spoutnik {

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef int8_t i8x16 __attribute__((vector_size(16)));

constexpr int LANES = 16;

template <class V, class P> static inline V load(const P* from) {
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class V, class P> static inline void store(P* to, V value) { std::memcpy(to, &value, sizeof value); }

// By the integers: adding to zero would be a true addition, for the sake of -0.0.
static inline f32x16 splat(float value) { return (f32x16)(i32x16{} + load<int32_t>(&value)); }

static inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
  return a * b + c;  // one rounding or two, but the same everywhere in this build (-ffp-contract)
#endif
}

#if defined(__AVX512F__)
static inline f32x16 lesser(f32x16 a, f32x16 b) { return (f32x16)_mm512_min_ps((__m512)a, (__m512)b); }
static inline f32x16 greater(f32x16 a, f32x16 b) { return (f32x16)_mm512_max_ps((__m512)a, (__m512)b); }
#else
static inline f32x16 lesser(f32x16 a, f32x16 b) { return a < b ? a : b; }
static inline f32x16 greater(f32x16 a, f32x16 b) { return a > b ? a : b; }
#endif
static inline f32x16 magnitude(f32x16 a) { return (f32x16)((u32x16)a & 0x7fffffffu); }

// Pairwise, so that the order is fixed and errors stay small.
template <class Join> [[maybe_unused]] static inline float folded(f32x16 v, Join join) {
  float lane[LANES];
  store(lane, v);
  for (int width = LANES / 2; width; width /= 2)
    for (int i = 0; i < width; i++) lane[i] = join(lane[i], lane[i + width]);
  return lane[0];
}
#if defined(__AVX512F__)
static inline float sum(f32x16 v) { return _mm512_reduce_add_ps((__m512)v); }  // in the same order
static inline float largest(f32x16 v) { return _mm512_reduce_max_ps((__m512)v); }
#else
static inline float sum(f32x16 v) {
  return folded(v, [](float a, float b) { return a + b; });
}
static inline float largest(f32x16 v) {
  return folded(v, [](float a, float b) { return a > b ? a : b; });
}
#endif

static inline f32x16 nearest(f32x16 v) { return v + 12582912.0f - 12582912.0f; }  // to a whole number, for |v| < 2^22

// e^x within 2 units in the last place on [-87, 88]; x is clamped to it. Polynomial: Cephes expf.
static inline f32x16 exponential(f32x16 x) {
  x = greater(lesser(x, splat(88.0f)), splat(-87.0f));
  const f32x16 n = nearest(x * 1.44269504f);
  const f32x16 r = fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), x)), square = r * r;
  // Two halves that do not wait for each other.
  const f32x16 high = fma(fma(splat(1.9875691500e-4f), r, splat(1.3981999507e-3f)), r, splat(8.3334519073e-3f));
  const f32x16 low = fma(fma(splat(4.1665795894e-2f), r, splat(1.6666665459e-1f)), r, splat(5.0000001201e-1f));
  const f32x16 p = fma(fma(high, square * r, low), square, r + 1.0f);
#if defined(__AVX512F__)
  return (f32x16)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return p * (f32x16)((__builtin_convertvector(n, i32x16) + 127) << 23);
#endif
}

// exp(x) of x <= 0 to 18 bits, for weights that are rounded to bfloat16.
static inline f32x16 exponential_to_18_bits(f32x16 x) {
  const f32x16 power = x * 1.44269504f, shifted = power + 12582912.0f, r = power - (shifted - 12582912.0f);  // 1.5 * 2^23 rounds to whole numbers
  const f32x16 p = fma(fma(fma(fma(splat(9.5828492e-3f), r, splat(5.5906430e-2f)), r, splat(2.4024099e-1f)), r, splat(6.9312418e-1f)), r, splat(1.0f));
  return (f32x16)(((i32x16)p + ((i32x16)shifted << 23)) & (i32x16)(x > splat(-87.0f)));
}

static inline f32x16 silu(f32x16 x) {
  const f32x16 whole = 1.0f + exponential(-x);
#if defined(__AVX512F__)
  const f32x16 guess = (f32x16)_mm512_rcp14_ps((__m512)whole);  // one step of Newton's carries 14 bits to 24
  return x * fma(guess, fma(-whole, guess, splat(1.0f)), guess);
#else
  return x / whole;
#endif
}

// bfloat16, rounded to nearest even; NaN stays NaN.
static inline u16x16 to_bf16(f32x16 v) {
#if defined(__AVX512BF16__)
  return (u16x16)_mm512_cvtneps_pbh((__m512)v);
#else
  u32x16 bits = (u32x16)v;
  u32x16 rounded = bits + 0x7fff + ((bits >> 16) & 1);
  return __builtin_convertvector((v == v ? rounded : bits | 0x400000u) >> 16, u16x16);
#endif
}
static inline f32x16 from_bf16(u16x16 v) { return (f32x16)(__builtin_convertvector(v, u32x16) << 16); }

// Half precision: the scales of 4-bit weights, for which bfloat16 has too few digits.
static inline f32x16 from_half(u16x16 v) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_cvtph_ps((__m256i)v);
#else
  u32x16 wide = __builtin_convertvector(v, u32x16), magnitude = (wide & 0x7fff) << 13, sign = (wide & 0x8000) << 16;
  return (f32x16)((u32x16)((f32x16)magnitude * 0x1p112f) | sign);  // no infinity or NaN is stored; subnormals come out right
#endif
}
// Towards the nearest half, for |v| < 65504 (scales are).
static inline uint16_t to_half(float v) {
  const float limited = std::fmin(std::fabs(v), 65504.0f);
  uint32_t bits;
  if (limited < 0x1p-14f) {
    bits = (uint32_t)std::lrint(limited * 0x1p24f);
  } else {
    std::memcpy(&bits, &limited, 4);
    bits = (bits - (112u << 23) + 0xfff + ((bits >> 13) & 1)) >> 13;
  }
  return (uint16_t)(bits | (std::signbit(v) ? 0x8000 : 0));
}

static inline void floats(const uint16_t* bf16, int count, float* to) {
  int i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, from_bf16(load<u16x16>(bf16 + i)));
  for (; i < count; i++) to[i] = from_bf16(u16x16{} + bf16[i])[0];
}

// Values as they lie in weights, activations and the cache. A dot product takes `step` neighbours of each lane at once. `exponential` is of
// x <= 0, exactly 1 at 0 and exactly 0 far below.
struct Float32 {
  typedef float value;
  static constexpr int step = 1;
  typedef f32x16 lanes;
  static lanes read(const value* from) { return load<lanes>(from); }
  static lanes repeat(const value* from) { return splat(*from); }
  static f32x16 dot(f32x16 sum, lanes a, lanes b) { return fma(a, b, sum); }
  static void write(value* to, f32x16 v) { store(to, v); }
  static f32x16 exponential(f32x16 v) { return v > splat(-87.0f) ? spoutnik::exponential(v) : f32x16{}; }
};

struct BFloat16 {
  typedef uint16_t value;
  static constexpr int step = 2;
  typedef i32x16 lanes;  // two values a lane
  static lanes read(const value* from) { return load<lanes>(from); }
  static lanes repeat(const value* from) { return i32x16{} + load<int32_t>(from); }
  static f32x16 dot(f32x16 sum, lanes a, lanes b) {
#if defined(__AVX512BF16__)
    return (f32x16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    sum = fma((f32x16)(a << 16), (f32x16)(b << 16), sum);
    return fma((f32x16)((u32x16)a & 0xffff0000u), (f32x16)((u32x16)b & 0xffff0000u), sum);
#endif
  }
  static void write(value* to, f32x16 v) { store(to, to_bf16(v)); }
  static f32x16 exponential(f32x16 v) { return exponential_to_18_bits(v); }
};

// sum += four unsigned bytes times four signed bytes, in each lane; exact.
static inline i32x16 dot_bytes(i32x16 sum, i32x16 unsigned_bytes, i32x16 signed_bytes) {
#if defined(__AVX512VNNI__)
  return (i32x16)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)unsigned_bytes, (__m512i)signed_bytes);
#else
  for (int i = 0; i < 4; i++) sum += ((unsigned_bytes >> 8 * i) & 255) * ((signed_bytes << (24 - 8 * i)) >> 24);
  return sum;
#endif
}

}  // namespace spoutnik
