// Adapters that come, change and go while requests run, on a real tiny checkpoint. Adapters of
// different content answer differently, so an answer says whose it is.

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <random>
#include <semaphore>
#include <thread>

#include "base/file.h"
#include "braid/engine.h"
#include "tests/engine/toy_engine.h"

namespace braid::test {
namespace {

namespace fs = std::filesystem;
using std::chrono_literals::operator""ms;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

const fs::path kModel = fs::path(BRAID_TEST_DATA_DIR) / "goldens/qwen3_bf16";
const std::vector<std::string> kContents = {"per_expert_f32", "rslora_r40", "bare_keys_router_r16",
                                            "tinker", "parameters_new_peft"};
const std::string kLargest = "rslora_r40";

struct Files {
  std::string config;
  std::string tensors;
  AdapterBytes bytes() const { return {.config_json = config, .safetensors = tensors}; }
};

Files read_files(const fs::path& folder) {
  return {read_file(folder / "adapter_config.json", 1 << 20).value(),
          read_file(folder / "adapter_model.safetensors", 1 << 24).value()};
}

// A folder "root" of adapters named after their content, and an engine that may load from it.
class AdapterLife : public testing::Test {
 protected:
  AdapterLife() {
    std::string pattern = (fs::temp_directory_path() / "braid-life-XXXXXX").string();
    root = fs::canonical(mkdtemp(pattern.data()));
    for (const auto& content : kContents)
      fs::copy(kModel / "adapters" / content, root / content, fs::copy_options::recursive);
  }
  ~AdapterLife() override {
    engine.reset();
    fs::remove_all(root);
  }

  void open(EngineConfig config = {}) {
    config.model_dir = kModel;
    config.num_threads = 2;
    config.kv_cache_bytes = size_t{4} << 20;
    config.kv_block_size = 4;
    config.adapter_root = root;
    auto opened = Engine::open(config);
    ASSERT_TRUE(opened) << opened.error().message;
    engine = std::move(*opened);
  }

  static Request request(AdapterId adapter, int32_t max_tokens = 12) {
    return {.prompt = {5, 9, 2, 7, 1, 3, 8, 4, 6},
            .adapter = adapter,
            .sampling = {.temperature = 0, .max_tokens = max_tokens, .ignore_eos = true}};
  }

  Reply run(const Request& r) {
    Replies replies;
    const auto id = engine->submit(r, replies.add().first);
    if (!id) return {.reason = FinishReason::kError, .error = id.error().message};
    engine->wait_until_idle();
    return replies.at(0);
  }

  // The answer of each content on an engine that knows nothing else.
  void learn_answers() {
    open({.prefix_caching = false});
    for (const auto& content : kContents)
      answers.push_back(run(request(engine->add_adapter(content, root / content).value())).tokens);
    answers.push_back(run(request(AdapterId::kBase)).tokens);
    for (size_t i = 0; i < answers.size(); ++i) {
      for (size_t j = 0; j < i; ++j) ASSERT_NE(answers[i], answers[j]) << i << " and " << j;
    }
    engine.reset();
  }

  size_t bytes_of(const std::string& content) {
    open();
    const auto id = engine->add_adapter("x", root / content).value();
    const size_t bytes = engine->adapter_bytes(id).value();
    engine.reset();
    return bytes;
  }

  fs::path root;
  std::vector<std::vector<int32_t>> answers;  // of kContents, then of the base
  std::unique_ptr<Engine> engine;
};

TEST_F(AdapterLife, NeverHitsThePrefixesOfAnotherVersion) {
  learn_answers();
  open();
  const AdapterId id = engine->add_adapter("a", root / kContents[0]).value();
  EXPECT_EQ(run(request(id)).cached_tokens, 0);
  EXPECT_EQ(run(request(id)).cached_tokens, 8);
  for (size_t i = 1; i < kContents.size(); ++i) {
    const auto same = engine->add_adapter("a", root / kContents[i], {.mode = LoadMode::kReplace});
    ASSERT_EQ(same.value(), id);
    const Reply reply = run(request(id));
    EXPECT_EQ(reply.cached_tokens, 0);
    EXPECT_EQ(reply.tokens, answers[i]);
  }
  // A prefix belongs to a content: the first one is found again, also under another name.
  const AdapterId other = engine->add_adapter("b", root / kContents[0]).value();
  const Reply reply = run(request(other));
  EXPECT_EQ(reply.cached_tokens, 8);
  EXPECT_EQ(reply.tokens, answers[0]);
  EXPECT_EQ(run(request(AdapterId::kBase)).cached_tokens, 0);
}

TEST_F(AdapterLife, FinishesRunningAndQueuedRequestsOnTheOldVersion) {
  learn_answers();
  for (const bool removes : {false, true}) {
    open({.max_batch_size = 2, .max_adapters = 1});
    const AdapterId id = engine->add_adapter("a", root / kContents[0]).value();
    Replies replies;
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(engine->submit(request(id), replies.add().first));
    if (removes) {
      ASSERT_TRUE(engine->remove_adapter(id));
    }
    const auto next = engine->add_adapter("a", root / kContents[1],
                                          {.mode = removes ? LoadMode::kNew : LoadMode::kReplace});
    ASSERT_TRUE(next) << next.error().message;
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(engine->submit(request(*next), replies.add().first));
    engine->wait_until_idle();
    for (size_t i = 0; i < 12; ++i) EXPECT_EQ(replies.at(i).tokens, answers[i < 6 ? 0 : 1]) << i;
    EXPECT_EQ(engine->stats().adapter_host_bytes, engine->adapter_bytes(*next).value());
  }
}

TEST_F(AdapterLife, ServesMoreAdaptersThanFitIntoMemory) {
  size_t largest = 0;
  for (const auto& content : kContents) largest = std::max(largest, bytes_of(content));
  learn_answers();
  open({.max_adapters = 2, .adapter_host_bytes = largest});
  std::vector<AdapterId> ids;
  for (const auto& content : kContents) ids.push_back(engine->resolve_adapter(content).value());
  ids.push_back(AdapterId::kBase);
  Replies replies;
  for (size_t i = 0; i < 60; ++i)
    ASSERT_TRUE(engine->submit(request(ids[i % ids.size()]), replies.add().first));
  engine->wait_until_idle();
  for (size_t i = 0; i < 60; ++i) {
    EXPECT_EQ(replies.at(i).error, "");
    EXPECT_EQ(replies.at(i).tokens, answers[i % ids.size()]) << i;
  }
  EXPECT_LE(engine->stats().adapter_host_bytes, largest);
  int64_t loads = 0, evictions = 0;
  for (const AdapterInfo& info : engine->adapters()) {
    EXPECT_EQ(info.counts.requests, 10);
    EXPECT_EQ(info.counts.generated_tokens, 120);
    EXPECT_EQ(info.counts.running + info.counts.waiting, 0);
    loads += info.loads;
    evictions += info.evictions;
  }
  EXPECT_EQ(engine->stats().adapter_loads, loads);
  EXPECT_EQ(engine->stats().adapter_evictions, evictions);
  EXPECT_GT(engine->stats().adapter_load_seconds, 0.0);
  EXPECT_GE(loads, 5);
  EXPECT_GE(evictions, 2);
  EXPECT_EQ(engine->stats().base.requests, 10);
  // Once more, when all but one or two are on disk.
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(run(request(ids[i])).tokens, answers[i]);
}

TEST_F(AdapterLife, LetsOthersGoOnWhileARequestWaitsForItsAdapter) {
  const size_t bytes = bytes_of(kLargest);
  ASSERT_GT(bytes, bytes_of(kContents[0]));
  learn_answers();
  open({.adapter_host_bytes = bytes});
  const AdapterId first = engine->add_adapter("a", root / kLargest).value();
  const AdapterId second = engine->resolve_adapter(kContents[0]).value();
  // Holds the engine's thread at its first token until the others are there.
  std::binary_semaphore others_are_there{0};
  Replies replies;
  const auto outer = replies.add().first;
  ASSERT_TRUE(engine->submit(request(first, 100), [&](const TokenEvent& event) {
    outer(event);
    if (event.completion_tokens == 1) others_are_there.acquire();
  }));
  replies.wait_for_events(0, 1);
  ASSERT_TRUE(engine->submit(request(second), replies.add().first));  // no room before it ends
  const auto cancelled = engine->submit(request(second), replies.add().first);
  ASSERT_TRUE(cancelled);
  ASSERT_TRUE(engine->submit(request(AdapterId::kBase), replies.add().first));
  engine->cancel(*cancelled);
  others_are_there.release();
  engine->wait_until_idle();
  EXPECT_EQ(replies.at(0).tokens.size(), 100u);
  EXPECT_EQ(replies.at(2).reason, FinishReason::kCancelled);
  EXPECT_EQ(replies.at(3).tokens, answers.back());
  EXPECT_EQ(replies.at(1).tokens, answers[0]);
}

TEST_F(AdapterLife, EndsRequestsWhoseAdapterCannotBeRead) {
  std::map<uint64_t, std::pair<std::string, std::optional<ErrorCode>>> ends;
  EngineConfig config;
  config.on_step = [&](std::span<const TokenEvent> events) {
    for (const TokenEvent& event : events) {
      if (event.finished) ends[event.tag] = {std::string(event.error), event.error_code};
    }
  };
  open(config);
  fs::resize_file(root / kContents[0] / "adapter_model.safetensors", 100);
  Request broken = request(engine->resolve_adapter(kContents[0]).value());
  broken.tag = 1;
  Request gone = request(engine->resolve_adapter(kContents[1]).value());
  gone.tag = 2;
  fs::remove_all(root / kContents[1]);
  Request good = request(engine->resolve_adapter(kContents[2]).value());
  good.tag = 3;
  for (const Request& r : {broken, gone, good}) ASSERT_TRUE(engine->submit(r));
  engine->wait_until_idle();
  EXPECT_TRUE(ends.at(1).first.starts_with("adapter \"" + kContents[0] + "\": "))
      << ends.at(1).first;
  EXPECT_EQ(ends.at(1).second, ErrorCode::kCorrupt);
  EXPECT_EQ(ends.at(2).second, ErrorCode::kNotFound);
  EXPECT_EQ(ends.at(3).first, "");
  EXPECT_EQ(engine->find_adapter(kContents[0]), std::nullopt);
  EXPECT_EQ(engine->submit(broken).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(engine->adapters().size(), 1u);
  EXPECT_EQ(engine->stats().adapter_failed_loads, 2);
}

TEST_F(AdapterLife, EndsParkedRequestsWhenTheEngineGoes) {
  const size_t bytes = bytes_of(kLargest);
  open({.adapter_host_bytes = bytes});
  const AdapterId first = engine->add_adapter("a", root / kLargest).value();
  Replies replies;
  ASSERT_TRUE(engine->submit(request(first, 100), replies.add().first));
  replies.wait_for_events(0, 1);
  const AdapterId second = engine->resolve_adapter(kContents[0]).value();
  ASSERT_TRUE(engine->submit(request(second), replies.add().first));
  engine.reset();
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(replies.at(i).num_last_events, 1) << i;
}

TEST_F(AdapterLife, ShowsWhereAdaptersAre) {
  open({.max_adapters = 1});
  const AdapterId a = engine->add_adapter("a", root / kContents[0], {.pinned = true}).value();
  const Files files = read_files(root / kContents[1]);
  const AdapterId b = engine->add_adapter_bytes("b", files.bytes()).value();
  engine->resolve_adapter(kContents[2]).value();
  run(request(a));
  run(request(b));
  std::map<std::string, AdapterTier> tiers;
  for (const AdapterInfo& info : engine->adapters()) tiers[info.name] = info.tier;
  EXPECT_EQ(tiers, (std::map<std::string, AdapterTier>{{"a", AdapterTier::kHost},
                                                       {"b", AdapterTier::kSlot},
                                                       {kContents[2], AdapterTier::kDisk}}));
  EXPECT_EQ(engine->adapter(b).value().tier, AdapterTier::kSlot);
  EXPECT_EQ(name(AdapterTier::kSlot), "slot");
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.adapter_slots_used, 1);
  EXPECT_EQ(stats.adapter_slots_total, 1);
  EXPECT_EQ(stats.adapter_host_bytes, *engine->adapter_bytes(a) + *engine->adapter_bytes(b));
  EXPECT_EQ(engine->adapter(AdapterId{9}).error().code, ErrorCode::kNotFound);
  // Gone from its slot too.
  ASSERT_TRUE(engine->remove_adapter(b));
  for (int i = 0; i < 1000 && engine->stats().adapter_slots_used > 0; ++i)
    std::this_thread::sleep_for(1ms);
  EXPECT_EQ(engine->stats().adapter_slots_used, 0);
}

TEST_F(AdapterLife, WantsARootThatIsThere) {
  const auto refused = Engine::open({.model_dir = kModel, .adapter_root = root / "none"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message,
            "adapter_root is " + (root / "none").string() + ", it must name a folder");
}

size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

// 32 streams, each of which asks again when it has its answer, on four names whose content the test
// replaces, removes and loads again, from folders and from memory.
TEST_F(AdapterLife, StaysRightAndSmallThrough500LoadsSwapsAndRemovals) {
  constexpr int kNames = 4;
  constexpr int kStreams = 32;
  constexpr int kChanges = 500;
  learn_answers();
  std::vector<Files> files;
  size_t all_bytes = 0;
  for (const auto& content : kContents) {
    files.push_back(read_files(root / content));
    all_bytes += bytes_of(content);
  }
  open({.max_batch_size = 24, .max_adapters = 6, .adapter_host_bytes = 8 * all_bytes});

  // A name's content number `version` is kContents[(name + version) % size]. Before a change
  // `announced` rises, after it `done`: a request has a version that was announced before submit()
  // returned and not replaced before it was called.
  struct Name {
    std::atomic<int> announced = 0;
    std::atomic<int> done = 0;
    std::atomic<AdapterId> id = AdapterId::kBase;
    std::atomic<bool> may_be_gone = false;
  };
  std::vector<Name> names(kNames);
  const auto content_of = [&](int name, int version) {
    return static_cast<size_t>(name + version) % kContents.size();
  };
  for (int i = 0; i < kNames; ++i) {
    names[i].id =
        engine->add_adapter("n" + std::to_string(i), root / kContents[content_of(i, 0)]).value();
  }

  std::atomic<bool> stops = false;
  std::atomic<int> num_live = 0;
  std::atomic<int64_t> num_right = 0, num_wrong = 0, num_refused = 0;
  struct Stream {
    std::vector<int32_t> tokens;
    int name = 0;  // kNames: the base
    int from = 0, to = 0;
    int round = 0;
  };
  std::vector<Stream> streams(kStreams);
  std::function<void(int)> ask;
  const auto on_tokens = [&](int index, const TokenEvent& event) {
    Stream& stream = streams[index];
    stream.tokens.insert(stream.tokens.end(), event.tokens.begin(), event.tokens.end());
    if (!event.finished) return;
    bool is_right = stream.name == kNames && stream.tokens == answers.back();
    for (int v = stream.from; stream.name < kNames && v <= stream.to; ++v)
      is_right = is_right || stream.tokens == answers[content_of(stream.name, v)];
    ++(is_right && event.error.empty() ? num_right : num_wrong);
    if (stops) {
      --num_live;
    } else {
      ask(index);
    }
  };
  // One answer takes several steps, so that submit() has returned before its last event.
  ask = [&](int index) {
    Stream& stream = streams[index];
    stream.tokens.clear();
    stream.name = (index + stream.round++) % (kNames + 1);
    Request r = request(AdapterId::kBase);
    if (stream.name < kNames) {
      Name& name = names[stream.name];
      stream.from = name.done;
      const bool may_be_gone = name.may_be_gone;
      r.adapter = name.id;
      const auto id = engine->submit(r, [&, index](const TokenEvent& e) { on_tokens(index, e); });
      stream.to = name.announced;
      if (id) return;
      ++(may_be_gone || name.may_be_gone || name.done != stream.from ? num_refused : num_wrong);
      stream.name = kNames;
      r.adapter = AdapterId::kBase;
    }
    const auto id = engine->submit(r, [&, index](const TokenEvent& e) { on_tokens(index, e); });
    if (!id) ++num_wrong;
  };
  num_live = kStreams;
  // All but the first start on the engine's thread, so that nobody else touches the streams.
  ASSERT_TRUE(engine->submit(request(AdapterId::kBase, 1), [&](const TokenEvent& event) {
    for (int i = 0; event.finished && i < kStreams; ++i) ask(i);
  }));

  size_t before = 0;
  std::mt19937 random(3);
  for (int change = 0; change < kChanges; ++change) {
    const int i = static_cast<int>(random() % kNames);
    Name& name = names[i];
    const int version = name.announced + 1;
    const size_t content = content_of(i, version);
    const std::string text = "n" + std::to_string(i);
    const bool removes = change % 3 == 0;
    name.announced = version;
    if (removes) {
      name.may_be_gone = true;
      ASSERT_TRUE(engine->remove_adapter(name.id));
    }
    const AdapterOptions options = {.mode = removes ? LoadMode::kNew : LoadMode::kReplace,
                                    .pinned = change % 5 == 0};
    const auto id = change % 2 == 0
                        ? engine->add_adapter(text, root / kContents[content], options)
                        : engine->add_adapter_bytes(text, files[content].bytes(), options);
    ASSERT_TRUE(id) << id.error().message;
    name.id = *id;
    name.done = version;
    name.may_be_gone = false;
    if (change == kChanges / 5) before = resident_bytes();
    // The streams keep pace, so that every change meets them.
    while (num_right + num_wrong < change) std::this_thread::sleep_for(1ms);
  }
  const size_t after = resident_bytes();
  stops = true;
  engine->wait_until_idle();
  EXPECT_EQ(num_live, 0);
  EXPECT_EQ(num_wrong, 0);
  EXPECT_GE(num_right, kChanges);
  for (Name& name : names) ASSERT_TRUE(engine->remove_adapter(name.id));
  EXPECT_EQ(engine->stats().adapter_host_bytes, 0u);
  EXPECT_EQ(engine->stats().kv_blocks_used, 0);
  std::printf(
      "%lld right answers, %lld refused between two loads, %.1f MB after 100 changes, %.1f MB "
      "after 500\n",
      static_cast<long long>(num_right), static_cast<long long>(num_refused),
      static_cast<double>(before) / 1e6, static_cast<double>(after) / 1e6);
  if (!kSanitized) {
    EXPECT_LT(after, before + (size_t{16} << 20));
  }
}

}  // namespace
}  // namespace braid::test
