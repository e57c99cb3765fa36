#include "server/auth.h"

namespace braid::server {
namespace {

// Takes the same time wherever the difference is.
bool is_same_key(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i]) ^
                  static_cast<unsigned char>(b.empty() ? 0 : b[i % b.size()]);
  }
  return difference == 0;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

// "Bearer KEY", the scheme in any case. "" where it is something else.
std::string_view bearer_key(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() < kScheme.size()) return {};
  for (size_t i = 0; i < kScheme.size(); ++i) {
    if (lower(authorization[i]) != kScheme[i]) return {};
  }
  authorization.remove_prefix(kScheme.size());
  while (authorization.starts_with(' ')) authorization.remove_prefix(1);
  return authorization;
}

}  // namespace

bool Auth::may_use(Access access, std::string_view authorization) const {
  if (access == Access::kOpen) return true;
  const std::string_view key = bearer_key(authorization);
  if (!admin_key_.empty()) {
    if (is_same_key(key, admin_key_)) return true;
    if (access == Access::kControl) return false;
  }
  if (api_keys_.empty()) return true;
  bool is_known = false;
  for (const std::string& known : api_keys_) is_known |= is_same_key(key, known);
  return is_known;
}

}  // namespace braid::server
