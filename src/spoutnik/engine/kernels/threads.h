// A team of threads that runs one function together, with barriers inside it. Between calls the helpers spin shortly, then sleep.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace spoutnik {

static inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

class Team {
 public:
  explicit Team(int size) : size(size) {
    for (int id = 1; id < size; id++) helpers_.emplace_back([this, id] { help(id); });
  }
  ~Team() {
    task_ = nullptr;
    start();
    for (std::thread& helper : helpers_) helper.join();
  }

  // Every member calls task(id) once; returns when all are done. One caller at a time.
  void run(const std::function<void(int)>& task) {
    task_ = &task;
    start();
    task(0);
    barrier();
  }

  // All members wait here for each other. A member that waits long gives its core away: another program may need it.
  void barrier() {
    int phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; spins++) spins < PATIENCE ? relax() : std::this_thread::yield();
  }

  // The id-th share of `count` things in whole `grain`s: [first, last).
  std::pair<int, int> share(int id, int count, int grain = 1) const {
    long grains = (count + grain - 1) / grain;
    int first = int(grains * id / size) * grain, last = int(grains * (id + 1) / size) * grain;
    return {first < count ? first : count, last < count ? last : count};
  }

  const int size;

 private:
  static constexpr int PATIENCE = 20000;

  void start() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      calls_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
  }

  void help(int id) {
    for (int seen = 0;;) {
      for (int spins = 0; calls_.load(std::memory_order_acquire) == seen && spins < PATIENCE; spins++) relax();
      if (calls_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return calls_.load(std::memory_order_relaxed) != seen; });
      }
      seen++;
      if (!task_) return;
      (*task_)(id);
      barrier();
    }
  }

  const std::function<void(int)>* task_ = nullptr;
  std::vector<std::thread> helpers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  alignas(64) std::atomic<int> calls_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> phase_{0};
};

}  // namespace spoutnik
