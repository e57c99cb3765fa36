#pragma once

#include <cfloat>
#include <limits>

#include "kernels/sampling/change_logits.cuh"
#include "kernels/sampling/run.cuh"
#include "kernels/sampling/scan_runs.cuh"

// A row whose runs have been scanned, as a CTA looks at it again; and what sampling asks of it: a
// sum, the threshold above which lies a given sum, and the place in the order of ids where a
// running sum passes a target. Sums are sums of integers, so their order does not matter.
namespace braid::kernels::sampling {

constexpr int kWarps = 16;
constexpr int kThreads = 32 * kWarps;
constexpr int kBins = 256;          // of a histogram
constexpr int kMaxGathered = 4096;  // tokens of a list
constexpr int kMaxSorted = 512;     // of them, to be sorted by counting
constexpr int kLaneRuns = kRuns / 32;

struct TokenList {
  alignas(16) float logits[kMaxGathered];  // in any order
  alignas(16) int ids[kMaxGathered];
  int count;  // may be more than fit
};

struct SharedStorage {
  uint64_t keys[kRuns];      // the records'
  double weights[kRuns];     // the records'
  uint64_t run_sums[kRuns];  // what is summed up at the moment, by run
  uint64_t histogram[kBins];
  uint64_t warp_values[2][kWarps];
  uint64_t warp_sums[kWarps];
  uint64_t sorted_weights[kMaxSorted];
  int sorted_ids[kMaxSorted];
  float floor;
  TokenList list;
};
// About 48 kB, beside the warps' buffers of which the largest vocabulary has 128 kB.
static_assert(sizeof(SharedStorage) % 16 == 0 && sizeof(SharedStorage) <= 49152);

__device__ __forceinline__ uint64_t inclusive_scan(uint64_t value) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint64_t other = __shfl_up_sync(~0u, value, step);
    if (lane_index() >= step) value += other;
  }
  return value;
}

struct Interval {
  float low, high;  // both inside

  __device__ bool has(float x) const { return x >= low && x <= high; }
};

// Cuts an interval of numbers that are not all equal into kBins, from above. A larger number is
// never in a later bin, and not all are in one.
class Binning {
 public:
  // Halves, because the difference of two floats may not be one.
  __device__ explicit Binning(const Interval& interval)
      : low_(interval.low),
        half_high_(0.5f * interval.high),
        scale_(kBins / (half_high_ - 0.5f * interval.low)) {}

  __device__ int bin_of(float x) const {
    // Among the least of floats scale_ is infinite and 0 * scale_ NaN, which becomes 0.
    const int bin = __float2int_rz((half_high_ - 0.5f * x) * scale_);
    return x == low_ || bin >= kBins ? kBins - 1 : bin;
  }

 private:
  float low_, half_high_, scale_;
};

struct Threshold {
  float value;
  uint64_t above;  // sum over what is larger
};

// Where in `kPerLane` values a lane, those of all lanes in order, the running sum comes past
// `target`; `begin` is what stands before the first, and becomes what stands before the place.
template <int kPerLane>
__device__ __forceinline__ int find_in_warp(const uint64_t* values, uint64_t target,
                                            uint64_t& begin) {
  const uint64_t* const of = values + kPerLane * lane_index();
  uint64_t own = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) own += of[i];
  const uint64_t end = begin + inclusive_scan(own);
  const int owner = max(__ffs(__ballot_sync(~0u, end > target)) - 1, 0);
  int i = 0;
  uint64_t before = end - own;
  while (i < kPerLane - 1 && before + of[i] <= target) before += of[i++];
  begin = __shfl_sync(~0u, before, owner);
  return __shfl_sync(~0u, kPerLane * lane_index() + i, owner);
}

// Of one of the two kernels' parameters; the CTA's number is that of the row.
template <class Params>
class Row {
 public:
  // `buffers`: of all warps. `asked` says how logits are changed.
  __device__ Row(SharedStorage& shared, float4* buffers, const Params& p, const SamplingRow& asked)
      : shared_(shared),
        run_(buffers + warp_index() * 2 * slot_chunks(p.vocab_size), p.vocab_size),
        p_(p),
        asked_(asked),
        rules_out_end_(asked.rules_out_end) {}

  __device__ SharedStorage& shared() { return shared_; }
  __device__ int vocab_size() const { return run_.vocab_size(); }

  // Takes over the records of the scan. Returns what the logits were before they were changed.
  __device__ SamplingStatus read_records() {
    float largest = -INFINITY;
    bool has_nan = false;
    if (threadIdx.x < kRuns) {
      const RunRecord record = records_of(p_, blockIdx.x)[threadIdx.x];
      shared_.keys[threadIdx.x] = record.key;
      shared_.weights[threadIdx.x] = record.weight;
      largest = record.raw_largest;
      has_nan = isnan(largest);
    }
    // NaN is larger than all.
    const uint32_t own = has_nan ? ~0u : ordered(largest);
    const uint32_t all =
        static_cast<uint32_t>(cta_all(__reduce_max_sync(~0u, own), larger<uint64_t>));
    if (all == ~0u) return SamplingStatus::kNan;
    return isinf(from_ordered(all)) ? SamplingStatus::kNoFiniteMaximum : SamplingStatus::kOk;
  }
  // Scans again, without ruling out end tokens.
  __device__ void scan_with_end() {
    rules_out_end_ = false;
    __syncthreads();
    for (int index = warp_index(); index < kRuns; index += kWarps) {
      const RunRecord record = scan_run(run_, p_, blockIdx.x, index, asked_, false);
      if (lane_index() == 0)
        shared_.keys[index] = record.key, shared_.weights[index] = record.weight;
    }
    __syncthreads();
  }
  __device__ uint64_t best_key() const {
    uint64_t best = 0;
#pragma unroll
    for (int i = 0; i < kLaneRuns; ++i) best = larger(best, shared_.keys[32 * i + lane_index()]);
    return warp_all(best, larger<uint64_t>);
  }

  // `value` of each warp, joined. A barrier of the CTA.
  template <class Op>
  __device__ uint64_t cta_all(uint64_t value, Op&& op) {
    uint64_t* const slots = shared_.warp_values[turn_];
    // A slot is written again two turns later: everyone has read it by then.
    turn_ ^= 1;
    if (lane_index() == 0) slots[warp_index()] = value;
    __syncthreads();
    value = slots[lane_index() % kWarps];
#pragma unroll
    for (int step = 1; step < kWarps; step *= 2)
      value = op(value, __shfl_xor_sync(~0u, value, step));
    return value;
  }

  // f(index) for the runs of this warp that have a logit from `floor` on, with the run in run_.
  template <class F>
  __device__ __forceinline__ void for_each_run_from(float floor, F&& f) {
    int next = next_run(warp_index(), floor);
    if (next < kRuns) run_.start(row_logits(p_, blockIdx.x), next);
    while (next < kRuns) {
      const int index = next;
      run_.wait();
      next = next_run(index + kWarps, floor);
      if (next < kRuns) run_.start(row_logits(p_, blockIdx.x), next);
      change_logits(run_, p_, asked_, rules_out_end_);
      f(index);
    }
  }
  // f(logit, id) for all ids of those runs.
  template <class F>
  __device__ __forceinline__ void for_each_from(float floor, F&& f) {
    for_each_run_from(floor, [&](int) { run_.for_each(f); });
  }
  // The n-th of the largest logits of runs, which at least n logits are not below, or -FLT_MAX
  // where there are fewer. 1 <= n <= kRuns. Two barriers of the CTA.
  __device__ float floor_of_largest(int n) {
    __syncthreads();
    if (warp_index() == 0) {
      uint32_t keys[kLaneRuns];
#pragma unroll
      for (int i = 0; i < kLaneRuns; ++i)
        keys[i] = static_cast<uint32_t>(shared_.keys[32 * i + lane_index()] >> 32);
      // From the highest bit on, what n keys still reach.
      uint32_t reached = 0;
#pragma unroll 1
      for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
        int count = 0;
#pragma unroll
        for (int i = 0; i < kLaneRuns; ++i) count += keys[i] >= (reached | bit);
        if (__reduce_add_sync(~0u, count) >= n) reached |= bit;
      }
      if (lane_index() == 0) shared_.floor = fmaxf(from_ordered(reached), -FLT_MAX);
    }
    __syncthreads();
    return shared_.floor;
  }

  // Sets run_sums to the sums of measure(logit, id), which is 0 below `floor`, and returns their
  // sum.
  template <class Measure>
  __device__ uint64_t sum_runs(float floor, Measure&& measure) {
    __syncthreads();  // the last sums have been read
    for (int run = threadIdx.x; run < kRuns; run += kThreads) shared_.run_sums[run] = 0;
    __syncthreads();
    uint64_t sum = 0;
    for_each_run_from(floor, [&](int index) {
      uint64_t of_run = 0;
      run_.for_each([&](float x, int id) { of_run += measure(x, id); });
      of_run = warp_all(of_run, plus<uint64_t>);
      if (lane_index() == 0) shared_.run_sums[index] = of_run;
      sum += of_run;
    });
    return cta_all(sum, plus<uint64_t>);
  }

  // After sum_runs(): the first id at which the running sum of measure(logit, id) comes past
  // `target`, which is less than the sum over all. In the first warp; kNoToken in the others.
  template <class Measure>
  __device__ int find_in_order(uint64_t target, Measure&& measure) {
    if (warp_index() != 0) return kNoToken;
    uint64_t begin = 0;
    const int index = find_in_warp<kLaneRuns>(shared_.run_sums, target, begin);
    run_.start(row_logits(p_, blockIdx.x), index);
    run_.wait();
    change_logits(run_, p_, asked_, rules_out_end_);
    // Where run_sums were rounded the target may lie behind all: the last is meant then.
    int found = kNoToken, last = id_of_key(shared_.keys[index]);
    run_.for_each_step([&](const float(&x)[4], int id) {
      uint64_t of[4], own = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        of[i] = measure(x[i], id + i);
        own += of[i];
      }
      const uint64_t end = begin + inclusive_scan(own);
      uint64_t before = end - own;
      int here = kNoToken, positive = kNoToken;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (of[i] > 0) positive = id + i;
        before += of[i];
        if (here == kNoToken && before > target) here = id + i;
      }
      const uint32_t passed = __ballot_sync(~0u, here != kNoToken);
      if (found == kNoToken && passed != 0) found = __shfl_sync(~0u, here, __ffs(passed) - 1);
      if (const int of_step = static_cast<int>(__reduce_max_sync(~0u, positive + 1)) - 1;
          of_step != kNoToken)
        last = of_step;
      begin = __shfl_sync(~0u, end, 31);
    });
    return found != kNoToken ? found : last;
  }

 private:
  // Of this warp's runs from `run` on the first that has a logit from `floor` on.
  __device__ int next_run(int run, float floor) const {
    while (run < kRuns && !(logit_of_key(shared_.keys[run]) >= floor)) run += kWarps;
    return run;
  }

  SharedStorage& shared_;
  Run<2> run_;
  const Params& p_;
  const SamplingRow& asked_;
  bool rules_out_end_;
  int turn_ = 0;
};

// The tokens of a row whose logits are chosen, none of them below `floor`, in shared().list.
// Returns their number, or one above kMaxGathered where they do not fit.
template <class Params, class Chosen>
__device__ __forceinline__ int gather(Row<Params>& row, float floor, Chosen&& chosen) {
  TokenList& list = row.shared().list;
  __syncthreads();  // the last count has been read
  if (threadIdx.x == 0) list.count = 0;
  __syncthreads();
  row.for_each_from(floor, [&](float x, int id) {
    if (!chosen(x) || *const_cast<volatile int*>(&list.count) > kMaxGathered) return;
    const int place = atomicAdd(&list.count, 1);
    if (place < kMaxGathered) list.logits[place] = x, list.ids[place] = id;
  });
  __syncthreads();
  return list.count;
}

// Drops what is below `floor` from a list that fits. Returns how many are left.
__device__ __forceinline__ int keep_from(TokenList& list, float floor) {
  constexpr int kPerThread = kMaxGathered / kThreads;
  float logits[kPerThread];
  int ids[kPerThread];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int index = threadIdx.x + i * kThreads;
    logits[i] = index < list.count ? list.logits[index] : -INFINITY;
    ids[i] = list.ids[index];
  }
  __syncthreads();
  if (threadIdx.x == 0) list.count = 0;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (logits[i] < floor) continue;
    const int place = atomicAdd(&list.count, 1);
    list.logits[place] = logits[i], list.ids[place] = ids[i];
  }
  __syncthreads();
  return list.count;
}

// The list in place of the row, for what follows.
class ListedTokens {
 public:
  __device__ explicit ListedTokens(const TokenList& list) : list_(list) {}
  template <class F>
  __device__ __forceinline__ void for_each_from(float, F&& f) const {
    for (int i = threadIdx.x; i < list_.count; i += kThreads) f(list_.logits[i], list_.ids[i]);
  }

 private:
  const TokenList& list_;
};

// The least and the largest of the logits that are chosen, none of them below `floor`. One is.
template <class Row, class Tokens, class Chosen>
__device__ __forceinline__ Interval ends_of(Row& row, Tokens& tokens, float floor,
                                            Chosen&& chosen) {
  float low = INFINITY, high = -INFINITY;
  tokens.for_each_from(floor, [&](float x, int) {
    if (chosen(x)) low = fminf(low, x), high = fmaxf(high, x);
  });
  const uint64_t own = (uint64_t{__reduce_max_sync(~0u, ordered(high))} << 32) |
                       __reduce_max_sync(~0u, ~ordered(low));
  const uint64_t all = row.cta_all(own, [](uint64_t a, uint64_t b) {
    const uint64_t lows = larger(static_cast<uint32_t>(a), static_cast<uint32_t>(b));
    return larger(a >> 32, b >> 32) << 32 | lows;
  });
  return {from_ordered(~static_cast<uint32_t>(all)),
          from_ordered(static_cast<uint32_t>(all >> 32))};
}

// Of the tokens in `left`, whose ends differ, the bin in which the sum of measure(logit) from above
// reaches `amount`; `above`, the sum over what is larger than `left`, grows by the bins before it.
template <class Row, class Tokens, class Measure>
__device__ __forceinline__ int find_bin(Row& row, Tokens& tokens, const Interval& left,
                                        uint64_t& above, uint64_t amount, Measure&& measure) {
  SharedStorage& shared = row.shared();
  const Binning binning(left);
  __syncthreads();  // the last histogram has been read
  if (threadIdx.x < kBins) shared.histogram[threadIdx.x] = 0;
  __syncthreads();
  tokens.for_each_from(left.low, [&](float x, int) {
    if (left.has(x)) {
      atomicAdd(reinterpret_cast<unsigned long long*>(&shared.histogram[binning.bin_of(x)]),
                measure(x));
    }
  });
  __syncthreads();
  return find_in_warp<kBins / 32>(shared.histogram, amount - 1, above);
}

// Narrows `left` to the ends of that bin.
template <class Row, class Tokens, class Measure>
__device__ __forceinline__ void narrow(Row& row, Tokens& tokens, Interval& left, uint64_t& above,
                                       uint64_t amount, Measure&& measure) {
  const Binning binning(left);
  const int bin = find_bin(row, tokens, left, above, amount, measure);
  left = ends_of(row, tokens, left.low,
                 [&](float x) { return left.has(x) && binning.bin_of(x) == bin; });
}

// The largest t such that measure(x) over all x >= t sums up to `amount` at least, which it does
// for t = left.low; nothing is above left.high. amount >= 1.
//
// A round over the row leaves a bin, which mostly fits in a list; two or three rounds over that
// find t. There are never more than the octaves of float can make it.
template <class Row, class Measure>
__device__ __forceinline__ Threshold search_row(Row& row, Interval left, uint64_t amount,
                                                Measure&& measure) {
  TokenList& list = row.shared().list;
  uint64_t above = 0;
  while (left.low != left.high) {
    const Binning binning(left);
    const int bin = find_bin(row, row, left, above, amount, measure);
    const auto is_left = [&](float x) { return left.has(x) && binning.bin_of(x) == bin; };
    if (gather(row, left.low, is_left) <= kMaxGathered) {
      ListedTokens tokens(list);
      left = ends_of(row, tokens, left.low, [](float) { return true; });
      while (left.low != left.high) narrow(row, tokens, left, above, amount, measure);
    } else {
      left = ends_of(row, row, left.low, is_left);
    }
  }
  return {left.low, above};
}

// After search_row(), of the logits that equal `value`, in the order of ids: the id of the one
// behind the first n. In one thread or warp; kNoToken in the others.
template <class Row>
__device__ __forceinline__ int nth_of_equals(Row& row, float value, uint64_t n) {
  const TokenList& list = row.shared().list;
  if (list.count > kMaxGathered) {
    const auto equals = [&](float x, int) -> uint64_t { return x == value; };
    row.sum_runs(value, equals);
    return row.find_in_order(n, equals);
  }
  for (int i = threadIdx.x; i < list.count; i += kThreads) {
    if (list.logits[i] != value) continue;
    uint64_t before = 0;
    for (int j = 0; j < list.count; ++j)
      before += list.logits[j] == value && list.ids[j] < list.ids[i];
    if (before == n) return list.ids[i];
  }
  return kNoToken;
}

// The place of this thread's token when a list of up to kMaxSorted is sorted by falling logits and
// rising ids, and when it is sorted by ids. Other threads get their own number. Starts with a
// barrier.
struct Places {
  int by_logit, by_id;
};
__device__ __forceinline__ Places sort_list(TokenList& list) {
  const auto index = static_cast<int>(threadIdx.x);
  const int count = list.count;
  if (index >= count && index < (count + 3) / 4 * 4)
    list.logits[index] = -INFINITY, list.ids[index] = std::numeric_limits<int>::max();
  __syncthreads();
  if (index >= count) return {index, index};
  const float x = list.logits[index];
  const int id = list.ids[index];
  Places places = {0, 0};
  const auto compare = [&](float other, int other_id) {
    places.by_logit += other > x || (other == x && other_id < id);
    places.by_id += other_id < id;
  };
  for (int i = 0; i < count; i += 4) {
    const float4 xs = *reinterpret_cast<const float4*>(&list.logits[i]);
    const int4 ids = *reinterpret_cast<const int4*>(&list.ids[i]);
    compare(xs.x, ids.x), compare(xs.y, ids.y), compare(xs.z, ids.z), compare(xs.w, ids.w);
  }
  return places;
}

// A kernel of one CTA a row.
template <class Params>
void launch_rows(const char* name, void (*kernel)(Params), const Params& p, CudaStream stream) {
  const size_t bytes = sizeof(SharedStorage) + size_t{2 * kWarps} *
                                                   static_cast<size_t>(slot_chunks(p.vocab_size)) *
                                                   sizeof(float4);
  allow_shared_bytes(name, kernel, bytes);
  launch(name, kernel,
         {.grid = dim3(static_cast<unsigned>(p.num_rows)),
          .cta = dim3(kThreads),
          .shared_bytes = bytes},
         stream, p);
}

}  // namespace braid::kernels::sampling
