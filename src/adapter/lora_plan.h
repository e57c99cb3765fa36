#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "adapter/expert_layout.h"
#include "adapter/expert_parameter.h"
#include "adapter/factor_store.h"
#include "adapter/lora_config.h"
#include "adapter/lora_tensor_name.h"
#include "adapter/named_tensor.h"
#include "adapter/pattern_table.h"
#include "adapter/peft_reader.h"
#include "base/result.h"
#include "checkpoint/model_config.h"

namespace braid {

// The matrices of a model an adapter can sit on: first LoraTarget's, then these.
enum class LoraMatrix : int32_t {
  kExpertGate = kNumLoraTargets,
  kExpertUp,
  kExpertDown,
  kLmHead,
  kEmbedding,
};

// How the layouts begin whose reading names and shapes alone do not settle.
inline constexpr std::string_view kInferredLayout = "3-D target_parameters";

// One matrix of the model. Sorted by this, an adapter's pairs have one order whatever its file's.
struct LoraSite {
  int32_t layer = -1;   // -1: not in a layer
  int32_t matrix = 0;   // LoraTarget or LoraMatrix
  int32_t expert = -1;  // -1: not of an expert
  friend auto operator<=>(const LoraSite&, const LoraSite&) = default;
};

struct PlannedPair {
  int32_t a = 0;  // id in the factor store: [rank, in]; of the embedding [vocab, rank]
  int32_t b = 0;  // [rank, out]; of the embedding [hidden, rank]
  int32_t rank = 0;
  float scaling = 0;
  const std::string* tensor = nullptr;  // a tensor it comes from, for messages
};

// Turns the tensors of an adapter file into pairs per matrix of the model: every layout becomes
// views into the same tensors, and nothing is read yet.
class LoraPlan {
 public:
  LoraPlan(const ModelConfig& model, const LoraConfig& config, const AdapterReadOptions& options)
      : model_(model), config_(config), options_(options) {}

  // The map's tensors must outlive the plan and the store's convert().
  //
  // Errors  those of read_adapter about names, shapes, ranks and layouts
  Status build(const std::map<std::string, TensorView>& tensors, FactorStore& store);

  const std::map<LoraSite, PlannedPair>& pairs() const { return pairs_; }
  const std::set<std::string>& layouts() const { return layouts_; }
  const std::vector<std::string>& evidence() const { return evidence_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  int64_t num_parameters() const { return num_parameters_; }

 private:
  struct TensorPair {
    LoraTensorName name;
    NamedTensor a, b;
    std::string parameter;  // of 3-D factors, once known: "gate_up_proj" or "down_proj"
  };
  struct Size {
    int64_t in = 0, out = 0;
  };
  struct Scaling {
    int32_t rank = 0;
    float scaling = 0;
  };
  using Key = std::tuple<LoraModule, int32_t, int32_t, int32_t>;

  Status collect(const std::map<std::string, TensorView>& tensors);
  Status collect_one(const std::string& tensor, const TensorView& view);
  Status check_base_copy(const std::string& tensor, const LoraTensorName& name,
                         const TensorView& view);
  Status check_place(const LoraTensorName& name, const std::string& tensor) const;
  Size size_of(LoraModule module) const;

  Status plan_matrix(const TensorPair& pair);
  Status plan_embedding(const TensorPair& pair);
  Status plan_parameters();
  Status plan_parameter(const TensorPair& pair, const ExpertParameter& parameter,
                        const ParameterReading& reading);
  Status plan_parts(const TensorPair& pair, LoraModule module, int32_t expert, const FactorView& a,
                    const FactorView& b_t, const Scaling& scaling);
  Status put(const LoraSite& site, const FactorView& a, const FactorView& b, const Scaling& scaling,
             const std::string* tensor);
  Result<Scaling> find_scaling(const TensorPair& pair, int64_t rank);
  void cross_check();

  const ModelConfig& model_;
  const LoraConfig& config_;
  const AdapterReadOptions& options_;
  std::optional<PatternTable> ranks_, alphas_;
  FactorStore* store_ = nullptr;
  std::map<Key, TensorPair> tensors_;
  std::map<LoraSite, PlannedPair> pairs_;
  std::set<std::string> layouts_;
  std::vector<std::string> evidence_, warnings_;
  int64_t num_parameters_ = 0;
};

}  // namespace braid
