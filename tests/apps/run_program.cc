#include "tests/apps/run_program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "base/file.h"
#include "base/json.h"

extern char** environ;

namespace braid::test {
namespace {

namespace fs = std::filesystem;

// An end of a pipe or terminal; closed once.
struct Fd {
  int fd = -1;
  Fd() = default;
  explicit Fd(int of) : fd(of) {}
  Fd(Fd&& other) noexcept : fd(std::exchange(other.fd, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd, other.fd);
    return *this;
  }
  ~Fd() { close(); }
  void close() {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
};

struct Channel {
  Fd ours;
  Fd theirs;
};

Channel make_pipe(bool we_read) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
  if (!we_read) std::swap(ends[0], ends[1]);
  return {Fd(ends[0]), Fd(ends[1])};
}

Channel make_terminal() {
  int ours = -1, theirs = -1;
  if (::openpty(&ours, &theirs, nullptr, nullptr, nullptr) != 0)
    throw std::runtime_error("openpty failed");
  ::fcntl(ours, F_SETFD, FD_CLOEXEC);
  ::fcntl(theirs, F_SETFD, FD_CLOEXEC);
  return {Fd(ours), Fd(theirs)};
}

// Appends what there is; closes at the end. A terminal whose other side is gone reads as an error.
void read_some(Fd& from, std::string& to) {
  char buffer[16384];
  const ssize_t n = ::read(from.fd, buffer, sizeof buffer);
  if (n > 0) {
    to.append(buffer, static_cast<size_t>(n));
  } else {
    from.close();
  }
}

pid_t spawn(const std::vector<std::string>& arguments, const ProgramInput& input, int in, int out,
            int err) {
  std::vector<std::string> words = {BRAID_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> settings;
  for (char** entry = environ; *entry != nullptr; ++entry) settings.emplace_back(*entry);
  for (const auto& [name, value] : input.env) settings.push_back(name + "=" + value);
  const auto pointers = [](std::vector<std::string>& strings) {
    std::vector<char*> list;
    for (std::string& s : strings) list.push_back(s.data());
    list.push_back(nullptr);
    return list;
  };
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
  pid_t child = -1;
  const int error = ::posix_spawn(&child, BRAID_PROGRAM, &actions, nullptr, pointers(words).data(),
                                  pointers(settings).data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0)
    throw std::runtime_error(std::string("cannot start " BRAID_PROGRAM ": ") +
                             std::strerror(error));
  return child;
}

}  // namespace

ProgramResult run_braid(const std::vector<std::string>& arguments, const ProgramInput& input) {
  std::signal(SIGPIPE, SIG_IGN);  // it may end before it has read all
  Channel in = make_pipe(false), out = make_pipe(true);
  Channel err = input.err_is_terminal ? make_terminal() : make_pipe(true);
  Fd file;
  if (!input.out_to.empty()) {
    file = Fd(::open(input.out_to.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
    out.ours.close();
  }
  const pid_t child =
      spawn(arguments, input, in.theirs.fd, file.fd >= 0 ? file.fd : out.theirs.fd, err.theirs.fd);
  in.theirs.close(), out.theirs.close(), err.theirs.close();

  ProgramResult result;
  size_t written = 0;
  if (input.in.empty()) in.ours.close();
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (out.ours.fd >= 0 || err.ours.fd >= 0) {
    if (std::chrono::steady_clock::now() > end) ::kill(child, SIGKILL);
    pollfd polled[] = {
        {in.ours.fd, POLLOUT, 0}, {out.ours.fd, POLLIN, 0}, {err.ours.fd, POLLIN, 0}};
    ::poll(polled, 3, 1000);
    if (polled[0].revents != 0) {
      const size_t size = std::min<size_t>(input.in.size() - written, 4096);
      const ssize_t n = ::write(in.ours.fd, input.in.data() + written, size);
      if (n > 0) written += static_cast<size_t>(n);
      if (n <= 0 || written == input.in.size()) in.ours.close();
    }
    if (polled[1].revents != 0) {
      read_some(out.ours, result.out);
      if (result.out.size() >= input.max_out) out.ours.close();
    }
    if (polled[2].revents != 0) read_some(err.ours, result.err);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status)) result.status = WEXITSTATUS(status);
  return result;
}

std::string golden_model(const std::string& name) {
  return std::string(BRAID_TEST_DATA_DIR) + "/goldens/" + name;
}

std::string golden_adapter(const std::string& name, const std::string& model) {
  return golden_model(model) + "/adapters/" + name;
}

std::vector<Json> json_lines(const std::string& text) {
  std::vector<Json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(parse_json(line).value());
  return lines;
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "braid_apps_test_XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string TemporaryFolder::write(const std::string& name, std::string_view text) const {
  const auto written = write_file(path_ / name, text);
  EXPECT_TRUE(written.has_value()) << written.error().message;
  return (path_ / name).string();
}

void make_text_model(const TemporaryFolder& folder) {
  for (const auto& entry : fs::directory_iterator(golden_model())) {
    if (entry.is_regular_file() && entry.path().filename() != "generation_config.json")
      fs::create_symlink(entry.path(), folder.path() / entry.path().filename());
  }
  Json vocab = Json::object();
  vocab["\u0120"] = 3;  // how byte-level vocabularies write a space
  for (int c = '!'; c <= '~'; ++c) vocab[std::string(1, static_cast<char>(c))] = c - '!' + 4;
  const Json end = {
      {"id", 2},         {"content", "<end>"}, {"special", true},     {"normalized", false},
      {"lstrip", false}, {"rstrip", false},    {"single_word", false}};
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  folder.write("tokenizer.json",
               Json({{"version", "1.0"},
                     {"added_tokens", Json::array({end})},
                     {"pre_tokenizer", byte_level},
                     {"decoder", byte_level},
                     {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}})
                   .dump());
  folder.write("tokenizer_config.json", R"({"eos_token": "<end>"})");
  folder.write("chat_template.jinja",
               "{% for m in messages %}{{ m.role }}: {{ m.content }}<end>{% endfor %}"
               "{% if tools %}[{{ tools | length }} tools]{% endif %}"
               "{% if enable_thinking %}<think>{% endif %}");
  folder.write("generation_config.json", R"({"eos_token_id": 2, "temperature": 0.0})");
}

}  // namespace braid::test
