// Models whose activations are rounded as on a GPU, against the plain loops that round alike.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "adapter/dummy_adapter.h"
#include "tests/model/step_runner.h"
#include "tests/model/tiny_models.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

struct Case {
  const char* name;
  ModelConfig (*config)();
  WeightFormat format;
};

class RoundedModel : public testing::TestWithParam<Case> {
 protected:
  using Logits = std::vector<std::vector<float>>;

  RoundedModel()
      : config_(GetParam().config()),
        model_(Model::load(config_, *make_dummy_weights(config_, GetParam().format, 5)).value()),
        slots_(3, config_.num_hidden_layers) {
    slots_.set(0, make_full_adapter(config_, 5, 21));
    slots_.set(1, make_sparse_adapter(config_, 23));
    slots_.set(2, make_full_adapter(config_, 32, 24));
    uint64_t seed = 0;
    for (const int32_t slot : {0, kNoAdapter, 1, 2, kNoAdapter, 2})
      sequences_.push_back({random_tokens(config_, 25, ++seed), slot});
  }

  Logits run(ops::Backend backend, Rounding rounding) {
    StepRunner runner(*model_, 2, backend, 16, rounding);
    return runner.run(sequences_, chunked(sequences_, 8), &slots_);
  }

  // Relative L2 distances of the rows of logits, rising.
  std::vector<double> distances(const Logits& got, const Logits& want) const {
    std::vector<double> of_rows;
    const auto vocab = static_cast<size_t>(config_.vocab_size);
    for (size_t s = 0; s < want.size(); ++s) {
      for (size_t at = 0; at < want[s].size(); at += vocab) {
        of_rows.push_back(relative_l2(std::span(got[s]).subspan(at, vocab),
                                      std::span(want[s]).subspan(at, vocab)));
      }
    }
    std::sort(of_rows.begin(), of_rows.end());
    return of_rows;
  }

  ModelConfig config_;
  std::unique_ptr<Model> model_;
  AdapterSlots slots_;
  std::vector<Sequence> sequences_;
};

// Sums in another order sooner or later round to the other side somewhere, and then a row is as far
// off as without any rounding. Until then it is the same to the last bits of a float, which it
// could not be if anything were rounded elsewhere.
TEST_P(RoundedModel, IsThatOfThePlainLoopsUntilASumRoundsToTheOtherSide) {
  const Logits got = run(ops::Backend::kCpu, Rounding::kBf16);
  const std::vector<double> alike = distances(got, run(ops::Backend::kReference, Rounding::kBf16));
  const std::vector<double> unrounded = distances(got, run(ops::Backend::kCpu, Rounding::kNone));
  const auto same = std::lower_bound(alike.begin(), alike.end(), 1e-6) - alike.begin();
  RecordProperty("same rows of 100", static_cast<int>(100 * same / std::ssize(alike)));
  EXPECT_GE(same, std::ssize(alike) / 3);
  EXPECT_GT(unrounded.front(), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, RoundedModel,
    testing::Values(Case{"mixtral_bf16", tiny_mixtral, WeightFormat::kBf16},
                    Case{"mixtral_fp8", tiny_mixtral, WeightFormat::kFp8Block128},
                    Case{"mixtral_nvfp4", tiny_mixtral, WeightFormat::kNvfp4},
                    Case{"qwen3_bf16", tiny_qwen3_moe, WeightFormat::kBf16},
                    Case{"qwen3_fp8", tiny_qwen3_moe, WeightFormat::kFp8Block128}),
    [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace braid::test
