#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "base/bf16.h"
#include "base/cuda_fwd.h"
#include "quant/weight_matrix.h"

namespace braid::kernels {

// The MoE layer with LoRA inside on FP8 128x128 block-scale, BF16 or NVFP4 weights, for sm_90a.
// Four kernels: moe_routing (choose experts, sort, quantise x), gate_up (GEMM, SwiGLU, quantise,
// shrink of down), down (GEMM), sum (of a token's pairs, and the norm behind the layer where it is
// asked for); batches in which memory does not bind have kernels of their own (large_batch.h), with
// the same bits. docs/kernels/moe.md has the pictures.
//
//   g = q(x) gate_e^T + L(x),  u = q(x) up_e^T + L(x),  h = silu(g) * u
//   y[t] = sum_k w[t, k] * (q(h) down_e^T + L(h))
//
// With FP8 weights q rounds to e4m3 with a scale for each 128 elements of x and each 64 of h; with
// BF16 and NVFP4 weights, which are multiplied exactly, it rounds to BF16. L is the LoRA delta of
// the token's adapter; it reads the BF16 x and h and enters in float before any rounding.
//
// T tokens, K top_k, E routed experts (a shared expert is number E, with every token), H
// hidden_size, I moe_intermediate_size, S adapter slots. Every result has the same bits from run to
// run and whatever else is in the batch.
struct MoeSizes {
  int32_t hidden_size = 0;                                  // H, multiple of 128 up to 8192
  int32_t moe_intermediate_size = 0;                        // I, the same
  int32_t num_experts = 0;                                  // E in [1, 512]
  int32_t num_shared_experts = 0;                           // 0 or 1, as wide as a routed one
  int32_t top_k = 0;                                        // K in [1, 16]
  WeightFormat weight_format = WeightFormat::kFp8Block128;  // or kBf16 or kNvfp4

  constexpr int32_t all_experts() const { return num_experts + num_shared_experts; }
  constexpr int32_t pairs_per_token() const { return top_k + num_shared_experts; }
};

// Weights as the kernels stream them, made by pack_expert (pack.h): 128 rows at a time, as layout.h
// has them, in the order of shared memory.
struct MoeWeights {
  const uint8_t* gate_up = nullptr;  // [E + shared, I / 64, weight_rows_bytes(format, H)]
  const uint8_t* down = nullptr;     // [E + shared, H / 128, weight_rows_bytes(format, I)]
};

// The factors of one adapter on one layer, packed by pack_moe_adapter (pack.h) in the order in
// which tensor cores read them. Ranks are the adapter's own, rounded up to a multiple of 8 with
// zeros. Expert e's part lies e * stride bytes on; a stride of 0 means all experts share it.
struct MoeAdapterSlot {
  const uint8_t* shrink_gate_up = nullptr;  // A of gate above A of up; one A where one_a is set
  const uint8_t* expand_gate_up = nullptr;  // B of gate and up, rows interleaved as the weights'
  const uint8_t* shrink_down = nullptr;
  const uint8_t* expand_down = nullptr;
  int64_t shrink_gate_up_stride = 0;
  int64_t expand_gate_up_stride = 0;
  int64_t shrink_down_stride = 0;
  int64_t expand_down_stride = 0;
  int32_t rank_gate_up = 0;  // multiple of 8 up to 256; 0: not adapted
  int32_t rank_down = 0;     // the same
  int32_t one_a = 0;         // 1: gate and up have the same A, stored once
  float scaling_gate = 0.0f;
  float scaling_up = 0.0f;
  float scaling_down = 0.0f;
};

enum class RouterScoring : int32_t {
  kSoftmax,  // weights are softmax of the logits
  kSigmoid,  // weights are sigmoid of the logits; `bias` counts for the choice only
};

// A tile of tokens that go through one expert together.
struct alignas(16) MoeTokenTile {
  int32_t expert;
  int32_t first_row;  // multiple of 8; its tokens are rows[first_row ..]
  int32_t num_tokens;
  int32_t num_runs;  // of a large batch; otherwise 0 where no token has an adapter
};

// A token of a tile, in a batch with adapters. Neighbours of one adapter are a run.
struct alignas(16) MoeRow {
  int32_t token;
  int32_t slot;
  int32_t u_row;
  int32_t num_shrinks;  // that make its u: several where experts share A
};

// Up to 64 rows of A times the tokens of one run, or, where experts share A, of one adapter; over
// all of H or one part of it.
struct alignas(16) MoeShrinkItem {
  const uint8_t* factor;  // of the slab
  int32_t first_row;      // in token_of_row, and in u
  int32_t num_tokens;
  int32_t slab;  // rows [64 * slab, 64 * slab + 64) of A
  int32_t rank;
  int32_t one_a;
  int32_t ready_index;
  int32_t first_part;
  int32_t num_parts;
  float scaling_gate;
  float scaling_up;
};

// Where the adapters' part of a layer is computed.
enum class MoeLoraPlan : int32_t {
  kFused,      // inside gate_up and down
  kTwoStream,  // by kernels of its own, on a side stream beside the GEMMs; up to 256 tokens
  kSerial,     // by the same kernels, after the GEMMs
};

// Work of the LoRA kernels (moe_lora.h): the tokens of a run; or, where experts share A, neighbours
// of one adapter among all tokens, for u alone.
struct alignas(16) MoeLoraRun {
  int32_t slot;
  int32_t expert;
  int32_t first_row;  // in token_of_row and of u: below R of a run
  int32_t num_tokens;
};

inline constexpr int32_t kListedUnit = 1 << 16;

struct alignas(16) MoeCounts {
  int32_t num_tiles;  // the first three are read at once
  int32_t num_other_tiles;
  int32_t num_shrink_items;  // or runs for the LoRA kernels; this one and the following are zero
                             // between layers
  int32_t next_gate_up;      // units that CTAs have taken beyond their first
  int32_t next_down;
  int32_t arrived;  // CTAs of the routing kernel at its barrier
  // Of a small batch: tiles listed, and kListedUnit times how many there will be, plus one.
  int32_t listed;
  int32_t gate_up_done;  // warps of gate_up that have nothing more to do
};

// Device memory between the kernels. Rows are pairs sorted by (expert, adapter), each tile
// starting at a multiple of 8; R rows at most. Filled by moe_workspace().
struct MoeWorkspace {
  MoeCounts* counts = nullptr;
  MoeTokenTile* tiles = nullptr;
  MoeTokenTile* guessed_tiles = nullptr;  // [num_guessed_experts], first tile or one of no tokens
  MoeTokenTile* other_tiles = nullptr;    // tiles that are not among these
  MoeRow* rows = nullptr;                 // [R]
  MoeShrinkItem* shrink_items = nullptr;  // [max_shrink_items], of adapters whose experts share A;
                                          // of a large batch all
  int32_t max_shrink_items = 0;
  int32_t* run_ready = nullptr;  // [R + S], by a run's first row or, where experts share A, slot;
                                 // zero between layers
  // [pairs], zero between layers: of the tile whose first row is 8 i, how many warps of gate_up
  // have stored their part of its h and v; of a large batch, of rows 8 i to 8 i + 31 of a tile,
  // whether v is there.
  int32_t* h_ready = nullptr;
  int32_t* row_of_pair = nullptr;   // [T, K + shared], -1 for kNoExpert
  float* weight_of_pair = nullptr;  // [T, K + shared]
  // [R + T]; up to R where `rows` is not used, past R the tokens sorted by adapter.
  int32_t* token_of_row = nullptr;
  int32_t* u_row_of_row = nullptr;  // [R], of LoRA plans that are not fused
  int32_t* sort_scratch = nullptr;  // for more tokens than shared memory sorts
  // Of large batches (large_batch.h): counts, [kLargeChunks, E + shared], and a tile's runs from
  // its first row on.
  int32_t* key_counts = nullptr;
  struct MoeLargeRun* large_runs = nullptr;
  // q(x) by rows, as shared memory holds it; of a large batch by tokens (large_lora.cuh).
  uint8_t* x_image = nullptr;
  uint8_t* h_image = nullptr;  // the same of h
  float* u = nullptr;          // [rank steps, R + T, kURowFloats], parts of x A^T, scaled
  float* v = nullptr;          // [rank steps, R, v_row_floats(I)], parts of h A^T, scaled
  Bf16* pair_out = nullptr;    // [R, H]
  // Of LoRA plans that are not fused, instead of shrink_items, u and v.
  MoeLoraRun* lora_runs = nullptr;
  float* gate_up = nullptr;        // [R, 2, I], gate and up without their deltas
  float* gate_up_delta = nullptr;  // [R, 2, I], undefined in rows without an adapter
  float* down_delta = nullptr;     // [R, H], the same; in the place of these two
  Bf16* h = nullptr;               // [R, I]
  float* lora_u = nullptr;         // [rank steps, R + T, 2, kLoraParts, 16], parts of x A^T, scaled
  float* lora_v = nullptr;         // [rank steps, R, 16], h A^T, scaled
  int32_t max_rows = 0;            // R
  int32_t max_pairs = 0;
  int32_t num_u_rows = 0;  // R + T
};

// The norm that follows a layer, as RmsNormBf16Params (elementwise_bf16.h) with y as its delta.
struct MoeNorm {
  Bf16* residual = nullptr;      // [T, H] += y; null: no norm
  const Bf16* weight = nullptr;  // [H], not from the previous kernel
  Bf16* y = nullptr;             // [T, H]; every element is written
  int32_t mean_size = 0;         // in [1, H]
  float eps = 0.0f;
};

struct MoeLayerParams {
  MoeSizes sizes;
  int32_t num_tokens = 0;   // T; 0 launches nothing
  const Bf16* x = nullptr;  // [T, H]
  Bf16* y = nullptr;        // [T, H]; every element is written. Null where only the norm is wanted
  MoeNorm norm;

  // Router.
  const float* logits = nullptr;         // [T, E]
  const float* bias = nullptr;           // [E] or null, kSigmoid only
  const float* shared_weight = nullptr;  // [T] or null for 1: weight of the shared expert
  const int32_t* replay_ids = nullptr;   // [T, K] or null: experts to take instead of choosing,
                                         // kNoExpert for none; distinct in a row
  int32_t* topk_ids = nullptr;           // [T, K], written; ties go to the lowest id
  RouterScoring scoring = RouterScoring::kSoftmax;
  int32_t num_expert_groups = 1;  // divides E, at most 32; topk_groups of them stay in the choice,
  int32_t topk_groups = 1;        // those with the largest sum of their two best
  bool norm_topk_prob = true;
  float routed_scaling = 1.0f;

  // Read before the previous kernel of the stream has finished: these must not come from it.
  MoeWeights weights;
  const MoeAdapterSlot* adapters = nullptr;        // [S] on the device; null: base model alone
  const int32_t* adapter_slot_of_token = nullptr;  // [T], in [0, S) or kNoAdapter
  int32_t num_slots = 0;                           // S

  MoeWorkspace workspace;
};

// Experts of a guess at most.
inline constexpr int32_t kMaxGuessedExperts = 64;

// How a layer is run: a value computed once for a number of tokens.
struct MoePlan {
  int32_t tile_tokens = 8;  // tokens of a tile at most: 8, 16, 32 or, without
                            // adapters, 64
  int32_t num_sms = 0;
  // Every CTA of the GEMMs chooses the experts for itself, and there is no routing kernel.
  bool small_batch = false;
  // The first experts, whose gate_up is read into shared memory before anyone knows whether they
  // are hit: memory would idle while experts are chosen, and a wrong guess costs nothing but its
  // bytes.
  int32_t num_guessed_experts = 0;
  // The experts behind them, whose gate_up is brought into L2 meanwhile.
  int32_t num_prefetched_experts = 0;
  // Of no effect on a batch without adapters.
  MoeLoraPlan lora_plan = MoeLoraPlan::kFused;
  // CTAs that the GEMMs, which would fill the device, leave out so that the side stream finds room.
  int32_t num_side_ctas = 0;
  // Kernels for batches in which memory does not bind (large_batch.h); tile_tokens says nothing.
  bool large_batch = false;
};

// Bytes and layout of the workspace for up to max_tokens tokens, num_slots adapters of ranks up to
// max_rank, for batches of this LoRA plan or without adapters. `base` is 1024-byte aligned; null
// only counts. Layouts of different LoRA plans may lie in the same memory: what is kept from one
// layer to the next has one place in all of them.
MoeWorkspace moe_workspace(const MoeSizes& sizes, int32_t max_tokens, int32_t num_slots,
                           int32_t max_rank, void* base, size_t* bytes,
                           MoeLoraPlan lora_plan = MoeLoraPlan::kFused);

// Without lora_plan the fastest for this shape is taken, by measurement. More tokens than the
// two-stream plan is for are run by the serial one.
MoePlan plan_moe_layer(const MoeSizes& sizes, int32_t num_tokens, bool with_adapters,
                       int32_t num_sms, std::optional<MoeLoraPlan> lora_plan = {});

// What num_guessed_experts of the plan may be: each tile of theirs is that of one CTA.
int32_t most_guessed_experts(const MoeSizes& sizes, const MoePlan& plan, bool with_adapters);

// "tile 16, 33 experts guessed, 7 prefetched": for people, without the LoRA plan.
std::string to_string(const MoePlan& plan);
// "fused", "two-stream", "serial".
std::string to_string(MoeLoraPlan plan);

// Whether the adapters' part has kernels of its own.
constexpr bool lora_is_apart(const MoeLayerParams& p, const MoePlan& plan) {
  return p.adapters != nullptr && plan.lora_plan != MoeLoraPlan::kFused;
}

// Empty when the kernels can run p, otherwise one sentence naming the field and its value.
std::string why_unsupported(const MoeLayerParams& p);
// The same of a plan that was made for another batch.
std::string why_unsupported(const MoeLayerParams& p, const MoePlan& plan);

// Enqueues the layer on stream. Never synchronises, never allocates: safe under graph capture. The
// workspace is zeroed once before its first use. `side` is for the two-stream plan, which forks
// from `stream` and joins it again. Throws InternalError if why_unsupported is not empty or a side
// stream is missing, CudaError if a launch is refused.
void launch_moe_layer(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream,
                      const SideStream& side = {});

// Its kernels, in this order; a small batch has no routing. Where the adapters' part has kernels of
// its own (moe_lora.h), gate_up leaves its sums for them and sum adds what they leave.
void launch_moe_routing(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);
void launch_moe_gate_up(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);
void launch_moe_down(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);
void launch_moe_sum(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);

}  // namespace braid::kernels
