#include "checkpoint/quantize_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/inspect.h"
#include "checkpoint/weight_source.h"
#include "quant/fp8_block.h"
#include "quant/nvfp4.h"
#include "tests/checkpoint/checkpoint_files.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

fs::path golden(const char* name) { return fs::path(BRAID_TEST_DATA_DIR) / "goldens" / name; }

std::vector<float> decode(const WeightMatrix& w) {
  const auto cols = static_cast<size_t>(w.cols);
  std::vector<float> out(static_cast<size_t>(w.rows) * cols, NAN);
  for (int32_t row = 0; row < w.rows; ++row) {
    dequantize_row(w, row, out.data() + static_cast<size_t>(row) * cols);
  }
  return out;
}

struct Opened {
  explicit Opened(const fs::path& folder)
      : config(read_model_config(folder).value()),
        source(std::move(open_checkpoint(folder, config).value())) {}
  ModelConfig config;
  std::unique_ptr<WeightSource> source;
};

struct Case {
  const char* name;
  const char* model;
  WeightFormat format;
  int64_t shard_bytes;
};

class QuantizeCheckpoint : public testing::TestWithParam<Case> {};

TEST_P(QuantizeCheckpoint, OpensAgainWithEveryMatrixAsItsQuantiserMadeIt) {
  const test::TemporaryFolder folder;
  const fs::path out = folder.path() / "out";
  int64_t last_done = 0;
  int64_t last_total = 0;
  const auto report = quantize_checkpoint(golden(GetParam().model), out,
                                          {.format = GetParam().format,
                                           .num_threads = 3,
                                           .shard_bytes = GetParam().shard_bytes,
                                           .progress = [&](int64_t done, int64_t total) {
                                             EXPECT_GT(done, last_done);
                                             last_done = done;
                                             last_total = total;
                                           }});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(last_done, last_total);
  EXPECT_LT(report->bytes_after, report->bytes_before);
  EXPECT_EQ(fs::exists(out / "model.safetensors.index.json"), report->num_shards > 1);
  EXPECT_EQ(fs::exists(out / "hf_quant_config.json"), GetParam().format == WeightFormat::kNvfp4);
  EXPECT_TRUE(fs::exists(out / "sequences.json")) << "other files are copied";

  Opened before(golden(GetParam().model));
  Opened after(out);
  EXPECT_NE(after.config.quant_method, QuantMethod::kNone);
  std::map<std::string, double> error_of_module;
  for (const auto& module : report->modules) error_of_module[module.module] = module.relative_l2;
  std::map<std::pair<int32_t, int32_t>, float> gate_scale;
  for (const auto& spec : weight_table(before.config)) {
    SCOPED_TRACE(spec.module);
    if (spec.cols == 0) {
      EXPECT_EQ(*before.source->vector(spec), *after.source->vector(spec));
      continue;
    }
    const Weight original = *before.source->matrix(spec);
    const Weight quantised = *after.source->matrix(spec);
    if (!is_usually_quantised(spec.role)) {
      EXPECT_EQ(quantised.matrix.format, WeightFormat::kBf16);
      EXPECT_EQ(decode(original.matrix), decode(quantised.matrix));
      EXPECT_FALSE(error_of_module.contains(spec.module));
      continue;
    }
    ASSERT_EQ(quantised.matrix.format, GetParam().format);
    const double limit = GetParam().format == WeightFormat::kNvfp4 ? 0.12 : 0.04;
    EXPECT_GT(error_of_module.at(spec.module), 0);
    EXPECT_LT(error_of_module.at(spec.module), limit);
    if (GetParam().format == WeightFormat::kNvfp4) {
      EXPECT_EQ(decode(quantised.matrix),
                decode(quantize_nvfp4(original.matrix, quantised.matrix.global_scale)->view()));
    } else {
      EXPECT_EQ(decode(quantised.matrix), decode(quantize_fp8_block(original.matrix)->view()));
    }
    if (spec.role == WeightRole::kExpertGateProj) {
      gate_scale[{spec.layer, spec.expert}] = quantised.matrix.global_scale;
    } else if (spec.role == WeightRole::kExpertUpProj) {
      EXPECT_EQ((gate_scale[{spec.layer, spec.expert}]), quantised.matrix.global_scale);
    }
  }
}

constexpr int64_t kOneShard = int64_t{4} << 30;
INSTANTIATE_TEST_SUITE_P(
    Models, QuantizeCheckpoint,
    testing::Values(Case{"Qwen3Fp8", "qwen3_bf16", WeightFormat::kFp8Block128, kOneShard},
                    Case{"Qwen3Nvfp4", "qwen3_bf16", WeightFormat::kNvfp4, kOneShard},
                    Case{"MixtralFp8InShards", "mixtral_bf16", WeightFormat::kFp8Block128, 100'000},
                    Case{"MixtralNvfp4InShards", "mixtral_bf16", WeightFormat::kNvfp4, 100'000},
                    Case{"DenseLayersNvfp4", "qwen3_dense_layers", WeightFormat::kNvfp4,
                         kOneShard}),
    [](const auto& p) { return std::string(p.param.name); });

TEST(QuantizeModel, DoesNotDependOnTheNumberOfThreads) {
  const test::TemporaryFolder folder;
  std::string bytes[2];
  for (int i = 0; i < 2; ++i) {
    const fs::path out = folder.path() / std::to_string(i);
    ASSERT_TRUE(quantize_checkpoint(golden("qwen3_bf16"), out,
                                    {.format = WeightFormat::kNvfp4, .num_threads = 1 + 3 * i}));
    bytes[i] = *read_file(out / "model.safetensors", size_t{1} << 30);
  }
  EXPECT_EQ(bytes[0], bytes[1]);
}

TEST(QuantizeModel, SpellsTheConfigAsOtherEnginesReadIt) {
  const test::TemporaryFolder folder;
  test::tiny_mixtral().write(folder);
  folder.write(".stamp", "x");
  ASSERT_TRUE(quantize_checkpoint(folder.path(), folder.path() / "fp8", {}));
  EXPECT_FALSE(fs::exists(folder.path() / "fp8" / ".stamp"));
  const Json fp8 = (*read_json_file(folder.path() / "fp8" / "config.json"))["quantization_config"];
  EXPECT_EQ(fp8["quant_method"], "fp8");
  EXPECT_EQ(fp8["fmt"], "e4m3");
  EXPECT_EQ(fp8["activation_scheme"], "dynamic");
  EXPECT_EQ(fp8["weight_block_size"], Json({128, 128}));
  EXPECT_EQ(fp8["modules_to_not_convert"],
            Json({"model.embed_tokens", "model.layers.0.block_sparse_moe.gate", "lm_head"}));

  ASSERT_TRUE(quantize_checkpoint(folder.path(), folder.path() / "nvfp4",
                                  {.format = WeightFormat::kNvfp4}));
  const Json nvfp4 =
      (*read_json_file(folder.path() / "nvfp4" / "config.json"))["quantization_config"];
  EXPECT_EQ(nvfp4["quant_method"], "modelopt");
  EXPECT_EQ(nvfp4["quant_algo"], "W4A16_NVFP4");
  EXPECT_EQ(nvfp4["ignore"], fp8["modules_to_not_convert"]);
  const Json hf =
      (*read_json_file(folder.path() / "nvfp4" / "hf_quant_config.json"))["quantization"];
  EXPECT_EQ(hf["quant_algo"], "W4A16_NVFP4");
  EXPECT_EQ(hf["group_size"], 16);
  EXPECT_EQ(hf["exclude_modules"], fp8["modules_to_not_convert"]);
}

TEST(QuantizeModel, LeavesOutWhatItIsTold) {
  const test::TemporaryFolder folder;
  const fs::path out = folder.path() / "out";
  const auto report = quantize_checkpoint(
      golden("qwen3_bf16"), out,
      {.format = WeightFormat::kNvfp4, .exclude = {"*.self_attn.*", "model.layers.0.*"}});
  ASSERT_TRUE(report) << report.error().message;
  Opened before(golden("qwen3_bf16")), after(out);
  const Json kept = (*read_json_file(out / "config.json"))["quantization_config"]["ignore"];
  int num_quantised = 0;
  for (const auto& spec : weight_table(before.config)) {
    if (spec.cols == 0) continue;
    SCOPED_TRACE(spec.module);
    const Weight original = *before.source->matrix(spec), copy = *after.source->matrix(spec);
    const bool quantised = is_usually_quantised(spec.role) && spec.layer > 0 &&
                           spec.module.find("self_attn") == std::string::npos;
    num_quantised += quantised;
    EXPECT_EQ(copy.matrix.format, quantised ? WeightFormat::kNvfp4 : WeightFormat::kBf16);
    if (!quantised) {
      EXPECT_EQ(decode(original.matrix), decode(copy.matrix));
    }
    EXPECT_EQ(std::ranges::count(kept, Json(spec.module)), quantised ? 0 : 1);
  }
  EXPECT_GT(num_quantised, 0);
  EXPECT_EQ(report->modules.size(), static_cast<size_t>(num_quantised));
}

TEST(QuantizeModel, TakesPatternsThatFitTheSame) {
  const test::TemporaryFolder folder;
  test::tiny_qwen3().write(folder);
  const auto report = quantize_checkpoint(folder.path(), folder.path() / "out",
                                          {.exclude = {"*.self_attn.*", "*.layers.0.self_attn.*"}});
  EXPECT_TRUE(report) << report.error().message;
}

TEST(QuantizeModel, RefusesToLeaveOutAPart) {
  const test::TemporaryFolder folder, together;
  test::tiny_qwen3().write(folder);
  test::fused_experts(test::tiny_qwen3(), "model.layers.1.mlp.experts.",
                      {"gate_proj", "up_proj", "down_proj"}, "model.layers.1.mlp.experts.")
      .write(together);
  const auto error = [&](const test::TemporaryFolder& model, const std::string& pattern) {
    const auto report =
        quantize_checkpoint(model.path(), folder.path() / "out", {.exclude = {pattern}});
    EXPECT_FALSE(fs::exists(folder.path() / "out"));
    return report ? "" : report.error().message;
  };
  EXPECT_EQ(error(folder, "*.k_proj"),
            "exclude \"*.k_proj\" fits model.layers.0.self_attn.k_proj but not "
            "model.layers.0.self_attn.q_proj, engines fuse them: need both or neither");
  EXPECT_EQ(error(folder, "*.self_attention.*"),
            "exclude \"*.self_attention.*\" fits no module that is quantised, the first of which "
            "is model.layers.0.self_attn.q_proj");
  EXPECT_EQ(error(together, "*.experts.1.*"),
            "exclude \"*.experts.1.*\" fits model.layers.1.mlp.experts.1.down_proj but not all of "
            "model.layers.1.mlp.experts.down_proj, which is one tensor: need all or none of its "
            "experts");
  // All matrices of one tensor are no part.
  const auto report = quantize_checkpoint(together.path(), folder.path() / "whole",
                                          {.exclude = {"*.experts.*.down_proj"}});
  ASSERT_TRUE(report) << report.error().message;
  Opened before(together.path()), after(folder.path() / "whole");
  for (const auto& spec : weight_table(before.config)) {
    if (spec.expert < 0) continue;
    const Weight original = *before.source->matrix(spec), copy = *after.source->matrix(spec);
    if (spec.role == WeightRole::kExpertDownProj) {
      EXPECT_EQ(decode(original.matrix), decode(copy.matrix));
    } else {
      EXPECT_EQ(copy.matrix.format, WeightFormat::kFp8Block128);
    }
  }
}

TEST(QuantizeModel, RefusesAQuantisedInput) {
  const test::TemporaryFolder folder;
  const auto report = quantize_checkpoint(golden("mixtral_fp8"), folder.path() / "out", {});
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(report.error().message,
            golden("mixtral_fp8").string() +
                ": already quantised, a BF16, F16 or F32 checkpoint is expected");
}

TEST(QuantizeModel, RefusesAnOutFolderThatHoldsSomething) {
  const test::TemporaryFolder folder;
  folder.write("mine.txt", "x");
  const auto report = quantize_checkpoint(golden("qwen3_bf16"), folder.path(), {});
  ASSERT_FALSE(report);
  EXPECT_EQ(folder.without_path(report.error().message),
            "DIR: exists already, a new or empty folder is expected for the result");
  const auto file = quantize_checkpoint(golden("qwen3_bf16"), folder.path() / "mine.txt", {});
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, ErrorCode::kInvalidArgument);
}

TEST(QuantizeModel, TakesAnEmptyOutFolder) {
  const test::TemporaryFolder folder;
  EXPECT_TRUE(quantize_checkpoint(golden("qwen3_bf16"), folder.path(), {}));
  EXPECT_TRUE(fs::exists(folder.path() / "model.safetensors"));
}

TEST(QuantizeModel, LeavesNothingBehindWhenAWeightIsNan) {
  const test::TemporaryFolder model;
  const test::TemporaryFolder parent;
  test::TestCheckpoint checkpoint = test::tiny_mixtral();
  checkpoint.tensors["model.layers.0.self_attn.k_proj.weight"] =
      test::filled(Dtype::kBf16, {16, 32}, 0xff);
  checkpoint.write(model);
  for (const WeightFormat format : {WeightFormat::kFp8Block128, WeightFormat::kNvfp4}) {
    const auto report =
        quantize_checkpoint(model.path(), parent.path() / "out", {.format = format});
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(model.without_path(report.error().message),
              "DIR: model.layers.0.self_attn.k_proj: element [0, 0] is -nan, a number is expected");
    EXPECT_TRUE(fs::is_empty(parent.path()));
  }
}

TEST(QuantizeModel, SaysWhenItCannotWrite) {
  const auto report = quantize_checkpoint(golden("qwen3_bf16"), "/proc/nowhere/out", {});
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kIo);
}

TEST(Inspect, SaysHowAQuantisedModelIsStored) {
  const auto summary = inspect_checkpoint(golden("mixtral_nvfp4_modelopt"));
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_TRUE(summary->has_weights);
  const Json json = to_json(*summary);
  EXPECT_EQ(json["architecture"], "MixtralForCausalLM");
  EXPECT_EQ(json["quantization"], "modelopt nvfp4");
  int64_t bytes = 0;
  int64_t parameters = 0;
  for (const Json& role : json["roles"]) {
    const bool is_expert = role["role"].get<std::string>().rfind("experts.", 0) == 0;
    EXPECT_EQ(role["format"], is_expert ? "nvfp4" : "bf16") << role.dump();
    bytes += role["bytes"].get<int64_t>();
    parameters += role["parameters"].get<int64_t>();
  }
  EXPECT_EQ(json["bytes"], bytes);
  EXPECT_EQ(json["parameters"], parameters);
  EXPECT_LT(summary->active_parameters, summary->parameters);
}

TEST(Inspect, WorksOnAConfigAlone) {
  const auto summary = inspect_checkpoint(fs::path(BRAID_SOURCE_DIR) / "configs" / "Qwen3-30B-A3B");
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_FALSE(summary->has_weights);
  EXPECT_EQ(summary->parameters, 30'532'122'624);
  // 3.35 billion with the head, of which one embedding row.
  EXPECT_NEAR(static_cast<double>(summary->active_parameters), 3.04e9, 0.01e9);
  EXPECT_EQ(summary->bytes, summary->parameters * 2);
}

TEST(Inspect, CountsATiedEmbeddingAsTheHeadItIs) {
  test::TestCheckpoint checkpoint = test::tiny_mixtral();
  const auto active = [&] {
    const test::TemporaryFolder folder;
    folder.write("config.json", checkpoint.config.dump());
    return inspect_checkpoint(folder.path())->active_parameters;
  };
  const int64_t untied = active();
  checkpoint.config["tie_word_embeddings"] = true;
  EXPECT_EQ(active(), untied - 32) << "one row less, the table once either way";
}

TEST(Inspect, PassesErrorsOn) {
  const test::TemporaryFolder folder;
  const auto nothing = inspect_checkpoint(folder.path());
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace braid
