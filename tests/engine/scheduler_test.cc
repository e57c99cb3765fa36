// Who gets the places of a step: shares, limits, priorities, slots. Requests here are counted, not
// computed.

#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/engine/fake_memory.h"
#include "tests/engine/toy_model.h"

namespace braid::test {
namespace {

struct Work {
  int32_t adapter = -1;  // -1: the base
  int32_t prompt = 4;
  int32_t reply = 8;
  int32_t priority = 0;
};

// A scheduler, and steps that do what was scheduled.
class Steps {
 public:
  explicit Steps(SchedulerOptions options, int32_t num_slots = 8, SlotMemory* memory = nullptr)
      : options_(options), adapters_(num_slots, 1, memory), scheduler_(options_, adapters_) {}

  RequestId add(const Work& work) {
    const RequestId id{next_id_++};
    Request request = {.prompt = std::vector<int32_t>(work.prompt, work.adapter + 2),
                       .adapter = AdapterId{work.adapter},
                       .sampling = {.max_tokens = work.reply},
                       .priority = work.priority};
    std::shared_ptr<const Adapter> adapter =
        work.adapter >= 0 ? toy_adapter(static_cast<uint64_t>(work.adapter)) : nullptr;
    auto state =
        std::make_unique<RequestState>(id, std::move(request), AdapterLease(adapter), counters_,
                                       std::vector<int32_t>(), std::nullopt, nullptr, OnTokens());
    state->set_adapter(adapter);
    state->share = shares.contains(work.adapter) ? shares.at(work.adapter) : 1.0f;
    arrived_[id] = step_;
    scheduler_.add(std::move(state));
    return id;
  }

  void step() {
    ++step_;
    std::vector<RequestState*> ended;
    int32_t num_tokens = 0;
    std::map<int32_t, int32_t> running;
    const auto chunks = scheduler_.schedule();
    ASSERT_TRUE(std::ranges::is_partitioned(chunks, &ScheduledChunk::is_decode));
    int32_t num_sequences = 0;
    for (const ScheduledChunk& chunk : chunks) {
      RequestState& request = *chunk.request;
      // Of prompt or reply, never of both: the place in the request alone decides.
      ASSERT_EQ(chunk.is_decode, request.num_computed >= request.num_prompt);
      ASSERT_TRUE(chunk.is_decode || request.num_computed + chunk.num_tokens <= request.num_prompt);
      num_sequences += chunk.is_decode ? chunk.num_tokens : 1;
      largest_reply_chunk = std::max(largest_reply_chunk, chunk.is_decode ? chunk.num_tokens : 0);
      const auto adapter = static_cast<int32_t>(request.adapter_id);
      if (started.emplace(request.id, step_).second) order.push_back(request.id);
      ASSERT_EQ(request.adapter != nullptr, request.adapter_slot >= 0);
      num_tokens += chunk.num_tokens;
      tokens[adapter] += chunk.num_tokens;
      most_running[adapter] = std::max(most_running[adapter], ++running[adapter]);
      scheduler_.commit(chunk);
      if (!chunk.samples) continue;
      request.tokens.push_back(1);
      if (request.num_generated() == request.sampling.max_tokens) ended.push_back(&request);
    }
    ASSERT_LE(num_tokens, options_.max_batch_tokens);
    ASSERT_LE(num_sequences, options_.max_running + Scheduler::kMaxRecomputedTokens);
    ASSERT_TRUE(num_tokens > 0 || scheduler_.is_empty()) << "nothing runs at step " << step_;
    for (RequestState* request : ended) {
      longest_wait = std::max(longest_wait, started.at(request->id) - arrived_.at(request->id));
      ++finished[static_cast<int32_t>(request->adapter_id)];
      scheduler_.remove(request);
    }
  }

  void steps(int count) {
    for (int i = 0; i < count && !testing::Test::HasFatalFailure(); ++i) step();
  }

  // Until all is done; the number of steps.
  int finish(int at_most = 100000) {
    int count = 0;
    while (!scheduler_.is_empty() && count < at_most && !testing::Test::HasFatalFailure()) {
      step();
      ++count;
    }
    EXPECT_TRUE(scheduler_.is_empty()) << scheduler_.num_waiting() << " wait";
    return count;
  }

  // Keeps `count` requests of this kind waiting while it steps.
  void keep_busy(const std::vector<Work>& kinds, int count, int num_steps) {
    for (int i = 0; i < num_steps && !testing::Test::HasFatalFailure(); ++i) {
      for (const Work& work : kinds) {
        int waiting = 0;
        for (const RequestState* r : scheduler_.waiting())
          waiting += r->adapter_id == AdapterId{work.adapter} && r->priority == work.priority;
        for (; waiting < count; ++waiting) add(work);
      }
      step();
    }
  }

  bool is_busy(int32_t adapter) const {
    const auto is_of_it = [&](const RequestState* r) {
      return r->adapter_id == AdapterId{adapter};
    };
    return std::ranges::any_of(scheduler_.running(), is_of_it) ||
           std::ranges::any_of(scheduler_.waiting(), is_of_it);
  }

  Scheduler& scheduler() { return scheduler_; }

  std::map<int32_t, float> shares;
  std::map<int32_t, int64_t> tokens;
  std::map<int32_t, int32_t> most_running;
  std::map<int32_t, int> finished;
  std::map<RequestId, int64_t> started;
  std::vector<RequestId> order;  // of starts
  int64_t longest_wait = 0;      // steps, of those that ended
  int32_t largest_reply_chunk = 0;

 private:
  SchedulerOptions options_;
  std::shared_ptr<AdapterCounters> counters_ = std::make_shared<AdapterCounters>();
  AdapterResidency adapters_;
  Scheduler scheduler_;
  std::map<RequestId, int64_t> arrived_;
  int64_t next_id_ = 0;
  int64_t step_ = 0;
};

SchedulerOptions few_places(int32_t places) {
  return {.max_running = places,
          .max_batch_tokens = 64,
          .block_size = 4,
          .num_blocks = 1000,
          .prefix_caching = false};
}

TEST(Scheduler, SharesTokensEquallyWhateverTheSizes) {
  Steps run(few_places(4));
  // 300 requests of one adapter stand in front of everybody else.
  for (int i = 0; i < 300; ++i) run.add({.adapter = 0, .prompt = 10, .reply = 40});
  run.keep_busy({{.adapter = 1, .prompt = 2, .reply = 3},
                 {.adapter = -1, .prompt = 30, .reply = 5},
                 {.adapter = 2, .prompt = 1, .reply = 60}},
                8, 2000);
  const double all =
      static_cast<double>(run.tokens[-1] + run.tokens[0] + run.tokens[1] + run.tokens[2]);
  for (const auto& [adapter, tokens] : run.tokens)
    EXPECT_NEAR(static_cast<double>(tokens) / all, 0.25, 0.02) << adapter;
}

TEST(Scheduler, SharesByWeight) {
  Steps run(few_places(4));
  run.shares = {{0, 3.0f}, {1, 0.5f}};
  run.keep_busy({{.adapter = 0}, {.adapter = 1, .reply = 20}, {.adapter = -1}}, 8, 3000);
  const auto base = static_cast<double>(run.tokens[-1]);
  EXPECT_NEAR(static_cast<double>(run.tokens[0]) / base, 3.0, 0.2);
  EXPECT_NEAR(static_cast<double>(run.tokens[1]) / base, 0.5, 0.05);
}

TEST(Scheduler, LetsALateComerInWithTheNextPlace) {
  Steps run(few_places(4));
  for (int i = 0; i < 500; ++i) run.add({.adapter = 0, .reply = 20});
  run.steps(100);
  const RequestId late = run.add({.adapter = 1});
  const auto before = run.order.size();
  while (!run.started.contains(late)) run.step();
  EXPECT_EQ(run.order[before], late);
}

TEST(Scheduler, LetsNobodySaveUp) {
  Steps run(few_places(4));
  run.add({.adapter = 1});
  run.keep_busy({{.adapter = 0}}, 8, 1000);
  run.tokens.clear();
  run.keep_busy({{.adapter = 0}, {.adapter = 1}}, 8, 500);
  EXPECT_NEAR(static_cast<double>(run.tokens[1]) / static_cast<double>(run.tokens[0]), 1.0, 0.05);
}

TEST(Scheduler, ForgivesNoDebtForABriefPause) {
  // A client that waits for each reply has no request between two of them: it still gets no more
  // than its share.
  Steps run(few_places(2));
  for (int i = 0; i < 1000; ++i) {
    if (!run.is_busy(1)) run.add({.adapter = 1, .reply = 50});
    run.keep_busy({{.adapter = 0, .reply = 2}, {.adapter = 2, .reply = 2}}, 4, 1);
  }
  EXPECT_LT(run.tokens[1], (run.tokens[0] + run.tokens[2]) * 6 / 10);
}

TEST(Scheduler, LimitsTheRunningRequestsOfAnAdapter) {
  SchedulerOptions options = few_places(8);
  options.max_running_per_adapter = 2;
  Steps run(options);
  for (int i = 0; i < 50; ++i) {
    run.add({.adapter = 0});
    run.add({.adapter = 1});
    run.add({.adapter = -1});
  }
  run.finish();
  EXPECT_EQ(run.most_running[0], 2);
  EXPECT_EQ(run.most_running[1], 2);
  EXPECT_GE(run.most_running[-1], 4);
}

TEST(Scheduler, StartsHigherPrioritiesFirst) {
  Steps run(few_places(1));
  const RequestId running = run.add({});
  run.step();
  const RequestId low = run.add({.adapter = 0, .priority = -5});
  const RequestId normal = run.add({.adapter = 0});
  const RequestId high = run.add({.adapter = 0, .priority = 7});
  const RequestId other = run.add({.adapter = 1, .priority = 7});
  const RequestId extreme = run.add({.priority = std::numeric_limits<int32_t>::min()});
  run.finish();
  EXPECT_EQ(run.order, (std::vector<RequestId>{running, high, other, normal, low, extreme}));
}

TEST(Scheduler, LeavesOneStartInEightToLowPriorities) {
  Steps run(few_places(4));
  run.keep_busy({{.adapter = 0, .priority = 9},
                 {.adapter = 0, .priority = 0},
                 {.adapter = 1, .priority = -9}},
                8, 2000);
  const int all = run.finished[0] + run.finished[1];
  EXPECT_GE(run.finished[1], all / 9);
  EXPECT_LE(run.finished[1], all / 7);
  // Also a request of the same adapter that stands behind ever new ones of high priority.
  Steps same(few_places(1));
  const RequestId low = same.add({.adapter = 0, .priority = -1});
  same.keep_busy({{.adapter = 0, .priority = 1}}, 4, 8 * 8 + 8);
  EXPECT_TRUE(same.started.contains(low));
}

TEST(Scheduler, IsFairWhenAdaptersOutnumberSlots) {
  Steps run(few_places(6), 2);
  std::vector<Work> kinds = {{.adapter = -1}};
  for (int32_t a = 0; a < 10; ++a) kinds.push_back({.adapter = a, .reply = 4 + 3 * a});
  run.keep_busy(kinds, 3, 6000);
  for (int32_t a = 0; a < 10; ++a) {
    EXPECT_GT(run.tokens[a], run.tokens[0] * 8 / 10) << a;
    EXPECT_LT(run.tokens[a], run.tokens[0] * 12 / 10) << a;
  }
  run.finish();
}

TEST(Scheduler, GivesASlotToWhoWaitsBesideEndlessTraffic) {
  // Two adapters of high priority have a slot each and always something to do.
  Steps run(few_places(6), 2);
  const std::vector<Work> traffic = {
      {.adapter = 0, .priority = 1}, {.adapter = 1, .priority = 1}, {.adapter = -1, .priority = 1}};
  run.keep_busy(traffic, 4, 50);
  const RequestId third = run.add({.adapter = 2});
  run.keep_busy(traffic, 4, static_cast<int>(Scheduler::kFairTurn * Scheduler::kMaxLead));
  EXPECT_TRUE(run.started.contains(third));
}

TEST(Scheduler, RunsOthersWhileAnAdapterIsOnItsWay) {
  FakeMemory memory(2, /*delay=*/5);
  Steps run(few_places(4), 8, &memory);
  const RequestId base = run.add({.adapter = -1, .reply = 20});
  const RequestId adapted = run.add({.adapter = 0, .reply = 2});
  for (int i = 0; i < 20 && !run.started.contains(adapted); ++i) {
    run.step();
    memory.pass_time();
  }
  EXPECT_EQ(run.started.at(base), 1);
  EXPECT_EQ(run.started.at(adapted), 6);
  EXPECT_EQ(memory.num_waits, 0);
  run.finish();
  EXPECT_EQ(memory.num_fills, 1);
}

TEST(Scheduler, WaitsForAnAdapterWhenNothingElseCanRun) {
  FakeMemory memory(2, /*delay=*/5);
  Steps run(few_places(4), 8, &memory);
  run.add({.adapter = 0});
  run.add({.adapter = 1});
  run.step();
  EXPECT_GE(memory.num_waits, 1);
  run.finish();
}

TEST(Scheduler, ServesAllWhenMemoryHoldsFewerThanThereAreSlots) {
  FakeMemory memory(5, /*delay=*/2);
  for (uint64_t adapter = 0; adapter < 12; ++adapter)
    memory.sizes[toy_adapter(adapter)->hash.low] = 1 + static_cast<int64_t>(adapter % 5);
  Steps run(few_places(6), 8, &memory);
  for (int round = 0; round < 20; ++round) {
    for (int32_t adapter = -1; adapter < 12; ++adapter) run.add({.adapter = adapter});
  }
  while (!run.scheduler().is_empty() && !HasFatalFailure()) {
    run.step();
    memory.pass_time();
  }
  for (int32_t adapter = -1; adapter < 12; ++adapter) EXPECT_EQ(run.finished[adapter], 20);
}

TEST(Scheduler, ComputesRepliesAgainInLargeChunks) {
  SchedulerOptions options = few_places(2);
  options.max_batch_tokens = 200;
  options.num_blocks = 60;  // 240 tokens, where the two have 300 in the end
  Steps run(options);
  run.add({.prompt = 50, .reply = 100});
  run.add({.prompt = 50, .reply = 100});
  run.finish();
  EXPECT_GT(run.scheduler().num_preemptions(), 0);
  EXPECT_EQ(run.largest_reply_chunk, 1 + Scheduler::kMaxRecomputedTokens);
}

TEST(Scheduler, EndsWhateverTheLimits) {
  std::mt19937 random(11);
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE(round);
    const auto up_to = [&](int n) { return static_cast<int32_t>(random() % n); };
    SchedulerOptions options;
    options.max_running = 1 + up_to(8);
    options.max_batch_tokens = options.max_running + up_to(30);
    options.block_size = 1 + up_to(6);
    options.num_blocks = 60 / options.block_size + 1 + up_to(20);
    options.prefix_caching = up_to(2) == 0;
    options.max_running_per_adapter = up_to(3);
    Steps run(options, 1 + up_to(3));
    for (int i = 0; i < 80; ++i) {
      run.add({.adapter = up_to(6) - 1,
               .prompt = 1 + up_to(30),
               .reply = 1 + up_to(30),
               .priority = up_to(3) - 1});
      if (up_to(3) == 0) run.steps(up_to(5));
    }
    run.finish();
    EXPECT_EQ(run.order.size(), 80u);
    EXPECT_EQ(run.scheduler().pool().num_held(), 0);
    if (HasFailure()) break;
  }
}

}  // namespace
}  // namespace braid::test
