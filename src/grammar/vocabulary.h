#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace braid::grammar {

// The tokens of a model as a tree over their bytes, in preorder: node i, then its children's
// subtrees. A walk skips a subtree by going on at its end, so walks touch memory in order. Made
// once a tokenizer; read-only.
class Vocabulary {
 public:
  struct Node {
    int32_t end = 0;          // one past the subtree
    int32_t first_token = 0;  // tokens that end here: up to the next node's first_token
    uint16_t depth = 0;       // bytes from the root, >= 1
    uint8_t byte = 0;         // the last of them
  };

  // `piece(id)` gives the bytes of token id in [0, size), empty for tokens that no text is made of
  // (special ones, ids without a token). Tokens of more than kMaxTokenBytes are left out.
  Vocabulary(int32_t size, const std::function<std::string_view(int32_t)>& piece);

  static constexpr size_t kMaxTokenBytes = 1024;

  int32_t size() const { return size_; }  // token ids
  int32_t num_nodes() const { return static_cast<int32_t>(nodes_.size()) - 1; }
  const Node& node(int32_t i) const { return nodes_[i]; }
  std::span<const int32_t> tokens_at(int32_t i) const {
    return std::span(tokens_).subspan(nodes_[i].first_token,
                                      nodes_[i + 1].first_token - nodes_[i].first_token);
  }

  // Bytes of a token; empty where piece() gave none. Valid while the vocabulary lives.
  std::string_view piece(int32_t id) const {
    return std::string_view(bytes_).substr(piece_begin_[id],
                                           piece_begin_[id + 1] - piece_begin_[id]);
  }

  // Bytes that are tokens by themselves. A grammar that is held to them can always go on.
  const std::array<bool, 256>& single_bytes() const { return single_bytes_; }
  int32_t max_token_bytes() const { return max_token_bytes_; }

 private:
  int32_t size_;
  std::string bytes_;  // of all pieces, by id
  std::vector<int64_t> piece_begin_;
  std::vector<Node> nodes_;  // and one behind the last
  std::vector<int32_t> tokens_;
  std::array<bool, 256> single_bytes_ = {};
  int32_t max_token_bytes_ = 0;
};

}  // namespace braid::grammar
