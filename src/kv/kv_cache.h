#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bf16.h"

namespace braid {

struct KvCacheShape {
  int32_t num_layers = 0;
  int32_t num_blocks = 0;
  int32_t block_size = 16;  // tokens a block
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;

  // Keys and values of one block over all layers.
  size_t bytes_per_block() const {
    return size_t{2} * sizeof(Bf16) * num_layers * block_size * num_kv_heads * head_dim;
  }
};

// The memory of the paged KV cache: per layer keys and values, each
// [num_blocks, block_size, num_kv_heads, head_dim]. Which block belongs to whom is BlockPool's
// part.
class KvCache {
 public:
  explicit KvCache(const KvCacheShape& shape);

  const KvCacheShape& shape() const { return shape_; }
  Bf16* keys(int32_t layer) { return data_.data() + (2 * layer) * layer_elements_; }
  Bf16* values(int32_t layer) { return data_.data() + (2 * layer + 1) * layer_elements_; }

 private:
  KvCacheShape shape_;
  int64_t layer_elements_ = 0;
  std::vector<Bf16> data_;
};

}  // namespace braid
