#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "base/aligned.h"

namespace braid::cpu {

// Threads that run the chunks of one loop at a time. The caller takes part; the others spin for a
// short while between loops, since a decode step is hundreds of loops of a few microseconds each,
// and then sleep. Which thread runs which chunk is not fixed, so chunks must not share results.
class ThreadPool {
 public:
  // num_threads >= 1, the caller's included.
  explicit ThreadPool(int32_t num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int32_t num_threads() const { return static_cast<int32_t>(workers_.size()) + 1; }

  // Rows of a chunk where rows are shared out: about four chunks a thread, within 32 and 128 rows,
  // so that chunks balance and each still runs along enough of its memory.
  int64_t chunk_rows(int64_t num_rows) const {
    const int64_t wanted = num_rows / (4 * num_threads()) / 32 * 32;
    return wanted < 32 ? 32 : wanted > 128 ? 128 : wanted;
  }

  // body(chunk, thread) for each chunk in [0, num_chunks), thread in [0, num_threads); returns when
  // all are done. From one caller at a time, not from inside a body. The first exception a body
  // throws is thrown here, after the other chunks have run.
  template <class Body>
  void parallel_for(int64_t num_chunks, Body&& body) {
    if (num_chunks <= 1 || workers_.empty()) {
      for (int64_t chunk = 0; chunk < num_chunks; ++chunk) body(chunk, 0);
      return;
    }
    run({.call =
             [](void* context, int64_t chunk, int32_t thread) {
               (*static_cast<std::remove_reference_t<Body>*>(context))(chunk, thread);
             },
         .context = const_cast<void*>(static_cast<const void*>(&body)),
         .num_chunks = num_chunks});
  }

  // Scratch of a thread, at least `count` floats from a cache line on, contents undefined; valid
  // until its next call.
  float* scratch(int32_t thread, size_t count);

 private:
  struct Loop {
    void (*call)(void* context, int64_t chunk, int32_t thread) = nullptr;
    void* context = nullptr;
    int64_t num_chunks = 0;
  };

  void run(const Loop& loop);
  void work(int32_t thread);
  void run_chunks(int32_t thread);

  Loop loop_;
  alignas(64) std::atomic<uint32_t> epoch_ = 0;  // rises with each loop
  alignas(64) std::atomic<int64_t> next_chunk_ = 0;
  alignas(64) std::atomic<int32_t> num_working_ = 0;
  std::atomic<int32_t> num_sleeping_ = 0;
  std::atomic<bool> stop_ = false;
  std::atomic<bool> failed_ = false;
  std::exception_ptr failure_;                 // written by the one that sets failed_
  std::vector<AlignedVector<float>> scratch_;  // [num_threads]
  std::vector<std::thread> workers_;
};

}  // namespace braid::cpu
