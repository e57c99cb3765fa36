#include "model/step_bytes.h"

#include <gtest/gtest.h>

#include <cmath>

#include "adapter/dummy_adapter.h"
#include "tests/model/tiny_models.h"

namespace braid::test {
namespace {

DecoderWeights load(const ModelConfig& config, WeightFormat format) {
  return load_decoder_weights(config, *make_dummy_weights(config, format, 1), {}).value();
}

TEST(ExpectedExperts, GoesFromTopKToAll) {
  ModelConfig config = tiny_mixtral();  // 5 experts, top 2
  EXPECT_DOUBLE_EQ(expected_experts(config, 0), 0);
  EXPECT_DOUBLE_EQ(expected_experts(config, 1), 2);
  EXPECT_DOUBLE_EQ(expected_experts(config, 2), 5 * (1 - 0.36));
  EXPECT_NEAR(expected_experts(config, 1000), 5, 1e-9);
  config.top_k = config.num_experts;
  EXPECT_DOUBLE_EQ(expected_experts(config, 1), 5);
}

TEST(StepBytes, CountsEachWeightOnce) {
  // Worked out by hand for hidden 160, q 192, kv 64, inner 144, vocab 131, in BF16.
  const ModelConfig config = tiny_mixtral();
  const size_t attention = 2 * (192 * 160 + 2 * 64 * 160 + 160 * 192);
  const size_t expert = 2 * 3 * 144 * 160;
  const size_t router = 2 * 5 * 160, norms = 4 * 2 * 160;
  const size_t ends = 2 * 131 * 160 + 4 * 160;  // lm_head and final norm
  const DecoderWeights weights = load(config, WeightFormat::kBf16);
  EXPECT_EQ(step_bytes(config, bytes_of(config, weights), 0), 0u);
  EXPECT_EQ(step_bytes(config, bytes_of(config, weights), 1),
            2 * (attention + 2 * expert + router + norms) + ends + 2 * 160);
  EXPECT_EQ(step_bytes(config, bytes_of(config, weights), 1000),
            2 * (attention + 5 * expert + router + norms) + ends + 1000 * 2 * 160);
}

TEST(StepBytes, CountsScales) {
  const ModelConfig config = tiny_mixtral();
  const auto bytes = [&](WeightFormat format) {
    return step_bytes(config, bytes_of(config, load(config, format)), 1000);
  };
  // In a matrix of 144 x 160: four ragged scale blocks; a byte for 16 columns.
  const auto quantised = [](size_t rows, size_t cols, bool fp8) {
    const size_t blocks = ((rows + 127) / 128) * ((cols + 127) / 128);
    return fp8 ? rows * cols + 4 * blocks : rows * cols / 2 + rows * cols / 16 + 4;
  };
  for (const bool fp8 : {true, false}) {
    const size_t attention =
        quantised(192, 160, fp8) + 2 * quantised(64, 160, fp8) + quantised(160, 192, fp8);
    const size_t expert = 2 * quantised(144, 160, fp8) + quantised(160, 144, fp8);
    EXPECT_EQ(bytes(fp8 ? WeightFormat::kFp8Block128 : WeightFormat::kNvfp4),
              2 * (attention + 5 * expert + 2 * 5 * 160 + 4 * 2 * 160) + 2 * 131 * 160 + 4 * 160 +
                  1000 * 2 * 160);
  }
}

TEST(StepBytes, CountsATiedHeadAndDenseLayers) {
  const ModelConfig config = tiny_qwen3_moe();
  const DecoderWeights weights = load(config, WeightFormat::kBf16);
  EXPECT_EQ(weights.lm_head.matrix.data, weights.embedding.matrix.data);
  const size_t attention = 2 * (2 * 144 * 96 + 2 * 48 * 96) + 4 * 2 * 48;
  const size_t norms = 4 * 2 * 96;
  const size_t mixture = 2 * (3 * 3 * 64 * 96 + 7 * 96), dense = 2 * 3 * 176 * 96;
  EXPECT_EQ(step_bytes(config, bytes_of(config, weights), 1),
            4 * (attention + norms) + 2 * mixture + 2 * dense + 2 * 97 * 96 + 4 * 96 + 2 * 96);
}

TEST(AdapterStepBytes, OfManyTokensIsTheWholeAdapter) {
  for (const ModelConfig& config : {tiny_mixtral(), tiny_qwen3_moe()}) {
    const auto adapter = make_dummy_adapter(config, "a", 6, 1);
    EXPECT_EQ(adapter_step_bytes(config, *adapter, 100000), adapter->bytes);
    EXPECT_LT(adapter_step_bytes(config, *adapter, 1), adapter->bytes);
    EXPECT_EQ(adapter_step_bytes(config, *adapter, 0), 0u);
  }
}

TEST(AdapterStepBytes, CountsSharedFactorsOnce) {
  const ModelConfig config = tiny_mixtral();
  const auto own = make_dummy_adapter(config, "own", 4, 1);
  Adapter shared = {.name = "shared"};
  shared.layers.resize(static_cast<size_t>(config.num_hidden_layers));
  std::vector<ExpertLora>& experts = shared.layers[0].experts;
  experts = own->layers[0].experts;
  for (ExpertLora& expert : experts) {
    expert.gate.a = expert.up.a = experts[0].gate.a;  // one A for all of gate and up
    expert.down.b_t = experts[0].down.b_t;
  }
  // One token touches two of five experts; the two shared factors are read whichever they are.
  EXPECT_EQ(adapter_step_bytes(config, shared, 1), 2u * 4 * (160 + 160 + 2 * (2 * 144 + 144)));
}

TEST(AdapterStepBytes, CountsBothEnds) {
  const ModelConfig config = tiny_mixtral();
  Adapter ends = *make_full_adapter(config, 3, 1);
  for (LayerLora& layer : ends.layers) layer = {};
  EXPECT_EQ(adapter_step_bytes(config, ends, 2), 2u * 3 * ((160 + 131) + (2 + 160)));
}

}  // namespace
}  // namespace braid::test
