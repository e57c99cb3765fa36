#include "cpu/linear.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/aligned.h"
#include "cpu/adapter_runs.h"
#include "cpu/gemm.h"
#include "cpu/rounding.h"

namespace braid::cpu {
namespace {

// Tokens of one adapter that one chunk of shrink work takes.
constexpr int32_t kShrinkTokens = 32;

struct Shrink {
  const kernels::LinearParams* problem;
  AdapterRun run;        // tokens order[begin .. end)
  float* out = nullptr;  // [num_tokens of the problem, rank stride]
};

// s[t, r] = scaling * sum_k x[t, k] a[r, k] for the tokens of a run.
void shrink_run(ThreadPool& pool, int32_t thread, const Shrink& shrink,
                const std::vector<int32_t>& order, int64_t stride, Rounding rounding) {
  const kernels::LinearParams& p = *shrink.problem;
  const LoraPair& lora = p.lora_of_slot[shrink.run.slot];
  const WeightMatrix a = {
      .format = WeightFormat::kBf16, .rows = lora.rank, .cols = p.w.cols, .data = lora.a};
  const int32_t count = shrink.run.end - shrink.run.begin;
  float* panel = pool.scratch(thread, panel_floats(a) + static_cast<size_t>(count) * lora.rank);
  float* s = panel + panel_floats(a);
  const float* x[kShrinkTokens];
  for (int32_t i = 0; i < count; ++i) x[i] = p.x + order[shrink.run.begin + i] * p.x_stride;
  rows_times_tokens(a, 0, a.rows, x, count, s, lora.rank, panel);
  for (int32_t i = 0; i < count; ++i) {
    float* out = shrink.out + order[shrink.run.begin + i] * stride;
    for (int32_t r = 0; r < lora.rank; ++r) out[r] = lora.scaling * s[i * lora.rank + r];
    if (rounding == Rounding::kBf16) round_to_bf16(out, lora.rank);
  }
}

// Rows of x as the problem's matrix reads them.
struct Input {
  std::vector<const float*> rows;  // [num_tokens]
  AlignedVector<float> rounded;    // where they are not x's own
};

Input input_of(ThreadPool& pool, const kernels::LinearParams& p, Rounding rounding) {
  Input input;
  const float* x = p.x;
  int64_t stride = p.x_stride;
  if (reads_e4m3(p.w, rounding)) {
    input.rounded.resize(static_cast<size_t>(int64_t{p.num_tokens} * p.w.cols));
    pool.parallel_for(p.num_tokens, [&](int64_t t, int32_t) {
      round_to_e4m3(p.x + t * p.x_stride, p.w.cols, kXScaleBlock,
                    input.rounded.data() + t * p.w.cols);
    });
    x = input.rounded.data();
    stride = p.w.cols;
  }
  for (int32_t t = 0; t < p.num_tokens; ++t) input.rows.push_back(x + t * stride);
  return input;
}

}  // namespace

void linear(ThreadPool& pool, std::span<const kernels::LinearParams> problems, Rounding rounding) {
  // --- shrink, for the problems that have adapters: every problem has the same tokens or none ---
  std::vector<Shrink> shrinks;
  std::vector<std::vector<int32_t>> orders(problems.size());
  std::vector<std::vector<float>> shrunk(problems.size());
  std::vector<int64_t> strides(problems.size(), 0);
  for (size_t i = 0; i < problems.size(); ++i) {
    const kernels::LinearParams& p = problems[i];
    if (p.lora_of_slot == nullptr || p.num_tokens == 0) continue;
    orders[i].resize(static_cast<size_t>(p.num_tokens));
    std::iota(orders[i].begin(), orders[i].end(), 0);
    std::vector<AdapterRun> runs;
    append_runs(
        orders[i], 0, p.num_tokens, [&](int32_t t) { return p.adapter_slot_of_token[t]; }, runs);
    for (const AdapterRun& run : runs)
      strides[i] = std::max<int64_t>(strides[i], p.lora_of_slot[run.slot].rank);
    shrunk[i].resize(static_cast<size_t>(p.num_tokens * strides[i]));
    for (const AdapterRun& run : runs) {
      if (p.lora_of_slot[run.slot].rank == 0) continue;
      for (int32_t begin = run.begin; begin < run.end; begin += kShrinkTokens) {
        const int32_t end = std::min(run.end, begin + kShrinkTokens);
        shrinks.push_back({&p, {run.slot, begin, end}, shrunk[i].data()});
      }
    }
  }
  pool.parallel_for(static_cast<int64_t>(shrinks.size()), [&](int64_t chunk, int32_t thread) {
    const Shrink& shrink = shrinks[static_cast<size_t>(chunk)];
    const auto i = static_cast<size_t>(shrink.problem - problems.data());
    shrink_run(pool, thread, shrink, orders[i], strides[i], rounding);
  });

  // --- base and expand, chunk by chunk of output rows ---
  std::vector<Input> inputs;
  for (const kernels::LinearParams& p : problems) inputs.push_back(input_of(pool, p, rounding));
  int64_t num_rows = 0;
  for (const kernels::LinearParams& p : problems) num_rows += p.w.rows;
  const int64_t chunk_rows = pool.chunk_rows(num_rows);
  std::vector<int64_t> first_chunk(problems.size() + 1, 0);
  for (size_t i = 0; i < problems.size(); ++i) {
    const bool empty = problems[i].num_tokens == 0;
    first_chunk[i + 1] =
        first_chunk[i] + (empty ? 0 : (problems[i].w.rows + chunk_rows - 1) / chunk_rows);
  }
  pool.parallel_for(first_chunk.back(), [&](int64_t chunk, int32_t thread) {
    const size_t i = static_cast<size_t>(
        std::upper_bound(first_chunk.begin(), first_chunk.end(), chunk) - first_chunk.begin() - 1);
    const kernels::LinearParams& p = problems[i];
    const int64_t begin = (chunk - first_chunk[i]) * chunk_rows;
    const int64_t end = std::min<int64_t>(p.w.rows, begin + chunk_rows);
    float* panel = pool.scratch(thread, panel_floats(p.w));
    for (int32_t t = 0; strides[i] > 0 && t < p.num_tokens; ++t) {
      const int32_t slot = p.adapter_slot_of_token[t];
      if (slot == kNoAdapter) continue;
      const LoraPair& lora = p.lora_of_slot[slot];
      prefetch_expand(lora.b_t, lora.rank, p.w.rows, begin, end);
    }
    rows_times_tokens(p.w, begin, end, inputs[i].rows.data(), p.num_tokens, p.y + begin, p.y_stride,
                      panel);
    for (int32_t t = 0; strides[i] > 0 && t < p.num_tokens; ++t) {
      const int32_t slot = p.adapter_slot_of_token[t];
      if (slot == kNoAdapter || p.lora_of_slot[slot].rank == 0) continue;
      const LoraPair& lora = p.lora_of_slot[slot];
      expand(shrunk[i].data() + t * strides[i], lora.b_t, lora.rank, p.w.rows, begin, end,
             p.y + t * p.y_stride + begin);
    }
    if (rounding == Rounding::kNone || p.y_is_logits) return;
    for (int32_t t = 0; t < p.num_tokens; ++t)
      round_to_bf16(p.y + t * p.y_stride + begin, end - begin);
  });
}

}  // namespace braid::cpu
