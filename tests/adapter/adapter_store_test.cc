// AdapterStore: names, versions, memory, and what strangers may name.

#include "adapter/adapter_store.h"

#include <gtest/gtest.h>

#include <fstream>
#include <future>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "adapter/dummy_adapter.h"
#include "base/file.h"
#include "tests/adapter/adapter_builder.h"

namespace braid::test {
namespace {

namespace fs = std::filesystem;
using std::chrono_literals::operator""ms;

constexpr size_t kBytes = 2 * 2 * (8 + 4);  // rank 2, BF16, k_proj 8 -> 4

// Adapters of one size; each seed is another content.
AdapterBuilder some_adapter(uint64_t seed) {
  const std::string key = "base_model.model.model.layers.0.self_attn.k_proj";
  AdapterBuilder builder;
  builder.add(key + ".lora_A.weight", {2, 8}, some_values(16, seed));
  builder.add(key + ".lora_B.weight", {4, 2}, some_values(8, seed + 1000));
  return builder;
}

// A store, and folders of adapters "a0", "a1", ... with the seeds 0, 1, ...
class AdapterStoreTest : public testing::Test {
 protected:
  void open(size_t host_bytes = 0, bool has_root = true) {
    for (uint64_t seed = 0; seed < 5; ++seed) write(seed, seed);
    store = std::make_unique<AdapterStore>(
        tiny_model(), AdapterStore::Options{.host_bytes = host_bytes,
                                            .root = has_root ? root() : fs::path(),
                                            .pack = pack,
                                            .on_change = [this] { on_change(); }});
  }
  fs::path root() const { return fs::canonical(temp.path()); }
  fs::path folder(uint64_t number) const { return root() / ("a" + std::to_string(number)); }
  void write(uint64_t number, uint64_t seed) const {
    fs::create_directories(folder(number));
    some_adapter(seed).write(folder(number));
  }
  AdapterId add(uint64_t number, const AdapterOptions& options = {}) {
    const auto id = store->add("a" + std::to_string(number), folder(number), options);
    EXPECT_TRUE(id) << id.error().message;
    return id ? *id : AdapterId::kBase;
  }
  AdapterInfo info(AdapterId id) { return store->info(id).value(); }
  std::string tiers() {
    std::string all;
    for (const auto& i : store->list()) all += i.name + ":" + std::string(name(i.tier)) + " ";
    return all;
  }
  // The error of a request, or its adapter's hash.
  std::string outcome(AdapterId id) {
    auto lease = store->lease(id);
    if (!lease) return lease.error().message;
    wait_for(*lease);
    auto adapter = lease->adapter();
    return adapter ? "hash " + std::to_string((*adapter)->hash.low) : adapter.error().message;
  }
  static void wait_for(const AdapterLease& lease) {
    while (lease.is_loading()) std::this_thread::sleep_for(1ms);
  }

  TempFolder temp;
  std::function<Result<std::shared_ptr<const Adapter>>(const Adapter&)> pack;
  std::atomic<int> num_changes = 0;
  std::function<void()> on_change = [this] { ++num_changes; };
  std::unique_ptr<AdapterStore> store;
};

template <class T>
std::string message(const Result<T>& result) {
  return result ? "accepted" : result.error().message;
}

TEST_F(AdapterStoreTest, KeepsWhatIsMadeOfAnAdapterAndCountsItsBytes) {
  pack = [](const Adapter& read) -> Result<std::shared_ptr<const Adapter>> {
    if (read.name == "a2") return fail(ErrorCode::kResourceExhausted, "a2 is too large");
    auto packed = std::make_shared<Adapter>(read);
    packed->storage.clear();
    packed->bytes = 3 * kBytes;
    return packed;
  };
  open(7 * kBytes);
  const AdapterId first = add(1);
  EXPECT_EQ(store->host_bytes(), 3 * kBytes);
  EXPECT_TRUE(store->resident(first).value()->storage.empty());
  add(3);
  EXPECT_EQ(store->host_bytes(), 6 * kBytes);
  // A load that fails so has changed nothing.
  EXPECT_EQ(message(store->add("a2", folder(2), {})), "a2 is too large");
  EXPECT_EQ(tiers(), "a1:host a3:host ");
  // What was evicted is made again.
  add(4);
  EXPECT_EQ(tiers(), "a1:disk a3:host a4:host ");
  auto lease = store->lease(first).value();
  wait_for(lease);
  EXPECT_EQ(lease.adapter().value()->bytes, 3 * kBytes);
}

TEST_F(AdapterStoreTest, KnowsWhatIsLoaded) {
  open();
  const AdapterId id = add(1, {.pinned = true, .share = 2.5f});
  EXPECT_EQ(num_changes, 1);
  const AdapterInfo i = info(id);
  EXPECT_EQ(i.name, "a1");
  EXPECT_EQ(i.source, folder(1).string());
  EXPECT_TRUE(i.pinned);
  EXPECT_EQ(i.tier, AdapterTier::kHost);
  EXPECT_EQ(i.version, 1);
  EXPECT_EQ(i.hash.size(), 32u);
  EXPECT_EQ(i.bytes, kBytes);
  EXPECT_EQ(i.rank, 2);
  EXPECT_EQ(i.loads, 1);
  EXPECT_GT(i.load_seconds, 0.0);
  EXPECT_GT(i.loaded_at.time_since_epoch().count(), 0);
  EXPECT_EQ(i.last_used.time_since_epoch().count(), 0);
  EXPECT_EQ(store->host_bytes(), kBytes);
  EXPECT_EQ(store->report(id).value().num_tensors, 2);
  EXPECT_EQ(store->lease(id)->share(), 2.5f);
  ASSERT_TRUE(store->remove(id));
  EXPECT_EQ(store->host_bytes(), 0u);
  EXPECT_EQ(message(store->remove(id)), "there is no adapter with id 0");
  EXPECT_EQ(message(store->lease(id)), "there is no adapter with id 0");
}

TEST_F(AdapterStoreTest, TakesNamesByTheMode) {
  open();
  EXPECT_EQ(message(store->add("x", folder(0), {.mode = LoadMode::kReplace})),
            "there is no adapter \"x\" to replace");
  const auto id = store->add("x", folder(0), {.mode = LoadMode::kNewOrReplace});
  ASSERT_TRUE(id);
  EXPECT_EQ(message(store->add("x", folder(1), {})),
            "adapter \"x\" is already there; remove it first or choose another name");
  const std::string hash = info(*id).hash;
  EXPECT_EQ(store->add("x", folder(1), {.mode = LoadMode::kNewOrReplace}).value(), *id);
  EXPECT_EQ(info(*id).version, 2);
  EXPECT_NE(info(*id).hash, hash);
  EXPECT_EQ(message(store->add("", folder(0), {})),
            "an adapter's name has 0 bytes, accepted are 1 to 256");
  EXPECT_EQ(message(store->add(std::string(257, 'x'), folder(0), {})),
            "an adapter's name has 257 bytes, accepted are 1 to 256");
  EXPECT_EQ(message(store->add(std::string("a\0b", 3), folder(0), {})),
            "an adapter's name has a control character");
  EXPECT_EQ(message(store->add("y", folder(0), {.share = 0.0f})),
            "adapter \"y\": share is 0, accepted is 0.01 to 100");
  EXPECT_EQ(store->list().size(), 1u);
}

TEST_F(AdapterStoreTest, ReadsTheSameFromMemory) {
  open();
  const std::string config = read_file(folder(1) / "adapter_config.json", 1 << 20).value();
  const std::string tensors = read_file(folder(1) / "adapter_model.safetensors", 1 << 20).value();
  const auto id = store->add("m", {.config_json = config, .safetensors = tensors}, {});
  ASSERT_TRUE(id) << id.error().message;
  EXPECT_EQ(info(*id).hash, info(add(1)).hash);
  EXPECT_EQ(info(*id).source, "");
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, tensors.size() - 1}) {
    const auto cut = store->add(
        "cut", {.config_json = config, .safetensors = std::string_view(tensors).substr(0, size)},
        {});
    ASSERT_FALSE(cut);
    EXPECT_EQ(cut.error().code, ErrorCode::kCorrupt);
    EXPECT_TRUE(cut.error().message.starts_with("adapter \"cut\": adapter_model.safetensors: "));
  }
  const auto no_config = store->add("cut", {.config_json = "{", .safetensors = tensors}, {});
  EXPECT_TRUE(no_config.error().message.starts_with("adapter \"cut\": adapter_config.json: "));
}

TEST_F(AdapterStoreTest, ChangesNothingWhenALoadFails) {
  open();
  const AdapterId id = add(1);
  const std::string before = outcome(id);
  fs::resize_file(folder(2) / "adapter_model.safetensors", 50);
  for (const LoadMode mode : {LoadMode::kReplace, LoadMode::kNewOrReplace}) {
    EXPECT_EQ(store->add("a1", folder(2), {.mode = mode}).error().code, ErrorCode::kCorrupt);
  }
  EXPECT_EQ(store->add("a2", folder(2), {}).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(store->list().size(), 1u);
  EXPECT_EQ(info(id).version, 1);
  EXPECT_EQ(outcome(id), before);
}

TEST_F(AdapterStoreTest, KeepsAnOldContentForItsLeases) {
  open();
  const AdapterId id = add(1);
  auto old_lease = std::make_unique<AdapterLease>(store->lease(id).value());
  const auto old_hash = old_lease->adapter().value()->hash;
  ASSERT_TRUE(store->add("a1", folder(2), {.mode = LoadMode::kReplace}));
  EXPECT_NE(store->lease(id)->adapter().value()->hash, old_hash);
  EXPECT_EQ(old_lease->adapter().value()->hash, old_hash);
  EXPECT_EQ(store->host_bytes(), 2 * kBytes);
  ASSERT_TRUE(store->remove(id));
  EXPECT_EQ(old_lease->adapter().value()->hash, old_hash);
  EXPECT_EQ(store->host_bytes(), kBytes);
  old_lease.reset();
  EXPECT_EQ(store->host_bytes(), 0u);
}

TEST_F(AdapterStoreTest, EvictsTheOneUsedLongestAgo) {
  open(2 * kBytes + 1);
  const AdapterId a0 = add(0), a1 = add(1);
  outcome(a0);
  add(2);
  EXPECT_EQ(tiers(), "a0:host a1:disk a2:host ");
  EXPECT_EQ(info(a1).evictions, 1);
  EXPECT_EQ(info(a1).bytes, kBytes);
  EXPECT_EQ(store->host_bytes(), 2 * kBytes);
  EXPECT_TRUE(outcome(a1).starts_with("hash "));  // read again
  EXPECT_EQ(tiers(), "a0:disk a1:host a2:host ");
  EXPECT_EQ(info(a1).loads, 2);
}

TEST_F(AdapterStoreTest, NeverEvictsWhatIsPinnedOrFromMemory) {
  open(2 * kBytes);
  add(0, {.pinned = true});
  const std::string config = read_file(folder(1) / "adapter_config.json", 1 << 20).value();
  const std::string tensors = read_file(folder(1) / "adapter_model.safetensors", 1 << 20).value();
  const AdapterBytes bytes = {.config_json = config, .safetensors = tensors};
  const AdapterId m = store->add("m", bytes, {}).value();
  const std::string values =
      " takes 48 bytes, adapter_host_bytes is 96; 96 are pinned or came from memory, 0 are in use "
      "by requests";
  EXPECT_EQ(message(store->add("a2", folder(2), {})), "adapter \"a2\"" + values);
  EXPECT_EQ(message(store->add("n", bytes, {})), "adapter \"n\"" + values);
  EXPECT_EQ(store->add("n", bytes, {}).error().code, ErrorCode::kResourceExhausted);
  // What the replaced one takes is free for the new one.
  EXPECT_EQ(store->add("m", bytes, {.mode = LoadMode::kReplace}).value(), m);
  // Of a name that is found, the request hears of it.
  const AdapterId found = store->resolve("a3").value();
  EXPECT_EQ(outcome(found), "adapter \"a3\"" + values);
  EXPECT_EQ(store->find("a3"), std::nullopt);
}

TEST_F(AdapterStoreTest, PinsAndUnpins) {
  open(kBytes);
  const AdapterId a0 = add(0), a1 = add(1);
  EXPECT_EQ(tiers(), "a0:disk a1:host ");
  ASSERT_TRUE(store->pin(a0, true));
  EXPECT_EQ(tiers(), "a0:host a1:disk ");
  EXPECT_EQ(store->pin(a1, true).error().code, ErrorCode::kResourceExhausted);
  EXPECT_FALSE(info(a1).pinned);
  ASSERT_TRUE(store->pin(a0, false));
  ASSERT_TRUE(store->pin(a1, true));
  EXPECT_EQ(tiers(), "a0:disk a1:host ");
  EXPECT_EQ(message(store->pin(AdapterId{9}, true)), "there is no adapter with id 9");
}

TEST_F(AdapterStoreTest, LeavesOnDiskWhatFindsNoRoomNow) {
  open(kBytes);
  const AdapterId a0 = add(0);
  auto lease = std::make_unique<AdapterLease>(store->lease(a0).value());
  add(1);  // checked and registered
  EXPECT_EQ(tiers(), "a0:host a1:disk ");
  EXPECT_EQ(message(store->add("a2", folder(2), {.pinned = true})),
            "adapter \"a2\" takes 48 bytes, adapter_host_bytes is 48; 0 are pinned or came from "
            "memory, 48 are in use by requests");
  lease.reset();
  add(2, {.pinned = true});
  EXPECT_EQ(tiers(), "a0:disk a1:disk a2:host ");
}

TEST_F(AdapterStoreTest, MakesALoadWaitForTheEndOfLeases) {
  open(kBytes);
  const AdapterId a0 = add(0), a1 = add(1);
  EXPECT_EQ(tiers(), "a0:disk a1:host ");
  auto first = std::make_unique<AdapterLease>(store->lease(a1).value());
  auto second = std::make_unique<AdapterLease>(store->lease(a0).value());
  while (info(a1).tier != AdapterTier::kDisk) std::this_thread::sleep_for(1ms);
  // a1 goes with its lease; whoever wants it now stands behind the one that waits for the room.
  auto third = std::make_unique<AdapterLease>(store->lease(a1).value());
  std::this_thread::sleep_for(20ms);
  EXPECT_TRUE(second->is_loading());
  EXPECT_TRUE(third->is_loading());
  EXPECT_EQ(store->host_bytes(), kBytes);
  first.reset();
  wait_for(*second);
  EXPECT_TRUE(second->adapter());
  EXPECT_TRUE(third->is_loading());
  second.reset();
  wait_for(*third);
  EXPECT_TRUE(third->adapter());
  EXPECT_EQ(store->host_bytes(), kBytes);
  third.reset();
  EXPECT_EQ(tiers(), "a0:disk a1:host ");
}

TEST_F(AdapterStoreTest, DoesNotReadForRequestsThatHaveGone) {
  open(kBytes);
  const AdapterId a0 = add(0), a1 = add(1);
  auto holds = std::make_unique<AdapterLease>(store->lease(a1).value());
  auto waits = std::make_unique<AdapterLease>(store->lease(a0).value());
  const AdapterId a2 = add(2);
  store->lease(a2).value();  // gone at once
  waits.reset();
  holds.reset();
  EXPECT_TRUE(outcome(a1).starts_with("hash "));
  EXPECT_EQ(info(a2).loads, 1);
}

// Whoever hears of a change empties the slots of contents that nobody holds. What the store still
// held then, and let go of without a word, would keep its slot for ever.
TEST_F(AdapterStoreTest, HoldsNothingBackWhenItTellsOfAChange) {
  std::recursive_mutex mutex;  // of lease; remove() tells of a change as well
  std::unique_ptr<AdapterLease> lease;
  std::atomic<int> num_checked = 0;
  on_change = [&] {
    const std::lock_guard lock(mutex);
    const auto id = store->find("a0");
    if (!id) return;
    const std::weak_ptr<const Adapter> content = store->resident(*id).value();
    lease.reset();
    EXPECT_TRUE(store->remove(*id));
    EXPECT_TRUE(content.expired());
    ++num_checked;
  };
  open();
  add(0);
  EXPECT_EQ(num_checked, 1);
  EXPECT_TRUE(store->add("a0", {make_dummy_adapter(tiny_model(), "a0", 2, 1), {}}));
  EXPECT_EQ(num_checked, 2);
  {
    const std::lock_guard lock(mutex);
    // Found by name, so that its content comes with the first lease.
    lease = std::make_unique<AdapterLease>(store->lease(store->resolve("a0").value()).value());
  }
  for (int i = 0; i < 5000 && num_checked < 3; ++i) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(num_checked, 3);
  store.reset();  // before what its thread uses
}

TEST_F(AdapterStoreTest, SaysWhenAFolderHasChangedOrGone) {
  open(kBytes);
  const AdapterId a0 = add(0);
  const std::string before = outcome(a0);
  add(1);
  EXPECT_EQ(outcome(a0), before);  // read again
  outcome(*store->find("a1"));
  write(0, 77);
  EXPECT_EQ(outcome(a0), "adapter \"a0\": " + folder(0).string() +
                             " has changed since it was loaded; load it again");
  EXPECT_TRUE(store->find("a0"));
  write(0, 0);
  EXPECT_EQ(outcome(a0), before);
  outcome(*store->find("a1"));
  fs::remove_all(folder(0));
  EXPECT_NE(outcome(a0).find("cannot open for reading"), std::string::npos);
  write(0, 77);
  ASSERT_TRUE(store->add("a0", folder(0), {.mode = LoadMode::kReplace}));
  EXPECT_TRUE(outcome(a0).starts_with("hash "));
  EXPECT_NE(outcome(a0), before);
}

TEST_F(AdapterStoreTest, ReadsWhatALinkLedToWhenItWasAdded) {
  open(kBytes);
  fs::create_directory_symlink(folder(0), root() / "latest");
  const AdapterId id = store->add("x", root() / "latest", {}).value();
  const std::string before = outcome(id);
  fs::remove(root() / "latest");
  fs::create_directory_symlink(folder(1), root() / "latest");
  add(2);
  EXPECT_EQ(info(id).tier, AdapterTier::kDisk);
  EXPECT_EQ(outcome(id), before);
}

TEST_F(AdapterStoreTest, FindsAdaptersByName) {
  open();
  fs::create_directories(root() / "team/sql");
  some_adapter(7).write(root() / "team/sql");
  const AdapterId id = store->resolve("team/sql").value();
  EXPECT_EQ(store->resolve("team/sql").value(), id);
  EXPECT_EQ(info(id).tier, AdapterTier::kDisk);
  EXPECT_EQ(info(id).hash, "");
  EXPECT_TRUE(info(id).found_in_root);
  EXPECT_EQ(message(store->report(id)), "adapter \"team/sql\" has not been read yet");
  EXPECT_TRUE(outcome(id).starts_with("hash "));
  EXPECT_EQ(info(id).tier, AdapterTier::kHost);
  EXPECT_EQ(info(id).rank, 2);
  EXPECT_TRUE(store->report(id));
  // A broken one is forgotten, and found again once it is whole.
  fs::resize_file(folder(1) / "adapter_model.safetensors", 50);
  EXPECT_NE(outcome(store->resolve("a1").value()).find("adapter_model.safetensors"),
            std::string::npos);
  EXPECT_EQ(store->find("a1"), std::nullopt);
  write(1, 1);
  EXPECT_TRUE(outcome(store->resolve("a1").value()).starts_with("hash "));
  EXPECT_EQ(message(store->resolve("team")), "there is no adapter \"team\"");
}

TEST_F(AdapterStoreTest, KeepsNamesInsideTheRoot) {
  open();
  const TempFolder elsewhere;
  some_adapter(8).write(elsewhere.path());
  fs::create_directory_symlink(elsewhere.path(), root() / "link");
  fs::create_directory_symlink(folder(0), root() / "inner");
  fs::create_directories(root() / "files");
  for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
    fs::create_symlink(elsewhere.path() / file, root() / "files" / file);
  const std::string sibling = root().string() + "-evil";  // shares the root's name as a prefix
  fs::create_directory_symlink(elsewhere.path(), sibling);

  const std::string outside = elsewhere.path().string();
  for (const std::string& name : {std::string(),
                                  std::string("."),
                                  std::string(".."),
                                  std::string("a0/.."),
                                  std::string("../" + root().filename().string() + "/a0"),
                                  std::string("/"),
                                  outside,
                                  folder(0).string(),
                                  std::string("a0/"),
                                  std::string("//a0"),
                                  std::string("a0//."),
                                  std::string("a0\0", 3),
                                  std::string("\0", 1),
                                  std::string("link"),
                                  std::string("a9"),
                                  std::string(300, 'a'),
                                  std::string(100000, 'a'),
                                  std::string(255, 'a'),
                                  std::string("a0/adapter_config.json"),
                                  std::string("a\nb"),
                                  std::string("~"),
                                  sibling}) {
    EXPECT_EQ(store->resolve(name).error().code, ErrorCode::kNotFound) << name.substr(0, 80);
  }
  EXPECT_EQ(store->list().size(), 0u);
  EXPECT_TRUE(outcome(store->resolve("inner").value()).starts_with("hash "));
  // The folder is inside, its files are not.
  EXPECT_EQ(outcome(store->resolve("files").value()),
            "adapter \"files\": " + (root() / "files/adapter_config.json").string() +
                ": leads out of " + root().string());

  const auto confined = [&](const fs::path& path) {
    return message(store->add("x", path, {.confined = true}));
  };
  const std::string refused = " is not a folder inside of adapter_root";
  EXPECT_EQ(confined("../" + root().filename().string()),
            "adapter \"x\": ../" + root().filename().string() + refused);
  EXPECT_EQ(confined(outside), "adapter \"x\": " + outside + refused);
  EXPECT_EQ(confined("link"), "adapter \"x\": link" + refused);
  EXPECT_EQ(confined(sibling), "adapter \"x\": " + sibling + refused);
  EXPECT_EQ(confined("."), "adapter \"x\": ." + refused);
  EXPECT_NE(confined("files").find("leads out of"), std::string::npos);
  EXPECT_EQ(confined("a9"), "adapter \"x\": a9: No such file or directory");
  EXPECT_EQ(confined(std::string(300, 'a')).substr(0, 20), "adapter \"x\": aaaaaaa");
  EXPECT_EQ(store->find("x"), std::nullopt);
  EXPECT_EQ(confined(folder(0)), "accepted");
  fs::remove(sibling);
}

TEST_F(AdapterStoreTest, FindsNothingWithoutARoot) {
  open(0, false);
  EXPECT_EQ(store->resolve("a0").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(message(store->add("x", folder(0), {.confined = true})),
            "adapter \"x\": there is no adapter_root to load adapters from");
}

TEST_F(AdapterStoreTest, EndsLoadsWhenItGoes) {
  open(kBytes);
  add(0, {.pinned = true});
  ASSERT_TRUE(store->pin(*store->find("a0"), false));
  auto holds = std::make_unique<AdapterLease>(store->lease(*store->find("a0")).value());
  const auto waits = store->lease(add(1)).value();
  const auto behind = store->lease(add(2)).value();
  store.reset();
  EXPECT_EQ(message(waits.adapter()), "the engine is being closed");
  EXPECT_EQ(message(behind.adapter()), "the engine is being closed");
  EXPECT_TRUE(holds->adapter());  // leases outlive the store
}

// A writer that rewrites an adapter in place, in two halves, now and then leaving it alone.
TEST_F(AdapterStoreTest, NeverReadsHalfOfAnAdapter) {
  open();
  const std::set<std::string> hashes = {info(add(1)).hash, info(add(2)).hash};
  ASSERT_EQ(hashes.size(), 2u);
  const fs::path file = folder(0) / "adapter_model.safetensors";
  const std::string contents[] = {
      read_file(folder(1) / "adapter_model.safetensors", 1 << 20).value(),
      read_file(folder(2) / "adapter_model.safetensors", 1 << 20).value()};
  ASSERT_EQ(contents[0].size(), contents[1].size());
  std::atomic<bool> stops = false;
  write(0, 1);
  std::atomic<bool> was_held_up = false;  // the machine left a half alone for as long as a whole
  std::thread writer([&] {
    for (int i = 0; !stops; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      const std::string& content = contents[i % 2];
      const size_t half = content.size() - 40;  // inside of a factor
      std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
      stream.write(content.data(), static_cast<std::streamsize>(half)).flush();
      std::this_thread::sleep_for(1ms);
      stream.write(content.data() + half, static_cast<std::streamsize>(content.size() - half));
      stream.close();
      if (std::chrono::steady_clock::now() - begin > 10ms) was_held_up = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(i % 8 == 0 ? 60 : 1));
    }
  });
  int num_read = 0, num_halves = 0;
  const auto start = std::chrono::steady_clock::now();
  const auto runs_for = [&](auto time) { return std::chrono::steady_clock::now() - start < time; };
  while (runs_for(500ms) || (num_read == 0 && runs_for(20000ms))) {
    const auto id = store->add("x", folder(0), {.mode = LoadMode::kNewOrReplace});
    if (id) {
      ++num_read;
      num_halves += !hashes.contains(info(*id).hash);
    } else {
      EXPECT_EQ(id.error().code, ErrorCode::kIo) << id.error().message;
    }
  }
  stops = true;
  writer.join();
  EXPECT_GT(num_read, 0);
  EXPECT_TRUE(store->add("x", folder(0), {.mode = LoadMode::kNewOrReplace}));
  if (was_held_up) GTEST_SKIP() << "the writer was held up: " << num_halves << " halves read";
  EXPECT_EQ(num_halves, 0);
}

// Threads that load, swap, remove, pin and use five names over memory for two.
TEST_F(AdapterStoreTest, SurvivesEverybodyAtOnce) {
  open(2 * kBytes + 1);
  std::vector<std::future<void>> threads;
  std::atomic<int> num_used = 0;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.push_back(std::async(std::launch::async, [&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < 60; ++i) {
        const uint64_t number = random() % 5;
        const std::string name = "a" + std::to_string(number);
        const auto id = store->find(name);
        switch (random() % 5) {
          case 0:
            (void)store->add(name, folder(number), {.mode = LoadMode::kNewOrReplace});
            break;
          case 1:
            if (id && random() % 4 == 0) (void)store->remove(*id);
            break;
          case 2:
            if (id) (void)store->pin(*id, random() % 4 == 0);
            (void)store->list();
            break;
          default:
            if (auto found = store->resolve(name)) {
              auto lease = store->lease(*found);
              if (!lease) break;
              wait_for(*lease);
              auto adapter = lease->adapter();
              if (adapter) {
                ++num_used;
                EXPECT_EQ((*adapter)->name, name);
              } else {
                EXPECT_EQ(adapter.error().code, ErrorCode::kResourceExhausted);
              }
            }
        }
      }
    }));
  }
  for (auto& thread : threads) thread.get();
  EXPECT_GT(num_used, 20);
  EXPECT_LE(store->host_bytes(), 2 * kBytes);
}

}  // namespace
}  // namespace braid::test
