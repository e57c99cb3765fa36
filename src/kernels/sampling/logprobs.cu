// Log probabilities: one pass over all logits, then a CTA a row that looks again at the few runs
// that matter.

#include "kernels/sampling/enqueue.h"
#include "kernels/sampling/logprobs.h"
#include "kernels/sampling/row.cuh"
#include "kernels/sampling/scan_runs.cuh"

namespace braid::kernels {
namespace {

using namespace sampling;
using Row = sampling::Row<LogprobParams>;

// log sum exp of the row from those of its runs, in the order of lanes; the same in all threads.
__device__ double log_sum_exp(const SharedStorage& shared, float largest) {
  double sum = 0;
  for (int run = lane_index(); run < kRuns; run += 32) {
    const double of_run = shared.weights[run];
    if (of_run > 0)
      sum +=
          of_run * exp_of_negative(static_cast<double>(logit_of_key(shared.keys[run])) - largest);
  }
  return largest + log(warp_all(sum, plus<double>));
}

// Writes the n largest, n <= V.
__device__ void write_top(Row& row, int n, double log_sum, TopLogprob* top) {
  TokenList& list = row.shared().list;
  const float floor = row.floor_of_largest(n);
  const int count = gather(row, floor, [&](float x) { return x >= floor; });
  if (count >= n && count <= kMaxSorted) {
    const Places places = sort_list(list);
    if (threadIdx.x < count && places.by_logit < n) {
      top[places.by_logit] = {list.ids[threadIdx.x],
                              static_cast<float>(list.logits[threadIdx.x] - log_sum)};
    }
    return;
  }
  // Many equals, or -inf among the largest: one after the other.
  uint64_t before = ~uint64_t{0};
  for (int place = 0; place < n; ++place) {
    uint64_t best = 0;
    row.for_each_from(-INFINITY, [&](float x, int id) {
      const uint64_t key = key_of(x, id);
      if (key < before && key > best) best = key;
    });
    before = row.cta_all(warp_all(best, larger<uint64_t>), larger<uint64_t>);
    if (threadIdx.x == 0)
      top[place] = {id_of_key(before), static_cast<float>(logit_of_key(before) - log_sum)};
  }
}

__global__ __launch_bounds__(kThreads,
                             1) void logprobs_kernel(const __grid_constant__ LogprobParams p) {
  extern __shared__ float4 dynamic[];
  auto& shared = reinterpret_cast<SharedStorage&>(dynamic);
  const int index = blockIdx.x;
  let_next_kernel_start();
  wait_for_previous_kernel();
  const LogprobRow asked = p.rows[index];
  if (asked.num_top < 0) {
    if (threadIdx.x == 0) p.logprobs[index] = {};
    return;
  }
  const SamplingRow unchanged;
  Row row(shared, dynamic + sizeof(SharedStorage) / sizeof(float4), p, unchanged);
  SampledToken of = {.token = asked.token, .status = row.read_records()};
  if (asked.token < 0) of = p.sampled[index];
  if (of.status != SamplingStatus::kOk) {
    if (threadIdx.x == 0) p.logprobs[index] = {.token = 0, .status = of.status};
    return;
  }
  const double log_sum = log_sum_exp(shared, logit_of_key(row.best_key()));
  const float own = row_logits(p, index)[of.token];
  const uint64_t num_larger = row.sum_runs(own, [&](float x, int) -> uint64_t { return x > own; });
  if (threadIdx.x == 0) {
    p.logprobs[index] = {of.token, of.status, static_cast<float>(own - log_sum),
                         1 + static_cast<int>(num_larger)};
  }
  if (asked.num_top > 0) {
    write_top(row, min(asked.num_top, p.vocab_size), log_sum,
              p.top + int64_t{index} * kMaxTopLogprobs);
  }
}

}  // namespace

void internal::enqueue_logprobs(const LogprobParams& p, CudaStream stream) {
  launch_scan_runs("logprobs_scan", p, stream);
  launch_rows("logprobs", logprobs_kernel, p, stream);
}

}  // namespace braid::kernels
