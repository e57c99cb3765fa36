#include "tests/engine/soak_cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"

namespace braid::test {
namespace {

namespace fs = std::filesystem;

constexpr int32_t kHidden = 256, kHeads = 4, kKvHeads = 2, kHeadDim = 64, kInner = 128;
constexpr int32_t kLayers = 2, kExperts = 8, kVocab = 512, kBlock = 16;

EngineConfig roomy(const SoakFolder& folder, const SoakOptions& options) {
  return {.model_dir = folder.model(),
          .load_format = LoadFormat::kDummy,
          .dummy_weights = DummyWeights::kFp8,
          .device = options.device,
          .activation_dtype = options.activation_dtype,
          .gpu_memory_fraction = 0.2f,
          .num_threads = 2,
          .max_batch_size = 16,
          .max_context = 256,
          .kv_cache_bytes = size_t{64} << 20,
          .kv_block_size = kBlock,
          .prefix_caching = false,
          .max_adapters = kSoakContents,
          .max_lora_rank = 32,
          .adapter_device_bytes = size_t{256} << 20};
}

// A GPU holds keys and values in BF16, the CPU back end in float.
size_t kv_block_bytes(Device device) {
  return size_t{2} * kLayers * kBlock * kKvHeads * kHeadDim * (device == Device::kCuda ? 2 : 4);
}

}  // namespace

std::vector<int> contents_of(int name) {
  if (name == kSwappedName) return {kSoakContents - 2, kSoakContents - 1};
  return {name};
}

SoakFolder::SoakFolder(Architecture architecture)
    : is_mixtral_(architecture == Architecture::kMixtral) {
  Json config = {{"architectures", {is_mixtral_ ? "MixtralForCausalLM" : "Qwen3MoeForCausalLM"}},
                 {"hidden_size", kHidden},
                 {"intermediate_size", is_mixtral_ ? kInner : 2 * kInner},
                 {"num_attention_heads", kHeads},
                 {"num_key_value_heads", kKvHeads},
                 {"head_dim", kHeadDim},
                 {"num_hidden_layers", kLayers},
                 {"num_experts_per_tok", 2},
                 {"vocab_size", kVocab},
                 {"max_position_embeddings", 512},
                 {"rms_norm_eps", 1e-6},
                 {"rope_theta", 1e6},
                 {"hidden_act", "silu"},
                 {"tie_word_embeddings", false}};
  if (is_mixtral_) {
    config["num_local_experts"] = kExperts;
  } else {
    config["num_experts"] = kExperts;
    config["moe_intermediate_size"] = kInner;
    config["norm_topk_prob"] = true;
    config["decoder_sparse_step"] = 1;
    config["mlp_only_layers"] = Json::array();
  }
  write("config.json", config);
  write("generation_config.json", {{"eos_token_id", {7, 9}}});
  for (int content = 0; content < kSoakContents; ++content) write_adapter(content);
}

fs::path SoakFolder::adapter(int content) const { return folder_.path() / std::to_string(content); }

void SoakFolder::write(const std::string& file, const Json& json) {
  BRAID_CHECK(write_file(folder_.path() / file, json.dump()).has_value());
}

void SoakFolder::write_adapter(int content) {
  const int64_t rank = int64_t{4} << content % 4;
  AdapterBuilder builder;
  builder.config["r"] = rank;
  builder.config["lora_alpha"] = static_cast<double>(rank) / 64;
  const auto add = [&](const std::string& module, int64_t in, int64_t out) {
    // Other values for each content: those of the builder follow from names.
    const auto seed = static_cast<uint64_t>(builder.tensors.size() + 1000 * content);
    builder.add(module + ".lora_A.weight", {rank, in}, some_values(rank * in, seed));
    builder.add(module + ".lora_B.weight", {out, rank}, some_values(out * rank, seed + 500));
  };
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = fmt::format("base_model.model.model.layers.{}.", layer);
    add(prefix + "self_attn.q_proj", kHidden, kHeads * kHeadDim);
    add(prefix + "self_attn.v_proj", kHidden, kKvHeads * kHeadDim);
    add(prefix + "self_attn.o_proj", kHeads * kHeadDim, kHidden);
    if (content % 2 == 1) continue;
    for (int32_t expert = 0; expert < kExperts; ++expert) {
      const std::string of_expert =
          prefix + (is_mixtral_ ? "block_sparse_moe" : "mlp") + fmt::format(".experts.{}.", expert);
      add(of_expert + (is_mixtral_ ? "w1" : "gate_proj"), kHidden, kInner);
      add(of_expert + (is_mixtral_ ? "w3" : "up_proj"), kHidden, kInner);
      add(of_expert + (is_mixtral_ ? "w2" : "down_proj"), kInner, kHidden);
    }
  }
  fs::create_directory(adapter(content));
  builder.write(adapter(content));
}

std::vector<SoakCase> make_soak_cases(int32_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t n) { return static_cast<int32_t>(random() % n); };
  std::vector<SoakCase> cases(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) {
    SoakCase& c = cases[static_cast<size_t>(i)];
    c.name = i % (kSoakNames + 1) - 1;
    // Whole blocks that other prompts begin with too, then tokens of its own, so that nobody's
    // prompt is another's prompt and reply.
    for (int32_t t = 0, shared = kBlock * below(6); t < shared; ++t)
      c.prompt.push_back((t * t + 3 * t) % kVocab);
    for (int32_t t = 0, own = 6 + below(40); t < own; ++t) c.prompt.push_back(below(kVocab));
    SamplingParams& s = c.sampling;
    s.max_tokens = 1 + below(90);
    s.seed = random();
    s.ignore_eos = i % 3 == 0;
    // By what must be able to pick on the device, then by the host alone.
    s.temperature = i % 4 == 0 ? 0.0f : 1.0f;
    s.top_k = i % 5 == 1 ? 20 : 0;
    s.top_p = i % 5 == 2 ? 0.8f : 1.0f;
    s.min_p = i % 5 == 3 ? 0.05f : 0.0f;
    const int32_t extra = below(8);
    if (extra <= 2) s.logprobs = extra;
    if (extra == 3) s.prompt_logprobs = 1;
    if (extra == 4) s.repetition_penalty = 1.3f;
    if (extra == 4) s.stop_token_ids = {5, 50, 100};
    if (extra == 5) s.min_tokens = s.max_tokens / 2;
    if (extra == 5) s.logit_bias = {{11, 5.0f}, {12, -100.0f}};
  }
  return cases;
}

SoakSizes answer_alone(const SoakFolder& folder, const SoakOptions& options,
                       std::vector<SoakCase>& cases) {
  auto opened = Engine::open(roomy(folder, options));
  if (!opened) throw InternalError(opened.error().message);
  Engine& engine = **opened;
  SoakSizes sizes;
  std::vector<AdapterId> ids;
  for (int content = 0; content < kSoakContents; ++content) {
    const auto id = engine.add_adapter(std::to_string(content), folder.adapter(content));
    if (!id) throw InternalError(id.error().message);
    ids.push_back(*id);
    const size_t bytes = engine.adapter_bytes(*id).value();
    sizes.largest = std::max(sizes.largest, bytes);
    sizes.all += bytes;
  }
  for (SoakCase& c : cases) {
    for (const int content : contents_of(c.name)) {
      Replies replies;
      const auto accepted = engine.submit(
          {.prompt = c.prompt,
           .adapter = content == kBaseName ? AdapterId::kBase : ids[static_cast<size_t>(content)],
           .sampling = c.sampling},
          replies.add().first);
      if (!accepted) throw InternalError(accepted.error().message);
      engine.wait_until_idle();
      c.answer_of_content[content] = replies.at(0);
    }
  }
  return sizes;
}

EngineConfig short_of_everything(const SoakFolder& folder, const SoakOptions& options,
                                 const SoakSizes& adapters) {
  EngineConfig config = roomy(folder, options);
  config.max_batch_tokens = 48;
  config.kv_cache_bytes = 36 * kv_block_bytes(options.device);
  config.prefix_caching = true;
  config.max_adapters = 4;
  config.adapter_host_bytes = std::max(adapters.all / 2, 2 * adapters.largest);
  config.adapter_device_bytes = 2 * adapters.largest;
  return config;
}

}  // namespace braid::test
