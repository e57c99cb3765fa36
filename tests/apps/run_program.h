#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace braid::test {

struct ProgramResult {
  int status = -1;  // exit status; -1 where a signal or the time limit ended it
  std::string out;
  std::string err;
};

struct ProgramInput {
  std::string in;                                             // what stdin holds
  std::vector<std::pair<std::string, std::string>> env = {};  // set besides the test's own
  bool err_is_terminal = false;       // stderr is a pseudo-terminal, else a pipe
  size_t max_out = SIZE_MAX;          // closes the reading end of stdout after that many bytes
  std::filesystem::path out_to = {};  // stdout goes to this file instead
};

// Runs the built `braid` with these arguments, for at most a minute.
ProgramResult run_braid(const std::vector<std::string>& arguments, const ProgramInput& input = {});

// Folders of tests/data/goldens.
std::string golden_model(const std::string& name = "qwen3_bf16");
std::string golden_adapter(const std::string& name, const std::string& model = "qwen3_bf16");

// The JSON lines of a program's output.
std::vector<Json> json_lines(const std::string& text);

// A folder that is there while the object lives.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Writes a file and returns its path.
  std::string write(const std::string& name, std::string_view text) const;

 private:
  std::filesystem::path path_;
};

// The golden model with a tokenizer of one token for each printable ASCII character, a chat
// template and a generation_config.json of temperature 0 added to the folder.
void make_text_model(const TemporaryFolder& folder);

}  // namespace braid::test
