#include "cpu/thread_pool.h"

#include <utility>

#include "base/check.h"

namespace braid::cpu {
namespace {

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

// About 50 us on a 3 GHz core: longer than the gaps within a step, short against a step.
constexpr int kSpins = 2000;

}  // namespace

ThreadPool::ThreadPool(int32_t num_threads) : scratch_(static_cast<size_t>(num_threads)) {
  BRAID_CHECK_GE(num_threads, 1);
  for (int32_t thread = 1; thread < num_threads; ++thread) {
    workers_.emplace_back([this, thread] { work(thread); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

float* ThreadPool::scratch(int32_t thread, size_t count) {
  AlignedVector<float>& buffer = scratch_[static_cast<size_t>(thread)];
  if (buffer.size() < count) buffer.resize(count);
  return buffer.data();
}

void ThreadPool::run(const Loop& loop) {
  loop_ = loop;
  next_chunk_.store(0, std::memory_order_relaxed);
  failed_.store(false, std::memory_order_relaxed);
  num_working_.store(static_cast<int32_t>(workers_.size()), std::memory_order_relaxed);
  // Sequentially consistent, as is the sleeper's announcement: one of the two sees the other.
  epoch_.fetch_add(1);
  if (num_sleeping_.load() > 0) epoch_.notify_all();
  run_chunks(0);
  for (int spins = 0; num_working_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
  if (failed_.load(std::memory_order_relaxed))
    std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::run_chunks(int32_t thread) {
  for (;;) {
    const int64_t chunk = next_chunk_.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= loop_.num_chunks) return;
    try {
      loop_.call(loop_.context, chunk, thread);
    } catch (...) {
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
  }
}

void ThreadPool::work(int32_t thread) {
  uint32_t seen = 0;
  for (;;) {
    for (int spins = 0; epoch_.load(std::memory_order_acquire) == seen && spins < kSpins; ++spins)
      pause();
    if (epoch_.load(std::memory_order_acquire) == seen) {
      num_sleeping_.fetch_add(1);
      epoch_.wait(seen);
      num_sleeping_.fetch_sub(1);
      continue;
    }
    ++seen;  // loops are never skipped: the caller waits for every worker before it starts the next
    if (stop_.load()) return;
    run_chunks(thread);
    num_working_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace braid::cpu
