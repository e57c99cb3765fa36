#include "checkpoint/quantize_model.h"

#include <fnmatch.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/json.h"
#include "checkpoint/quant_files.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_header.h"
#include "checkpoint/tensor_names.h"
#include "checkpoint/weight_source.h"
#include "quant/fp8_block.h"
#include "quant/nvfp4.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

// What is read, made and written together: matrices that share a scale, or one copied tensor.
struct Unit {
  std::vector<WeightSpec> specs;         // quantised; empty for a copy
  std::string name;                      // of a copy
  const TensorView* original = nullptr;  // of a copy
  int64_t elements = 0;
  int64_t bytes = 0;  // in the result
};

struct MadeTensor {
  std::string name;
  Dtype dtype = Dtype::kU8;
  Shape shape;
  std::vector<std::byte> owned;
  std::span<const std::byte> bytes;  // of `owned`, or of the mapped original
};

struct MadeUnit {
  std::vector<MadeTensor> tensors;
  std::vector<ModuleError> errors;
};

template <class T>
MadeTensor make_tensor(std::string name, Dtype dtype, Shape shape, std::span<const T> values) {
  MadeTensor made{.name = std::move(name), .dtype = dtype, .shape = std::move(shape)};
  const auto bytes = std::as_bytes(values);
  made.owned.assign(bytes.begin(), bytes.end());
  made.bytes = made.owned;
  return made;
}

double relative_error(const WeightMatrix& got, const WeightMatrix& want) {
  std::vector<float> a(static_cast<size_t>(want.cols));
  std::vector<float> b(a.size());
  double difference = 0;
  double norm = 0;
  for (int32_t row = 0; row < want.rows; ++row) {
    dequantize_row(got, row, a.data());
    dequantize_row(want, row, b.data());
    for (size_t i = 0; i < a.size(); ++i) {
      const double d = double{a[i]} - b[i];
      difference += d * d;
      norm += double{b[i]} * b[i];
    }
  }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

Result<MadeUnit> quantize_fp8_unit(const Unit& unit, const std::vector<Weight>& weights) {
  MadeUnit made;
  for (size_t i = 0; i < weights.size(); ++i) {
    const WeightSpec& spec = unit.specs[i];
    auto q = quantize_fp8_block(weights[i].matrix);
    if (!q) return pass_on(q, spec.module);
    made.tensors.push_back(make_tensor<uint8_t>(spec.module + ".weight", Dtype::kF8E4M3,
                                                {spec.rows, spec.cols}, q->data));
    made.tensors.push_back(make_tensor<float>(spec.module + ".weight_scale_inv", Dtype::kF32,
                                              {(spec.rows + 127) / 128, (spec.cols + 127) / 128},
                                              q->block_scale));
    made.errors.push_back({spec.module, relative_error(q->view(), weights[i].matrix)});
  }
  return made;
}

Result<MadeUnit> quantize_nvfp4_unit(const Unit& unit, const std::vector<Weight>& weights) {
  float amax = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    auto magnitude = max_magnitude(weights[i].matrix);
    if (!magnitude) return pass_on(magnitude, unit.specs[i].module);
    amax = std::max(amax, *magnitude);
  }
  const float global_scale = nvfp4_global_scale(amax);
  MadeUnit made;
  for (size_t i = 0; i < weights.size(); ++i) {
    const WeightSpec& spec = unit.specs[i];
    auto q = quantize_nvfp4(weights[i].matrix, global_scale);
    if (!q) return pass_on(q, spec.module);
    made.tensors.push_back(make_tensor<uint8_t>(spec.module + ".weight", Dtype::kU8,
                                                {spec.rows, spec.cols / 2}, q->data));
    made.tensors.push_back(make_tensor<uint8_t>(spec.module + ".weight_scale", Dtype::kF8E4M3,
                                                {spec.rows, spec.cols / 16}, q->group_scale));
    made.tensors.push_back(make_tensor<float>(spec.module + ".weight_scale_2", Dtype::kF32, {},
                                              std::span(&global_scale, 1)));
    made.errors.push_back({spec.module, relative_error(q->view(), weights[i].matrix)});
  }
  return made;
}

// Projections that engines fuse into one matrix get one second-level scale: the first of them
// stands for all.
WeightRole first_of_fused(WeightRole role) {
  switch (role) {
    case WeightRole::kKProj:
    case WeightRole::kVProj:
      return WeightRole::kQProj;
    case WeightRole::kUpProj:
      return WeightRole::kGateProj;
    case WeightRole::kExpertUpProj:
      return WeightRole::kExpertGateProj;
    default:
      return role;
  }
}

// The 3-D tensor that the matrix of an expert is a part of, where a checkpoint has such.
std::string fused_experts(const WeightSpec& spec) {
  return std::string(experts_prefix(spec.module)) +
         (spec.role == WeightRole::kExpertDownProj ? "down_proj" : "gate_up_proj");
}

class Quantizer {
 public:
  Quantizer(fs::path model_dir, fs::path out_dir, const QuantizeOptions& options)
      : model_dir_(std::move(model_dir)), out_dir_(std::move(out_dir)), options_(options) {}

  Result<QuantizeReport> run() {
    if (auto status = open(); !status) return pass_on(status);
    if (auto status = plan(); !status) return pass_on(status);
    auto temporary = make_temporary_folder(out_dir_);
    if (!temporary) return pass_on(temporary);
    auto written = write_all(*temporary);
    if (written) written = publish_folder(*temporary, out_dir_);
    if (!written) {
      std::error_code ignored;
      fs::remove_all(*temporary, ignored);
      return pass_on(written);
    }
    return std::move(report_);
  }

 private:
  Status open() {
    auto config = read_model_config(model_dir_);
    if (!config) return pass_on(config);
    config_ = std::move(*config);
    if (config_.quant_method != QuantMethod::kNone) {
      return fail(ErrorCode::kInvalidArgument,
                  "{}: already quantised, a BF16, F16 or F32 checkpoint is expected",
                  model_dir_.string());
    }
    if (auto free = check_out_dir(out_dir_); !free) return free;
    auto files = Safetensors::open_folder(model_dir_);
    if (!files) return pass_on(files);
    files_ = std::move(*files);
    auto source = open_checkpoint(model_dir_, config_);
    if (!source) return pass_on(source);
    source_ = std::move(*source);
    return {};
  }

  // The first pattern of `exclude` that fits a module, null if there is none. Notes all that do.
  const std::string* exclusion(const std::string& module, std::set<std::string>& used) const {
    const std::string* first = nullptr;
    for (const std::string& pattern : options_.exclude) {
      if (fnmatch(pattern.c_str(), module.c_str(), 0) != 0) continue;
      used.insert(pattern);
      if (first == nullptr) first = &pattern;
    }
    return first;
  }

  Status plan() {
    using Key = std::tuple<int32_t, int32_t, WeightRole>;
    std::map<Key, size_t> unit_of_key;
    std::vector<std::pair<WeightSpec, const std::string*>> excluded;  // and by which pattern
    std::set<std::string> replaced, used_patterns;
    const auto key_of = [](const WeightSpec& spec) {
      return Key(spec.layer, spec.expert, first_of_fused(spec.role));
    };
    for (const WeightSpec& spec : weight_table(config_)) {
      if (!is_usually_quantised(spec.role)) {
        kept_.push_back(spec.module);
        continue;
      }
      if (const std::string* pattern = exclusion(spec.module, used_patterns)) {
        kept_.push_back(spec.module);
        excluded.emplace_back(spec, pattern);
        continue;
      }
      const auto [entry, is_new] = unit_of_key.emplace(key_of(spec), units_.size());
      if (is_new) units_.emplace_back();
      Unit& unit = units_[entry->second];
      unit.elements += int64_t{spec.rows} * spec.cols;
      unit.bytes += static_cast<int64_t>(weight_bytes(options_.format, spec.rows, spec.cols));
      unit.specs.push_back(spec);
      replaced.insert(spec.module + ".weight");
      if (spec.expert >= 0) replaced.insert(fused_experts(spec));
    }
    for (const std::string& pattern : options_.exclude) {
      if (used_patterns.contains(pattern)) continue;
      return fail(ErrorCode::kInvalidArgument,
                  "exclude \"{}\" fits no module that is quantised, the first of which is {}",
                  pattern, units_.empty() ? "left out too" : units_.front().specs.front().module);
    }
    for (const auto& [spec, pattern] : excluded) {
      if (const auto unit = unit_of_key.find(key_of(spec)); unit != unit_of_key.end()) {
        return fail(ErrorCode::kInvalidArgument,
                    "exclude \"{}\" fits {} but not {}, engines fuse them: need both or neither",
                    *pattern, spec.module, units_[unit->second].specs.front().module);
      }
    }
    for (const auto& [name, view] : files_->tensors()) {
      const std::string canonical = canonical_tensor_name(config_.architecture, name);
      if (!replaced.contains(canonical)) continue;
      for (const auto& [spec, pattern] : excluded) {
        if (spec.expert < 0 || canonical != fused_experts(spec)) continue;
        return fail(ErrorCode::kInvalidArgument,
                    "exclude \"{}\" fits {} but not all of {}, which is one tensor: need all or "
                    "none of its experts",
                    *pattern, spec.module, canonical);
      }
    }
    for (const auto& [name, view] : files_->tensors()) {
      report_.bytes_before += static_cast<int64_t>(view.bytes.size());
      std::string canonical = canonical_tensor_name(config_.architecture, name);
      if (replaced.contains(canonical)) continue;
      units_.push_back({.name = std::move(canonical),
                        .original = &view,
                        .elements = num_elements(view.shape),
                        .bytes = static_cast<int64_t>(view.bytes.size())});
    }
    int64_t shard = 0;
    for (const Unit& unit : units_) {
      total_elements_ += unit.elements;
      report_.bytes_after += unit.bytes;
      if (shards_.empty() || shard + unit.bytes > options_.shard_bytes) {
        shards_.emplace_back();
        shard = 0;
      }
      shard += unit.bytes;
      shards_.back().push_back(&unit);
    }
    report_.num_shards = static_cast<int32_t>(shards_.size());
    return {};
  }

  Status write_all(const fs::path& folder) {
    Json weight_map = Json::object();
    for (size_t i = 0; i < shards_.size(); ++i) {
      const std::string file = shards_.size() == 1 ? "model.safetensors"
                                                   : fmt::format("model-{:05}-of-{:05}.safetensors",
                                                                 i + 1, shards_.size());
      if (auto status = write_shard(folder / file, shards_[i], weight_map); !status) return status;
    }
    if (shards_.size() > 1) {
      const Json index = {{"metadata", {{"total_size", report_.bytes_after}}},
                          {"weight_map", weight_map}};
      auto status = write_file(folder / "model.safetensors.index.json", index.dump(2) + "\n");
      if (!status) return status;
    }
    if (auto status = copy_other_files(model_dir_, folder); !status) return status;
    return write_quantized_config(model_dir_, folder, options_.format, kept_);
  }

  Status write_shard(const fs::path& path, const std::vector<const Unit*>& units,
                     Json& weight_map) {
    auto made = make_units(units);
    if (!made) return pass_on(made);
    std::vector<SafetensorsEntry> entries;
    for (MadeUnit& unit : *made) {
      for (MadeTensor& tensor : unit.tensors) {
        weight_map[tensor.name] = path.filename().string();
        entries.push_back({tensor.name, tensor.dtype, tensor.shape,
                           [&tensor]() -> Result<std::vector<std::byte>> {
                             if (!tensor.owned.empty()) return std::move(tensor.owned);
                             return std::vector<std::byte>(tensor.bytes.begin(),
                                                           tensor.bytes.end());
                           }});
      }
      std::move(unit.errors.begin(), unit.errors.end(), std::back_inserter(report_.modules));
    }
    return write_safetensors(path, entries, {{"format", "pt"}});
  }

  // All units of a shard, by several threads; the first failure in the order of units is returned.
  Result<std::vector<MadeUnit>> make_units(const std::vector<const Unit*>& units) {
    std::vector<std::optional<Result<MadeUnit>>> made(units.size());
    std::atomic<size_t> next = 0;
    std::atomic<bool> failed = false;
    const auto work = [&] {
      for (size_t i = next++; i < units.size() && !failed; i = next++) {
        made[i] = make_unit(*units[i]);
        if (!*made[i]) failed = true;
        advance(units[i]->elements);
      }
    };
    const auto num_threads = options_.num_threads > 0
                                 ? static_cast<unsigned>(options_.num_threads)
                                 : std::max(1u, std::thread::hardware_concurrency());
    {
      std::vector<std::jthread> threads;
      for (unsigned i = 1; i < num_threads && i < units.size(); ++i) threads.emplace_back(work);
      work();
    }
    std::vector<MadeUnit> out;
    for (auto& unit : made) {
      if (unit && !*unit) return pass_on(*unit, model_dir_.string());
      if (unit) out.push_back(std::move(**unit));
    }
    BRAID_CHECK_EQ(out.size(), units.size());
    return out;
  }

  Result<MadeUnit> make_unit(const Unit& unit) {
    if (unit.original != nullptr) {
      MadeUnit made;
      made.tensors.push_back({.name = unit.name,
                              .dtype = unit.original->dtype,
                              .shape = unit.original->shape,
                              .bytes = unit.original->bytes});
      return made;
    }
    std::vector<Weight> weights;
    for (const WeightSpec& spec : unit.specs) {
      auto weight = source_->matrix(spec);
      if (!weight) return pass_on(weight);
      if (weight->matrix.format != WeightFormat::kBf16 &&
          weight->matrix.format != WeightFormat::kF32) {
        return fail(ErrorCode::kInvalidArgument,
                    "{} is stored as {}, a BF16, F16 or F32 checkpoint is expected", spec.module,
                    name(weight->matrix.format));
      }
      weights.push_back(std::move(*weight));
    }
    return options_.format == WeightFormat::kNvfp4 ? quantize_nvfp4_unit(unit, weights)
                                                   : quantize_fp8_unit(unit, weights);
  }

  void advance(int64_t elements) {
    const std::lock_guard lock(progress_mutex_);
    done_elements_ += elements;
    if (options_.progress) options_.progress(done_elements_, total_elements_);
  }

  fs::path model_dir_;
  fs::path out_dir_;
  const QuantizeOptions& options_;
  ModelConfig config_;
  std::optional<Safetensors> files_;
  std::unique_ptr<WeightSource> source_;  // its matrix() is const in effect: used by all threads
  std::vector<Unit> units_;
  std::vector<std::vector<const Unit*>> shards_;
  std::vector<std::string> kept_;  // modules that stay as they are
  QuantizeReport report_;
  std::mutex progress_mutex_;
  int64_t done_elements_ = 0;
  int64_t total_elements_ = 0;
};

}  // namespace

Result<QuantizeReport> quantize_checkpoint(const fs::path& model_dir, const fs::path& out_dir,
                                           const QuantizeOptions& options) {
  BRAID_CHECK(options.format == WeightFormat::kFp8Block128 ||
              options.format == WeightFormat::kNvfp4);
  return Quantizer(model_dir, out_dir, options).run();
}

}  // namespace braid
