#include "base/json.h"

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/file.h"

namespace braid {
namespace {

// Forwards to nlohmann's DOM builder, but stops at the first object key seen twice and at the depth
// limit, so that no deep or ambiguous tree is ever built.
class StrictBuilder : public nlohmann::detail::json_sax_dom_parser<Json> {
 public:
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;
  StrictBuilder(Json& out, int max_depth) : Base(out, false), max_depth_(max_depth) {}

  bool start_object(size_t size) {
    keys_.emplace_back();
    return enter() && Base::start_object(size);
  }
  bool end_object() {
    keys_.pop_back();
    --depth_;
    return Base::end_object();
  }
  bool start_array(size_t size) { return enter() && Base::start_array(size); }
  bool end_array() {
    --depth_;
    return Base::end_array();
  }
  bool key(std::string& value) {
    if (!keys_.back().insert(value).second) {
      problem_ = fmt::format("key \"{}\" stands twice in one object", value.substr(0, 200));
      return false;
    }
    return Base::key(value);
  }
  template <class Exception>
  bool parse_error(size_t position, const std::string&, const Exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..." -> what follows.
    std::string what = error.what();
    if (const auto at = what.find("] "); at != what.npos) what.erase(0, at + 2);
    problem_ = fmt::format("not valid JSON at byte {}: {}", position, what.substr(0, 300));
    return false;
  }

  const std::string& problem() const { return problem_; }

 private:
  bool enter() {
    if (++depth_ <= max_depth_) return true;
    problem_ = fmt::format("nested deeper than {} levels", max_depth_);
    return false;
  }

  int max_depth_;
  int depth_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string problem_;
};

}  // namespace

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return fail(ErrorCode::kInvalidArgument, "JSON text is {} bytes, at most {} are accepted",
                text.size(), limits.max_bytes);
  }
  Json out;
  StrictBuilder builder(out, limits.max_depth);
  if (!Json::sax_parse(text, &builder)) {
    return fail(ErrorCode::kCorrupt, "{}", builder.problem());
  }
  return out;
}

Result<Json> read_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  auto text = read_file(path, limits.max_bytes);
  if (!text) return pass_on(text);
  auto json = parse_json(*text, limits);
  if (!json) return pass_on(json, path.string());
  return json;
}

}  // namespace braid
