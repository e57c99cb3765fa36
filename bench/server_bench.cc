// Many clients that read event streams from a server whose back end has no model: what the HTTP
// side alone can carry. Server, back end and clients share this process and machine.
//
// Exit status 1 where a stream was cut off, an event lost, or dropped clients were not freed.

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/server.h"
#include "tests/server/null_backend.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Stream {
 public:
  Stream(uint16_t port, const std::string& model, int64_t max_tokens) {
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
      throw std::runtime_error(fmt::format("connect: {}", std::strerror(errno)));
    const std::string body =
        fmt::format(R"({{"model": "{}", "prompt": "hello", "max_tokens": {}, "stream": true}})",
                    model, max_tokens);
    const std::string request =
        fmt::format("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}",
                    body.size(), body);
    if (::write(socket_, request.data(), request.size()) != static_cast<ssize_t>(request.size()))
      throw std::runtime_error("short write of a request");
  }
  ~Stream() { close(); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int socket() const { return socket_; }
  int64_t num_events() const { return num_events_; }
  bool is_done() const { return is_done_; }
  void close() {
    if (socket_ >= 0) ::close(std::exchange(socket_, -1));
  }

  // Reads what is there. False at the end of the stream.
  bool read(std::vector<float>& delays_ms) {
    char buffer[65536];
    const ssize_t size = ::recv(socket_, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return true;
    if (size <= 0) return false;
    constexpr std::string_view kEvent = "data: {";
    rest_.append(buffer, static_cast<size_t>(size));
    const std::string text = std::exchange(rest_, {});
    if (text.find("[DONE]") != text.npos) is_done_ = true;
    // What may be the begin of a mark is looked at again with what comes next.
    rest_ = text.substr(text.size() - std::min(text.size(), kEvent.size() - 1));
    for (size_t at = 0; (at = text.find(kEvent, at)) != text.npos; at += kEvent.size()) {
      const auto now = Clock::now();
      if (num_events_++ > 0)
        delays_ms.push_back(std::chrono::duration<float, std::milli>(now - last_).count());
      last_ = now;
    }
    return !is_done_;
  }

 private:
  int socket_ = -1;
  std::string rest_;
  int64_t num_events_ = 0;
  bool is_done_ = false;
  Clock::time_point last_;
};

double cpu_seconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + t.tv_usec * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

float percentile(std::vector<float>& values, double share) {
  if (values.empty()) return 0;
  const auto place =
      values.begin() + static_cast<ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

std::string model_of(size_t stream) {
  return stream % 9 == 0 ? "base" : fmt::format("adapter{}", stream % 9 - 1);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The HTTP server under many event streams, without a model");
  size_t num_streams = 1000, num_dropped = 250;
  int64_t step_ms = 20;
  double seconds = 10;
  app.add_option("--streams", num_streams)->capture_default_str();
  app.add_option("--dropped", num_dropped, "Clients that leave in the middle")
      ->capture_default_str();
  app.add_option("--step-ms", step_ms, "Between events of a stream")->capture_default_str();
  app.add_option("--seconds", seconds, "Length of a stream")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  rlimit files = {};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);

  std::vector<std::string> adapters;
  for (int i = 0; i < 8; ++i) adapters.push_back(fmt::format("adapter{}", i));
  braid::test::NullBackend backend(milliseconds(step_ms), adapters);
  braid::server::ServerConfig config = {.port = 0, .model_names = {"base"}};
  braid::server::Server server(config, backend);
  if (auto status = server.listen(); !status) {
    fmt::print(stderr, "{}\n", status.error().message);
    return 1;
  }
  const auto port =
      static_cast<uint16_t>(std::stoi(server.url().substr(server.url().rfind(':') + 1)));
  std::thread io([&] { server.run(); });

  const auto max_tokens = static_cast<int64_t>(seconds * 1000 / static_cast<double>(step_ms));
  std::vector<float> delays_ms;
  delays_ms.reserve(num_streams * static_cast<size_t>(max_tokens));
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  std::vector<std::unique_ptr<Stream>> streams;
  const double cpu_before = cpu_seconds();
  const auto start = Clock::now();
  for (size_t i = 0; i < num_streams; ++i) {
    streams.push_back(std::make_unique<Stream>(port, model_of(i), max_tokens));
    epoll_event event = {.events = EPOLLIN, .data = {.ptr = streams.back().get()}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, streams.back()->socket(), &event);
  }
  size_t num_open = num_streams, num_cut = 0;
  std::vector<epoll_event> ready(256);
  while (num_open > 0) {
    const int count = epoll_wait(epoll, ready.data(), static_cast<int>(ready.size()), 5000);
    if (count <= 0) break;
    for (int i = 0; i < count; ++i) {
      auto* stream = static_cast<Stream*>(ready[i].data.ptr);
      if (stream->read(delays_ms)) continue;
      if (!stream->is_done()) ++num_cut;
      epoll_ctl(epoll, EPOLL_CTL_DEL, stream->socket(), nullptr);
      --num_open;
    }
  }
  const double wall = seconds_since(start);
  int64_t num_events = 0;
  for (const auto& stream : streams) num_events += stream->num_events();
  fmt::print("{} streams, a step each {} ms: {} events in {:.2f} s, {:.0f} events/s\n", num_streams,
             step_ms, num_events, wall, static_cast<double>(num_events) / wall);
  const float p50 = percentile(delays_ms, 0.5), p99 = percentile(delays_ms, 0.99);
  fmt::print("between events: p50 {:.1f} ms, p99 {:.1f} ms, largest {:.1f} ms\n", p50, p99,
             percentile(delays_ms, 1.0));
  fmt::print("CPU, server and clients together: {:.2f} of {} cores\n",
             (cpu_seconds() - cpu_before) / wall, std::thread::hardware_concurrency());
  const int64_t num_lost = static_cast<int64_t>(num_streams) * max_tokens - num_events;
  fmt::print("streams cut off: {}, events lost: {}\n", num_cut + num_open, num_lost);
  streams.clear();

  for (size_t i = 0; i < num_dropped; ++i)
    streams.push_back(std::make_unique<Stream>(port, model_of(i), 1'000'000));
  while (backend.num_active() < static_cast<int32_t>(num_dropped))
    std::this_thread::sleep_for(milliseconds(5));
  std::this_thread::sleep_for(milliseconds(200));
  const auto left = Clock::now();
  streams.clear();
  while (backend.num_active() > 0 && seconds_since(left) < 10)
    std::this_thread::sleep_for(milliseconds(1));
  const double freed = seconds_since(left);
  fmt::print("{} clients dropped: freed in {:.3f} s, {} left\n", num_dropped, freed,
             backend.num_active());
  const bool is_good = num_cut + num_open == 0 && num_lost == 0 && backend.num_active() == 0;
  server.stop();
  io.join();
  ::close(epoll);
  return is_good ? 0 : 1;
}
