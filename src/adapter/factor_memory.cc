#include "adapter/factor_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace braid {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLargestBlock = size_t{64} << 20;
constexpr size_t kLine = 64;

constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

void FactorMemory::Free::operator()(std::byte* p) const { std::free(p); }

std::span<Bf16> FactorMemory::allocate(size_t count) {
  const size_t bytes = round_up(count * sizeof(Bf16), kLine);
  if (bytes > left_) {
    // A small adapter takes one huge page, a large one ever larger blocks.
    block_bytes_ = std::clamp(2 * block_bytes_, kHugePage, kLargestBlock);
    left_ = std::max(block_bytes_, round_up(bytes, kHugePage));
    next_ = static_cast<std::byte*>(std::aligned_alloc(kHugePage, left_));
    if (next_ == nullptr) throw std::bad_alloc();
    blocks_.emplace_back(next_);
    madvise(next_, left_, MADV_HUGEPAGE);  // a wish; small pages do as well
  }
  const std::span<Bf16> factor(reinterpret_cast<Bf16*>(next_), count);
  next_ += bytes;
  left_ -= bytes;
  factors_.push_back(factor);
  return factor;
}

}  // namespace braid
