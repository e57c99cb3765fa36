#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/bf16.h"

namespace braid {

// Memory for the factors of an adapter, in few large blocks. A step reads factors in many short
// pieces, so that with small pages the walks of the page tables cost as much as the reading: the
// blocks are huge pages where the system has them.
class FactorMemory {
 public:
  // Uninitialised, from a cache line on. Stays where it is while this lives. Throws std::bad_alloc.
  std::span<Bf16> allocate(size_t count);

  // All that was allocated, in that order.
  const std::vector<std::span<Bf16>>& factors() const { return factors_; }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };

  std::vector<std::unique_ptr<std::byte, Free>> blocks_;
  std::byte* next_ = nullptr;  // free space of the last block
  size_t left_ = 0;
  size_t block_bytes_ = 0;  // of the last block
  std::vector<std::span<Bf16>> factors_;
};

}  // namespace braid
