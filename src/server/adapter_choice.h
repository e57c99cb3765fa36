#pragma once

#include <boost/asio/awaitable.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/api_error.h"
#include "server/backend.h"

namespace braid::server {

struct Services;

// The adapter that a request names: by `model` as the base model's name (none), an adapter's name,
// or "base:adapter", or by `lora_path`. "" is the base model. "default" and "" name it too.
//
// Errors  400  model and lora_path name different adapters
ApiResult<std::string> adapter_name(std::string_view model, const std::optional<std::string>& lora,
                                    const std::vector<std::string>& base_names);

// The adapter of that name ("" is the base model), or whose folder that is; with an adapter root
// one that lies there and is not known yet, too.
//
// Errors  404
boost::asio::awaitable<ApiResult<AdapterId>> find_adapter(Services& services, std::string name);

ApiError no_such_model(std::string_view name);

}  // namespace braid::server
