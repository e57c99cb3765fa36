// Filters that see their input as a string.
//
// Source: jinja2/filters.py 3.1.

#include <algorithm>
#include <array>

#include "text/jinja/filters.h"
#include "text/jinja/strings.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace braid::text::jinja {
namespace {

// Most filters of strings take anything and see its str().
MarkedText soft_str(Runtime& run, const Value& value) {
  MarkedText text = to_str(value);
  run.charge_bytes(text.size());
  return text;
}

template <MarkedText (*kChange)(const MarkedText&)>
Value change_case(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("filter", args, {});
  return Value(kChange(soft_str(run, input)));
}

// Words are what stands between white space and -({[<.
Value title(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("title", args, {});
  const MarkedText text = soft_str(run, input);
  MarkedText out;
  bool at_word_start = true;
  for (size_t at = 0; at < text.size();) {
    const size_t from = at;
    const char32_t c = next_char(text.text(), at);
    const bool separates =
        is_python_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    std::string changed;
    append_utf8(changed, at_word_start && !separates ? title_of(c) : lower_of(c));
    out.append(changed, text.has_input(from, at));
    at_word_start = separates;
  }
  return Value(std::move(out));
}

Value trim(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("trim", args, {"chars"});
  return Value(strip(soft_str(run, input), bound.get_text("chars"), true, true));
}

Value replace_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("replace", args, {"old", "new", "count"});
  return Value(replace(run, soft_str(run, input), to_str(bound.need("old")),
                       to_str(bound.need("new")), bound.get_int("count", -1)));
}

Value string_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("string", args, {});
  return input.text() ? input : Value(soft_str(run, input));
}

Value indent(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("indent", args, {"width", "first", "blank"});
  const Value width = bound.get("width", Value(4));
  MarkedText by;
  if (width.text()) {
    by = *width.text();
  } else {
    by = pad(run, MarkedText(), bound.get_int("width", 4), " ", Align::kLeft);
  }
  const bool blank = bound.get_bool("blank", false);
  MarkedText text = soft_str(run, input);
  text.append("\n", false);  // so that a line end at the end counts, as in Jinja
  const List lines = split_lines(run, text, false);
  MarkedText out;
  for (size_t i = 0; i < lines.size(); ++i) {
    const MarkedText& line = *lines[i].text();
    if (i > 0) out.append("\n", false);
    const bool indented = i == 0 ? bound.get_bool("first", false) : blank || !line.empty();
    run.charge_bytes(by.size() + line.size());
    if (indented) out.append(by);
    out.append(line);
  }
  return Value(std::move(out));
}

Value escape(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("escape", args, {});
  const MarkedText text = soft_str(run, input);
  MarkedText out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text.text()[i];
    const std::string_view entity = c == '&'    ? "&amp;"
                                    : c == '<'  ? "&lt;"
                                    : c == '>'  ? "&gt;"
                                    : c == '"'  ? "&#34;"
                                    : c == '\'' ? "&#39;"
                                                : "";
    if (entity.empty()) {
      out.append(text, i, i + 1);
    } else {
      out.append(entity, text.has_input(i, i + 1));
    }
  }
  return Value(std::move(out));
}

Value safe(Runtime&, const Value& input, const CallArgs& args) {
  const BoundArgs bound("safe", args, {});
  return input;  // nothing is escaped unless asked for
}

Value center(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("center", args, {"width"});
  return Value(pad(run, soft_str(run, input), bound.get_int("width", 80), " ", Align::kCenter));
}

Value format_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const MarkedText text = soft_str(run, input);
  if (!args.positional.empty() && !args.keyword.empty()) {
    fail_with(
        "FilterArgumentError: can't handle positional and keyword arguments at the same "
        "time");
  }
  if (args.keyword.empty()) return format_percent(run, text, Value::tuple(args.positional));
  Dict named;
  for (const auto& [key, value] : args.keyword) named.set(Value(key), value);
  return format_percent(run, text, Value::dict(std::move(named)));
}

Value wordcount(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("wordcount", args, {});
  const MarkedText text = soft_str(run, input);
  int64_t count = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const bool word = is_word_char(next_char(text.text(), at));
    count += word && !in_word;
    in_word = word;
  }
  return Value(count);
}

Value truncate_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("truncate", args, {"length", "killwords", "end", "leeway"});
  const MarkedText text = soft_str(run, input);
  const MarkedText end = to_str(bound.get("end", "..."));
  const Int length_wanted = bound.get_int("length", 255);
  const auto end_size = static_cast<Int>(length_in_chars(end));
  if (length_wanted < end_size)
    fail_with("AssertionError: expected length >= ", int_to_string(end_size));
  const Int leeway =
      bound.find("leeway") && !bound.need("leeway").is_none() ? bound.get_int("leeway", 0) : 5;
  const auto size = static_cast<Int>(length_in_chars(text));
  if (size <= length_wanted || size - length_wanted <= leeway) return Value(text);
  Range kept = bytes_of_chars(text, 0, static_cast<size_t>(length_wanted - end_size));
  if (!bound.get_bool("killwords", false)) {
    const size_t space = kept.end == 0 ? std::string::npos : text.text().rfind(' ', kept.end - 1);
    if (space != std::string::npos) kept.end = space;
  }
  MarkedText out = substring(text, 0, kept.end);
  out.append(end);
  return Value(std::move(out));
}

Value wordwrap(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("wordwrap", args,
                        {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  for (const std::string_view other : {"break_long_words", "break_on_hyphens"}) {
    if (bound.find(other)) fail_with("wordwrap() with ", other, " is not supported");
  }
  const Int width = bound.get_int("width", 79);
  const MarkedText newline = to_str(bound.get("wrapstring", "\n"));
  MarkedText out;
  const List lines = split_lines(run, soft_str(run, input), false);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append(newline);
    Int used = 0;
    for (const Value& word : split(run, *lines[i].text(), nullptr, -1, false)) {
      const auto size = static_cast<Int>(length_in_chars(*word.text()));
      if (used > 0 && used + 1 + size > width) {
        out.append(newline);
        used = 0;
      } else if (used > 0) {
        out.append(" ", false);
        ++used;
      }
      out.append(*word.text());
      used += size;
    }
  }
  return Value(std::move(out));
}

Value urlencode(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("urlencode", args, {});
  if (input.dict() || input.sequence()) fail_with("urlencode of a mapping is not supported");
  const MarkedText text = soft_str(run, input);
  MarkedText out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text.text()[i]);
    const bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                       (byte >= '0' && byte <= '9') || byte == '_' || byte == '.' || byte == '-' ||
                       byte == '~' || byte == '/';
    static constexpr char kHex[] = "0123456789ABCDEF";
    const char escaped[3] = {'%', kHex[byte >> 4], kHex[byte & 15]};
    out.append(plain ? std::string_view(text.text()).substr(i, 1) : std::string_view(escaped, 3),
               text.has_input(i, i + 1));
  }
  return Value(std::move(out));
}

// Without tags and comments, white space as single spaces.
Value striptags(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("striptags", args, {});
  const MarkedText text = soft_str(run, input);
  const std::string& all = text.text();
  MarkedText bare;
  for (size_t at = 0; at < all.size();) {
    const size_t open = std::min(all.find('<', at), all.size());
    bare.append(text, at, open);
    const bool comment = all.compare(open, 4, "<!--") == 0;
    const std::string_view close = comment ? "-->" : ">";
    const size_t end = all.find(close, open);
    if (end == std::string::npos) {
      bare.append(text, open, all.size());
      break;
    }
    at = end + close.size();
  }
  return Value(join(run, MarkedText(" ", false), split(run, bare, nullptr, -1, false), true));
}

constexpr auto kFilters = std::to_array<Filter>({
    {"capitalize", change_case<to_capitalized>},
    {"center", center},
    {"e", escape},
    {"escape", escape},
    {"format", format_filter},
    {"indent", indent},
    {"lower", change_case<to_lower>},
    {"replace", replace_filter},
    {"safe", safe},
    {"string", string_filter},
    {"striptags", striptags},
    {"title", title},
    {"trim", trim},
    {"truncate", truncate_filter},
    {"upper", change_case<to_upper>},
    {"urlencode", urlencode},
    {"wordcount", wordcount},
    {"wordwrap", wordwrap},
});

}  // namespace

std::span<const Filter> string_filters() { return kFilters; }

}  // namespace braid::text::jinja
