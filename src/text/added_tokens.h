#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/pair_table.h"
#include "text/regex.h"

namespace braid::text {

// A token that is found in the text before byte-pair encoding sees it.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;      // a control token: left out of decoded text, never made from input
  bool normalized = false;   // looked for in the normalised text, else in the text as it came
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool single_word = false;  // only where no word character touches it
};

inline constexpr size_t kMaxAddedTokenBytes = 1024;

// A stretch of text: one added token, or text between them.
struct TextPart {
  Range range;
  const AddedToken* token;  // null for text
};

// Finds the longest added token at each place of a text, from left to right, with a trie.
//
// Source: AddedVocabulary::find_matches of HF tokenizers 0.21. Unlike there, a special token that
// may not be one does not hide a token that starts inside it.
class AddedTokenFinder {
 public:
  AddedTokenFinder() : is_end_of_({nullptr}) {}

  // `token` must stay in place while the finder lives. `content` (not empty) is what is looked for:
  // the token's own, or its normalised form. The first of two tokens with one content counts.
  void add(const AddedToken& token, std::string_view content);

  // Whether the special token with these bytes may be taken as one.
  using MayBeSpecial = std::function<bool(Range)>;

  // Appends the parts of well-formed text, in order. Special tokens that may not be ones are text.
  void find(std::string_view text, const MayBeSpecial& may_be_special,
            std::vector<TextPart>& parts) const;

 private:
  struct Match {
    const AddedToken* token = nullptr;
    size_t end = 0;
  };
  Match longest_at(std::string_view text, size_t at, const MayBeSpecial& may_be_special) const;

  // Edges of the trie, from (node, byte) to a node; node 0 is the root.
  PairTable edges_;
  std::vector<const AddedToken*> is_end_of_;  // by node; null inside
};

}  // namespace braid::text
