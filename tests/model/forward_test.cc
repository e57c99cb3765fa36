// Model::forward against PlainModel: tiny random models in every weight format, sequences batched
// and cut into chunks, adapters of several ranks and base tokens side by side.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>

#include "adapter/dummy_adapter.h"
#include "tests/model/plain_model.h"
#include "tests/model/step_runner.h"
#include "tests/model/tiny_models.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

std::vector<float> to_floats(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

std::vector<float> difference(const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<float> out = a;
  for (size_t i = 0; i < out.size(); ++i) out[i] -= b[i];
  return out;
}

// Errors are those of float sums over at most a few hundred terms, a few dozen of them in a row.
constexpr double kLogitsBound = 1e-5;
// Relative to a delta that is a tenth of the logits and more.
constexpr double kDeltaBound = 1e-4;
// Far above what those errors do to a router's probability: both sides route alike.
constexpr double kRoutingMargin = 2e-4;

struct Case {
  const char* name;
  ModelConfig (*config)();
  WeightFormat format;
  ops::Backend backend = ops::Backend::kCpu;
};

class Forward : public testing::TestWithParam<Case> {
 protected:
  Forward() : config_(GetParam().config()) {}

  std::unique_ptr<WeightSource> source() const {
    return make_dummy_weights(config_, GetParam().format, /*seed=*/3);
  }

  // Random tokens that none of the models routes by a hair.
  std::vector<int32_t> clear_tokens(int32_t length, uint64_t seed,
                                    const std::vector<const PlainModel*>& models) const {
    for (int attempt = 0; attempt < 200; ++attempt, seed += 1000) {
      std::vector<int32_t> tokens = random_tokens(config_, length, seed);
      const auto routes_clearly = [&](const PlainModel* model) {
        return model->run(tokens).routing_margin > kRoutingMargin;
      };
      if (std::all_of(models.begin(), models.end(), routes_clearly)) return tokens;
    }
    throw std::logic_error("every try has a token between two experts");
  }

  void expect_below(const char* what, double error, double bound) {
    EXPECT_LT(error, bound) << what;
    double& worst = worst_[what];
    worst = std::max(worst, error);
    RecordProperty(what, std::to_string(worst));
  }

  ModelConfig config_;
  std::map<std::string, double> worst_;
};

TEST_P(Forward, EqualsThePlainModel) {
  const PlainModel plain(config_, *source());
  const auto model = Model::load(config_, *source()).value();
  std::vector<Sequence> sequences;
  for (const int32_t length : {1, 23, 9, 14}) {
    sequences.push_back({clear_tokens(length, sequences.size(), {&plain})});
  }
  StepRunner runner(*model, /*num_threads=*/2, GetParam().backend);
  for (const Schedule& schedule : {all_at_once(sequences), chunked(sequences, 5)}) {
    const auto got = runner.run(sequences, schedule, nullptr);
    for (size_t s = 0; s < sequences.size(); ++s) {
      const auto want = to_floats(plain.run(sequences[s].token_ids).logits);
      expect_below("logits", relative_l2(got[s], want), kLogitsBound);
    }
  }
}

TEST_P(Forward, EqualsMergedAdaptersInAMixedBatch) {
  const PlainModel plain(config_, *source());
  const auto model = Model::load(config_, *source()).value();
  const std::vector<std::shared_ptr<const Adapter>> adapters = {
      make_full_adapter(config_, 3, 11), nullptr, make_sparse_adapter(config_, 12),
      make_dummy_adapter(config_, "r16", 16, 13), make_full_adapter(config_, 40, 14)};
  AdapterSlots slots(static_cast<int32_t>(adapters.size()), config_.num_hidden_layers);
  std::map<int32_t, PlainModel> merged;
  for (int32_t slot = 0; slot < slots.num_slots(); ++slot) {
    const auto& adapter = adapters[static_cast<size_t>(slot)];
    slots.set(slot, adapter);
    if (adapter) merged.emplace(slot, plain.merged(*adapter));
  }
  std::vector<Sequence> sequences;
  const std::vector<int32_t> lengths = {11, 1, 17, 8, 13, 6};
  const std::vector<int32_t> slot_of_sequence = {0, kNoAdapter, 2, 3, 4, 0};
  for (size_t s = 0; s < lengths.size(); ++s) {
    std::vector<const PlainModel*> models = {&plain};
    if (slot_of_sequence[s] != kNoAdapter) models.push_back(&merged.at(slot_of_sequence[s]));
    sequences.push_back({clear_tokens(lengths[s], 50 + s, models)});
  }

  StepRunner runner(*model, /*num_threads=*/2, GetParam().backend);
  const auto base = runner.run(sequences, all_at_once(sequences), nullptr);
  for (size_t s = 0; s < sequences.size(); ++s) sequences[s].adapter_slot = slot_of_sequence[s];
  const auto got = runner.run(sequences, chunked(sequences, 4), &slots);

  for (size_t s = 0; s < sequences.size(); ++s) {
    const int32_t slot = slot_of_sequence[s];
    if (slot == kNoAdapter) {
      EXPECT_EQ(got[s], base[s]) << "a base token's bits changed beside adapters";
      continue;
    }
    const auto want_base = to_floats(plain.run(sequences[s].token_ids).logits);
    const auto want = to_floats(merged.at(slot).run(sequences[s].token_ids).logits);
    expect_below("logits", relative_l2(got[s], want), kLogitsBound);
    EXPECT_GT(relative_l2(want, want_base), 0.02) << "an adapter that does nothing tests nothing";
    expect_below("delta", relative_l2(difference(got[s], base[s]), difference(want, want_base)),
                 kDeltaBound);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Formats, Forward,
    testing::Values(Case{"mixtral_f32", tiny_mixtral, WeightFormat::kF32},
                    Case{"mixtral_bf16", tiny_mixtral, WeightFormat::kBf16},
                    Case{"mixtral_fp8", tiny_mixtral, WeightFormat::kFp8Block128},
                    Case{"mixtral_nvfp4", tiny_mixtral, WeightFormat::kNvfp4},
                    Case{"qwen3_f32", tiny_qwen3_moe, WeightFormat::kF32},
                    Case{"qwen3_bf16", tiny_qwen3_moe, WeightFormat::kBf16},
                    Case{"qwen3_fp8", tiny_qwen3_moe, WeightFormat::kFp8Block128},
                    Case{"qwen3_nvfp4", tiny_qwen3_moe, WeightFormat::kNvfp4},
                    Case{"mixtral_fp8_reference", tiny_mixtral, WeightFormat::kFp8Block128,
                         ops::Backend::kReference},
                    Case{"qwen3_bf16_reference", tiny_qwen3_moe, WeightFormat::kBf16,
                         ops::Backend::kReference}),
    [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace braid::test
