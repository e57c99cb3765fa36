#include "apps/gpu/kernel_bench.h"

#include <algorithm>

#include "base/json.h"
#include "device/read_rate.h"
#include "kernels/moe_gemm/dummy.h"

namespace braid::apps {

MeasuredDevice measure_device() {
  const Stream stream;
  const DeviceBuffer big(size_t{4} << 30);
  kernels::fill_bf16(big.as<Bf16>(), int64_t{1} << 31, 1.0f, 9, stream.get());
  return {.facts = device_facts(), .read_rate = measure_read_rate(big.data(), big.bytes(), stream)};
}

Json to_json(const MeasuredDevice& device) {
  return {{"name", device.facts.name},
          {"driver", device.facts.driver},
          {"read_gb_per_s", device.read_rate / 1e9}};
}

std::vector<Times> time_in_turn(const std::vector<Graph>& graphs, int32_t num_parts, int32_t rounds,
                                const Stream& stream) {
  std::vector<std::vector<double>> us(graphs.size());
  Event begin, end;
  for (int32_t round = -2; round < rounds; ++round) {
    for (size_t i = 0; i < graphs.size(); ++i) {
      begin.record(stream);
      graphs[i].launch(stream);
      end.record(stream);
      const double a_part = 1e3 * end.since(begin) / num_parts;
      if (round >= 0) us[i].push_back(a_part);
    }
  }
  std::vector<Times> times;
  for (std::vector<double>& of_graph : us) {
    std::ranges::sort(of_graph);
    const size_t n = of_graph.size();
    times.push_back({.us = of_graph[n / 2], .p10 = of_graph[n / 10], .p90 = of_graph[n * 9 / 10]});
  }
  return times;
}

}  // namespace braid::apps
