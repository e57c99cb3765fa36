#pragma once

#include <string>
#include <string_view>

namespace braid::text {

// Unicode's White_Space property: what \s means in Rust and Oniguruma.
bool is_white_space(char32_t c);

// Letters, marks, decimal digits, letter numbers, connectors: what \w means there.
bool is_word_char(char32_t c);

// Normalisation form C of well-formed UTF-8, by the tables of Unicode 9.0: HF tokenizers has these,
// and marks that came later (Unicode 14 has 101 of them) are neither reordered nor composed there.
std::string to_nfc(std::string_view text);

// Characters that Python's repr shows as they are: not controls, formats, unassigned, nor
// separators other than the space.
bool is_printable(char32_t c);

// str.isspace, str.isalpha, str.isdecimal of Python, of one character.
bool is_python_space(char32_t c);
bool is_letter(char32_t c);
bool is_decimal(char32_t c);

// Case of single characters, one to one.
char32_t upper_of(char32_t c);
char32_t lower_of(char32_t c);
char32_t title_of(char32_t c);
bool is_cased(char32_t c);

}  // namespace braid::text
