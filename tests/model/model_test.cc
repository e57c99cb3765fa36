// Loading, taps and step checks of Model.

#include "model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/check.h"
#include "tests/model/step_runner.h"
#include "tests/model/tiny_models.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

std::unique_ptr<WeightSource> bf16(const ModelConfig& config) {
  return make_dummy_weights(config, WeightFormat::kBf16, 9);
}

TEST(ModelLoad, PassesOnTheSourcesError) {
  const ModelConfig config = tiny_qwen3_moe();
  for (const char* module : {"model.embed_tokens", "model.layers.2.mlp.experts.6.down_proj",
                             "model.layers.3.self_attn.q_norm", "model.norm"}) {
    BrokenSource source(bf16(config), module);
    const auto model = Model::load(config, source);
    ASSERT_FALSE(model.has_value()) << module;
    EXPECT_EQ(model.error().code, ErrorCode::kNotFound);
    EXPECT_EQ(model.error().message, std::string(module) + ": no such tensor");
  }
}

TEST(ModelLoad, ReportsProgressFromZeroToTheTotal) {
  const ModelConfig config = tiny_mixtral();
  std::vector<std::pair<int64_t, int64_t>> calls;
  ASSERT_TRUE(Model::load(config, *bf16(config), [&](int64_t done, int64_t total) {
                calls.emplace_back(done, total);
              }).has_value());
  ASSERT_GE(calls.size(), 2u);
  EXPECT_EQ(calls.front().first, 0);
  EXPECT_EQ(calls.back().first, calls.back().second);
  for (size_t i = 1; i < calls.size(); ++i) {
    EXPECT_LT(calls[i - 1].first, calls[i].first);
    EXPECT_EQ(calls[i - 1].second, calls[i].second);
  }
}

TEST(ModelLoad, KeepsTheConfig) {
  const ModelConfig config = tiny_qwen3_moe();
  const auto model = Model::load(config, *bf16(config)).value();
  EXPECT_EQ(model->config().architecture, Architecture::kQwen3Moe);
  EXPECT_EQ(model->config().vocab_size, config.vocab_size);
}

// One matrix or norm multiplied by a factor: a model with a known fault.
class FaultySource : public WeightSource {
 public:
  FaultySource(std::unique_ptr<WeightSource> source, std::string faulty)
      : source_(std::move(source)), faulty_(std::move(faulty)) {}
  Result<Weight> matrix(const WeightSpec& spec) override { return source_->matrix(spec); }
  Result<std::vector<float>> vector(const WeightSpec& spec) override {
    auto values = source_->vector(spec);
    if (values && spec.module == faulty_) values->front() *= 1.01f;
    return values;
  }

 private:
  std::unique_ptr<WeightSource> source_;
  std::string faulty_;
};

struct Tapped {
  std::string name;  // "layer 3 moe_out"
  std::vector<float> values;
};

std::vector<Tapped> taps_of(Model& model, ops::Backend backend) {
  std::vector<Tapped> taps;
  model.set_tap([&](int32_t layer, std::string_view what, std::span<const float> values, int64_t) {
    taps.push_back({"layer " + std::to_string(layer) + " " + std::string(what),
                    {values.begin(), values.end()}});
  });
  const std::vector<Sequence> sequences = {{random_tokens(model.config(), 9, 4)}};
  StepRunner(model, 2, backend).run(sequences, all_at_once(sequences), nullptr);
  model.set_tap({});
  StepRunner(model, 2, backend).run(sequences, all_at_once(sequences), nullptr);
  return taps;
}

// The name of the first tensor that differs by more than rounding.
std::optional<std::string> first_divergence(const std::vector<Tapped>& a,
                                            const std::vector<Tapped>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (relative_l2(a[i].values, b.at(i).values) > 1e-4) return a[i].name;
  }
  return std::nullopt;
}

TEST(ModelTap, NamesEveryHalfOfEveryLayer) {
  const ModelConfig config = tiny_qwen3_moe();
  const auto model = Model::load(config, *bf16(config)).value();
  std::vector<std::string> names;
  for (const Tapped& tapped : taps_of(*model, ops::Backend::kCpu)) {
    names.push_back(tapped.name);
    EXPECT_EQ(tapped.values.size(), static_cast<size_t>(9 * config.hidden_size));
  }
  EXPECT_THAT(names, testing::ElementsAre(
                         "layer -1 embedding", "layer 0 attention_out", "layer 0 moe_out",
                         "layer 1 attention_out", "layer 1 mlp_out", "layer 2 attention_out",
                         "layer 2 moe_out", "layer 3 attention_out", "layer 3 mlp_out"));
}

TEST(ModelTap, FindsNoDivergenceBetweenTheBackEnds) {
  const ModelConfig config = tiny_mixtral();
  const auto model = Model::load(config, *bf16(config)).value();
  EXPECT_EQ(first_divergence(taps_of(*model, ops::Backend::kCpu),
                             taps_of(*model, ops::Backend::kReference)),
            std::nullopt);
}

TEST(ModelTap, NamesTheFirstDivergence) {
  const ModelConfig config = tiny_qwen3_moe();
  const auto good = Model::load(config, *bf16(config)).value();
  const std::map<std::string, std::string> place_of_fault = {
      {"model.layers.1.post_attention_layernorm", "layer 1 mlp_out"},
      {"model.layers.2.self_attn.k_norm", "layer 2 attention_out"}};
  for (const auto& [faulty, place] : place_of_fault) {
    FaultySource source(bf16(config), faulty);
    const auto bad = Model::load(config, source).value();
    EXPECT_EQ(
        first_divergence(taps_of(*good, ops::Backend::kCpu), taps_of(*bad, ops::Backend::kCpu)),
        place);
  }
}

// --- steps ---

struct StepTest : testing::Test {
  StepTest()
      : config(tiny_mixtral()),
        model(Model::load(config, *bf16(config)).value()),
        kv({.num_layers = config.num_hidden_layers,
            .num_blocks = 4,
            .block_size = 4,
            .num_kv_heads = config.num_key_value_heads,
            .head_dim = config.head_dim}),
        pool(1),
        logits(static_cast<size_t>(config.vocab_size)) {}

  void forward(const ForwardBatch& batch, const AdapterSlots* slots = nullptr) {
    model->forward({.backend = ops::Backend::kCpu, .pool = &pool}, batch, slots, kv, logits.data());
  }
  static ForwardBatch one_token() {
    return {.token_ids = {3},
            .positions = {0},
            .adapter_slot_of_token = {kNoAdapter},
            .kv_slot_of_token = {8},
            .query_indptr = {0, 1},
            .context_len = {1},
            .block_table = {2},
            .max_kv_blocks = 1,
            .logits_token = {0}};
  }

  ModelConfig config;
  std::unique_ptr<Model> model;
  KvCache kv;
  cpu::ThreadPool pool;
  std::vector<float> logits;
};

TEST_F(StepTest, OfNoTokensDoesNothing) {
  forward({.query_indptr = {0}});
  EXPECT_EQ(logits, std::vector<float>(logits.size()));
}

TEST_F(StepTest, WithoutWantedRowsWritesTheCacheAlone) {
  ForwardBatch batch = one_token();
  batch.logits_token.clear();
  forward(batch);
  EXPECT_EQ(logits, std::vector<float>(logits.size()));
  EXPECT_NE(kv.keys(1)[8 * config.kv_size()], 0.0f);
}

TEST_F(StepTest, RefusesAMalformedBatch) {
  ForwardBatch batch = one_token();
  forward(batch);
  batch.token_ids = {config.vocab_size};
  try {
    forward(batch);
    FAIL() << "not refused";
  } catch (const InternalError& error) {
    EXPECT_STREQ(error.what(), "forward batch: token_ids[0] = 131, need a value in [0, 131)");
  }
}

TEST_F(StepTest, RefusesAnAdapterThatIsNotThere) {
  ForwardBatch batch = one_token();
  batch.adapter_slot_of_token = {0};
  EXPECT_THROW(forward(batch), InternalError);  // no slots at all
  AdapterSlots slots(1, config.num_hidden_layers);
  EXPECT_THROW(forward(batch, &slots), InternalError);  // an empty slot
  slots.set(0, make_full_adapter(config, 2, 1));
  EXPECT_NO_THROW(forward(batch, &slots));
}

}  // namespace
}  // namespace braid::test
