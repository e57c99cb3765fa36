#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/block_pool.h"

namespace braid {

// Whose keys and values they are: an adapter changes them, so each adapter has its own prefixes.
struct PrefixOwner {
  bool is_adapter = false;  // false: the base model, high and low are 0
  uint64_t high = 0;        // content hash of the adapter
  uint64_t low = 0;
  friend bool operator==(const PrefixOwner&, const PrefixOwner&) = default;
};

// Finds KV blocks that already hold the start of a token sequence. Full blocks form a tree: a node
// is one block of tokens after its parent node, the root stands before the first token. A node's
// identity is a number that is never used again; a child names its parent by it. So a hit means the
// same owner and the same tokens all the way from position 0, and a hash that collides costs a
// lookup, never a wrong answer.
//
// Sequences hold the blocks of their whole chain and release them last block first, so the pool
// evicts children before parents. Used by one thread at a time; the pool must outlive it.
class PrefixCache {
 public:
  using NodeId = uint64_t;
  static constexpr NodeId kRoot = 0;
  using HashFunction = std::function<uint64_t(std::span<const std::byte>)>;

  // `hash` is for tests; empty means XXH3.
  PrefixCache(BlockPool& pool, int32_t block_size, HashFunction hash = {});
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  struct Match {
    std::vector<int32_t> blocks;  // each with a new reference, which is the caller's
    NodeId last = kRoot;          // node of blocks.back()
  };

  // The longest chain of cached blocks that tokens start with.
  Match match(const PrefixOwner& owner, std::span<const int32_t> tokens);

  // How many blocks match() would find. Takes no reference.
  int32_t count_matching(const PrefixOwner& owner, std::span<const int32_t> tokens) const;

  struct Inserted {
    int32_t block;
    NodeId node;
  };

  // A held block now has the keys and values of `tokens` [block_size], which follow `parent`.
  // Returns its node. When another block already stands for the same, that one is returned with a
  // new reference and the caller's reference to `block` is released: contents are equal.
  Inserted insert(const PrefixOwner& owner, NodeId parent, std::span<const int32_t> tokens,
                  int32_t block);

  int64_t num_nodes() const { return static_cast<int64_t>(block_of_hash_.size()); }

 private:
  struct Node {
    NodeId id = kRoot;
    NodeId parent = kRoot;
    uint64_t hash = 0;
    PrefixOwner owner;
    std::vector<int32_t> tokens;  // [block_size]; empty: the block is no node
  };

  uint64_t hash_of(const PrefixOwner& owner, NodeId parent, std::span<const int32_t> tokens) const;
  const Node* find(uint64_t hash, const PrefixOwner& owner, NodeId parent,
                   std::span<const int32_t> tokens) const;
  int32_t block_of(const Node& node) const {
    return static_cast<int32_t>(&node - node_of_block_.data());
  }
  void forget(int32_t block);

  BlockPool& pool_;
  int32_t block_size_;
  HashFunction hash_;
  NodeId next_id_ = 1;
  std::vector<Node> node_of_block_;  // [num_blocks]
  std::unordered_map<uint64_t, int32_t>
      block_of_hash_;  // one node a hash; a colliding one is not kept
  mutable std::vector<std::byte> hash_input_;
};

}  // namespace braid
