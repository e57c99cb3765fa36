#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace braid::text {

// The alphabet of byte-level vocabularies: each byte is written as one printable character, so
// that a vocabulary of byte strings can be a JSON file. Printable Latin-1 stands for itself, the
// other 68 bytes are U+0100 and up.
//
// Source: bytes_to_unicode() of GPT-2's encoder.py; ByteLevel in HF tokenizers 0.21.

// The bytes that `piece` (UTF-8) writes; nothing when one of its characters is outside the
// alphabet.
std::optional<std::string> bytes_of_piece(std::string_view piece);

// The character of a byte, in UTF-8.
std::string piece_of_byte(unsigned char byte);

}  // namespace braid::text
