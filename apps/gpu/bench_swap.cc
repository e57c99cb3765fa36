// braid bench swap: an adapter's way to the device, and what the steps beside it notice.

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "adapter/adapter_pool.h"
#include "adapter/dummy_adapter.h"
#include "apps/bench_json.h"
#include "apps/commands.h"
#include "apps/table.h"
#include "base/json.h"
#include "device/device.h"
#include "kernels/moe_gemm/dummy.h"

namespace braid::apps {
namespace {

using Clock = std::chrono::steady_clock;

struct SwapOptions {
  std::string model;
  int32_t rank = 16;
  int32_t rounds = 20;
  std::string json;
};

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

struct Times {
  std::vector<double> ms;

  double quantile(double q) {
    std::ranges::sort(ms);
    return ms.empty() ? 0 : ms[static_cast<size_t>(q * static_cast<double>(ms.size() - 1))];
  }
};

// Steps of a few milliseconds as an engine makes them: a small upload, a graph, a wait.
class FakeSteps {
 public:
  explicit FakeSteps(const Stream& stream)
      : stream_(stream),
        inputs_(1 << 16),
        device_inputs_(inputs_.bytes()),
        memory_(size_t{256} << 20),
        graph_(Graph::capture(stream, [&] {
          for (uint64_t i = 0; i < 40; ++i) {
            kernels::fill_bf16(memory_.as<Bf16>(), static_cast<int64_t>(memory_.bytes() / 2), 1.0f,
                               i, stream.get());
          }
        })) {}

  double run_ms() const {
    const auto start = Clock::now();
    stream_.upload(device_inputs_.data(), inputs_, 0, inputs_.bytes());
    graph_.launch(stream_);
    stream_.wait();
    return ms_since(start);
  }

 private:
  const Stream& stream_;
  PinnedBuffer inputs_;
  DeviceBuffer device_inputs_;
  DeviceBuffer memory_;
  Graph graph_;
};

void run_bench_swap(const SwapOptions& options) {
  if (num_devices() == 0) leave("bench swap needs a GPU of compute capability 9.0");
  if (options.rank < 1 || options.rank > 256)
    leave(fmt::format("--rank {}: takes 1 to 256", options.rank), kUsage);
  if (options.rounds < 1)
    leave(fmt::format("--rounds {}: takes 1 or more", options.rounds), kUsage);
  auto json_config = read_json_file(options.model);
  if (!json_config) leave(json_config.error().message);
  auto config = parse_model_config(*json_config, {});
  if (!config) leave(config.error().message);

  auto start = Clock::now();
  const auto made = make_dummy_adapter(*config, "dummy", options.rank, 1);
  const double make_ms = ms_since(start);

  const Stream stream;
  const FakeSteps steps(stream);
  Times quiet, packing, swapping;
  for (int32_t i = 0; i < 200; ++i) quiet.ms.push_back(steps.run_ms());
  quiet.ms.erase(quiet.ms.begin(), quiet.ms.begin() + 10);

  // Room for two of them: factors, their ranks rounded up to 8, and what whole pages add.
  const size_t factors = made->bytes / static_cast<size_t>(options.rank) *
                         static_cast<size_t>((options.rank + 7) / 8 * 8);
  const size_t device_bytes = 2 * (factors + factors / 16 + (size_t{16} << 20));
  AdapterPool pool(
      *config, {.num_slots = 2, .device_bytes = device_bytes, .shapes = adapter_shapes(*config)},
      stream);
  std::optional<Result<std::shared_ptr<const Adapter>>> packed;
  double pack_ms = 0;
  {
    std::atomic<bool> is_packed = false;
    const std::jthread packer([&] {
      const auto pack_start = Clock::now();
      packed = pool.pack(*made);
      pack_ms = ms_since(pack_start);
      is_packed = true;
    });
    while (!is_packed) packing.ms.push_back(steps.run_ms());
  }
  if (!*packed) leave(packed->error().message);
  const Adapter& adapter = ***packed;

  Times alone, fill, beside;
  const auto swap = [&](int32_t slot, const auto& meanwhile) {
    pool.empty(slot);
    const auto swap_start = Clock::now();
    pool.fill(slot, adapter);
    fill.ms.push_back(ms_since(swap_start));
    meanwhile(slot);
    return ms_since(swap_start);
  };
  for (int32_t round = 0; round < options.rounds; ++round) {
    alone.ms.push_back(swap(0, [&](int32_t slot) { pool.wait_until_ready(slot); }));
    beside.ms.push_back(swap(1, [&](int32_t slot) {
      while (!pool.is_ready(slot)) swapping.ms.push_back(steps.run_ms());
    }));
  }

  const DeviceFacts facts = device_facts();
  const double gb = static_cast<double>(adapter.bytes) * 1e-9;
  const double gb_per_s = gb / (alone.quantile(0.5) * 1e-3);
  fmt::print("{}; {}, rank {}: {:.3f} GB; made in {:.1f} s, packed in {:.2f} s\n", facts.name,
             options.model, options.rank, gb, make_ms * 1e-3, pack_ms * 1e-3);
  fmt::print(
      "swap-in {:.2f} ms, {:.1f} GB/s, beside steps {:.2f} ms; it takes the engine's thread {:.3f} "
      "ms "
      "at most\n\n",
      alone.quantile(0.5), gb_per_s, beside.quantile(0.5), fill.quantile(1));
  Table table({"steps", "number", "median ms", "p99", "longest"});
  Json json = {{"bench", "swap"},
               {"model", options.model},
               {"rank", options.rank},
               {"rounds", options.rounds},
               {"device", {{"name", facts.name}, {"driver", facts.driver}}},
               {"bytes", adapter.bytes},
               {"pack_ms", pack_ms},
               {"swap_ms", alone.quantile(0.5)},
               {"gb_per_s", gb_per_s},
               {"fill_ms", fill.quantile(0.5)},
               {"swap_ms_beside_steps", beside.quantile(0.5)},
               {"steps", Json::array()}};
  const auto add = [&](const char* what, Times& times) {
    table.add({what, fmt::format("{}", times.ms.size()), fmt::format("{:.3f}", times.quantile(0.5)),
               fmt::format("{:.3f}", times.quantile(0.99)),
               fmt::format("{:.3f}", times.quantile(1))});
    json["steps"].push_back({{"beside", what},
                             {"number", times.ms.size()},
                             {"median_ms", times.quantile(0.5)},
                             {"p99_ms", times.quantile(0.99)},
                             {"longest_ms", times.quantile(1)}});
  };
  add("alone", quiet);
  add("while an adapter is packed", packing);
  add("while one is swapped in", swapping);
  fmt::print("{}", table.to_string());
  write_bench_json(options.json, json);
}

}  // namespace

void add_bench_swap(CLI::App& bench) {
  auto options = std::make_shared<SwapOptions>();
  CLI::App* command = bench.add_subcommand(
      "swap", "An adapter's way into GPU memory: rate, and how steps beside it fare");
  command->footer(
      "\nExample:\n  braid bench swap --model configs/Qwen3-30B-A3B/config.json --rank 16");
  command->add_option("--model", options->model, "A config.json, for its shapes")->required();
  command->add_option("--rank", options->rank, "Rank of the adapter on every module")
      ->capture_default_str();
  command->add_option("--rounds", options->rounds, "Swaps, each alone and beside steps")
      ->capture_default_str();
  command->add_option("--json", options->json, "Write the figures to this file")->type_name("FILE");
  command->callback([=] { run_bench_swap(*options); });
}

}  // namespace braid::apps
