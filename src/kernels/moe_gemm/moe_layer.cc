#include "kernels/moe_gemm/moe_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "base/check.h"
#include "kernels/common/fork_join.h"
#include "kernels/moe_gemm/format_gemm.h"
#include "kernels/moe_gemm/large_batch.h"
#include "kernels/moe_gemm/layout.h"
#include "kernels/moe_gemm/pack.h"
#include "kernels/moe_lora/moe_lora.h"
#include "kernels/moe_routing/routing_scratch.h"

namespace braid::kernels {

MoeWorkspace moe_workspace(const MoeSizes& sizes, int32_t max_tokens, int32_t num_slots,
                           int32_t max_rank, void* base, size_t* bytes, MoeLoraPlan lora_plan) {
  const int64_t tokens = max_tokens, pairs = tokens * sizes.pairs_per_token();
  const int64_t hidden = sizes.hidden_size, width = sizes.moe_intermediate_size;
  MoeWorkspace w;
  // Each expert's rows begin at a multiple of 8.
  const int64_t rows = (pairs + 7 * std::min<int64_t>(pairs, sizes.all_experts()) + 15) / 8 * 8;
  w.max_rows = static_cast<int32_t>(rows);
  w.max_pairs = static_cast<int32_t>(pairs);
  w.num_u_rows = static_cast<int32_t>(rows + tokens);
  size_t at = 0;
  const auto take = [&](auto*& pointer, int64_t count) {
    using T = std::remove_reference_t<decltype(*pointer)>;
    pointer = base == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<std::byte*>(base) + at);
    at += (static_cast<size_t>(count) * sizeof(T) + 1023) / 1024 * 1024;
  };
  take(w.counts, 1);
  take(w.run_ready, rows + num_slots);
  take(w.h_ready, pairs);
  const int64_t tiles = std::min(pairs, pairs / 8 + sizes.all_experts());
  take(w.tiles, tiles);
  take(w.guessed_tiles, kMaxGuessedExperts);
  take(w.other_tiles, tiles);
  take(w.rows, rows);
  take(w.row_of_pair, pairs);
  take(w.weight_of_pair, pairs);
  take(w.token_of_row, rows + tokens);
  take(w.u_row_of_row, rows);
  take(w.sort_scratch, routing_scratch_ints(static_cast<int32_t>(pairs), max_tokens, w.max_rows,
                                            sizes.all_experts(), num_slots));
  take(w.key_counts, int64_t{kLargeChunks} * sizes.all_experts());
  take(w.x_image, rows * image_row_bytes(sizes.weight_format, sizes.hidden_size));
  take(w.h_image, rows * image_row_bytes(sizes.weight_format, sizes.moe_intermediate_size));
  take(w.pair_out, rows * hidden);
  const int64_t steps = rank_steps(max_rank), slabs = (2 * max_rank + 63) / 64;
  if (lora_plan == MoeLoraPlan::kFused) {
    take(w.large_runs, rows);
    w.max_shrink_items = static_cast<int32_t>((pairs + tokens) * slabs * kShrinkParts);
    take(w.shrink_items, w.max_shrink_items);
    take(w.u, steps * (rows + tokens) * kURowFloats);
    take(w.v, steps * rows * v_row_floats(sizes.moe_intermediate_size));
  } else {
    take(w.lora_runs, pairs + tokens);
    take(w.gate_up, rows * std::max(4 * width, hidden));
    if (base != nullptr) w.gate_up_delta = w.gate_up + rows * 2 * width, w.down_delta = w.gate_up;
    take(w.h, rows * width);
    take(w.lora_u, steps * (rows + tokens) * 2 * kLoraParts * 16);
    take(w.lora_v, steps * rows * 16);
  }
  if (bytes != nullptr) *bytes = at;
  return w;
}

namespace {

// Of the fused plan: the down kernel's stage of v holds 64 bytes of each of up to 32 tokens and
// gate_up tile.
constexpr int32_t kFusedLoraWidth = 2048;

// What the GEMMs leave to the side stream, of 264 CTAs. The others read nearly as fast as all, but
// with fewer than 64 left LoRA ends after the GEMM (docs/kernels/moe.md).
constexpr int32_t kSideCtas = 96;

// Tokens up to which the two-stream plan runs: larger batches leave no gaps to fill.
constexpr int32_t kTwoStreamTokens = 256;

// Tokens beyond which the kernels of large batches run, but where the adapters' part is apart.
constexpr int32_t kLargeBatchTokens = 256;

// Where another plan than fused was faster on an H100, with one adapter or several of rank 16
// (docs/kernels/moe.md); the first row that fits counts.
struct MeasuredPlan {
  int32_t min_hidden_size;
  int32_t min_width;  // moe_intermediate_size
  int32_t max_tokens;
  MoeLoraPlan plan;
};
constexpr MeasuredPlan kMeasuredPlans[] = {
    // One token of DeepSeek-V3's shape: 157 us against 166; from two tokens on fused.
    {kSmallBatchHidden + 1, 0, 1, MoeLoraPlan::kTwoStream},
    // Wider than fused can be.
    {0, kFusedLoraWidth + 1, kTwoStreamTokens, MoeLoraPlan::kTwoStream},
    {0, kFusedLoraWidth + 1, INT32_MAX, MoeLoraPlan::kSerial},
};

MoeLoraPlan fastest_lora_plan(const MoeSizes& sizes, int32_t num_tokens) {
  if (sizes.weight_format != WeightFormat::kFp8Block128) return MoeLoraPlan::kFused;
  for (const MeasuredPlan& row : kMeasuredPlans) {
    if (sizes.hidden_size >= row.min_hidden_size && sizes.moe_intermediate_size >= row.min_width &&
        num_tokens <= row.max_tokens)
      return row.plan;
  }
  return MoeLoraPlan::kFused;
}

// Tokens of a tile at most. No expert has more tokens than the batch; a wider tile only costs
// registers and time.
int32_t tile_tokens(const MoeSizes& sizes, int32_t num_tokens, bool with_adapters,
                    bool fused_lora) {
  if (num_tokens <= 8) return 8;
  // With adapters a tile ends with several steps, which are shorter for 8 tokens. A shared expert
  // has them all, and would be read once more for each 8.
  if (sizes.weight_format == WeightFormat::kFp8Block128 && fused_lora &&
      sizes.num_shared_experts == 0 && num_tokens * sizes.top_k <= 2 * sizes.num_experts)
    return 8;
  // NVFP4's narrow tiles cost less to decode for, and few experts have more tokens.
  if (sizes.weight_format == WeightFormat::kNvfp4 &&
      num_tokens * sizes.top_k <= (fused_lora || num_tokens <= 64 ? 4 : 2) * sizes.num_experts)
    return 8;
  if (num_tokens <= 32 || (fused_lora && num_tokens <= 128)) return 16;
  // NVFP4 gains more by CTAs that find room than it loses by experts that are decoded twice.
  if (sizes.weight_format == WeightFormat::kNvfp4 && num_tokens <= 256 &&
      (fused_lora || num_tokens * sizes.top_k <= 8 * sizes.num_experts))
    return 16;
  return num_tokens <= 256 || with_adapters ? 32 : 64;
}

}  // namespace

MoePlan plan_moe_layer(const MoeSizes& sizes, int32_t num_tokens, bool with_adapters,
                       int32_t num_sms, std::optional<MoeLoraPlan> asked) {
  MoeLoraPlan lora_plan = asked.value_or(fastest_lora_plan(sizes, num_tokens));
  if (lora_plan == MoeLoraPlan::kTwoStream && num_tokens > kTwoStreamTokens)
    lora_plan = MoeLoraPlan::kSerial;
  const bool fused_lora = with_adapters && lora_plan == MoeLoraPlan::kFused;
  const bool apart = with_adapters && !fused_lora;
  const int32_t num_side_ctas =
      with_adapters && lora_plan == MoeLoraPlan::kTwoStream ? kSideCtas * num_sms / 132 : 0;
  const bool is_fp8 = sizes.weight_format == WeightFormat::kFp8Block128;
  if (is_fp8 && !apart && num_tokens > kLargeBatchTokens)
    return {.num_sms = num_sms, .lora_plan = lora_plan, .large_batch = true};
  // Choosing experts in every CTA beats being told by a kernel before for up to so many tokens.
  if (is_fp8 && !apart && num_tokens <= 4 && sizes.hidden_size <= kSmallBatchHidden)
    return {.tile_tokens = kSmallBatchTokens, .num_sms = num_sms, .small_batch = true};
  const int32_t tile = tile_tokens(sizes, num_tokens, with_adapters, fused_lora);
  MoePlan plan = {.tile_tokens = tile,
                  .num_sms = num_sms,
                  .lora_plan = lora_plan,
                  .num_side_ctas = num_side_ctas};
  // Share of experts that uniform routing hits, and what of them fits in L2 and in the time.
  const double miss =
      std::pow(1.0 - static_cast<double>(sizes.top_k) / sizes.num_experts, num_tokens);
  // Larger ones are routed by three kernels, and there is no time to guess in.
  if (num_tokens <= 256 && miss <= 0.4)
    plan.num_guessed_experts = most_guessed_experts(sizes, plan, with_adapters);
  constexpr double kPrefetchBytes = 16e6;
  const double expert_bytes = static_cast<double>(expert_gate_up_bytes(sizes));
  // Before so many tokens it only makes the lists and x wait.
  if (num_tokens > 128 && miss <= 0.5) {
    plan.num_prefetched_experts = std::min(sizes.num_experts - plan.num_guessed_experts,
                                           static_cast<int32_t>(kPrefetchBytes / expert_bytes));
  }
  return plan;
}

int32_t most_guessed_experts(const MoeSizes& sizes, const MoePlan& plan, bool with_adapters) {
  const bool fused_lora = with_adapters && plan.lora_plan == MoeLoraPlan::kFused;
  // A guess fills the small rings of four CTAs an SM, and then the shrinks wait.
  if (sizes.weight_format == WeightFormat::kNvfp4 && fused_lora) return 0;
  const int32_t num_ctas =
      plan.num_sms * gemm_ctas_per_sm(sizes.weight_format, plan.tile_tokens, fused_lora) -
      plan.num_side_ctas;
  return std::min(
      {num_ctas / (sizes.moe_intermediate_size / 64), sizes.num_experts, kMaxGuessedExperts});
}

std::string to_string(MoeLoraPlan plan) {
  switch (plan) {
    case MoeLoraPlan::kFused:
      return "fused";
    case MoeLoraPlan::kTwoStream:
      return "two-stream";
    case MoeLoraPlan::kSerial:
      return "serial";
  }
  return "";
}

std::string to_string(const MoePlan& plan) {
  if (plan.large_batch) return "large batch";
  if (plan.small_batch) return fmt::format("small batch, tile {}", plan.tile_tokens);
  std::string text = fmt::format("tile {}, {} experts guessed, {} prefetched", plan.tile_tokens,
                                 plan.num_guessed_experts, plan.num_prefetched_experts);
  if (plan.num_side_ctas > 0)
    text += fmt::format(", {} CTAs left to the side stream", plan.num_side_ctas);
  return text;
}

std::string why_unsupported(const MoeLayerParams& p) {
  const MoeSizes& s = p.sizes;
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  if (s.weight_format == WeightFormat::kF32)
    return "weight_format = f32, need fp8_block128, bf16 or nvfp4";
  // A lane of a consumer warp keeps the FP8 scales of two stages of 128 columns.
  const auto is_depth = [](int32_t n) { return n >= 128 && n <= 64 * 128 && n % 128 == 0; };
  if (!is_depth(s.hidden_size))
    return fmt::format("hidden_size = {}, need a multiple of 128 up to 8192", s.hidden_size);
  if (!is_depth(s.moe_intermediate_size)) {
    return fmt::format("moe_intermediate_size = {}, need a multiple of 128 up to 8192",
                       s.moe_intermediate_size);
  }
  if (s.num_experts < 1 || s.num_experts > 512)
    return fmt::format("num_experts = {}, need 1 to 512", s.num_experts);
  if (s.num_shared_experts < 0 || s.num_shared_experts > 1)
    return fmt::format("num_shared_experts = {}, need 0 or 1", s.num_shared_experts);
  if (s.top_k < 1 || s.top_k > std::min(16, s.num_experts)) {
    return fmt::format("top_k = {}, need 1 to 16 and at most num_experts = {}", s.top_k,
                       s.num_experts);
  }
  if (p.num_expert_groups < 1 || p.num_expert_groups > 32 ||
      s.num_experts % p.num_expert_groups != 0) {
    return fmt::format("num_expert_groups = {}, need a divisor of num_experts = {} up to 32",
                       p.num_expert_groups, s.num_experts);
  }
  if (p.topk_groups < 1 || p.topk_groups > p.num_expert_groups ||
      p.topk_groups * (s.num_experts / p.num_expert_groups) < s.top_k) {
    return fmt::format("topk_groups = {}, need 1 to num_expert_groups = {} with top_k experts",
                       p.topk_groups, p.num_expert_groups);
  }
  if (p.num_tokens == 0) return "";
  if (p.x == nullptr || p.logits == nullptr || p.topk_ids == nullptr)
    return "x, logits or topk_ids is null";
  if (p.norm.residual == nullptr) {
    if (p.y == nullptr) return "y and norm.residual are null, need one";
  } else if (p.norm.weight == nullptr || p.norm.y == nullptr) {
    return "norm.weight or norm.y is null";
  } else if (p.norm.mean_size < 1 || p.norm.mean_size > s.hidden_size) {
    return fmt::format("norm.mean_size = {}, need 1 to hidden_size = {}", p.norm.mean_size,
                       s.hidden_size);
  }
  if (p.weights.gate_up == nullptr || p.weights.down == nullptr) return "weights are null";
  if (p.adapters != nullptr && (p.adapter_slot_of_token == nullptr || p.num_slots < 1)) {
    return fmt::format("adapters without adapter_slot_of_token, or num_slots = {}", p.num_slots);
  }
  if (p.workspace.counts == nullptr) return "workspace is null";
  const int64_t pairs = int64_t{p.num_tokens} * s.pairs_per_token();
  if (pairs > p.workspace.max_pairs) {
    return fmt::format("num_tokens = {}, the workspace is for {}", p.num_tokens,
                       p.workspace.max_pairs / s.pairs_per_token());
  }
  return "";
}

std::string why_unsupported(const MoeLayerParams& p, const MoePlan& plan) {
  const bool apart = lora_is_apart(p, plan);
  if (p.sizes.weight_format != WeightFormat::kFp8Block128 &&
      (apart || plan.small_batch || plan.large_batch)) {
    return fmt::format("weight_format = {} with {}, need fp8_block128", name(p.sizes.weight_format),
                       apart ? "LoRA plan " + to_string(plan.lora_plan) : to_string(plan));
  }
  if (p.adapters != nullptr && !apart && p.sizes.moe_intermediate_size > kFusedLoraWidth) {
    return fmt::format("moe_intermediate_size = {} with LoRA plan fused, need at most {}",
                       p.sizes.moe_intermediate_size, kFusedLoraWidth);
  }
  if (apart && plan.lora_plan == MoeLoraPlan::kTwoStream && p.num_tokens > kTwoStreamTokens) {
    return fmt::format("num_tokens = {} with LoRA plan two-stream, need at most {}", p.num_tokens,
                       kTwoStreamTokens);
  }
  if (apart && plan.large_batch) {
    return fmt::format("a large batch with LoRA plan {}, need fused", to_string(plan.lora_plan));
  }
  if (apart && plan.small_batch) {
    return fmt::format("a small batch with LoRA plan {}, need fused", to_string(plan.lora_plan));
  }
  if (p.num_tokens > 0 && p.adapters != nullptr && p.workspace.counts != nullptr &&
      apart != (p.workspace.gate_up != nullptr)) {
    return fmt::format("LoRA plan {}, the workspace is for {}", to_string(plan.lora_plan),
                       apart ? "fused" : "two-stream and serial");
  }
  const int32_t most_guessed = most_guessed_experts(p.sizes, plan, p.adapters != nullptr);
  if (plan.num_guessed_experts > most_guessed) {
    return fmt::format("num_guessed_experts = {}, need at most {}", plan.num_guessed_experts,
                       most_guessed);
  }
  if (!plan.small_batch) return "";
  if (p.num_tokens > kSmallBatchTokens) {
    return fmt::format("num_tokens = {} in a small batch, need at most {}", p.num_tokens,
                       kSmallBatchTokens);
  }
  if (p.sizes.hidden_size > kSmallBatchHidden) {
    return fmt::format("hidden_size = {} in a small batch, need at most {}", p.sizes.hidden_size,
                       kSmallBatchHidden);
  }
  return "";
}

namespace {

template <MoeGemm kGemm>
void launch_gemm_of_format(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  switch (p.sizes.weight_format) {
    case WeightFormat::kFp8Block128:
      return launch_format_gemm<kGemm, WeightFormat::kFp8Block128>(p, plan, stream);
    case WeightFormat::kBf16:
      return launch_format_gemm<kGemm, WeightFormat::kBf16>(p, plan, stream);
    case WeightFormat::kNvfp4:
      return launch_format_gemm<kGemm, WeightFormat::kNvfp4>(p, plan, stream);
    default:
      BRAID_UNREACHABLE(static_cast<int>(p.sizes.weight_format));
  }
}

void launch_large_batch(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  launch_large_routing(p, plan, stream);
  if (p.adapters != nullptr) launch_large_shrink(p, plan, stream);
  launch_large_gate_up(p, plan, stream);
  launch_large_down(p, plan, stream);
  launch_moe_sum(p, plan, stream);
}

}  // namespace

void launch_moe_gate_up(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  lora_is_apart(p, plan) ? launch_raw_gate_up(p, plan, stream)
                         : launch_gemm_of_format<MoeGemm::kGateUp>(p, plan, stream);
}

void launch_moe_down(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  launch_gemm_of_format<MoeGemm::kDown>(p, plan, stream);
}

void launch_moe_layer(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream,
                      const SideStream& side) {
  const bool apart = lora_is_apart(p, plan);
  const bool beside = apart && plan.lora_plan == MoeLoraPlan::kTwoStream;
  std::string why = why_unsupported(p, plan);
  if (why.empty()) why = why_unsupported(p);
  if (why.empty() && beside && side.stream == nullptr)
    why = "LoRA plan two-stream without a side stream";
  if (!why.empty()) throw InternalError("moe_layer: " + why);
  if (p.num_tokens == 0) return;
  if (plan.large_batch) return launch_large_batch(p, plan, stream);
  if (!plan.small_batch) launch_moe_routing(p, plan, stream);
  const auto launch_lora = [&](MoeProjection projection, CudaStream on) {
    launch_moe_lora_shrink(p, plan, projection, on);
    launch_moe_lora_expand(p, plan, projection, on);
  };
  // The adapters' part of a GEMM beside it or after it.
  const auto with_lora = [&](MoeProjection projection, auto launch_gemm) {
    if (beside) {
      fork(stream, side);
      launch_lora(projection, side.stream);
    }
    launch_gemm(p, plan, stream);
    if (beside) join(stream, side);
    if (apart && !beside) launch_lora(projection, stream);
  };
  with_lora(MoeProjection::kGateUp, launch_moe_gate_up);
  if (apart) launch_moe_activation(p, plan, stream);
  with_lora(MoeProjection::kDown, launch_moe_down);
  launch_moe_sum(p, plan, stream);
}

}  // namespace braid::kernels
