#include "cpu/moe.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/aligned.h"
#include "cpu/adapter_runs.h"
#include "cpu/elementwise.h"
#include "cpu/gemm.h"
#include "cpu/rounding.h"

namespace braid::cpu {
namespace {

constexpr int32_t kShrinkPairs = 32;

// The pairs of a step sorted by (expert, adapter). A place is a pair's index in that order;
// gathered buffers have one row a place.
struct SortedPairs {
  struct Expert {
    int32_t expert = 0;
    int32_t begin = 0;  // places
    int32_t end = 0;
  };
  std::vector<int32_t> pair_of_place;  // pair = token * top_k + k
  std::vector<Expert> experts;         // present ones, by rising id
  struct Run {
    int32_t expert = 0;
    AdapterRun places;
  };
  std::vector<Run> runs;  // adapters present on each
};

SortedPairs sort_pairs(const kernels::MoeParams& p) {
  SortedPairs sorted;
  const int32_t num_pairs = p.num_tokens * p.top_k;
  std::vector<int32_t> indptr(static_cast<size_t>(p.num_experts) + 1, 0);
  for (int32_t pair = 0; pair < num_pairs; ++pair) {
    if (p.topk_ids[pair] != kNoExpert) ++indptr[static_cast<size_t>(p.topk_ids[pair]) + 1];
  }
  for (size_t e = 1; e < indptr.size(); ++e) indptr[e] += indptr[e - 1];
  sorted.pair_of_place.resize(static_cast<size_t>(indptr.back()));
  std::vector<int32_t> next(indptr.begin(), indptr.end() - 1);
  for (int32_t pair = 0; pair < num_pairs; ++pair) {
    const int32_t expert = p.topk_ids[pair];
    if (expert != kNoExpert)
      sorted.pair_of_place[static_cast<size_t>(next[static_cast<size_t>(expert)]++)] = pair;
  }
  std::vector<AdapterRun> runs;
  for (int32_t e = 0; e < p.num_experts; ++e) {
    const int32_t begin = indptr[static_cast<size_t>(e)], end = indptr[static_cast<size_t>(e) + 1];
    if (begin == end) continue;
    sorted.experts.push_back({e, begin, end});
    if (p.lora_of_slot == nullptr) continue;
    runs.clear();
    append_runs(
        sorted.pair_of_place, begin, end,
        [&](int32_t pair) { return p.adapter_slot_of_token[pair / p.top_k]; }, runs);
    for (const AdapterRun& run : runs) {
      if (p.lora_of_slot[run.slot] == nullptr) continue;
      for (int32_t first = run.begin; first < run.end; first += kShrinkPairs) {
        sorted.runs.push_back({e, {run.slot, first, std::min(run.end, first + kShrinkPairs)}});
      }
    }
  }
  return sorted;
}

// One layer's step: the buffers between its passes.
class MoeStep {
 public:
  MoeStep(ThreadPool& pool, const kernels::MoeParams& p, Rounding rounding)
      : pool_(pool), p_(p), rounding_(rounding), sorted_(sort_pairs(p)) {
    const size_t places = sorted_.pair_of_place.size();
    z_.resize(places * static_cast<size_t>(p.moe_intermediate_size));
    x_of_place_.resize(places);
    z_of_place_.resize(places);
    slot_of_place_.assign(places, kNoAdapter);
    for (size_t i = 0; i < places; ++i) {
      const int32_t token = sorted_.pair_of_place[i] / p.top_k;
      x_of_place_[i] = p.x + int64_t{token} * p.hidden_size;
      z_of_place_[i] = z_.data() + i * static_cast<size_t>(p.moe_intermediate_size);
      if (p.lora_of_slot == nullptr) continue;
      const int32_t slot = p.adapter_slot_of_token[token];
      if (slot != kNoAdapter && p.lora_of_slot[slot] != nullptr) slot_of_place_[i] = slot;
    }
    for (const SortedPairs::Run& run : sorted_.runs) {
      const ExpertLora& lora = p.lora_of_slot[run.places.slot][run.expert];
      stride_ = std::max({stride_, lora.gate.rank, lora.up.rank, lora.down.rank});
    }
    for (auto* s : {&s_gate_, &s_up_, &s_down_}) s->resize(places * static_cast<size_t>(stride_));
  }

  void run() {
    if (stride_ > 0) shrink_x();
    round_x();
    gate_up();
    if (stride_ > 0) shrink_z();
    round_z();
    down();
  }

 private:
  const ExpertLora& lora(int32_t slot, int32_t expert) const {
    return p_.lora_of_slot[slot][expert];
  }

  // s[place, r] = scaling * sum_k input[place][k] a[r, k] over the places of a run.
  void shrink(int32_t thread, const AdapterRun& run, const LoraPair& pair, int32_t cols,
              const std::vector<const float*>& input, std::vector<float>& s) {
    if (pair.rank == 0) return;
    const WeightMatrix a = {
        .format = WeightFormat::kBf16, .rows = pair.rank, .cols = cols, .data = pair.a};
    float* out = s.data() + int64_t{run.begin} * stride_;
    const int32_t count = run.end - run.begin;
    rows_times_tokens(a, 0, a.rows, input.data() + run.begin, count, out, stride_,
                      pool_.scratch(thread, panel_floats(a)));
    for (int32_t i = 0; i < count; ++i) {
      for (int32_t r = 0; r < pair.rank; ++r) out[i * stride_ + r] *= pair.scaling;
      if (rounding_ == Rounding::kBf16) round_to_bf16(out + i * stride_, pair.rank);
    }
  }

  void shrink_x() {
    pool_.parallel_for(
        static_cast<int64_t>(sorted_.runs.size()), [&](int64_t chunk, int32_t thread) {
          const SortedPairs::Run& run = sorted_.runs[static_cast<size_t>(chunk)];
          const ExpertLora& pair = lora(run.places.slot, run.expert);
          prefetch_rows(pair.gate.a, pair.gate.rank, p_.hidden_size);
          prefetch_rows(pair.up.a, pair.up.rank, p_.hidden_size);
          shrink(thread, run.places, pair.gate, p_.hidden_size, x_of_place_, s_gate_);
          const bool same_a = pair.gate.a == pair.up.a && pair.gate.rank == pair.up.rank &&
                              pair.gate.scaling == pair.up.scaling;
          if (same_a && pair.up.rank > 0) {
            const int64_t begin = int64_t{run.places.begin} * stride_,
                          end = int64_t{run.places.end} * stride_;
            std::copy(s_gate_.begin() + begin, s_gate_.begin() + end, s_up_.begin() + begin);
          } else {
            shrink(thread, run.places, pair.up, p_.hidden_size, x_of_place_, s_up_);
          }
        });
  }

  void shrink_z() {
    pool_.parallel_for(static_cast<int64_t>(sorted_.runs.size()),
                       [&](int64_t chunk, int32_t thread) {
                         const SortedPairs::Run& run = sorted_.runs[static_cast<size_t>(chunk)];
                         shrink(thread, run.places, lora(run.places.slot, run.expert).down,
                                p_.moe_intermediate_size, z_of_place_, s_down_);
                       });
  }

  // From here on x_of_place_ is what gate and up, which are stored alike, read of FP8 experts.
  void round_x() {
    const auto reads = [&](const SortedPairs::Expert& e) {
      return reads_e4m3(p_.experts[e.expert].gate, rounding_);
    };
    if (std::none_of(sorted_.experts.begin(), sorted_.experts.end(), reads)) return;
    const int64_t hidden = p_.hidden_size;
    rounded_x_.resize(static_cast<size_t>(p_.num_tokens * hidden));
    pool_.parallel_for(p_.num_tokens, [&](int64_t t, int32_t) {
      round_to_e4m3(p_.x + t * hidden, hidden, kXScaleBlock, rounded_x_.data() + t * hidden);
    });
    for (const SortedPairs::Expert& e : sorted_.experts) {
      if (!reads(e)) continue;
      for (int32_t place = e.begin; place < e.end; ++place) {
        const float*& x = x_of_place_[static_cast<size_t>(place)];
        x = rounded_x_.data() + (x - p_.x);
      }
    }
  }

  // The same of z_ and down.
  void round_z() {
    if (rounding_ == Rounding::kNone) return;
    const int64_t width = p_.moe_intermediate_size;
    pool_.parallel_for(static_cast<int64_t>(sorted_.experts.size()), [&](int64_t chunk, int32_t) {
      const SortedPairs::Expert& e = sorted_.experts[static_cast<size_t>(chunk)];
      if (!reads_e4m3(p_.experts[e.expert].down, rounding_)) return;
      for (int64_t place = e.begin; place < e.end; ++place) {
        float* z = z_.data() + place * width;
        round_to_e4m3(z, width, kHScaleBlock, z);
      }
    });
  }

  void prefetch_places(const SortedPairs::Expert& e, LoraPair ExpertLora::*which, int64_t rows,
                       int64_t begin, int64_t end) {
    if (stride_ == 0) return;
    for (int32_t place = e.begin; place < e.end; ++place) {
      const int32_t slot = slot_of_place_[static_cast<size_t>(place)];
      if (slot == kNoAdapter) continue;
      const LoraPair& pair = lora(slot, e.expert).*which;
      prefetch_expand(pair.b_t, pair.rank, rows, begin, end);
    }
  }

  // Adds the delta of each adapted place of an expert to y [places, stride].
  void expand_places(const SortedPairs::Expert& e, LoraPair ExpertLora::*which,
                     const std::vector<float>& s, int64_t rows, int64_t begin, int64_t end,
                     float* y, int64_t y_stride) {
    if (stride_ == 0) return;
    for (int32_t place = e.begin; place < e.end; ++place) {
      const int32_t slot = slot_of_place_[static_cast<size_t>(place)];
      if (slot == kNoAdapter) continue;
      const LoraPair& pair = lora(slot, e.expert).*which;
      if (pair.rank == 0) continue;
      expand(s.data() + int64_t{place} * stride_, pair.b_t, pair.rank, rows, begin, end,
             y + (place - e.begin) * y_stride);
    }
  }

  void gate_up() {
    const int64_t width = p_.moe_intermediate_size;
    const auto num_experts = static_cast<int64_t>(sorted_.experts.size());
    const int64_t chunk_rows = pool_.chunk_rows(num_experts * width);  // of gate, and as many of up
    const int64_t chunks_each = (width + chunk_rows - 1) / chunk_rows;
    pool_.parallel_for(num_experts * chunks_each, [&](int64_t chunk, int32_t thread) {
      const SortedPairs::Expert& e = sorted_.experts[static_cast<size_t>(chunk / chunks_each)];
      const int64_t begin = chunk % chunks_each * chunk_rows,
                    end = std::min(width, begin + chunk_rows);
      const kernels::ExpertWeights& w = p_.experts[e.expert];
      const int64_t count = e.end - e.begin, rows = end - begin;
      const size_t panel_size = std::max(panel_floats(w.gate), panel_floats(w.up));
      float* panel = pool_.scratch(thread, panel_size + static_cast<size_t>(2 * count * rows));
      float* gate = panel + panel_size;
      float* up = gate + count * rows;
      const float* const* x = x_of_place_.data() + e.begin;
      prefetch_places(e, &ExpertLora::gate, width, begin, end);
      prefetch_places(e, &ExpertLora::up, width, begin, end);
      rows_times_tokens(w.gate, begin, end, x, count, gate, rows, panel);
      rows_times_tokens(w.up, begin, end, x, count, up, rows, panel);
      expand_places(e, &ExpertLora::gate, s_gate_, width, begin, end, gate, rows);
      expand_places(e, &ExpertLora::up, s_up_, width, begin, end, up, rows);
      for (int64_t i = 0; i < count; ++i) {
        float* z = z_.data() + (e.begin + i) * width + begin;
        silu_mul_row(gate + i * rows, up + i * rows, z, rows);
        if (rounding_ == Rounding::kBf16) round_to_bf16(z, rows);
      }
    });
  }

  void down() {
    const int64_t hidden = p_.hidden_size;
    const int64_t chunk_rows = pool_.chunk_rows(hidden);
    pool_.parallel_for((hidden + chunk_rows - 1) / chunk_rows, [&](int64_t chunk, int32_t thread) {
      const int64_t begin = chunk * chunk_rows, end = std::min(hidden, begin + chunk_rows),
                    rows = end - begin;
      for (int32_t t = 0; t < p_.num_tokens; ++t)
        std::fill_n(p_.y + t * hidden + begin, rows, 0.0f);
      // Experts by rising id: a token's sum runs in that order whatever else is in the batch.
      for (const SortedPairs::Expert& e : sorted_.experts) {
        const WeightMatrix& w = p_.experts[e.expert].down;
        const int64_t count = e.end - e.begin;
        float* panel = pool_.scratch(thread, panel_floats(w) + static_cast<size_t>(count * rows));
        float* part = panel + panel_floats(w);
        prefetch_places(e, &ExpertLora::down, hidden, begin, end);
        rows_times_tokens(w, begin, end, z_of_place_.data() + e.begin, count, part, rows, panel);
        expand_places(e, &ExpertLora::down, s_down_, hidden, begin, end, part, rows);
        if (rounding_ == Rounding::kBf16) round_to_bf16(part, count * rows);
        for (int64_t i = 0; i < count; ++i) {
          const int32_t pair = sorted_.pair_of_place[static_cast<size_t>(e.begin + i)];
          const float weight = p_.topk_weights[pair];
          float* y = p_.y + int64_t{pair / p_.top_k} * hidden + begin;
          for (int64_t r = 0; r < rows; ++r) y[r] += weight * part[i * rows + r];
        }
      }
      for (int32_t t = 0; t < p_.num_tokens; ++t) {
        float* y = p_.y + t * hidden + begin;
        for (int64_t r = 0; p_.routed_scaling != 1.0f && r < rows; ++r) y[r] *= p_.routed_scaling;
        if (rounding_ == Rounding::kBf16) round_to_bf16(y, rows);
      }
    });
  }

  ThreadPool& pool_;
  const kernels::MoeParams& p_;
  const Rounding rounding_;
  SortedPairs sorted_;
  AlignedVector<float> z_;                     // [places, moe_intermediate_size]
  AlignedVector<float> rounded_x_;             // [T, hidden_size], or empty
  std::vector<const float*> x_of_place_;       // [places]
  std::vector<const float*> z_of_place_;       // [places]
  std::vector<int32_t> slot_of_place_;         // [places]
  int32_t stride_ = 0;                         // the largest rank present; 0: no adapter
  std::vector<float> s_gate_, s_up_, s_down_;  // [places, stride]
};

}  // namespace

void moe(ThreadPool& pool, const kernels::MoeParams& p, Rounding rounding) {
  MoeStep(pool, p, rounding).run();
}

void router(ThreadPool& pool, const kernels::RouterParams& p) {
  constexpr int64_t kTokens = 16;
  pool.parallel_for((p.num_tokens + kTokens - 1) / kTokens, [&](int64_t chunk, int32_t) {
    std::vector<int32_t> order(static_cast<size_t>(p.num_experts));
    std::vector<float> probability(static_cast<size_t>(p.num_experts));
    for (int64_t t = chunk * kTokens; t < std::min<int64_t>(p.num_tokens, (chunk + 1) * kTokens);
         ++t) {
      const float* logits = p.logits + t * p.num_experts;
      const float largest = *std::max_element(logits, logits + p.num_experts);
      float sum = 0;
      for (int32_t e = 0; e < p.num_experts; ++e) {
        sum += probability[static_cast<size_t>(e)] = std::exp(logits[e] - largest);
      }
      for (float& x : probability) x /= sum;
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + p.top_k, order.end(),
                        [&](int32_t a, int32_t b) {
                          const float pa = probability[static_cast<size_t>(a)],
                                      pb = probability[static_cast<size_t>(b)];
                          return pa != pb ? pa > pb : a < b;
                        });
      float kept = 0;
      for (int32_t k = 0; k < p.top_k; ++k)
        kept += probability[static_cast<size_t>(order[static_cast<size_t>(k)])];
      for (int32_t k = 0; k < p.top_k; ++k) {
        const int32_t expert = order[static_cast<size_t>(k)];
        p.topk_ids[t * p.top_k + k] = expert;
        p.topk_weights[t * p.top_k + k] =
            probability[static_cast<size_t>(expert)] / (p.norm_topk_prob ? kept : 1.0f);
      }
    }
  });
}

}  // namespace braid::cpu
