#pragma once

#include <boost/asio/thread_pool.hpp>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <string_view>

#include "server/backend.h"
#include "server/event_hub.h"
#include "server/generation_request.h"
#include "server/metrics.h"
#include "server/server_config.h"

namespace braid::server {

// What the routes of one server share. On the IO thread only, but for the back end.
struct Services {
  Services(const ServerConfig& server_config, Backend& engine)
      : config(server_config),
        backend(engine),
        defaults({.sampling =
                      config.use_generation_config ? engine.default_sampling() : SamplingParams{},
                  .max_choices = config.max_choices}),
        metrics(config, engine),
        random((uint64_t{std::random_device{}()} << 32) | std::random_device{}()) {}

  // "cmpl-0123456789abcdef..."
  std::string new_id(std::string_view prefix);

  const ServerConfig config;
  Backend& backend;
  RequestDefaults defaults;
  EventHub hub;
  Metrics metrics;
  boost::asio::thread_pool parser{1};  // large bodies
  boost::asio::thread_pool loader{1};  // adapters
  std::mt19937_64 random;
  bool is_draining = false;
  std::function<int32_t()> num_connections;
  int64_t start_time = 0;  // Unix time, seconds
};

}  // namespace braid::server
