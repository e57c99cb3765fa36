#pragma once

#include <cstdint>
#include <string>

#include "base/bf16.h"

namespace braid::kernels {

enum class KvFormat : int32_t {
  kBf16,
  kE4m3,  // one scale for all keys of a layer and one for all values: key = k_scale * code
};

constexpr int64_t element_bytes(KvFormat format) { return format == KvFormat::kBf16 ? 2 : 1; }

// The paged KV cache of one layer on the device: keys and values, each
//
//   [num_blocks, num_kv_heads, block_size, head_dim]
//
// so that what one head has in a block is one contiguous copy. kv_slot = kv_block * block_size +
// offset in the block, as everywhere.
struct PagedKv {
  void* k_cache = nullptr;
  void* v_cache = nullptr;
  KvFormat format = KvFormat::kBf16;
  float k_scale = 1.0f;  // > 0; kE4m3 only
  float v_scale = 1.0f;
  int32_t num_kv_heads = 0;
  int32_t block_size = 0;  // power of two, 16 or more
  int32_t head_dim = 0;    // 64, 96, 128 or 256

  bool operator==(const PagedKv&) const = default;
};

std::string why_unsupported(const PagedKv& kv);

}  // namespace braid::kernels
