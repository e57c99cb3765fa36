#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace braid::grammar {

struct CodePointRange {
  char32_t first;
  char32_t last;  // inclusive
};

// A set of Unicode scalar values: code points up to U+10FFFF without surrogates, which UTF-8 cannot
// write.
class CodePointSet {
 public:
  CodePointSet() = default;

  // In any order; may overlap. Surrogates and what lies above U+10FFFF are left out.
  explicit CodePointSet(std::vector<CodePointRange> ranges);

  static CodePointSet all();

  CodePointSet complement() const;
  CodePointSet united(const CodePointSet& other) const;
  CodePointSet intersected(const CodePointSet& other) const;

  bool contains(char32_t code_point) const;
  bool empty() const { return ranges_.empty(); }
  std::span<const CodePointRange> ranges() const { return ranges_; }  // rising, with gaps between

 private:
  std::vector<CodePointRange> ranges_;
};

struct ByteRange {
  uint8_t first;
  uint8_t last;  // inclusive
  bool operator==(const ByteRange&) const = default;
  auto operator<=>(const ByteRange&) const = default;
};

// The UTF-8 of a range of scalar values of one encoded length and no surrogate among them, as
// sequences of byte ranges: a text is in one of them exactly when it encodes a member. Appends 1 to
// 4 ranges for each sequence.
//
// Source: the splitting of Russ Cox's RE2 and of Rust's utf8-ranges, by common leading bytes.
void append_utf8_sequences(CodePointRange range, std::vector<std::vector<ByteRange>>& out);

}  // namespace braid::grammar
