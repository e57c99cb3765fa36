#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace braid {

struct KvCacheShape {
  int32_t num_layers = 0;
  int32_t num_blocks = 0;
  int32_t block_size = 16;  // tokens a block
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  size_t element_bytes = sizeof(float);

  // Keys and values of one block over all layers.
  size_t bytes_per_block() const {
    return size_t{2} * element_bytes * num_layers * block_size * num_kv_heads * head_dim;
  }
};

// The memory of the paged KV cache: per layer keys and values, each
// [num_blocks, block_size, num_kv_heads, head_dim] in float: rounding keys and values to BF16 moves
// an adapter's effect by more than all other arithmetic. Which block belongs to whom is BlockPool's
// part. The memory starts as zero pages, so a cache larger than what is used costs nothing.
class KvCache {
 public:
  // All sizes at least 1. Throws std::bad_alloc when the system refuses the memory.
  explicit KvCache(const KvCacheShape& shape);

  const KvCacheShape& shape() const { return shape_; }
  float* keys(int32_t layer) { return data_.get() + (2 * layer) * layer_elements_; }
  float* values(int32_t layer) { return data_.get() + (2 * layer + 1) * layer_elements_; }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };

  KvCacheShape shape_;
  int64_t layer_elements_ = 0;           // of keys alone
  std::unique_ptr<float[], Free> data_;  // [num_layers, 2, layer_elements_]
};

}  // namespace braid
