#include "text/jinja/strings.h"

#include <algorithm>

#include "text/unicode.h"
#include "text/utf8.h"

namespace braid::text::jinja {
namespace {

// Each character through `change`, which sees whether the one before was a letter.
template <class Change>
MarkedText map_chars(const MarkedText& text, const Change& change) {
  MarkedText out;
  bool after_letter = false;
  for (size_t at = 0; at < text.size();) {
    const size_t from = at;
    const char32_t c = next_char(text.text(), at);
    std::string changed;
    change(c, after_letter, changed);
    out.append(changed, text.has_input(from, at));
    after_letter = is_cased(c);
  }
  return out;
}

void append_upper(std::string& out, char32_t c) {
  if (c == 0xDF) {
    out += "SS";  // the one common character whose capital is two
  } else {
    append_utf8(out, upper_of(c));
  }
}

size_t char_before(std::string_view text, size_t end) {
  size_t at = end - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool is_space_at(std::string_view text, size_t at) { return is_python_space(next_char(text, at)); }

std::vector<Range> split_on_space(std::string_view text, Int max_splits, bool from_right) {
  std::vector<Range> parts;
  if (!from_right) {
    size_t at = 0;
    while (true) {
      while (at < text.size() && is_space_at(text, at)) next_char(text, at);
      if (at >= text.size()) return parts;
      const size_t begin = at;
      if (max_splits >= 0 && static_cast<Int>(parts.size()) >= max_splits) {
        parts.push_back({begin, text.size()});  // white space at the end of the rest stays
        return parts;
      }
      while (at < text.size() && !is_space_at(text, at)) next_char(text, at);
      parts.push_back({begin, at});
    }
  }
  size_t end = text.size();
  while (true) {
    while (end > 0 && is_space_at(text, char_before(text, end))) end = char_before(text, end);
    if (end == 0) break;
    if (max_splits >= 0 && static_cast<Int>(parts.size()) >= max_splits) {
      parts.push_back({0, end});
      break;
    }
    size_t begin = end;
    while (begin > 0 && !is_space_at(text, char_before(text, begin))) {
      begin = char_before(text, begin);
    }
    parts.push_back({begin, end});
    end = begin;
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<Range> split_on_text(std::string_view text, std::string_view separator, Int max_splits,
                                 bool from_right) {
  std::vector<Range> parts;
  const auto full = [&] { return max_splits >= 0 && static_cast<Int>(parts.size()) >= max_splits; };
  if (!from_right) {
    size_t begin = 0;
    while (!full()) {
      const size_t found = text.find(separator, begin);
      if (found == std::string_view::npos) break;
      parts.push_back({begin, found});
      begin = found + separator.size();
    }
    parts.push_back({begin, text.size()});
    return parts;
  }
  size_t end = text.size();
  while (!full() && end >= separator.size()) {
    const size_t found = text.rfind(separator, end - separator.size());
    if (found == std::string_view::npos) break;
    parts.push_back({found + separator.size(), end});
    end = found;
  }
  parts.push_back({0, end});
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

MarkedText substring(const MarkedText& text, size_t begin, size_t end) {
  MarkedText out;
  out.append(text, begin, end);
  return out;
}

MarkedText to_upper(const MarkedText& text) {
  return map_chars(text, [](char32_t c, bool, std::string& out) { append_upper(out, c); });
}

MarkedText to_lower(const MarkedText& text) {
  return map_chars(text, [](char32_t c, bool, std::string& out) { append_utf8(out, lower_of(c)); });
}

MarkedText to_title(const MarkedText& text) {
  return map_chars(text, [](char32_t c, bool after_letter, std::string& out) {
    append_utf8(out, after_letter ? lower_of(c) : title_of(c));
  });
}

MarkedText to_capitalized(const MarkedText& text) {
  bool first = true;
  return map_chars(text, [&](char32_t c, bool, std::string& out) {
    append_utf8(out, std::exchange(first, false) ? title_of(c) : lower_of(c));
  });
}

MarkedText swap_case(const MarkedText& text) {
  return map_chars(text, [](char32_t c, bool, std::string& out) {
    if (upper_of(c) != c) {
      append_upper(out, c);
    } else {
      append_utf8(out, lower_of(c));
    }
  });
}

MarkedText strip(const MarkedText& text, const MarkedText* chars, bool left, bool right) {
  const std::string_view all = text.text();
  const auto goes = [&](size_t at) {
    size_t end = at;
    const char32_t c = next_char(all, end);
    if (!chars) return is_python_space(c);
    return chars->text().find(all.substr(at, end - at)) != std::string::npos;
  };
  size_t begin = 0, end = all.size();
  while (left && begin < end && goes(begin)) next_char(all, begin);
  while (right && end > begin && goes(char_before(all, end))) end = char_before(all, end);
  return substring(text, begin, end);
}

MarkedText replace(Runtime& run, const MarkedText& text, const MarkedText& from,
                   const MarkedText& to, Int count) {
  const std::string& all = text.text();
  const std::string& what = from.text();
  run.charge_bytes(all.size());
  MarkedText out;
  size_t at = 0;
  const auto left = [&] { return count < 0 || count-- > 0; };
  if (what.empty()) {  // goes in front of every character and to the end
    while (left()) {
      run.charge_bytes(to.size());
      out.append(to);
      if (at >= all.size()) return out;
      const size_t begin = at;
      next_char(all, at);
      out.append(text, begin, at);
    }
    out.append(text, at, all.size());
    return out;
  }
  for (size_t found = all.find(what); found != std::string::npos && left();
       found = all.find(what, at)) {
    run.charge_bytes(to.size());
    out.append(text, at, found);
    out.append(to);
    at = found + what.size();
  }
  out.append(text, at, all.size());
  return out;
}

List split(Runtime& run, const MarkedText& text, const MarkedText* separator, Int max_splits,
           bool from_right) {
  run.charge_bytes(text.size());
  if (separator && separator->empty()) fail_with("ValueError: empty separator");
  const std::vector<Range> parts =
      separator ? split_on_text(text.text(), separator->text(), max_splits, from_right)
                : split_on_space(text.text(), max_splits, from_right);
  run.charge_items(parts.size());
  List items;
  for (const Range& part : parts) items.emplace_back(substring(text, part.begin, part.end));
  return items;
}

List split_lines(Runtime& run, const MarkedText& text, bool keep_ends) {
  run.charge_bytes(text.size());
  const std::string& all = text.text();
  List lines;
  for (size_t begin = 0; begin < all.size();) {
    size_t at = begin, end = begin;
    bool ended = false;
    while (at < all.size() && !ended) {
      end = at;
      const char32_t c = next_char(all, at);
      ended = (c >= 0xA && c <= 0xD) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
              c == 0x2029;
      if (c == '\r' && at < all.size() && all[at] == '\n') ++at;
    }
    if (!ended) end = at;
    run.charge_items(1);
    lines.emplace_back(substring(text, begin, keep_ends ? at : end));
    begin = at;
  }
  return lines;
}

MarkedText join(Runtime& run, const MarkedText& separator, const List& items, bool only_strings) {
  MarkedText out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (only_strings && !items[i].text()) {
      fail_with("TypeError: sequence item ", std::to_string(i), ": expected str instance, ",
                items[i].type_name(), " found");
    }
    if (i > 0) out.append(separator);
    const size_t before = out.size();
    append_str(out, items[i]);
    run.charge_bytes(out.size() - before + separator.size());
  }
  return out;
}

MarkedText pad(Runtime& run, const MarkedText& text, Int width, std::string_view fill,
               Align align) {
  const auto size = static_cast<Int>(length_in_chars(text));
  if (width <= size) return text;
  if (width > (Int{1} << 30)) fail_with("OverflowError: a width of more than 2^30 characters");
  const auto missing = static_cast<uint64_t>(width - size);
  run.charge_bytes(missing * fill.size() + text.size());
  // Python's centre leans to the left, but for an odd width.
  const uint64_t left = align == Align::kLeft    ? 0
                        : align == Align::kRight ? missing
                                                 : missing / 2 + (missing & width & 1);
  std::string before, behind;
  for (uint64_t i = 0; i < missing; ++i) (i < left ? before : behind) += fill;
  MarkedText out(before, false);
  out.append(text);
  out.append(behind, false);
  return out;
}

bool all_chars(const MarkedText& text, const std::function<bool(char32_t)>& fits) {
  if (text.empty()) return false;
  for (size_t at = 0; at < text.size();) {
    if (!fits(next_char(text.text(), at))) return false;
  }
  return true;
}

}  // namespace braid::text::jinja
