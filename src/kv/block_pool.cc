#include "kv/block_pool.h"

#include "base/check.h"

namespace braid {

BlockPool::BlockPool(int32_t num_blocks) {
  BRAID_CHECK_GE(num_blocks, 0);
  blocks_.resize(num_blocks);
  free_.reserve(num_blocks);
  // Low numbers are handed out first, so that a small load touches little memory.
  for (int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

BlockPool::Block& BlockPool::at(int32_t block) {
  BRAID_CHECK_GE(block, 0);
  BRAID_CHECK_LT(block, num_blocks());
  return blocks_[block];
}

int32_t BlockPool::num_refs(int32_t block) const {
  BRAID_CHECK_GE(block, 0);
  BRAID_CHECK_LT(block, num_blocks());
  return blocks_[block].num_refs;
}

std::optional<int32_t> BlockPool::allocate() {
  int32_t block = kNone;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else if (oldest_cached_ != kNone) {
    block = oldest_cached_;
    unlink(block);
    if (on_evict_) on_evict_(block);
  } else {
    return std::nullopt;
  }
  blocks_[block] = {.num_refs = 1, .is_kept = false, .is_free = false};
  return block;
}

void BlockPool::drop_cached() {
  while (oldest_cached_ != kNone) {
    const int32_t block = oldest_cached_;
    unlink(block);
    if (on_evict_) on_evict_(block);
    blocks_[block] = {};
    free_.push_back(block);
  }
}

void BlockPool::add_ref(int32_t block) {
  Block& b = at(block);
  BRAID_CHECK(!b.is_free);
  if (b.num_refs == 0) unlink(block);
  ++b.num_refs;
}

void BlockPool::release(int32_t block) {
  Block& b = at(block);
  BRAID_CHECK_GE(b.num_refs, 1);
  if (--b.num_refs > 0) return;
  if (!b.is_kept) {
    b.is_free = true;
    free_.push_back(block);
    return;
  }
  b.previous = newest_cached_;
  b.next = kNone;
  (newest_cached_ == kNone ? oldest_cached_ : blocks_[newest_cached_].next) = block;
  newest_cached_ = block;
  ++num_cached_;
}

void BlockPool::keep(int32_t block) {
  Block& b = at(block);
  BRAID_CHECK_GE(b.num_refs, 1);
  b.is_kept = true;
}

void BlockPool::unlink(int32_t block) {
  Block& b = blocks_[block];
  (b.previous == kNone ? oldest_cached_ : blocks_[b.previous].next) = b.next;
  (b.next == kNone ? newest_cached_ : blocks_[b.next].previous) = b.previous;
  b.previous = b.next = kNone;
  --num_cached_;
}

}  // namespace braid
