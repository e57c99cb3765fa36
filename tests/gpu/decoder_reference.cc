#include "tests/gpu/decoder_reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/check.h"
#include "base/ids.h"
#include "quant/e4m3.h"
#include "reference/moe_stages.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

constexpr size_t kXBlock = 128, kHBlock = 64;  // elements under one scale
constexpr double kFloat = 0x1p-20;             // of a handful of float operations, relative

double bf16(double x) { return to_float(to_bf16(static_cast<float>(x))); }
double silu(double x) { return x / (1 + std::exp(-x)); }

// What the device adds in float, in any order, tensor cores cutting off where float rounds.
double of_float_sum(size_t terms) { return 2 * fp32_gamma(static_cast<int64_t>(terms) + 8); }

// How far round(x) may be from round(value) for an x within `error`.
template <class Round>
double rounding_error(Round round, double value, double error) {
  const double at = round(value);
  return std::max(round(value + error) - at, at - round(value - error));
}

double norm_of(std::span<const double> x) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  return std::sqrt(squares);
}

}  // namespace

DecoderReference::DecoderReference(const ModelConfig& config, WeightSource& source,
                                   std::vector<std::shared_ptr<const Adapter>> adapters,
                                   int32_t kv_block_size, int32_t num_threads)
    : config_(config),
      adapters_(std::move(adapters)),
      kv_block_size_(kv_block_size),
      pool_(num_threads) {
  for (const WeightSpec& spec : weight_table(config)) {
    Matrix m = {.rows = spec.rows, .cols = spec.cols};
    bool is_nvfp4_expert = false;  // multiplied exactly; other NVFP4 matrices are BF16 there
    if (spec.cols == 0) {
      m.values = source.vector(spec).value();
    } else {
      const Weight stored = source.matrix(spec).value();
      m.is_fp8 = stored.matrix.format == WeightFormat::kFp8Block128;
      is_nvfp4_expert = spec.expert >= 0 && stored.matrix.format == WeightFormat::kNvfp4;
      m.values.resize(static_cast<size_t>(spec.rows) * static_cast<size_t>(spec.cols));
      for (int32_t r = 0; r < spec.rows; ++r)
        dequantize_row(stored.matrix, r, m.values.data() + int64_t{r} * spec.cols);
    }
    if (!m.is_fp8 && !is_nvfp4_expert) {
      for (float& value : m.values) value = to_float(to_bf16(value));
    }
    weights_[{spec.role, spec.layer, spec.expert}] = std::move(m);
  }
  if (config.tie_word_embeddings)
    weights_[{WeightRole::kLmHead, -1, -1}] = weights_.at({WeightRole::kEmbedding, -1, -1});
}

StageErrors DecoderReference::check(const ForwardBatch& batch, const Stages& stages) {
  errors_ = {};
  given_ = &stages;
  step(batch);
  given_ = nullptr;
  return std::move(errors_);
}

Stages DecoderReference::run(const ForwardBatch& batch) {
  made_.clear();
  step(batch);
  return std::move(made_);
}

// --- the order of operations ---

void DecoderReference::step(const ForwardBatch& batch) {
  batch_ = &batch;
  const auto num_tokens = static_cast<size_t>(batch.num_tokens());
  const auto slot = [&](size_t t) { return batch.adapter_slot_of_token[t]; };
  std::vector<size_t> sequence_of_token;
  for (size_t s = 0; s < batch.context_len.size(); ++s)
    sequence_of_token.resize(static_cast<size_t>(batch.query_indptr[s + 1]), s);

  std::vector<std::vector<double>> residual;
  for (Row& row : stage(-1, "embedding", Stored::kBf16, num_tokens,
                        [&](size_t t) { return embed(batch.token_ids[t], slot(t)); }))
    residual.push_back(std::move(row.value));
  const auto add_to_residual = [&](const Rows& delta) {
    for (size_t t = 0; t < num_tokens; ++t) {
      for (size_t i = 0; i < residual[t].size(); ++i) {
        // One float addition, exactly as it is done there.
        residual[t][i] =
            bf16(static_cast<float>(residual[t][i]) + static_cast<float>(delta[t].value[i]));
      }
    }
  };
  const auto norm_of_residual = [&](int32_t layer, const char* name, WeightRole role) {
    return stage(layer, name, Stored::kBf16, num_tokens, [&, layer, role](size_t t) -> Outcome {
      return {.row = norm(weight(role, layer), residual[t]), .base = {}};
    });
  };
  const auto linear_stage = [&](int32_t layer, const char* name, Stored stored, const Rows& x,
                                const std::vector<std::pair<WeightRole, LoraTarget>>& matrices) {
    return stage(layer, name, stored, num_tokens, [&, layer](size_t t) {
      std::vector<Slice> slices;
      for (const auto& [role, target] : matrices)
        slices.push_back({.weight = weight(role, layer), .lora = lora(slot(t), layer, target)});
      return linear(slices, x[t]);
    });
  };

  Rows delta;
  for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    if (layer > 0) add_to_residual(delta);
    Rows x = norm_of_residual(layer, "attention_in", WeightRole::kInputNorm);

    const Rows qkv = linear_stage(layer, "qkv", Stored::kBf16, x,
                                  {{WeightRole::kQProj, LoraTarget::kQProj},
                                   {WeightRole::kKProj, LoraTarget::kKProj},
                                   {WeightRole::kVProj, LoraTarget::kVProj}});
    const auto q_size = static_cast<size_t>(config_.q_size()),
               kv_size = static_cast<size_t>(config_.kv_size());
    const Matrix* const q_norm = config_.qk_norm ? &weight(WeightRole::kQNorm, layer) : nullptr;
    const Matrix* const k_norm = config_.qk_norm ? &weight(WeightRole::kKNorm, layer) : nullptr;
    for (size_t t = 0; t < num_tokens; ++t) {
      const std::span<const double> kv = std::span(qkv[t].value).subspan(q_size);
      const std::span<const double> v = kv.subspan(kv_size, kv_size);
      kv_[{layer, batch.kv_slot_of_token[t]}] = {
          rotated_heads(kv.first(kv_size), k_norm, batch.positions[t]),
          {.value = {v.begin(), v.end()}, .error = {}}};
    }
    const Rows attended =
        stage(layer, "attended", Stored::kBf16, num_tokens, [&, layer](size_t t) -> Outcome {
          const Row q =
              rotated_heads(std::span(qkv[t].value).first(q_size), q_norm, batch.positions[t]);
          const size_t row = sequence_of_token[t] * static_cast<size_t>(batch.max_kv_blocks);
          std::vector<int32_t> kv_slots;
          for (int32_t p = 0; p <= batch.positions[t]; ++p) {
            const int32_t block = batch.block_table[row + static_cast<size_t>(p / kv_block_size_)];
            kv_slots.push_back(block * kv_block_size_ + p % kv_block_size_);
          }
          return {.row = attend(q, layer, kv_slots), .base = {}};
        });
    delta = linear_stage(layer, "attention_out", Stored::kBf16, attended,
                         {{WeightRole::kOProj, LoraTarget::kOProj}});

    add_to_residual(delta);
    x = norm_of_residual(layer, "mlp_in", WeightRole::kPostAttentionNorm);
    if (config_.is_moe_layer[static_cast<size_t>(layer)]) {
      const Rows logits = linear_stage(layer, "router_logits", Stored::kFloat, x,
                                       {{WeightRole::kRouter, LoraTarget::kRouter}});
      delta = stage(layer, "moe_out", Stored::kBf16, num_tokens, [&, layer](size_t t) {
        return mixture(layer, slot(t), x[t], logits[t].value);
      });
    } else {
      const Rows gate_up = linear_stage(layer, "gate_up", Stored::kBf16, x,
                                        {{WeightRole::kGateProj, LoraTarget::kGateProj},
                                         {WeightRole::kUpProj, LoraTarget::kUpProj}});
      const Rows z = stage(layer, "activated", Stored::kBf16, num_tokens, [&](size_t t) -> Outcome {
        Row row;
        for (size_t i = 0, half = gate_up[t].size() / 2; i < half; ++i) {
          row.value.push_back(silu(gate_up[t].value[i]) * gate_up[t].value[half + i]);
          row.error.push_back(std::abs(row.value[i]) * 4 * kFloat);
        }
        return {.row = std::move(row), .base = {}};
      });
      delta = linear_stage(layer, "mlp_out", Stored::kBf16, z,
                           {{WeightRole::kDownProj, LoraTarget::kDownProj}});
    }
  }
  add_to_residual(delta);
  const Rows x = norm_of_residual(-1, "final_norm", WeightRole::kFinalNorm);
  stage(-1, "logits", Stored::kFloat, batch.logits_token.size(), [&](size_t row) {
    const auto t = static_cast<size_t>(batch.logits_token[row]);
    const LoraPair* const of_head =
        slot(t) == kNoAdapter ? nullptr : &adapters_[static_cast<size_t>(slot(t))]->lm_head;
    return linear({{.weight = weight(WeightRole::kLmHead), .lora = of_head}}, x[t]);
  });
}

DecoderReference::Rows DecoderReference::stage(int32_t layer, const std::string& name,
                                               Stored stored, size_t num_rows,
                                               const std::function<Outcome(size_t row)>& outcome) {
  std::vector<Outcome> outcomes(num_rows);
  pool_.parallel_for(static_cast<int64_t>(num_rows), [&](int64_t row, int32_t) {
    outcomes[static_cast<size_t>(row)] = outcome(static_cast<size_t>(row));
  });
  std::vector<float>& made = made_[{layer, name}];
  const std::vector<float>* given = nullptr;
  if (num_rows == 0) return {};
  if (given_ != nullptr) {
    const auto found = given_->find({layer, name});
    if (found == given_->end() || found->second.size() % num_rows != 0) {
      throw InternalError(fmt::format("layer {} {}: not given in whole rows", layer, name));
    }
    given = &found->second;
  }
  Rows out;
  for (size_t r = 0; r < num_rows; ++r) {
    const Row want =
        stored == Stored::kBf16 ? rounded(outcomes[r].row) : std::move(outcomes[r].row);
    if (given == nullptr) {
      for (const double value : want.value) made.push_back(static_cast<float>(value));
      const std::span row = std::span(made).last(want.size());
      out.push_back({.value = {row.begin(), row.end()}, .error = {}});
      continue;
    }
    const size_t stride = given->size() / num_rows;
    const std::span row = std::span(*given).subspan(r * stride, stride);
    const size_t token = name == "logits" ? static_cast<size_t>(batch_->logits_token[r]) : r;
    compare(fmt::format("layer {} {}, position {} of adapter slot {}, {} tokens", layer, name,
                        batch_->positions[token], batch_->adapter_slot_of_token[token],
                        batch_->num_tokens()),
            name, want, outcomes[r].base, row);
    const std::span used = row.first(std::min(stride, want.size()));
    out.push_back({.value = {used.begin(), used.end()}, .error = {}});
  }
  return out;
}

void DecoderReference::compare(const std::string& where, const std::string& name, const Row& want,
                               std::span<const double> base, std::span<const float> got) {
  // Padding, which only BF16 rows have, stays zero.
  std::vector<double> value = want.value, tolerance = want.error;
  value.resize(std::max(value.size(), got.size()));
  tolerance.resize(value.size());
  std::string why = why_not_close(got, value, tolerance);
  if (!why.empty() && errors_.why_wrong.empty()) errors_.why_wrong = where + ": " + why;

  std::vector<double> error, delta;
  for (size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
    error.push_back(double{got[i]} - want.value[i]);
    if (!base.empty()) delta.push_back(want.value[i] - base[i]);
  }
  const double of_row = norm_of(want.value), of_error = norm_of(error), of_delta = norm_of(delta);
  errors_.of_row[name].push_back(of_error == 0 ? 0.0 : of_error / of_row);
  if (of_delta > 0.125 * of_row) errors_.of_delta[name].push_back(of_error / of_delta);
}

// --- roundings ---

DecoderReference::Row DecoderReference::rounded(const Row& x) {
  Row y;
  for (size_t i = 0; i < x.size(); ++i) {
    y.value.push_back(bf16(x.value[i]));
    y.error.push_back(rounding_error(bf16, x.value[i], x.error_of(i)));
  }
  return y;
}

DecoderReference::Row DecoderReference::quantized(const Row& x, size_t block) {
  Row y;
  for (size_t begin = 0; begin < x.size(); begin += block) {
    const size_t end = std::min(x.size(), begin + block);
    float amax = 1e-10f;
    double worst = 0;
    for (size_t i = begin; i < end; ++i) {
      amax = std::max(amax, static_cast<float>(std::abs(x.value[i])));
      worst = std::max(worst, x.error_of(i));
    }
    const float scale = amax / 448.0f, inverse = 1.0f / scale;
    const auto round = [&](double value) {
      return double{from_e4m3(to_e4m3(static_cast<float>(value) * inverse))} * scale;
    };
    const double of_scale = worst / amax;  // the device's scale may be off by as much
    for (size_t i = begin; i < end; ++i) {
      const double value = x.value[i], at = round(value);
      y.value.push_back(at);
      if (x.error.empty()) continue;
      y.error.push_back(rounding_error(round, value, x.error[i] + std::abs(value) * of_scale) +
                        std::abs(at) * of_scale);
    }
  }
  return y;
}

// --- the operations ---

DecoderReference::Row DecoderReference::input_of(const Matrix& w, const Row& x, size_t block) {
  return w.is_fp8 ? quantized(x, block) : x;
}

// y[first + o] += sum_i w[o, i] input[i]
void DecoderReference::add_product(const Matrix& w, const Row& input, size_t first, Row& y) {
  const size_t n = input.size();
  BRAID_CHECK_EQ(n, static_cast<size_t>(w.cols));
  // The FP8 accumulator keeps 13 bits over 128 columns.
  const double of_sum = w.is_fp8 ? 0x1p-12 : of_float_sum(n);
  for (size_t o = 0; o < static_cast<size_t>(w.rows); ++o) {
    const float* const row = &w.values[o * n];
    double sum = 0, magnitude = 0, error = 0;
    for (size_t i = 0; i < n; ++i) {
      const double term = row[i] * input.value[i];
      sum += term;
      magnitude += std::abs(term);
    }
    if (!input.error.empty()) {
      for (size_t i = 0; i < n; ++i) error += std::abs(row[i]) * input.error[i];
    }
    y.value[first + o] += sum;
    y.error[first + o] += error + magnitude * of_sum + std::abs(sum) * kFloat;
  }
}

// y[first + o] += sum_r bf16(scaling * sum_i a[r, i] x[i]) b_t[r, o]
void DecoderReference::add_delta(const LoraPair& lora, const Row& x, size_t first, size_t out,
                                 Row& y) {
  Row u;
  const auto rank = static_cast<size_t>(lora.rank);
  for (size_t r = 0; r < rank; ++r) {
    double sum = 0, error = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double a = to_float(lora.a[r * x.size() + i]);
      sum += a * x.value[i];
      error += std::abs(a) * x.error_of(i) + std::abs(a * x.value[i]) * of_float_sum(x.size());
    }
    u.value.push_back(lora.scaling * sum);
    u.error.push_back(std::abs(lora.scaling) * error + std::abs(u.value[r]) * kFloat);
  }
  u = rounded(u);
  for (size_t r = 0; r < rank; ++r) {
    for (size_t o = 0; o < out; ++o) {
      const double b = to_float(lora.b_t[r * out + o]);
      y.value[first + o] += u.value[r] * b;
      y.error[first + o] +=
          u.error[r] * std::abs(b) + std::abs(u.value[r] * b) * of_float_sum(rank);
    }
  }
}

DecoderReference::Outcome DecoderReference::linear(const std::vector<Slice>& slices, const Row& x) {
  Outcome y;
  for (const Slice& slice : slices) {
    const size_t first = y.row.size(), out = static_cast<size_t>(slice.weight.rows);
    y.row.value.resize(first + out);
    y.row.error.resize(first + out);
    add_product(slice.weight, input_of(slice.weight, x, kXBlock), first, y.row);
  }
  std::vector<double> base = y.row.value;
  size_t first = 0;
  bool has_delta = false;
  for (const Slice& slice : slices) {
    const auto out = static_cast<size_t>(slice.weight.rows);
    if (slice.lora != nullptr && slice.lora->rank > 0) {
      add_delta(*slice.lora, x, first, out, y.row);
      has_delta = true;
    }
    first += out;
  }
  if (has_delta) y.base = std::move(base);
  return y;
}

DecoderReference::Row DecoderReference::norm(const Matrix& w, std::span<const double> x) const {
  const double squares = norm_of(x) * norm_of(x);
  const double scale =
      1 / std::sqrt(squares / static_cast<double>(x.size()) + double{config_.rms_norm_eps});
  Row y;
  for (size_t i = 0; i < x.size(); ++i) {
    y.value.push_back(x[i] * scale * w.values[i]);
    y.error.push_back(std::abs(y.value[i]) * (kFloat + fp32_gamma(static_cast<int64_t>(x.size()))));
  }
  return y;
}

DecoderReference::Outcome DecoderReference::embed(int32_t token_id, int32_t slot) const {
  const Matrix& table = weight(WeightRole::kEmbedding);
  const auto hidden = static_cast<size_t>(table.cols);
  const auto begin = table.values.begin() + int64_t{token_id} * table.cols;
  Outcome y = {.row = {.value = {begin, begin + table.cols}, .error = {}}, .base = {}};
  if (slot == kNoAdapter) return y;
  const EmbeddingLora& lora = adapters_[static_cast<size_t>(slot)]->embedding;
  if (lora.rank == 0) return y;
  y.base = y.row.value;
  y.row.error.resize(hidden);
  const auto rank = static_cast<size_t>(lora.rank);
  for (size_t h = 0; h < hidden; ++h) {
    for (size_t r = 0; r < rank; ++r) {
      const double term = double{lora.scaling} * to_float(lora.b[h * rank + r]) *
                          to_float(lora.a_t[static_cast<size_t>(token_id) * rank + r]);
      y.row.value[h] += term;
      y.row.error[h] += std::abs(term) * of_float_sum(rank);
    }
    y.row.error[h] += std::abs(y.row.value[h]) * kFloat;
  }
  return y;
}

// Heads of q or k after norm, if there is one, and rotation, as they are stored.
DecoderReference::Row DecoderReference::rotated_heads(std::span<const double> x,
                                                      const Matrix* norm_weight,
                                                      int32_t position) const {
  Row y;
  const auto dim = static_cast<size_t>(config_.head_dim), half = dim / 2;
  for (size_t head = 0; head < x.size(); head += dim) {
    const std::span<const double> of_head = x.subspan(head, dim);
    const Row normed = norm_weight != nullptr
                           ? norm(*norm_weight, of_head)
                           : Row{.value = {of_head.begin(), of_head.end()}, .error = {}};
    for (size_t i = 0; i < dim; ++i) {
      const size_t pair = i % half, partner = (i + half) % dim;
      const auto inv_freq = static_cast<float>(
          std::pow(config_.rope_theta, -static_cast<double>(pair) / static_cast<double>(half)));
      const float angle = static_cast<float>(position) * inv_freq;  // a float product by definition
      const double cosine = std::cos(double{angle}), sine = std::sin(double{angle});
      const double a = normed.value[i] * cosine;
      const double b = normed.value[partner] * (i < half ? -sine : sine);
      y.value.push_back(a + b);
      y.error.push_back((std::abs(a) + std::abs(b)) * kFloat +
                        std::abs(cosine) * normed.error_of(i) +
                        std::abs(sine) * normed.error_of(partner));
    }
  }
  return rounded(y);
}

DecoderReference::Row DecoderReference::attend(const Row& q, int32_t layer,
                                               std::span<const int32_t> kv_slots) const {
  const auto dim = static_cast<size_t>(config_.head_dim);
  const auto group = static_cast<size_t>(config_.num_attention_heads / config_.num_key_value_heads);
  const double softmax_scale = 1 / std::sqrt(static_cast<double>(dim));
  std::vector<const std::pair<Row, Row>*> cache;
  for (const int32_t kv_slot : kv_slots) cache.push_back(&kv_.at({layer, kv_slot}));
  Row y;
  for (size_t head = 0; head < q.size() / dim; ++head) {
    const size_t at = head * dim, kv_at = head / group * dim;
    std::vector<double> p;
    double score_error = 0;  // of any, in units of the exponent
    for (const auto* kv : cache) {
      const Row& k = kv->first;
      double score = 0, error = 0;
      for (size_t i = 0; i < dim; ++i) {
        const double qi = q.value[at + i], ki = k.value[kv_at + i];
        score += qi * ki;
        error += std::abs(qi) * k.error_of(kv_at + i) +
                 (std::abs(ki) + k.error_of(kv_at + i)) * q.error_of(at + i) +
                 std::abs(qi * ki) * of_float_sum(dim);
      }
      p.push_back(score * softmax_scale);
      score_error = std::max(score_error, error * softmax_scale);
    }
    const double largest = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& value : p) sum += value = std::exp(value - largest);
    for (size_t i = 0; i < dim; ++i) {
      double value = 0, magnitude = 0;
      for (size_t j = 0; j < p.size(); ++j) {
        const double term = p[j] / sum * cache[j]->second.value[kv_at + i];
        value += term;
        magnitude += std::abs(term);
      }
      y.value.push_back(value);
      // Weights are rounded to BF16, by 2^-8 each at most, and divided by the sum of these; one
      // key's weight is exact.
      const double of_weights = p.size() == 1 ? kFloat : 0x1p-7 + 2 * score_error + kFloat;
      y.error.push_back(magnitude * of_weights);
    }
  }
  return y;
}

DecoderReference::Outcome DecoderReference::mixture(int32_t layer, int32_t slot, const Row& x,
                                                    std::span<const double> logits) const {
  Outcome y = {.row = experts(layer, slot, x, logits), .base = {}};
  if (slot == kNoAdapter) return y;
  if (adapters_[static_cast<size_t>(slot)]->layers[static_cast<size_t>(layer)].experts.empty())
    return y;
  std::vector<double> base = experts(layer, kNoAdapter, x, logits).value;
  // Experts of this token that the adapter leaves alone add nothing.
  if (base != y.row.value) y.base = std::move(base);
  return y;
}

DecoderReference::Row DecoderReference::experts(int32_t layer, int32_t slot, const Row& x,
                                                std::span<const double> logits) const {
  // Float logits are what the device chose by, so that the choice is the same, near ties or not.
  const std::vector<float> stored(logits.begin(), logits.end());
  kernels::MoeLayerParams router;
  router.sizes.num_experts = config_.num_experts;
  router.sizes.top_k = config_.top_k;
  router.logits = stored.data();
  router.norm_topk_prob = config_.norm_topk_prob;
  const reference::Route route = reference::route(router, 0);

  Row y = {.value = std::vector<double>(x.size()), .error = std::vector<double>(x.size())};
  for (size_t choice = 0; choice < route.experts.size(); ++choice) {
    const int32_t expert = route.experts[choice];
    const double share = route.weights[choice];
    ExpertLora lora;
    if (slot != kNoAdapter) {
      const LayerLora& of_layer =
          adapters_[static_cast<size_t>(slot)]->layers[static_cast<size_t>(layer)];
      if (!of_layer.experts.empty()) lora = of_layer.experts[static_cast<size_t>(expert)];
    }
    const auto multiply = [&](WeightRole role, const LoraPair& pair, const Row& in, size_t block) {
      const Matrix& w = weight(role, layer, expert);
      const auto out = static_cast<size_t>(w.rows);
      Row product = {.value = std::vector<double>(out), .error = std::vector<double>(out)};
      add_product(w, input_of(w, in, block), 0, product);
      add_delta(pair, in, 0, out, product);
      return product;
    };
    const Row gate = multiply(WeightRole::kExpertGateProj, lora.gate, x, kXBlock);
    const Row up = multiply(WeightRole::kExpertUpProj, lora.up, x, kXBlock);
    Row h;
    for (size_t i = 0; i < gate.size(); ++i) {
      const double g = silu(gate.value[i]), u = up.value[i];
      h.value.push_back(g * u);
      // silu is nowhere steeper than 1.1.
      h.error.push_back(1.1 * gate.error[i] * (std::abs(u) + up.error[i]) +
                        std::abs(g) * up.error[i] + std::abs(g * u) * 4 * kFloat);
    }
    const Row pair = rounded(multiply(WeightRole::kExpertDownProj, lora.down, rounded(h), kHBlock));
    for (size_t i = 0; i < y.size(); ++i) {
      y.value[i] += share * pair.value[i];
      y.error[i] += share * pair.error[i] + std::abs(share * pair.value[i]) * 1e-5;
    }
  }
  return y;
}

const DecoderReference::Matrix& DecoderReference::weight(WeightRole role, int32_t layer,
                                                         int32_t expert) const {
  return weights_.at({role, layer, expert});
}

const LoraPair* DecoderReference::lora(int32_t slot, int32_t layer, LoraTarget target) const {
  if (slot == kNoAdapter) return nullptr;
  return &adapters_[static_cast<size_t>(slot)]
              ->layers[static_cast<size_t>(layer)]
              .linear[static_cast<size_t>(target)];
}

}  // namespace braid::test
