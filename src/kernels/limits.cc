// What each parameter struct must satisfy, in one place: ops and tests ask here. Index arrays are
// trusted (the reference checks them).

#include <fmt/format.h>

#include "kernels/attention/attention.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/linear/linear.h"
#include "kernels/moe/moe.h"
#include "kernels/moe/router.h"

namespace braid::kernels {
namespace {

std::string why_unsupported(const char* field, const WeightMatrix& w) {
  if (w.rows < 1 || w.cols < 1)
    return fmt::format("{} is [{}, {}], need at least [1, 1]", field, w.rows, w.cols);
  if (w.data == nullptr) return fmt::format("{}.data is null", field);
  if (w.format == WeightFormat::kFp8Block128 && w.block_scale == nullptr) {
    return fmt::format("{}.block_scale is null, FP8 needs it", field);
  }
  if (w.format == WeightFormat::kNvfp4 && (w.group_scale == nullptr || w.cols % 16 != 0)) {
    return fmt::format(
        "{} is NVFP4 with {} columns and {} group scales, need a multiple of 16 and scales", field,
        w.cols, w.group_scale == nullptr ? "no" : "its");
  }
  return "";
}

}  // namespace

std::string why_unsupported(const LinearParams& p) {
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  if (auto why = why_unsupported("w", p.w); !why.empty()) return why;
  if (p.num_tokens > 0 && (p.x == nullptr || p.y == nullptr)) return "x or y is null";
  if (p.x_stride < p.w.cols)
    return fmt::format("x_stride = {}, need at least w.cols = {}", p.x_stride, p.w.cols);
  if (p.y_stride < p.w.rows)
    return fmt::format("y_stride = {}, need at least w.rows = {}", p.y_stride, p.w.rows);
  if (p.num_tokens > 0 && p.lora_of_slot != nullptr && p.adapter_slot_of_token == nullptr)
    return "adapter_slot_of_token is null";
  return "";
}

std::string why_unsupported(const MoeParams& p) {
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  if (p.num_experts < 1) return fmt::format("num_experts = {}, need 1 or more", p.num_experts);
  if (p.top_k < 1 || p.top_k > p.num_experts) {
    return fmt::format("top_k = {}, need 1 to num_experts = {}", p.top_k, p.num_experts);
  }
  if (p.hidden_size < 1 || p.moe_intermediate_size < 1) {
    return fmt::format("hidden_size = {} and moe_intermediate_size = {}, need 1 or more",
                       p.hidden_size, p.moe_intermediate_size);
  }
  if (p.experts == nullptr) return "experts is null";
  for (int32_t e = 0; e < p.num_experts; ++e) {
    const ExpertWeights& w = p.experts[e];
    const auto has_shape = [](const WeightMatrix& m, int32_t rows, int32_t cols) {
      return m.rows == rows && m.cols == cols;
    };
    if (!has_shape(w.gate, p.moe_intermediate_size, p.hidden_size) ||
        !has_shape(w.up, p.moe_intermediate_size, p.hidden_size) ||
        !has_shape(w.down, p.hidden_size, p.moe_intermediate_size)) {
      return fmt::format(
          "experts[{}] has a matrix of another shape than hidden_size = {} and "
          "moe_intermediate_size = {}",
          e, p.hidden_size, p.moe_intermediate_size);
    }
    for (const WeightMatrix* m : {&w.gate, &w.up, &w.down}) {
      if (auto why = why_unsupported("experts", *m); !why.empty()) return why;
    }
  }
  if (p.num_tokens > 0 &&
      (p.x == nullptr || p.y == nullptr || p.topk_ids == nullptr || p.topk_weights == nullptr)) {
    return "x, y, topk_ids or topk_weights is null";
  }
  if (p.num_tokens > 0 && p.lora_of_slot != nullptr && p.adapter_slot_of_token == nullptr)
    return "adapter_slot_of_token is null";
  return "";
}

std::string why_unsupported(const RouterParams& p) {
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  if (p.top_k < 1 || p.top_k > p.num_experts) {
    return fmt::format("top_k = {}, need 1 to num_experts = {}", p.top_k, p.num_experts);
  }
  return "";
}

std::string why_unsupported(const RopeKvWriteParams& p) {
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  if (p.num_kv_heads < 1 || p.num_heads % p.num_kv_heads != 0) {
    return fmt::format("num_kv_heads = {}, need a divisor of num_heads = {}", p.num_kv_heads,
                       p.num_heads);
  }
  if (p.rotary_dim < 0 || p.rotary_dim % 2 != 0 || p.rotary_dim > p.head_dim) {
    return fmt::format("rotary_dim = {}, need an even number up to head_dim = {}", p.rotary_dim,
                       p.head_dim);
  }
  return "";
}

std::string why_unsupported(const AttentionParams& p) {
  if (p.num_sequences < 0)
    return fmt::format("num_sequences = {}, need 0 or more", p.num_sequences);
  if (p.num_kv_heads < 1 || p.num_heads % p.num_kv_heads != 0) {
    return fmt::format("num_kv_heads = {}, need a divisor of num_heads = {}", p.num_kv_heads,
                       p.num_heads);
  }
  if (p.head_dim < 1) return fmt::format("head_dim = {}, need 1 or more", p.head_dim);
  if (p.block_size < 1) return fmt::format("block_size = {}, need 1 or more", p.block_size);
  return "";
}

std::string why_unsupported(const RmsNormParams& p) {
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  if (p.hidden_size < 1) return fmt::format("hidden_size = {}, need 1 or more", p.hidden_size);
  return "";
}

std::string why_unsupported(const EmbeddingParams& p) {
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  if (auto why = why_unsupported("table", p.table); !why.empty()) return why;
  if (p.num_tokens > 0 && p.lora_of_slot != nullptr && p.adapter_slot_of_token == nullptr)
    return "adapter_slot_of_token is null";
  return "";
}

}  // namespace braid::kernels
