#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/http/message.h"

namespace braid::server {

// Who may do what. The admin key opens everything; without one, control routes take an API key;
// without any key, everything is open.
class Auth {
 public:
  Auth(std::vector<std::string> api_keys, std::string admin_key)
      : api_keys_(std::move(api_keys)), admin_key_(std::move(admin_key)) {}

  // `authorization` is the header, "Bearer KEY"; "" if there is none.
  bool may_use(Access access, std::string_view authorization) const;

 private:
  std::vector<std::string> api_keys_;
  std::string admin_key_;  // "": none
};

}  // namespace braid::server
