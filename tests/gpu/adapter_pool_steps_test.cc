// AdapterPool while steps run: they see the adapters that are in their slots, and wait for no
// other.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>

#include "adapter/adapter_pool.h"
#include "kernels/elementwise/elementwise_bf16.h"
#include "kernels/moe_gemm/dummy.h"
#include "tests/gpu/adapter_pool_problem.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

// A model of an embedding alone, whose kernel reads the tables and an adapter's memory: what steps
// see is seen in their outputs.
class Steps {
 public:
  static constexpr int32_t kTokens = 512, kIds = 16, kHidden = 1024, kVocab = 30000;

  static ModelConfig config() {
    ModelConfig config = padded_model();
    config.hidden_size = kHidden;
    config.vocab_size = kVocab;
    config.num_hidden_layers = 1;
    config.is_moe_layer = {true};
    return config;
  }
  static AdapterShapes shapes() {
    AdapterShapes shapes = padded_shapes();
    shapes.moe.hidden_size = kHidden;
    shapes.qkv_proj.in = shapes.router.in = shapes.o_proj.slice_out[0] = kHidden;
    return shapes;
  }
  static AdapterRecipe recipe(int32_t rank) {
    return {.rank = rank, .experts = false, .lm_head = false};
  }

  explicit Steps(AdapterPool& pool, const Stream& stream) : pool_(pool), stream_(stream) {
    std::vector<Bf16> table(size_t{kVocab} * kHidden);
    for (size_t i = 0; i < table.size(); ++i)
      table[i].bits = static_cast<uint16_t>(0x3c00 + i * 40503 % 251);
    table_ = DeviceBuffer::of(table);
    std::vector<int32_t> ids;
    for (int32_t t = 0; t < kTokens; ++t) ids.push_back(t % kIds * (kVocab / kIds));
    ids_ = DeviceBuffer::of(ids);
  }

  // Enqueues a step: some other work, and then the tokens. `slot_of_token` and `out` are the
  // step's own.
  void enqueue(const int32_t* slot_of_token, const DeviceBuffer& out) const {
    kernels::fill_bf16(other_.as<Bf16>(), static_cast<int64_t>(other_.bytes() / 2), 1.0f, 1,
                       stream_.get());
    kernels::launch_embedding({.token_ids = ids_.as<int32_t>(),
                               .table = table_.as<Bf16>(),
                               .out = out.as<Bf16>(),
                               .num_tokens = kTokens,
                               .hidden_size = kHidden,
                               .adapters = pool_.tables().embedding,
                               .adapter_slot_of_token = slot_of_token},
                              stream_.get());
  }
  // Slots of the tokens: each in turn, so that it meets every id.
  static std::vector<int32_t> turns(std::span<const int32_t> slots) {
    std::vector<int32_t> slot_of_token;
    for (size_t t = 0; t < size_t{kTokens}; ++t)
      slot_of_token.push_back(slots[t / kIds % slots.size()]);
    return slot_of_token;
  }
  static DeviceBuffer poisoned_out() {
    DeviceBuffer out(size_t{kTokens} * kHidden * sizeof(Bf16));
    out.fill(0xff);
    return out;
  }
  // The rows of the ids where every token has the slot.
  std::vector<Bf16> rows_alone(int32_t slot) const {
    const DeviceBuffer slots = DeviceBuffer::of(turns({&slot, 1})), out = poisoned_out();
    enqueue(slots.as<int32_t>(), out);
    stream_.wait();
    return out.download<Bf16>(size_t{kIds} * kHidden);
  }
  // Whether each token got the rows of its adapter.
  static bool matches(const DeviceBuffer& out, const std::vector<std::vector<Bf16>>& rows_of_turn) {
    const auto got = out.download<Bf16>(size_t{kTokens} * kHidden);
    for (size_t t = 0; t < size_t{kTokens}; ++t) {
      const auto& rows = rows_of_turn[t / kIds % rows_of_turn.size()];
      if (!std::equal(got.begin() + static_cast<int64_t>(t * kHidden),
                      got.begin() + static_cast<int64_t>((t + 1) * kHidden),
                      rows.begin() + static_cast<int64_t>(t % kIds * kHidden)))
        return false;
    }
    return true;
  }

 private:
  AdapterPool& pool_;
  const Stream& stream_;
  DeviceBuffer table_, ids_;
  DeviceBuffer other_{size_t{256} << 20};  // 0.16 ms to write
};

// As an engine runs, but that the host never waits for a step: steps pile up, and slots and memory
// go to other adapters while steps that read them are still to run.
TEST(AdapterPoolSteps, KeepsTheRightBytesWhileAdaptersComeAndGo) {
  BRAID_NEEDS_CUDA();
  constexpr int32_t kNumAdapters = 10, kNumSlots = 6, kNumSteps = 1500;
  const Stream stream;
  AdapterPool pool(
      Steps::config(),
      {.num_slots = kNumSlots, .device_bytes = size_t{10} << 20, .shapes = Steps::shapes()},
      stream);
  const Steps steps(pool, stream);
  std::vector<std::shared_ptr<const Adapter>> adapters;
  std::vector<std::vector<Bf16>> rows;
  for (int32_t i = 0; i < kNumAdapters; ++i) {
    const TwinAdapters twins(Steps::config(), Steps::shapes(), Steps::recipe(16 + 5 * i), 1 + i);
    adapters.push_back(packed(pool, twins.own));
    pool.fill(0, *adapters.back());
    pool.wait_until_ready(0);
    rows.push_back(steps.rows_alone(0));
    pool.empty(0);
  }
  for (size_t i = 1; i < size_t{kNumAdapters}; ++i) ASSERT_NE(rows[0], rows[i]);

  struct Step {
    DeviceBuffer out;
    std::vector<size_t> adapters;  // of its tokens in turn
  };
  std::vector<Step> all;
  for (int32_t i = 0; i < kNumSteps; ++i)
    all.push_back({.out = Steps::poisoned_out(), .adapters = {}});
  constexpr size_t kSlotsBytes = sizeof(int32_t) * Steps::kTokens;  // of a step
  const PinnedBuffer slots_of_tokens(kNumSteps * kSlotsBytes);
  const DeviceBuffer device_slots(slots_of_tokens.bytes());

  std::mt19937 random(1);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  constexpr size_t kEmpty = kNumAdapters;
  std::vector<size_t> adapter_of_slot(kNumSlots, kEmpty);
  const auto empty = [&](int32_t slot) {
    pool.empty(slot);
    adapter_of_slot[static_cast<size_t>(slot)] = kEmpty;
  };
  int32_t num_fills = 0;
  // An adapter that is nowhere takes a slot, and others that are ready go until it has room.
  const auto bring_one = [&] {
    const size_t next = below(kNumAdapters);
    const auto slot = static_cast<int32_t>(below(kNumSlots));
    if (!pool.is_ready(slot) || std::ranges::count(adapter_of_slot, next) > 0) return;
    empty(slot);
    for (int32_t other = 0; other < kNumSlots && !pool.has_room(*adapters[next], {}); ++other) {
      if (pool.is_ready(other)) empty(other);
    }
    if (!pool.has_room(*adapters[next], {})) return;
    pool.fill(slot, *adapters[next]);
    adapter_of_slot[static_cast<size_t>(slot)] = next;
    ++num_fills;
  };
  const auto choose_slots = [&] {
    std::vector<int32_t> chosen;
    for (int32_t slot = 0; slot < kNumSlots; ++slot) {
      if (adapter_of_slot[static_cast<size_t>(slot)] != kEmpty && pool.is_ready(slot) &&
          below(2) == 0)
        chosen.push_back(slot);
    }
    return chosen;
  };
  std::array<Event, 4> ended;
  for (size_t i = 0; i < all.size(); ++i) {
    Step& step = all[i];
    ended[i % ended.size()].wait();
    std::vector<int32_t> slots;
    while (slots.empty()) {
      if (below(2) == 0) bring_one();
      slots = choose_slots();
    }
    for (const int32_t slot : slots)
      step.adapters.push_back(adapter_of_slot[static_cast<size_t>(slot)]);
    std::memcpy(slots_of_tokens.data() + i * kSlotsBytes, Steps::turns(slots).data(), kSlotsBytes);
    uint8_t* const of_step = device_slots.as<uint8_t>() + i * kSlotsBytes;
    stream.upload(of_step, slots_of_tokens, i * kSlotsBytes, kSlotsBytes);
    steps.enqueue(reinterpret_cast<const int32_t*>(of_step), step.out);
    ended[i % ended.size()].record(stream);
  }
  stream.wait();
  EXPECT_GT(num_fills, kNumSteps / 20);
  int32_t num_wrong = 0;
  for (const Step& step : all) {
    std::vector<std::vector<Bf16>> want;
    for (const size_t adapter : step.adapters) want.push_back(rows[adapter]);
    num_wrong += Steps::matches(step.out, want) ? 0 : 1;
  }
  EXPECT_EQ(num_wrong, 0);
}

TEST(AdapterPoolSteps, ShowsCapturedGraphsWhatIsInASlotNow) {
  BRAID_NEEDS_CUDA();
  const Stream stream;
  AdapterPool pool(Steps::config(),
                   {.num_slots = 3, .device_bytes = size_t{16} << 20, .shapes = Steps::shapes()},
                   stream);
  const Steps steps(pool, stream);
  const int32_t slot[] = {1};
  const DeviceBuffer slots = DeviceBuffer::of(Steps::turns(slot)), out = Steps::poisoned_out();
  const Graph graph = Graph::capture(stream, [&] { steps.enqueue(slots.as<int32_t>(), out); });
  std::vector<std::vector<Bf16>> rows;
  for (const int32_t rank : {16, 48}) {
    const TwinAdapters twins(Steps::config(), Steps::shapes(), Steps::recipe(rank), 1 + rank);
    const auto adapter = packed(pool, twins.own);
    pool.fill(1, *adapter);
    pool.wait_until_ready(1);
    graph.launch(stream);
    rows.push_back(steps.rows_alone(1));
    EXPECT_TRUE(Steps::matches(out, {rows.back()}));
    pool.empty(1);
  }
  EXPECT_NE(rows[0], rows[1]);
}

TEST(AdapterPoolSteps, LetsStepsPassCopiesThatTheyDoNotNeed) {
  BRAID_NEEDS_CUDA();
  ModelConfig config = Steps::config();
  config.vocab_size = 1000000;
  const Stream stream;
  AdapterPool pool(
      config, {.num_slots = 2, .device_bytes = size_t{1} << 30, .shapes = Steps::shapes()}, stream);
  const Steps steps(pool, stream);
  AdapterRecipe recipe = Steps::recipe(16);
  recipe.embedding = false;
  const TwinAdapters twins(Steps::config(), Steps::shapes(), recipe, 1);
  const auto small = packed(pool, twins.own);
  // 512 MB, some ten milliseconds of copying.
  std::vector<Bf16> factor(size_t{256} * 1000000);
  Adapter made;
  made.name = "large", made.max_rank = 256, made.layers.resize(1);
  made.embedding = {.a_t = factor.data(), .b = factor.data(), .rank = 256, .scaling = 1.0f};
  const auto large = packed(pool, made);

  const int32_t slot[] = {0};
  pool.fill(0, *small);
  pool.wait_until_ready(0);
  const DeviceBuffer slots = DeviceBuffer::of(Steps::turns(slot)), out = Steps::poisoned_out();
  // As large as inputs that the copy engine brings.
  const PinnedBuffer inputs(1 << 20);
  const DeviceBuffer device_inputs(inputs.bytes());
  pool.fill(1, *large);
  int32_t num_passed = 0;
  for (; !pool.is_ready(1); ++num_passed) {
    stream.upload(device_inputs.data(), inputs, 0, inputs.bytes());
    steps.enqueue(slots.as<int32_t>(), out);
    stream.wait();
  }
  // The first may have begun before the copy; one that stood behind it would have been the last.
  EXPECT_GT(num_passed, 3);
}

}  // namespace
}  // namespace braid::test
