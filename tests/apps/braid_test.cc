// The program itself, on golden folders: exit statuses, what is written where, and every command's
// help.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/json.h"
#include "tests/apps/run_program.h"

namespace braid::test {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::vector<std::vector<std::string>> kCommands = {
    {},           {"serve"}, {"generate"},        {"validate"},         {"inspect"},
    {"quantize"}, {"bench"}, {"bench", "decode"}, {"bench", "prefill"}, {"bench", "mixed"}};

std::string joined(const std::vector<std::string>& words) {
  std::string text = "braid";
  for (const std::string& word : words) text += " " + word;
  return text;
}

TEST(Braid, ServesNoAdapterUnderTheNameOfTheModel) {
  const auto result = run_braid({"serve", golden_model(), "--served-model-name", "m", "--lora",
                                 "m=" + golden_adapter("tinker")});
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, HasSubstr("--lora: the name \"m\" means the base model"));
}

TEST(Braid, HasHelpForEveryCommand) {
  for (std::vector<std::string> command : kCommands) {
    const std::string name = joined(command);
    command.emplace_back("--help");
    const auto help = run_braid(command);
    EXPECT_EQ(help.status, 0) << name;
    EXPECT_THAT(help.out, HasSubstr("Usage: " + name));
    EXPECT_EQ(help.err, "");
    EXPECT_EQ(help.out.find('\x1b'), std::string::npos);
    // Groups of commands list them, commands have examples.
    const bool is_group = name == "braid" || name == "braid bench";
    EXPECT_THAT(help.out, HasSubstr(is_group ? "Subcommands:" : "Example"));
  }
  EXPECT_THAT(run_braid({"--version"}).out, HasSubstr("braid 0."));
}

TEST(Braid, NamesTheHelpOfTheCommandThatWasMeant) {
  const auto expect = [](const std::vector<std::string>& arguments, const std::string& hint) {
    const auto result = run_braid(arguments);
    EXPECT_EQ(result.status, 2) << joined(arguments);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, HasSubstr("Try: " + hint + " --help\n"));
  };
  expect({}, "braid");
  expect({"unheard-of"}, "braid");
  expect({"validate"}, "braid validate");
  expect({"bench", "decode"}, "braid bench decode");
  expect({"inspect", "a", "--unheard-of"}, "braid inspect");
  expect({"generate", "m", "--max-tokens", "2.9"}, "braid generate");
  expect({"generate", "m", "--max-tokens", "4294967299"}, "braid generate");
  expect({"generate", "m", "--logit-bias", "5"}, "braid generate");
}

TEST(Braid, GoesQuietlyWhenItsReaderHasGone) {
  const auto inspected = run_braid({"inspect", golden_model()}, {.max_out = 1});
  EXPECT_EQ(inspected.status, 0);
  EXPECT_EQ(inspected.err, "");
  // Short requests end while long ones run: those must not be waited for.
  std::string lines;
  for (int i = 0; i < 60; ++i)
    lines += Json({{"prompt", {1, 2, 3}}, {"max_tokens", i < 20 ? 1 + i : 250}}).dump() + "\n";
  const auto generated =
      run_braid({"generate", golden_model(), "--input", "-", "--json", "--threads", "1"},
                {.in = lines, .max_out = 1});
  EXPECT_EQ(generated.status, 0);
  EXPECT_THAT(generated.err, Not(HasSubstr("bug")));
  EXPECT_THAT(generated.err, Not(HasSubstr("failed")));
}

TEST(Braid, FailsWhenItsOutputCannotBeWritten) {
  const auto result = run_braid({"inspect", golden_model()}, {.out_to = "/dev/full"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("No space left on device"));
  EXPECT_THAT(result.err, Not(HasSubstr("bug")));
}

TEST(Braid, PaintsATerminalUnlessToldNotTo) {
  const std::vector<std::string> arguments = {"generate", golden_model(), "--input", "-",
                                              "--json",   "--threads",    "1"};
  const std::string line = R"({"prompt": [1, 2], "max_tokens": 2})";
  const auto painted =
      run_braid(arguments, {.in = line, .env = {{"TERM", "xterm"}}, .err_is_terminal = true});
  EXPECT_EQ(painted.status, 0);
  EXPECT_THAT(painted.err, HasSubstr("\x1b[32m"));
  EXPECT_THAT(painted.err, HasSubstr("\x1b[K"));  // redrawn in place
  const auto plain = run_braid(
      arguments,
      {.in = line, .env = {{"TERM", "xterm"}, {"NO_COLOR", "1"}}, .err_is_terminal = true});
  EXPECT_EQ(plain.status, 0);
  EXPECT_THAT(plain.err, Not(HasSubstr("\x1b[32m")));
  const auto piped = run_braid(arguments, {.in = line, .env = {{"TERM", "xterm"}}});
  EXPECT_EQ(piped.err.find_first_of("\x1b\r"), std::string::npos);
  EXPECT_THAT(piped.err, HasSubstr("load model: done in"));
}

TEST(BraidInspect, ShowsModelsAndAdapters) {
  const auto model = run_braid({"inspect", golden_model()});
  EXPECT_EQ(model.status, 0);
  EXPECT_THAT(model.out, HasSubstr("Qwen3MoeForCausalLM, 2 layers"));
  const auto json = run_braid({"inspect", golden_model(), "--json"});
  EXPECT_TRUE(parse_json(json.out).has_value()) << json.out;
  const auto adapter = run_braid({"inspect", golden_adapter("tinker")});
  EXPECT_EQ(adapter.status, 0);
  EXPECT_THAT(adapter.out, HasSubstr("braid validate "));
  const auto none = run_braid({"inspect", "/not/there"});
  EXPECT_EQ(none.status, 1);
  EXPECT_THAT(none.err, HasSubstr("braid: /not/there"));
}

TEST(BraidInspect, TakesAFolderWithOnlyAConfig) {
  for (const char* config : {"Qwen3-30B-A3B", "Mixtral-8x7B"}) {
    const auto result = run_braid({"inspect", std::string(BRAID_SOURCE_DIR "/configs/") + config});
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("No weights in this folder"));
  }
}

TEST(BraidValidate, SaysWhetherAnAdapterWorks) {
  const auto works = run_braid({"validate", golden_adapter("tinker"), "--model", golden_model()});
  EXPECT_EQ(works.status, 0);
  EXPECT_THAT(works.out, HasSubstr("works with"));
  const auto json =
      run_braid({"validate", golden_adapter("tinker"), "--model", golden_model(), "--json"});
  EXPECT_EQ(parse_json(json.out).value()["valid"], true);

  const std::vector<std::string> other = {"validate", golden_adapter("tinker"), "--model",
                                          golden_model("mixtral_bf16")};
  const auto fails = run_braid(other);
  EXPECT_EQ(fails.status, 1);
  EXPECT_THAT(fails.err, HasSubstr("cannot be used with"));
  auto with_json = other;
  with_json.emplace_back("--json");
  const auto fails_json = run_braid(with_json);
  EXPECT_EQ(fails_json.status, 1);
  EXPECT_EQ(parse_json(fails_json.out).value()["valid"], false);
}

TEST(BraidQuantize, WritesAModelThatGenerates) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "fp8").string();
  const auto made = run_braid({"quantize", golden_model(), "--format", "fp8", "--out", out});
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_THAT(made.out, HasSubstr("relative error"));
  EXPECT_THAT(made.err, HasSubstr("quantize: done"));
  const auto used = run_braid({"generate", out, "--input", "-", "--json", "--threads", "1"},
                              {.in = R"({"prompt": [1, 2, 3], "max_tokens": 3})"});
  EXPECT_EQ(used.status, 0) << used.err;
}

TEST(BraidQuantize, SaysNothingOfDoneWhenItFails) {
  const TemporaryFolder folder;
  folder.write("taken", "x");
  const auto taken =
      run_braid({"quantize", golden_model(), "--format", "fp8", "--out", folder.path().string()});
  EXPECT_EQ(taken.status, 1);
  EXPECT_THAT(taken.err, Not(HasSubstr("done")));
  EXPECT_THAT(taken.err, HasSubstr(folder.path().string()));
}

TEST(BraidBench, LabelsAdaptersWithTheirOwnRanks) {
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "bench.json").string();
  const auto result = run_braid({"bench",
                                 "decode",
                                 golden_model(),
                                 "--lora",
                                 "a=" + golden_adapter("vlm_prefix_r1"),
                                 "--lora",
                                 "b=" + golden_adapter("rslora_r40"),
                                 "--batch",
                                 "1,2",
                                 "--adapters",
                                 "1,2",
                                 "--rank",
                                 "16",
                                 "--rounds",
                                 "1",
                                 "--steps",
                                 "24",
                                 "--context",
                                 "4",
                                 "--threads",
                                 "1",
                                 "--json",
                                 file});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("1-40"));
  EXPECT_THAT(result.err, HasSubstr("--adapters 2 left out at --batch 1"));
  const Json rows = read_json_file(file).value()["rows"];
  ASSERT_EQ(rows.size(), 5u);
  EXPECT_TRUE(rows[0]["min_rank"].is_null());
  EXPECT_EQ(rows[1]["min_rank"], 1);
  EXPECT_EQ(rows[1]["max_rank"], 1);
  EXPECT_EQ(rows[4]["adapters"], 2);
  EXPECT_EQ(rows[4]["min_rank"], 1);
  EXPECT_EQ(rows[4]["max_rank"], 40);
}

TEST(BraidBench, MeasuresPromptsOfEveryLengthThatFits) {
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "bench.json").string();
  const auto result = run_braid({"bench",
                                 "prefill",
                                 golden_model(),
                                 "--device",
                                 "cpu",
                                 "--lora",
                                 "a=" + golden_adapter("rslora_r40"),
                                 "--tokens",
                                 "8,40,5000",
                                 "--batch",
                                 "2",
                                 "--adapters",
                                 "1,2",
                                 "--rank",
                                 "16",
                                 "--rounds",
                                 "2",
                                 "--threads",
                                 "1",
                                 "--max-batch-tokens",
                                 "32",
                                 "--json",
                                 file});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("16-40"));
  EXPECT_THAT(result.out, HasSubstr("steps of up to 32 tokens"));
  EXPECT_THAT(result.err, HasSubstr("--tokens 5000 left out: the context is 256 tokens"));
  const Json rows = read_json_file(file).value()["rows"];
  ASSERT_EQ(rows.size(), 6u);
  EXPECT_EQ(rows[0]["tokens"], 8);
  EXPECT_EQ(rows[0]["adapters"], 0);
  EXPECT_EQ(rows[5]["tokens"], 40);
  EXPECT_EQ(rows[5]["adapters"], 2);
  for (const Json& row : rows) {
    EXPECT_EQ(row["rounds_ms"].size(), 2u);
    EXPECT_GT(row["ms_per_prompt"], 0);
    EXPECT_GT(row["tokens_per_s"], 0);
  }
}

// The golden model's shapes with a context in which streams do not end. No weights.
void make_long_model(const TemporaryFolder& folder) {
  Json config = read_json_file(golden_model() + "/config.json").value();
  config["max_position_embeddings"] = 1 << 20;
  folder.write("config.json", config.dump());
}

// `braid bench mixed` of it, with random weights.
ProgramResult run_bench_mixed(const TemporaryFolder& folder,
                              const std::vector<std::string>& options) {
  std::vector<std::string> arguments = {"bench",         "mixed",     folder.path().string(),
                                        "--load-format", "dummy",     "--device",
                                        "cpu",           "--threads", "1"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return run_braid(arguments);
}

TEST(BraidBench, MeasuresRepliesWhilePromptsArrive) {
  const TemporaryFolder folder;
  make_long_model(folder);
  const std::string file = (folder.path() / "bench.json").string();
  const auto result = run_bench_mixed(
      folder,
      {"--streams",       "3",  "--adapters",         "2",   "--rank",  "8",   "--context", "4",
       "--prompt-tokens", "40", "--interval",         "0.2", "--quiet", "0.2", "--seconds", "0.4",
       "--rounds",        "2",  "--max-batch-tokens", "32",  "--json",  file});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("steps of up to 32 tokens; prompts of 40 tokens every 0.2 s"));
  EXPECT_THAT(result.out, HasSubstr("p99 of quiet"));
  EXPECT_THAT(result.err, HasSubstr("bench mixed: done"));
  const Json bench = read_json_file(file).value();
  EXPECT_EQ(bench["bench"], "mixed");
  EXPECT_EQ(bench["interval"], 0.2);
  const Json rows = bench["rows"];
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["batch"], 3);
  EXPECT_EQ(rows[0]["adapters"], 0);
  EXPECT_EQ(rows[0]["ratio"], 1);
  EXPECT_EQ(rows[1]["adapters"], 2);
  EXPECT_EQ(rows[1]["max_rank"], 8);
  for (const Json& row : rows) {
    EXPECT_EQ(row["prompts_sent"], 4);
    EXPECT_EQ(row["first_token_samples_ms"].size(), row["prompts_finished"]);
    EXPECT_GT(row["p99_ratio"], 0);
    for (const std::string phase : {"quiet", "loaded"}) {
      EXPECT_GT(row[phase + "_tokens_per_s"], 0) << phase;
      EXPECT_GT(row[phase + "_samples_ms"].size(), 2u) << phase;
      EXPECT_GT(row[phase + "_ms"], 0) << phase;
      EXPECT_LE(row[phase + "_ms"], row[phase + "_ms_p99"]) << phase;
      EXPECT_LE(row[phase + "_ms_p99"], row[phase + "_ms_most"]) << phase;
    }
  }
}

TEST(BraidBench, SaysWherePromptsDoNotKeepUp) {
  const TemporaryFolder folder;
  make_long_model(folder);
  const auto result =
      run_bench_mixed(folder, {"--streams", "2", "--adapters", "0", "--context", "4",
                               "--prompt-tokens", "4000", "--interval", "0.01", "--quiet", "0.1",
                               "--seconds", "0.2", "--max-batch-tokens", "16"});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out,
              HasSubstr("The queue grows at 2 streams, base: 400000 tokens/s of prompts arrive"));
}

TEST(BraidBench, SaysWhatMixedRunsNeed) {
  const TemporaryFolder folder;
  make_long_model(folder);
  const auto expect = [&](const std::vector<std::string>& options, int status,
                          const std::string& message) {
    const auto result = run_bench_mixed(folder, options);
    EXPECT_EQ(result.status, status) << message;
    EXPECT_THAT(result.err, HasSubstr(message));
    EXPECT_EQ(result.out, "");
  };
  expect({"--streams", "64", "--max-batch-tokens", "64"}, 2,
         "--max-batch-tokens 64 with --streams 64 leaves a step no token for prompts");
  expect({"--interval", "0"}, 2, "--interval 0: takes seconds above 0");
  expect({"--seconds", "nan"}, 2, "--seconds nan: takes seconds above 0");
  expect({"--interval", "0.0001"}, 2, "more than 100000 prompts");
  expect({"--streams", "0"}, 2, "--streams takes sizes of 1 or more");
  expect({"--max-context", "256"}, 2, "--context 512: the context is 256 tokens");
  expect({"--max-context", "1024"}, 2, "--prompt-tokens 8192: the context is 1024 tokens");
  // Streams that are at the end of their context too early, and ones the cache does not hold.
  const std::vector<std::string> small = {"--streams",     "4",   "--adapters",      "0",
                                          "--max-context", "256", "--prompt-tokens", "8"};
  const auto with_small = [&](std::vector<std::string> options) {
    options.insert(options.begin(), small.begin(), small.end());
    return options;
  };
  expect(with_small({"--context", "16"}), 1, "a stream reached the context of 256 tokens");
  expect(with_small({"--context", "200", "--kv-cache", "300KiB"}), 1, "tokens of KV cache, it has");
}

TEST(BraidBench, RefusesWhatItCannotRun) {
  const auto breakdown =
      run_braid({"bench", "decode", golden_model(), "--breakdown", "--device", "cpu"});
  EXPECT_EQ(breakdown.status, 2);
  EXPECT_THAT(breakdown.err, HasSubstr("--breakdown times the operations of a GPU"));
  const auto no_length =
      run_braid({"bench", "prefill", golden_model(), "--tokens", "5000", "--threads", "1"});
  EXPECT_EQ(no_length.status, 2);
  EXPECT_THAT(no_length.err, HasSubstr("--tokens leaves nothing to measure"));
  const auto none =
      run_braid({"bench", "decode", golden_model(), "--batch", "1", "--adapters", "8"});
  EXPECT_EQ(none.status, 2);
  EXPECT_THAT(none.err, HasSubstr("leaves nothing to compare"));
  // Every request of the batch is refused for its length: none may be left running.
  const auto too_long = run_braid({"bench", "decode", golden_model(), "--batch", "8", "--adapters",
                                   "0", "--steps", "400", "--threads", "1"});
  EXPECT_EQ(too_long.status, 1);
  EXPECT_THAT(too_long.err, HasSubstr("bench decode: failed at 0 %"));
  EXPECT_THAT(too_long.err, HasSubstr("the context is 256 tokens"));
}

}  // namespace
}  // namespace braid::test
