// Whole models on the device: every stage against the reference, logits against the CPU back end,
// and bits against bits.

#include "gpu/gpu_runner.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <thread>

#include "adapter/adapter_slots.h"
#include "checkpoint/weight_source.h"
#include "cpu/thread_pool.h"
#include "tests/gpu/decoder_reference.h"
#include "tests/gpu/gpu_models.h"
#include "tests/model/step_runner.h"
#include "tests/support/close.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

constexpr int32_t kBlock = 16, kMaxTokens = 512;
constexpr int32_t kAll = 1 << 20;  // prompts_and_replies: every token decodes

// A runner with the adapters in its slots.
class Device {
 public:
  Device(const ModelConfig& config, WeightSource& weights,
         const std::vector<std::shared_ptr<const Adapter>>& adapters, bool use_graphs)
      : slots_(static_cast<int32_t>(adapters.size()), config.num_hidden_layers) {
    cpu::ThreadPool pool(2);
    auto loaded = load_gpu_weights(config, weights, {.pool = &pool}, {});
    runner_.emplace(config, std::move(loaded.value()),
                    GpuRunnerOptions{.limits = {.max_tokens = kMaxTokens,
                                                .max_sequences = 64,
                                                .max_kv_blocks = 32,
                                                .max_logits = kMaxTokens,
                                                .num_adapter_slots = slots_.num_slots()},
                                     .kv_shape = {.num_layers = config.num_hidden_layers,
                                                  .num_blocks = 128,
                                                  .block_size = kBlock,
                                                  .num_kv_heads = config.num_key_value_heads,
                                                  .head_dim = config.head_dim,
                                                  .element_bytes = sizeof(Bf16)},
                                     .max_lora_rank = kMaxTestRank,
                                     .adapter_bytes = size_t{64} << 20,
                                     .use_graphs = use_graphs});
    for (int32_t slot = 0; slot < slots_.num_slots(); ++slot) {
      auto packed = runner_->adapter_pool()->pack(*adapters[static_cast<size_t>(slot)]).value();
      runner_->adapter_pool()->fill(slot, *packed);
      runner_->adapter_pool()->wait_until_ready(slot);
      slots_.set(slot, packed);
    }
  }

  std::vector<float> step(const ForwardBatch& batch) {
    std::vector<float> logits;
    for (const StepRow& row : runner_->forward(batch, &slots_))
      logits.insert(logits.end(), row.logits.begin(), row.logits.end());
    return logits;
  }

  GpuRunner& runner() { return *runner_; }

  // The same, and all that the step stored on its way.
  std::vector<float> step(const ForwardBatch& batch, Stages& stages) {
    runner_->set_tap([&](int32_t layer, std::string_view what, const DeviceBuffer& rows) {
      const auto used = static_cast<size_t>(batch.num_tokens());
      std::vector<float>& to = stages[{layer, std::string(what)}];
      if (what == "router_logits") {
        to = rows.download<float>(used * (rows.bytes() / kMaxTokens / sizeof(float)));
        return;
      }
      for (const Bf16 x : rows.download<Bf16>(used * (rows.bytes() / kMaxTokens / sizeof(Bf16))))
        to.push_back(to_float(x));
    });
    const std::vector<float> logits = step(batch);
    runner_->set_tap({});
    stages[{-1, "logits"}] = logits;
    return logits;
  }

 private:
  std::optional<GpuRunner> runner_;
  AdapterSlots slots_;
};

struct TestModel {
  const char* name;
  ModelConfig (*config)();
  QuantMethod quant_method;
  WeightFormat format;
};
void PrintTo(const TestModel& model, std::ostream* out) { *out << model.name; }

class GpuRunnerTest : public testing::TestWithParam<TestModel> {
 protected:
  using Logits = std::vector<std::vector<float>>;  // of each sequence

  void SetUp() override {
    BRAID_NEEDS_CUDA();
    config_ = GetParam().config();
    config_.quant_method = GetParam().quant_method;
    adapters_ = adapters_of_all_kinds(config_);
  }

  std::unique_ptr<WeightSource> weights() const {
    return make_dummy_weights(config_, GetParam().format, 3);
  }
  std::unique_ptr<Device> device(bool use_graphs = true) const {
    return std::make_unique<Device>(config_, *weights(), adapters_, use_graphs);
  }

  Logits on_gpu(const std::vector<Sequence>& sequences, const Schedule& schedule,
                bool use_graphs = true) const {
    const auto device = this->device(use_graphs);
    return run_steps(sequences, schedule, {.kv_block_size = kBlock},
                     [&](const ForwardBatch& batch) { return device->step(batch); });
  }

  Logits on_cpu(const std::vector<Sequence>& sequences, const Schedule& schedule,
                Rounding rounding = Rounding::kNone) const {
    auto model = Model::load(config_, *weights());
    AdapterSlots slots(static_cast<int32_t>(adapters_.size()), config_.num_hidden_layers);
    for (size_t s = 0; s < adapters_.size(); ++s) slots.set(static_cast<int32_t>(s), adapters_[s]);
    return StepRunner(**model, num_threads(), ops::Backend::kCpu, kBlock, rounding)
        .run(sequences, schedule, &slots);
  }

  static int32_t num_threads() {
    return std::max(1, static_cast<int32_t>(std::thread::hardware_concurrency()));
  }

  // Sequences of base and of each adapter in turn.
  std::vector<Sequence> sequences(const std::vector<int32_t>& lengths) const {
    std::vector<Sequence> made;
    for (size_t i = 0; i < lengths.size(); ++i) {
      made.push_back({.token_ids = random_tokens(config_, lengths[i], 90 + i),
                      .adapter_slot = static_cast<int32_t>(i % (adapters_.size() + 1)) - 1});
    }
    return made;
  }

  // Every stage of every step is the reference's. The steps have the bits of steps that nobody
  // listens to, graphs where they only decode.
  void expect_reference(const std::vector<Sequence>& sequences, const Schedule& schedule) {
    const auto device = this->device();
    DecoderReference reference(config_, *weights(), adapters_, kBlock, num_threads());
    StageErrors errors;
    const Logits logits =
        run_steps(sequences, schedule, {.kv_block_size = kBlock}, [&](const ForwardBatch& batch) {
          Stages stages;
          const std::vector<float> of_step = device->step(batch, stages);
          const StageErrors found = reference.check(batch, stages);
          EXPECT_EQ(found.why_wrong, "");
          for (const auto& [stage, of_rows] : found.of_row) append(errors.of_row[stage], of_rows);
          for (const auto& [stage, of_rows] : found.of_delta)
            append(errors.of_delta[stage], of_rows);
          return of_step;
        });
    for (auto& [stage, of_rows] : errors.of_row) {
      std::sort(of_rows.begin(), of_rows.end());
      EXPECT_LE(median(of_rows), kMaxMoeMedianError) << stage;
      EXPECT_LE(of_rows.back(), stage == "moe_out" ? kMaxMoeRowError : kMaxRowError) << stage;
      record(stage, of_rows);
    }
    for (auto& [stage, of_rows] : errors.of_delta) {
      std::sort(of_rows.begin(), of_rows.end());
      EXPECT_LE(stage == "moe_out" ? median(of_rows) : of_rows.back(), kMaxDeltaError)
          << stage << ", delta alone";
      record(stage + " delta", of_rows);
    }
    EXPECT_TRUE(logits == run_steps(sequences, schedule, {.kv_block_size = kBlock},
                                    [&](const ForwardBatch& b) { return device->step(b); }));
  }

  static double median(const std::vector<double>& rising) { return rising[rising.size() / 2]; }

  ModelConfig config_;
  std::vector<std::shared_ptr<const Adapter>> adapters_;

 private:
  static void append(std::vector<double>& to, const std::vector<double>& what) {
    to.insert(to.end(), what.begin(), what.end());
  }

  // For whoever wants to know how near the bounds are: the largest median and the largest of all.
  void record(const std::string& what, const std::vector<double>& rising) {
    auto& [of_median, of_all] = recorded_[what];
    of_median = std::max(of_median, median(rising));
    of_all = std::max(of_all, rising.back());
    RecordProperty(what, fmt::format("{:.1e} {:.1e}", of_median, of_all));
  }
  std::map<std::string, std::pair<double, double>> recorded_;
};

const std::vector<int32_t> kLengths = {37, 5, 64, 21, 18, 3, 40, 11, 33, 9, 26};

TEST_P(GpuRunnerTest, EveryStageIsTheReferences) {
  const auto all = sequences(kLengths);
  for (const int32_t chunk : {1, 7, 64}) {
    for (const int32_t num_decodes : {0, 4, kAll}) {
      if (num_decodes == kAll && chunk > 1) continue;
      SCOPED_TRACE(fmt::format("chunk {}, {} decode", chunk, num_decodes));
      expect_reference(all, prompts_and_replies(all, chunk, num_decodes));
    }
  }
}

TEST_P(GpuRunnerTest, EveryStageIsTheReferencesInBatchesOfAllSizes) {
  for (const size_t size : {1, 2, 3, 4, 5, 8, 9, 16, 17, 33, 64}) {
    SCOPED_TRACE(fmt::format("{} tokens", size));
    // The last ones of so many that each adapter is the first of some batch.
    auto all = sequences(std::vector<int32_t>(64, 3));
    all.erase(all.begin(), all.end() - static_cast<ptrdiff_t>(size));
    std::vector<Chunk> step;
    for (size_t s = 0; s < size; ++s) step.push_back({static_cast<int32_t>(s), 1, true});
    expect_reference(all, Schedule(3, step));
  }
}

// One sequence of each adapter by itself.
TEST_P(GpuRunnerTest, EveryStageIsTheReferencesForEachAdapterAlone) {
  for (const Sequence& sequence : sequences(std::vector<int32_t>(adapters_.size() + 1, 6))) {
    SCOPED_TRACE(fmt::format("slot {}", sequence.adapter_slot));
    expect_reference({sequence}, {{{0, 4}}, {{0, 1, true}}, {{0, 1, true}}});
  }
}

TEST_P(GpuRunnerTest, EveryStageIsTheReferencesInALongPrefill) {
  const auto all = sequences({300, 120, 60, 8});
  expect_reference(all, all_at_once(all));
}

// Without stages in between: loose comparisons, because roundings that fall otherwise grow from
// layer to layer, and other experts are chosen where a router's choice is close. The CPU back end
// shares no code with the device's; the reference goes on from its own values. A CPU that rounds
// where the device does is hardly nearer than one that keeps activations in float: sums in another
// order round to the other side soon enough. Were all roundings independent, it would be 1.4 times
// as far.
TEST_P(GpuRunnerTest, LogitsAreNearThoseOfOthers) {
  const auto all = sequences(kLengths);
  const Schedule schedule = chunked(all, 7);
  DecoderReference reference(config_, *weights(), adapters_, kBlock, num_threads());
  const Logits gpu = on_gpu(all, schedule), cpu = on_cpu(all, schedule),
               rounded_cpu = on_cpu(all, schedule, Rounding::kBf16),
               by_itself =
                   run_steps(all, schedule, {.kv_block_size = kBlock}, [&](const ForwardBatch&b) {
                     return reference.run(b).at({-1, "logits"});
                   });
  const auto median_error = [&](const char* name, const Logits& want) {
    const auto vocab = static_cast<size_t>(config_.vocab_size);
    const auto token = [](std::span<const float> row) {
      return std::max_element(row.begin(), row.end()) - row.begin();
    };
    std::vector<double> errors;
    int other_tokens = 0;
    for (size_t s = 0; s < all.size(); ++s) {
      for (size_t at = 0; at < want[s].size(); at += vocab) {
        const auto got_row = std::span(gpu[s]).subspan(at, vocab),
                   want_row = std::span(want[s]).subspan(at, vocab);
        errors.push_back(relative_l2(got_row, want_row));
        other_tokens += token(got_row) != token(want_row);
      }
    }
    std::sort(errors.begin(), errors.end());
    fmt::print(
        "{}: median {:.2e}, a tenth below {:.2e}; the largest logit another {} of {} times\n", name,
        median(errors), errors[errors.size() / 10], other_tokens, errors.size());
    RecordProperty(name, fmt::format("{:.2e}", median(errors)));
    EXPECT_LE(other_tokens, std::ssize(errors) / 10) << name;
    return median(errors);
  };
  const double of_cpu = median_error("cpu", cpu),
               of_rounded_cpu = median_error("rounded cpu", rounded_cpu),
               of_reference = median_error("reference", by_itself);
  EXPECT_LE(of_cpu, 3e-2);
  EXPECT_LE(of_rounded_cpu, 1.5 * of_cpu);
  EXPECT_LE(of_reference, 3e-2);
}

TEST_P(GpuRunnerTest, GraphsGiveTheBitsOfSingleLaunches) {
  const auto all = sequences(kLengths);
  const Schedule decodes = prompts_and_replies(all, 1, kAll);
  EXPECT_EQ(on_gpu(all, decodes, true), on_gpu(all, decodes, false));
}

TEST_P(GpuRunnerTest, TimedStepsHaveTheSameBitsAndNameTheirOperations) {
  const auto all = sequences(kLengths);
  const Schedule schedule = prompts_and_replies(all, 9, 5);  // the last steps are graphs
  const auto device = this->device();
  GpuRunner& runner = device->runner();
  const auto run = [&] {
    return run_steps(all, schedule, {.kv_block_size = kBlock},
                     [&](const ForwardBatch& batch) { return device->step(batch); });
  };
  const Logits untimed = run();
  EXPECT_EQ(runner.operation_times().steps, 0);
  runner.time_operations(true);
  EXPECT_EQ(run(), untimed);
  const OperationTimes times = runner.operation_times();
  EXPECT_EQ(times.steps, static_cast<int64_t>(schedule.size()));
  std::vector<std::string_view> names;
  for (const auto& [name, seconds] : times.operations) {
    names.push_back(name);
    EXPECT_GT(seconds, 0) << name;
  }
  std::vector<std::string_view> want = {"inputs", "embedding",      "norm",
                                        "qkv",    "rope, KV write", "attention",
                                        "o",      "router",         "mixture"};
  if (GetParam().config == mixed_qwen3_moe) want.insert(want.end(), {"gate_up", "silu", "down"});
  want.insert(want.end(), {"lm_head", "sampling", "outputs"});
  EXPECT_EQ(names, want);
  runner.time_operations(false);
  EXPECT_EQ(run(), untimed);
  EXPECT_EQ(runner.operation_times().steps, times.steps);
}

TEST_P(GpuRunnerTest, BitsDoNotDependOnWhatElseIsInTheBatch) {
  const auto all = sequences(kLengths);
  for (const int32_t num_decodes : {0, 5, kAll}) {
    const Logits together = on_gpu(all, prompts_and_replies(all, 9, num_decodes));
    for (size_t s = 0; s < all.size(); s += 2) {
      const std::vector<Sequence> one = {all[s]};
      EXPECT_EQ(on_gpu(one, prompts_and_replies(one, 9, num_decodes))[0], together[s]) << s;
    }
  }
}

// Replies long enough that CTAs share one, beside prompts, alone, in graphs and without.
TEST_P(GpuRunnerTest, LongRepliesHaveTheSameBitsBesidePromptsAndAlone) {
  const auto all = sequences({300, 40, 420, 270, 9});
  const Schedule schedule = prompts_and_replies(all, 64, 8);
  const Logits together = on_gpu(all, schedule);
  EXPECT_TRUE(on_gpu(all, schedule, /*use_graphs=*/false) == together);
  for (size_t s = 0; s < all.size(); ++s) {
    const std::vector<Sequence> one = {all[s]};
    EXPECT_TRUE(on_gpu(one, prompts_and_replies(one, 64, 8))[0] == together[s]) << s;
  }
}

TEST_P(GpuRunnerTest, APromptGivesTheSameBitsHoweverItIsCut) {
  const auto all = sequences({61, 40});
  const Logits whole = on_gpu(all, chunked(all, 64));
  // 60 and 20: one token is left of the first, 39 and 13 of the second.
  for (const int32_t chunk : {1, 9, 13, 20, 39, 60})
    EXPECT_EQ(on_gpu(all, chunked(all, chunk)), whole) << chunk;
}

// As after a preemption: the prompt in other chunks, the reply as neighbouring sequences.
TEST_P(GpuRunnerTest, AReplyGivesTheSameBitsComputedAgainAtOnce) {
  const auto all = sequences({61, 40, 5});
  const Schedule one_by_one = prompts_and_replies(all, 64, 20);
  const Schedule again = {{{0, 30}, {1, 19}},
                          {{2, 3, true}, {0, 11}, {1, 1}},
                          {{1, 20, true}, {0, 20, true}, {2, 2, true}}};
  for (const bool use_graphs : {false, true}) {
    EXPECT_TRUE(on_gpu(all, again, use_graphs) == on_gpu(all, one_by_one, use_graphs))
        << use_graphs;
  }
}

// A sequence whose first blocks are another's, as the prefix cache has it.
TEST_P(GpuRunnerTest, APrefixOfAnothersBlocksGivesTheSameBits) {
  constexpr int32_t kShared = 2 * kBlock, kLength = kShared + 13, kEnd = kLength + 3;
  const auto batch_of = [](const Sequence& sequence, int32_t begin, int32_t end,
                           const std::vector<int32_t>& blocks) {
    ForwardBatch batch = {.query_indptr = {0, end - begin},
                          .context_len = {end},
                          .block_table = blocks,
                          .max_kv_blocks = static_cast<int32_t>(blocks.size()),
                          .num_decodes = begin >= kLength ? 1 : 0};
    for (int32_t p = begin; p < end; ++p) {
      batch.logits_token.push_back(batch.num_tokens());
      batch.token_ids.push_back(sequence.token_ids[static_cast<size_t>(p)]);
      batch.positions.push_back(p);
      batch.adapter_slot_of_token.push_back(sequence.adapter_slot);
      batch.kv_slot_of_token.push_back(blocks[static_cast<size_t>(p / kBlock)] * kBlock +
                                       p % kBlock);
    }
    return batch;
  };
  const auto device = this->device();
  for (const int32_t slot : {kNoAdapter, 2, 5}) {
    const Sequence first = {random_tokens(config_, kLength, 7), slot};
    Sequence second = {random_tokens(config_, kEnd, 8), slot};
    std::copy_n(first.token_ids.begin(), kShared, second.token_ids.begin());
    // The rest of a prompt, then three tokens one by one.
    const auto rest = [&](const std::vector<int32_t>& blocks) {
      std::vector<float> logits = device->step(batch_of(second, kShared, kLength, blocks));
      for (int32_t p = kLength; p < kEnd; ++p) {
        const auto row = device->step(batch_of(second, p, p + 1, blocks));
        logits.insert(logits.end(), row.begin(), row.end());
      }
      return logits;
    };
    device->step(batch_of(second, 0, kShared, {9, 3, 6}));
    const std::vector<float> computed = rest({9, 3, 6});
    device->step(batch_of(first, 0, kLength, {4, 11, 2}));
    EXPECT_TRUE(rest({4, 11, 7}) == computed) << "slot " << slot;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, GpuRunnerTest,
    testing::Values(
        TestModel{"mixtral", padded_mixtral, QuantMethod::kFp8Block128, WeightFormat::kFp8Block128},
        TestModel{"qwen3_moe", mixed_qwen3_moe, QuantMethod::kFp8Block128,
                  WeightFormat::kFp8Block128},
        TestModel{"mixtral_nvfp4", padded_mixtral, QuantMethod::kModelOptNvfp4,
                  WeightFormat::kNvfp4},
        TestModel{"qwen3_moe_bf16", mixed_qwen3_moe, QuantMethod::kNone, WeightFormat::kBf16}),
    [](const auto& test) { return std::string(test.param.name); });

// Formats that differ from what config.json says, or within a projection.
TEST(GpuWeights, RefusesExpertsOfAnotherFormatThanTheConfigs) {
  BRAID_NEEDS_CUDA();
  const ModelConfig config = padded_mixtral();
  const auto source = make_dummy_weights(config, WeightFormat::kBf16, 3);
  cpu::ThreadPool pool(1);
  const auto loaded = load_gpu_weights(config, *source, {.pool = &pool}, {});
  ASSERT_FALSE(loaded.has_value());
  EXPECT_EQ(loaded.error().message,
            "model.layers.0.block_sparse_moe.experts.0.w1.weight is bf16, on a GPU all experts are "
            "what config.json says they are quantised to; `--device cpu` runs it");
}

}  // namespace
}  // namespace braid::test
