#include "tests/model/plain_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "checkpoint/weight_table.h"

namespace braid::test {
namespace {

bool is_vector(const WeightSpec& spec) { return spec.cols == 0; }

// w[o, i] += scaling * sum_r b_t[r, o] a[r, i]
void add_delta(std::vector<double>& w, int64_t rows, int64_t cols, const LoraPair& lora) {
  for (int64_t r = 0; r < lora.rank; ++r) {
    for (int64_t o = 0; o < rows; ++o) {
      const double b = double{lora.scaling} * to_float(lora.b_t[r * rows + o]);
      for (int64_t i = 0; i < cols; ++i) {
        w[static_cast<size_t>(o * cols + i)] += b * to_float(lora.a[r * cols + i]);
      }
    }
  }
}

double silu(double x) { return x / (1 + std::exp(-x)); }

}  // namespace

PlainModel::PlainModel(const ModelConfig& config, WeightSource& source) : config_(config) {
  for (const WeightSpec& spec : weight_table(config)) {
    Matrix m{.rows = spec.rows, .cols = spec.cols};
    if (is_vector(spec)) {
      const std::vector<float> values = source.vector(spec).value();
      m.values.assign(values.begin(), values.end());
    } else {
      const Weight stored = source.matrix(spec).value();
      std::vector<float> row(static_cast<size_t>(spec.cols));
      for (int32_t r = 0; r < spec.rows; ++r) {
        dequantize_row(stored.matrix, r, row.data());
        m.values.insert(m.values.end(), row.begin(), row.end());
      }
    }
    weights_[{spec.role, spec.layer, spec.expert}] = std::move(m);
  }
  // A tied head starts equal and is a module of its own to adapters.
  if (config.tie_word_embeddings) {
    weights_[{WeightRole::kLmHead, -1, -1}] = weights_.at({WeightRole::kEmbedding, -1, -1});
  }
}

PlainModel PlainModel::merged(const Adapter& adapter) const {
  PlainModel out = *this;
  const auto add = [&](WeightRole role, int32_t layer, int32_t expert, const LoraPair& lora) {
    if (lora.rank == 0) return;
    Matrix& w = out.weights_.at({role, layer, expert});
    add_delta(w.values, w.rows, w.cols, lora);
  };
  constexpr WeightRole kRoleOfTarget[kNumLoraTargets] = {
      WeightRole::kQProj,  WeightRole::kKProj,    WeightRole::kVProj,  WeightRole::kOProj,
      WeightRole::kRouter, WeightRole::kGateProj, WeightRole::kUpProj, WeightRole::kDownProj};
  for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    const LayerLora& lora = adapter.layers.at(static_cast<size_t>(layer));
    for (size_t t = 0; t < kNumLoraTargets; ++t) add(kRoleOfTarget[t], layer, -1, lora.linear[t]);
    for (size_t e = 0; e < lora.experts.size(); ++e) {
      const auto expert = static_cast<int32_t>(e);
      add(WeightRole::kExpertGateProj, layer, expert, lora.experts[e].gate);
      add(WeightRole::kExpertUpProj, layer, expert, lora.experts[e].up);
      add(WeightRole::kExpertDownProj, layer, expert, lora.experts[e].down);
    }
  }
  add(WeightRole::kLmHead, -1, -1, adapter.lm_head);
  const EmbeddingLora& lora = adapter.embedding;
  Matrix& table = out.weights_.at({WeightRole::kEmbedding, -1, -1});
  for (int64_t v = 0; v < table.rows && lora.rank > 0; ++v) {
    for (int64_t h = 0; h < table.cols; ++h) {
      double sum = 0;
      for (int64_t r = 0; r < lora.rank; ++r) {
        sum += double{to_float(lora.b[h * lora.rank + r])} * to_float(lora.a_t[v * lora.rank + r]);
      }
      table.values[static_cast<size_t>(v * table.cols + h)] += lora.scaling * sum;
    }
  }
  return out;
}

PlainModel::Output PlainModel::run(std::span<const int32_t> token_ids) const {
  Output output;
  std::vector<Row> x;  // the residual stream
  const Matrix& table = weight(WeightRole::kEmbedding);
  for (const int32_t id : token_ids) {
    const auto begin = table.values.begin() + int64_t{id} * table.cols;
    x.emplace_back(begin, begin + table.cols);
  }
  const auto add = [](Row& to, const Row& what) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += what[i];
  };
  for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    std::vector<Row> normed;
    for (const Row& row : x) normed.push_back(norm(weight(WeightRole::kInputNorm, layer), row));
    const std::vector<Row> attended = attention(layer, normed);
    for (size_t t = 0; t < x.size(); ++t) {
      add(x[t], attended[t]);
      const Row y = norm(weight(WeightRole::kPostAttentionNorm, layer), x[t]);
      add(x[t],
          config_.is_moe_layer[static_cast<size_t>(layer)]
              ? mixture(layer, y, output.routing_margin)
              : swiglu(weight(WeightRole::kGateProj, layer), weight(WeightRole::kUpProj, layer),
                       weight(WeightRole::kDownProj, layer), y));
    }
  }
  for (const Row& row : x) {
    const Row logits =
        times(weight(WeightRole::kLmHead), norm(weight(WeightRole::kFinalNorm), row));
    output.logits.insert(output.logits.end(), logits.begin(), logits.end());
  }
  return output;
}

const PlainModel::Matrix& PlainModel::weight(WeightRole role, int32_t layer, int32_t expert) const {
  return weights_.at({role, layer, expert});
}

PlainModel::Row PlainModel::times(const Matrix& w, const Row& x) const {
  Row y(static_cast<size_t>(w.rows));
  for (size_t o = 0; o < y.size(); ++o) {
    y[o] = std::inner_product(x.begin(), x.end(),
                              w.values.begin() + static_cast<int64_t>(o * x.size()), 0.0);
  }
  return y;
}

PlainModel::Row PlainModel::norm(const Matrix& w, const Row& x) const {
  double sum = 0;
  for (const double value : x) sum += value * value;
  const double scale = 1 / std::sqrt(sum / static_cast<double>(x.size()) + config_.rms_norm_eps);
  Row y = x;
  for (size_t i = 0; i < y.size(); ++i) y[i] *= scale * w.values[i];
  return y;
}

PlainModel::Row PlainModel::swiglu(const Matrix& gate, const Matrix& up, const Matrix& down,
                                   const Row& x) const {
  Row z = times(gate, x);
  const Row u = times(up, x);
  for (size_t i = 0; i < z.size(); ++i) z[i] = silu(z[i]) * u[i];
  return times(down, z);
}

std::vector<PlainModel::Row> PlainModel::attention(int32_t layer, const std::vector<Row>& x) const {
  std::vector<Row> keys, values, out;
  const auto dim = static_cast<size_t>(config_.head_dim);
  const int32_t heads_per_kv_head = config_.num_attention_heads / config_.num_key_value_heads;
  for (size_t t = 0; t < x.size(); ++t) {
    Row q = times(weight(WeightRole::kQProj, layer), x[t]);
    Row k = times(weight(WeightRole::kKProj, layer), x[t]);
    Row v = times(weight(WeightRole::kVProj, layer), x[t]);
    if (config_.qk_norm) {
      norm_heads(weight(WeightRole::kQNorm, layer), q);
      norm_heads(weight(WeightRole::kKNorm, layer), k);
    }
    rotate(q, static_cast<int64_t>(t));
    rotate(k, static_cast<int64_t>(t));
    keys.push_back(k);
    values.push_back(v);

    Row attended(q.size(), 0.0);
    for (int32_t h = 0; h < config_.num_attention_heads; ++h) {
      const size_t at = static_cast<size_t>(h) * dim;
      const size_t kv_at = static_cast<size_t>(h / heads_per_kv_head) * dim;
      Row p;
      for (const Row& key : keys) {
        double dot = 0;
        for (size_t i = 0; i < dim; ++i) dot += q[at + i] * key[kv_at + i];
        p.push_back(dot / std::sqrt(static_cast<double>(dim)));
      }
      const double largest = *std::max_element(p.begin(), p.end());
      double sum = 0;
      for (double& value : p) sum += value = std::exp(value - largest);
      for (size_t j = 0; j < p.size(); ++j) {
        for (size_t i = 0; i < dim; ++i) attended[at + i] += p[j] / sum * values[j][kv_at + i];
      }
    }
    out.push_back(times(weight(WeightRole::kOProj, layer), attended));
  }
  return out;
}

PlainModel::Row PlainModel::mixture(int32_t layer, const Row& x, double& margin) const {
  Row p = times(weight(WeightRole::kRouter, layer), x);
  const double largest = *std::max_element(p.begin(), p.end());
  double sum = 0;
  for (double& value : p) sum += value = std::exp(value - largest);
  for (double& value : p) value /= sum;

  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  const auto top_k = static_cast<size_t>(config_.top_k);
  if (top_k < p.size()) margin = std::min(margin, p[order[top_k - 1]] - p[order[top_k]]);
  double taken = 0;
  for (size_t i = 0; i < top_k; ++i) taken += p[order[i]];

  Row y(x.size(), 0.0);
  for (size_t i = 0; i < top_k; ++i) {
    const auto expert = static_cast<int32_t>(order[i]);
    const Row z = swiglu(weight(WeightRole::kExpertGateProj, layer, expert),
                         weight(WeightRole::kExpertUpProj, layer, expert),
                         weight(WeightRole::kExpertDownProj, layer, expert), x);
    const double share = p[order[i]] / (config_.norm_topk_prob ? taken : 1.0);
    for (size_t c = 0; c < y.size(); ++c) y[c] += share * z[c];
  }
  return y;
}

void PlainModel::rotate(Row& x, int64_t position) const {
  const auto dim = static_cast<size_t>(config_.head_dim);
  for (size_t at = 0; at < x.size(); at += dim) {
    for (size_t i = 0; i < dim / 2; ++i) {
      const double angle =
          static_cast<double>(position) *
          std::pow(config_.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
      const double a = x[at + i], b = x[at + dim / 2 + i];
      x[at + i] = a * std::cos(angle) - b * std::sin(angle);
      x[at + dim / 2 + i] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
}

void PlainModel::norm_heads(const Matrix& w, Row& x) const {
  const auto dim = static_cast<int64_t>(config_.head_dim);
  for (auto head = x.begin(); head != x.end(); head += dim) {
    const Row normed = norm(w, Row(head, head + dim));
    std::copy(normed.begin(), normed.end(), head);
  }
}

}  // namespace braid::test
