#include "server/adapter_choice.h"

#include <fmt/format.h>

#include <algorithm>

#include "server/services.h"
#include "server/worker.h"

namespace braid::server {
namespace {

// "" for the base model.
std::string_view adapter_of_model(std::string_view model,
                                  const std::vector<std::string>& base_names) {
  if (model.empty() || model == "default" || std::ranges::count(base_names, model) > 0) return {};
  for (const std::string& base : base_names) {
    if (model.size() > base.size() + 1 && model.starts_with(base) && model[base.size()] == ':')
      return model.substr(base.size() + 1);
  }
  return model;
}

}  // namespace

ApiError no_such_model(std::string_view name) {
  return {.status = 404,
          .message = fmt::format("The model `{}` does not exist.", name.substr(0, 256)),
          .param = "model"};
}

ApiResult<std::string> adapter_name(std::string_view model, const std::optional<std::string>& lora,
                                    const std::vector<std::string>& base_names) {
  const std::string_view by_model = adapter_of_model(model, base_names);
  if (!lora || lora->empty() || *lora == by_model) return std::string(by_model);
  if (by_model.empty()) return *lora;
  return tl::unexpected<ApiError>(
      {.message = fmt::format("model names the adapter \"{}\" and lora_path \"{}\"; name one",
                              by_model.substr(0, 256), lora->substr(0, 256)),
       .param = "lora_path"});
}

boost::asio::awaitable<ApiResult<AdapterId>> find_adapter(Services& services, std::string name) {
  if (name.empty()) co_return AdapterId::kBase;
  if (const auto id = services.backend.find_adapter(name)) co_return *id;
  for (const AdapterInfo& info : services.backend.adapters()) {
    if (info.source == name) co_return info.id;
  }
  if (!services.config.adapter_root.empty()) {
    Backend& backend = services.backend;
    auto resolve = [&backend, name] { return backend.resolve_adapter(name); };
    Result<AdapterId> found = co_await run_on(services.loader, std::move(resolve));
    if (found) co_return *found;
    if (found.error().code != ErrorCode::kNotFound)
      co_return tl::unexpected<ApiError>(to_api_error(found.error(), "model"));
  }
  co_return tl::unexpected<ApiError>(no_such_model(name));
}

}  // namespace braid::server
