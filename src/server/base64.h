#pragma once

#include <string>
#include <string_view>

namespace braid::server {

// Standard alphabet, with padding. False where it is not that.
bool base64_decode(std::string_view text, std::string& out);

}  // namespace braid::server
