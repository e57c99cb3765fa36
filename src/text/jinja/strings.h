#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"

// String operations of Python that methods and filters share. Marks stay with their characters;
// a character that comes of another one has its mark.
namespace braid::text::jinja {

// Pieces of `text` as new strings.
MarkedText substring(const MarkedText& text, size_t begin, size_t end);

// str.upper, lower, title, capitalize, swapcase.
MarkedText to_upper(const MarkedText& text);
MarkedText to_lower(const MarkedText& text);
MarkedText to_title(const MarkedText& text);
MarkedText to_capitalized(const MarkedText& text);
MarkedText swap_case(const MarkedText& text);

// str.strip and its halves. `chars` null: white space.
MarkedText strip(const MarkedText& text, const MarkedText* chars, bool left, bool right);

// str.replace, `count` times at most (negative: all).
MarkedText replace(Runtime& run, const MarkedText& text, const MarkedText& from,
                   const MarkedText& to, Int count);

// str.split and rsplit. `separator` null: runs of white space.
List split(Runtime& run, const MarkedText& text, const MarkedText* separator, Int max_splits,
           bool from_right);

// str.splitlines.
List split_lines(Runtime& run, const MarkedText& text, bool keep_ends);

// str.join: str() of each item, unless `only_strings`, which fails on others.
MarkedText join(Runtime& run, const MarkedText& separator, const List& items, bool only_strings);

// Spaces or `fill` around a text, to `width` characters.
enum class Align { kLeft, kRight, kCenter };
MarkedText pad(Runtime& run, const MarkedText& text, Int width, std::string_view fill, Align align);

// Whether all characters fit, and there is one.
bool all_chars(const MarkedText& text, const std::function<bool(char32_t)>& fits);

}  // namespace braid::text::jinja
