// braid bench layer: one MoE layer with and without adapters on the GPU, against its byte floor
// and, in large batches, what tensor cores allow.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <random>

#include "apps/bench_json.h"
#include "apps/commands.h"
#include "apps/gpu/check_layer.h"
#include "apps/gpu/kernel_bench.h"
#include "apps/table.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/result.h"
#include "device/device.h"
#include "device/read_rate.h"
#include "kernels/moe_gemm/dummy.h"
#include "kernels/moe_gemm/large_batch.h"
#include "kernels/moe_gemm/layout.h"
#include "kernels/moe_gemm/moe_layer.h"
#include "kernels/moe_gemm/pack.h"

namespace braid::apps {
namespace {

using kernels::MoeAdapterSlot;
using kernels::MoeLayerParams;
using kernels::MoeLoraPlan;
using kernels::MoeSizes;

// By name; nothing for auto, which is the plan's own choice.
const std::map<std::string, std::optional<MoeLoraPlan>> kLoraPlans = {
    {"fused", MoeLoraPlan::kFused},
    {"two-stream", MoeLoraPlan::kTwoStream},
    {"serial", MoeLoraPlan::kSerial},
    {"auto", std::nullopt}};

const std::map<std::string, WeightFormat> kWeightFormats = {{"fp8", WeightFormat::kFp8Block128},
                                                            {"bf16", WeightFormat::kBf16},
                                                            {"nvfp4", WeightFormat::kNvfp4}};

struct LayerOptions {
  std::string model;
  std::string weights = "fp8";
  std::vector<int32_t> tokens = {1, 8, 16, 32, 64, 128, 256};
  std::vector<int32_t> adapters = {0, 1, 4};
  std::vector<int32_t> ranks = {16};
  std::vector<std::string> layouts = {"per-expert"};
  std::vector<std::string> lora_plans = {"auto"};
  std::string routing = "uniform";
  int32_t layers = 8;
  int32_t experts = 0;
  int32_t rounds = 15;
  int32_t tile_tokens = 0;
  int32_t prefetch = -1;
  int32_t guess = -1;
  int32_t small_batch = 8;
  int32_t side_ctas = -1;
  bool print_plans = false;
  std::string json;
};

Result<MoeSizes> read_sizes(const LayerOptions& options) {
  auto config = read_json_file(options.model);
  if (!config) return pass_on(config);
  const Json& text = config->contains("text_config") ? (*config)["text_config"] : *config;
  const auto get = [&](std::initializer_list<const char*> names) {
    for (const char* name : names) {
      if (text.contains(name) && text[name].is_number_integer()) return text[name].get<int32_t>();
    }
    return 0;
  };
  MoeSizes sizes = {.hidden_size = get({"hidden_size"}),
                    .moe_intermediate_size = get({"moe_intermediate_size"}),
                    .num_experts = get({"num_experts", "n_routed_experts"}),
                    .num_shared_experts = get({"n_shared_experts"}),
                    .top_k = get({"num_experts_per_tok"}),
                    .weight_format = kWeightFormats.at(options.weights)};
  if (get({"shared_expert_intermediate_size"}) == sizes.moe_intermediate_size &&
      sizes.moe_intermediate_size > 0)
    sizes.num_shared_experts = 1;
  if (options.experts > 0) sizes.num_experts = std::min(sizes.num_experts, options.experts);
  if (sizes.hidden_size == 0 || sizes.moe_intermediate_size == 0 || sizes.num_experts == 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: no mixture of experts in this configuration",
                options.model);
  }
  return sizes;
}

// Logits whose top_k follow the asked popularity: Gumbel noise on log weights draws experts without
// replacement in proportion to the weights.
std::vector<float> draw_logits(const LayerOptions& options, const MoeSizes& sizes,
                               int32_t num_tokens, std::mt19937& random) {
  std::vector<double> log_weight(static_cast<size_t>(sizes.num_experts), 0.0);
  std::vector<int32_t> order(log_weight.size());
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  for (size_t i = 0; i < order.size(); ++i) {
    double& w = log_weight[static_cast<size_t>(order[i])];
    if (options.routing.starts_with("zipf:"))
      w = -std::stod(options.routing.substr(5)) * std::log(static_cast<double>(i) + 1);
    if (options.routing == "hot") w = i < static_cast<size_t>(sizes.top_k) ? 50 : 0;
  }
  std::uniform_real_distribution<double> uniform(1e-12, 1.0);
  std::vector<float> logits;
  for (int32_t t = 0; t < num_tokens; ++t) {
    for (const double w : log_weight)
      logits.push_back(static_cast<float>(w - std::log(-std::log(uniform(random)))));
  }
  return logits;
}

// What one layer must read and write: weights of experts hit, factors of (expert, adapter) pairs
// hit, activations in and out.
struct LayerBytes {
  double base = 0;
  double lora = 0;
  int32_t experts_hit = 0;
};

LayerBytes count_bytes(const MoeSizes& s, const std::vector<float>& logits,
                       const std::vector<int32_t>& slots, const MoeAdapterSlot& adapter,
                       int32_t num_adapters) {
  const auto num_tokens = static_cast<int32_t>(slots.size());
  std::vector<char> hit(static_cast<size_t>(s.num_experts), 0);
  std::vector<char> pair_hit(static_cast<size_t>(s.all_experts() * std::max(1, num_adapters)), 0);
  std::vector<char> adapter_hit(static_cast<size_t>(std::max(1, num_adapters)), 0);
  std::vector<int32_t> order(static_cast<size_t>(s.num_experts));
  for (int32_t t = 0; t < num_tokens; ++t) {
    const float* row = logits.data() + int64_t{t} * s.num_experts;
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + s.top_k, order.end(),
                      [&](int32_t a, int32_t b) { return row[a] > row[b]; });
    const int32_t slot = slots[static_cast<size_t>(t)];
    const auto mark = [&](int32_t e) {
      if (slot < 0) return;
      pair_hit[static_cast<size_t>(slot * s.all_experts() + e)] = 1;
      adapter_hit[static_cast<size_t>(slot)] = 1;
    };
    for (int32_t k = 0; k < s.top_k; ++k) {
      hit[static_cast<size_t>(order[static_cast<size_t>(k)])] = 1;
      mark(order[static_cast<size_t>(k)]);
    }
    if (s.num_shared_experts > 0) mark(s.num_experts);
  }
  const auto count = [](const std::vector<char>& v) {
    return static_cast<double>(std::count(v.begin(), v.end(), 1));
  };
  LayerBytes bytes;
  const auto of_expert = static_cast<double>(
      3 * weight_bytes(s.weight_format, s.moe_intermediate_size, s.hidden_size));
  bytes.experts_hit = static_cast<int32_t>(count(hit)) + s.num_shared_experts;
  bytes.base =
      bytes.experts_hit * of_expert + num_tokens * (4.0 * s.hidden_size + 4.0 * s.num_experts);
  if (num_adapters == 0) return bytes;
  const double tiles = s.moe_intermediate_size / 64.0;
  const double shrink = 2.0 * s.hidden_size * 2 * adapter.rank_gate_up;
  const double expand =
      tiles * static_cast<double>(kernels::expand_tile_bytes(adapter.rank_gate_up));
  const double down_shrink =
      tiles * static_cast<double>(kernels::down_shrink_tile_bytes(adapter.rank_down));
  const double down_expand =
      s.hidden_size / 128.0 * static_cast<double>(kernels::expand_tile_bytes(adapter.rank_down));
  const double pairs = count(pair_hit), users = count(adapter_hit);
  bytes.lora = pairs * (expand + down_shrink) +
               (adapter.shrink_gate_up_stride == 0 ? users : pairs) * shrink +
               (adapter.expand_down_stride == 0 ? users : pairs) * down_expand;
  return bytes;
}

// Weights, factors and inputs of the layers, all distinct.
struct Layers {
  MoeSizes sizes;
  std::vector<DeviceBuffer> gate_up, down;
  std::vector<DeviceBuffer> factors;               // [layers]
  std::vector<std::vector<MoeAdapterSlot>> slots;  // [layers][max_adapters]
  std::vector<DeviceBuffer> adapters;              // [layers], the same
  MoeAdapterSlot adapter;                          // of any of them: ranks and strides
  int64_t factor_bytes = 0;                        // of one adapter on one layer
};

void make_adapters(Layers& layers, int32_t num_layers, int32_t max_adapters, int32_t rank,
                   bool shared, const Stream& stream) {
  const MoeSizes& s = layers.sizes;
  const int32_t r = (rank + 7) / 8 * 8;
  MoeAdapterSlot& a = layers.adapter;
  a = {.rank_gate_up = r, .rank_down = r, .scaling_gate = 1, .scaling_up = 1, .scaling_down = 1};
  const int64_t experts = s.all_experts(), tiles = s.moe_intermediate_size / 64;
  const int64_t shrink = int64_t{4} * s.hidden_size * r,
                expand = tiles * kernels::expand_tile_bytes(r);
  const int64_t down_shrink = tiles * kernels::down_shrink_tile_bytes(r);
  const int64_t down_expand = s.hidden_size / 128 * kernels::expand_tile_bytes(r);
  a.shrink_gate_up_stride = shared ? 0 : shrink;
  a.expand_gate_up_stride = expand;
  a.shrink_down_stride = down_shrink;
  a.expand_down_stride = shared ? 0 : down_expand;
  const int64_t parts[4] = {shared ? shrink : experts * shrink, experts * expand,
                            experts * down_shrink, shared ? down_expand : experts * down_expand};
  layers.factor_bytes = parts[0] + parts[1] + parts[2] + parts[3];
  layers.factors.clear(), layers.slots.clear(), layers.adapters.clear();
  for (int32_t l = 0; l < num_layers && max_adapters > 0; ++l) {
    const DeviceBuffer& all =
        layers.factors.emplace_back(static_cast<size_t>(layers.factor_bytes * max_adapters));
    // Deltas of about a third of what they are added to, so that the check sees them.
    const float size = 4.0f / std::sqrt(static_cast<float>(s.hidden_size));
    kernels::fill_bf16(all.as<Bf16>(), static_cast<int64_t>(all.bytes() / 2), size,
                       static_cast<uint64_t>(100 + l), stream.get());
    std::vector<MoeAdapterSlot>& slots = layers.slots.emplace_back();
    for (int32_t i = 0; i < max_adapters; ++i) {
      MoeAdapterSlot slot = a;
      const uint8_t* at = all.as<uint8_t>() + i * layers.factor_bytes;
      slot.shrink_gate_up = at;
      slot.expand_gate_up = at += parts[0];
      slot.shrink_down = at += parts[1];
      slot.expand_down = at += parts[2];
      slots.push_back(slot);
    }
    layers.adapters.push_back(DeviceBuffer::of(slots));
  }
  stream.wait();
}

struct Arm {
  std::string name;
  int32_t num_adapters = 0;
  std::optional<MoeLoraPlan> lora_plan;
  bool loaded_only = false;  // adapters are there, no token uses one
  LayerBytes bytes;          // mean of the layers
  kernels::MoePlan plan;
  std::vector<DeviceBuffer> slots;  // of tokens, by layer
};

std::vector<Arm> make_arms(const LayerOptions& options) {
  std::vector<Arm> arms;
  for (const int32_t n : options.adapters) {
    if (n == 0) arms.emplace_back().name = "base";
    for (const std::string& name : options.lora_plans) {
      if (n == 0) continue;
      Arm& arm = arms.emplace_back();
      arm.num_adapters = n, arm.lora_plan = kLoraPlans.at(name);
      arm.name = fmt::format("{} adapters{}", n, name == "auto" ? "" : " " + name);
    }
  }
  const int32_t most = *std::max_element(options.adapters.begin(), options.adapters.end());
  if (most > 0) {
    Arm& arm = arms.emplace_back();
    arm.name = "loaded", arm.num_adapters = most, arm.loaded_only = true;
    arm.lora_plan = kLoraPlans.at(options.lora_plans.front());
  }
  return arms;
}

kernels::MoePlan make_plan(const LayerOptions& options, const MoeSizes& sizes, int32_t tokens,
                           const Arm& arm, int32_t num_sms) {
  kernels::MoePlan plan =
      kernels::plan_moe_layer(sizes, tokens, arm.num_adapters > 0, num_sms, arm.lora_plan);
  if (options.tile_tokens > 0) plan.tile_tokens = options.tile_tokens, plan.large_batch = false;
  if (options.prefetch >= 0) plan.num_prefetched_experts = options.prefetch;
  if (options.guess >= 0) plan.num_guessed_experts = options.guess;
  if (options.side_ctas >= 0 && plan.num_side_ctas > 0) plan.num_side_ctas = options.side_ctas;
  // A guessed tile is its CTA's.
  plan.num_guessed_experts = std::min(
      plan.num_guessed_experts, kernels::most_guessed_experts(sizes, plan, arm.num_adapters > 0));
  if (tokens > options.small_batch) plan.small_batch = false;
  return plan;
}

void print_plans(const LayerOptions& options, const MoeSizes& sizes) {
  constexpr int32_t kSmsOfH100 = 132;
  const int32_t num_sms = num_devices() > 0 ? device_facts().num_sms : kSmsOfH100;
  for (const int32_t tokens : options.tokens) {
    for (const Arm& arm : make_arms(options)) {
      if (arm.loaded_only) continue;
      const kernels::MoePlan plan = make_plan(options, sizes, tokens, arm, num_sms);
      fmt::print("T {} {}: {}{}\n", tokens, arm.name,
                 arm.num_adapters > 0 ? fmt::format("LoRA {}, ", to_string(plan.lora_plan)) : "",
                 to_string(plan));
    }
  }
}

struct Row {
  int32_t tokens, rank, num_adapters;
  std::string layout, arm, lora_plan;
  int32_t experts_hit, tile_tokens;
  Times times;
  double floor_us, share, ratio, floor_ratio;
  double tflops;       // of the experts' products a second, adapters not counted
  double bound_share;  // of the larger of the byte floor and these products at the highest clock
};

// Dense products and sums of an SM in a clock.
double flops_per_clock(WeightFormat format) {
  return format == WeightFormat::kFp8Block128 ? 8192 : 4096;
}

class LayerBench {
 public:
  LayerBench(const LayerOptions& options, const MoeSizes& sizes) : options_(options) {
    device_.facts = device_facts();
    layers_.sizes = sizes;
    const int64_t experts = sizes.all_experts();
    for (int32_t l = 0; l < options.layers; ++l) {
      const auto add = [&](std::vector<DeviceBuffer>& to, int64_t bytes, int32_t columns,
                           int seed) {
        const DeviceBuffer& buffer = to.emplace_back(static_cast<size_t>(experts * bytes));
        kernels::fill_moe_weights(sizes.weight_format, buffer.as<uint8_t>(), experts * bytes,
                                  columns, static_cast<uint64_t>(seed), stream_.get());
      };
      add(layers_.gate_up, kernels::expert_gate_up_bytes(sizes), sizes.hidden_size, 2 * l + 1);
      add(layers_.down, kernels::expert_down_bytes(sizes), sizes.moe_intermediate_size, 2 * l + 2);
    }
    stream_.wait();
    // A longer stretch gives a truer rate; a model that fills the memory leaves no room for one.
    const DeviceBuffer& first = layers_.gate_up[0];
    if (first.bytes() < (size_t{1} << 30) && layers_.gate_up.size() > 1) {
      device_ = measure_device();
    } else {
      device_.read_rate = measure_read_rate(
          first.data(), std::min<size_t>(first.bytes(), size_t{4} << 30), stream_);
    }
  }

  void run(int32_t rank, const std::string& layout) {
    const int32_t most = *std::max_element(options_.adapters.begin(), options_.adapters.end());
    make_adapters(layers_, options_.layers, most, rank, layout == "shared-outer", stream_);
    for (const int32_t tokens : options_.tokens) run_tokens(tokens, rank, layout, most);
  }

  const std::vector<Row>& rows() const { return rows_; }
  const MeasuredDevice& device() const { return device_; }

 private:
  void run_tokens(int32_t tokens, int32_t rank, const std::string& layout, int32_t most) {
    const MoeSizes& s = layers_.sizes;
    std::mt19937 random(static_cast<uint32_t>(tokens));
    std::vector<std::vector<float>> logits;
    std::vector<DeviceBuffer> device_logits;
    for (int32_t l = 0; l < options_.layers; ++l) {
      logits.push_back(draw_logits(options_, s, tokens, random));
      device_logits.push_back(DeviceBuffer::of(logits.back()));
    }
    const DeviceBuffer x(static_cast<size_t>(tokens) * static_cast<size_t>(s.hidden_size) * 2);
    DeviceBuffer y(x.bytes());
    const DeviceBuffer ids(static_cast<size_t>(tokens * s.top_k) * 4);
    kernels::fill_bf16(x.as<Bf16>(), static_cast<int64_t>(x.bytes() / 2), 1.0f, 7, stream_.get());
    base_y_.clear(), base_reference_.clear();
    std::vector<Arm> arms = make_arms(options_);
    const auto workspace_at = [&](MoeLoraPlan lora_plan, void* base, size_t* bytes) {
      return kernels::moe_workspace(s, tokens, std::max(1, most), std::max(8, rank), base, bytes,
                                    lora_plan);
    };
    size_t most_bytes = 0;
    for (Arm& arm : arms) {
      arm.plan = make_plan(options_, s, tokens, arm, device_.facts.num_sms);
      size_t bytes = 0;
      workspace_at(arm.plan.lora_plan, nullptr, &bytes);
      most_bytes = std::max(most_bytes, bytes);
    }
    DeviceBuffer workspace(most_bytes);
    workspace.fill(0);
    std::vector<Graph> graphs;
    for (Arm& arm : arms) {
      std::vector<int32_t> slots;
      for (int32_t t = 0; t < tokens; ++t) {
        slots.push_back(arm.num_adapters == 0 || arm.loaded_only ? kNoAdapter
                                                                 : t % arm.num_adapters);
      }
      arm.slots.push_back(DeviceBuffer::of(slots));
      for (const auto& of_layer : logits) {
        const LayerBytes one = count_bytes(s, of_layer, slots, layers_.adapter, arm.num_adapters);
        arm.bytes.base += one.base / options_.layers;
        arm.bytes.lora += one.lora / options_.layers;
        arm.bytes.experts_hit += one.experts_hit;
      }
      arm.bytes.experts_hit /= options_.layers;
      const auto enqueue = [&] {
        for (int32_t l = 0; l < options_.layers; ++l) {
          const auto at = static_cast<size_t>(l);
          MoeLayerParams p;
          p.sizes = s, p.num_tokens = tokens;
          p.x = x.as<Bf16>(), p.y = y.as<Bf16>();
          p.logits = device_logits[at].as<float>();
          p.topk_ids = ids.as<int32_t>();
          p.weights = {layers_.gate_up[at].as<uint8_t>(), layers_.down[at].as<uint8_t>()};
          if (arm.num_adapters > 0) {
            p.adapters = layers_.adapters[at].as<MoeAdapterSlot>();
            p.adapter_slot_of_token = arm.slots[0].as<int32_t>();
            p.num_slots = most;
          }
          p.workspace = workspace_at(arm.plan.lora_plan, workspace.data(), nullptr);
          kernels::launch_moe_layer(p, arm.plan, stream_.get(), side_.get());
        }
      };
      y.fill(0xff);  // NaN
      enqueue();
      stream_.wait();
      check_last_layer(arm, slots, logits.back(), x, y, layout);
      graphs.push_back(Graph::capture(stream_, enqueue));
    }
    const auto times = time_in_turn(graphs, options_.layers, options_.rounds, stream_);
    const Times* base = nullptr;
    for (size_t i = 0; i < arms.size(); ++i) {
      const Arm& arm = arms[i];
      if (arm.num_adapters == 0) base = &times[i];
      const auto total = arm.bytes.base + (arm.loaded_only ? 0 : arm.bytes.lora);
      Row row = {};
      row.tokens = tokens, row.rank = rank, row.num_adapters = arm.num_adapters;
      row.layout = layout, row.arm = arm.name;
      if (arm.num_adapters > 0) row.lora_plan = to_string(arm.plan.lora_plan);
      row.experts_hit = arm.bytes.experts_hit;
      row.tile_tokens = arm.plan.large_batch ? kernels::kLargeTileTokens : arm.plan.tile_tokens;
      row.times = times[i];
      row.floor_us = total / device_.read_rate * 1e6;
      row.share = row.floor_us / row.times.us;
      row.ratio = base != nullptr ? base->us / row.times.us : 0;
      row.floor_ratio = arm.bytes.base / total;
      const double flops =
          6.0 * s.hidden_size * s.moe_intermediate_size * s.pairs_per_token() * tokens;
      const double peak =
          flops_per_clock(s.weight_format) * device_.facts.num_sms * 1e3 * device_.facts.clock_khz;
      row.tflops = flops / row.times.us / 1e6;
      row.bound_share = std::max(row.floor_us, flops / peak * 1e6) / row.times.us;
      rows_.push_back(row);
    }
  }

  // A wrong layer gets no time: first and last token against the reference, what adapters add to
  // them by itself, and a batch that uses none of the adapters loaded bit for bit against base.
  void check_last_layer(const Arm& arm, const std::vector<int32_t>& slots,
                        const std::vector<float>& logits, const DeviceBuffer& x,
                        const DeviceBuffer& y, const std::string& layout) {
    // FP8 sums of 14 bits make some codes of h fall to the other side, each by an eighth. A delta
    // is a small part of the output they disturb; one that is missing, or another's, is off by all
    // of it.
    constexpr double kTolerance = 2e-2, kDeltaTolerance = 0.15;
    const auto hidden = static_cast<size_t>(layers_.sizes.hidden_size);
    const std::vector<Bf16> inputs = x.download<Bf16>(x.bytes() / 2),
                            outputs = y.download<Bf16>(y.bytes() / 2);
    const auto require = [&](const std::string& why) {
      if (why.empty()) return;
      leave(fmt::format("T {}, {}, {}: wrong results, {}; please report it", slots.size(), layout,
                        arm.name, why));
    };
    if (arm.num_adapters == 0) base_y_ = outputs;
    if (arm.loaded_only && !base_y_.empty())
      require(outputs == base_y_ ? "" : "not the bits of the base model");
    LayerToCheck layer = {.sizes = layers_.sizes,
                          .gate_up = &layers_.gate_up.back(),
                          .down = &layers_.down.back(),
                          .logits = logits.data(),
                          .x = inputs.data()};
    for (const size_t token : {size_t{0}, slots.size() - 1}) {
      const auto row = [&](const std::vector<Bf16>& values) {
        std::vector<double> out;
        for (size_t i = 0; i < hidden; ++i) out.push_back(to_float(values[token * hidden + i]));
        return out;
      };
      const auto minus = [&](std::vector<double> a, const std::vector<double>& b) {
        for (size_t i = 0; i < hidden; ++i) a[i] -= b[i];
        return a;
      };
      std::vector<double>& base = base_reference_[token];
      if (base.empty()) base = reference_output(layer, static_cast<int32_t>(token));
      const int32_t slot = slots[token];
      if (slot == kNoAdapter) {
        require(why_far(row(outputs), base, kTolerance));
        continue;
      }
      LayerToCheck adapted = layer;
      adapted.factors = &layers_.factors.back();
      adapted.slot = &layers_.slots.back()[static_cast<size_t>(slot)];
      const std::vector<double> want = reference_output(adapted, static_cast<int32_t>(token));
      require(why_far(row(outputs), want, kTolerance));
      if (base_y_.empty()) continue;
      require(why_far(minus(row(outputs), row(base_y_)), minus(want, base), kDeltaTolerance));
    }
  }

  LayerOptions options_;
  MeasuredDevice device_;
  Stream stream_;
  ForkJoin side_;
  Layers layers_;
  std::vector<Row> rows_;
  // Of the tokens and logits being measured.
  std::vector<Bf16> base_y_;
  std::map<size_t, std::vector<double>> base_reference_;
};

void print_rows(const LayerBench& bench, const MoeSizes& s, const LayerOptions& options) {
  fmt::print(
      "{}; read rate {:.3f} TB/s; {}, {}: H {}, I {}, {} + {} experts, top {}; routing {}\n\n",
      bench.device().facts.name, bench.device().read_rate / 1e12, options.model, options.weights,
      s.hidden_size, s.moe_intermediate_size, s.num_experts, s.num_shared_experts, s.top_k,
      options.routing);
  Table table({"tokens", "layout", "rank", "arm", "hit", "tile", "us", "p10", "p90", "floor us",
               "of floor", "of base", "bytes allow", "quotient", "TFLOP/s", "of bound"});
  for (const Row& r : bench.rows()) {
    table.add({fmt::format("{}", r.tokens), r.layout, fmt::format("{}", r.rank), r.arm,
               fmt::format("{}", r.experts_hit), fmt::format("{}", r.tile_tokens),
               fmt::format("{:.2f}", r.times.us), fmt::format("{:.2f}", r.times.p10),
               fmt::format("{:.2f}", r.times.p90), fmt::format("{:.2f}", r.floor_us),
               fmt::format("{:.1f}", 100 * r.share), fmt::format("{:.1f}", 100 * r.ratio),
               fmt::format("{:.1f}", 100 * r.floor_ratio),
               fmt::format("{:.3f}", r.ratio / r.floor_ratio), fmt::format("{:.0f}", r.tflops),
               fmt::format("{:.1f}", 100 * r.bound_share)});
  }
  fmt::print("{}", table.to_string());
}

Json to_json(const LayerBench& bench, const LayerOptions& options) {
  Json json = {{"bench", "layer"},
               {"model", options.model},
               {"weights", options.weights},
               {"routing", options.routing},
               {"layers", options.layers},
               {"rounds", options.rounds},
               {"device", to_json(bench.device())},
               {"rows", Json::array()}};
  for (const Row& r : bench.rows()) {
    json["rows"].push_back(
        {{"name", fmt::format("T{} {} r{} {}", r.tokens, r.layout, r.rank, r.arm)},
         {"tokens", r.tokens},
         {"layout", r.layout},
         {"rank", r.rank},
         {"adapters", r.num_adapters},
         {"lora_plan", r.lora_plan},
         {"experts_hit", r.experts_hit},
         {"tile_tokens", r.tile_tokens},
         {"us", r.times.us},
         {"us_p10", r.times.p10},
         {"us_p90", r.times.p90},
         {"floor_us", r.floor_us},
         {"floor_share", r.share},
         {"ratio", r.ratio},
         {"floor_ratio", r.floor_ratio},
         {"tflops", r.tflops},
         {"bound_share", r.bound_share}});
  }
  return json;
}

void run_bench_layer(const LayerOptions& options) {
  for (const std::string& plan : options.lora_plans) {
    if (options.weights != "fp8" && (plan == "two-stream" || plan == "serial"))
      leave(fmt::format("--lora-plan {} takes --weights fp8", plan), 2);
  }
  auto sizes = read_sizes(options);
  if (!sizes) leave(sizes.error().message);
  if (options.print_plans) return print_plans(options, *sizes);
  if (num_devices() == 0) leave("bench layer needs a GPU of compute capability 9.0");
  LayerBench bench(options, *sizes);
  for (const std::string& layout : options.layouts) {
    for (const int32_t rank : options.ranks) bench.run(rank, layout);
  }
  print_rows(bench, *sizes, options);
  write_bench_json(options.json, to_json(bench, options));
}

}  // namespace

void add_bench_layer(CLI::App& bench) {
  auto options = std::make_shared<LayerOptions>();
  CLI::App* command = bench.add_subcommand(
      "layer", "One MoE layer on the GPU: us, share of the byte floor, adapters over base");
  command->footer(
      "\nExamples:\n"
      "  braid bench layer --model configs/Qwen3.5-35B-A3B/config.json --tokens 1,8,64\n"
      "  braid bench layer --model configs/Qwen3-30B-A3B/config.json --adapters 0,1,4,8 --rank 16 "
      "--layout per-expert,shared-outer --json out.json\n"
      "  braid bench layer --model configs/Qwen3.5-35B-A3B/config.json --adapters 0,1,8 "
      "--lora-plan "
      "fused,two-stream,serial");
  const auto list = [&](const char* name, auto& to, const char* what) {
    command->add_option(name, to, what)->delimiter(',')->capture_default_str();
  };
  command->add_option("--model", options->model, "A config.json, for its sizes")->required();
  command->add_option("--weights", options->weights, "Format of the weights: fp8, bf16 or nvfp4")
      ->check(CLI::IsMember(kWeightFormats))
      ->capture_default_str();
  list("--tokens", options->tokens, "Tokens in the batch");
  list("--adapters", options->adapters, "Different adapters in the batch; 0 is the base alone");
  list("--rank", options->ranks, "Ranks of the adapters");
  list("--layout", options->layouts, "per-expert, shared-outer");
  command
      ->add_option("--lora-plan", options->lora_plans,
                   "Where the adapters' part is computed: fused, two-stream, serial, or auto, the "
                   "fastest by measurement; of several each is an arm")
      ->delimiter(',')
      ->check(CLI::IsMember(kLoraPlans))
      ->capture_default_str();
  command->add_option("--routing", options->routing, "uniform, zipf:S or hot")
      ->capture_default_str();
  command->add_option("--layers", options->layers, "Layers in the graph, all distinct")
      ->capture_default_str();
  command->add_option("--experts", options->experts, "At most so many experts, to fit in memory");
  command->add_option("--rounds", options->rounds, "Rounds; the arms take turns")
      ->capture_default_str();
  command->add_option("--tile", options->tile_tokens, "Tokens of a tile instead of the plan's");
  command->add_option("--prefetch", options->prefetch, "Experts prefetched instead of the plan's");
  command->add_option("--guess", options->guess, "Experts guessed instead of the plan's");
  command
      ->add_option("--small-batch", options->small_batch,
                   "Tokens up to which the GEMMs choose the experts themselves")
      ->capture_default_str();
  command->add_option("--side-ctas", options->side_ctas,
                      "CTAs left to the side stream instead of the plan's");
  command->add_flag("--print-plans", options->print_plans,
                    "Show how each batch would be run, and measure nothing");
  command->add_option("--json", options->json, "Write the rows to this file")->type_name("FILE");
  command->callback([=] { run_bench_layer(*options); });
}

}  // namespace braid::apps
