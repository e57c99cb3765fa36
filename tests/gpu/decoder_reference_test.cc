// The reference of whole models on the device, held against the CPU back end and against mistakes.
// Runs everywhere.

#include "tests/gpu/decoder_reference.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "tests/gpu/gpu_models.h"
#include "tests/model/step_runner.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

constexpr int32_t kBlock = 4;

class DecoderReferenceTest : public testing::TestWithParam<const char*> {
 protected:
  ModelConfig config() const {
    return GetParam() == std::string("mixtral") ? padded_mixtral() : mixed_qwen3_moe();
  }
  std::unique_ptr<WeightSource> weights(WeightFormat format) const {
    return make_dummy_weights(config(), format, 3);
  }
  DecoderReference reference(WeightFormat format) const {
    return DecoderReference(config(), *weights(format), adapters_, kBlock, 2);
  }
  std::vector<Sequence> sequences(int32_t length) const {
    std::vector<Sequence> made;
    for (int32_t slot = kNoAdapter; slot < static_cast<int32_t>(adapters_.size()); ++slot)
      made.push_back({random_tokens(config(), length, 90 + static_cast<uint64_t>(slot)), slot});
    return made;
  }
  // Relative L2 of each row of logits against the CPU back end, the reference by itself. Rising.
  std::vector<double> errors_by_itself(WeightFormat format) const {
    auto model = Model::load(config(), *weights(format));
    EXPECT_TRUE(model.has_value());
    AdapterSlots slots(static_cast<int32_t>(adapters_.size()), config().num_hidden_layers);
    for (size_t s = 0; s < adapters_.size(); ++s) slots.set(static_cast<int32_t>(s), adapters_[s]);
    const auto all = sequences(9);
    const Schedule schedule = chunked(all, 4);
    DecoderReference reference = this->reference(format);
    const auto want = StepRunner(**model, 2).run(all, schedule, &slots);
    const auto got =
        run_steps(all, schedule, {.kv_block_size = kBlock}, [&](const ForwardBatch& b) {
          return reference.run(b).at({-1, "logits"});
        });
    std::vector<double> errors;
    const auto vocab = static_cast<size_t>(config().vocab_size);
    for (size_t s = 0; s < all.size(); ++s) {
      for (size_t at = 0; at < want[s].size(); at += vocab)
        errors.push_back(relative_l2(std::span(got[s]).subspan(at, vocab),
                                     std::span(want[s]).subspan(at, vocab)));
    }
    std::sort(errors.begin(), errors.end());
    return errors;
  }
  // One step of every kind of adapter, two tokens each.
  ForwardBatch batch() const {
    ForwardBatch made;
    const auto all = sequences(2);
    run_steps(all, all_at_once(all), {.kv_block_size = kBlock}, [&](const ForwardBatch& b) {
      made = b;
      return std::vector<float>(b.logits_token.size());
    });
    return made;
  }

  std::vector<std::shared_ptr<const Adapter>> adapters_ = adapters_of_all_kinds(config());
};

// Without FP8 all that is left are roundings to BF16.
TEST_P(DecoderReferenceTest, IsTheModelOfTheCpuBackEnd) {
  const std::vector<double> errors = errors_by_itself(WeightFormat::kBf16);
  RecordProperty("median", fmt::format("{:.2e}", errors[errors.size() / 2]));
  EXPECT_LE(errors[errors.size() / 2], 1e-2);
}

// e4m3 activations here, float there; and where a router's choice was close, other experts.
TEST_P(DecoderReferenceTest, IsNearTheCpuBackEndInFp8) {
  const std::vector<double> errors = errors_by_itself(WeightFormat::kFp8Block128);
  RecordProperty("median", fmt::format("{:.2e}", errors[errors.size() / 2]));
  EXPECT_LE(errors[errors.size() / 2], 6e-2);
}

TEST_P(DecoderReferenceTest, AcceptsItsOwnStages) {
  const ForwardBatch batch = this->batch();
  DecoderReference reference = this->reference(WeightFormat::kFp8Block128);
  const StageErrors errors = reference.check(batch, reference.run(batch));
  EXPECT_EQ(errors.why_wrong, "");
  for (const auto& [stage, of_rows] : errors.of_row) {
    for (const double error : of_rows) EXPECT_LE(error, 1e-6) << stage;
  }
}

TEST_P(DecoderReferenceTest, AcceptsAStepOfNoTokens) {
  DecoderReference reference = this->reference(WeightFormat::kFp8Block128);
  EXPECT_EQ(reference.check({.query_indptr = {0}}, {}).why_wrong, "");
}

// One element of one row of any stage, by 5 %.
TEST_P(DecoderReferenceTest, SeesOneWrongElement) {
  const ForwardBatch batch = this->batch();
  DecoderReference reference = this->reference(WeightFormat::kFp8Block128);
  const Stages right = reference.run(batch);
  for (const auto& [key, rows] : right) {
    Stages stages = right;
    std::vector<float>& changed = stages.at(key);
    *std::max_element(changed.begin(), changed.end()) *= 1.05f;
    const StageErrors errors = reference.check(batch, stages);
    const std::vector<double>& of_rows = errors.of_row.at(key.second);
    EXPECT_TRUE(errors.why_wrong.find(key.second) != std::string::npos ||
                *std::max_element(of_rows.begin(), of_rows.end()) > kMaxRowError)
        << key.first << " " << key.second << ": " << errors.why_wrong;
  }
}

// NaN in what should be padding of a row.
TEST_P(DecoderReferenceTest, SeesPaddingThatIsNotZero) {
  const ForwardBatch batch = this->batch();
  DecoderReference reference = this->reference(WeightFormat::kFp8Block128);
  Stages stages = reference.run(batch);
  std::vector<float>& rows = stages.at({-1, "embedding"});
  std::vector<float> padded;
  const auto hidden = static_cast<size_t>(config().hidden_size);
  for (size_t at = 0; at < rows.size(); at += hidden) {
    padded.insert(padded.end(), rows.begin() + static_cast<ptrdiff_t>(at),
                  rows.begin() + static_cast<ptrdiff_t>(at + hidden));
    padded.resize(padded.size() + 8);
  }
  rows = padded;
  EXPECT_EQ(reference.check(batch, stages).why_wrong, "");
  rows.back() = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(reference.check(batch, stages).why_wrong, "");
}

// What one adapter gives is not what another gives, or none.
TEST_P(DecoderReferenceTest, SeesAnotherAdapter) {
  ForwardBatch batch = this->batch();
  DecoderReference reference = this->reference(WeightFormat::kFp8Block128);
  const Stages right = reference.run(batch);
  for (size_t t = 0; t < batch.token_ids.size(); t += 2) {
    ForwardBatch other = batch;
    int32_t& slot = other.adapter_slot_of_token[t];
    slot = slot == kNoAdapter ? 0 : kNoAdapter;
    EXPECT_NE(reference.check(other, right).why_wrong, "")
        << "slot " << batch.adapter_slot_of_token[t];
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DecoderReferenceTest, testing::Values("mixtral", "qwen3_moe"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace braid::test
