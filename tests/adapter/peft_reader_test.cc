// read_adapter: one logical adapter written in every layout comes out as the same factors.

#include "adapter/peft_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <ostream>

#include "base/json.h"
#include "tests/adapter/adapter_builder.h"

namespace braid::test {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using Floats = std::vector<float>;

constexpr int64_t kHidden = 8, kExpert = 6, kExperts = 4, kRank = 2;
const std::string kLayer = "base_model.model.model.layers.0.";

Result<AdapterAndReport> read(const AdapterBuilder& builder, AdapterReadOptions options = {}) {
  const TempFolder folder;
  builder.write(folder.path());
  return read_adapter(folder.path(), tiny_model(), options);
}

// Row-major matrix of a test.
struct Matrix {
  int64_t rows = 0, cols = 0;
  Floats values;

  float& at(int64_t i, int64_t j) { return values[static_cast<size_t>(i * cols + j)]; }
  float at(int64_t i, int64_t j) const { return values[static_cast<size_t>(i * cols + j)]; }
};

Matrix some_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  return {rows, cols, some_values(rows * cols, seed)};
}

// The logical adapter: an A for gate and up together, as every layout can hold.
struct Expert {
  Matrix gate_up_a, gate_b, up_b, down_a, down_b;  // A [r, in], B [out, r]
};

std::vector<Expert> some_experts() {
  std::vector<Expert> experts;
  for (uint64_t e = 0; e < kExperts; ++e) {
    experts.push_back(
        {some_matrix(kRank, kHidden, 10 * e + 1), some_matrix(kExpert, kRank, 10 * e + 2),
         some_matrix(kExpert, kRank, 10 * e + 3), some_matrix(kRank, kExpert, 10 * e + 4),
         some_matrix(kHidden, kRank, 10 * e + 5)});
  }
  return experts;
}

Matrix stack(const Matrix& top, const Matrix& bottom) {
  Matrix both = {top.rows + bottom.rows, top.cols, top.values};
  both.values.insert(both.values.end(), bottom.values.begin(), bottom.values.end());
  return both;
}

Matrix transpose(const Matrix& m) {
  Matrix t = {m.cols, m.rows, Floats(m.values.size())};
  for (int64_t i = 0; i < m.rows; ++i) {
    for (int64_t j = 0; j < m.cols; ++j) t.at(j, i) = m.at(i, j);
  }
  return t;
}

void add_matrix(AdapterBuilder& builder, const std::string& name, const Matrix& m) {
  builder.add(name, {m.rows, m.cols}, m.values);
}

AdapterBuilder two_d(const std::vector<Expert>& experts, const std::string& block,
                     const std::string& gate, const std::string& up, const std::string& down) {
  AdapterBuilder builder;
  for (size_t e = 0; e < experts.size(); ++e) {
    const std::string place = kLayer + block + ".experts." + std::to_string(e) + ".";
    const auto add = [&](const std::string& module, const Matrix& a, const Matrix& b) {
      add_matrix(builder, place + module + ".lora_A.weight", a);
      add_matrix(builder, place + module + ".lora_B.weight", b);
    };
    if (up.empty()) {
      add(gate, experts[e].gate_up_a, stack(experts[e].gate_b, experts[e].up_b));
    } else {
      add(gate, experts[e].gate_up_a, experts[e].gate_b);
      add(up, experts[e].gate_up_a, experts[e].up_b);
    }
    add(down, experts[e].down_a, experts[e].down_b);
  }
  return builder;
}

// PEFT's 3-D factors written from the formula: row e * r + k of A; column k * E + e of B, or
// e * r + k when grouped. With `swapped` the factors of the transposed parameter.
void add_parameter(AdapterBuilder& builder, const std::string& name, bool swapped, bool grouped,
                   const std::vector<std::pair<Matrix, Matrix>>& pairs) {
  Matrix all_a, all_b;
  for (int64_t e = 0; e < kExperts; ++e) {
    const auto& [a0, b0] = pairs[static_cast<size_t>(e)];
    const Matrix a = swapped ? transpose(b0) : a0, b = swapped ? transpose(a0) : b0;
    if (e == 0) {
      all_a = {kExperts * kRank, a.cols, Floats(static_cast<size_t>(kExperts * kRank * a.cols))};
      all_b = {b.rows, kExperts * kRank, Floats(static_cast<size_t>(kExperts * kRank * b.rows))};
    }
    for (int64_t k = 0; k < kRank; ++k) {
      for (int64_t j = 0; j < a.cols; ++j) all_a.at(e * kRank + k, j) = a.at(k, j);
      const int64_t column = grouped ? e * kRank + k : k * kExperts + e;
      for (int64_t i = 0; i < b.rows; ++i) all_b.at(i, column) = b.at(i, k);
    }
  }
  add_matrix(builder, name + ".lora_A.weight", all_a);
  add_matrix(builder, name + ".lora_B.weight", all_b);
}

AdapterBuilder three_d(const std::vector<Expert>& experts, bool swapped, bool grouped,
                       const std::string& block = "mlp") {
  AdapterBuilder builder;
  builder.config["target_parameters"] = {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"};
  std::vector<std::pair<Matrix, Matrix>> gate_up, down;
  for (const Expert& e : experts) {
    gate_up.emplace_back(e.gate_up_a, stack(e.gate_b, e.up_b));
    down.emplace_back(e.down_a, e.down_b);
  }
  add_parameter(builder, kLayer + block + ".experts.base_layer", swapped, grouped, gate_up);
  add_parameter(builder, kLayer + block + ".experts", swapped, grouped, down);
  return builder;
}

// [E, ...] or, from one expert, [1, ...].
void add_stacked(AdapterBuilder& builder, const std::string& name,
                 const std::vector<Matrix>& parts) {
  Floats all;
  for (const Matrix& m : parts) all.insert(all.end(), m.values.begin(), m.values.end());
  builder.add(name, {static_cast<int64_t>(parts.size()), parts[0].rows, parts[0].cols}, all);
}

// delta[o][i] = scaling * sum_k b[o][k] a[k][i], exactly the same products in the same order.
std::vector<double> delta(const Matrix& a, const Matrix& b, double scaling) {
  std::vector<double> out;
  for (int64_t o = 0; o < b.rows; ++o) {
    for (int64_t i = 0; i < a.cols; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < a.rows; ++k) sum += static_cast<double>(b.at(o, k)) * a.at(k, i);
      out.push_back(scaling * sum);
    }
  }
  return out;
}

std::vector<double> delta(const LoraPair& pair, int64_t in, int64_t out) {
  Matrix a = {pair.rank, in, Floats(static_cast<size_t>(pair.rank * in), NAN)};
  Matrix b = {out, pair.rank, Floats(static_cast<size_t>(pair.rank * out), NAN)};
  for (int64_t k = 0; k < pair.rank; ++k) {
    for (int64_t i = 0; i < in; ++i) a.at(k, i) = to_float(pair.a[k * in + i]);
    for (int64_t o = 0; o < out; ++o) b.at(o, k) = to_float(pair.b_t[k * out + o]);
  }
  return delta(a, b, pair.scaling);
}

void expect_experts(const Adapter& adapter, const std::vector<Expert>& want, double scaling = 2) {
  const std::vector<ExpertLora>& got = adapter.layers[0].experts;
  ASSERT_EQ(got.size(), want.size());
  for (size_t e = 0; e < want.size(); ++e) {
    SCOPED_TRACE(e);
    EXPECT_EQ(delta(got[e].gate, kHidden, kExpert),
              delta(want[e].gate_up_a, want[e].gate_b, scaling));
    EXPECT_EQ(delta(got[e].up, kHidden, kExpert), delta(want[e].gate_up_a, want[e].up_b, scaling));
    EXPECT_EQ(delta(got[e].down, kExpert, kHidden), delta(want[e].down_a, want[e].down_b, scaling));
    EXPECT_EQ(got[e].gate.a, got[e].up.a) << "one A is stored once";
  }
}

struct LayoutCase {
  std::string name;
  std::function<AdapterBuilder(const std::vector<Expert>&)> write;
  std::string layout;
  ExpertLayout wish = ExpertLayout::kAuto;

  friend void PrintTo(const LayoutCase& layout, std::ostream* out) { *out << layout.name; }
};

AdapterBuilder with(AdapterBuilder builder, const Json& keys) {
  builder.config.update(keys);
  return builder;
}

std::vector<LayoutCase> layout_cases() {
  using E = const std::vector<Expert>&;
  const Json old_peft = {{"layers_to_transform", nullptr}, {"megatron_config", nullptr}};
  return {
      {"2d", [](E e) { return two_d(e, "mlp", "gate_proj", "up_proj", "down_proj"); },
       "per-expert 2-D"},
      {"2d_w123", [](E e) { return two_d(e, "block_sparse_moe", "w1", "w3", "w2"); },
       "per-expert 2-D"},
      {"2d_fused", [](E e) { return two_d(e, "mlp", "gate_up_proj", "", "down_proj"); },
       "per-expert 2-D"},
      {"3d_peft",
       [](E e) {
         return with(three_d(e, false, false), {{"peft_version", "0.21.0"}});
       },
       "3-D target_parameters, current orientation, PEFT columns"},
      {"3d_peft_mixtral",
       [](E e) {
         return with(three_d(e, false, false, "block_sparse_moe"), {{"peft_version", "0.19.1"}});
       },
       "3-D target_parameters, current orientation, PEFT columns"},
      {"3d_peft_018",
       [](E e) {
         return with(three_d(e, true, false), {{"peft_version", "0.18.1"}});
       },
       "3-D target_parameters, in and out swapped, PEFT columns"},
      {"3d_peft_dev",
       [](E e) {
         return with(three_d(e, true, false), {{"peft_version", "0.19.1.dev0@ab12"}});
       },
       "3-D target_parameters, in and out swapped, PEFT columns"},
      {"3d_peft_017", [=](E e) { return with(three_d(e, true, false), old_peft); },
       "3-D target_parameters, in and out swapped, PEFT columns"},
      {"3d_megatron", [](E e) { return three_d(e, true, true); },
       "3-D target_parameters, in and out swapped, grouped columns"},
      {"3d_unsloth",
       [](E e) {
         return with(three_d(e, false, true),
                     {{"peft_version", "0.18.0"}, {"auto_mapping", {{"unsloth_fixed", true}}}});
       },
       "3-D target_parameters, current orientation, grouped columns", ExpertLayout::kGrouped},
      {"3d_unsloth_base",
       [](E e) {
         return with(
             three_d(e, false, false),
             {{"peft_version", "0.21.0"}, {"base_model_name_or_path", "unsloth/Qwen3-30B-A3B"}});
       },
       "3-D target_parameters, current orientation, PEFT columns", ExpertLayout::kPeft},
      {"by_shape",
       [](E experts) {
         AdapterBuilder builder;
         std::vector<Matrix> a, b, down_a, down_b;
         for (const Expert& e : experts) {
           a.push_back(e.gate_up_a), b.push_back(stack(e.gate_b, e.up_b));
           down_a.push_back(e.down_a), down_b.push_back(e.down_b);
         }
         add_stacked(builder, kLayer + "mlp.experts.gate_up_proj.lora_A.weight", a);
         add_stacked(builder, kLayer + "mlp.experts.gate_up_proj.lora_B.weight", b);
         add_stacked(builder, kLayer + "mlp.experts.w2.lora_A.weight", down_a);
         add_stacked(builder, kLayer + "mlp.experts.w2.lora_B.weight", down_b);
         return builder;
       },
       "3-D per expert"},
  };
}

class EveryLayout : public testing::TestWithParam<LayoutCase> {};

TEST_P(EveryLayout, GivesTheSameFactorsAndHash) {
  const auto experts = some_experts();
  const auto got = read(GetParam().write(experts), {.expert_layout = GetParam().wish});
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->report.layout, GetParam().layout);
  EXPECT_THAT(got->report.warnings, IsEmpty());
  expect_experts(*got->adapter, experts);
  EXPECT_EQ(got->report.min_rank, kRank);
  EXPECT_EQ(got->adapter->max_rank, kRank);

  const auto plain = read(two_d(experts, "mlp", "gate_proj", "up_proj", "down_proj"));
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_EQ(got->adapter->hash, plain->adapter->hash);
  EXPECT_EQ(got->adapter->bytes, plain->adapter->bytes);
}

INSTANTIATE_TEST_SUITE_P(Layouts, EveryLayout, testing::ValuesIn(layout_cases()),
                         [](const auto& param) { return "x" + param.param.name; });

TEST(ReadAdapter, HashSeesContentAndScalingOnly) {
  const auto make = [](double alpha, float value) {
    AdapterBuilder builder;
    builder.config["lora_alpha"] = alpha;
    builder.add("model.layers.1.self_attn.o_proj.lora_A.weight", {2, 12}, Floats(24, value));
    builder.add("model.layers.1.self_attn.o_proj.lora_B.weight", {8, 2}, Floats(16, 1));
    return read(builder)->adapter->hash;
  };
  EXPECT_EQ(make(4, 1), make(4, 1));
  EXPECT_NE(make(4, 1), make(8, 1));
  EXPECT_NE(make(4, 1), make(4, 2));
}

TEST(ReadAdapter, HashSeesWhichMatrixIsAdapted) {
  const auto make = [](const std::string& module) {
    AdapterBuilder builder;
    builder.add(kLayer + module + ".lora_A.weight", {2, 8}, Floats(16, 1));
    builder.add(kLayer + module + ".lora_B.weight", {4, 2}, Floats(8, 1));
    return read(builder)->adapter->hash;
  };
  EXPECT_NE(make("self_attn.k_proj"), make("self_attn.v_proj"));
  EXPECT_NE(make("self_attn.k_proj"), make("mlp.gate"));
}

TEST(ReadAdapter, TakesEveryLinearTarget) {
  AdapterBuilder builder;
  builder.config["r"] = 3;
  builder.config["lora_alpha"] = 6;
  builder.add_pair(kLayer + "self_attn.q_proj", 8, 12, 3);
  builder.add_pair(kLayer + "self_attn.k_proj", 8, 4, 3);
  builder.add_pair(kLayer + "self_attn.v_proj", 8, 4, 3);
  builder.add_pair(kLayer + "self_attn.o_proj", 12, 8, 3);
  builder.add_pair(kLayer + "mlp.gate", 8, 4, 3);
  builder.add_pair("base_model.model.model.layers.1.mlp.gate_up_proj", 8, 20, 3);
  builder.add_pair("base_model.model.model.layers.1.mlp.down_proj", 10, 8, 3);
  builder.add_pair("base_model.model.lm_head", 8, 16, 3);
  const auto got = read(builder);
  ASSERT_TRUE(got) << got.error().message;
  const auto matrix = [&](const std::string& name) {
    const AdapterBuilder::Tensor& tensor = builder.tensors.at(name + ".weight");
    Matrix m = {tensor.shape[0], tensor.shape[1],
                Floats(static_cast<size_t>(num_elements(tensor.shape)))};
    copy_to_float({tensor.dtype, tensor.shape, tensor.bytes}, m.values.data());
    return m;
  };
  const auto want = [&](const std::string& module) {
    return delta(matrix(module + ".lora_A"), matrix(module + ".lora_B"), 2);
  };
  const auto linear = [&](int layer, LoraTarget target) {
    return got->adapter->layers[layer].linear[static_cast<size_t>(target)];
  };
  EXPECT_EQ(delta(linear(0, LoraTarget::kQProj), 8, 12), want(kLayer + "self_attn.q_proj"));
  EXPECT_EQ(delta(linear(0, LoraTarget::kKProj), 8, 4), want(kLayer + "self_attn.k_proj"));
  EXPECT_EQ(delta(linear(0, LoraTarget::kVProj), 8, 4), want(kLayer + "self_attn.v_proj"));
  EXPECT_EQ(delta(linear(0, LoraTarget::kOProj), 12, 8), want(kLayer + "self_attn.o_proj"));
  EXPECT_EQ(delta(linear(0, LoraTarget::kRouter), 8, 4), want(kLayer + "mlp.gate"));
  const std::string dense = "base_model.model.model.layers.1.mlp.";
  EXPECT_EQ(delta(linear(1, LoraTarget::kDownProj), 10, 8), want(dense + "down_proj"));
  // The fused pair's rows are gate, then up.
  std::vector<double> both = delta(linear(1, LoraTarget::kGateProj), 8, 10);
  const std::vector<double> up = delta(linear(1, LoraTarget::kUpProj), 8, 10);
  both.insert(both.end(), up.begin(), up.end());
  EXPECT_EQ(both, want(dense + "gate_up_proj"));
  EXPECT_EQ(delta(got->adapter->lm_head, 8, 16), want("base_model.model.lm_head"));
  EXPECT_EQ(linear(1, LoraTarget::kQProj).rank, 0);
  EXPECT_TRUE(got->adapter->layers[0].experts.empty());
  EXPECT_THAT(got->report.targets, Contains("q_proj x1 (rank 3)"));
}

TEST(ReadAdapter, TransposesTheEmbedding) {
  AdapterBuilder builder;
  const Matrix a = some_matrix(2, 16, 1), b = some_matrix(8, 2, 2);
  builder.add("base_model.model.model.embed_tokens.lora_embedding_A", {2, 16}, a.values);
  builder.add("base_model.model.model.embed_tokens.lora_embedding_B", {8, 2}, b.values);
  const auto got = read(builder);
  ASSERT_TRUE(got) << got.error().message;
  const EmbeddingLora& embedding = got->adapter->embedding;
  ASSERT_EQ(embedding.rank, 2);
  EXPECT_EQ(embedding.scaling, 2);
  for (int64_t k = 0; k < 2; ++k) {
    for (int64_t v = 0; v < 16; ++v) EXPECT_EQ(to_float(embedding.a_t[v * 2 + k]), a.at(k, v));
    for (int64_t h = 0; h < 8; ++h) EXPECT_EQ(to_float(embedding.b[h * 2 + k]), b.at(h, k));
  }
}

TEST(ReadAdapter, SharesTheOuterFactors) {
  const auto experts = some_experts();
  AdapterBuilder builder;
  std::vector<Matrix> gate_b, up_b, down_a;
  for (const Expert& e : experts) {
    gate_b.push_back(e.gate_b), up_b.push_back(e.up_b), down_a.push_back(e.down_a);
  }
  const std::string place = kLayer + "mlp.experts.";
  add_stacked(builder, place + "w1.lora_A.weight", {experts[0].gate_up_a});
  add_stacked(builder, place + "w1.lora_B.weight", gate_b);
  add_stacked(builder, place + "w3.lora_A.weight", {experts[0].gate_up_a});
  add_stacked(builder, place + "w3.lora_B.weight", up_b);
  add_stacked(builder, place + "w2.lora_A.weight", down_a);
  add_stacked(builder, place + "w2.lora_B.weight", {experts[0].down_b});
  const auto got = read(builder);
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->report.layout, "shared-outer by shape");
  std::vector<Expert> want = experts;
  for (Expert& e : want) e.gate_up_a = experts[0].gate_up_a, e.down_b = experts[0].down_b;
  expect_experts(*got->adapter, want);
  EXPECT_EQ(got->report.num_distinct_factors, 1 + 4 + 4 + 4 + 1);
  EXPECT_EQ(got->adapter->layers[0].experts[0].gate.a, got->adapter->layers[0].experts[3].up.a);
}

TEST(ReadAdapter, StoresEqualCopiesOnce) {
  std::vector<Expert> experts(kExperts, some_experts()[0]);
  const auto got = read(two_d(experts, "mlp", "gate_proj", "up_proj", "down_proj"));
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->report.num_factors, 4 * 6);
  EXPECT_EQ(got->report.num_distinct_factors, 5);
  EXPECT_EQ(got->adapter->storage.front()->factors().size(), 5u);
  EXPECT_LT(got->report.bytes_resident, got->report.bytes_in_file);
  expect_experts(*got->adapter, experts);
}

// Fused factors of PEFT's conversion have twice the rank and twice the alpha, in the patterns.
TEST(ReadAdapter, AppliesPatternsToFusedParameters) {
  AdapterBuilder builder;
  builder.config.update(
      {{"r", 1},
       {"lora_alpha", 3},
       {"peft_version", "0.21.0"},
       {"target_parameters", {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}},
       {"rank_pattern", {{".*\\.gate_up_proj", 2}}},
       {"alpha_pattern", {{"mlp.experts.gate_up_proj", 6}}}});
  builder.add_pair(kLayer + "mlp.experts.base_layer", 8, 12, 4 * 2);
  builder.add_pair(kLayer + "mlp.experts", 6, 8, 4 * 1);
  const auto got = read(builder);
  ASSERT_TRUE(got) << got.error().message;
  const ExpertLora& expert = got->adapter->layers[0].experts[1];
  EXPECT_EQ(expert.gate.rank, 2);
  EXPECT_EQ(expert.gate.scaling, 3);
  EXPECT_EQ(expert.down.rank, 1);
  EXPECT_EQ(expert.down.scaling, 3);
}

TEST(ReadAdapter, ScalesByPatternsAndRsLora) {
  AdapterBuilder builder;
  builder.config.update({{"r", 2},
                         {"lora_alpha", 4},
                         {"use_rslora", true},
                         {"rank_pattern", {{"^model.layers.0.self_attn.q_proj", 4}}},
                         {"alpha_pattern", {{"[qk]_proj", 6}, {"o_proj", 1}}}});
  builder.add_pair(kLayer + "self_attn.q_proj", 8, 12, 4);
  builder.add_pair(kLayer + "self_attn.k_proj", 8, 4, 2);
  builder.add_pair(kLayer + "self_attn.v_proj", 8, 4, 2);
  const auto got = read(builder);
  ASSERT_TRUE(got) << got.error().message;
  const auto& linear = got->adapter->layers[0].linear;
  EXPECT_EQ(linear[0].scaling, 3);  // 6 / sqrt(4)
  EXPECT_EQ(linear[1].scaling, static_cast<float>(6 / std::sqrt(2.0)));
  EXPECT_EQ(linear[2].scaling, static_cast<float>(4 / std::sqrt(2.0)));
}

TEST(ReadAdapter, NormalisesNames) {
  for (const char* module :
       {"model.layers.1.self_attn.k_proj", "base_model.model.model.layers.1.self_attn.k_proj",
        "base_model.model.model.model.layers.1.self_attn.k_proj", "layers.1.self_attn.k_proj",
        "base_model.model.model.language_model.layers.1.self_attn.k_proj",
        "base_model.model.language_model.model.layers.1.self_attn.k_proj",
        "language_model.layers.1.self_attn.k_proj"}) {
    for (const char* part : {"", ".default"}) {
      AdapterBuilder builder;
      builder.add(fmt::format("{}.lora_A{}.weight", module, part), {2, 8}, Dtype::kF16);
      builder.add(fmt::format("{}.lora_B{}.weight", module, part), {4, 2}, Dtype::kF32);
      const auto got = read(builder);
      ASSERT_TRUE(got) << got.error().message;
      EXPECT_EQ(got->adapter->layers[1].linear[1].rank, 2) << module;
    }
  }
}

TEST(ReadAdapter, WarnsOfWhatCannotBeMeant) {
  AdapterBuilder builder;
  builder.config.update({{"target_modules", {"q_proj", "up_proj"}},
                         {"base_model_name_or_path", "org/other-model"},
                         {"exporter_note", "x"}});
  builder.add(kLayer + "self_attn.k_proj.lora_A.weight", {2, 8});
  builder.add(kLayer + "self_attn.k_proj.lora_B.weight", {4, 2}, Floats(8, 0));
  const auto got = read(builder, {.base_model_name = "models/this-model"});
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(
      got->report.warnings,
      (std::vector<std::string>{
          "key \"exporter_note\" = \"x\" of adapter_config.json is not known and was ignored",
          "base_model_name_or_path is \"other-model\", this base model is \"this-model\"",
          "target_modules names q_proj, but the file has no factors for it",
          "target_modules names up_proj, but the file has no factors for it",
          "the file has factors for k_proj, which target_modules does not name; they are applied",
          "every delta is zero: the adapter changes nothing (lora_B starts as zeros; was it "
          "trained "
          "and saved?)"}));
}

TEST(ReadAdapter, CountsPartlyZeroDeltas) {
  AdapterBuilder builder;
  builder.add_pair(kLayer + "self_attn.v_proj", 8, 4);
  builder.add(kLayer + "self_attn.k_proj.lora_A.weight", {2, 8});
  builder.add(kLayer + "self_attn.k_proj.lora_B.weight", {4, 2}, Floats(8, 0));
  const auto got = read(builder);
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_THAT(got->report.warnings,
              Contains("1 of 2 adapted matrices have an all-zero delta, for example "
                       "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight"));
}

TEST(ReadAdapter, AcceptsTheBaseTablesThatPeftSavesAlong) {
  AdapterBuilder builder;
  builder.add_pair("base_model.model.lm_head", 8, 16);
  builder.add("base_model.model.lm_head.base_layer.weight", {16, 8});
  const auto got = read(builder);
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_THAT(got->report.warnings, Contains(HasSubstr("copy of the frozen lm_head table")));
  EXPECT_EQ(got->report.num_parameters, 2 * 8 + 16 * 2);
}

// With rank 1 both orders are one, so no evidence is needed.
TEST(ReadAdapter, NeedsNoColumnOrderAtRankOne) {
  AdapterBuilder builder;
  builder.config["r"] = 1;
  builder.add_pair(kLayer + "mlp.experts", 6, 8, 4);
  const auto got = read(builder);
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_THAT(got->report.evidence,
              Contains("rank 1 per expert: both column orders of B are the same"));
}

}  // namespace
}  // namespace braid::test
