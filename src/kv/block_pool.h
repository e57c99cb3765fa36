#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace braid {

// Who holds which KV block. A block is in exactly one of three states:
//
//   held    by num_refs >= 1 sequences
//   cached  by none, but its contents are worth keeping for a later prefix hit
//   free    by none, contents worthless
//
// allocate() takes free blocks first and then the cached block released longest ago. Bookkeeping
// only: no KV memory is touched. Used by one thread at a time. All operations are O(1).
class BlockPool {
 public:
  explicit BlockPool(int32_t num_blocks);

  int32_t num_blocks() const { return static_cast<int32_t>(blocks_.size()); }
  int32_t num_cached() const { return num_cached_; }
  int32_t num_available() const { return static_cast<int32_t>(free_.size()) + num_cached_; }
  int32_t num_held() const { return num_blocks() - num_available(); }
  int32_t num_refs(int32_t block) const;

  // A block with one reference; empty when all are held.
  std::optional<int32_t> allocate();

  // One more holder of a held or cached block.
  void add_ref(int32_t block);

  // One holder less. The last one makes the block cached if keep(block) was called, else free.
  // Throws InternalError when nobody holds it.
  void release(int32_t block);

  // The contents of a held block are worth keeping once it is released.
  void keep(int32_t block);

  // Makes all cached blocks free.
  void drop_cached();

  // Called with a cached block just before it is handed to somebody else or made free.
  void set_on_evict(std::function<void(int32_t block)> on_evict) {
    on_evict_ = std::move(on_evict);
  }

 private:
  static constexpr int32_t kNone = -1;

  struct Block {
    int32_t num_refs = 0;
    bool is_kept = false;
    bool is_free = true;
    int32_t previous = kNone;  // in the list of cached blocks
    int32_t next = kNone;
  };

  Block& at(int32_t block);
  void unlink(int32_t block);

  std::vector<Block> blocks_;
  std::vector<int32_t> free_;      // a stack
  int32_t oldest_cached_ = kNone;  // released longest ago
  int32_t newest_cached_ = kNone;
  int32_t num_cached_ = 0;
  std::function<void(int32_t)> on_evict_;
};

}  // namespace braid
