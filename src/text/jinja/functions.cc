// The global functions: range, dict, namespace, cycler, joiner, raise_exception, strftime_now.

#include <algorithm>
#include <array>
#include <ctime>

#include "text/jinja/objects.h"
#include "text/jinja/runtime.h"

namespace braid::text::jinja {
namespace {

using Function = Value (*)(Runtime&, const CallArgs&);
struct Entry {
  std::string_view name;
  Function call;
};

Value make_range(Runtime& run, const CallArgs& args) {
  const size_t n = args.positional.size();
  if (n < 1 || n > 3 || !args.keyword.empty()) {
    fail_with("TypeError: range() takes 1 to 3 positional arguments");
  }
  for (const Value& value : args.positional) {
    if (!value.is_int() && !value.is_bool()) {
      require_defined(value);
      fail_with("TypeError: '", value.type_name(), "' object cannot be interpreted as an integer");
    }
  }
  const auto arg = [&](size_t i) { return args.positional[i].to_int(); };
  const Int step = n > 2 ? arg(2) : 1;
  if (step == 0) fail_with("ValueError: range() arg 3 must not be zero");
  auto* range = run.make<RangeObject>(n > 1 ? arg(0) : 0, n > 1 ? arg(1) : arg(0), step);
  constexpr uint64_t kMaxRange = 100'000;  // as in Jinja's sandbox
  if (range->size() > kMaxRange) {
    fail_with(
        "OverflowError: Range too big. The sandbox blocks ranges larger than MAX_RANGE "
        "(100000).");
  }
  return Value(range);
}

// Entries of a dict or of a list of pairs, then the keywords.
template <class Put>
void put_fields(Runtime& run, const CallArgs& args, const Put& put) {
  if (args.positional.size() > 1) fail_with("TypeError: dict expected at most 1 argument");
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    require_defined(from);
    if (const Dict* dict = from.dict()) {
      for (const auto& [key, value] : dict->entries()) put(key, value);
    } else {
      for (const Value& pair : to_list(run, from)) {
        const List both = to_list(run, pair);
        if (both.size() != 2) fail_with("ValueError: dict() takes pairs");
        put(both[0], both[1]);
      }
    }
  }
  for (const auto& [key, value] : args.keyword) put(Value(key), value);
}

Value make_dict(Runtime& run, const CallArgs& args) {
  Dict dict;
  put_fields(run, args, [&](const Value& key, const Value& value) {
    run.charge_items(1);
    dict.set(key, value);
  });
  return Value::dict(std::move(dict));
}

Value make_namespace(Runtime& run, const CallArgs& args) {
  auto* fields = run.make<Namespace>();
  put_fields(run, args, [&](const Value& key, const Value& value) {
    if (!key.text()) fail_with("TypeError: the names in a namespace are strings");
    run.charge_items(1);
    fields->set(key.text()->text(), value);
  });
  return Value(fields);
}

Value raise_exception(Runtime&, const CallArgs& args) {
  const BoundArgs bound("raise_exception", args, {"message"});
  throw Failure{to_str(bound.need("message")).text(), true};
}

Value strftime_now(Runtime& run, const CallArgs& args) {
  const BoundArgs bound("strftime_now", args, {"format"});
  const MarkedText* format = bound.get_text("format");
  if (!format) fail_with("TypeError: strftime_now() needs a format string");
  constexpr size_t kMaxFormat = 1024;
  if (format->size() > kMaxFormat) fail_with("a format of strftime_now() over 1024 bytes");
  // A field is at most a few dozen bytes. The space tells an empty result from one that is too
  // long.
  std::string buffer(kMaxFormat * 64, '\0');
  const size_t size =
      std::strftime(buffer.data(), buffer.size(), (format->text() + " ").c_str(), &run.now());
  if (size == 0) fail_with("strftime_now() cannot write this format");
  return Value(std::string_view(buffer).substr(0, size - 1));
}

Value make_cycler(Runtime& run, const CallArgs& args) {
  if (args.positional.empty() || !args.keyword.empty()) {
    fail_with("RuntimeError: cycler() needs at least one item");
  }
  return Value(run.make<Cycler>(args.positional));
}

Value make_joiner(Runtime& run, const CallArgs& args) {
  const BoundArgs bound("joiner", args, {"sep"});
  const Value separator = bound.get("sep", ", ");
  return Value(run.make<NativeFunction>(
      "joiner", [separator, used = false](Runtime&, const CallArgs&) mutable {
        return std::exchange(used, true) ? separator : Value("");
      }));
}

Value lipsum(Runtime&, const CallArgs&) { fail_with("the function lipsum() is not supported"); }

constexpr auto kFunctions = std::to_array<Entry>({
    {"range", make_range},
    {"dict", make_dict},
    {"namespace", make_namespace},
    {"raise_exception", raise_exception},
    {"strftime_now", strftime_now},
    {"cycler", make_cycler},
    {"joiner", make_joiner},
    {"lipsum", lipsum},
});

}  // namespace

std::optional<Value> find_function(Runtime& run, std::string_view name) {
  const auto found = std::find_if(kFunctions.begin(), kFunctions.end(),
                                  [&](const Entry& entry) { return entry.name == name; });
  if (found == kFunctions.end()) return std::nullopt;
  return Value(run.make<NativeFunction>(std::string(name), found->call));
}

}  // namespace braid::text::jinja
