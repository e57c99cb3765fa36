#include "cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

namespace braid::cpu {
namespace {

TEST(ThreadPool, RunsEachChunkOnceAndOnAThreadOfTheirs) {
  for (const int32_t num_threads : {1, 2, 3, 8}) {
    ThreadPool pool(num_threads);
    EXPECT_EQ(pool.num_threads(), num_threads);
    for (const int64_t num_chunks : {0, 1, 2, 7, 1000}) {
      std::vector<int> count(static_cast<size_t>(num_chunks), 0);  // plain: TSan sees a double run
      pool.parallel_for(num_chunks, [&](int64_t chunk, int32_t thread) {
        ++count[static_cast<size_t>(chunk)];
        ASSERT_GE(thread, 0);
        ASSERT_LT(thread, num_threads);
      });
      EXPECT_EQ(count, std::vector<int>(static_cast<size_t>(num_chunks), 1));
    }
  }
}

// Each loop reads what the one before wrote, so a loop that returned early would show.
TEST(ThreadPool, FinishesALoopBeforeItReturns) {
  ThreadPool pool(3);
  std::vector<int64_t> values(64, 0);
  for (int loop = 0; loop < 2000; ++loop) {
    pool.parallel_for(64, [&](int64_t chunk, int32_t) {
      values[static_cast<size_t>((chunk + loop) % 64)] += chunk;
    });
  }
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), 2000 * 64 * 63 / 2);
}

TEST(ThreadPool, WakesThreadsThatFellAsleep) {
  ThreadPool pool(2);
  for (int loop = 0; loop < 5; ++loop) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::atomic<int> count = 0;
    pool.parallel_for(100, [&](int64_t, int32_t) { ++count; });
    EXPECT_EQ(count, 100);
  }
}

TEST(ThreadPool, PassesAnExceptionOnAndStaysUsable) {
  for (const int32_t num_threads : {1, 3}) {
    ThreadPool pool(num_threads);
    EXPECT_THROW(pool.parallel_for(50,
                                   [](int64_t chunk, int32_t) {
                                     if (chunk % 10 == 3) throw std::runtime_error("no");
                                   }),
                 std::runtime_error);
    std::atomic<int> count = 0;
    pool.parallel_for(50, [&](int64_t, int32_t) { ++count; });
    EXPECT_EQ(count, 50);
  }
}

TEST(ThreadPool, KeepsScratchApart) {
  ThreadPool pool(3);
  pool.parallel_for(300, [&](int64_t chunk, int32_t thread) {
    float* scratch = pool.scratch(thread, 1000);
    std::fill_n(scratch, 1000, static_cast<float>(chunk));
    for (int i = 0; i < 1000; ++i) ASSERT_EQ(scratch[i], static_cast<float>(chunk));
  });
}

TEST(ThreadPool, SharesRowsInChunksOfAFewCacheLines) {
  EXPECT_EQ(cpu::ThreadPool(1).chunk_rows(1), 32);
  EXPECT_EQ(cpu::ThreadPool(2).chunk_rows(960), 96);
  EXPECT_EQ(cpu::ThreadPool(2).chunk_rows(49152), 128);
  EXPECT_EQ(cpu::ThreadPool(16).chunk_rows(576), 32);
}

}  // namespace
}  // namespace braid::cpu
