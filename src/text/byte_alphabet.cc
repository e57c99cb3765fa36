#include "text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "text/utf8.h"

namespace braid::text {
namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr int kNumChars = 0x100 + 68;

struct Alphabet {
  std::array<char32_t, 256> char_of_byte = {};
  std::array<int16_t, kNumChars> byte_of_char = {};
};

constexpr Alphabet make_alphabet() {
  Alphabet a;
  a.byte_of_char.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    a.char_of_byte[byte] = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
    a.byte_of_char[a.char_of_byte[byte]] = static_cast<int16_t>(byte);
  }
  return a;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::optional<std::string> bytes_of_piece(std::string_view piece) {
  std::string bytes;
  bytes.reserve(piece.size());
  for (size_t at = 0; at < piece.size();) {
    const Utf8Unit unit = read_utf8(piece, at);
    if (unit.kind != Utf8Unit::Kind::kChar || unit.code_point >= kNumChars) return std::nullopt;
    const int16_t byte = kAlphabet.byte_of_char[unit.code_point];
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(byte);
    at += unit.size;
  }
  return bytes;
}

std::string piece_of_byte(unsigned char byte) {
  std::string piece;
  append_utf8(piece, kAlphabet.char_of_byte[byte]);
  return piece;
}

}  // namespace braid::text
