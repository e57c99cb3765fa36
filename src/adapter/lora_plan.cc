#include "adapter/lora_plan.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "adapter/target_check.h"
#include "base/check.h"

namespace braid {
namespace {

bool is_expert(LoraModule module) {
  return module >= LoraModule::kExpertGateProj && module <= LoraModule::kExpertParameter;
}

bool is_dense_mlp(LoraModule module) {
  return module >= LoraModule::kGateProj && module <= LoraModule::kGateUpProj;
}

// The matrix or matrices of a module, in the order of the rows of its B.
std::vector<int32_t> matrices_of(LoraModule module) {
  const auto linear = [](LoraTarget target) { return static_cast<int32_t>(target); };
  const auto other = [](LoraMatrix matrix) { return static_cast<int32_t>(matrix); };
  switch (module) {
    case LoraModule::kQProj:
      return {linear(LoraTarget::kQProj)};
    case LoraModule::kKProj:
      return {linear(LoraTarget::kKProj)};
    case LoraModule::kVProj:
      return {linear(LoraTarget::kVProj)};
    case LoraModule::kOProj:
      return {linear(LoraTarget::kOProj)};
    case LoraModule::kRouter:
      return {linear(LoraTarget::kRouter)};
    case LoraModule::kGateProj:
      return {linear(LoraTarget::kGateProj)};
    case LoraModule::kUpProj:
      return {linear(LoraTarget::kUpProj)};
    case LoraModule::kDownProj:
      return {linear(LoraTarget::kDownProj)};
    case LoraModule::kGateUpProj:
      return {linear(LoraTarget::kGateProj), linear(LoraTarget::kUpProj)};
    case LoraModule::kExpertGateProj:
      return {other(LoraMatrix::kExpertGate)};
    case LoraModule::kExpertUpProj:
      return {other(LoraMatrix::kExpertUp)};
    case LoraModule::kExpertDownProj:
      return {other(LoraMatrix::kExpertDown)};
    case LoraModule::kExpertGateUpProj:
      return {other(LoraMatrix::kExpertGate), other(LoraMatrix::kExpertUp)};
    case LoraModule::kLmHead:
      return {other(LoraMatrix::kLmHead)};
    case LoraModule::kEmbedding:
      return {other(LoraMatrix::kEmbedding)};
    case LoraModule::kExpertParameter:
      break;  // shapes decide; plan_parameter() names gate_up or down instead
  }
  BRAID_UNREACHABLE(static_cast<int>(module));
}

}  // namespace

Status LoraPlan::build(const std::map<std::string, TensorView>& tensors, FactorStore& store) {
  store_ = &store;
  auto ranks = PatternTable::make(config_.rank_pattern, "rank_pattern");
  if (!ranks) return pass_on(ranks);
  auto alphas = PatternTable::make(config_.alpha_pattern, "alpha_pattern");
  if (!alphas) return pass_on(alphas);
  ranks_ = std::move(*ranks);
  alphas_ = std::move(*alphas);
  if (auto ok = collect(tensors); !ok) return ok;
  for (const auto& [key, pair] : tensors_) {
    if (pair.name.module == LoraModule::kExpertParameter) continue;
    auto ok = pair.name.module == LoraModule::kEmbedding ? plan_embedding(pair) : plan_matrix(pair);
    if (!ok) return ok;
  }
  if (auto ok = plan_parameters(); !ok) return ok;
  cross_check();
  return {};
}

Status LoraPlan::collect(const std::map<std::string, TensorView>& tensors) {
  for (const auto& [tensor, view] : tensors) {
    if (auto ok = collect_one(tensor, view); !ok) return ok;
  }
  if (tensors_.empty()) {
    return fail(ErrorCode::kCorrupt, "the adapter holds no LoRA factors, need at least one pair");
  }
  for (const auto& [key, pair] : tensors_) {
    if (pair.a.view && pair.b.view) continue;
    const NamedTensor& there = pair.a.view ? pair.a : pair.b;
    return fail(ErrorCode::kCorrupt,
                "tensor {} has no partner: the lora_{} of {} is missing from the file", *there.name,
                pair.a.view ? "B" : "A", pair.name.trained_name);
  }
  return {};
}

Status LoraPlan::collect_one(const std::string& tensor, const TensorView& view) {
  auto name = parse_lora_tensor_name(tensor);
  if (!name) return pass_on(name);
  if (auto ok = check_place(*name, tensor); !ok) return ok;
  if (name->part == LoraTensorPart::kBaseCopy) return check_base_copy(tensor, *name, view);
  if (view.dtype != Dtype::kF32 && view.dtype != Dtype::kF16 && view.dtype != Dtype::kBf16) {
    return fail(ErrorCode::kUnsupported,
                "tensor {} has dtype {}, LoRA factors are accepted in F32, F16 and BF16", tensor,
                braid::name(view.dtype));
  }
  if (std::ranges::find(view.shape, 0) != view.shape.end()) {
    return fail(ErrorCode::kCorrupt, "tensor {} has shape {}, need sizes of at least 1", tensor,
                to_string(view.shape));
  }
  num_parameters_ += num_elements(view.shape);
  TensorPair& pair = tensors_[{name->module, name->layer, name->expert, name->nesting}];
  NamedTensor& half = name->part == LoraTensorPart::kA ? pair.a : pair.b;
  if (half.view) {
    return fail(ErrorCode::kCorrupt,
                "tensors {} and {} are the same factor under two names, need one of them",
                *half.name, tensor);
  }
  half = {&view, &tensor};
  pair.name = std::move(*name);
  return {};
}

Status LoraPlan::check_place(const LoraTensorName& name, const std::string& tensor) const {
  if (name.layer < 0) return {};
  if (name.layer >= model_.num_hidden_layers) {
    return fail(ErrorCode::kInvalidArgument,
                "tensor {} is of layer {}, this base model has layers 0 to {}", tensor, name.layer,
                model_.num_hidden_layers - 1);
  }
  const bool is_moe = model_.is_moe_layer[static_cast<size_t>(name.layer)];
  if ((is_expert(name.module) || name.module == LoraModule::kRouter) && !is_moe) {
    return fail(ErrorCode::kInvalidArgument,
                "tensor {} adapts experts or a router, but layer {} of this base model is dense",
                tensor, name.layer);
  }
  if (is_dense_mlp(name.module) && is_moe) {
    return fail(ErrorCode::kInvalidArgument,
                "tensor {} adapts a dense MLP, but layer {} of this base model has {} experts",
                tensor, name.layer, model_.num_experts);
  }
  if (name.expert >= model_.num_experts) {
    return fail(ErrorCode::kInvalidArgument,
                "tensor {} is of expert {}, this base model has experts 0 to {}", tensor,
                name.expert, model_.num_experts - 1);
  }
  return {};
}

Status LoraPlan::check_base_copy(const std::string& tensor, const LoraTensorName& name,
                                 const TensorView& view) {
  const Shape need = {model_.vocab_size, model_.hidden_size};
  if (view.shape != need) {
    return fail(ErrorCode::kUnsupported,
                "tensor {} has shape {}, this base model's table is {}: an adapter with a resized "
                "vocabulary is not supported",
                tensor, to_string(view.shape), to_string(need));
  }
  warnings_.push_back(fmt::format(
      "tensor {} is the copy of the frozen {} table that PEFT saves beside the factors; the base "
      "model's own is used (save with save_embedding_layers=False to leave it out)",
      tensor, name.module == LoraModule::kLmHead ? "lm_head" : "embed_tokens"));
  return {};
}

LoraPlan::Size LoraPlan::size_of(LoraModule module) const {
  const int64_t hidden = model_.hidden_size, dense = model_.intermediate_size;
  const int64_t expert = model_.moe_intermediate_size;
  switch (module) {
    case LoraModule::kQProj:
      return {hidden, model_.q_size()};
    case LoraModule::kKProj:
    case LoraModule::kVProj:
      return {hidden, model_.kv_size()};
    case LoraModule::kOProj:
      return {model_.q_size(), hidden};
    case LoraModule::kRouter:
      return {hidden, model_.num_experts};
    case LoraModule::kGateProj:
    case LoraModule::kUpProj:
      return {hidden, dense};
    case LoraModule::kDownProj:
      return {dense, hidden};
    case LoraModule::kGateUpProj:
      return {hidden, 2 * dense};
    case LoraModule::kExpertGateProj:
    case LoraModule::kExpertUpProj:
      return {hidden, expert};
    case LoraModule::kExpertDownProj:
      return {expert, hidden};
    case LoraModule::kExpertGateUpProj:
      return {hidden, 2 * expert};
    case LoraModule::kLmHead:
    case LoraModule::kEmbedding:
      return {hidden, model_.vocab_size};
    case LoraModule::kExpertParameter:
      break;
  }
  BRAID_UNREACHABLE(static_cast<int>(module));
}

// 2-D pairs, and 3-D ones whose leading dimension counts experts (1: shared by all).
Status LoraPlan::plan_matrix(const TensorPair& pair) {
  const LoraModule module = pair.name.module;
  const auto [in, out] = size_of(module);
  const Shape &a = pair.a.view->shape, &b = pair.b.view->shape;
  const bool for_all_experts = is_expert(module) && pair.name.expert < 0;
  const int64_t num_experts = model_.num_experts;
  const auto leads = [&](const Shape& shape) {
    return shape.size() == 2 ||
           (for_all_experts && shape.size() == 3 && (shape[0] == 1 || shape[0] == num_experts));
  };
  const std::string lead =
      for_all_experts ? fmt::format("[1 or {}, ", num_experts) : std::string("[");
  if (!leads(a) || a.back() != in) {
    return wrong_shape(pair.a, fmt::format("{}rank, {}]", lead, in));
  }
  if (!leads(b) || b[b.size() - 2] != out) {
    return wrong_shape(pair.b, fmt::format("{}{}, rank]", lead, out));
  }
  const int64_t rank = a[a.size() - 2];
  if (b.back() != rank) {
    return fail(ErrorCode::kCorrupt, "tensor {} has rank {}, but tensor {} has rank {}",
                *pair.a.name, rank, *pair.b.name, b.back());
  }
  auto scaling = find_scaling(pair, rank);
  if (!scaling) return pass_on(scaling);

  const int64_t num_a = a.size() == 3 ? a[0] : 1, num_b = b.size() == 3 ? b[0] : 1;
  const int64_t count = for_all_experts ? num_experts : 1;
  if (for_all_experts && num_experts > 1) {
    layouts_.insert(num_a == 1 && num_b == 1   ? "one pair for all experts"
                    : num_a == 1 || num_b == 1 ? "shared-outer by shape"
                                               : "3-D per expert");
  } else if (is_expert(module)) {
    layouts_.insert("per-expert 2-D");
  }
  for (int64_t e = 0; e < count; ++e) {
    const FactorView view_a = {.tensor = pair.a.view,
                               .name = pair.a.name,
                               .offset = num_a == 1 ? 0 : e * rank * in,
                               .row_stride = in,
                               .col_stride = 1,
                               .rows = scaling->rank,
                               .cols = static_cast<int32_t>(in)};
    const FactorView view_b_t = {.tensor = pair.b.view,
                                 .name = pair.b.name,
                                 .offset = num_b == 1 ? 0 : e * out * rank,
                                 .row_stride = 1,
                                 .col_stride = rank,
                                 .rows = scaling->rank,
                                 .cols = static_cast<int32_t>(out)};
    const int32_t expert = for_all_experts ? static_cast<int32_t>(e) : pair.name.expert;
    if (auto ok = plan_parts(pair, module, expert, view_a, view_b_t, *scaling); !ok) return ok;
  }
  return {};
}

// Splits a gate_up pair into two that share A.
Status LoraPlan::plan_parts(const TensorPair& pair, LoraModule module, int32_t expert,
                            const FactorView& a, const FactorView& b_t, const Scaling& scaling) {
  const std::vector<int32_t> matrices = matrices_of(module);
  FactorView part = b_t;
  part.cols = b_t.cols / static_cast<int32_t>(matrices.size());
  for (const int32_t matrix : matrices) {
    const LoraSite site = {pair.name.layer, matrix, expert};
    if (auto ok = put(site, a, part, scaling, pair.a.name); !ok) return ok;
    part.offset += part.cols * part.col_stride;
  }
  return {};
}

// lora_embedding_A [rank, vocab], lora_embedding_B [hidden, rank].
Status LoraPlan::plan_embedding(const TensorPair& pair) {
  const Shape &a = pair.a.view->shape, &b = pair.b.view->shape;
  const int64_t vocab = model_.vocab_size, hidden = model_.hidden_size;
  if (a.size() != 2 || a[1] != vocab) {
    return wrong_shape(pair.a, fmt::format("[rank, {}]", vocab));
  }
  if (b.size() != 2 || b[0] != hidden) {
    return wrong_shape(pair.b, fmt::format("[{}, rank]", hidden));
  }
  if (a[0] != b[1]) {
    return fail(ErrorCode::kCorrupt, "tensor {} has rank {}, but tensor {} has rank {}",
                *pair.a.name, a[0], *pair.b.name, b[1]);
  }
  auto scaling = find_scaling(pair, a[0]);
  if (!scaling) return pass_on(scaling);
  const LoraSite site = {-1, static_cast<int32_t>(LoraMatrix::kEmbedding), -1};
  const FactorView a_t = {.tensor = pair.a.view,
                          .name = pair.a.name,
                          .row_stride = 1,
                          .col_stride = vocab,
                          .rows = model_.vocab_size,
                          .cols = scaling->rank};
  const FactorView view_b = {.tensor = pair.b.view,
                             .name = pair.b.name,
                             .row_stride = a[0],
                             .col_stride = 1,
                             .rows = model_.hidden_size,
                             .cols = scaling->rank};
  return put(site, a_t, view_b, *scaling, pair.a.name);
}

// Finds out per pair which parameter it is, then for the whole file how it is to be read: one
// writer wrote it all.
Status LoraPlan::plan_parameters() {
  std::vector<std::pair<TensorPair*, ExpertParameter>> parameters;
  ParameterShapes shapes;
  for (auto& [key, pair] : tensors_) {
    if (pair.name.module != LoraModule::kExpertParameter) continue;
    auto parameter = recognise_parameter(pair.a, pair.b, model_);
    if (!parameter) return pass_on(parameter);
    pair.parameter = parameter->name();
    if (parameter->swapped && shapes.swapped && *shapes.swapped != *parameter->swapped) {
      return fail(ErrorCode::kInvalidArgument,
                  "tensor {} has in and out {}, but other 3-D expert factors of the file do not; "
                  "the evidence conflicts, save the adapter anew with one version of PEFT",
                  *pair.a.name, *parameter->swapped ? "swapped" : "in place");
    }
    if (parameter->swapped) shapes.swapped = parameter->swapped;
    shapes.order_is_visible |= parameter->rank > 1 && model_.num_experts > 1;
    parameters.emplace_back(&pair, *parameter);
  }
  if (parameters.empty()) return {};

  auto reading = read_expert_parameters(config_, shapes, options_.expert_layout);
  if (!reading) return pass_on(reading);
  layouts_.insert(fmt::format("{}, {}, {}", kInferredLayout,
                              reading->swapped ? "in and out swapped" : "current orientation",
                              reading->grouped ? "grouped columns" : "PEFT columns"));
  std::ranges::move(reading->evidence, std::back_inserter(evidence_));
  std::ranges::move(reading->warnings, std::back_inserter(warnings_));
  for (const auto& [pair, parameter] : parameters) {
    if (auto ok = plan_parameter(*pair, parameter, *reading); !ok) return ok;
  }
  return {};
}

Status LoraPlan::plan_parameter(const TensorPair& pair, const ExpertParameter& parameter,
                                const ParameterReading& reading) {
  auto scaling = find_scaling(pair, parameter.rank);
  if (!scaling) return pass_on(scaling);
  const LoraModule module =
      parameter.is_gate_up ? LoraModule::kExpertGateUpProj : LoraModule::kExpertDownProj;
  for (int32_t e = 0; e < model_.num_experts; ++e) {
    const auto [a, b_t] =
        factors_of_expert(parameter, e, model_.num_experts, reading.swapped, reading.grouped);
    if (auto ok = plan_parts(pair, module, e, a, b_t, *scaling); !ok) return ok;
  }
  return {};
}

Status LoraPlan::put(const LoraSite& site, const FactorView& a, const FactorView& b,
                     const Scaling& scaling, const std::string* tensor) {
  if (const auto it = pairs_.find(site); it != pairs_.end()) {
    return fail(ErrorCode::kCorrupt,
                "tensors {} and {} adapt the same matrix of the base model, need one pair for each",
                *it->second.tensor, *tensor);
  }
  pairs_[site] = {.a = store_->add(a),
                  .b = store_->add(b),
                  .rank = scaling.rank,
                  .scaling = scaling.scaling,
                  .tensor = tensor};
  return {};
}

// The rank the config gives must be the tensor's: if they differ, alpha / rank has two meanings.
Result<LoraPlan::Scaling> LoraPlan::find_scaling(const TensorPair& pair, int64_t rank) {
  if (rank > options_.max_lora_rank) {
    return fail(ErrorCode::kInvalidArgument,
                "tensor {} has rank {}, ranks up to max_lora_rank = {} are accepted", *pair.a.name,
                rank, options_.max_lora_rank);
  }
  const std::string& parameter = pair.parameter;
  std::vector<std::string> spellings;
  for (std::string name : {pair.name.trained_name, "model." + pair.name.plain_name}) {
    while (!parameter.empty() && name.ends_with(".base_layer")) name.resize(name.size() - 11);
    if (!parameter.empty()) spellings.push_back(name + "." + parameter);
    spellings.push_back(std::move(name));
  }
  auto rank_override = ranks_->find_any(spellings);
  if (!rank_override) return pass_on(rank_override);
  auto alpha_override = alphas_->find_any(spellings);
  if (!alpha_override) return pass_on(alpha_override);
  const double config_rank = rank_override->value_or(config_.r);
  if (config_rank != static_cast<double>(rank)) {
    return fail(ErrorCode::kCorrupt,
                "tensor {} has rank {}{}, but adapter_config.json gives {} = {}; the scaling would "
                "be unclear, correct r or add the module to rank_pattern",
                *pair.a.name, rank, parameter.empty() ? "" : " per expert",
                *rank_override ? "a rank_pattern" : "r", config_rank);
  }
  const double alpha = alpha_override->value_or(config_.lora_alpha);
  const double scaling = alpha / (config_.use_rslora ? std::sqrt(config_rank) : config_rank);
  if (!std::isfinite(static_cast<float>(scaling))) {
    return fail(ErrorCode::kCorrupt, "module {} has lora_alpha = {}, need one within float range",
                pair.name.trained_name, alpha);
  }
  return Scaling{static_cast<int32_t>(rank), static_cast<float>(scaling)};
}

// The tensors decide what is adapted; the config is only compared with them.
void LoraPlan::cross_check() {
  std::vector<TrainedModule> modules;
  for (const auto& [key, pair] : tensors_) {
    modules.push_back({.name = pair.name.trained_name,
                       .plain_name = pair.name.plain_name,
                       .layer = pair.name.layer,
                       .parameter = pair.parameter});
  }
  std::ranges::move(cross_check_targets(config_, modules), std::back_inserter(warnings_));
}

}  // namespace braid
