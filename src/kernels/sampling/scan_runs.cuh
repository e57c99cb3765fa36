#pragma once

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/sampling/change_logits.cuh"
#include "kernels/sampling/logprobs.h"
#include "kernels/sampling/run.cuh"

// The one pass over all logits: a record of each run. A warp has a run and waits for nobody, so
// that the copies of many are always under way.
namespace braid::kernels::sampling {

struct RunRecord {
  uint64_t key;       // Best's, after changes
  double weight;      // sum of exp((logit - largest of the run) / temperature), where needed
  float raw_largest;  // before changes; NaN where there is one
};
static_assert(sizeof(RunRecord) * kRuns == kScratchBytesPerRow);

// With top_k up to the number of runs, the largest of the runs tell enough.
__device__ __forceinline__ bool needs_weights(const SamplingRow& asked, int vocab_size) {
  return asked.temperature > 0 &&
         (asked.top_k == 0 || asked.top_k > kRuns || asked.top_k >= vocab_size);
}

// Of log probabilities no more is asked than of a draw from the logits as they are.
__device__ __forceinline__ const SamplingRow& to_sampling(const SamplingRow& row) { return row; }
__device__ __forceinline__ SamplingRow to_sampling(const LogprobRow& row) {
  return {.samples = row.num_top >= 0};
}
// Bias, penalties, mask and min_tokens, where there can be any.
template <class Run>
__device__ __forceinline__ void change_logits(Run& run, const SampleParams& p,
                                              const SamplingRow& asked, bool rules_out_end) {
  if (changes_logits(asked)) change_logits(run, asked, p.seen, rules_out_end);
}
template <class Run>
__device__ __forceinline__ void change_logits(Run&, const LogprobParams&, const SamplingRow&,
                                              bool) {}

template <class Params>
__device__ __forceinline__ RunRecord* records_of(const Params& p, int row) {
  return static_cast<RunRecord*>(p.scratch) + int64_t{row} * kRuns;
}

template <class Params>
__device__ __forceinline__ const float* row_logits(const Params& p, int row) {
  return p.logits + row * p.logits_stride;
}

// Loads a run of a row, changes it, and looks at it.
template <class Run, class Params>
__device__ __forceinline__ RunRecord scan_run(Run& run, const Params& p, int row, int index,
                                              const SamplingRow& asked, bool rules_out_end) {
  run.start(row_logits(p, row), index);
  run.wait();
  Best best = best_of(run);
  RunRecord record = {
      .key = best.key, .weight = 0, .raw_largest = best.has_nan ? NAN : logit_of_key(best.key)};
  if (changes_logits(asked)) {
    change_logits(run, p, asked, rules_out_end);
    record.key = best_of(run).key;
  }
  const float largest = logit_of_key(record.key);
  if (needs_weights(asked, run.vocab_size()) && largest > -INFINITY)
    record.weight = sum_of_weights(run, largest, asked.temperature);
  return record;
}

constexpr int kScanWarps = 8, kScanThreads = 32 * kScanWarps;

template <class Params>
__global__ __launch_bounds__(kScanThreads,
                             4) void scan_runs_kernel(const __grid_constant__ Params p) {
  extern __shared__ float4 buffers[];
  const int index = blockIdx.x * kScanWarps + warp_index(), row = blockIdx.y;
  Run<1> run(buffers + warp_index() * slot_chunks(p.vocab_size), p.vocab_size);
  let_next_kernel_start();
  wait_for_previous_kernel();
  const auto& asked = to_sampling(p.rows[row]);
  if (!asked.samples) return;
  const RunRecord record = scan_run(run, p, row, index, asked, asked.rules_out_end);
  if (lane_index() == 0) records_of(p, row)[index] = record;
}

template <class Params>
void launch_scan_runs(const char* name, const Params& p, CudaStream stream) {
  const size_t bytes =
      size_t{kScanWarps} * static_cast<size_t>(slot_chunks(p.vocab_size)) * sizeof(float4);
  static_assert(kScanWarps * slot_chunks(kMaxSamplingVocab) * sizeof(float4) <= 48 << 10);
  launch(name, scan_runs_kernel<Params>,
         {.grid = dim3(kRuns / kScanWarps, static_cast<unsigned>(p.num_rows)),
          .cta = dim3(kScanThreads),
          .shared_bytes = bytes},
         stream, p);
}

}  // namespace braid::kernels::sampling
