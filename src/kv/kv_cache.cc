#include "kv/kv_cache.h"

#include <new>

#include "base/check.h"

namespace braid {

KvCache::KvCache(const KvCacheShape& shape) : shape_(shape) {
  BRAID_CHECK_GE(shape.num_layers, 1);
  BRAID_CHECK_GE(shape.num_blocks, 1);
  BRAID_CHECK_GE(shape.block_size, 1);
  BRAID_CHECK_GE(shape.num_kv_heads, 1);
  BRAID_CHECK_GE(shape.head_dim, 1);
  layer_elements_ =
      int64_t{shape.num_blocks} * shape.block_size * shape.num_kv_heads * shape.head_dim;
  // calloc, not a vector: large requests come from the system as untouched zero pages.
  void* memory = std::calloc(static_cast<size_t>(shape.num_blocks), shape.bytes_per_block());
  if (memory == nullptr) throw std::bad_alloc();
  data_.reset(static_cast<float*>(memory));
}

}  // namespace braid
