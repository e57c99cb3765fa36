#include "checkpoint/weight_source.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>
#include <string>

#include "tests/checkpoint/checkpoint_files.h"

namespace braid {
namespace {

using test::bf16_tensor;
using test::f32_tensor;
using test::filled;
using test::TemporaryFolder;
using test::TestCheckpoint;

const std::string kQ = "model.layers.0.self_attn.q_proj";
const std::string kExperts = "model.layers.0.block_sparse_moe.experts.";

std::vector<float> floats_of(const test::TensorData& tensor) {
  std::vector<float> out(static_cast<size_t>(num_elements(tensor.shape)));
  copy_to_float({tensor.dtype, tensor.shape, std::as_bytes(std::span(tensor.bytes))}, out.data());
  return out;
}

std::vector<float> decode(const WeightMatrix& w) {
  std::vector<float> out(static_cast<size_t>(w.rows) * static_cast<size_t>(w.cols), NAN);
  for (int32_t row = 0; row < w.rows; ++row) dequantize_row(w, row, out.data() + row * w.cols);
  return out;
}

// A written and opened checkpoint.
struct Opened {
  explicit Opened(const TestCheckpoint& checkpoint) {
    checkpoint.write(folder);
    auto config = read_model_config(folder.path());
    if (!config) {
      error = config.error();
      return;
    }
    table = weight_table(*config);
    auto opened = open_checkpoint(folder.path(), *config);
    if (opened) {
      source = std::move(*opened);
    } else {
      error = opened.error();
    }
  }

  const WeightSpec& spec(const std::string& module) const {
    for (const auto& entry : table) {
      if (entry.module == module) return entry;
    }
    throw std::runtime_error("no spec " + module);
  }

  // The first error of opening and then reading every weight.
  std::optional<Error> first_error() {
    if (!source) return error;
    for (const auto& entry : table) {
      if (entry.cols == 0) {
        if (auto values = source->vector(entry); !values) return values.error();
      } else if (auto weight = source->matrix(entry); !weight) {
        return weight.error();
      }
    }
    return std::nullopt;
  }

  TemporaryFolder folder;
  std::vector<WeightSpec> table;
  std::unique_ptr<WeightSource> source;
  std::optional<Error> error;
};

void make_fp8(TestCheckpoint& c, const std::string& module, Dtype scale_dtype) {
  const Shape shape = c.tensors.at(module + ".weight").shape;
  c.tensors[module + ".weight"] = filled(Dtype::kF8E4M3, shape, 0x40);  // 2
  const Shape blocks = {(shape[0] + 127) / 128, (shape[1] + 127) / 128};
  c.tensors[module + ".weight_scale_inv"] =
      scale_dtype == Dtype::kF32
          ? f32_tensor(blocks, std::vector<float>(static_cast<size_t>(num_elements(blocks)), 0.5f))
          : test::TensorData{Dtype::kBf16, blocks, std::string("\x00\x3f", 2)};
}

void make_modelopt(TestCheckpoint& c, const std::string& module) {
  const Shape shape = c.tensors.at(module + ".weight").shape;
  c.tensors[module + ".weight"] = filled(Dtype::kU8, {shape[0], shape[1] / 2}, 0x42);  // 1, 2
  c.tensors[module + ".weight_scale"] =
      filled(Dtype::kF8E4M3, {shape[0], shape[1] / 16}, 0x40);  // 2
  c.tensors[module + ".weight_scale_2"] = f32_tensor({}, {0.25f});
  c.tensors[module + ".input_scale"] = f32_tensor({}, {0.1f});
}

void make_compressed(TestCheckpoint& c, const std::string& module) {
  make_modelopt(c, module);
  c.tensors[module + ".weight_packed"] = c.tensors.at(module + ".weight");
  c.tensors[module + ".weight_global_scale"] = f32_tensor({1}, {4.0f});
  c.tensors[module + ".input_global_scale"] = f32_tensor({1}, {10.0f});
  for (const char* suffix : {".weight", ".weight_scale_2", ".input_scale"}) {
    c.tensors.erase(module + suffix);
  }
}

struct Broken {
  const char* name;
  std::function<void(TestCheckpoint&)> change;
  ErrorCode code;
  const char* message;
};

constexpr auto kCorrupt = ErrorCode::kCorrupt;
constexpr auto kUnsupported = ErrorCode::kUnsupported;

const Broken kBroken[] = {
    {"MissingWeight", [](auto& c) { c.tensors.erase(kQ + ".weight"); }, ErrorCode::kNotFound,
     "DIR: no tensor \"model.layers.0.self_attn.q_proj.weight\", which config.json asks for"},
    {"UnknownTensor", [](auto& c) { c.tensors["model.extra.weight"] = bf16_tensor("x", {1}); },
     kUnsupported,
     "DIR: tensor \"model.extra.weight\" is not a weight of MixtralForCausalLM with this "
     "config.json"},
    {"Bias", [](auto& c) { c.tensors[kQ + ".bias"] = bf16_tensor("x", {32}); }, kUnsupported,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.bias\" is not a weight of MixtralForCausalLM "
     "with this config.json"},
    {"OneLayerTooMany",
     [](auto& c) {
       c.tensors["model.layers.1.self_attn.q_proj.weight"] = bf16_tensor("x", {32, 32});
     },
     kUnsupported,
     "DIR: tensor \"model.layers.1.self_attn.q_proj.weight\" is not a weight of MixtralForCausalLM "
     "with this config.json"},
    {"ScaleOfANorm", [](auto& c) { c.tensors["model.norm.weight_scale"] = bf16_tensor("x", {1}); },
     kUnsupported,
     "DIR: tensor \"model.norm.weight_scale\" is not a weight of MixtralForCausalLM with this "
     "config.json"},
    {"TwoNamesOfOneWeight",
     [](auto& c) {
       c.tensors["model.language_model.norm.weight"] = c.tensors.at("model.norm.weight");
     },
     kCorrupt,
     "DIR: tensors \"model.language_model.norm.weight\" and \"model.norm.weight\" are two names of "
     "one weight"},
    {"WrongShape",
     [](auto& c) {
       c.tensors[kQ + ".weight"] = bf16_tensor("x", {32, 16});
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight\": shape [32, 16], [32, 32] is "
     "expected"},
    {"TransposedShape",
     [](auto& c) {
       c.tensors[kExperts + "1.w2.weight"] = bf16_tensor("x", {16, 32});
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.block_sparse_moe.experts.1.w2.weight\": shape [16, 32], [32, "
     "16] "
     "is expected"},
    {"NormOfAnotherLength",
     [](auto& c) { c.tensors["model.norm.weight"] = bf16_tensor("x", {31}); }, kCorrupt,
     "DIR: tensor \"model.norm.weight\": shape [31], [32] is expected"},
    {"NormOfIntegers",
     [](auto& c) { c.tensors["model.norm.weight"] = filled(Dtype::kI32, {32}, 0); }, kCorrupt,
     "DIR: tensor \"model.norm.weight\": dtype I32, BF16, F16 or F32 is expected"},
    {"NanInANorm",
     [](auto& c) { c.tensors["model.norm.weight"] = filled(Dtype::kBf16, {32}, 0xff); }, kCorrupt,
     "DIR: tensor \"model.norm.weight\": element 0 is -nan, a number is expected"},
    {"Int8",
     [](auto& c) {
       c.tensors[kQ + ".weight"] = filled(Dtype::kI8, {32, 32}, 1);
     },
     kUnsupported,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight\": dtype I8 of a weight is not known to "
     "this build, it knows BF16, F16, F32, F8_E4M3 and U8 (NVFP4)"},
    {"ScaleOfAPlainWeight",
     [](auto& c) {
       c.tensors[kQ + ".weight_scale_inv"] = f32_tensor({1, 1}, {1});
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_scale_inv\": an unquantised weight has "
     "no such scale"},
    {"Fp8WithoutScale",
     [](auto& c) {
       make_fp8(c, kQ, Dtype::kF32);
       c.tensors.erase(kQ + ".weight_scale_inv");
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight\" is F8_E4M3, but there is no "
     "\"model.layers.0.self_attn.q_proj.weight_scale_inv\""},
    {"Fp8PerTensorScale",
     [](auto& c) {
       make_fp8(c, kQ, Dtype::kF32);
       c.tensors.erase(kQ + ".weight_scale_inv");
       c.tensors[kQ + ".weight_scale"] = f32_tensor({}, {1});
     },
     kUnsupported,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_scale\": FP8 scales of this kind are "
     "not "
     "known to this build, it knows weight_scale_inv of 128x128 blocks"},
    {"Fp8ScaleShape",
     [](auto& c) {
       make_fp8(c, kQ, Dtype::kF32);
       c.tensors[kQ + ".weight_scale_inv"] = f32_tensor({2, 1}, {1, 1});
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_scale_inv\": shape [2, 1], [1, 1] is "
     "expected"},
    {"Fp8ScaleDtype",
     [](auto& c) {
       make_fp8(c, kQ, Dtype::kF32);
       c.tensors[kQ + ".weight_scale_inv"] = filled(Dtype::kU8, {1, 1}, 127);
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_scale_inv\": dtype U8, F32 is expected"},
    {"Fp8NanScale",
     [](auto& c) {
       make_fp8(c, kQ, Dtype::kF32);
       c.tensors[kQ + ".weight_scale_inv"] = f32_tensor({1, 1}, {NAN});
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_scale_inv\": scale [0, 0] is nan, a "
     "positive number is expected"},
    {"Fp8ZeroScale",
     [](auto& c) {
       make_fp8(c, kQ, Dtype::kF32);
       c.tensors[kQ + ".weight_scale_inv"] = f32_tensor({1, 1}, {0});
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_scale_inv\": scale [0, 0] is 0, a "
     "positive number is expected"},
    {"Nvfp4WithoutGroupScale",
     [](auto& c) {
       make_modelopt(c, kQ);
       c.tensors.erase(kQ + ".weight_scale");
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight\" is NVFP4, but there is no "
     "\"model.layers.0.self_attn.q_proj.weight_scale\""},
    {"Nvfp4WithoutMatrixScale",
     [](auto& c) {
       make_modelopt(c, kQ);
       c.tensors.erase(kQ + ".weight_scale_2");
     },
     kCorrupt,
     "DIR: \"model.layers.0.self_attn.q_proj\" is NVFP4, but there is no tensor "
     "\"model.layers.0.self_attn.q_proj.weight_scale_2\""},
    {"Nvfp4GroupOf32",
     [](auto& c) {
       make_modelopt(c, kQ);
       c.tensors[kQ + ".weight_scale"] = filled(Dtype::kF8E4M3, {32, 1}, 0x40);
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_scale\": shape [32, 1], [32, 2] is "
     "expected"},
    {"Nvfp4NanGroupScale",
     [](auto& c) {
       make_modelopt(c, kQ);
       c.tensors[kQ + ".weight_scale"].bytes[3] = '\x7f';
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_scale\": scale [1, 1] is NaN or "
     "negative, e4m3 codes 0x00 to 0x7e are expected"},
    {"Nvfp4InfiniteMatrixScale",
     [](auto& c) {
       make_modelopt(c, kQ);
       c.tensors[kQ + ".weight_scale_2"] = f32_tensor({}, {INFINITY});
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_scale_2\": scale is inf, a positive "
     "number is expected"},
    {"Nvfp4MatrixScaleNotScalar",
     [](auto& c) {
       make_modelopt(c, kQ);
       c.tensors[kQ + ".weight_scale_2"] = f32_tensor({2}, {1, 1});
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_scale_2\": F32 of shape [2], one F32 "
     "value is expected"},
    {"Nvfp4NegativeInputScale",
     [](auto& c) {
       make_modelopt(c, kQ);
       c.tensors[kQ + ".input_scale"] = f32_tensor({}, {-1});
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.input_scale\": scale is -1, a positive number "
     "is expected"},
    {"PackedAndPlain",
     [](auto& c) {
       const auto plain = c.tensors.at(kQ + ".weight");
       make_compressed(c, kQ);
       c.tensors[kQ + ".weight"] = plain;
     },
     kCorrupt,
     "DIR: tensors \"model.layers.0.self_attn.q_proj.weight\" and "
     "\"model.layers.0.self_attn.q_proj.weight_packed\": a matrix has one of the two"},
    {"MixedSpellings",
     [](auto& c) {
       make_compressed(c, kQ);
       c.tensors[kQ + ".weight_scale_2"] = f32_tensor({}, {1});
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_scale_2\": a compressed-tensors NVFP4 "
     "weight has no such scale"},
    {"ReciprocalOfATinyScale",
     [](auto& c) {
       make_compressed(c, kQ);
       c.tensors[kQ + ".weight_global_scale"] = f32_tensor({1}, {1e-45f});
     },
     kCorrupt,
     "DIR: tensor \"model.layers.0.self_attn.q_proj.weight_global_scale\": scale is 1e-45, its "
     "reciprocal is no number"},
    {"FusedAndSeparateExperts",
     [](auto& c) {
       c.tensors["model.layers.0.mlp.experts.down_proj"] = bf16_tensor("x", {2, 32, 16});
     },
     kCorrupt,
     "DIR: \"model.layers.0.block_sparse_moe.experts.0.w2\" and "
     "\"model.layers.0.block_sparse_moe.experts.down_proj\" hold the same weights; remove one"},
    {"TiedHeadThatDiffers", [](auto& c) { c.config["tie_word_embeddings"] = true; }, kCorrupt,
     "DIR: tie_word_embeddings is true, but tensor \"lm_head.weight\" differs from the embedding"},
};

class BrokenCheckpoint : public testing::TestWithParam<Broken> {};

TEST_P(BrokenCheckpoint, IsRefusedWithTensorValueAndRule) {
  TestCheckpoint checkpoint = test::tiny_mixtral();
  GetParam().change(checkpoint);
  Opened opened(checkpoint);
  const auto error = opened.first_error();
  ASSERT_TRUE(error);
  EXPECT_EQ(opened.folder.without_path(error->message), GetParam().message);
  EXPECT_EQ(error->code, GetParam().code);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, BrokenCheckpoint, testing::ValuesIn(kBroken),
                         [](const auto& p) { return std::string(p.param.name); });

TEST(OpenCheckpoint, ReadsPlainWeightsAsTheyAre) {
  const TestCheckpoint checkpoint = test::tiny_mixtral();
  Opened opened(checkpoint);
  ASSERT_TRUE(opened.source) << opened.error->message;
  for (const auto& spec : opened.table) {
    const auto expected = floats_of(checkpoint.tensors.at(spec.module + ".weight"));
    if (spec.cols == 0) {
      EXPECT_EQ(*opened.source->vector(spec), expected) << spec.module;
    } else {
      EXPECT_EQ(decode(opened.source->matrix(spec)->matrix), expected) << spec.module;
    }
  }
}

TEST(OpenCheckpoint, ReadsFormatsThatDifferByModule) {
  TestCheckpoint checkpoint = test::tiny_mixtral();
  make_fp8(checkpoint, kQ, Dtype::kF32);
  make_fp8(checkpoint, "model.layers.0.self_attn.k_proj", Dtype::kBf16);
  make_modelopt(checkpoint, kExperts + "0.w1");
  make_compressed(checkpoint, kExperts + "0.w3");
  Opened opened(checkpoint);
  ASSERT_TRUE(opened.source) << opened.error->message;
  const auto values = [&](const std::string& module) {
    return decode(opened.source->matrix(opened.spec(module))->matrix);
  };
  EXPECT_EQ(values(kQ), std::vector<float>(32 * 32, 1.0f));
  EXPECT_EQ(values("model.layers.0.self_attn.k_proj"), std::vector<float>(16 * 32, 1.0f));
  for (const char* module : {"0.w1", "0.w3"}) {
    const auto got = values(kExperts + module);
    EXPECT_EQ(got[0], 0.5f) << "the low nibble is the even column";
    EXPECT_EQ(got[1], 1.0f);
    EXPECT_EQ(got[511], 1.0f);
  }
}

TEST(OpenCheckpoint, TakesDataOfAnyAlignment) {
  for (size_t offset = 0; offset < 8; ++offset) {
    TestCheckpoint checkpoint = test::tiny_mixtral();
    make_fp8(checkpoint, kQ, Dtype::kF32);
    make_compressed(checkpoint, kExperts + "1.w2");
    checkpoint.data_offset_in_file = offset;
    Opened opened(checkpoint);
    ASSERT_FALSE(opened.first_error()) << opened.first_error()->message;
    const auto weight = opened.source->matrix(opened.spec(kQ));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(weight->matrix.block_scale) % 4, 0u);
    const auto plain = opened.source->matrix(opened.spec("lm_head"));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(plain->matrix.data) % 2, 0u);
    EXPECT_EQ(decode(plain->matrix), floats_of(checkpoint.tensors.at("lm_head.weight")));
  }
}

TEST(OpenCheckpoint, KeepsAWeightAliveWithoutTheSource) {
  Opened opened(test::tiny_mixtral());
  Weight weight = *opened.source->matrix(opened.spec(kQ));
  opened.source.reset();
  EXPECT_EQ(decode(weight.matrix), floats_of(test::tiny_mixtral().tensors.at(kQ + ".weight")));
}

TEST(OpenCheckpoint, TakesF16AndF32) {
  TestCheckpoint checkpoint = test::tiny_mixtral();
  checkpoint.tensors[kQ + ".weight"] = filled(Dtype::kF16, {32, 32}, 0x3c);
  checkpoint.tensors["lm_head.weight"] = f32_tensor({8, 32}, std::vector<float>(256, 3.0f));
  Opened opened(checkpoint);
  ASSERT_FALSE(opened.first_error());
  const auto half = opened.source->matrix(opened.spec(kQ));
  EXPECT_EQ(half->matrix.format, WeightFormat::kF32);
  EXPECT_EQ(decode(half->matrix)[0], from_f16(0x3c3c));
  EXPECT_EQ(decode(opened.source->matrix(opened.spec("lm_head"))->matrix)[255], 3.0f);
}

TEST(OpenCheckpoint, TakesWrapperPrefixesAndSkipsWhatAddsNothing) {
  for (const char* prefix : {"model.language_model.", "language_model.model.", "language_model."}) {
    TestCheckpoint checkpoint = test::tiny_qwen3();
    TestCheckpoint renamed{.config = checkpoint.config};
    for (const auto& [name, tensor] : checkpoint.tensors) {
      const bool in_model = name.rfind("model.", 0) == 0;
      renamed.tensors[in_model ? prefix + name.substr(6) : name] = tensor;
    }
    renamed.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = bf16_tensor("x", {8});
    renamed.tensors["model.layers.0.self_attn.k_proj.k_scale"] = f32_tensor({}, {1});
    renamed.tensors["mtp.layers.0.mlp.gate.weight"] = bf16_tensor("x", {8});
    Opened opened(renamed);
    const auto error = opened.first_error();
    EXPECT_FALSE(error) << prefix << ": " << error->message;
  }
}

TEST(OpenCheckpoint, TakesFusedExpertsApart) {
  const std::string qwen = "model.layers.1.mlp.experts.";
  const TestCheckpoint mixtral = test::tiny_mixtral();
  const TestCheckpoint qwen3 = test::tiny_qwen3();
  const std::pair<TestCheckpoint, TestCheckpoint> cases[] = {
      {mixtral,
       test::fused_experts(mixtral, kExperts, {"w1", "w3", "w2"}, "model.layers.0.mlp.experts.")},
      {mixtral, test::fused_experts(mixtral, kExperts, {"w1", "w3", "w2"}, kExperts)},
      {qwen3, test::fused_experts(qwen3, qwen, {"gate_proj", "up_proj", "down_proj"}, qwen)}};
  for (const auto& [separate, together] : cases) {
    Opened opened(together);
    ASSERT_FALSE(opened.first_error()) << opened.first_error()->message;
    for (const auto& spec : opened.table) {
      if (spec.expert < 0) continue;
      EXPECT_EQ(decode(opened.source->matrix(spec)->matrix),
                floats_of(separate.tensors.at(spec.module + ".weight")))
          << spec.module;
    }
  }
}

TEST(OpenCheckpoint, RefusesFusedExpertsOfAnotherShape) {
  TestCheckpoint checkpoint = test::fused_experts(
      test::tiny_mixtral(), kExperts, {"w1", "w3", "w2"}, "model.layers.0.mlp.experts.");
  checkpoint.tensors["model.layers.0.mlp.experts.down_proj"] = bf16_tensor("x", {2, 16, 32});
  Opened opened(checkpoint);
  const auto error = opened.first_error();
  ASSERT_TRUE(error);
  EXPECT_EQ(opened.folder.without_path(error->message),
            "DIR: tensor \"model.layers.0.block_sparse_moe.experts.down_proj\": shape [2, 16, 32], "
            "[2, 32, 16] is expected");
}

TEST(OpenCheckpoint, TakesMixtralUnderTheNamesOfTransformers5) {
  TestCheckpoint checkpoint = test::tiny_mixtral();
  TestCheckpoint renamed{.config = checkpoint.config};
  for (const auto& [original_name, tensor] : checkpoint.tensors) {
    std::string name = original_name;
    for (const auto& [from, to] : {std::pair<std::string, std::string>("block_sparse_moe", "mlp"),
                                   {".w1.", ".gate_proj."},
                                   {".w3.", ".up_proj."},
                                   {".w2.", ".down_proj."}}) {
      if (const auto at = name.find(from); at != name.npos) name.replace(at, from.size(), to);
    }
    renamed.tensors[name] = tensor;
  }
  Opened opened(renamed);
  ASSERT_FALSE(opened.first_error()) << opened.first_error()->message;
  EXPECT_EQ(decode(opened.source->matrix(opened.spec(kExperts + "1.w3"))->matrix),
            floats_of(checkpoint.tensors.at(kExperts + "1.w3.weight")));
}

TEST(OpenCheckpoint, TakesATiedHeadThatIsACopy) {
  TestCheckpoint checkpoint = test::tiny_mixtral();
  checkpoint.config["tie_word_embeddings"] = true;
  checkpoint.tensors["lm_head.weight"] = checkpoint.tensors.at("model.embed_tokens.weight");
  EXPECT_FALSE(Opened(checkpoint).first_error());
  checkpoint.tensors.erase("lm_head.weight");
  EXPECT_FALSE(Opened(checkpoint).first_error());
}

// Every byte of a small checkpoint changed once: opening and reading answers, and never dies.
TEST(OpenCheckpoint, SurvivesAnyChangedByteOfTheHeader) {
  const TestCheckpoint checkpoint = test::tiny_mixtral();
  const TemporaryFolder folder;
  checkpoint.write(folder);
  const auto original = *read_file(folder.path() / "model.safetensors", size_t{1} << 20);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, original.data(), 8);
  const auto config = read_model_config(folder.path());
  for (size_t i = 0; i < 8 + header_bytes; i += 3) {
    std::string changed = original;
    changed[i] = static_cast<char>(changed[i] ^ (1 << (i % 8)));
    folder.write("model.safetensors", changed);
    auto source = open_checkpoint(folder.path(), *config);
    if (!source) continue;
    for (const auto& spec : weight_table(*config)) {
      if (spec.cols > 0) (void)(*source)->matrix(spec);
    }
  }
}

}  // namespace
}  // namespace braid
