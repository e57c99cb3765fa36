// The engine on real, tiny checkpoints: the goldens of tests/data/goldens.

#include "braid/engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "tests/engine/toy_engine.h"

namespace braid::test {
namespace {

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(BRAID_TEST_DATA_DIR) / "goldens" / name;
}

EngineConfig small_config(const std::string& model) {
  return {.model_dir = golden(model),
          .num_threads = 2,
          .kv_cache_bytes = size_t{8} << 20,
          .kv_block_size = 8};
}

std::unique_ptr<Engine> open(const EngineConfig& config) {
  auto engine = Engine::open(config);
  if (!engine) throw std::runtime_error(engine.error().message);
  return std::move(*engine);
}

// The message of what was refused, "accepted" otherwise.
template <class T>
std::string message(const Result<T>& result) {
  return result ? "accepted" : result.error().message;
}

struct Golden {
  std::string model;
  std::vector<std::string> adapters;
};

// Adapters of different ranks on different modules.
const Golden kGoldens[] = {
    {"qwen3_bf16", {"per_expert_f32", "vlm_prefix_r1", "rslora_r40", "bare_keys_router_r16"}},
    {"mixtral_bf16", {"mixed_ranks", "attention_router_lm_head", "tinker", "peft_attention"}},
    {"qwen3_fp8", {"per_expert", "shared_outer_attention"}},
};

// 16 requests, the first on the base, then on each adapter in turn; prompts share a start.
std::vector<Request> sixteen(Engine& engine, const std::vector<std::string>& adapters) {
  std::mt19937 random(5);
  std::vector<Request> requests;
  for (size_t i = 0; i < 16; ++i) {
    Request r;
    const uint32_t length = 1 + random() % 45;
    for (uint32_t t = 0; t < length; ++t)
      r.prompt.push_back(static_cast<int32_t>((t < 20 ? t * 7 : random()) % engine.vocab_size()));
    if (const size_t index = i % (adapters.size() + 1); index > 0)
      r.adapter = *engine.find_adapter(adapters[index - 1]);
    r.sampling = {.temperature = i % 2 ? 0.9f : 0.0f,
                  .top_p = i % 4 == 1 ? 0.9f : 1.0f,
                  .max_tokens = 8 + static_cast<int32_t>(random() % 24),
                  .seed = i,
                  .ignore_eos = true,
                  .logprobs = 3};
    if (i % 4 == 3) r.sampling.prompt_logprobs = 1;
    requests.push_back(r);
  }
  return requests;
}

std::vector<Reply> run_together(Engine& engine, const std::vector<Request>& requests) {
  Replies replies;
  for (const Request& request : requests) {
    const auto id = engine.submit(request, replies.add().first);
    if (!id) throw std::runtime_error(id.error().message);
  }
  engine.wait_until_idle();
  std::vector<Reply> result;
  for (size_t i = 0; i < requests.size(); ++i) result.push_back(replies.at(i));
  return result;
}

void add_adapters(Engine& engine, const Golden& golden_model) {
  for (const auto& adapter : golden_model.adapters) {
    const auto id = engine.add_adapter(adapter, golden(golden_model.model) / "adapters" / adapter);
    ASSERT_TRUE(id.has_value()) << id.error().message;
  }
}

class MixedRequests : public testing::TestWithParam<Golden> {};

TEST_P(MixedRequests, GiveTheSameBitsAloneAndTogether) {
  std::vector<Reply> alone;
  std::vector<Request> requests;
  {
    EngineConfig config = small_config(GetParam().model);
    config.prefix_caching = false;
    const auto engine = open(config);
    add_adapters(*engine, GetParam());
    requests = sixteen(*engine, GetParam().adapters);
    for (const Request& request : requests) alone.push_back(run_together(*engine, {request})[0]);
  }
  struct Variant {
    std::string name;
    EngineConfig config;
  };
  std::vector<Variant> variants(4, {"one batch", small_config(GetParam().model)});
  variants[1].name = "odd chunks";
  variants[1].config.max_batch_size = 16;
  variants[1].config.max_batch_tokens = 19;
  variants[2].name = "a small cache";  // 80 tokens a request at most, 96 in all
  variants[2].config.max_context = 80;
  variants[3].name = "few adapter slots, one thread";
  variants[3].config.max_adapters = 1;
  variants[3].config.num_threads = 1;
  for (auto& [name, config] : variants) {
    if (name == "a small cache") {
      // The size of a block depends on the model: asked of an engine with a cache of one byte.
      config.kv_cache_bytes = 1;
      const auto refused = Engine::open(config);
      ASSERT_FALSE(refused.has_value());
      const std::string& text = refused.error().message;
      config.kv_cache_bytes = 12 * std::stoul(text.substr(text.rfind(' ') + 1));
    }
    const auto engine = open(config);
    add_adapters(*engine, GetParam());
    for (int round = 0; round < 2; ++round) {  // the second round hits the prefix cache
      const auto together = run_together(*engine, requests);
      for (size_t i = 0; i < requests.size(); ++i) {
        EXPECT_EQ(why_different(together[i], alone[i]), "")
            << "request " << i << ", " << name << ", round " << round;
      }
    }
    EXPECT_GT(engine->stats().cached_tokens, 0) << name;
    EXPECT_EQ(engine->stats().kv_blocks_used, 0) << name;
    if (name == "a small cache") {
      EXPECT_GT(engine->stats().preemptions, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, MixedRequests, testing::ValuesIn(kGoldens),
                         [](const auto& test) { return test.param.model; });

TEST(Engine, AdaptersChangeTheReply) {
  const auto engine = open(small_config("qwen3_bf16"));
  add_adapters(*engine, kGoldens[0]);
  const auto requests = sixteen(*engine, kGoldens[0].adapters);
  Request request = requests[0];
  request.sampling.prompt_logprobs = 0;
  request.prompt = {1, 2, 3, 4, 5, 6};
  const auto base = run_together(*engine, {request})[0];
  for (const auto& adapter : kGoldens[0].adapters) {
    request.adapter = *engine->find_adapter(adapter);
    EXPECT_NE(run_together(*engine, {request})[0].prompt_logprobs[4].logprob,
              base.prompt_logprobs[4].logprob)
        << adapter;
  }
}

TEST(Engine, NamesOptionsThatAreOutOfRange) {
  const auto refused = [](auto&& change) {
    EngineConfig config = small_config("qwen3_bf16");
    change(config);
    return message(Engine::open(config));
  };
  EXPECT_NE(refused([](auto& c) { c.max_batch_size = 0; }).find("max_batch_size is 0"),
            std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.num_threads = -1; }).find("num_threads"), std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.kv_block_size = 0; }).find("kv_block_size"), std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.kv_cache_bytes = 10; }).find("kv_cache_bytes"),
            std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.max_context = 1 << 29; }).find("the model's limit"),
            std::string::npos);
  EXPECT_NE(refused([](auto& c) {
              c.max_running_per_adapter = -1;
            }).find("max_running_per_adapter is -1, accepted is 0 to 4096"),
            std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.max_adapters = 0; }).find("max_adapters"), std::string::npos);
  EXPECT_NE(refused([](auto& c) { c.model_dir = "/nowhere/at/all"; }).find("/nowhere/at/all"),
            std::string::npos);
}

TEST(Engine, KeepsTheBooksOfAdapters) {
  const auto engine = open(small_config("qwen3_bf16"));
  const auto folder = golden("qwen3_bf16") / "adapters";
  const auto id = engine->add_adapter("a", folder / "per_expert_f32");
  ASSERT_TRUE(id.has_value());
  EXPECT_EQ(engine->find_adapter("a"), *id);
  EXPECT_EQ(engine->find_adapter("b"), std::nullopt);
  EXPECT_GT(*engine->adapter_bytes(*id), 0u);
  EXPECT_EQ(*engine->adapter_bytes(AdapterId::kBase), 0u);
  EXPECT_NE(message(engine->add_adapter("a", folder / "rslora_r40")).find("\"a\""),
            std::string::npos);
  EXPECT_FALSE(engine->add_adapter("", folder / "rslora_r40").has_value());
  EXPECT_FALSE(engine->add_adapter("b", folder / "not there").has_value());
  EXPECT_EQ(engine->find_adapter("b"), std::nullopt);

  ASSERT_TRUE(engine->remove_adapter(*id));
  EXPECT_EQ(engine->remove_adapter(*id).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(engine->find_adapter("a"), std::nullopt);
  const auto refused = engine->submit({.prompt = {1}, .adapter = *id}, [](const TokenEvent&) {});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(engine->add_adapter("a", folder / "rslora_r40").has_value());
}

// A copy of an adapter with all factors zero and another base model; for the caller to remove.
std::filesystem::path make_zero_adapter(const std::filesystem::path& adapter,
                                        const std::string& base_model) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("braid_zero_adapter_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  Json config = read_json_file(adapter / "adapter_config.json").value();
  config["base_model_name_or_path"] = base_model;
  EXPECT_TRUE(write_file(folder / "adapter_config.json", config.dump()));
  std::string tensors = read_file(adapter / "adapter_model.safetensors", 1 << 20).value();
  const size_t data = 8 + static_cast<unsigned char>(tensors[0]) +
                      256 * static_cast<unsigned char>(tensors[1]);  // after a header below 64 KiB
  std::fill(tensors.begin() + static_cast<ptrdiff_t>(data), tensors.end(), '\0');
  EXPECT_TRUE(write_file(folder / "adapter_model.safetensors", tensors));
  return folder;
}

TEST(Engine, ReportsHowAdaptersWereRead) {
  const auto engine = open(small_config("qwen3_bf16"));
  const auto folder = golden("qwen3_bf16") / "adapters";
  const auto report = [&](const std::string& name, const std::filesystem::path& dir) {
    const auto id = engine->add_adapter(name, dir);
    if (!id) throw std::runtime_error(id.error().message);
    return engine->adapter_report(*id).value();
  };
  const AdapterReport plain = report("plain", folder / "per_expert_f32");
  EXPECT_EQ(plain.layout, "per-expert 2-D");
  EXPECT_FALSE(plain.layout_inferred);
  EXPECT_EQ(plain.warnings, std::vector<std::string>());
  const AdapterReport inferred = report("3d", folder / "parameters_new_peft");
  EXPECT_EQ(inferred.layout, "3-D target_parameters, current orientation, PEFT columns");
  EXPECT_TRUE(inferred.layout_inferred);
  EXPECT_EQ(inferred.evidence[0], "peft_version is \"0.21.0\"");

  const auto zero = make_zero_adapter(folder / "per_expert_f32", "org/other");
  EXPECT_EQ(report("zero", zero).warnings,
            (std::vector<std::string>{
                "base_model_name_or_path is \"other\", this base model is \"qwen3_bf16\"",
                "every delta is zero: the adapter changes nothing (lora_B starts as zeros; was it "
                "trained and saved?)"}));

  std::filesystem::remove_all(zero);
  EXPECT_EQ(engine->adapter_report(AdapterId::kBase).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(engine->adapter_report(AdapterId{99}).error().code, ErrorCode::kNotFound);
  const auto dummy = engine->add_dummy_adapter("dummy", 4, 1);
  EXPECT_EQ(engine->adapter_report(*dummy).value().bytes_resident, *engine->adapter_bytes(*dummy));
}

TEST(Engine, FinishesRequestsOfARemovedAdapter) {
  const auto engine = open(small_config("qwen3_bf16"));
  const auto id = engine->add_adapter("a", golden("qwen3_bf16") / "adapters" / "per_expert_f32");
  ASSERT_TRUE(id.has_value());
  Replies replies;
  const Request request = {.prompt = {1, 2, 3},
                           .adapter = *id,
                           .sampling = {.temperature = 0, .max_tokens = 20, .ignore_eos = true}};
  const auto whole = run_together(*engine, {request})[0];
  ASSERT_TRUE(engine->submit(request, replies.add().first));
  ASSERT_TRUE(engine->remove_adapter(*id));
  engine->wait_until_idle();
  EXPECT_EQ(replies.at(0).tokens, whole.tokens);
}

// While the engine is destroyed its last callbacks may look for adapters, submit and cancel. Four
// requests, each of which is followed by another until the engine lets nobody in.
TEST(Engine, RefusesRequestsOfItsLastCallbacks) {
  auto owner = open(small_config("qwen3_bf16"));
  Engine& engine = *owner;
  const auto id = engine.add_adapter("a", golden("qwen3_bf16") / "adapters" / "per_expert_f32");
  ASSERT_TRUE(id.has_value());
  const Request request = {
      .prompt = {1, 2, 3}, .adapter = *id, .sampling = {.max_tokens = 200, .ignore_eos = true}};
  std::vector<std::string> refusals;
  OnTokens follow;
  follow = [&](const TokenEvent& event) {
    if (!event.finished) return;
    EXPECT_EQ(engine.find_adapter("a"), *id);
    engine.cancel(event.request);
    const auto next = engine.submit(request, follow);
    if (!next) refusals.push_back(next.error().message);
  };
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(engine.submit(request, follow));
  owner.reset();
  EXPECT_EQ(refusals, std::vector<std::string>(4, "the engine is being closed"));
}

TEST(Engine, WorksWithoutATokenizer) {
  const auto engine = open(small_config("qwen3_bf16"));
  EXPECT_EQ(engine->tokenize("text").error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(engine->detokenize(std::vector<int32_t>{1}).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(engine->apply_chat_template("[]").error().code, ErrorCode::kUnsupported);
  Request request = {.prompt = {1}};
  request.sampling.stop = {"x"};
  EXPECT_EQ(engine->submit(request, [](const TokenEvent&) {}).error().code,
            ErrorCode::kInvalidArgument);
}

// The folder of a golden model with a text side added: one token for each printable ASCII
// character, the space's id is 3. Removed at the end.
class TextModel {
 public:
  TextModel() {
    folder_ = std::filesystem::temp_directory_path() /
              ("braid_engine_test_" + std::to_string(::getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    for (const auto& entry : std::filesystem::directory_iterator(golden("qwen3_bf16"))) {
      if (entry.is_regular_file() && entry.path().filename() != "generation_config.json")
        std::filesystem::create_symlink(entry.path(), folder_ / entry.path().filename());
    }
    Json vocab = Json::object();
    vocab["\u0120"] = 3;  // how byte-level vocabularies write a space
    for (int c = '!'; c <= '~'; ++c) vocab[std::string(1, static_cast<char>(c))] = c - '!' + 4;
    const Json end = {
        {"id", 2},         {"content", "<end>"}, {"special", true},     {"normalized", false},
        {"lstrip", false}, {"rstrip", false},    {"single_word", false}};
    const Json byte_level = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    const Json tokenizer = {
        {"version", "1.0"},
        {"added_tokens", Json::array({end})},
        {"pre_tokenizer", byte_level},
        {"decoder", byte_level},
        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
    write("tokenizer.json", tokenizer.dump());
    write("tokenizer_config.json", R"({"eos_token": "<end>"})");
    write("chat_template.jinja",
          "{% for m in messages %}{{ m.role }}: {{ m.content }}<end>{% endfor %}");
    write("generation_config.json",
          R"({"eos_token_id": [2, 9], "temperature": 0.6, "top_k": 20, "top_p": 0.95})");
  }
  ~TextModel() { std::filesystem::remove_all(folder_); }
  TextModel(const TextModel&) = delete;
  TextModel& operator=(const TextModel&) = delete;

  void write(const std::string& file, const std::string& text) {
    ASSERT_TRUE(write_file(folder_ / file, text));
  }
  EngineConfig config() const {
    EngineConfig config = small_config("qwen3_bf16");
    config.model_dir = folder_;
    return config;
  }

 private:
  std::filesystem::path folder_;
};

TEST(Engine, SpeaksText) {
  const TextModel model;
  const auto engine = open(model.config());
  const auto tokens = engine->tokenize("ab c");
  ASSERT_TRUE(tokens.has_value()) << tokens.error().message;
  EXPECT_EQ(*tokens, (std::vector<int32_t>{68, 69, 3, 70}));
  EXPECT_EQ(*engine->detokenize(*tokens), "ab c");

  Request request = {.prompt = *tokens,
                     .sampling = {.temperature = 0, .max_tokens = 30, .ignore_eos = true}};
  const auto whole = run_together(*engine, {request})[0];
  EXPECT_EQ(whole.text, *engine->detokenize(whole.tokens));
  ASSERT_GT(whole.text.size(), 8u);
  request.sampling.stop = {whole.text.substr(5, 3)};
  const auto stopped = run_together(*engine, {request})[0];
  EXPECT_EQ(stopped.matched_stop, request.sampling.stop[0]);
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(request.sampling.stop[0])));
}

TEST(Engine, RendersChatsAndKeepsUsersFromControlTokens) {
  const TextModel model;
  const auto engine = open(model.config());
  const auto tokens = engine->apply_chat_template(R"([{"role": "user", "content": "a<end>"}])");
  ASSERT_TRUE(tokens.has_value()) << tokens.error().message;
  EXPECT_EQ(*engine->detokenize(*tokens, false), "user: a<end><end>");
  EXPECT_EQ(std::count(tokens->begin(), tokens->end(), 2), 1);
  EXPECT_EQ(engine->apply_chat_template("{").error().code, ErrorCode::kInvalidArgument);
}

TEST(Engine, TakesTheModelsGenerationDefaults) {
  const TextModel model;
  const auto engine = open(model.config());
  const auto sampling = engine->default_sampling();
  EXPECT_EQ(sampling.temperature, 0.6f);
  EXPECT_EQ(sampling.top_k, 20);
  EXPECT_EQ(sampling.top_p, 0.95f);
  EXPECT_EQ(sampling.repetition_penalty, 1.0f);
  // Both end tokens end a reply.
  for (const int32_t end : {2, 9}) {
    const Request request = {.prompt = {5}, .sampling = {.logit_bias = {{end, 100.0f}}}};
    const auto reply = run_together(*engine, {request})[0];
    EXPECT_EQ(reply.tokens, std::vector<int32_t>{end});
    EXPECT_EQ(reply.reason, FinishReason::kStop);
    EXPECT_EQ(reply.text, "");
  }
}

TEST(Engine, ServesAModelWhoseChatTemplateIsBeyondIt) {
  TextModel model;
  model.write("chat_template.jinja", "{% unheard_of %}");
  const auto engine = open(model.config());
  EXPECT_EQ(engine->apply_chat_template("[]").error().code, ErrorCode::kUnsupported);
  EXPECT_TRUE(engine->tokenize("a").has_value());
  model.write("generation_config.json", "{");
  EXPECT_EQ(Engine::open(model.config()).error().code, ErrorCode::kCorrupt);
}

TEST(Engine, RunsOnDummyWeights) {
  EngineConfig config = small_config("qwen3_fp8");
  config.load_format = LoadFormat::kDummy;
  config.dummy_weights = DummyWeights::kFp8;
  int num_reports = 0;
  config.on_progress = [&](std::string_view, int64_t done, int64_t total) {
    EXPECT_LE(done, total);
    ++num_reports;
  };
  const auto engine = open(config);
  EXPECT_GT(num_reports, 0);
  EXPECT_GT(engine->decode_step_bytes(std::vector{AdapterId::kBase}, 10), 0u);
  EXPECT_EQ(run_together(*engine, {{.prompt = {1, 2}, .sampling = {.max_tokens = 3}}})[0].reason,
            FinishReason::kLength);
}

}  // namespace
}  // namespace braid::test
