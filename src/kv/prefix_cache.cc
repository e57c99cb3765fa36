#include "kv/prefix_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace braid {
namespace {

uint64_t xxh3(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace

PrefixCache::PrefixCache(BlockPool& pool, int32_t block_size, HashFunction hash)
    : pool_(pool), block_size_(block_size), hash_(hash ? std::move(hash) : xxh3) {
  BRAID_CHECK_GE(block_size, 1);
  node_of_block_.resize(pool.num_blocks());
  pool_.set_on_evict([this](int32_t block) { forget(block); });
}

PrefixCache::~PrefixCache() { pool_.set_on_evict({}); }

uint64_t PrefixCache::hash_of(const PrefixOwner& owner, NodeId parent,
                              std::span<const int32_t> tokens) const {
  const uint64_t head[] = {uint64_t{owner.is_adapter}, owner.high, owner.low, parent};
  hash_input_.resize(sizeof(head) + tokens.size_bytes());
  std::memcpy(hash_input_.data(), head, sizeof(head));
  std::memcpy(hash_input_.data() + sizeof(head), tokens.data(), tokens.size_bytes());
  return hash_(hash_input_);
}

const PrefixCache::Node* PrefixCache::find(uint64_t hash, const PrefixOwner& owner, NodeId parent,
                                           std::span<const int32_t> tokens) const {
  const auto found = block_of_hash_.find(hash);
  if (found == block_of_hash_.end()) return nullptr;
  const Node& node = node_of_block_[found->second];
  const bool is_same =
      node.parent == parent && node.owner == owner && std::ranges::equal(node.tokens, tokens);
  return is_same ? &node : nullptr;
}

PrefixCache::Match PrefixCache::match(const PrefixOwner& owner, std::span<const int32_t> tokens) {
  Match result;
  for (size_t begin = 0; begin + block_size_ <= tokens.size(); begin += block_size_) {
    const auto piece = tokens.subspan(begin, block_size_);
    const Node* node = find(hash_of(owner, result.last, piece), owner, result.last, piece);
    if (node == nullptr) break;
    const int32_t block = block_of(*node);
    pool_.add_ref(block);
    result.blocks.push_back(block);
    result.last = node->id;
  }
  return result;
}

int32_t PrefixCache::count_matching(const PrefixOwner& owner,
                                    std::span<const int32_t> tokens) const {
  int32_t count = 0;
  NodeId last = kRoot;
  for (size_t begin = 0; begin + block_size_ <= tokens.size(); begin += block_size_) {
    const auto piece = tokens.subspan(begin, block_size_);
    const Node* node = find(hash_of(owner, last, piece), owner, last, piece);
    if (node == nullptr) break;
    last = node->id;
    ++count;
  }
  return count;
}

PrefixCache::Inserted PrefixCache::insert(const PrefixOwner& owner, NodeId parent,
                                          std::span<const int32_t> tokens, int32_t block) {
  BRAID_CHECK_EQ(static_cast<int32_t>(tokens.size()), block_size_);
  BRAID_CHECK_GE(pool_.num_refs(block), 1);
  const uint64_t hash = hash_of(owner, parent, tokens);
  if (const Node* node = find(hash, owner, parent, tokens)) {
    const int32_t known = block_of(*node);
    if (known != block) {
      pool_.add_ref(known);
      pool_.release(block);
    }
    return {known, node->id};
  }
  Node& node = node_of_block_[block];
  BRAID_CHECK(node.tokens.empty());
  const NodeId id = next_id_++;
  // Of two different chains with one hash the first stays; the second is only not found again.
  if (block_of_hash_.emplace(hash, block).second) {
    node.id = id;
    node.parent = parent;
    node.hash = hash;
    node.owner = owner;
    node.tokens.assign(tokens.begin(), tokens.end());
    pool_.keep(block);
  }
  return {block, id};
}

void PrefixCache::forget(int32_t block) {
  Node& node = node_of_block_[block];
  BRAID_CHECK(!node.tokens.empty());
  block_of_hash_.erase(node.hash);
  node.tokens.clear();
}

}  // namespace braid
