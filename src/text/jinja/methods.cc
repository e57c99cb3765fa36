// Methods of strings, lists, tuples and dicts.

#include <algorithm>
#include <array>

#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace braid::text::jinja {
namespace {

using Method = Value (*)(Runtime&, const Value&, const CallArgs&);
struct Entry {
  std::string_view name;
  Method call;
};

template <size_t kSize>
const Entry* find_entry(const std::array<Entry, kSize>& table, std::string_view name) {
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const Entry& entry) { return entry.name == name; });
  return found == table.end() ? nullptr : &*found;
}

// --- strings ---

template <bool kLeft, bool kRight>
Value strip_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("strip", args, {"chars"});
  run.charge_bytes(self.text()->size());
  return Value(strip(*self.text(), bound.get_text("chars"), kLeft, kRight));
}

template <bool kFromRight>
Value split_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("split", args, {"sep", "maxsplit"});
  return Value::list(
      split(run, *self.text(), bound.get_text("sep"), bound.get_int("maxsplit", -1), kFromRight));
}

// startswith and endswith take one string or a tuple of them.
template <bool kAtStart>
Value affix_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound(kAtStart ? "startswith" : "endswith", args, {"prefix", "start", "end"});
  const std::string& text = self.text()->text();
  if (bound.find("start") || bound.find("end")) {
    fail_with("startswith() and endswith() with start and end are not supported");
  }
  const auto fits = [&](const Value& affix) {
    if (!affix.text()) {
      require_defined(affix);
      fail_with("TypeError: ", kAtStart ? "startswith" : "endswith",
                " first arg must be str or a tuple of str, not ", affix.type_name());
    }
    const std::string& what = affix.text()->text();
    return kAtStart ? text.starts_with(what) : text.ends_with(what);
  };
  const Value& affix = bound.need("prefix");
  const Sequence* several = affix.sequence();
  if (!several || !several->is_tuple) return Value(fits(affix));
  run.charge(several->items.size());
  return Value(std::any_of(several->items.begin(), several->items.end(), fits));
}

const MarkedText& need_text(const BoundArgs& bound, std::string_view name) {
  const Value& value = bound.need(name);
  if (!value.text()) {
    require_defined(value);
    fail_with("TypeError: must be str, not ", value.type_name());
  }
  return *value.text();
}

// find, rfind, index, rindex: the place in characters.
template <bool kFromRight, bool kMustBeThere>
Value find_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("find", args, {"sub", "start", "end"});
  const MarkedText& text = *self.text();
  run.charge_bytes(text.size());
  const auto size = static_cast<Int>(length_in_chars(text));
  const auto place = [&](std::string_view name, Int otherwise) {
    Int i = bound.get_int(name, otherwise);
    if (i < 0) i = std::max<Int>(i + size, 0);
    return i;
  };
  const Int start = place("start", 0), end = std::min(place("end", size), size);
  const std::string& what = need_text(bound, "sub").text();
  if (start <= end) {
    const Range range = bytes_of_chars(text, static_cast<size_t>(start), static_cast<size_t>(end));
    const std::string_view within =
        std::string_view(text.text()).substr(range.begin, range.end - range.begin);
    const size_t found = kFromRight ? within.rfind(what) : within.find(what);
    if (found != std::string_view::npos) {
      return Value(start + static_cast<Int>(count_chars(within.substr(0, found))));
    }
  }
  if (kMustBeThere) fail_with("ValueError: substring not found");
  return Value(-1);
}

Value count_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("count", args, {"sub"});
  const std::string& text = self.text()->text();
  const std::string& what = need_text(bound, "sub").text();
  run.charge_bytes(text.size());
  if (what.empty()) return Value(count_chars(text) + 1);
  int64_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + what.size()))
    ++count;
  return Value(count);
}

Value replace_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("replace", args, {"old", "new", "count"});
  return Value(replace(run, *self.text(), need_text(bound, "old"), need_text(bound, "new"),
                       bound.get_int("count", -1)));
}

Value join_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("join", args, {"iterable"});
  require_defined(bound.need("iterable"));
  return Value(join(run, *self.text(), to_list(run, bound.need("iterable")), true));
}

template <MarkedText (*kChange)(const MarkedText&)>
Value case_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("case", args, {});
  run.charge_bytes(self.text()->size() * 4);
  return Value(kChange(*self.text()));
}

template <bool (*kFits)(char32_t)>
Value all_chars_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("is", args, {});
  run.charge_bytes(self.text()->size());
  return Value(all_chars(*self.text(), kFits));
}

bool is_letter_or_digit(char32_t c) { return is_letter(c) || is_decimal(c); }

// isupper, islower: a letter with case, and none of the other case.
template <bool kUpper>
Value is_case_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("is", args, {});
  run.charge_bytes(self.text()->size());
  bool any = false;
  const bool none_other = all_chars(*self.text(), [&](char32_t c) {
    any = any || is_cased(c);
    return kUpper ? upper_of(c) == c : lower_of(c) == c;
  });
  return Value(any && none_other);
}

template <bool kFromRight>
Value partition_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("partition", args, {"sep"});
  const MarkedText& text = *self.text();
  const MarkedText& separator = need_text(bound, "sep");
  run.charge_bytes(text.size());
  if (separator.empty()) fail_with("ValueError: empty separator");
  const size_t found =
      kFromRight ? text.text().rfind(separator.text()) : text.text().find(separator.text());
  if (found == std::string::npos) {
    return kFromRight ? Value::tuple({"", "", self}) : Value::tuple({self, "", ""});
  }
  const size_t end = found + separator.size();
  return Value::tuple(
      {substring(text, 0, found), substring(text, found, end), substring(text, end, text.size())});
}

template <bool kPrefix>
Value remove_affix_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("remove", args, {"affix"});
  const MarkedText& text = *self.text();
  const std::string& affix = need_text(bound, "affix").text();
  run.charge_bytes(text.size());
  if (kPrefix && text.text().starts_with(affix)) {
    return Value(substring(text, affix.size(), text.size()));
  }
  if (!kPrefix && text.text().ends_with(affix)) {
    return Value(substring(text, 0, text.size() - affix.size()));
  }
  return self;
}

template <Align kAlign>
Value pad_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("just", args, {"width", "fillchar"});
  bound.need("width");
  const MarkedText* fill = bound.get_text("fillchar");
  if (fill && length_in_chars(*fill) != 1) {
    fail_with("TypeError: The fill character must be exactly one character long");
  }
  return Value(
      pad(run, *self.text(), bound.get_int("width", 0), fill ? fill->text() : " ", kAlign));
}

Value zfill_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("zfill", args, {"width"});
  bound.need("width");
  const MarkedText& text = *self.text();
  const bool has_sign = text.text().starts_with('-') || text.text().starts_with('+');
  const Int width = bound.get_int("width", 0) - (has_sign ? 1 : 0);
  MarkedText out = substring(text, 0, has_sign ? 1 : 0);
  out.append(pad(run, substring(text, has_sign ? 1 : 0, text.size()), width, "0", Align::kRight));
  return Value(std::move(out));
}

Value splitlines_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("splitlines", args, {"keepends"});
  return Value::list(split_lines(run, *self.text(), bound.get_bool("keepends", false)));
}

Value format_method(Runtime& run, const Value& self, const CallArgs& args) {
  return format_braces(run, *self.text(), args);
}

// bytes are a list of numbers here: enough to count them.
Value encode_method(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("encode", args, {"encoding", "errors"});
  const MarkedText* encoding = bound.get_text("encoding");
  if (encoding && encoding->text() != "utf-8" && encoding->text() != "utf8") {
    fail_with("encode() to \"", encoding->text(), "\" is not supported, only to \"utf-8\"");
  }
  run.charge_items(self.text()->size());
  List bytes;
  for (const char c : self.text()->text()) bytes.emplace_back(static_cast<uint8_t>(c));
  return Value::list(std::move(bytes));
}

constexpr auto kTextMethods = std::to_array<Entry>({
    {"strip", strip_method<true, true>},
    {"lstrip", strip_method<true, false>},
    {"rstrip", strip_method<false, true>},
    {"split", split_method<false>},
    {"rsplit", split_method<true>},
    {"splitlines", splitlines_method},
    {"startswith", affix_method<true>},
    {"endswith", affix_method<false>},
    {"find", find_method<false, false>},
    {"rfind", find_method<true, false>},
    {"index", find_method<false, true>},
    {"rindex", find_method<true, true>},
    {"count", count_method},
    {"replace", replace_method},
    {"join", join_method},
    {"upper", case_method<to_upper>},
    {"lower", case_method<to_lower>},
    {"casefold", case_method<to_lower>},
    {"title", case_method<to_title>},
    {"capitalize", case_method<to_capitalized>},
    {"swapcase", case_method<swap_case>},
    {"isdigit", all_chars_method<is_decimal>},
    {"isdecimal", all_chars_method<is_decimal>},
    {"isnumeric", all_chars_method<is_decimal>},
    {"isalpha", all_chars_method<is_letter>},
    {"isalnum", all_chars_method<is_letter_or_digit>},
    {"isspace", all_chars_method<is_python_space>},
    {"isupper", is_case_method<true>},
    {"islower", is_case_method<false>},
    {"partition", partition_method<false>},
    {"rpartition", partition_method<true>},
    {"removeprefix", remove_affix_method<true>},
    {"removesuffix", remove_affix_method<false>},
    {"ljust", pad_method<Align::kLeft>},
    {"rjust", pad_method<Align::kRight>},
    {"center", pad_method<Align::kCenter>},
    {"zfill", zfill_method},
    {"format", format_method},
    {"encode", encode_method},
});

// --- lists, tuples and dicts ---

Value sequence_index(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("index", args, {"value"});
  const List& items = self.sequence()->items;
  run.charge(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(items[i], bound.need("value"))) return Value(i);
  }
  fail_with("ValueError: the value is not in the list");
}

Value sequence_count(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("count", args, {"value"});
  const List& items = self.sequence()->items;
  run.charge(items.size());
  const Value& value = bound.need("value");
  return Value(static_cast<int64_t>(std::count_if(
      items.begin(), items.end(), [&](const Value& item) { return equal(item, value); })));
}

Value copy_method(Runtime&, const Value& self, const CallArgs& args) {
  const BoundArgs bound("copy", args, {});
  return self;  // nothing can change it
}

// The sandbox of transformers lets no template change a list or dict.
[[noreturn]] Value refuse_change(Runtime&, const Value& self, const CallArgs&) {
  fail_with("the template calls a method that changes a '", self.type_name(),
            "' object, which is unsafe");
}

constexpr auto kSequenceMethods = std::to_array<Entry>({
    {"index", sequence_index},
    {"count", sequence_count},
    {"copy", copy_method},
    {"append", refuse_change},
    {"extend", refuse_change},
    {"insert", refuse_change},
    {"pop", refuse_change},
    {"remove", refuse_change},
    {"reverse", refuse_change},
    {"sort", refuse_change},
    {"clear", refuse_change},
});

Value dict_get(Runtime&, const Value& self, const CallArgs& args) {
  const BoundArgs bound("get", args, {"key", "default"});
  const Value* found = self.dict()->find(bound.need("key"));
  return found ? *found : bound.get("default", Value());
}

template <bool kKeys, bool kValues>
Value dict_parts(Runtime& run, const Value& self, const CallArgs& args) {
  const BoundArgs bound("items", args, {});
  run.charge_items(self.dict()->size());
  List items;
  for (const auto& [key, value] : self.dict()->entries()) {
    if constexpr (kKeys && kValues) {
      items.push_back(Value::tuple({key, value}));
    } else {
      items.push_back(kKeys ? key : value);
    }
  }
  return Value::list(std::move(items));
}

constexpr auto kDictMethods = std::to_array<Entry>({
    {"get", dict_get},
    {"items", dict_parts<true, true>},
    {"keys", dict_parts<true, false>},
    {"values", dict_parts<false, true>},
    {"copy", copy_method},
    {"pop", refuse_change},
    {"popitem", refuse_change},
    {"update", refuse_change},
    {"setdefault", refuse_change},
    {"clear", refuse_change},
});

const Entry* find_method_entry(const Value& self, std::string_view name) {
  if (self.text()) return find_entry(kTextMethods, name);
  if (self.sequence()) return find_entry(kSequenceMethods, name);
  if (self.dict()) return find_entry(kDictMethods, name);
  return nullptr;
}

}  // namespace

bool has_method(const Value& self, std::string_view name) {
  return find_method_entry(self, name) != nullptr;
}

Value call_method(Runtime& run, const Value& self, std::string_view name, const CallArgs& args) {
  const Entry* entry = find_method_entry(self, name);
  if (!entry) fail_with("'", self.type_name(), " object' has no attribute '", name, "'");
  run.charge(4);
  return entry->call(run, self, args);
}

}  // namespace braid::text::jinja
