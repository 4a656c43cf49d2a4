// What this machine's cores can do at most: reading memory, and multiply-adds out of registers. One JSON object on stdout.
//
//   cc -O3 -march=native -pthread limits.c -o limits && ./limits THREADS
//
// Every figure is the best of several rounds: bytes read a second from a buffer far larger than the caches, and operations a second (a
// multiply-add counts as 2) of the widest instruction that the compiler was allowed to use for that number type.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__AVX512F__)
#define VECTOR 64
#elif defined(__AVX__)
#define VECTOR 32
#else
#define VECTOR 16
#endif
#define CHAINS 10  // independent sums: enough to hide an instruction's latency, few enough to stay in registers

typedef float floats __attribute__((vector_size(VECTOR)));
typedef uint64_t words __attribute__((vector_size(VECTOR)));

enum { BUFFER = 1 << 29, ROUNDS = 12 };
static char* buffer;
static int threads;
static pthread_barrier_t barrier;
static volatile double sink;

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec * 1e-9;
}

static double read_share(int id) {  // returns bytes
  long size = BUFFER / threads & -4096L;
  const words* from = (const words*)(buffer + id * size);
  words sums[4] = {0};
  for (long i = 0; i < size / VECTOR; i += 4)
    for (int j = 0; j < 4; j++) {
      __builtin_prefetch((const char*)(from + i + j) + 4096);
      sums[j] ^= from[i + j];
    }
  words all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  sink += (double)all[0];
  return (double)size;
}

static double multiply_floats(int id) {  // the others too return operations
  floats sums[CHAINS], x, y;
  for (int j = 0; j < CHAINS; j++) sums[j] = (floats){0} + (float)j;
  x = (floats){0} + 1.0f + 1e-7f * id;
  y = (floats){0} + 1e-9f;
  enum { STEPS = 1000000 };
  for (long i = 0; i < STEPS; i++) {
#pragma GCC unroll 10
    for (int j = 0; j < CHAINS; j++) sums[j] = sums[j] * x + y;
  }
  for (int j = 0; j < CHAINS; j++) sink += sums[j][0];
  return 2.0 * STEPS * CHAINS * VECTOR / 4;
}

#if defined(__AMX_TILE__)
static void open_tiles(void) {
  static struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } shape;
  shape.palette = 1;
  for (int tile = 0; tile < 8; tile++) shape.bytes[tile] = 64, shape.rows[tile] = 16;
  __asm__ volatile("" ::"r"(&shape) : "memory");  // gcc 12 drops the stores otherwise
  _tile_loadconfig(&shape);
  static char zeros[1024];
  _tile_loadd(4, zeros, 64);
  _tile_loadd(5, zeros, 64);
  _tile_loadd(6, zeros, 64);
  _tile_loadd(7, zeros, 64);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
#endif

static double multiply_bf16(int id) {
  (void)id;
#if defined(__AMX_BF16__)
  enum { STEPS = 100000 };
  open_tiles();
  for (long i = 0; i < STEPS; i++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 2.0 * STEPS * 4 * 16 * 16 * 32;
#elif defined(__AVX512BF16__)
  enum { STEPS = 1000000 };
  __m512 sums[CHAINS];
  __m512bh x = (__m512bh)_mm512_set1_epi32(id);
  for (int j = 0; j < CHAINS; j++) sums[j] = _mm512_set1_ps(j);
  for (long i = 0; i < STEPS; i++) {
#pragma GCC unroll 10
    for (int j = 0; j < CHAINS; j++) sums[j] = _mm512_dpbf16_ps(sums[j], x, x);
  }
  for (int j = 0; j < CHAINS; j++) sink += sums[j][0];
  return 2.0 * STEPS * CHAINS * 32;
#else
  return 0;
#endif
}

static double multiply_int8(int id) {
  (void)id;
#if defined(__AMX_INT8__)
  enum { STEPS = 100000 };
  open_tiles();
  for (long i = 0; i < STEPS; i++) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
  return 2.0 * STEPS * 4 * 16 * 16 * 64;
#elif defined(__AVX512VNNI__)
  enum { STEPS = 1000000 };
  __m512i sums[CHAINS], x = _mm512_set1_epi32(id);
  for (int j = 0; j < CHAINS; j++) sums[j] = _mm512_set1_epi32(j);
  for (long i = 0; i < STEPS; i++) {
#pragma GCC unroll 10
    for (int j = 0; j < CHAINS; j++) sums[j] = _mm512_dpbusd_epi32(sums[j], x, x);
    __asm__ volatile("" : "+x"(x));  // or the compiler sees that all steps are alike
  }
  for (int j = 0; j < CHAINS; j++) sink += _mm512_cvtsi512_si32(sums[j]);
  return 2.0 * STEPS * CHAINS * 64;
#elif defined(__AVXVNNI__)
  enum { STEPS = 1000000 };
  __m256i sums[CHAINS], x = _mm256_set1_epi32(id);
  for (int j = 0; j < CHAINS; j++) sums[j] = _mm256_set1_epi32(j);
  for (long i = 0; i < STEPS; i++) {
#pragma GCC unroll 10
    for (int j = 0; j < CHAINS; j++) sums[j] = _mm256_dpbusd_avx_epi32(sums[j], x, x);
    __asm__ volatile("" : "+x"(x));
  }
  for (int j = 0; j < CHAINS; j++) sink += _mm256_extract_epi32(sums[j], 0);
  return 2.0 * STEPS * CHAINS * 32;
#else
  return 0;
#endif
}

static double (*work)(int);
static double began[256], ended[256], done[256];

static void* member(void* argument) {
  int id = (int)(intptr_t)argument;
  for (int round = 0; round < ROUNDS; round++) {
    pthread_barrier_wait(&barrier);
    began[id] = seconds();
    done[id] = work(id);
    ended[id] = seconds();
    pthread_barrier_wait(&barrier);
  }
  return NULL;
}

// The best round's amount a second, all threads together; 0 where there is no such instruction.
static double best(double (*what)(int)) {
  pthread_t helpers[256];
  double most = 0;
  work = what;
  pthread_barrier_init(&barrier, NULL, threads + 1);  // and this thread, which only waits
  for (int id = 0; id < threads; id++) pthread_create(&helpers[id], NULL, member, (void*)(intptr_t)id);
  for (int round = 0; round < ROUNDS; round++) {
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    double amount = 0, first = began[0], last = ended[0];
    for (int id = 0; id < threads; id++) {
      amount += done[id];
      first = began[id] < first ? began[id] : first;
      last = ended[id] > last ? ended[id] : last;
    }
    if (amount / (last - first) > most) most = amount / (last - first);
  }
  for (int id = 0; id < threads; id++) pthread_join(helpers[id], NULL);
  pthread_barrier_destroy(&barrier);
  return most;
}

int main(int count, char** arguments) {
  threads = count > 1 ? atoi(arguments[1]) : 1;
  if (threads < 1 || threads > 256) return 2;
#if defined(__AMX_TILE__)
  syscall(SYS_arch_prctl, 0x1023, 18);  // Linux keeps the tiles from programs that do not ask
  const char *bf16 = "AMX", *int8 = "AMX";
#elif defined(__AVX512BF16__)
  const char *bf16 = "AVX-512 BF16", *int8 = "AVX-512 VNNI";
#elif defined(__AVX512VNNI__)
  const char *bf16 = "", *int8 = "AVX-512 VNNI";
#elif defined(__AVXVNNI__)
  const char *bf16 = "", *int8 = "AVX VNNI";
#else
  const char *bf16 = "", *int8 = "";
#endif
  buffer = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (buffer == MAP_FAILED) return 1;
#if defined(MADV_HUGEPAGE)
  madvise(buffer, BUFFER, MADV_HUGEPAGE);
#endif
  memset(buffer, 1, BUFFER);
  printf("{\"threads\": %d, \"vector_bytes\": %d, \"read\": %.0f, ", threads, VECTOR, best(read_share));
  printf("\"float32\": %.0f, ", best(multiply_floats));
  printf("\"bfloat16\": %.0f, \"bfloat16_by\": \"%s\", ", best(multiply_bf16), bf16);
  printf("\"int8\": %.0f, \"int8_by\": \"%s\"}\n", best(multiply_int8), int8);
  return 0;
}
