// A token's logits have the same bits whatever else is in the step, however its prompt was cut, on
// any number of threads. (The KV block size is the engine's and fixed: attention sums block by
// block.)

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <string>

#include "adapter/dummy_adapter.h"
#include "tests/model/step_runner.h"
#include "tests/model/tiny_models.h"

namespace braid::test {
namespace {

struct Case {
  const char* name;
  ModelConfig (*config)();
  WeightFormat format;
  Rounding rounding = Rounding::kNone;
};

class Invariance : public testing::TestWithParam<Case> {
 protected:
  Invariance()
      : config_(GetParam().config()),
        model_(Model::load(config_, *make_dummy_weights(config_, GetParam().format, 5)).value()),
        slots_(4, config_.num_hidden_layers) {
    slots_.set(0, make_full_adapter(config_, 5, 21));
    slots_.set(1, make_dummy_adapter(config_, "r1", 1, 22));
    slots_.set(2, make_sparse_adapter(config_, 23));
    slots_.set(3, make_full_adapter(config_, 32, 24));
    uint64_t seed = 0;
    for (const int32_t slot : {0, kNoAdapter, 1, 2, 3, kNoAdapter, 0, 3, 1}) {
      const auto length = static_cast<int32_t>(1 + seed * 7 % 29);
      sequences_.push_back({random_tokens(config_, length, ++seed), slot});
    }
  }

  using Logits = std::vector<std::vector<float>>;

  StepRunner runner(int32_t num_threads, int32_t kv_block_size = 4) const {
    return {*model_, num_threads, ops::Backend::kCpu, kv_block_size, GetParam().rounding};
  }

  // Each sequence by itself, whole, on one thread.
  Logits alone(int32_t kv_block_size = 4) const {
    StepRunner runner = this->runner(1, kv_block_size);
    Logits out;
    for (const Sequence& sequence : sequences_) {
      out.push_back(runner.run({sequence}, all_at_once({sequence}), &slots_).front());
    }
    return out;
  }

  // Empty when both have the same bits, otherwise where they first part.
  static std::string first_difference(const Logits& got, const Logits& want) {
    if (got.size() != want.size()) return "another number of sequences";
    for (size_t s = 0; s < want.size(); ++s) {
      if (got[s].size() != want[s].size()) return fmt::format("sequence {}: another size", s);
      for (size_t i = 0; i < want[s].size(); ++i) {
        if (std::bit_cast<uint32_t>(got[s][i]) == std::bit_cast<uint32_t>(want[s][i])) continue;
        return fmt::format("sequence {}, logit {}: {} instead of {}", s, i, got[s][i], want[s][i]);
      }
    }
    return "";
  }

  ModelConfig config_;
  std::unique_ptr<Model> model_;
  AdapterSlots slots_;
  std::vector<Sequence> sequences_;
};

TEST_P(Invariance, AloneEqualsMixedBatch) {
  const Logits want = alone();
  for (const int32_t num_threads : {1, 3}) {
    EXPECT_EQ(first_difference(
                  runner(num_threads).run(sequences_, all_at_once(sequences_), &slots_), want),
              "")
        << num_threads << " threads";
  }
}

TEST_P(Invariance, ChunkedEqualsWhole) {
  for (const int32_t kv_block_size : {4, 16}) {
    const Logits want = alone(kv_block_size);
    for (const int32_t chunk : {1, 3, 8}) {
      const Logits got =
          runner(2, kv_block_size).run(sequences_, chunked(sequences_, chunk), &slots_);
      EXPECT_EQ(first_difference(got, want), "")
          << "chunks of " << chunk << ", KV blocks of " << kv_block_size;
    }
  }
}

TEST_P(Invariance, BaseTokensIgnoreLoadedAdapters) {
  for (Sequence& sequence : sequences_) sequence.adapter_slot = kNoAdapter;
  StepRunner runner = this->runner(2);
  const Schedule schedule = chunked(sequences_, 6);
  EXPECT_EQ(first_difference(runner.run(sequences_, schedule, &slots_),
                             runner.run(sequences_, schedule, nullptr)),
            "");
}

TEST_P(Invariance, WantedRowsAreThoseOfAllRows) {
  const auto vocab = static_cast<int64_t>(config_.vocab_size);
  StepRunner runner = this->runner(2);
  Logits want = runner.run(sequences_, all_at_once(sequences_), &slots_);
  for (std::vector<float>& logits : want) logits.assign(logits.end() - vocab, logits.end());
  runner.ask_for_last_rows(true);
  const Logits got = runner.run(sequences_, all_at_once(sequences_), &slots_);
  EXPECT_EQ(first_difference(got, want), "");
}

INSTANTIATE_TEST_SUITE_P(
    Formats, Invariance,
    testing::Values(
        Case{"mixtral_bf16", tiny_mixtral, WeightFormat::kBf16},
        Case{"mixtral_fp8", tiny_mixtral, WeightFormat::kFp8Block128},
        Case{"qwen3_fp8", tiny_qwen3_moe, WeightFormat::kFp8Block128},
        Case{"qwen3_nvfp4", tiny_qwen3_moe, WeightFormat::kNvfp4},
        Case{"mixtral_fp8_rounded", tiny_mixtral, WeightFormat::kFp8Block128, Rounding::kBf16},
        Case{"qwen3_bf16_rounded", tiny_qwen3_moe, WeightFormat::kBf16, Rounding::kBf16}),
    [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace braid::test
