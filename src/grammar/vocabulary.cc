#include "grammar/vocabulary.h"

#include <algorithm>

namespace braid::grammar {

Vocabulary::Vocabulary(int32_t size, const std::function<std::string_view(int32_t)>& piece)
    : size_(size) {
  piece_begin_.push_back(0);
  std::vector<int32_t> sorted;
  for (int32_t id = 0; id < size; ++id) {
    const std::string_view bytes = piece(id);
    if (!bytes.empty() && bytes.size() <= kMaxTokenBytes) {
      bytes_ += bytes;
      sorted.push_back(id);
      max_token_bytes_ = std::max(max_token_bytes_, static_cast<int32_t>(bytes.size()));
      if (bytes.size() == 1) single_bytes_[static_cast<uint8_t>(bytes[0])] = true;
    }
    piece_begin_.push_back(static_cast<int64_t>(bytes_.size()));
  }
  std::sort(sorted.begin(), sorted.end(), [&](int32_t a, int32_t b) {
    return this->piece(a) != this->piece(b) ? this->piece(a) < this->piece(b) : a < b;
  });

  std::vector<int32_t> path;  // nodes from the root to the last one added
  std::string_view before;
  const auto close_to = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back())
      nodes_[path.back()].end = static_cast<int32_t>(nodes_.size());
  };
  for (const int32_t id : sorted) {
    const std::string_view bytes = this->piece(id);
    const auto differ = std::mismatch(before.begin(), before.end(), bytes.begin(), bytes.end());
    close_to(static_cast<size_t>(differ.second - bytes.begin()));
    while (path.size() < bytes.size()) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({.first_token = static_cast<int32_t>(tokens_.size()),
                        .depth = static_cast<uint16_t>(path.size()),
                        .byte = static_cast<uint8_t>(bytes[path.size() - 1])});
    }
    tokens_.push_back(id);
    before = bytes;
  }
  close_to(0);
  nodes_.push_back({.end = static_cast<int32_t>(nodes_.size()),
                    .first_token = static_cast<int32_t>(tokens_.size())});
}

}  // namespace braid::grammar
