// What the parameter structs of the device's attention and elementwise kernels must satisfy. Index
// arrays are trusted (the reference checks them).

#include <fmt/format.h>

#include <bit>
#include <cstdint>

#include "kernels/attention/attention_bf16.h"
#include "kernels/elementwise/elementwise_bf16.h"

namespace braid::kernels {
namespace {

std::string why_not_multiple_of_8(const char* field, int64_t value, int64_t least) {
  if (value >= least && value % 8 == 0) return "";
  return fmt::format("{} = {}, need a multiple of 8 from {} on", field, value, least);
}

std::string why_bad_heads(int32_t num_heads, const PagedKv& kv) {
  if (num_heads < 1 || num_heads % kv.num_kv_heads != 0)
    return fmt::format("num_heads = {}, need a multiple of num_kv_heads = {}", num_heads,
                       kv.num_kv_heads);
  return "";
}

// Kernels load and store 16 bytes at a time.
std::string why_unaligned(const char* field, const void* pointer) {
  if (std::bit_cast<uintptr_t>(pointer) % 16 == 0) return "";
  return fmt::format("{} is not aligned to 16 bytes", field);
}

}  // namespace

std::string why_unsupported(const PagedKv& kv) {
  if (kv.num_kv_heads < 1) return fmt::format("num_kv_heads = {}, need 1 or more", kv.num_kv_heads);
  if (kv.head_dim != 64 && kv.head_dim != 96 && kv.head_dim != 128 && kv.head_dim != 256)
    return fmt::format("head_dim = {}, need 64, 96, 128 or 256", kv.head_dim);
  if (kv.block_size < 16 || !std::has_single_bit(static_cast<uint32_t>(kv.block_size)))
    return fmt::format("block_size = {}, need a power of two from 16 on", kv.block_size);
  if (kv.k_cache == nullptr || kv.v_cache == nullptr) return "k_cache or v_cache is null";
  if (kv.format == KvFormat::kE4m3 && !(kv.k_scale > 0 && kv.v_scale > 0))
    return fmt::format("k_scale = {} and v_scale = {}, need numbers above 0", kv.k_scale,
                       kv.v_scale);
  if (auto why = why_unaligned("k_cache", kv.k_cache); !why.empty()) return why;
  return why_unaligned("v_cache", kv.v_cache);
}

std::string why_unsupported(const RopeKvWriteBf16Params& p) {
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  if (auto why = why_unsupported(p.kv); !why.empty()) return why;
  if (auto why = why_bad_heads(p.num_heads, p.kv); !why.empty()) return why;
  if (p.rotary_dim < 0 || p.rotary_dim % 16 != 0 || p.rotary_dim > p.kv.head_dim) {
    return fmt::format("rotary_dim = {}, need a multiple of 16 up to head_dim = {}", p.rotary_dim,
                       p.kv.head_dim);
  }
  const int64_t width = (int64_t{p.num_heads} + 2 * p.kv.num_kv_heads) * p.kv.head_dim;
  if (auto why = why_not_multiple_of_8("qkv_stride", p.qkv_stride, width); !why.empty()) return why;
  if (p.num_tokens == 0) return "";
  if (p.qkv == nullptr || p.positions == nullptr || p.kv_slot_of_token == nullptr)
    return "qkv, positions or kv_slot_of_token is null";
  if (p.rotary_dim > 0 && p.inv_freq == nullptr) return "inv_freq is null";
  if (auto why = why_unaligned("q_norm", p.q_norm); !why.empty()) return why;
  if (auto why = why_unaligned("k_norm", p.k_norm); !why.empty()) return why;
  return why_unaligned("qkv", p.qkv);
}

std::string why_unsupported(const AttentionBf16Params& p) {
  if (p.num_sequences < 0 || p.num_sequences > kMaxAttentionSequences)
    return fmt::format("num_sequences = {}, need 0 to {}", p.num_sequences, kMaxAttentionSequences);
  if (auto why = why_unsupported(p.kv); !why.empty()) return why;
  if (auto why = why_bad_heads(p.num_heads, p.kv); !why.empty()) return why;
  if (p.num_heads / p.kv.num_kv_heads > 16)
    return fmt::format("num_heads = {}, need at most 16 for each of num_kv_heads = {}", p.num_heads,
                       p.kv.num_kv_heads);
  const int64_t width = int64_t{p.num_heads} * p.kv.head_dim;
  if (auto why = why_not_multiple_of_8("q_stride", p.q_stride, width); !why.empty()) return why;
  if (p.num_sequences == 0) return "";
  if (p.max_kv_blocks < 1)
    return fmt::format("max_kv_blocks = {}, need 1 or more", p.max_kv_blocks);
  if (!(p.softmax_scale > 0))
    return fmt::format("softmax_scale = {}, need a number above 0", p.softmax_scale);
  if (p.q == nullptr || p.out == nullptr) return "q or out is null";
  if (p.query_indptr == nullptr || p.context_len == nullptr || p.block_table == nullptr)
    return "query_indptr, context_len or block_table is null";
  if (auto why = why_unaligned("q", p.q); !why.empty()) return why;
  return why_unaligned("out", p.out);
}

std::string why_unsupported(const AttentionBf16Params& p, const AttentionWorkspace& workspace) {
  if (auto why = why_unsupported(p); !why.empty()) return why;
  if (p.num_sequences == 0) return "";
  if (workspace.partial_out == nullptr) return "workspace is null";
  if (p.num_sequences > workspace.max_sequences)
    return fmt::format("num_sequences = {}, the workspace is for {}", p.num_sequences,
                       workspace.max_sequences);
  if (p.num_heads != workspace.num_heads || p.kv.head_dim != workspace.head_dim)
    return fmt::format("num_heads = {} and head_dim = {}, the workspace is for {} and {}",
                       p.num_heads, p.kv.head_dim, workspace.num_heads, workspace.head_dim);
  return "";
}

std::string why_unsupported(const RmsNormBf16Params& p) {
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  if (p.hidden_size < 8 || p.hidden_size % 8 != 0 || p.hidden_size > kMaxNormHidden)
    return fmt::format("hidden_size = {}, need a multiple of 8 up to {}", p.hidden_size,
                       kMaxNormHidden);
  if (p.mean_size < 0 || p.mean_size > p.hidden_size) {
    return fmt::format("mean_size = {}, need 0 to hidden_size = {}", p.mean_size, p.hidden_size);
  }
  if (p.num_tokens == 0) return "";
  if (p.residual == nullptr || p.weight == nullptr || p.y == nullptr)
    return "residual, weight or y is null";
  if (auto why = why_unaligned("residual", p.residual); !why.empty()) return why;
  if (auto why = why_unaligned("delta", p.delta); !why.empty()) return why;
  if (auto why = why_unaligned("weight", p.weight); !why.empty()) return why;
  return why_unaligned("y", p.y);
}

std::string why_unsupported(const EmbeddingBf16Params& p) {
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  if (auto why = why_not_multiple_of_8("hidden_size", p.hidden_size, 8); !why.empty()) return why;
  if (p.num_tokens == 0) return "";
  if (p.token_ids == nullptr || p.table == nullptr || p.out == nullptr)
    return "token_ids, table or out is null";
  if (p.adapters != nullptr && p.adapter_slot_of_token == nullptr)
    return "adapter_slot_of_token is null";
  if (auto why = why_unaligned("table", p.table); !why.empty()) return why;
  return why_unaligned("out", p.out);
}

std::string why_unsupported(const SiluMulBf16Params& p) {
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  const int32_t width = p.intermediate_size;
  if (auto why = why_not_multiple_of_8("intermediate_size", width, 8); !why.empty()) return why;
  if (auto why = why_not_multiple_of_8("gate_stride", p.gate_stride, width); !why.empty())
    return why;
  if (auto why = why_not_multiple_of_8("up_stride", p.up_stride, width); !why.empty()) return why;
  if (p.num_tokens == 0) return "";
  if (p.gate == nullptr || p.up == nullptr || p.z == nullptr) return "gate, up or z is null";
  if (auto why = why_unaligned("gate", p.gate); !why.empty()) return why;
  if (auto why = why_unaligned("up", p.up); !why.empty()) return why;
  return why_unaligned("z", p.z);
}

}  // namespace braid::kernels
