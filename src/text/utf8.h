#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace braid::text {

// What the bytes at one place of a text are.
struct Utf8Unit {
  // kChar: a whole well-formed character. kBroken: bytes that can start no character, whatever
  // follows. kPartial: the text ends inside what may become a character.
  enum class Kind { kChar, kBroken, kPartial };
  Kind kind;
  int32_t size;         // bytes, >= 1; of kBroken the maximal valid prefix, which is one U+FFFD
  char32_t code_point;  // of kChar
};

// Reads the unit that starts at `at`, which must be < text.size(). Overlong forms, surrogates and
// values past U+10FFFF are broken.
//
// Source: Unicode 15, section 3.9, table 3-7 and "U+FFFD substitution of maximal subparts".
Utf8Unit read_utf8(std::string_view text, size_t at);

// The character that starts at `at` in well-formed text; moves `at` behind it.
char32_t next_char(std::string_view text, size_t& at);

// Offset of the first byte that is not well-formed UTF-8; npos when all is.
size_t find_broken_utf8(std::string_view text);

// Appends a code point (<= U+10FFFF, not a surrogate).
void append_utf8(std::string& out, char32_t code_point);

// Each broken or cut-off unit becomes one U+FFFD, as Rust's String::from_utf8_lossy does.
std::string to_valid_utf8(std::string_view bytes);

// Number of characters in well-formed text.
size_t count_chars(std::string_view text);

inline constexpr std::string_view kReplacementChar = "\xEF\xBF\xBD";

}  // namespace braid::text
