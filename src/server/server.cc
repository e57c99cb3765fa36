#include "server/server.h"

#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <csignal>
#include <exception>
#include <utility>

#include "server/http/http_server.h"
#include "server/routes.h"
#include "server/services.h"
#include "server/web/web_routes.h"

namespace braid::server {

namespace asio = boost::asio;
using boost::system::error_code;

struct Server::Impl {
  Impl(ServerConfig config, Backend& backend, std::function<void(const ExchangeRecord&)> on_line)
      : services(config, backend),
        log(std::move(on_line)),
        http(io, router, Auth(config.api_keys, config.admin_key), config.limits,
             [this](const ExchangeRecord& record) {
               services.metrics.count(record);
               if (log) log(record);
             }),
        signals(io),
        drain_timer(io) {
    services.start_time = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    services.num_connections = [this] { return http.num_connections(); };
    add_generation_routes(router, services);
    add_model_routes(router, services);
    add_text_routes(router, services);
    add_adapter_routes(router, services);
    add_control_routes(router, services);
    add_web_routes(router);
  }

  void wait_for_signal() {
    signals.async_wait([this](const error_code& error, int) {
      if (error) return;
      if (services.is_draining) {
        finish();
      } else {
        wait_for_signal();
        drain();
      }
    });
  }

  void drain() {
    if (std::exchange(services.is_draining, true)) return;
    drain_timer.expires_after(services.config.drain_timeout);
    drain_timer.async_wait([this](const error_code& error) {
      if (!error) finish();
    });
    http.drain([this] { finish(); });
  }

  // With nothing left to wait for, run() returns.
  void finish() {
    http.close_all();
    drain_timer.cancel();
    error_code ignored;
    signals.cancel(ignored);
  }

  asio::io_context io{1};
  Services services;
  std::function<void(const ExchangeRecord&)> log;
  Router router;
  HttpServer http;
  asio::signal_set signals;
  asio::steady_timer drain_timer;
};

Server::Server(ServerConfig config, Backend& backend,
               std::function<void(const ExchangeRecord&)> log)
    : impl_(std::make_unique<Impl>(std::move(config), backend, std::move(log))) {
  backend.set_on_events([impl = impl_.get()](std::vector<Event> events) {
    asio::post(impl->io, [impl, moved = std::move(events)]() mutable {
      impl->services.hub.deliver(std::move(moved));
    });
  });
}

Server::~Server() {
  impl_->services.backend.set_on_events({});
  // Connections live in coroutines that point into the server: let them end.
  impl_->finish();
  impl_->io.restart();
  impl_->io.run();
}

Status Server::listen() {
  return impl_->http.listen(impl_->services.config.host, impl_->services.config.port);
}

std::string Server::url() const {
  const std::string& host = impl_->services.config.host;
  const bool is_v6 = host.find(':') != host.npos;
  return fmt::format("http://{}{}{}:{}", is_v6 ? "[" : "", host, is_v6 ? "]" : "",
                     impl_->http.port());
}

void Server::run() {
  for (;;) {
    try {
      impl_->io.run();
      return;
    } catch (const std::exception& error) {
      // One client's; the others go on.
      if (impl_->log) impl_->log({.error = fmt::format("on the IO thread: {}", error.what())});
    }
  }
}

void Server::handle_signals() {
  impl_->signals.add(SIGTERM);
  impl_->signals.add(SIGINT);
  impl_->wait_for_signal();
}

void Server::stop() {
  asio::post(impl_->io, [impl = impl_.get()] { impl->drain(); });
}

}  // namespace braid::server
