#include "text/jinja/json_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/json.h"
#include "text/utf8.h"

namespace braid::text::jinja {
namespace {

constexpr size_t kMaxJsonDepth = 100;

// Builds a value from the events of nlohmann's parser.
class Builder {
 public:
  bool null() { return put(Value()); }
  bool boolean(bool b) { return put(Value(b)); }
  bool number_integer(int64_t i) { return put(Value(i)); }
  bool number_unsigned(uint64_t i) { return put(Value(static_cast<Int>(i))); }
  // Integers over 64 bits come here too, with their digits.
  bool number_float(double d, const std::string& digits) {
    if (digits.find_first_of(".eE") != std::string::npos) return put(Value(d));
    const std::optional<Int> value = parse_int(digits);
    if (!value) return refuse("an integer needs more than 127 bits: " + digits.substr(0, 60));
    return put(Value(*value));
  }
  bool string(std::string& text) { return put(Value(MarkedText(text, true))); }
  bool binary(std::vector<uint8_t>&) { return refuse("binary data"); }
  bool start_object(size_t) { return open(/*is_object=*/true); }
  bool start_array(size_t) { return open(/*is_object=*/false); }
  bool key(std::string& text) {
    if (levels_.back().dict.find(std::string_view(text)))
      return refuse("the key \"" + text + "\" is there twice");
    levels_.back().key = Value(MarkedText(text, true));
    return true;
  }
  bool end_object() {
    Value value = Value::dict(std::move(levels_.back().dict));
    levels_.pop_back();
    return put(std::move(value));
  }
  bool end_array() {
    Value value = Value::list(std::move(levels_.back().list));
    levels_.pop_back();
    return put(std::move(value));
  }
  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception& error) {
    return refuse(fmt::format("not JSON at byte {}: {}", at, error.what()));
  }

  Value take() { return std::move(root_); }
  const std::string& why() const { return why_; }

 private:
  struct Level {
    bool is_object = false;
    Dict dict;
    List list;
    Value key;
  };

  bool refuse(std::string why) {
    why_ = std::move(why);
    return false;
  }
  bool open(bool is_object) {
    if (levels_.size() >= kMaxJsonDepth) {
      return refuse(fmt::format("nested deeper than {}", kMaxJsonDepth));
    }
    levels_.emplace_back().is_object = is_object;
    return true;
  }
  bool put(Value value) {
    if (levels_.empty()) {
      root_ = std::move(value);
    } else if (levels_.back().is_object) {
      levels_.back().dict.set(levels_.back().key, std::move(value));
    } else {
      levels_.back().list.push_back(std::move(value));
    }
    return true;
  }

  Value root_;
  std::vector<Level> levels_;
  std::string why_;
};

class Writer {
 public:
  Writer(Runtime& run, const JsonStyle& style) : run_(run), style_(style) {}

  MarkedText write(const Value& value) {
    put_value(value, 0);
    return std::move(out_);
  }

 private:
  void put(std::string_view text) { out_.append(text, false); }

  void put_value(const Value& value, int depth) {
    run_.charge(1);
    if (value.is_none()) return put("null");
    if (value.is_bool()) return put(value.to_int() != 0 ? "true" : "false");
    if (value.is_int()) return put(int_to_string(value.to_int()));
    if (value.is_float()) return put(float_of(value.to_double()));
    if (const MarkedText* text = value.text()) return put_string(*text);
    if (const Sequence* sequence = value.sequence()) {
      return put_items("[", "]", sequence->items.size(), depth,
                       [&](size_t i) { put_value(sequence->items[i], depth + 1); });
    }
    if (const Dict* dict = value.dict()) return put_dict(*dict, depth);
    fail_with("TypeError: Object of type ", value.type_name(), " is not JSON serializable");
  }

  static std::string float_of(double d) {
    const std::string text = float_to_string(d);
    if (text == "nan") return "NaN";
    if (text == "inf") return "Infinity";
    return text == "-inf" ? "-Infinity" : text;
  }

  template <class PutItem>
  void put_items(std::string_view open, std::string_view close, size_t size, int depth,
                 const PutItem& put_item) {
    put(open);
    for (size_t i = 0; i < size; ++i) {
      if (i > 0) put(style_.item_separator);
      new_line(depth + 1);
      put_item(i);
    }
    if (size > 0) new_line(depth);
    put(close);
  }

  void new_line(int depth) {
    if (!style_.indent) return;
    put("\n");
    run_.charge_bytes(style_.indent->size() * static_cast<size_t>(depth));
    for (int i = 0; i < depth; ++i) put(*style_.indent);
  }

  void put_dict(const Dict& dict, int depth) {
    std::vector<const Dict::Entry*> entries;
    for (const Dict::Entry& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto* a, const auto* b) { return less(a->first, b->first); });
    }
    put_items("{", "}", entries.size(), depth, [&](size_t i) {
      put_key(entries[i]->first);
      put(style_.key_separator);
      put_value(entries[i]->second, depth + 1);
    });
  }

  void put_key(const Value& key) {
    if (key.text()) return put_string(*key.text());
    if (!key.is_number() && !key.is_none()) {
      fail_with("TypeError: keys must be str, int, float, bool or None, not ", key.type_name());
    }
    put("\"");
    put_value(key, 0);
    put("\"");
  }

  void put_string(const MarkedText& text) {
    const std::string& all = text.text();
    run_.charge_bytes(all.size());
    put("\"");
    size_t plain = 0;  // begin of what needs no escape
    for (size_t at = 0; at < all.size();) {
      const size_t from = at;
      const char32_t c = next_char(all, at);
      const std::string escaped = escape(c);
      if (escaped.empty()) continue;
      out_.append(text, plain, from);
      out_.append(escaped, text.has_input(from, at));
      plain = at;
    }
    out_.append(text, plain, all.size());
    put("\"");
  }

  // Empty for characters that stand for themselves.
  std::string escape(char32_t c) const {
    switch (c) {
      case '"':
        return "\\\"";
      case '\\':
        return "\\\\";
      case '\n':
        return "\\n";
      case '\r':
        return "\\r";
      case '\t':
        return "\\t";
      case '\f':
        return "\\f";
      case '\b':
        return "\\b";
      default:
        break;
    }
    const auto value = static_cast<uint32_t>(c);
    if (value < 0x20 || (style_.ensure_ascii && value >= 0x7F && value < 0x10000)) {
      if (value == 0x7F) return "";
      return fmt::format("\\u{:04x}", value);
    }
    if (style_.ensure_ascii && value >= 0x10000) {
      const uint32_t rest = value - 0x10000;
      return fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    }
    return "";
  }

  Runtime& run_;
  const JsonStyle& style_;
  MarkedText out_;
};

}  // namespace

Result<Value> parse_json_value(std::string_view text) {
  Builder builder;
  try {
    if (nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) return builder.take();
  } catch (const Failure& failure) {
    return fail(ErrorCode::kInvalidArgument, "{}", failure.message);
  }
  return fail(ErrorCode::kInvalidArgument, "{}", builder.why());
}

MarkedText to_json(Runtime& run, const Value& value, const JsonStyle& style) {
  return Writer(run, style).write(value);
}

}  // namespace braid::text::jinja
