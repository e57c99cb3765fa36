// Models and adapters of tests/data/goldens against the logits of transformers and peft.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "adapter/peft_reader.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "tests/model/plain_model.h"
#include "tests/model/step_runner.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

namespace fs = std::filesystem;
using Logits = std::vector<float>;

const fs::path kRoot = fs::path(BRAID_TEST_DATA_DIR) / "goldens";

// Relative L2 of the logits and of what the adapter adds to them. Both sides are float32 forward
// passes of the same dequantised model, so that rounding alone is between them.
constexpr double kLogitsBound = 1e-5;
constexpr double kDeltaBound = 1e-4;

std::set<std::string> folders_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory()) names.insert(entry.path().filename().string());
  }
  return names;
}

Logits difference(const Logits& a, const Logits& b) {
  Logits out(a.size());
  for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] - b[i];
  return out;
}

Logits tail(const Logits& values, size_t size) {
  return {values.end() - static_cast<int64_t>(std::min(size, values.size())), values.end()};
}

class Goldens : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    folder_ = kRoot / GetParam();
    const auto listed = read_json_file(folder_ / "sequences.json");
    ASSERT_TRUE(listed.has_value()) << listed.error().message;
    list_ = *listed;
    names_ = list_["adapters"].get<std::vector<std::string>>();

    auto config = read_model_config(folder_);
    ASSERT_TRUE(config.has_value()) << config.error().message;
    config_ = *config;
    auto source = open_checkpoint(folder_, config_);
    ASSERT_TRUE(source.has_value()) << source.error().message;
    source_ = std::move(*source);
    auto model = Model::load(config_, *source_);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    model_ = std::move(*model);
    auto expected = Safetensors::open_file(folder_ / "expected.safetensors");
    ASSERT_TRUE(expected.has_value()) << expected.error().message;
    expected_.emplace(std::move(*expected));
  }

  // The expected logits of the last positions of a sequence; empty for no such tensor.
  Logits expected(const std::string& adapter, size_t sequence) const {
    const TensorView* tensor = expected_->find(adapter + "/" + std::to_string(sequence));
    if (tensor == nullptr) return {};
    Logits values(static_cast<size_t>(num_elements(tensor->shape)));
    copy_to_float(*tensor, values.data());
    return values;
  }

  AdapterReadOptions read_options(const std::string& name) const {
    AdapterReadOptions options{.name = name};
    const Json overrides = list_.value("overrides", Json::object());
    if (overrides.contains(name)) {
      EXPECT_EQ(overrides[name], Json({{"expert_layout", "grouped"}}));
      options.expert_layout = ExpertLayout::kGrouped;
    }
    return options;
  }

  fs::path folder_;
  Json list_;
  std::vector<std::string> names_;
  ModelConfig config_;
  std::unique_ptr<WeightSource> source_;
  std::unique_ptr<Model> model_;
  std::optional<Safetensors> expected_;
};

// An adapter that lacks its logits, its folder or its line in the list would go untested.
TEST_P(Goldens, AreComplete) {
  EXPECT_THAT(folders_in(folder_ / "adapters"),
              testing::ContainerEq(std::set<std::string>(names_.begin(), names_.end())));
  std::set<std::string> want, got;
  for (size_t i = 0; i < list_["sequences"].size(); ++i) {
    want.insert("base/" + std::to_string(i));
    for (const std::string& name : names_) want.insert(name + "/" + std::to_string(i));
  }
  for (const auto& [name, tensor] : expected_->tensors()) got.insert(name);
  EXPECT_THAT(got, testing::ContainerEq(want));
}

// Errors over all rows of all sequences.
struct Errors {
  double logits = 0;
  double delta = 0;
};

Errors errors(const Logits& got, const Logits& got_base, const Logits& want,
              const Logits& want_base) {
  return {.logits = relative_l2(got, want),
          .delta = relative_l2(difference(got, got_base), difference(want, want_base))};
}

void append(Logits& to, const Logits& what) { to.insert(to.end(), what.begin(), what.end()); }

// All adapters and the base in one batch, cut into chunks. PlainModel, which merges the adapter
// into the weights, must agree too: where only one of the two does, it tells which side is wrong.
TEST_P(Goldens, EqualTransformersAndPeft) {
  PlainModel plain(config_, *source_);
  AdapterSlots slots(static_cast<int32_t>(names_.size()), config_.num_hidden_layers);
  for (size_t i = 0; i < names_.size(); ++i) {
    const auto read =
        read_adapter(folder_ / "adapters" / names_[i], config_, read_options(names_[i]));
    ASSERT_TRUE(read.has_value()) << names_[i] << ": " << read.error().message;
    slots.set(static_cast<int32_t>(i), read->adapter);
  }
  const auto prompts = list_["sequences"].get<std::vector<std::vector<int32_t>>>();
  std::vector<Sequence> sequences;
  for (int32_t slot = kNoAdapter; slot < slots.num_slots(); ++slot) {
    for (const std::vector<int32_t>& ids : prompts) sequences.push_back({ids, slot});
  }
  const auto got =
      StepRunner(*model_, 2, ops::Backend::kCpu, 16).run(sequences, chunked(sequences, 13), &slots);

  const auto plain_logits = [&](const PlainModel& model, size_t sequence, size_t size) {
    const std::vector<double> logits = model.run(prompts[sequence]).logits;
    return tail({logits.begin(), logits.end()}, size);
  };
  std::vector<Logits> plain_base_of;  // last rows of each sequence
  for (size_t i = 0; i < prompts.size(); ++i) {
    plain_base_of.push_back(plain_logits(plain, i, expected("base", i).size()));
  }
  for (size_t a = 0; a <= names_.size(); ++a) {
    const std::string name = a == 0 ? "base" : names_[a - 1];
    const PlainModel merged =
        a == 0 ? plain : plain.merged(*slots.get(static_cast<int32_t>(a - 1)));

    // Each side's logits with this adapter and without, all sequences end to end.
    Logits want, want_base, model, model_base, second, second_base;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const Logits of_sequence = expected(name, i);
      const size_t size = of_sequence.size();
      ASSERT_GT(size, 0u) << name << ", sequence " << i;
      append(want, of_sequence);
      append(want_base, tail(expected("base", i), size));
      append(model, tail(got[a * prompts.size() + i], size));
      append(model_base, tail(got[i], size));
      append(second, plain_logits(merged, i, size));
      append(second_base, tail(plain_base_of[i], size));
    }
    const Errors ours = errors(model, model_base, want, want_base);
    const Errors plainly = errors(second, second_base, want, want_base);
    std::printf("%-24s %-33s logits %.1e delta %.1e | plain %.0e %.0e\n", GetParam(), name.c_str(),
                ours.logits, ours.delta, plainly.logits, plainly.delta);
    EXPECT_LE(ours.logits, kLogitsBound) << name;
    EXPECT_LE(ours.delta, kDeltaBound) << name;
    EXPECT_LE(plainly.logits, kLogitsBound) << name << ": PlainModel";
    EXPECT_LE(plainly.delta, kDeltaBound) << name << ": PlainModel";
  }
}

const char* const kModels[] = {"mixtral_bf16",
                               "mixtral_fp8",
                               "mixtral_nvfp4_compressed",
                               "mixtral_nvfp4_modelopt",
                               "qwen3_bf16",
                               "qwen3_dense_layers",
                               "qwen3_fp8",
                               "qwen3_nvfp4_compressed",
                               "qwen3_nvfp4_modelopt"};

INSTANTIATE_TEST_SUITE_P(Models, Goldens, testing::ValuesIn(kModels),
                         [](const auto& tested) { return std::string(tested.param); });

TEST(GoldenModels, AreAllTested) {
  EXPECT_THAT(folders_in(kRoot), testing::UnorderedElementsAreArray(kModels));
}

}  // namespace
}  // namespace braid::test
