#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/pair_table.h"
#include "text/word_cache.h"

namespace braid::text {

// Byte-pair encoding of one word: start with its bytes, merge the neighbours whose pair has the
// lowest rank (the leftmost first among equals) until no pair can be merged.
//
// Costs O(n log n) for a word of n bytes, also when one merge follows from the other. Const
// members may be called from any thread.
//
// Source: Sennrich et al., arXiv:1508.07909; models/bpe of HF tokenizers 0.21 for the order.
class Bpe {
 public:
  static constexpr int32_t kNoToken = -1;

  struct Tables {
    // Bytes of each token id that words can become. Ids of tokens that no word can be are absent.
    std::vector<std::pair<std::string, int32_t>> tokens;
    PairTable merges;
    // A word that is a token as a whole is that token, whatever the merges say.
    bool ignore_merges = false;
    // For bytes that are no token; kNoToken: they are left out.
    int32_t unk_token = kNoToken;
    bool fuse_unk = false;  // one unk_token for a run of such bytes
  };

  explicit Bpe(Tables tables);

  // Appends the tokens of a word to `out`.
  void encode_word(std::string_view word, std::vector<int32_t>& out) const;

  // The token with exactly these bytes, or kNoToken.
  int32_t find(std::string_view bytes) const;

 private:
  void first_symbols(std::string_view word, std::vector<int32_t>& symbols) const;
  void merge_short(std::vector<int32_t>& symbols) const;
  void merge_long(std::vector<int32_t>& symbols) const;

  std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>> id_of_bytes_;
  std::array<int32_t, 256> id_of_byte_;
  PairTable merges_;
  bool ignore_merges_;
  int32_t unk_token_;
  bool fuse_unk_;
  std::unique_ptr<WordCache> cache_;
};

}  // namespace braid::text
