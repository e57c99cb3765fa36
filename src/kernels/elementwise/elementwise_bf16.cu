// Norm, embedding and SwiGLU's middle, bound by memory or by the launch.

#include "base/ids.h"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/mma.cuh"
#include "kernels/elementwise/enqueue.h"
#include "kernels/elementwise/norm_row.cuh"

namespace braid::kernels {
namespace {

struct Floats8 {
  float x[8];
};

__device__ __forceinline__ Floats8 to_floats(const uint4& eight) {
  const uint32_t two[4] = {eight.x, eight.y, eight.z, eight.w};
  Floats8 f;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    f.x[2 * i] = __uint_as_float(two[i] << 16);
    f.x[2 * i + 1] = __uint_as_float(two[i] & 0xffff0000u);
  }
  return f;
}

__device__ __forceinline__ uint4 to_bf16(const Floats8& f) {
  return make_uint4(pack_bf16(f.x[0], f.x[1]), pack_bf16(f.x[2], f.x[3]), pack_bf16(f.x[4], f.x[5]),
                    pack_bf16(f.x[6], f.x[7]));
}

__device__ __forceinline__ uint4* chunks_of_row(Bf16* rows, int64_t row, int64_t stride) {
  return reinterpret_cast<uint4*>(rows + row * stride);
}
__device__ __forceinline__ const uint4* chunks_of_row(const Bf16* rows, int64_t row,
                                                      int64_t stride) {
  return reinterpret_cast<const uint4*>(rows + row * stride);
}

// One token a CTA.
template <int kChunks>
__global__ __launch_bounds__(kMaxNormThreads) void rms_norm_kernel(
    const __grid_constant__ RmsNormBf16Params p) {
  const int hidden = p.hidden_size, fours = hidden / 4;
  uint2* const residual = fours_of_row(p.residual, blockIdx.x, hidden);
  NormRow<kChunks> row;
  row.load_weight(p.weight, fours);
  let_next_kernel_start();
  wait_for_previous_kernel();
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (!row.has(c, fours)) continue;
    const int i = row.at(c);
    if (p.delta == nullptr) {
      row.x[c] = floats_of(__ldcg(residual + i));
    } else {
      row.add(residual, c, __ldcg(fours_of_row(p.delta, blockIdx.x, hidden) + i));
    }
  }
  row.store(fours_of_row(p.y, blockIdx.x, hidden), fours, p.eps,
            p.mean_size > 0 ? p.mean_size : hidden);
}

constexpr int kThreads = 256;

// One token a CTA.
__global__ __launch_bounds__(kThreads) void embedding_kernel(
    const __grid_constant__ EmbeddingBf16Params p) {
  let_next_kernel_start();
  wait_for_previous_kernel();
  const int token_id = __ldcg(p.token_ids + blockIdx.x), chunks = p.hidden_size / 8;
  // Past L1: rows may have been written since this kernel began.
  const uint4* const row = chunks_of_row(p.table, token_id, p.hidden_size);
  uint4* const out = chunks_of_row(p.out, blockIdx.x, p.hidden_size);
  const int slot = p.adapters != nullptr ? p.adapter_slot_of_token[blockIdx.x] : kNoAdapter;
  const int rank = slot != kNoAdapter ? p.adapters[slot].rank : 0;
  if (rank == 0) {
    for (int i = threadIdx.x; i < chunks; i += kThreads) out[i] = __ldcg(row + i);
    return;
  }

  // --- scaling * a, shared by all columns ---
  const EmbeddingAdapterSlot adapter = p.adapters[slot];
  __shared__ float scaled_a[kMaxEmbeddingRank];
  for (int r = threadIdx.x; r < rank; r += kThreads) {
    const Bf16 a = adapter.a_t[int64_t{token_id} * rank + r];
    scaled_a[r] = adapter.scaling * __uint_as_float(uint32_t{a.bits} << 16);
  }
  __syncthreads();

  // --- its product with B, in the order of ranks ---
  for (int i = threadIdx.x; i < chunks; i += kThreads) {
    Floats8 delta = {};
    for (int r = 0; r < rank; ++r) {
      const Floats8 b = to_floats(__ldg(chunks_of_row(adapter.b_t, r, p.hidden_size) + i));
#pragma unroll
      for (int e = 0; e < 8; ++e) delta.x[e] = fmaf(scaled_a[r], b.x[e], delta.x[e]);
    }
    Floats8 x = to_floats(__ldcg(row + i));
#pragma unroll
    for (int e = 0; e < 8; ++e) x.x[e] += delta.x[e];
    out[i] = to_bf16(x);
  }
}

// 8 elements a thread.
__global__ __launch_bounds__(kThreads) void silu_mul_kernel(
    const __grid_constant__ SiluMulBf16Params p) {
  const int chunks = p.intermediate_size / 8;
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t token = thread / chunks, i = thread % chunks;
  let_next_kernel_start();
  wait_for_previous_kernel();
  if (token >= p.num_tokens) return;
  Floats8 gate = to_floats(__ldcg(chunks_of_row(p.gate, token, p.gate_stride) + i));
  const Floats8 up = to_floats(__ldcg(chunks_of_row(p.up, token, p.up_stride) + i));
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    // exp(-gate) may overflow: the quotient is then 0, as it should be.
    gate.x[e] = __fdividef(gate.x[e], 1.0f + __expf(-gate.x[e])) * up.x[e];
  }
  chunks_of_row(p.z, token, p.intermediate_size)[i] = to_bf16(gate);
}

template <int kChunks>
void launch_norm(const RmsNormBf16Params& p, CudaStream stream) {
  launch("rms_norm", rms_norm_kernel<kChunks>,
         {.grid = dim3(static_cast<unsigned>(p.num_tokens)),
          .cta = dim3(static_cast<unsigned>(norm_shape(p.hidden_size).threads))},
         stream, p);
}

}  // namespace

namespace internal {

void enqueue_rms_norm(const RmsNormBf16Params& p, CudaStream stream) {
  static_assert(norm_shape(kMaxNormHidden).chunks == 8);
  switch (norm_shape(p.hidden_size).chunks) {
    case 1:
      return launch_norm<1>(p, stream);
    case 2:
      return launch_norm<2>(p, stream);
    case 4:
      return launch_norm<4>(p, stream);
    default:
      return launch_norm<8>(p, stream);
  }
}

void enqueue_embedding(const EmbeddingBf16Params& p, CudaStream stream) {
  launch("embedding", embedding_kernel,
         {.grid = dim3(static_cast<unsigned>(p.num_tokens)), .cta = dim3(kThreads)}, stream, p);
}

void enqueue_silu_mul(const SiluMulBf16Params& p, CudaStream stream) {
  const int64_t threads = int64_t{p.num_tokens} * (p.intermediate_size / 8);
  launch("silu_mul", silu_mul_kernel,
         {.grid = dim3(static_cast<unsigned>((threads + kThreads - 1) / kThreads)),
          .cta = dim3(kThreads)},
         stream, p);
}

}  // namespace internal
}  // namespace braid::kernels
