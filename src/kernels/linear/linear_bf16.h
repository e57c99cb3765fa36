#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bf16.h"
#include "base/cuda_fwd.h"
#include "kernels/lora/adapter_order.h"
#include "quant/weight_matrix.h"

namespace braid::kernels {

// Linear layers on the device with BF16 activations and LoRA inside, for sm_90a: what linear.h has
// in float for the CPU. docs/kernels/linear.md has the pictures.
//
//   y[t] = q(x[t]) W^T + s * (x[t] A^T) B^T        A, B, s of the token's adapter, if it has one
//
// q rounds to e4m3 with a scale for each 128 columns where W is FP8, and is the identity where W is
// BF16. A reads the unquantised x; s * (x A^T) is summed in float and rounded to BF16; the delta is
// summed in float and added in float, before y is rounded.
//
// W may be several matrices one above the other (q, k and v; gate and up): slices, each with
// factors and scaling of its own.
//
// T tokens, S adapter slots. A token's result has the same bits whatever T is and whatever else is
// in the batch: how its sums are cut is a function of the layer's shape and format.

inline constexpr int32_t kMaxLinearSlices = 3;

struct LinearShape {
  WeightFormat format = WeightFormat::kFp8Block128;  // or kBf16
  int32_t in = 0;                                    // multiple of 16
  int32_t num_slices = 1;                            // 1 to kMaxLinearSlices
  // Outputs of each slice: multiples of 64, the last one of 8.
  int32_t slice_out[kMaxLinearSlices] = {};

  constexpr int32_t out() const { return slice_out[0] + slice_out[1] + slice_out[2]; }
};

// The factors of one adapter on one layer, made by pack_linear_adapter (pack.h). Its pointers are
// 16-byte aligned.
struct LinearAdapterSlot {
  const uint8_t* shrink = nullptr;               // A of all slices, one above the other
  const uint8_t* expand[kMaxLinearSlices] = {};  // B of each slice
  int32_t rank[kMaxLinearSlices] = {};           // multiple of 8 up to 256; 0: not adapted
  float scaling[kMaxLinearSlices] = {};          // lora_scaling
};

// Device memory that layers use in turn. Filled by linear_workspace(). Zeroed once before its
// first use.
struct LinearWorkspace {
  int32_t* ctas_done = nullptr;  // [1], zero between layers
  uint32_t* launches = nullptr;  // [1], of layers with adapters; the next one's tag is one more
  uint8_t* x_image = nullptr;    // quantised x of many tokens, as shared memory holds it
  // [max_tokens, max_total_rank / 2]: s * x A^T by rows of the order, as BF16, two ranks in a
  // tagged word (common/tagged_word.cuh).
  uint64_t* u = nullptr;
  // [max_total_rank / 8, max_tokens, 8]: the same of large batches, as BF16.
  Bf16* u_octets = nullptr;
  int32_t max_tokens = 0;
  int32_t max_in = 0;
  int32_t max_total_rank = 0;
};

// Bytes and layout of a workspace for up to max_tokens tokens, layers of up to max_in columns
// (of FP8 layers; 0 if there are none), and adapters whose ranks on all slices of a layer, each
// rounded up to 8, come to max_total_rank at most (0 if there are no adapters). `base` is 1024-byte
// aligned; null only counts.
LinearWorkspace linear_workspace(int32_t max_tokens, int32_t max_in, int32_t max_total_rank,
                                 void* base, size_t* bytes);

struct LinearBf16Params {
  const Bf16* x = nullptr;  // [T, in], 16-byte aligned, rows x_stride apart
  int64_t x_stride = 0;     // elements, multiple of 8, >= in; what lies past `in` is not used
  LinearShape shape;
  const uint8_t* weights = nullptr;  // packed by pack_linear (pack.h), 128-byte aligned
  // [T, out], rows y_stride apart; of each row the `out` elements are written and nothing else.
  // One of the two is given, 16-byte aligned. y aliases nothing.
  Bf16* y = nullptr;
  float* y_float = nullptr;
  int64_t y_stride = 0;    // elements, multiple of 8, >= out
  int32_t num_tokens = 0;  // T; 0 launches nothing

  const LinearAdapterSlot* adapters = nullptr;  // [S] on the device; null: base model alone
  AdapterOrder order;                           // of these T tokens; where adapters is given

  LinearWorkspace workspace;  // of use where there are adapters, or x is quantised apart
};

// How a layer is run: a value computed once for a number of tokens. None of it changes a bit of y.
struct LinearPlan {
  // The kernels of large batches, FP8 weights only. What follows does not concern them.
  bool large_batch = false;
  int32_t tile_tokens = 8;  // tokens of a CTA at most: 8, 16, 32 or 64
  // A cluster of CTAs shares the columns of W, each with a part of its own. Otherwise a CTA takes
  // the parts in turn.
  bool in_cluster = false;
};

// The parts into which sums over the columns of W are cut: a function of the shape.
int32_t linear_parts(const LinearShape& shape);

// The fastest plan by measurement.
LinearPlan plan_linear(const LinearShape& shape, int32_t num_tokens);

// "tile 16, 4 parts in a cluster", "large batch, 4 parts": for people.
std::string to_string(const LinearShape& shape, const LinearPlan& plan);

// Empty when the kernels can run p, otherwise one sentence naming the field and its value.
std::string why_unsupported(const LinearShape& shape);
std::string why_unsupported(const LinearBf16Params& p);
std::string why_unsupported(const LinearBf16Params& p, const LinearPlan& plan);

// Enqueues on stream: one kernel, behind one that quantises x where tiles of an FP8 layer have 32
// tokens and more, and one that multiplies with A where a batch of more than 256 tokens has
// adapters. Never synchronises, never allocates: safe under graph capture. Weights, adapters and
// order are read before the previous kernel of the stream has finished: they must not come from it.
// Throws InternalError if why_unsupported is not empty, CudaError if a launch is refused.
void launch_linear(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream);

}  // namespace braid::kernels
