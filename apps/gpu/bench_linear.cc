// braid bench linear: the linear layers of a model on the GPU, with and without adapters, against
// their byte floor.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <utility>

#include "apps/bench_json.h"
#include "apps/commands.h"
#include "apps/gpu/check_layer.h"
#include "apps/gpu/kernel_bench.h"
#include "apps/table.h"
#include "base/json.h"
#include "base/result.h"
#include "device/device.h"
#include "kernels/linear/pack.h"
#include "kernels/moe_gemm/dummy.h"
#include "reference/moe_stages.h"

namespace braid::apps {
namespace {

using kernels::LinearPlan;
using kernels::LinearShape;

struct LinearOptions {
  std::string model;
  std::vector<std::string> layers = {"qkv", "o", "router", "lm_head"};
  std::vector<int32_t> tokens = {1, 16, 64, 256};
  std::vector<int32_t> adapters = {1};
  int32_t rank = 16;
  int32_t rounds = 15;
  bool all_plans = false;
  std::string json;
};

struct NamedShape {
  std::string name;
  LinearShape shape;
  bool float_out = false;
};

Result<std::vector<NamedShape>> read_shapes(const std::string& path) {
  auto config = read_json_file(path);
  if (!config) return pass_on(config);
  const Json& text = config->contains("text_config") ? (*config)["text_config"] : *config;
  const auto get = [&](std::initializer_list<const char*> names) {
    for (const char* name : names) {
      if (text.contains(name) && text[name].is_number_integer()) return text[name].get<int32_t>();
    }
    return 0;
  };
  const int32_t hidden = get({"hidden_size"}), heads = get({"num_attention_heads"}),
                kv_heads = get({"num_key_value_heads"}), vocab = get({"vocab_size"}),
                experts = get({"num_experts", "num_local_experts", "n_routed_experts"});
  const int32_t head_dim = text.contains("head_dim") && text["head_dim"].is_number_integer()
                               ? text["head_dim"].get<int32_t>()
                               : hidden / std::max(heads, 1);
  constexpr WeightFormat kFp8 = WeightFormat::kFp8Block128, kBf16 = WeightFormat::kBf16;
  const int32_t q = heads * head_dim, kv = kv_heads * head_dim;
  std::vector<NamedShape> shapes = {
      {"qkv", {.format = kFp8, .in = hidden, .num_slices = 3, .slice_out = {q, kv, kv}}},
      {"o", {.format = kFp8, .in = q, .slice_out = {hidden}}},
      {"router", {.format = kBf16, .in = hidden, .slice_out = {experts}}, true},
      {"lm_head", {.format = kBf16, .in = hidden, .slice_out = {vocab}}, true}};
  for (const NamedShape& s : shapes) {
    if (auto why = why_unsupported(s.shape); !why.empty())
      return fail(ErrorCode::kInvalidArgument, "{}: {}: {}", path, s.name, why);
  }
  return shapes;
}

struct Row {
  std::string layer, plan;
  int32_t tokens, adapters, layers;  // adapters: 0, the base model alone
  Times times;
  double floor_us, tflops;
};

// One matrix and its adapters in many places of memory, a layer each.
class LinearRun {
 public:
  LinearRun(const NamedShape& named, int32_t max_tokens, int32_t max_adapters, int32_t rank,
            const Stream& stream)
      : named_(named), rank_(rank) {
    const LinearShape& shape = named.shape;
    std::mt19937_64 random(1);
    const auto out = static_cast<size_t>(shape.out()), in = static_cast<size_t>(shape.in);
    const bool fp8 = shape.format == WeightFormat::kFp8Block128;
    codes_.resize(out * in * (fp8 ? 1 : 2));
    for (size_t i = 0; i < codes_.size(); i += 8) {
      // Up to 1.875 in e4m3, 2^-9 .. 2^-1 in BF16.
      uint64_t bits = random();
      bits &= fp8 ? 0xbfbfbfbfbfbfbfbf : 0x83ff83ff83ff83ff;
      bits |= fp8 ? 0 : 0x3c003c003c003c00;
      std::memcpy(&codes_[i], &bits, 8);
    }
    int32_t row = 0;
    for (int32_t s = 0; s < shape.num_slices; ++s) {
      const int32_t rows = shape.slice_out[s];
      scales_.emplace_back(static_cast<size_t>((rows + 127) / 128 * ((shape.in + 127) / 128)),
                           1.0f / std::sqrt(static_cast<float>(shape.in)));
      slices_.push_back({.format = shape.format,
                         .rows = rows,
                         .cols = shape.in,
                         .data = &codes_[static_cast<size_t>(row) * in * (fp8 ? 1 : 2)],
                         .block_scale = fp8 ? scales_.back().data() : nullptr});
      row += rows;
    }
    std::vector<uint8_t> packed(static_cast<size_t>(kernels::linear_weight_bytes(shape)));
    kernels::pack_linear(shape, slices_, packed.data());
    // More than L2 holds, so that a layer's weights are gone when its turn comes again.
    layers_ = static_cast<int32_t>(std::clamp<size_t>((size_t{512} << 20) / packed.size(), 2, 96));
    for (int32_t l = 0; l < layers_; ++l) weights_.push_back(DeviceBuffer::of(packed));

    std::uniform_real_distribution<float> some(-1.0f, 1.0f);
    for (int32_t s = 0; s < shape.num_slices; ++s) {
      factors_.emplace_back(static_cast<size_t>(rank) * in);
      for (Bf16& a : factors_.back()) a = to_bf16(some(random) * 0.05f);
      factors_.emplace_back(static_cast<size_t>(rank * shape.slice_out[s]));
      for (Bf16& b : factors_.back()) b = to_bf16(some(random) * 0.2f);
    }
    for (int32_t s = 0; s < shape.num_slices; ++s) {
      pairs_.push_back({.a = factors_[static_cast<size_t>(2 * s)].data(),
                        .b_t = factors_[static_cast<size_t>(2 * s + 1)].data(),
                        .rank = rank,
                        .scaling = 2.0f});
    }
    const kernels::PackedLinearAdapter adapter = kernels::pack_linear_adapter(shape, pairs_);
    adapter_bytes_ = static_cast<double>(adapter.bytes.size());
    total_rank_ = adapter.slot.rank[0] + adapter.slot.rank[1] + adapter.slot.rank[2];
    for (int32_t l = 0; l < layers_; ++l) {
      std::vector<kernels::LinearAdapterSlot> slots;
      for (int32_t a = 0; a < max_adapters; ++a) {
        adapters_.push_back(DeviceBuffer::of(adapter.bytes));
        slots.push_back(adapter.placed_at(adapters_.back().data()));
      }
      slots_.push_back(DeviceBuffer::of(slots));
    }
    const auto tokens = static_cast<size_t>(max_tokens);
    x_ = DeviceBuffer(tokens * in * 2);
    kernels::fill_bf16(x_.as<Bf16>(), static_cast<int64_t>(tokens * in), 1.0f, 7, stream.get());
    y_ = DeviceBuffer(tokens * y_stride() * element_bytes());
    size_t bytes = 0;
    kernels::linear_workspace(max_tokens, shape.in, total_rank_, nullptr, &bytes);
    workspace_bytes_ = DeviceBuffer(bytes);
    workspace_bytes_.fill(0);
    workspace_ = kernels::linear_workspace(max_tokens, shape.in, total_rank_,
                                           workspace_bytes_.data(), nullptr);
    stream.wait();
  }

  int32_t layers() const { return layers_; }

  // Tokens take adapters in turn; none: the base model alone.
  void set_batch(int32_t num_tokens, int32_t num_adapters) {
    num_tokens_ = num_tokens, num_adapters_ = num_adapters;
    if (num_adapters == 0) return;
    DeviceBuffer& order = orders_[{num_tokens, num_adapters}];  // graphs read them later
    if (order.data() == nullptr) {
      std::vector<int32_t> slot_of_token;
      for (int32_t t = 0; t < num_tokens; ++t) slot_of_token.push_back(t % num_adapters);
      std::vector<std::byte> bytes(kernels::adapter_order_bytes(num_tokens, num_adapters));
      kernels::write_adapter_order(slot_of_token, num_adapters, rank_, bytes.data());
      order = DeviceBuffer::of(bytes);
    }
    order_ = kernels::adapter_order_at(order.data(), num_tokens, num_adapters);
  }

  kernels::LinearBf16Params params(int32_t layer) const {
    kernels::LinearBf16Params p = {.x = x_.as<Bf16>(),
                                   .x_stride = named_.shape.in,
                                   .shape = named_.shape,
                                   .weights = weights_[static_cast<size_t>(layer)].as<uint8_t>(),
                                   .y_stride = static_cast<int64_t>(y_stride()),
                                   .num_tokens = num_tokens_,
                                   .workspace = workspace_};
    if (named_.float_out) {
      p.y_float = y_.as<float>();
    } else {
      p.y = y_.as<Bf16>();
    }
    if (num_adapters_ > 0) {
      p.adapters = slots_[static_cast<size_t>(layer)].as<kernels::LinearAdapterSlot>();
      p.order = order_;
    }
    return p;
  }

  void enqueue(const LinearPlan& plan, const Stream& stream) const {
    for (int32_t l = 0; l < layers_; ++l) kernels::launch_linear(params(l), plan, stream.get());
  }

  // The least any implementation reads and writes, a layer.
  double bytes() const {
    const double in = named_.shape.in, out = named_.shape.out();
    const double weights = out * in * (named_.shape.format == WeightFormat::kBf16 ? 2 : 1);
    return weights + num_tokens_ * (2 * in + static_cast<double>(element_bytes()) * out) +
           std::min(num_adapters_, num_tokens_) * adapter_bytes_;
  }

  double flops() const {
    const double in = named_.shape.in, out = named_.shape.out();
    return 2.0 * num_tokens_ * in * out;
  }

  // Empty, or what is wrong with the last layer's outputs of the first and the last token.
  std::string why_wrong(const LinearPlan& plan, const Stream& stream) {
    y_.fill(0xff);  // NaN
    enqueue(plan, stream);
    stream.wait();
    for (const int32_t token : {0, num_tokens_ - 1}) {
      const auto out = static_cast<size_t>(named_.shape.out());
      std::vector<double> got;
      const size_t offset = static_cast<size_t>(token) * y_stride() * element_bytes();
      if (named_.float_out) {
        std::vector<float> y(out);
        y_.download_bytes(y.data(), 4 * out, offset);
        got.assign(y.begin(), y.end());
      } else {
        std::vector<Bf16> y(out);
        y_.download_bytes(y.data(), 2 * out, offset);
        for (const Bf16 value : y) got.push_back(to_float(value));
      }
      if (auto why = why_far(got, reference(token), 5e-3); !why.empty()) return why;
    }
    return "";
  }

 private:
  size_t y_stride() const { return static_cast<size_t>((named_.shape.out() + 7) / 8 * 8); }
  size_t element_bytes() const { return named_.float_out ? 4 : 2; }

  std::vector<double> reference(int32_t token) const {
    const auto in = static_cast<size_t>(named_.shape.in);
    std::vector<Bf16> row(in);
    x_.download_bytes(row.data(), 2 * in, 2 * in * static_cast<size_t>(token));
    std::vector<double> x, y;
    for (const Bf16 value : row) x.push_back(to_float(value));
    const bool fp8 = named_.shape.format == WeightFormat::kFp8Block128;
    const std::vector<double> used = fp8 ? braid::reference::quantize_e4m3(x, 128) : x;
    for (size_t s = 0; s < slices_.size(); ++s) {
      const size_t first = y.size();
      for (const auto& sum : braid::reference::multiply(slices_[s], used)) y.push_back(sum.value);
      if (num_adapters_ == 0) continue;
      const auto delta = braid::reference::lora_delta(pairs_[s], x, slices_[s].rows);
      for (size_t o = 0; o < delta.size(); ++o) y[first + o] += delta[o].value;
    }
    return y;
  }

  NamedShape named_;
  int32_t rank_, layers_ = 0, total_rank_ = 0, num_tokens_ = 0, num_adapters_ = 0;
  double adapter_bytes_ = 0;
  std::vector<uint8_t> codes_;
  std::vector<std::vector<float>> scales_;
  std::vector<WeightMatrix> slices_;
  std::vector<std::vector<Bf16>> factors_;
  std::vector<LoraPair> pairs_;
  std::vector<DeviceBuffer> weights_, adapters_, slots_;
  std::map<std::pair<int32_t, int32_t>, DeviceBuffer> orders_;  // by tokens and adapters
  kernels::AdapterOrder order_;
  DeviceBuffer x_, y_, workspace_bytes_;
  kernels::LinearWorkspace workspace_;
};

struct Arm {
  int32_t num_adapters;
  LinearPlan plan;
};

// The plan of each number of adapters, or all there are.
std::vector<Arm> arms_of(const LinearOptions& options, LinearRun& run, const LinearShape& shape,
                         int32_t tokens) {
  std::vector<int32_t> adapters = {0};
  for (const int32_t n : options.adapters) adapters.push_back(n);
  std::vector<Arm> arms;
  for (const int32_t n : adapters) {
    run.set_batch(tokens, n);
    if (!options.all_plans) {
      arms.push_back({n, plan_linear(shape, tokens)});
      continue;
    }
    const auto add = [&](const LinearPlan& plan) {
      if (why_unsupported(run.params(0), plan).empty()) arms.push_back({n, plan});
    };
    if (tokens >= 64) add({.large_batch = true});
    for (const int32_t tile : {8, 16, 32, 64}) {
      // Tiles of which most would be empty, or very many, are out of the question.
      if (tile >= 2 * std::max(tokens, 8) || (tile < 64 && 8 * tile < tokens)) continue;
      for (const bool in_cluster : {false, true})
        add({.tile_tokens = tile, .in_cluster = in_cluster});
    }
  }
  return arms;
}

void measure(const LinearOptions& options, const NamedShape& named, double read_rate,
             std::vector<Row>& rows) {
  const Stream stream;
  const int32_t max_tokens = *std::max_element(options.tokens.begin(), options.tokens.end());
  const int32_t max_adapters =
      std::max(1, *std::max_element(options.adapters.begin(), options.adapters.end()));
  LinearRun run(named, max_tokens, max_adapters, options.rank, stream);
  for (const int32_t tokens : options.tokens) {
    const std::vector<Arm> arms = arms_of(options, run, named.shape, tokens);
    std::vector<Graph> graphs;
    std::vector<Row> of_arms;
    for (const Arm& arm : arms) {
      run.set_batch(tokens, arm.num_adapters);
      // A wrong kernel gets no time.
      if (auto why = run.why_wrong(arm.plan, stream); !why.empty()) {
        leave(fmt::format("{}, {} tokens, {} adapters, {}: wrong results, {}; please report it",
                          named.name, tokens, arm.num_adapters, to_string(named.shape, arm.plan),
                          why));
      }
      of_arms.push_back({.layer = named.name,
                         .plan = to_string(named.shape, arm.plan),
                         .tokens = tokens,
                         .adapters = arm.num_adapters,
                         .layers = run.layers(),
                         .floor_us = run.bytes() / read_rate * 1e6,
                         .tflops = run.flops() * 1e-6});
    }
    for (const Arm& arm : arms) {
      run.set_batch(tokens, arm.num_adapters);
      graphs.push_back(Graph::capture(stream, [&] { run.enqueue(arm.plan, stream); }));
    }
    const std::vector<Times> times = time_in_turn(graphs, run.layers(), options.rounds, stream);
    for (size_t arm = 0; arm < arms.size(); ++arm) {
      Row& row = of_arms[arm];
      row.times = times[arm];
      row.tflops /= row.times.us;
      rows.push_back(row);
    }
  }
}

void run_bench_linear(const LinearOptions& options) {
  if (num_devices() == 0) leave("bench linear needs a GPU of compute capability 9.0");
  for (const auto* list : {&options.tokens, &options.adapters}) {
    for (const int32_t n : *list) {
      if (n < 1) leave(fmt::format("{}: tokens and adapters take numbers from 1 on", n), kUsage);
    }
  }
  if (options.rank < 1 || options.rank > 256)
    leave(fmt::format("--rank {}: takes 1 to 256", options.rank), kUsage);
  if (options.rounds < 1)
    leave(fmt::format("--rounds {}: takes 1 or more", options.rounds), kUsage);
  auto shapes = read_shapes(options.model);
  if (!shapes) leave(shapes.error().message);
  for (const std::string& name : options.layers) {
    if (std::none_of(shapes->begin(), shapes->end(), [&](auto& s) { return s.name == name; }))
      leave(fmt::format("--layers {}: takes qkv, o, router and lm_head", name), kUsage);
  }
  const MeasuredDevice device = measure_device();
  std::vector<Row> rows;
  for (const NamedShape& named : *shapes) {
    if (std::find(options.layers.begin(), options.layers.end(), named.name) != options.layers.end())
      measure(options, named, device.read_rate, rows);
  }

  fmt::print("{}; read rate {:.3f} TB/s; {}; rank {}\n\n", device.facts.name,
             device.read_rate / 1e12, options.model, options.rank);
  Table table({"layer", "tokens", "adapters", "plan", "layers", "us", "p10", "p90", "floor us",
               "of floor", "TFLOP/s"});
  Json json = {{"bench", "linear"},        {"model", options.model},    {"rank", options.rank},
               {"rounds", options.rounds}, {"device", to_json(device)}, {"rows", Json::array()}};
  for (const Row& r : rows) {
    table.add({r.layer, fmt::format("{}", r.tokens), fmt::format("{}", r.adapters), r.plan,
               fmt::format("{}", r.layers), fmt::format("{:.2f}", r.times.us),
               fmt::format("{:.2f}", r.times.p10), fmt::format("{:.2f}", r.times.p90),
               fmt::format("{:.2f}", r.floor_us),
               fmt::format("{:.1f}", 100 * r.floor_us / r.times.us),
               fmt::format("{:.1f}", r.tflops)});
    json["rows"].push_back(
        {{"name", fmt::format("{} T{} A{} {}", r.layer, r.tokens, r.adapters, r.plan)},
         {"layer", r.layer},
         {"tokens", r.tokens},
         {"adapters", r.adapters},
         {"plan", r.plan},
         {"layers", r.layers},
         {"us", r.times.us},
         {"us_p10", r.times.p10},
         {"us_p90", r.times.p90},
         {"floor_us", r.floor_us},
         {"floor_share", r.floor_us / r.times.us},
         {"tflops", r.tflops}});
  }
  fmt::print("{}", table.to_string());
  write_bench_json(options.json, json);
}

}  // namespace

void add_bench_linear(CLI::App& bench) {
  auto options = std::make_shared<LinearOptions>();
  CLI::App* command = bench.add_subcommand(
      "linear",
      "Linear layers on the GPU, with adapters and without: us a layer, share of the "
      "byte floor");
  command->footer(
      "\nExamples:\n"
      "  braid bench linear --model configs/Qwen3-30B-A3B/config.json --tokens 1,16,64\n"
      "  braid bench linear --model configs/Qwen3-30B-A3B/config.json --layers qkv,o --tokens "
      "16,2048 --adapters 1,8 --json out.json");
  const auto list = [&](const char* name, auto& to, const char* what) {
    command->add_option(name, to, what)->delimiter(',')->capture_default_str();
  };
  command->add_option("--model", options->model, "A config.json, for its sizes")->required();
  list("--layers", options->layers, "Which: qkv, o, router, lm_head");
  list("--tokens", options->tokens, "Tokens of a batch");
  list("--adapters", options->adapters, "Adapters that tokens take in turn; none is always there");
  command->add_option("--rank", options->rank, "Rank of the adapters")->capture_default_str();
  command->add_flag("--all-plans", options->all_plans, "Every plan instead of the chosen one");
  command->add_option("--rounds", options->rounds, "Rounds; the arms take turns")
      ->capture_default_str();
  command->add_option("--json", options->json, "Write the rows to this file")->type_name("FILE");
  command->callback([=] { run_bench_linear(*options); });
}

}  // namespace braid::apps
