// braid bench attention: attention over a paged cache on the GPU, against its byte floor.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>

#include "apps/bench_json.h"
#include "apps/commands.h"
#include "apps/gpu/check_layer.h"
#include "apps/gpu/kernel_bench.h"
#include "apps/table.h"
#include "base/json.h"
#include "base/result.h"
#include "device/device.h"
#include "kernels/attention/attention_bf16.h"
#include "kernels/moe_gemm/dummy.h"
#include "quant/e4m3.h"

namespace braid::apps {
namespace {

using kernels::KvFormat;

struct AttentionOptions {
  std::string model;
  std::vector<int32_t> batch;
  std::vector<int32_t> context = {2048};
  std::vector<int32_t> prefill;
  std::vector<int32_t> past = {0};
  std::vector<std::string> kv = {"bf16"};
  int32_t block_size = 16;
  int32_t rounds = 15;
  std::string json;
};

struct Heads {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;

  int32_t qkv_width() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
};

Result<Heads> read_heads(const std::string& path) {
  auto config = read_json_file(path);
  if (!config) return pass_on(config);
  const Json& text = config->contains("text_config") ? (*config)["text_config"] : *config;
  const auto get = [&](const char* name) {
    return text.contains(name) && text[name].is_number_integer() ? text[name].get<int32_t>() : 0;
  };
  Heads heads = {.num_heads = get("num_attention_heads"),
                 .num_kv_heads = get("num_key_value_heads"),
                 .head_dim = get("head_dim")};
  if (heads.head_dim == 0 && heads.num_heads > 0)
    heads.head_dim = get("hidden_size") / heads.num_heads;
  if (heads.num_heads < 1 || heads.num_kv_heads < 1 || heads.head_dim < 1) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: num_attention_heads, num_key_value_heads and head_dim are {}, {} and {}", path,
                heads.num_heads, heads.num_kv_heads, heads.head_dim);
  }
  return heads;
}

struct Row {
  std::string kind, kv;  // kind: "decode", "decode + rope", "prefill"
  int32_t sequences, queries, context, layers;
  Times times;
  double floor_us, tflops;
};

// Sequences of one length over distinct caches, a layer each, blocks in random order.
class AttentionRun {
 public:
  AttentionRun(const AttentionOptions& options, const Heads& heads, KvFormat format,
               int32_t sequences, int32_t queries, int32_t context, const Stream& stream)
      : heads_(heads), sequences_(sequences), queries_(queries), context_(context) {
    const int32_t blocks = (context + options.block_size - 1) / options.block_size;
    const int64_t rows = int64_t{sequences} * blocks * options.block_size;
    const int64_t cache_bytes =
        rows * heads.num_kv_heads * heads.head_dim * kernels::element_bytes(format);
    // More than L2 holds, so that a layer's keys are gone when its turn comes again.
    constexpr int64_t kAllLayers = 512 << 20;
    layers_ = static_cast<int32_t>(std::clamp<int64_t>(kAllLayers / (2 * cache_bytes), 4, 48));
    num_sms_ = device_facts().num_sms;
    table_host_.resize(static_cast<size_t>(sequences * blocks));
    std::iota(table_host_.begin(), table_host_.end(), 0);
    std::shuffle(table_host_.begin(), table_host_.end(), std::mt19937(1));
    table_ = DeviceBuffer::of(table_host_);
    std::vector<int32_t> indptr = {0}, lengths, positions, slots;
    for (int32_t s = 0; s < sequences; ++s) {
      indptr.push_back(indptr.back() + queries);
      lengths.push_back(context);
      for (int32_t position = context - queries; position < context; ++position) {
        positions.push_back(position);
        const int32_t block =
            table_host_[static_cast<size_t>(s * blocks + position / options.block_size)];
        slots.push_back(block * options.block_size + position % options.block_size);
      }
    }
    indptr_ = DeviceBuffer::of(indptr), lengths_ = DeviceBuffer::of(lengths);
    positions_ = DeviceBuffer::of(positions), slots_ = DeviceBuffer::of(slots);
    std::vector<float> inv_freq;
    for (int32_t i = 0; i < heads.head_dim / 2; ++i)
      inv_freq.push_back(
          std::pow(1e6f, -2.0f * static_cast<float>(i) / static_cast<float>(heads.head_dim)));
    inv_freq_ = DeviceBuffer::of(inv_freq);
    const int32_t tokens = sequences * queries;
    qkv_ = DeviceBuffer(static_cast<size_t>(tokens) * static_cast<size_t>(heads.qkv_width()) * 2);
    out_ = DeviceBuffer(static_cast<size_t>(tokens * heads.num_heads) *
                        static_cast<size_t>(heads.head_dim) * 2);
    // Scores of a few units, so that weights are neither equal nor all one key's.
    kernels::fill_bf16(qkv_.as<Bf16>(), static_cast<int64_t>(qkv_.bytes() / 2), 4.0f, 3,
                       stream.get());
    kv_ = {.format = format,
           .k_scale = format == KvFormat::kE4m3 ? 4.0f / kE4m3Max : 1.0f,
           .v_scale = format == KvFormat::kE4m3 ? 4.0f / kE4m3Max : 1.0f,
           .num_kv_heads = heads.num_kv_heads,
           .block_size = options.block_size,
           .head_dim = heads.head_dim};
    for (int32_t l = 0; l < layers_; ++l) {
      k_.emplace_back(static_cast<size_t>(cache_bytes));
      v_.emplace_back(static_cast<size_t>(cache_bytes));
      fill_layer(l, rows, stream);
    }
    size_t bytes = 0;
    kernels::attention_workspace(sequences, heads.num_heads, heads.head_dim, nullptr, &bytes);
    workspace_bytes_ = DeviceBuffer(bytes);
    workspace_bytes_.fill(0);
    workspace_ = kernels::attention_workspace(sequences, heads.num_heads, heads.head_dim,
                                              workspace_bytes_.data(), nullptr);
    stream.wait();
  }

  int32_t layers() const { return layers_; }

  void enqueue(bool with_rope, const Stream& stream) const {
    for (int32_t l = 0; l < layers_; ++l) {
      if (queries_ == 1 && with_rope) {
        kernels::launch_rope_attention_decode(rope_params(l), params(l), workspace_, num_sms_,
                                              stream.get());
      } else if (queries_ == 1) {
        kernels::launch_attention_decode(params(l), workspace_, num_sms_, stream.get());
      } else {
        if (with_rope) kernels::launch_rope_kv_write(rope_params(l), stream.get());
        kernels::launch_attention_prefill(params(l), sequences_ * queries_, stream.get());
      }
    }
  }

  // The least any implementation reads and writes, a layer.
  double bytes() const {
    const double key_elements = 2.0 * sequences_ * context_ * heads_.num_kv_heads * heads_.head_dim;
    return key_elements * static_cast<double>(kernels::element_bytes(kv_.format)) +
           4.0 * sequences_ * queries_ * heads_.num_heads * heads_.head_dim;
  }

  double flops() const {
    const double pairs = queries_ * (context_ - 0.5 * (queries_ - 1));  // a query sees its past
    return 4.0 * sequences_ * pairs * heads_.num_heads * heads_.head_dim;
  }

  // Empty, or what is wrong with the last layer's outputs of the first and the last token.
  std::string why_wrong(const Stream& stream) {
    out_.fill(0xff);  // NaN
    enqueue(/*with_rope=*/false, stream);
    stream.wait();
    for (const int32_t sequence : {0, sequences_ - 1}) {
      const int32_t query = sequence == 0 ? 0 : queries_ - 1;
      std::vector<double> got, want;
      const auto row = static_cast<size_t>(heads_.num_heads * heads_.head_dim);
      const size_t token = static_cast<size_t>(sequence * queries_ + query);
      std::vector<Bf16> out(row);
      out_.download_bytes(out.data(), 2 * row, 2 * row * token);
      for (const Bf16 x : out) got.push_back(to_float(x));
      want = reference(sequence, query);
      // Weights and outputs are rounded to BF16.
      if (auto why = why_far(got, want, 5e-3); !why.empty()) return why;
    }
    return "";
  }

 private:
  kernels::PagedKv kv(int32_t layer) const {
    kernels::PagedKv kv = kv_;
    kv.k_cache = k_[static_cast<size_t>(layer)].data();
    kv.v_cache = v_[static_cast<size_t>(layer)].data();
    return kv;
  }

  kernels::RopeKvWriteBf16Params rope_params(int32_t layer) const {
    return {.qkv = qkv_.as<Bf16>(),
            .qkv_stride = heads_.qkv_width(),
            .inv_freq = inv_freq_.as<float>(),
            .positions = positions_.as<int32_t>(),
            .kv_slot_of_token = slots_.as<int32_t>(),
            .kv = kv(layer),
            .num_tokens = sequences_ * queries_,
            .num_heads = heads_.num_heads,
            .rotary_dim = heads_.head_dim};
  }

  kernels::AttentionBf16Params params(int32_t layer) const {
    return {.q = qkv_.as<Bf16>(),
            .q_stride = heads_.qkv_width(),
            .out = out_.as<Bf16>(),
            .kv = kv(layer),
            .query_indptr = indptr_.as<int32_t>(),
            .context_len = lengths_.as<int32_t>(),
            .block_table = table_.as<int32_t>(),
            .num_sequences = sequences_,
            .max_kv_blocks = static_cast<int32_t>(table_host_.size()) / sequences_,
            .num_heads = heads_.num_heads,
            .softmax_scale = 1.0f / std::sqrt(static_cast<float>(heads_.head_dim))};
  }

  // Random keys and values in every slot, through the kernel that writes them in a model.
  void fill_layer(int32_t layer, int64_t rows, const Stream& stream) const {
    constexpr int32_t kChunk = 16384;
    const int32_t kv_heads = heads_.num_kv_heads, width = 3 * kv_heads * heads_.head_dim;
    const DeviceBuffer chunk(static_cast<size_t>(kChunk) * static_cast<size_t>(width) * 2);
    for (int64_t first = 0; first < rows; first += kChunk) {
      const auto count = static_cast<int32_t>(std::min<int64_t>(kChunk, rows - first));
      std::vector<int32_t> slots(static_cast<size_t>(count)), zeros(slots.size(), 0);
      std::iota(slots.begin(), slots.end(), static_cast<int32_t>(first));
      const DeviceBuffer slots_device = DeviceBuffer::of(slots),
                         zeros_device = DeviceBuffer::of(zeros);
      kernels::fill_bf16(chunk.as<Bf16>(), int64_t{count} * width, 1.0f,
                         static_cast<uint64_t>(layer * 1000003 + first + 5), stream.get());
      kernels::launch_rope_kv_write({.qkv = chunk.as<Bf16>(),
                                     .qkv_stride = width,
                                     .positions = zeros_device.as<int32_t>(),
                                     .kv_slot_of_token = slots_device.as<int32_t>(),
                                     .kv = kv(layer),
                                     .num_tokens = count,
                                     .num_heads = kv_heads},
                                    stream.get());
      stream.wait();
    }
  }

  // One query's outputs [num_heads * head_dim] in double, in the last layer.
  std::vector<double> reference(int32_t sequence, int32_t query) const {
    const auto dim = static_cast<size_t>(heads_.head_dim);
    const auto heads = static_cast<size_t>(heads_.num_heads),
               kv_heads = static_cast<size_t>(heads_.num_kv_heads);
    const auto block_size = static_cast<size_t>(kv_.block_size);
    const auto keys = static_cast<size_t>(context_ - queries_ + query + 1);
    const size_t table_row = table_host_.size() / static_cast<size_t>(sequences_);
    const auto load = [&](const DeviceBuffer& cache, float scale) {  // [keys, kv_heads, dim]
      std::vector<double> values(keys * kv_heads * dim);
      const size_t elements = kv_heads * block_size * dim;
      const auto bytes = static_cast<size_t>(kernels::element_bytes(kv_.format));
      std::vector<uint8_t> block(elements * bytes);
      for (size_t first = 0; first < keys; first += block_size) {
        const auto id = static_cast<size_t>(
            table_host_[static_cast<size_t>(sequence) * table_row + first / block_size]);
        cache.download_bytes(block.data(), block.size(), id * block.size());
        for (size_t i = 0; i < elements; ++i) {
          const size_t head = i / dim / block_size, key = first + i / dim % block_size;
          if (key >= keys) continue;
          values[(key * kv_heads + head) * dim + i % dim] =
              bytes == 1
                  ? from_e4m3(block[i]) * double{scale}
                  : to_float(Bf16{static_cast<uint16_t>(block[2 * i] | block[2 * i + 1] << 8)});
        }
      }
      return values;
    };
    const std::vector<double> k = load(k_.back(), kv_.k_scale), v = load(v_.back(), kv_.v_scale);
    std::vector<Bf16> q(heads * dim);
    qkv_.download_bytes(q.data(), q.size() * 2,
                        static_cast<size_t>(sequence * queries_ + query) *
                            static_cast<size_t>(heads_.qkv_width()) * 2);
    std::vector<double> out(heads * dim, 0.0);
    for (size_t h = 0; h < heads; ++h) {
      std::vector<double> weight;
      const size_t of_head = h / (heads / kv_heads) * dim;
      for (size_t key = 0; key < keys; ++key) {
        double score = 0;
        for (size_t d = 0; d < dim; ++d)
          score += double{to_float(q[h * dim + d])} * k[key * kv_heads * dim + of_head + d];
        weight.push_back(score / std::sqrt(static_cast<double>(dim)));
      }
      const double largest = *std::max_element(weight.begin(), weight.end());
      for (double& w : weight) w = std::exp(w - largest);
      const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
      for (size_t key = 0; key < keys; ++key) {
        for (size_t d = 0; d < dim; ++d)
          out[h * dim + d] += weight[key] / sum * v[key * kv_heads * dim + of_head + d];
      }
    }
    return out;
  }

  Heads heads_;
  int32_t sequences_, queries_, context_, layers_ = 0, num_sms_ = 0;
  kernels::PagedKv kv_;
  std::vector<DeviceBuffer> k_, v_;  // [layers]
  std::vector<int32_t> table_host_;
  DeviceBuffer table_, indptr_, lengths_, positions_, slots_, inv_freq_, qkv_, out_;
  DeviceBuffer workspace_bytes_;
  kernels::AttentionWorkspace workspace_;
};

std::vector<Row> measure(const AttentionOptions& options, const Heads& heads, double read_rate,
                         const std::string& kv, int32_t sequences, int32_t queries,
                         int32_t context) {
  const Stream stream;
  AttentionRun run(options, heads, kv == "bf16" ? KvFormat::kBf16 : KvFormat::kE4m3, sequences,
                   queries, context, stream);
  // A wrong kernel gets no time.
  if (auto why = run.why_wrong(stream); !why.empty()) {
    leave(fmt::format(
        "{} sequences of {} queries, context {}, {}: wrong results, {}; please report it",
        sequences, queries, context, kv, why));
  }
  std::vector<Graph> graphs;
  for (const bool with_rope : {false, true})
    graphs.push_back(Graph::capture(stream, [&] { run.enqueue(with_rope, stream); }));
  const std::vector<Times> times = time_in_turn(graphs, run.layers(), options.rounds, stream);
  std::vector<Row> rows;
  const std::string kind = queries == 1 ? "decode" : "prefill";
  for (size_t arm = 0; arm < 2; ++arm) {
    rows.push_back({.kind = arm == 0 ? kind : kind + " + rope",
                    .kv = kv,
                    .sequences = sequences,
                    .queries = queries,
                    .context = context,
                    .layers = run.layers(),
                    .times = times[arm],
                    .floor_us = run.bytes() / read_rate * 1e6,
                    .tflops = run.flops() / times[arm].us * 1e-6});
  }
  return rows;
}

void run_bench_attention(AttentionOptions options) {
  if (options.batch.empty() && options.prefill.empty()) options.batch = {1, 16, 64};
  if (num_devices() == 0) leave("bench attention needs a GPU of compute capability 9.0");
  for (const std::string& kv : options.kv) {
    if (kv != "bf16" && kv != "e4m3")
      leave(fmt::format("--kv {}: takes bf16 and e4m3", kv), kUsage);
  }
  for (const auto* list : {&options.batch, &options.context, &options.prefill}) {
    for (const int32_t n : *list) {
      if (n < 1)
        leave(fmt::format("{}: batch, context and prefill take numbers from 1 on", n), kUsage);
    }
  }
  for (const int32_t n : options.past) {
    if (n < 0) leave(fmt::format("--past {}: takes numbers from 0 on", n), kUsage);
  }
  if (options.rounds < 1)
    leave(fmt::format("--rounds {}: takes 1 or more", options.rounds), kUsage);
  auto heads = read_heads(options.model);
  if (!heads) leave(heads.error().message);
  // Sizes that the kernels do not have are told of before anything is measured.
  alignas(16) uint8_t some = 0;
  const kernels::PagedKv sizes = {.k_cache = &some,
                                  .v_cache = &some,
                                  .num_kv_heads = heads->num_kv_heads,
                                  .block_size = options.block_size,
                                  .head_dim = heads->head_dim};
  if (auto why = why_unsupported(sizes); !why.empty()) leave(why);
  const MeasuredDevice device = measure_device();
  std::vector<Row> rows;
  const auto add = [&](const std::string& kv, int32_t sequences, int32_t queries, int32_t context) {
    for (Row& row : measure(options, *heads, device.read_rate, kv, sequences, queries, context))
      rows.push_back(std::move(row));
  };
  for (const std::string& kv : options.kv) {
    for (const int32_t context : options.context) {
      for (const int32_t batch : options.batch) add(kv, batch, 1, context);
    }
    for (const int32_t past : options.past) {
      for (const int32_t queries : options.prefill) add(kv, 1, queries, past + queries);
    }
  }

  fmt::print("{}; read rate {:.3f} TB/s; {}: {} heads, {} KV heads, head_dim {}; blocks of {}\n\n",
             device.facts.name, device.read_rate / 1e12, options.model, heads->num_heads,
             heads->num_kv_heads, heads->head_dim, options.block_size);
  Table table({"what", "kv", "batch", "queries", "context", "layers", "us", "p10", "p90",
               "floor us", "of floor", "TFLOP/s"});
  Json json = {{"bench", "attention"},      {"model", options.model},
               {"rounds", options.rounds},  {"block_size", options.block_size},
               {"device", to_json(device)}, {"rows", Json::array()}};
  for (const Row& r : rows) {
    table.add({r.kind, r.kv, fmt::format("{}", r.sequences), fmt::format("{}", r.queries),
               fmt::format("{}", r.context), fmt::format("{}", r.layers),
               fmt::format("{:.2f}", r.times.us), fmt::format("{:.2f}", r.times.p10),
               fmt::format("{:.2f}", r.times.p90), fmt::format("{:.2f}", r.floor_us),
               fmt::format("{:.1f}", 100 * r.floor_us / r.times.us),
               fmt::format("{:.1f}", r.tflops)});
    json["rows"].push_back({{"name", fmt::format("{} {} B{} Q{} C{}", r.kind, r.kv, r.sequences,
                                                 r.queries, r.context)},
                            {"kind", r.kind},
                            {"kv", r.kv},
                            {"batch", r.sequences},
                            {"queries", r.queries},
                            {"context", r.context},
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

void add_bench_attention(CLI::App& bench) {
  auto options = std::make_shared<AttentionOptions>();
  CLI::App* command = bench.add_subcommand(
      "attention", "Attention over a paged cache on the GPU: us a layer, share of the byte floor");
  command->footer(
      "\nExamples:\n"
      "  braid bench attention --model configs/Qwen3-30B-A3B/config.json --batch 1,16,64\n"
      "  braid bench attention --model configs/Mixtral-8x7B/config.json --kv bf16,e4m3 --context "
      "2048,32768 --prefill 2048 --json out.json\n"
      "  braid bench attention --model configs/Qwen3-30B-A3B/config.json --prefill 16,512 --past "
      "0,8192,32768");
  const auto list = [&](const char* name, auto& to, const char* what) {
    command->add_option(name, to, what)->delimiter(',')->capture_default_str();
  };
  command->add_option("--model", options->model, "A config.json, for its heads")->required();
  list("--batch", options->batch,
       "Sequences that decode together; 1, 16 and 64 where neither this nor --prefill is given");
  list("--context", options->context, "Keys of each");
  list("--prefill", options->prefill,
       "Prompts, or chunks of one, of so many tokens, one at a time");
  list("--past", options->past, "Keys in the cache before them");
  list("--kv", options->kv, "Formats of the cache: bf16, e4m3");
  command->add_option("--block-size", options->block_size, "Tokens of a KV block")
      ->capture_default_str();
  command->add_option("--rounds", options->rounds, "Rounds; the arms take turns")
      ->capture_default_str();
  command->add_option("--json", options->json, "Write the rows to this file")->type_name("FILE");
  command->callback([=] { run_bench_attention(*options); });
}

}  // namespace braid::apps
