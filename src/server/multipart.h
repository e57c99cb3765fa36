#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/api_error.h"

namespace braid::server {

struct FormPart {
  std::string name;
  std::string file_name;  // "" where it has none
  std::string_view data;  // of the body
};

// The parts of a multipart/form-data body (RFC 7578), which must outlive them.
//
// Errors  400  another content type, no boundary, a part that does not end, more than 16 parts
ApiResult<std::vector<FormPart>> split_form(std::string_view content_type, std::string_view body);

}  // namespace braid::server
