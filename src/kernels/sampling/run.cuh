#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/common/async_copy.cuh"
#include "kernels/sampling/exponential.cuh"
#include "kernels/sampling/sampling.h"

// A run of a row: the ids that one warp looks at, in its part of shared memory. Of each run a
// record is kept, so that who looks at a row again passes over the runs in which nothing can
// matter.
namespace braid::kernels::sampling {

constexpr int kRuns = 256;  // of a row
constexpr int kStep = 128;  // ids a warp takes at once, 4 a lane
constexpr int kNoToken = -1;

// Steps of a row go to the runs in order, as evenly as they can.
__host__ __device__ constexpr int num_steps(int vocab_size) {
  return (vocab_size + kStep - 1) / kStep;
}
__host__ __device__ constexpr int first_step(int run, int vocab_size) {
  return run * num_steps(vocab_size) / kRuns;
}
// 16-byte chunks of a run, at most.
__host__ __device__ constexpr int slot_chunks(int vocab_size) {
  return (num_steps(vocab_size) + kRuns - 1) / kRuns * (kStep / 4);
}

template <class T, class Op>
__device__ __forceinline__ T warp_all(T value, Op&& op) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) value = op(value, __shfl_xor_sync(~0u, value, step));
  return value;
}
template <class T>
__device__ __forceinline__ T larger(T a, T b) {
  return a > b ? a : b;
}
template <class T>
__device__ __forceinline__ T plus(T a, T b) {
  return a + b;
}

// Rises with the number; equal zeros are equal.
__device__ __forceinline__ uint32_t ordered(float x) {
  const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f));
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}
__device__ __forceinline__ float from_ordered(uint32_t bits) {
  return __uint_as_float((bits & 0x80000000u) != 0 ? bits ^ 0x80000000u : ~bits);
}

// Larger logits have larger keys, and of equals the lower id.
__device__ __forceinline__ uint64_t key_of(float x, int id) {
  return (uint64_t{ordered(x)} << 32) | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ float logit_of_key(uint64_t key) {
  return from_ordered(static_cast<uint32_t>(key >> 32));
}
__device__ __forceinline__ int id_of_key(uint64_t key) {
  return static_cast<int>(~static_cast<uint32_t>(key));
}

__device__ __forceinline__ int lane_index() { return threadIdx.x % 32; }
__device__ __forceinline__ int warp_index() { return threadIdx.x / 32; }

// A warp's run. All lanes call everything together. With two slots the next one can be on its way.
template <int kSlots>
class Run {
 public:
  // `buffer`: kSlots * slot_chunks(vocab_size) elements of the warp.
  __device__ Run(float4* buffer, int vocab_size) : buffer_(buffer), vocab_size_(vocab_size) {}

  __device__ int vocab_size() const { return vocab_size_; }
  __device__ int first_id() const { return first_step_ * kStep; }
  __device__ int end_id() const { return end_step_ * kStep; }  // may be past the vocabulary
  __device__ float& logit(int id) { return reinterpret_cast<float*>(chunks())[id - first_id()]; }
  __device__ bool has(int id) const { return id >= first_id() && id < end_id(); }

  // Starts to copy the run of a row of logits that the next wait() is for. With one slot the run
  // before it is over.
  __device__ void start(const float* row, int run) {
    __syncwarp();  // the slot is not looked at any more
    next_ = run;
    const int begin = first_step(run, vocab_size_), end = first_step(run + 1, vocab_size_);
    float4* const slot = buffer_ + (slot_ + 1) % kSlots * slot_chunks(vocab_size_) + lane_index();
#pragma unroll 4
    for (int step = begin; step < end; ++step) {
      const int id = step * kStep + 4 * lane_index();
      if (id < vocab_size_)
        async_copy_16(shared_address(slot + (step - begin) * 32), row + id, true);
    }
    async_copy_commit();
  }
  __device__ void wait() {
    slot_ = (slot_ + 1) % kSlots;
    first_step_ = first_step(next_, vocab_size_);
    end_step_ = first_step(next_ + 1, vocab_size_);
    async_copy_wait<0>();
    __syncwarp();
    // Behind the vocabulary there are tokens that nobody can pick.
    for (int id = vocab_size_ + lane_index(); id < end_id(); id += 32) logit(id) = -INFINITY;
    __syncwarp();
  }

  // f(four logits, id of the first) for the ids of this lane, rising.
  template <class F>
  __device__ __forceinline__ void for_each_step(F&& f) const {
    const float4* const chunks = this->chunks();
#pragma unroll 1
    for (int step = first_step_; step < end_step_; ++step) {
      const float4 v = chunks[(step - first_step_) * 32 + lane_index()];
      f({v.x, v.y, v.z, v.w}, step * kStep + 4 * lane_index());
    }
  }
  // f(logit, id) likewise.
  template <class F>
  __device__ __forceinline__ void for_each(F&& f) const {
    for_each_step([&](const float(&x)[4], int id) {
      f(x[0], id), f(x[1], id + 1), f(x[2], id + 2), f(x[3], id + 3);
    });
  }
  // Sets the logit of each id of this lane to f(logit, id).
  template <class F>
  __device__ __forceinline__ void change(F&& f) {
    float4* const chunks = this->chunks();
    for (int step = first_step_; step < end_step_; ++step) {
      float4& v = chunks[(step - first_step_) * 32 + lane_index()];
      const int id = step * kStep + 4 * lane_index();
      v = make_float4(f(v.x, id), f(v.y, id + 1), f(v.z, id + 2), f(v.w, id + 3));
    }
    __syncwarp();
  }

 private:
  __device__ float4* chunks() const { return buffer_ + slot_ * slot_chunks(vocab_size_); }

  float4* const buffer_;
  const int vocab_size_;
  int slot_ = 0, next_ = 0, first_step_ = 0, end_step_ = 0;
};

// The largest logit of a run.
struct Best {
  uint64_t key;  // with its lowest id, or kNoToken where all are -inf
  bool has_nan;
};
template <class Run>
__device__ __forceinline__ Best best_of(const Run& run) {
  float largest = -INFINITY;
  int token = kNoToken;
  bool has_nan = false;
  run.for_each([&](float x, int id) {
    has_nan |= x != x;
    if (x > largest) largest = x, token = id;
  });
  return {warp_all(key_of(largest, token), larger<uint64_t>), __any_sync(~0u, has_nan) != 0};
}

// Sum of exp((x - largest) / temperature). In the order of lanes.
template <class Run>
__device__ __forceinline__ double sum_of_weights(const Run& run, float largest, float temperature) {
  const double inverse = 1.0 / temperature;
  double sum = 0;
  run.for_each(
      [&](float x, int) { sum += exp_of_negative((static_cast<double>(x) - largest) * inverse); });
  return warp_all(sum, plus<double>);
}

}  // namespace braid::kernels::sampling
