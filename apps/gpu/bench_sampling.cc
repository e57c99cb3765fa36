// braid bench sampling: picking tokens from rows of logits on the GPU, against their byte floor.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>

#include "apps/bench_json.h"
#include "apps/commands.h"
#include "apps/gpu/kernel_bench.h"
#include "apps/table.h"
#include "base/json.h"
#include "device/device.h"
#include "engine/logprobs.h"
#include "engine/sampler.h"
#include "kernels/sampling/logprobs.h"
#include "kernels/sampling/sampling.h"

namespace braid::apps {
namespace {

struct SamplingOptions {
  std::vector<int32_t> rows = {1, 16, 64, 256};
  int32_t vocab_size = 151936;
  int32_t rounds = 15;
  std::string json;
};

struct Arm {
  const char* name;
  SamplingParams params;
};

std::vector<Arm> all_arms() {
  return {{"greedy", {.temperature = 0}},
          {"temperature", {.temperature = 1}},
          {"min_p", {.temperature = 1, .min_p = 0.05f}},
          {"top_k 20", {.temperature = 0.7f, .top_k = 20}},
          {"top_p 0.95", {.temperature = 1, .top_p = 0.95f}},
          {"top_k 20, top_p 0.95", {.temperature = 0.6f, .top_k = 20, .top_p = 0.95f}},
          {"greedy, penalties",
           {.temperature = 0, .repetition_penalty = 1.1f, .frequency_penalty = 0.2f}},
          {"greedy, logprobs 0", {.temperature = 0, .logprobs = 0}},
          {"greedy, logprobs 20", {.temperature = 0, .logprobs = 20}}};
}

// Peaked: 200 tokens whose weights fall as (1 + n)^-1.8, far above all others, as a model's logits
// are at most places. Flat: normal, half of the weight in thousands of tokens.
std::vector<float> random_row(std::mt19937& random, int32_t vocab_size, bool is_peaked) {
  std::vector<float> row;
  std::normal_distribution<float> normal(0.0f, 2.2f);
  for (int32_t id = 0; id < vocab_size; ++id) row.push_back(normal(random));
  for (int32_t n = 0; n < 200 && is_peaked; ++n)
    row[random() % row.size()] = 20.0f - 1.8f * std::log(1.0f + static_cast<float>(n));
  return row;
}

struct Row {
  std::string arm, logits;
  int32_t rows;
  Times times;
  double floor_us;
};

// Copies of the same rows, as many as make L2 forget one before its turn comes again.
class SamplingRun {
 public:
  SamplingRun(int32_t num_rows, int32_t vocab_size, bool is_peaked)
      : num_rows_(num_rows), vocab_size_(vocab_size), stride_((vocab_size + 3) / 4 * 4) {
    constexpr int64_t kAllBytes = 256 << 20;
    const int64_t bytes = int64_t{num_rows} * stride_ * 4;
    const auto copies = std::clamp<int64_t>(kAllBytes / bytes, 3, 64);
    std::mt19937 random(5);
    constexpr int32_t kDistinct = 16;
    std::vector<std::vector<float>> distinct;
    for (int32_t i = 0; i < kDistinct; ++i)
      distinct.push_back(random_row(random, vocab_size, is_peaked));
    logits_.resize(static_cast<size_t>(num_rows * stride_));
    for (int32_t i = 0; i < num_rows; ++i)
      std::ranges::copy(distinct[static_cast<size_t>(i % kDistinct)],
                        logits_.begin() + i * stride_);
    for (int64_t i = 0; i < copies; ++i) copies_.push_back(DeviceBuffer::of(logits_));
    const auto n = static_cast<size_t>(num_rows);
    seen_ = DeviceBuffer(n * static_cast<size_t>(vocab_size) * 4);
    newest_ = DeviceBuffer(n * 4);
    scratch_ = DeviceBuffer(n * kernels::kScratchBytesPerRow);
    sampled_ = DeviceBuffer(n * sizeof(kernels::SampledToken));
    logprobs_ = DeviceBuffer(n * sizeof(kernels::RowLogprob));
    top_ = DeviceBuffer(n * kernels::kMaxTopLogprobs * sizeof(kernels::TopLogprob));
  }

  int32_t copies() const { return static_cast<int32_t>(copies_.size()); }

  // Before a graph of the arm is captured: the rows it will read.
  DeviceBuffer upload_rows(const SamplingParams& p) const {
    std::vector<kernels::SamplingRow> rows;
    for (int32_t i = 0; i < num_rows_; ++i) {
      rows.push_back({.samples = true,
                      .temperature = p.temperature,
                      .top_k = p.top_k,
                      .top_p = p.top_p,
                      .min_p = p.min_p,
                      .seed = p.seed,
                      .position = i,
                      .repetition_penalty = p.repetition_penalty,
                      .presence_penalty = p.presence_penalty,
                      .frequency_penalty = p.frequency_penalty,
                      .penalty_slot = has_penalties(p) ? i : -1,
                      .request_slot = i});
    }
    return DeviceBuffer::of(rows);
  }

  void enqueue(const SamplingParams& p, const DeviceBuffer& rows, const DeviceBuffer& logprob_rows,
               const Stream& stream) const {
    for (const DeviceBuffer& logits : copies_) {
      kernels::launch_sample({.logits = logits.as<float>(),
                              .logits_stride = stride_,
                              .rows = rows.as<kernels::SamplingRow>(),
                              .sampled = sampled_.as<kernels::SampledToken>(),
                              .newest_token = newest_.as<int32_t>(),
                              .seen = seen_.as<uint32_t>(),
                              .scratch = scratch_.data(),
                              .num_rows = num_rows_,
                              .vocab_size = vocab_size_},
                             stream.get());
      if (!p.logprobs) continue;
      kernels::launch_logprobs({.logits = logits.as<float>(),
                                .logits_stride = stride_,
                                .rows = logprob_rows.as<kernels::LogprobRow>(),
                                .sampled = sampled_.as<kernels::SampledToken>(),
                                .logprobs = logprobs_.as<kernels::RowLogprob>(),
                                .top = top_.as<kernels::TopLogprob>(),
                                .scratch = scratch_.data(),
                                .num_rows = num_rows_,
                                .vocab_size = vocab_size_},
                               stream.get());
    }
  }

  void forget_seen() { seen_.fill(0); }

  // The least any implementation reads.
  double bytes(const SamplingParams& p) const {
    return 4.0 * num_rows_ * vocab_size_ * (has_penalties(p) ? 2 : 1);
  }

  // Empty, or how the first rows' tokens differ from the host's sampler. Nothing was picked before.
  std::string why_wrong(const SamplingParams& p) const {
    const auto sampled = sampled_.download<kernels::SampledToken>(static_cast<size_t>(num_rows_));
    for (int32_t i = 0; i < std::min(num_rows_, 4); ++i) {
      std::vector<float> row(logits_.begin() + i * stride_,
                             logits_.begin() + i * stride_ + vocab_size_);
      Sampler sampler(p, {}, {});
      // The copies are picked from one after the other.
      int32_t want = -1;
      for (int32_t copy = 0; copy < copies(); ++copy) {
        const auto sample = sampler.sample(row, i, copy);
        if (!sample) return sample.error().message;
        want = sample->token;
        sampler.count(want);
        if (!has_penalties(p)) break;
      }
      const int32_t got = sampled[static_cast<size_t>(i)].token;
      if (got != want) return fmt::format("row {} is token {}, not {}", i, got, want);
      if (!p.logprobs) continue;
      const TokenLogprob logprob = compute_logprob(row, want, 0);
      const auto logprobs = logprobs_.download<kernels::RowLogprob>(static_cast<size_t>(num_rows_));
      const float got_logprob = logprobs[static_cast<size_t>(i)].logprob;
      if (std::abs(got_logprob - logprob.logprob) > 1e-6f * (1 + std::abs(logprob.logprob)))
        return fmt::format("row {} has logprob {}, not {}", i, got_logprob, logprob.logprob);
    }
    return "";
  }

  static bool has_penalties(const SamplingParams& p) {
    return p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0;
  }

 private:
  int32_t num_rows_, vocab_size_;
  int64_t stride_;
  std::vector<float> logits_;  // [num_rows, stride]
  std::vector<DeviceBuffer> copies_;
  DeviceBuffer seen_, newest_, sampled_, logprobs_, top_, scratch_;
};

std::vector<Row> measure(const SamplingOptions& options, double read_rate, int32_t num_rows,
                         bool is_peaked) {
  const Stream stream;
  SamplingRun run(num_rows, options.vocab_size, is_peaked);
  const std::vector<Arm> arms = all_arms();
  std::vector<DeviceBuffer> rows, logprob_rows;
  std::vector<Graph> graphs;
  for (const Arm& arm : arms) {
    rows.push_back(run.upload_rows(arm.params));
    logprob_rows.push_back(DeviceBuffer::of(std::vector<kernels::LogprobRow>(
        static_cast<size_t>(num_rows), {.num_top = arm.params.logprobs.value_or(-1)})));
    graphs.push_back(Graph::capture(
        stream, [&] { run.enqueue(arm.params, rows.back(), logprob_rows.back(), stream); }));
    // A wrong kernel gets no time.
    run.forget_seen();
    graphs.back().launch(stream);
    stream.wait();
    if (auto why = run.why_wrong(arm.params); !why.empty())
      leave(
          fmt::format("{} rows, {}: wrong results, {}; please report it", num_rows, arm.name, why));
  }
  const std::vector<Times> times = time_in_turn(graphs, run.copies(), options.rounds, stream);
  std::vector<Row> result;
  for (size_t arm = 0; arm < arms.size(); ++arm) {
    result.push_back({.arm = arms[arm].name,
                      .logits = is_peaked ? "peaked" : "flat",
                      .rows = num_rows,
                      .times = times[arm],
                      .floor_us = run.bytes(arms[arm].params) / read_rate * 1e6});
  }
  return result;
}

void run_bench_sampling(const SamplingOptions& options) {
  if (num_devices() == 0) leave("bench sampling needs a GPU of compute capability 9.0");
  for (const int32_t n : options.rows) {
    if (n < 1) leave(fmt::format("--rows {}: takes numbers from 1 on", n), kUsage);
  }
  if (options.vocab_size < 200 || options.vocab_size > kernels::kMaxSamplingVocab)
    leave(
        fmt::format("--vocab {}: takes 200 to {}", options.vocab_size, kernels::kMaxSamplingVocab),
        kUsage);
  if (options.rounds < 1)
    leave(fmt::format("--rounds {}: takes 1 or more", options.rounds), kUsage);
  const MeasuredDevice device = measure_device();
  std::vector<Row> rows;
  for (const bool is_peaked : {true, false}) {
    for (const int32_t n : options.rows) {
      for (Row& row : measure(options, device.read_rate, n, is_peaked))
        rows.push_back(std::move(row));
    }
  }

  fmt::print("{}; read rate {:.3f} TB/s; vocabulary of {}\n\n", device.facts.name,
             device.read_rate / 1e12, options.vocab_size);
  Table table({"what", "logits", "rows", "us", "p10", "p90", "floor us", "of floor"});
  Json json = {{"bench", "sampling"},
               {"vocab_size", options.vocab_size},
               {"rounds", options.rounds},
               {"device", to_json(device)},
               {"rows", Json::array()}};
  for (const Row& r : rows) {
    table.add({r.arm, r.logits, fmt::format("{}", r.rows), fmt::format("{:.2f}", r.times.us),
               fmt::format("{:.2f}", r.times.p10), fmt::format("{:.2f}", r.times.p90),
               fmt::format("{:.2f}", r.floor_us),
               fmt::format("{:.1f}", 100 * r.floor_us / r.times.us)});
    json["rows"].push_back({{"name", fmt::format("{} {} L{}", r.arm, r.logits, r.rows)},
                            {"arm", r.arm},
                            {"logits", r.logits},
                            {"num_rows", r.rows},
                            {"us", r.times.us},
                            {"us_p10", r.times.p10},
                            {"us_p90", r.times.p90},
                            {"floor_us", r.floor_us},
                            {"floor_share", r.floor_us / r.times.us}});
  }
  fmt::print("{}", table.to_string());
  write_bench_json(options.json, json);
}

}  // namespace

void add_bench_sampling(CLI::App& bench) {
  auto options = std::make_shared<SamplingOptions>();
  CLI::App* command = bench.add_subcommand(
      "sampling", "Picking tokens on the GPU: us a launch, share of the byte floor");
  command->footer(
      "\nExamples:\n"
      "  braid bench sampling --rows 1,16,64,256\n"
      "  braid bench sampling --vocab 32000 --rows 64 --json out.json");
  command->add_option("--rows", options->rows, "Rows of logits of one launch")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--vocab", options->vocab_size, "Logits of a row")->capture_default_str();
  command->add_option("--rounds", options->rounds, "Rounds; the arms take turns")
      ->capture_default_str();
  command->add_option("--json", options->json, "Write the rows to this file")->type_name("FILE");
  command->callback([=] { run_bench_sampling(*options); });
}

}  // namespace braid::apps
