#include "cpu/read_rate.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

namespace braid::cpu {

double measure_read_rate(ThreadPool& pool) {
  constexpr size_t kWords = (size_t{512} << 20) / sizeof(uint64_t);
  constexpr size_t kChunkWords = size_t{1} << 17;  // 1 MiB
  std::vector<uint64_t> buffer(kWords);
  const auto each_chunk = [&](auto&& body) {
    pool.parallel_for(kWords / kChunkWords, [&](int64_t chunk, int32_t) {
      body(buffer.data() + static_cast<size_t>(chunk) * kChunkWords);
    });
  };
  each_chunk([](uint64_t* words) {
    for (size_t i = 0; i < kChunkWords; ++i) words[i] = i * 0x9e3779b97f4a7c15ull;
  });
  std::atomic<uint64_t> sum = 0;  // keeps the reads from being optimised away
  std::array<double, 7> rates;
  for (double& rate : rates) {
    const auto begin = std::chrono::steady_clock::now();
    each_chunk([&](const uint64_t* words) {
      // Independent sums, so that additions do not wait for each other.
      std::array<uint64_t, 16> part = {};
      for (size_t i = 0; i < kChunkWords; i += part.size()) {
        for (size_t j = 0; j < part.size(); ++j) part[j] += words[i + j];
      }
      for (const uint64_t value : part) sum.fetch_add(value, std::memory_order_relaxed);
    });
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    rate = static_cast<double>(kWords * sizeof(uint64_t)) / seconds;
  }
  std::nth_element(rates.begin(), rates.begin() + rates.size() / 2, rates.end());
  return rates[rates.size() / 2];
}

}  // namespace braid::cpu
