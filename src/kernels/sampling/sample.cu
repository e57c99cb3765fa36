// Picking tokens: one pass over all logits, then a CTA a row that looks again at the few runs that
// matter. docs/kernels/sampling.md.

#include <cmath>

#include "base/philox.h"
#include "kernels/sampling/enqueue.h"
#include "kernels/sampling/row.cuh"
#include "kernels/sampling/sampling.h"
#include "kernels/sampling/scan_runs.cuh"

namespace braid::kernels {
namespace {

using namespace sampling;
using Row = sampling::Row<SampleParams>;

// exp((x - largest) / temperature) as a multiple of 2^-kWeightBits.
class Weights {
 public:
  static constexpr int kWeightBits = 45;  // 2^18 of them add up to less than 2^64
  static constexpr uint64_t kOne = uint64_t{1} << kWeightBits;

  __device__ Weights(float largest, float temperature)
      : largest_(largest), inverse_(1.0 / temperature) {}

  __device__ uint64_t of(float x) const { return rounded(exp_of(x)); }

  // The same of a sum of weights that are relative to `x`.
  __device__ uint64_t of_run(float x, double weight) const {
    return weight > 0 ? static_cast<uint64_t>(__double2ull_rn(weight * exp_of(x) * kOne)) : 0;
  }

  // A number that no logit of a weight from `least` on is below. least >= 1. With room for
  // rounding, that of weights above all.
  __device__ float floor_of(uint64_t least) const {
    const double nats = kWeightBits * M_LN2 - log(static_cast<double>(least) - 0.5) + 1e-13;
    const double floor = largest_ - nats / inverse_ * (1 + 1e-9) - fabs(largest_) * 1e-9;
    return fmaxf(__double2float_rd(floor), -FLT_MAX);
  }

 private:
  __device__ double exp_of(float x) const {
    return exp_of_negative((static_cast<double>(x) - largest_) * inverse_);
  }
  __device__ static uint64_t rounded(double weight) {
    // Added to 2^(52 - 45) the weight's last bit stands in the last place of the mantissa.
    constexpr double kShift = uint64_t{1} << (52 - kWeightBits);
    return __double_as_longlong(weight + kShift) - __double_as_longlong(kShift);
  }

  double largest_, inverse_;
};

// As on the host: where top_p cuts, tokens stand in the order of falling logits for the draw, and
// else in the order of ids.
__device__ bool sorts(const SamplingRow& asked) { return asked.top_p < 1; }

__device__ uint64_t least_weight(const SamplingRow& asked) {
  return static_cast<uint64_t>(ceil(static_cast<double>(asked.min_p) * Weights::kOne));
}

__device__ uint64_t share_of(float top_p, uint64_t total) {
  return static_cast<uint64_t>(fmax(1.0, ceil(top_p * static_cast<double>(total))));
}

// The draw's place in a sum: its 53 bits as a fraction of it, exactly.
__device__ uint64_t draw_below(uint64_t sum, const SamplingRow& asked) {
  return __umul64hi(philox_bits(asked.seed, static_cast<uint64_t>(asked.position)) << 11, sum);
}

struct CtaSum {
  uint64_t through;  // this thread's value and those of the threads before it
  uint64_t all;
};

__device__ CtaSum cta_scan(SharedStorage& shared, uint64_t value) {
  CtaSum sum = {.through = inclusive_scan(value), .all = 0};
  __syncthreads();  // the previous scan is over
  if (lane_index() == 31) shared.warp_sums[warp_index()] = sum.through;
  __syncthreads();
  const uint64_t of_warp = lane_index() < kWarps ? shared.warp_sums[lane_index()] : 0;
  const uint64_t through_warp = inclusive_scan(of_warp);
  sum.through += __shfl_sync(~0u, through_warp - of_warp, warp_index());
  sum.all = __shfl_sync(~0u, through_warp, 31);
  return sum;
}

// Of a list of up to kMaxSorted tokens. top_k: 0 where all are kept. `total`: of which top_p is
// taken; 0: of what top_k leaves. In one thread; kNoToken in the others.
__device__ __forceinline__ int draw_from_list(SharedStorage& shared, const Weights& weights,
                                              const SamplingRow& asked, int top_k, uint64_t total) {
  const auto index = static_cast<int>(threadIdx.x);
  const int count = shared.list.count;
  const Places places = sort_list(shared.list);
  const float logit = index < count ? shared.list.logits[index] : -INFINITY;
  if (index < count && places.by_logit == min(top_k, count) - 1) shared.floor = logit;
  __syncthreads();
  // --- weights in the order of the draw ---
  if (index < count) {
    const int place = sorts(asked) ? places.by_logit : places.by_id;
    const bool is_kept = top_k == 0 || logit >= shared.floor;
    shared.sorted_weights[place] = is_kept ? weights.of(logit) : 0;
    shared.sorted_ids[place] = shared.list.ids[index];
  }
  __syncthreads();
  uint64_t weight = index < count ? shared.sorted_weights[index] : 0;
  if (sorts(asked)) {
    const CtaSum sum = cta_scan(shared, weight);
    const uint64_t wanted = share_of(asked.top_p, total > 0 ? total : sum.all);
    if (sum.through - weight >= wanted) weight = 0;
  }
  if (weight < least_weight(asked)) weight = 0;
  // --- the draw ---
  const CtaSum sum = cta_scan(shared, weight);
  const uint64_t target = draw_below(sum.all, asked);
  return sum.through - weight <= target && target < sum.through ? shared.sorted_ids[index]
                                                                : kNoToken;
}

// Of all tokens from `floor` on, in passes over the row; top_k has been seen to. `total`: of the
// weights of these tokens, or 0 where it is not known. In one thread or warp; kNoToken in the
// others.
__device__ __forceinline__ int draw_from_row(Row& row, float floor, float largest,
                                             const Weights& weights, const SamplingRow& asked,
                                             uint64_t total) {
  const auto weight_from = [&](uint64_t least) {
    return [&, least](float x, int) -> uint64_t {
      const uint64_t weight = x >= floor ? weights.of(x) : 0;
      return weight >= least ? weight : 0;
    };
  };
  const auto kept_weight = weight_from(least_weight(asked));
  if (!sorts(asked))
    return row.find_in_order(draw_below(row.sum_runs(floor, kept_weight), asked), kept_weight);
  if (total == 0) total = row.sum_runs(floor, weight_from(0));
  const auto weight_of = [&](float x) { return weights.of(x); };
  const uint64_t wanted = share_of(asked.top_p, total);
  const Threshold last = search_row(row, {floor, largest}, wanted, weight_of);
  const uint64_t weight = weights.of(last.value);
  // Of those that equal the last, as few as reach what is wanted.
  uint64_t kept = last.above + (wanted - last.above + weight - 1) / weight * weight;
  if (weight < least_weight(asked)) kept = row.sum_runs(floor, kept_weight);
  const uint64_t target = draw_below(kept, asked);
  const Threshold drawn = search_row(row, {last.value, largest}, target + 1, weight_of);
  return nth_of_equals(row, drawn.value, (target - drawn.above) / weights.of(drawn.value));
}

// Where the n-th largest logit lies, counting equals; -FLT_MAX where there are fewer.
__device__ __forceinline__ float nth_largest(Row& row, float floor, float largest, int n) {
  const auto is_from_floor = [&](float x, int) -> uint64_t { return x >= floor; };
  if (row.sum_runs(floor, is_from_floor) < static_cast<uint64_t>(n)) return -FLT_MAX;
  return search_row(row, {floor, largest}, n, [](float) -> uint64_t { return 1; }).value;
}

// The token in one thread at least, kNoToken in those that do not know it.
__device__ __forceinline__ int draw(Row& row, float largest, const SamplingRow& asked) {
  SharedStorage& shared = row.shared();
  const Weights weights(largest, asked.temperature);
  const uint64_t least = least_weight(asked);
  const int top_k = asked.top_k < row.vocab_size() ? asked.top_k : 0;
  float floor = -FLT_MAX;  // what is below cannot be drawn
  uint64_t total = 0;      // of the weights of all tokens
  if (needs_weights(asked, row.vocab_size())) {
    uint64_t of_run = 0;
    if (threadIdx.x < kRuns) {
      of_run = weights.of_run(logit_of_key(shared.keys[threadIdx.x]), shared.weights[threadIdx.x]);
      shared.run_sums[threadIdx.x] = of_run;
    }
    total = row.cta_all(warp_all(of_run, plus<uint64_t>), plus<uint64_t>);
    if (top_k == 0 && !sorts(asked) && least == 0) {
      return row.find_in_order(draw_below(total, asked),
                               [&](float x, int) { return weights.of(x); });
    }
  }
  if (top_k > 0 && top_k <= kRuns) floor = row.floor_of_largest(top_k);
  if (sorts(asked) && top_k == 0) {
    // Tokens under (1 - top_p) / V of the total each cannot make up 1 - top_p together: all of them
    // are cut. The factor leaves room for rounding.
    const double cut = 0.999 * (1.0 - asked.top_p) * static_cast<double>(total) / row.vocab_size();
    floor = fmaxf(floor, weights.floor_of(static_cast<uint64_t>(fmax(1.0, cut))));
  }
  // Where top_p cuts it is taken of more than min_p leaves.
  if (least > 0 && !sorts(asked)) floor = fmaxf(floor, weights.floor_of(least));

  int count = gather(row, floor, [&](float x) { return x >= floor; });
  if (sorts(asked) && top_k == 0 && count <= kMaxGathered) {
    // Only what top_p reaches has to be sorted.
    ListedTokens list(shared.list);
    Interval left = ends_of(row, list, floor, [&](float x) { return x >= floor; });
    uint64_t above = 0;
    constexpr int kFew = 128;
    while (count > kFew && left.low != left.high) {
      narrow(row, list, left, above, share_of(asked.top_p, total),
             [&](float x) { return weights.of(x); });
      const int before = count;
      count = keep_from(shared.list, left.low);
      if (2 * count > before) break;
    }
  }
  if (count <= kMaxSorted)
    return draw_from_list(shared, weights, asked, top_k, top_k > 0 ? 0 : total);
  if (top_k > 0) {
    floor = top_k <= kRuns ? row.floor_of_largest(top_k) : -FLT_MAX;
    floor = nth_largest(row, floor, largest, top_k);
    total = 0;
  }
  return draw_from_row(row, floor, largest, weights, asked, total);
}

__global__ __launch_bounds__(kThreads,
                             1) void sample_kernel(const __grid_constant__ SampleParams p) {
  extern __shared__ float4 dynamic[];
  auto& shared = reinterpret_cast<SharedStorage&>(dynamic);
  // Words, because variables of shared memory have no initialisers.
  __shared__ uint64_t asked_words[sizeof(SamplingRow) / sizeof(uint64_t)];
  __shared__ int drawn;
  const int index = blockIdx.x;
  let_next_kernel_start();
  wait_for_previous_kernel();
  if (threadIdx.x < std::size(asked_words))
    asked_words[threadIdx.x] = reinterpret_cast<const uint64_t*>(p.rows + index)[threadIdx.x];
  __syncthreads();
  const auto& asked = reinterpret_cast<const SamplingRow&>(asked_words);
  if (!asked.samples) {
    if (threadIdx.x == 0) p.sampled[index] = {.token = 0, .status = SamplingStatus::kOk};
    return;
  }
  Row row(shared, dynamic + sizeof(SharedStorage) / sizeof(float4), p, asked);
  SamplingStatus status = row.read_records();
  int token = kNoToken;
  if (status == SamplingStatus::kOk) {
    uint64_t best = row.best_key();
    // An end token of the request may be all that the grammar allows here: it is text then.
    if (id_of_key(best) == kNoToken && asked.rules_out_end && asked.mask != nullptr) {
      row.scan_with_end();
      best = row.best_key();
    }
    const float largest = logit_of_key(best);
    token = id_of_key(best);
    // A penalty near 0 can make a logit infinite: there is nothing to draw from then.
    if (asked.temperature > 0 && !isinf(largest)) token = draw(row, largest, asked);
    if (token != kNoToken) drawn = token;
    if (id_of_key(best) == kNoToken) status = SamplingStatus::kNoTokenLeft;
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  token = status == SamplingStatus::kOk ? drawn : 0;
  p.sampled[index] = {token, status};
  if (asked.request_slot >= 0) p.newest_token[asked.request_slot] = token;
  if (asked.penalty_slot >= 0 && status == SamplingStatus::kOk)
    ++p.seen[int64_t{asked.penalty_slot} * p.vocab_size + token];
}

}  // namespace

void internal::enqueue_sample(const SampleParams& p, CudaStream stream) {
  launch_scan_runs("sample_scan", p, stream);
  launch_rows("sample", sample_kernel, p, stream);
}

}  // namespace braid::kernels
