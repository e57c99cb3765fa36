#include "reference/reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "base/ids.h"
#include "reference/moe_stages.h"

namespace braid::reference {
namespace {

using Row = std::vector<double>;

double silu(double x) { return x / (1 + std::exp(-x)); }

double rounded(double x, Rounding rounding) {
  return rounding == Rounding::kBf16 ? to_float(to_bf16(static_cast<float>(x))) : x;
}

Row rounded(Row row, Rounding rounding) {
  for (double& x : row) x = rounded(x, rounding);
  return row;
}

float stored(double x, Rounding rounding) { return static_cast<float>(rounded(x, rounding)); }

// x W^T, of x as the matrix reads it.
Row multiply(const WeightMatrix& w, Row x, int32_t scale_block, Rounding rounding) {
  if (rounding == Rounding::kBf16 && w.format == WeightFormat::kFp8Block128)
    x = quantize_e4m3(x, scale_block);
  Row y(static_cast<size_t>(w.rows), 0.0);
  std::vector<float> row(static_cast<size_t>(w.cols));
  for (int32_t r = 0; r < w.rows; ++r) {
    dequantize_row(w, r, row.data());
    for (size_t c = 0; c < row.size(); ++c) y[static_cast<size_t>(r)] += x[c] * row[c];
  }
  return y;
}

// y += scaling * (x A^T) B^T.
void add_lora(const LoraPair& lora, const Row& x, Row& y, Rounding rounding) {
  for (int32_t r = 0; r < lora.rank; ++r) {
    double s = 0;
    for (size_t i = 0; i < x.size(); ++i)
      s += x[i] * to_float(lora.a[static_cast<size_t>(r) * x.size() + i]);
    s = rounded(lora.scaling * s, rounding);
    for (size_t o = 0; o < y.size(); ++o)
      y[o] += s * to_float(lora.b_t[static_cast<size_t>(r) * y.size() + o]);
  }
}

int32_t checked_slot(const int32_t* slot_of_token, int32_t token, int32_t num_slots) {
  const int32_t slot = slot_of_token[token];
  BRAID_CHECK(slot == kNoAdapter || (slot >= 0 && slot < num_slots));
  return slot;
}

template <class T>
Row to_row(const T* values, int64_t n) {
  return Row(values, values + n);
}

void store(const Row& row, float* out, Rounding rounding) {
  for (size_t i = 0; i < row.size(); ++i) out[i] = stored(row[i], rounding);
}

}  // namespace

void linear(const kernels::LinearParams& p, Rounding rounding) {
  for (int32_t t = 0; t < p.num_tokens; ++t) {
    const Row x = to_row(p.x + t * p.x_stride, p.w.cols);
    Row y = multiply(p.w, x, kXScaleBlock, rounding);
    if (p.lora_of_slot != nullptr) {
      const int32_t slot = checked_slot(p.adapter_slot_of_token, t, p.num_slots);
      if (slot != kNoAdapter) add_lora(p.lora_of_slot[slot], x, y, rounding);
    }
    store(y, p.y + t * p.y_stride, p.y_is_logits ? Rounding::kNone : rounding);
  }
}

void moe(const kernels::MoeParams& p, Rounding rounding) {
  const auto hidden = static_cast<size_t>(p.hidden_size);
  for (int32_t t = 0; t < p.num_tokens; ++t) {
    const Row x = to_row(p.x + int64_t{t} * p.hidden_size, p.hidden_size);
    const ExpertLora* adapter = nullptr;
    if (p.lora_of_slot != nullptr) {
      const int32_t slot = checked_slot(p.adapter_slot_of_token, t, p.num_slots);
      if (slot != kNoAdapter) adapter = p.lora_of_slot[slot];
    }
    Row y(hidden, 0.0);
    for (int32_t k = 0; k < p.top_k; ++k) {
      const int32_t e = p.topk_ids[t * p.top_k + k];
      if (e == kNoExpert) continue;
      BRAID_CHECK_GE(e, 0);
      BRAID_CHECK_LT(e, p.num_experts);
      Row gate = multiply(p.experts[e].gate, x, kXScaleBlock, rounding),
          up = multiply(p.experts[e].up, x, kXScaleBlock, rounding);
      if (adapter != nullptr) {
        add_lora(adapter[e].gate, x, gate, rounding);
        add_lora(adapter[e].up, x, up, rounding);
      }
      Row z(gate.size());
      for (size_t i = 0; i < z.size(); ++i) z[i] = silu(gate[i]) * up[i];
      z = rounded(z, rounding);
      Row down = multiply(p.experts[e].down, z, kHScaleBlock, rounding);
      if (adapter != nullptr) add_lora(adapter[e].down, z, down, rounding);
      down = rounded(down, rounding);
      for (size_t h = 0; h < hidden; ++h) y[h] += p.topk_weights[t * p.top_k + k] * down[h];
    }
    for (double& value : y) value *= p.routed_scaling;
    store(y, p.y + int64_t{t} * p.hidden_size, rounding);
  }
}

void router(const kernels::RouterParams& p) {
  for (int32_t t = 0; t < p.num_tokens; ++t) {
    Row probability = to_row(p.logits + int64_t{t} * p.num_experts, p.num_experts);
    const double largest = *std::max_element(probability.begin(), probability.end());
    for (double& x : probability) x = std::exp(x - largest);
    const double sum = std::accumulate(probability.begin(), probability.end(), 0.0);
    std::vector<int32_t> order(probability.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return probability[static_cast<size_t>(a)] > probability[static_cast<size_t>(b)];
    });
    double kept = 0;
    for (int32_t k = 0; k < p.top_k; ++k)
      kept += probability[static_cast<size_t>(order[static_cast<size_t>(k)])];
    for (int32_t k = 0; k < p.top_k; ++k) {
      const int32_t e = order[static_cast<size_t>(k)];
      p.topk_ids[t * p.top_k + k] = e;
      p.topk_weights[t * p.top_k + k] =
          static_cast<float>(probability[static_cast<size_t>(e)] / (p.norm_topk_prob ? kept : sum));
    }
  }
}

namespace {

void norm_and_rotate(float* x, const float* norm, const kernels::RopeKvWriteParams& p,
                     int32_t position, Rounding rounding) {
  Row v = to_row(x, p.head_dim);
  if (norm != nullptr) {
    double squares = 0;
    for (const double value : v) squares += value * value;
    const double scale = 1 / std::sqrt(squares / p.head_dim + p.rms_norm_eps);
    for (size_t i = 0; i < v.size(); ++i) v[i] *= scale * norm[i];
  }
  Row turned = v;
  const int32_t half = p.rotary_dim / 2;
  for (int32_t i = 0; i < half; ++i) {
    const auto a = static_cast<size_t>(i), b = static_cast<size_t>(i + half);
    // The angle is a float product in transformers, and so here: it is part of the definition.
    const double angle = static_cast<float>(position) * p.inv_freq[i];
    turned[a] = v[a] * std::cos(angle) - v[b] * std::sin(angle);
    turned[b] = v[b] * std::cos(angle) + v[a] * std::sin(angle);
  }
  store(turned, x, rounding);
}

}  // namespace

void rope_kv_write(const kernels::RopeKvWriteParams& p, Rounding rounding) {
  for (int32_t t = 0; t < p.num_tokens; ++t) {
    BRAID_CHECK_GE(p.positions[t], 0);
    BRAID_CHECK_GE(p.kv_slot_of_token[t], 0);
    for (int32_t h = 0; h < p.num_heads; ++h) {
      norm_and_rotate(p.q + t * p.q_stride + int64_t{h} * p.head_dim, p.q_norm, p, p.positions[t],
                      rounding);
    }
    for (int32_t h = 0; h < p.num_kv_heads; ++h) {
      float* k = p.k + t * p.k_stride + int64_t{h} * p.head_dim;
      norm_and_rotate(k, p.k_norm, p, p.positions[t], rounding);
      const int64_t at = (int64_t{p.kv_slot_of_token[t]} * p.num_kv_heads + h) * p.head_dim;
      for (int32_t i = 0; i < p.head_dim; ++i) {
        p.k_cache[at + i] = k[i];
        p.v_cache[at + i] = p.v[t * p.v_stride + int64_t{h} * p.head_dim + i];
      }
    }
  }
}

void attention(const kernels::AttentionParams& p, Rounding rounding) {
  const int32_t group = p.num_heads / p.num_kv_heads;
  for (int32_t s = 0; s < p.num_sequences; ++s) {
    const int32_t begin = p.query_indptr[s], end = p.query_indptr[s + 1];
    BRAID_CHECK_LE(begin, end);
    BRAID_CHECK_LE(end - begin, p.context_len[s]);
    BRAID_CHECK_LE(p.context_len[s], p.max_kv_blocks * p.block_size);
    for (int32_t t = begin; t < end; ++t) {
      const int32_t num_keys = p.context_len[s] - (end - t) + 1;
      for (int32_t h = 0; h < p.num_heads; ++h) {
        const auto at = [&](int32_t key) {
          const int32_t block = p.block_table[int64_t{s} * p.max_kv_blocks + key / p.block_size];
          BRAID_CHECK_GE(block, 0);
          const int64_t slot = int64_t{block} * p.block_size + key % p.block_size;
          return (slot * p.num_kv_heads + h / group) * p.head_dim;
        };
        const float* q = p.q + t * p.q_stride + int64_t{h} * p.head_dim;
        Row score(static_cast<size_t>(num_keys), 0.0);
        for (int32_t key = 0; key < num_keys; ++key) {
          for (int32_t i = 0; i < p.head_dim; ++i)
            score[static_cast<size_t>(key)] += double{q[i]} * p.k_cache[at(key) + i];
          score[static_cast<size_t>(key)] *= p.softmax_scale;
        }
        const double largest = *std::max_element(score.begin(), score.end());
        double sum = 0;
        for (double& x : score) sum += x = std::exp(x - largest);
        for (double& x : score) x = rounded(x, rounding);
        Row out(static_cast<size_t>(p.head_dim), 0.0);
        for (int32_t key = 0; key < num_keys; ++key) {
          for (size_t i = 0; i < out.size(); ++i) {
            out[i] += score[static_cast<size_t>(key)] / sum *
                      p.v_cache[at(key) + static_cast<int64_t>(i)];
          }
        }
        store(out, p.out + (int64_t{t} * p.num_heads + h) * p.head_dim, rounding);
      }
    }
  }
}

void rms_norm(const kernels::RmsNormParams& p, Rounding rounding) {
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    float* residual = p.residual + t * p.hidden_size;
    double squares = 0;
    for (int32_t i = 0; i < p.hidden_size; ++i) {
      if (p.delta != nullptr)
        residual[i] = stored(residual[i] + p.delta[t * p.hidden_size + i], rounding);
      squares += double{residual[i]} * residual[i];
    }
    const double scale = 1 / std::sqrt(squares / p.hidden_size + p.eps);
    for (int32_t i = 0; i < p.hidden_size; ++i) {
      p.y[t * p.hidden_size + i] = stored(residual[i] * scale * p.weight[i], rounding);
    }
  }
}

void embedding(const kernels::EmbeddingParams& p, Rounding rounding) {
  for (int32_t t = 0; t < p.num_tokens; ++t) {
    const int32_t id = p.token_ids[t];
    BRAID_CHECK_GE(id, 0);
    BRAID_CHECK_LT(id, p.table.rows);
    float* out = p.out + int64_t{t} * p.table.cols;
    dequantize_row(p.table, id, out);
    EmbeddingLora lora;
    if (p.lora_of_slot != nullptr) {
      const int32_t slot = checked_slot(p.adapter_slot_of_token, t, p.num_slots);
      if (slot != kNoAdapter) lora = p.lora_of_slot[slot];
    }
    for (int32_t h = 0; h < p.table.cols; ++h) {
      double sum = 0;
      for (int32_t r = 0; r < lora.rank; ++r) {
        sum += double{to_float(lora.a_t[int64_t{id} * lora.rank + r])} *
               to_float(lora.b[int64_t{h} * lora.rank + r]);
      }
      out[h] = stored(out[h] + lora.scaling * sum, rounding);
    }
  }
}

void silu_mul(const kernels::SiluMulParams& p, Rounding rounding) {
  for (int64_t i = 0; i < p.num_elements; ++i) p.z[i] = stored(silu(p.gate[i]) * p.up[i], rounding);
}

}  // namespace braid::reference
