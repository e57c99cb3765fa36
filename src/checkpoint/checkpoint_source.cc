#include <cmath>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "checkpoint/safetensors_header.h"
#include "checkpoint/stored_matrix.h"
#include "checkpoint/tensor_names.h"
#include "checkpoint/weight_source.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

// Parts of a matrix by the end of their names.
constexpr std::pair<std::string_view, std::optional<TensorView> StoredMatrix::*> kParts[] = {
    {".weight", &StoredMatrix::weight},
    {".weight_scale_inv", &StoredMatrix::weight_scale_inv},
    {".weight_scale", &StoredMatrix::weight_scale},
    {".weight_scale_2", &StoredMatrix::weight_scale_2},
    {".input_scale", &StoredMatrix::input_scale},
    {".weight_packed", &StoredMatrix::weight_packed},
    {".weight_global_scale", &StoredMatrix::weight_global_scale},
    {".input_global_scale", &StoredMatrix::input_global_scale}};

// The 3-D parameters that transformers 5 holds all experts of a layer in.
constexpr std::string_view kFusedNames[] = {"gate_up_proj", "down_proj", "gate_up_proj_scale_inv",
                                            "down_proj_scale_inv"};

bool is_same_tensor(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape &&
         std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end());
}

// Matrix rows [begin, end) of `expert` of a tensor [E, rows, cols].
TensorView rows_of_expert(const TensorView& fused, int64_t expert, int64_t begin, int64_t end) {
  const auto row_bytes = static_cast<size_t>(fused.shape[2]) * size_of(fused.dtype);
  const auto first = static_cast<size_t>(expert * fused.shape[1] + begin);
  return {fused.dtype,
          {end - begin, fused.shape[2]},
          fused.bytes.subspan(first * row_bytes, static_cast<size_t>(end - begin) * row_bytes)};
}

class CheckpointSource : public WeightSource {
 public:
  CheckpointSource(fs::path folder, ModelConfig config, Safetensors files)
      : folder_(std::move(folder)),
        config_(std::move(config)),
        files_(std::make_shared<const Safetensors>(std::move(files))) {}

  // Sorts the file's tensors by canonical name; every one must be wanted, and every wanted one
  // there.
  Status index() {
    for (const auto& [name, view] : files_->tensors()) {
      std::string canonical = canonical_tensor_name(config_.architecture, name);
      if (is_skipped_tensor(canonical)) continue;
      const auto [entry, is_new] = tensors_.emplace(std::move(canonical), Entry{&name, &view});
      if (!is_new) {
        return fail(ErrorCode::kCorrupt, "{}: tensors {} and {} are two names of one weight",
                    folder_.string(), quote_name(*entry->second.name), quote_name(name));
      }
    }
    std::unordered_map<std::string_view, bool> is_matrix_of_module;
    const auto table = weight_table(config_);
    for (const WeightSpec& spec : table) is_matrix_of_module[spec.module] = spec.cols > 0;
    if (auto known = check_known(table, is_matrix_of_module); !known) return known;
    for (const WeightSpec& spec : table) {
      if (find(spec.module + ".weight") != nullptr ||
          find(spec.module + ".weight_packed") != nullptr || fused(spec) != nullptr) {
        continue;
      }
      return fail(ErrorCode::kNotFound, "{}: no tensor \"{}.weight\", which config.json asks for",
                  folder_.string(), spec.module);
    }
    return {};
  }

  Result<Weight> matrix(const WeightSpec& spec) override {
    StoredMatrix stored{.module = spec.module};
    for (const auto& [suffix, part] : kParts) {
      if (const TensorView* view = find(spec.module + std::string(suffix))) stored.*part = *view;
    }
    if (const TensorView* all = fused(spec)) {
      if (stored.weight || stored.weight_packed) {
        return fail(ErrorCode::kCorrupt, "{}: {} and {} hold the same weights; remove one",
                    folder_.string(), quote_name(spec.module), quote_name(fused_name(spec)));
      }
      auto split = take_expert(spec, *all, stored);
      if (!split) return pass_on(split, folder_.string());
    }
    auto weight = read_stored_matrix(stored, spec.rows, spec.cols, files_);
    if (!weight) return pass_on(weight, folder_.string());
    return weight;
  }

  Result<std::vector<float>> vector(const WeightSpec& spec) override {
    const std::string name = spec.module + ".weight";
    const TensorView* view = find(name);
    if (view == nullptr) {
      return fail(ErrorCode::kNotFound, "{}: no tensor {}", folder_.string(), quote_name(name));
    }
    if (view->dtype != Dtype::kBf16 && view->dtype != Dtype::kF32 && view->dtype != Dtype::kF16) {
      return fail(ErrorCode::kCorrupt, "{}: tensor {}: dtype {}, BF16, F16 or F32 is expected",
                  folder_.string(), quote_name(name), braid::name(view->dtype));
    }
    if (view->shape != Shape{spec.rows}) {
      return fail(ErrorCode::kCorrupt, "{}: tensor {}: shape {}, [{}] is expected",
                  folder_.string(), quote_name(name), to_string(view->shape), spec.rows);
    }
    std::vector<float> values(static_cast<size_t>(spec.rows));
    copy_to_float(*view, values.data());
    for (size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) {
        return fail(ErrorCode::kCorrupt, "{}: tensor {}: element {} is {}, a number is expected",
                    folder_.string(), quote_name(name), i, values[i]);
      }
    }
    return values;
  }

 private:
  struct Entry {
    const std::string* name;  // as the file spells it
    const TensorView* view;
  };

  const TensorView* find(const std::string& canonical_name) const {
    const auto entry = tensors_.find(canonical_name);
    return entry == tensors_.end() ? nullptr : entry->second.view;
  }

  static std::string fused_name(const WeightSpec& spec) {
    const bool is_down = spec.role == WeightRole::kExpertDownProj;
    return std::string(experts_prefix(spec.module)) + (is_down ? "down_proj" : "gate_up_proj");
  }

  // The 3-D tensor that this expert's matrix is a part of, or null.
  const TensorView* fused(const WeightSpec& spec) const {
    return spec.expert < 0 ? nullptr : find(fused_name(spec));
  }

  Status check_known(const std::vector<WeightSpec>& table,
                     const std::unordered_map<std::string_view, bool>& is_matrix_of_module) const {
    std::unordered_map<std::string_view, bool> is_experts_prefix;
    for (const WeightSpec& spec : table) {
      if (spec.expert >= 0) is_experts_prefix[experts_prefix(spec.module)] = true;
    }
    for (const auto& [name, entry] : tensors_) {
      if (is_known(name, is_matrix_of_module)) continue;
      const auto prefix = experts_prefix(name);
      if (!prefix.empty() && is_experts_prefix.contains(prefix)) {
        bool is_fused = false;
        for (const std::string_view part : kFusedNames) {
          is_fused = is_fused || name.substr(prefix.size()) == part;
        }
        if (is_fused) continue;
      }
      if (name == "lm_head.weight" && config_.tie_word_embeddings) {
        const TensorView* embedding = find("model.embed_tokens.weight");
        if (embedding != nullptr && is_same_tensor(*entry.view, *embedding)) continue;
        return fail(ErrorCode::kCorrupt,
                    "{}: tie_word_embeddings is true, but tensor {} differs from the embedding",
                    folder_.string(), quote_name(*entry.name));
      }
      return fail(ErrorCode::kUnsupported,
                  "{}: tensor {} is not a weight of {} with this config.json", folder_.string(),
                  quote_name(*entry.name), braid::name(config_.architecture));
    }
    return {};
  }

  static bool is_known(std::string_view name,
                       const std::unordered_map<std::string_view, bool>& is_matrix_of_module) {
    for (const auto& [suffix, part] : kParts) {
      if (!name.ends_with(suffix)) continue;
      const auto module = is_matrix_of_module.find(name.substr(0, name.size() - suffix.size()));
      if (module != is_matrix_of_module.end() && (module->second || suffix == ".weight")) {
        return true;
      }
    }
    return false;
  }

  // Fills `out` with expert spec.expert of [E, 2I, H] (gate rows, then up rows) or of [E, H, I].
  Status take_expert(const WeightSpec& spec, const TensorView& all, StoredMatrix& out) const {
    const bool is_down = spec.role == WeightRole::kExpertDownProj;
    const int64_t halves = is_down ? 1 : 2;
    const int64_t half = spec.role == WeightRole::kExpertUpProj ? 1 : 0;
    const std::string name = fused_name(spec);
    const Shape shape = {config_.num_experts, halves * spec.rows, spec.cols};
    if (all.shape != shape) {
      return fail(ErrorCode::kCorrupt, "tensor {}: shape {}, {} is expected", quote_name(name),
                  to_string(all.shape), to_string(shape));
    }
    out.weight = rows_of_expert(all, spec.expert, half * spec.rows, (half + 1) * spec.rows);
    const TensorView* scales = find(name + "_scale_inv");
    if (scales == nullptr) return {};
    if (halves == 2 && spec.rows % 128 != 0) {
      return fail(ErrorCode::kUnsupported,
                  "tensor {}: scale blocks reach over gate and up with moe_intermediate_size = {}, "
                  "this build knows multiples of 128",
                  quote_name(name + "_scale_inv"), spec.rows);
    }
    const int64_t block_rows = (int64_t{spec.rows} + 127) / 128;
    const Shape scale_shape = {config_.num_experts, halves * block_rows,
                               (int64_t{spec.cols} + 127) / 128};
    if (scales->shape != scale_shape) {
      return fail(ErrorCode::kCorrupt, "tensor {}: shape {}, {} is expected",
                  quote_name(name + "_scale_inv"), to_string(scales->shape),
                  to_string(scale_shape));
    }
    out.weight_scale_inv =
        rows_of_expert(*scales, spec.expert, half * block_rows, (half + 1) * block_rows);
    return {};
  }

  fs::path folder_;
  ModelConfig config_;
  std::shared_ptr<const Safetensors> files_;  // shared with every Weight handed out
  std::unordered_map<std::string, Entry> tensors_;
};

}  // namespace

Result<std::unique_ptr<WeightSource>> open_checkpoint(const fs::path& folder,
                                                      const ModelConfig& config) {
  auto files = Safetensors::open_folder(folder);
  if (!files) return pass_on(files);
  auto source = std::make_unique<CheckpointSource>(folder, config, std::move(*files));
  if (auto status = source->index(); !status) return pass_on(status);
  return source;
}

}  // namespace braid
