// The server over real sockets, with a back end that has no model: what the Python tests cannot see
// (leaks of requests, memory errors under a sanitizer), and random requests.
//
// BRAID_FUZZ_SECONDS sets how long the random requests go on, and makes them others each time.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "server/server.h"
#include "tests/server/null_backend.h"

namespace braid::server {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

class Client {
 public:
  explicit Client(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const timeval limit = {.tv_sec = 5, .tv_usec = 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void send(std::string_view bytes) {
    [[maybe_unused]] const auto sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  void end_sending() { ::shutdown(socket_, SHUT_WR); }
  // Until `mark` is in what came, or the server closes.
  std::string read_until(std::string_view mark) {
    std::string text;
    char buffer[4096];
    while (text.find(mark) == text.npos) {
      const ssize_t size = ::recv(socket_, buffer, sizeof(buffer), 0);
      if (size <= 0) break;
      text.append(buffer, static_cast<size_t>(size));
    }
    return text;
  }
  std::string read_all() { return read_until("\xff\xff no answer has this"); }

 private:
  int socket_;
};

std::string post(std::string_view path, std::string_view body, std::string_view headers = "") {
  return fmt::format("POST {} HTTP/1.1\r\nHost: h\r\n{}Content-Length: {}\r\n\r\n{}", path, headers,
                     body.size(), body);
}

class HttpServerTest : public testing::Test {
 protected:
  HttpServerTest() {
    EXPECT_TRUE(server_.listen().has_value());
    port_ = static_cast<uint16_t>(std::stoi(server_.url().substr(server_.url().rfind(':') + 1)));
    thread_ = std::thread([this] { server_.run(); });
  }
  ~HttpServerTest() override {
    server_.stop();
    thread_.join();
  }
  static ServerConfig config() {
    ServerConfig config = {.port = 0, .model_names = {"base"}};
    config.limits.header_timeout = config.limits.body_timeout = milliseconds(300);
    config.limits.max_body_bytes = size_t{1} << 20;
    config.drain_timeout = milliseconds(2000);
    return config;
  }
  bool becomes_idle() {
    const auto limit = Clock::now() + std::chrono::seconds(2);
    while (backend_.num_active() > 0 && Clock::now() < limit)
      std::this_thread::sleep_for(milliseconds(1));
    return backend_.num_active() == 0;
  }

  test::NullBackend backend_{std::chrono::microseconds(1000), {"sql"}};
  Server server_{config(), backend_};
  uint16_t port_ = 0;
  std::thread thread_;
};

TEST_F(HttpServerTest, KeepsAConnectionForManyRequests) {
  Client client(port_);
  for (int i = 0; i < 3; ++i) {
    client.send(post("/v1/completions", R"({"prompt": "a", "max_tokens": 2})"));
    const std::string answer = client.read_until("\"usage\"");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
    EXPECT_NE(answer.find(" tok tok"), answer.npos);
  }
}

TEST_F(HttpServerTest, ADroppedClientEndsItsRequests) {
  for (const char* stream : {"true", "false"}) {
    {
      Client client(port_);
      client.send(post("/v1/completions",
                       fmt::format(R"({{"prompt": ["a", "b"], "n": 2, "max_tokens": 1000000,
                                       "stream": {}}})",
                                   stream)));
      while (backend_.num_active() < 4) std::this_thread::sleep_for(milliseconds(1));
    }
    EXPECT_TRUE(becomes_idle()) << stream;
  }
}

TEST_F(HttpServerTest, ClosingTheSendingSideIsLeaving) {
  Client client(port_);
  client.send(
      post("/generate", R"({"text": "a", "sampling_params": {"max_new_tokens": 1000000}})"));
  while (backend_.num_active() == 0) std::this_thread::sleep_for(milliseconds(1));
  client.end_sending();
  EXPECT_TRUE(becomes_idle());
}

TEST_F(HttpServerTest, ARefusedChoiceTakesTheOthersWithIt) {
  Client client(port_);
  client.send(post("/generate", R"({"text": ["a", "b"], "sampling_params":
    [{"max_new_tokens": 1000000}, {"max_new_tokens": -1}]})"));
  EXPECT_TRUE(client.read_until("}}").starts_with("HTTP/1.1 400"));
  EXPECT_TRUE(becomes_idle());
}

TEST_F(HttpServerTest, StreamsEveryEvent) {
  // The last event often comes while the one before it is being written.
  constexpr int kStreams = 40, kTokens = 25;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<Client>(port_));
    clients.back()->send(
        post("/v1/completions", R"({"prompt": "a", "max_tokens": 25, "stream": true})"));
  }
  for (const auto& client : clients) {
    const std::string answer = client->read_until("[DONE]");
    int num_events = 0;
    for (size_t at = 0; (at = answer.find("data: {", at)) != answer.npos; ++at) ++num_events;
    EXPECT_EQ(num_events, kTokens);
    EXPECT_NE(answer.find(R"("finish_reason":"length")"), answer.npos);
  }
}

TEST_F(HttpServerTest, SaysThatARequestCameTooSlowly) {
  Client header(port_), body(port_);
  header.send("GET /hea");
  body.send("POST /generate HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_TRUE(header.read_all().starts_with("HTTP/1.1 408"));
  EXPECT_TRUE(body.read_all().starts_with("HTTP/1.1 408"));
}

TEST_F(HttpServerTest, SpeaksHttp10WithoutChunks) {
  Client client(port_);
  const std::string body = R"({"prompt": "a", "max_tokens": 2, "stream": true})";
  client.send(fmt::format("POST /v1/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}",
                          body.size(), body));
  const std::string answer = client.read_all();
  EXPECT_EQ(answer.find("chunked"), answer.npos);
  EXPECT_TRUE(answer.ends_with("}\n\ndata: [DONE]\n\n")) << answer;
}

TEST_F(HttpServerTest, RefusesPagesOfOtherSites) {
  const auto status = [&](std::string_view headers) {
    Client client(port_);
    client.send(post("/v1/completions", R"({"prompt": "a", "max_tokens": 1})", headers));
    return client.read_until("\r\n\r\n").substr(9, 3);
  };
  EXPECT_EQ(status("Origin: http://evil.example\r\n"), "403");
  EXPECT_EQ(status("Origin: null\r\n"), "403");
  EXPECT_EQ(status("Origin: http://h\r\n"), "200");
  EXPECT_EQ(status(""), "200");
}

TEST_F(HttpServerTest, StopsWithStreamsUnderWay) {
  Client client(port_);
  client.send(post("/v1/completions", R"({"prompt": "a", "max_tokens": 1000000, "stream": true})"));
  client.read_until("tok");
  server_.stop();
  const auto start = Clock::now();
  client.read_all();
  EXPECT_LT(Clock::now() - start, milliseconds(4500));
  EXPECT_TRUE(becomes_idle());
}

// --- random requests
// ------------------------------------------------------------------------------

const std::vector<std::string>& seeds() {
  static const std::vector<std::string> kSeeds = {
      post("/v1/completions", R"({"model": "sql", "prompt": ["a", "b"], "n": 2, "max_tokens": 3,
        "logprobs": 1, "echo": true, "stop": ["x"], "stream": true, "seed": 3})"),
      post("/v1/chat/completions", R"({"model": "base:sql", "messages": [{"role": "user", "content":
        [{"type": "text", "text": "hi"}]}], "max_tokens": 3, "logprobs": true, "top_logprobs": 2,
        "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}})"),
      post("/generate", R"({"text": ["a", "b"], "lora_path": ["sql", null], "sampling_params":
        {"max_new_tokens": 2, "n": 2}, "return_logprob": true, "logprob_start_len": 0, "rid": "x"})"),
      post("/generate", R"({"input_ids": [[1, 2], [3]], "sampling_params": [{}, {"top_k": -1}]})"),
      post("/tokenize", R"({"messages": [{"role": "assistant", "tool_calls": [{"function":
        {"arguments": "{}"}}]}], "return_token_strs": true})"),
      post("/detokenize", R"({"tokens": [1, 2, 255]})"),
      post("/v1/load_lora_adapter",
           R"({"lora_name": "a", "lora_path": "b", "load_inplace": true})"),
      post("/load_lora_adapter_from_tensors", R"({"lora_name": "a", "config_dict": {},
        "serialized_tensors": ["TWFu", "TQ=="], "load_format": "safetensors"})"),
      post("/abort_request", R"({"rid": "x", "abort_all": true})"),
      "PUT /v1/adapters/a HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=B\r\n"
      "Content-Length: 70\r\n\r\n--B\r\nContent-Disposition: form-data; "
      "name=\"pinned\"\r\n\r\ntrue\r\n"
      "--B--\r\n",
      "POST /v1/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
      "10\r\n{\"prompt\": \"abc\"\r\n1\r\n}\r\n0\r\n\r\n",
      "GET /v1/models/%61 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer x\r\n\r\n",
      "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\nGET /v1/adapters HTTP/1.0\r\n\r\n"};
  return kSeeds;
}

std::string mutate(std::string text, std::mt19937_64& random) {
  static const std::vector<std::string> kPieces = {"null",
                                                   "-1",
                                                   "1e999",
                                                   "[]",
                                                   "{}",
                                                   "[[[[",
                                                   "\"",
                                                   "\\u0000",
                                                   "\xff",
                                                   "\r\n",
                                                   "\r\n\r\n",
                                                   "0",
                                                   "99999999999999999999",
                                                   "true",
                                                   "%00",
                                                   "..",
                                                   ":",
                                                   ",",
                                                   "--B",
                                                   "data: ",
                                                   "Content-Length: 5\r\n"};
  const auto pick = [&](size_t end) {
    return static_cast<size_t>(random() % std::max<size_t>(end, 1));
  };
  for (size_t i = pick(4); i-- > 0;) {
    const size_t at = pick(text.size());
    switch (random() % 5) {
      case 0:
        text.erase(at, pick(20));
        break;
      case 1:
        text.insert(at, kPieces[pick(kPieces.size())]);
        break;
      case 2:
        if (!text.empty()) text[at] = static_cast<char>(random());
        break;
      case 3:
        text.replace(at, std::min<size_t>(pick(8), text.size() - at),
                     kPieces[pick(kPieces.size())]);
        break;
      case 4: {
        const std::string& other = seeds()[pick(seeds().size())];
        text = text.substr(0, at) + other.substr(pick(other.size()));
        break;
      }
    }
  }
  // The length is made right more often than not, so that what is behind it is reached.
  const size_t body = text.find("\r\n\r\n");
  const size_t length = text.find("Content-Length: ");
  if (random() % 4 != 0 && body != text.npos && length < body) {
    const size_t end = text.find("\r\n", length);
    text.replace(length + 16, end - length - 16, std::to_string(text.size() - body - 4));
  }
  return text;
}

TEST_F(HttpServerTest, SurvivesRandomRequests) {
  const char* setting = std::getenv("BRAID_FUZZ_SECONDS");
  const auto limit = Clock::now() + std::chrono::seconds(setting ? std::atoi(setting) : 2);
  const uint64_t seed = setting ? std::random_device{}() : 1;
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  int64_t num_sent = 0;
  while (Clock::now() < limit) {
    Client client(port_);
    client.send(mutate(seeds()[random() % seeds().size()], random));
    if (random() % 2 == 0) client.end_sending();
    if (random() % 8 != 0) client.read_until("\r\n\r\n");
    ++num_sent;
    if (num_sent % 200 == 0) {
      Client sane(port_);
      sane.send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
      ASSERT_TRUE(sane.read_until("\r\n\r\n").starts_with("HTTP/1.1 200")) << num_sent;
    }
  }
  RecordProperty("requests", static_cast<int>(num_sent));
  EXPECT_TRUE(becomes_idle());
}

}  // namespace
}  // namespace braid::server
