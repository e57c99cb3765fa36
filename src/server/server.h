#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "server/backend.h"
#include "server/request_log.h"
#include "server/server_config.h"

namespace braid::server {

// The HTTP server over a back end: listens, serves, and leaves in good order.
class Server {
 public:
  // `log` takes a line an exchange, on the IO thread; it must not block. The back end must outlive
  // the server.
  Server(ServerConfig config, Backend& backend,
         std::function<void(const ExchangeRecord&)> log = {});
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Errors  kIo
  Status listen();
  std::string url() const;

  // Serves on this thread until stop(), or SIGTERM or SIGINT where they are handled: requests under
  // way are answered for config.drain_timeout, then cut off; a second signal cuts them off at once.
  void run();
  void handle_signals();

  // From any thread.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace braid::server
