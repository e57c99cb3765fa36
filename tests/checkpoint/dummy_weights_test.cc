#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <vector>

#include "base/json.h"
#include "checkpoint/weight_source.h"
#include "tests/checkpoint/checkpoint_files.h"

namespace braid {
namespace {

ModelConfig qwen3_30b() {
  return *read_model_config(std::filesystem::path(BRAID_SOURCE_DIR) / "configs" / "Qwen3-30B-A3B");
}

WeightSpec spec_of(const ModelConfig& config, WeightRole role) {
  for (const auto& spec : weight_table(config)) {
    if (spec.role == role) return spec;
  }
  throw std::runtime_error("no such role");
}

std::vector<float> decode(const WeightMatrix& w) {
  const auto cols = static_cast<size_t>(w.cols);
  std::vector<float> out(static_cast<size_t>(w.rows) * cols, NAN);
  for (int32_t row = 0; row < w.rows; ++row) {
    dequantize_row(w, row, out.data() + static_cast<size_t>(row) * cols);
  }
  return out;
}

constexpr std::array kFormats = {WeightFormat::kF32, WeightFormat::kBf16,
                                 WeightFormat::kFp8Block128, WeightFormat::kNvfp4};

TEST(DummyWeights, HaveTheAskedFormatAndADeviationThatKeepsActivationsOfOrderOne) {
  const ModelConfig config = qwen3_30b();
  for (const WeightFormat format : kFormats) {
    const auto source = make_dummy_weights(config, format, 1);
    for (const WeightRole role : {WeightRole::kQProj, WeightRole::kExpertGateProj,
                                  WeightRole::kExpertDownProj, WeightRole::kRouter}) {
      const WeightSpec spec = spec_of(config, role);
      const auto weight = source->matrix(spec);
      ASSERT_TRUE(weight) << weight.error().message;
      const bool is_kept = role == WeightRole::kRouter && format != WeightFormat::kF32;
      EXPECT_EQ(weight->matrix.format, is_kept ? WeightFormat::kBf16 : format);
      const auto values = decode(weight->matrix);
      double sum = 0;
      double squares = 0;
      for (const float x : values) {
        ASSERT_TRUE(std::isfinite(x));
        sum += x;
        squares += double{x} * x;
      }
      const auto n = static_cast<double>(values.size());
      double expected = 1 / std::sqrt(double(spec.cols));
      if (role == WeightRole::kExpertDownProj) expected /= std::sqrt(2.0 * 48);
      EXPECT_NEAR(std::sqrt(squares / n), expected, 0.04 * expected) << name(role);
      EXPECT_NEAR(sum / n, 0, 5 * expected / std::sqrt(n)) << name(role);
    }
  }
}

// The bytes are the same on every machine and in every version: these hashes never change.
TEST(DummyWeights, AreTheSameBytesEverywhere) {
  const ModelConfig config = qwen3_30b();
  const WeightSpec spec = spec_of(config, WeightRole::kExpertUpProj);
  std::vector<uint64_t> hashes;
  for (const WeightFormat format : kFormats) {
    const auto values = decode(make_dummy_weights(config, format, 7)->matrix(spec)->matrix);
    hashes.push_back(XXH3_64bits(values.data(), values.size() * sizeof(float)));
  }
  EXPECT_EQ(hashes, (std::vector<uint64_t>{11969328564160442228u, 13630634233016554298u,
                                           4901761427933079054u, 18082899355259768605u}));
}

TEST(DummyWeights, DifferByNameAndSeed) {
  const ModelConfig config = qwen3_30b();
  WeightSpec spec = spec_of(config, WeightRole::kKProj);
  const auto first =
      decode(make_dummy_weights(config, WeightFormat::kFp8Block128, 1)->matrix(spec)->matrix);
  const auto again =
      decode(make_dummy_weights(config, WeightFormat::kFp8Block128, 1)->matrix(spec)->matrix);
  EXPECT_EQ(first, again);
  EXPECT_NE(
      first,
      decode(make_dummy_weights(config, WeightFormat::kFp8Block128, 2)->matrix(spec)->matrix));
  spec.module += "x";
  EXPECT_NE(
      first,
      decode(make_dummy_weights(config, WeightFormat::kFp8Block128, 1)->matrix(spec)->matrix));
}

TEST(DummyWeights, GiveNormsAroundOne) {
  const ModelConfig config = qwen3_30b();
  const auto values = *make_dummy_weights(config, WeightFormat::kBf16, 1)
                           ->vector(spec_of(config, WeightRole::kQNorm));
  EXPECT_EQ(values.size(), 128u);
  EXPECT_GE(*std::min_element(values.begin(), values.end()), 0.75f);
  EXPECT_LE(*std::max_element(values.begin(), values.end()), 1.25f);
}

TEST(DummyWeights, FillRaggedMatrices) {
  Json json = test::tiny_mixtral().config;
  json["hidden_size"] = 176;
  json["head_dim"] = 6;
  json["intermediate_size"] = 144;
  const ModelConfig config = *parse_model_config(json, Json());
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kFp8Block128}) {
    const auto source = make_dummy_weights(config, format, 1);
    for (const auto& spec : weight_table(config)) {
      if (spec.cols == 0) continue;
      for (const float x : decode(source->matrix(spec)->matrix)) ASSERT_TRUE(std::isfinite(x));
    }
  }
}

TEST(DummyWeights, RefuseNvfp4WithColumnsThatAreNoMultipleOf16) {
  Json json = test::tiny_mixtral().config;
  json["hidden_size"] = 40;
  json["head_dim"] = 16;
  const ModelConfig config = *parse_model_config(json, Json());
  const auto weight = make_dummy_weights(config, WeightFormat::kNvfp4, 1)
                          ->matrix(spec_of(config, WeightRole::kQProj));
  ASSERT_FALSE(weight);
  EXPECT_EQ(weight.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(
      weight.error().message,
      "model.layers.0.self_attn.q_proj: NVFP4 needs a multiple of 16 columns, this config.json "
      "gives 40");
}

}  // namespace
}  // namespace braid
