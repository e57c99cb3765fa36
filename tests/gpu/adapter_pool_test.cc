// AdapterPool on a device: every byte where the tables say, and what it cannot hold.

#include "adapter/adapter_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "base/check.h"
#include "kernels/elementwise/pack.h"
#include "kernels/linear/pack.h"
#include "kernels/moe_gemm/pack.h"
#include "tests/gpu/adapter_pool_problem.h"
#include "tests/gpu/device_bytes.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

template <class Slot>
Slot entry(const Slot* table, int32_t slot) {
  const std::vector<uint8_t> bytes = device_bytes(table + slot, sizeof(Slot));
  Slot out;
  std::memcpy(&out, bytes.data(), sizeof(Slot));
  return out;
}

// Where the module begins on the device, from one of its pointers and that pointer's offset.
const uint8_t* begin_of(const void* pointer, const void* offset) {
  return static_cast<const uint8_t*>(pointer) - reinterpret_cast<uintptr_t>(offset);
}

void expect_bytes(const void* begin, std::span<const uint8_t> want) {
  EXPECT_EQ(reinterpret_cast<uintptr_t>(begin) % 256, 0u);
  EXPECT_TRUE(std::ranges::equal(device_bytes(begin, want.size()), want));
}

void expect_linear(const kernels::LinearAdapterSlot* table, int32_t slot,
                   const kernels::LinearShape& shape, std::vector<LoraPair> pairs,
                   const std::string& what) {
  SCOPED_TRACE(what);
  const auto got = entry(table, slot);
  const bool is_adapted = std::ranges::any_of(pairs, [](const auto& p) { return p.rank > 0; });
  const auto want = kernels::pack_linear_adapter(shape, pairs);
  for (size_t s = 0; s < kernels::kMaxLinearSlices; ++s) EXPECT_EQ(got.rank[s], want.slot.rank[s]);
  if (!is_adapted) return;
  const uint8_t* const begin = begin_of(got.shrink, want.slot.shrink);
  for (size_t s = 0; s < pairs.size(); ++s) {
    EXPECT_EQ(got.scaling[s], want.slot.scaling[s]);
    EXPECT_EQ(begin_of(got.expand[s], want.slot.expand[s]), begin);
  }
  expect_bytes(begin, want.bytes);
}

void expect_experts(const kernels::MoeAdapterSlot* table, int32_t slot,
                    const kernels::MoeSizes& sizes, const std::vector<ExpertLora>& experts) {
  SCOPED_TRACE("experts");
  const auto got = entry(table, slot);
  if (experts.empty()) {
    EXPECT_EQ(got.rank_gate_up, 0);
    EXPECT_EQ(got.rank_down, 0);
    return;
  }
  const auto packed = kernels::pack_moe_adapter(sizes, experts.data());
  const uint8_t* const begin = begin_of(got.shrink_gate_up, packed.layout.slot.shrink_gate_up);
  const auto want = packed.placed_at(begin);
  EXPECT_EQ(got.expand_gate_up, want.expand_gate_up);
  EXPECT_EQ(got.shrink_down, want.shrink_down);
  EXPECT_EQ(got.expand_down, want.expand_down);
  EXPECT_EQ(got.shrink_gate_up_stride, want.shrink_gate_up_stride);
  EXPECT_EQ(got.expand_gate_up_stride, want.expand_gate_up_stride);
  EXPECT_EQ(got.shrink_down_stride, want.shrink_down_stride);
  EXPECT_EQ(got.expand_down_stride, want.expand_down_stride);
  EXPECT_EQ(got.rank_gate_up, want.rank_gate_up);
  EXPECT_EQ(got.rank_down, want.rank_down);
  EXPECT_EQ(got.one_a, want.one_a);
  EXPECT_EQ(got.scaling_gate, want.scaling_gate);
  EXPECT_EQ(got.scaling_up, want.scaling_up);
  EXPECT_EQ(got.scaling_down, want.scaling_down);
  expect_bytes(begin, packed.bytes);
}

// The tables' entries of a slot, and all they point to, are those of `wide`.
void expect_adapter(const AdapterPool& pool, int32_t slot, const ModelConfig& config,
                    const AdapterShapes& shapes, const Adapter& wide) {
  const AdapterTables& tables = pool.tables();
  ASSERT_EQ(tables.layers.size(), wide.layers.size());
  for (size_t i = 0; i < wide.layers.size(); ++i) {
    SCOPED_TRACE("layer " + std::to_string(i));
    const LayerLora& layer = wide.layers[i];
    const LayerAdapterTables& t = tables.layers[i];
    const auto pair = [&](LoraTarget target) { return layer.linear[static_cast<size_t>(target)]; };
    expect_linear(t.qkv_proj, slot, shapes.qkv_proj,
                  {pair(LoraTarget::kQProj), pair(LoraTarget::kKProj), pair(LoraTarget::kVProj)},
                  "qkv_proj");
    expect_linear(t.o_proj, slot, shapes.o_proj, {pair(LoraTarget::kOProj)}, "o_proj");
    expect_linear(t.router, slot, shapes.router, {pair(LoraTarget::kRouter)}, "router");
    expect_linear(t.gate_up_proj, slot, shapes.gate_up_proj,
                  {pair(LoraTarget::kGateProj), pair(LoraTarget::kUpProj)}, "gate_up_proj");
    expect_linear(t.down_proj, slot, shapes.down_proj, {pair(LoraTarget::kDownProj)}, "down_proj");
    expect_experts(t.experts, slot, shapes.moe, layer.experts);
  }
  expect_linear(tables.lm_head, slot, shapes.lm_head, {wide.lm_head}, "lm_head");
  const auto got = entry(tables.embedding, slot);
  const auto want = kernels::pack_embedding_adapter(wide.embedding, config.vocab_size,
                                                    shapes.moe.hidden_size, shapes.moe.hidden_size);
  EXPECT_EQ(got.rank, want.slot.rank);
  if (got.rank == 0) return;
  EXPECT_EQ(got.scaling, want.slot.scaling);
  EXPECT_EQ(begin_of(got.b_t, want.slot.b_t), begin_of(got.a_t, nullptr));
  const auto* const values = reinterpret_cast<const uint8_t*>(want.values.data());
  expect_bytes(got.a_t, {values, want.values.size() * sizeof(Bf16)});
}

const AdapterRecipe kRecipes[] = {
    {},
    {.rank = 256},
    {.rank = 1},
    {.rank = 40, .mixed_ranks = true},
    {.rank = 16, .one_a = true},
    {.rank = 16, .shared_outer = true},
    {.rank = 24, .one_a = true, .shared_outer = true},
    {.attention = false, .router = false, .mlp = false, .lm_head = false, .embedding = false},
    {.router = false, .experts = false, .mlp = false, .lm_head = false, .embedding = false},
    {.attention = false, .router = false, .experts = false, .mlp = false},
    {.attention = false,
     .router = false,
     .experts = false,
     .mlp = false,
     .lm_head = false,
     .embedding = false},
};

TEST(AdapterPool, BringsEveryModuleOfEveryLayout) {
  BRAID_NEEDS_CUDA();
  const ModelConfig config = padded_model();
  const AdapterShapes shapes = padded_shapes();
  const Stream stream;
  constexpr auto kNumSlots = static_cast<int32_t>(std::size(kRecipes)) + 1;
  AdapterPool pool(config, {.num_slots = kNumSlots, .device_bytes = 64 << 20, .shapes = shapes},
                   stream);
  std::vector<std::unique_ptr<TwinAdapters>> twins;
  std::vector<std::shared_ptr<const Adapter>> adapters;
  std::vector<int32_t> slots;
  const auto wait = [&] {
    for (const int32_t slot : slots) pool.wait_until_ready(slot);
  };
  for (const AdapterRecipe& recipe : kRecipes) {
    const auto slot = static_cast<int32_t>(slots.size());
    twins.push_back(std::make_unique<TwinAdapters>(config, shapes, recipe, 1 + slot));
    adapters.push_back(packed(pool, twins.back()->own));
    EXPECT_TRUE(adapters.back()->storage.empty());
    EXPECT_EQ(adapters.back()->layers[0].linear[0].a, nullptr);
    EXPECT_EQ(adapters.back()->layers[0].linear[0].rank,
              twins.back()->own.layers[0].linear[0].rank);
    EXPECT_TRUE(pool.has_room(*adapters.back(), {}));
    pool.fill(slot, *adapters.back());
    slots.push_back(slot);
  }
  wait();
  for (const int32_t slot : slots) {
    SCOPED_TRACE("slot " + std::to_string(slot));
    expect_adapter(pool, slot, config, shapes, twins[static_cast<size_t>(slot)]->wide);
    EXPECT_TRUE(pool.is_ready(slot));
  }
  // A slot that was never filled has entries of nothing.
  expect_adapter(pool, kNumSlots - 1, config, shapes, twins.back()->wide);

  // Others take their places and nothing stays behind; in the end all memory is free.
  for (const int32_t slot : slots) pool.empty(slot);
  EXPECT_EQ(pool.used_bytes(), 0u);
  for (const int32_t slot : slots) pool.fill(slot, *adapters[adapters.size() - 1 - slot]);
  wait();
  for (const int32_t slot : slots) {
    SCOPED_TRACE("again, slot " + std::to_string(slot));
    const auto index = twins.size() - 1 - static_cast<size_t>(slot);
    expect_adapter(pool, slot, config, shapes, twins[index]->wide);
  }
}

TEST(AdapterPool, SaysWhatItCannotHold) {
  BRAID_NEEDS_CUDA();
  const ModelConfig config = padded_model();
  const AdapterShapes shapes = padded_shapes();
  const Stream stream;
  const TwinAdapters small(config, shapes, {.rank = 8}, 1), large(config, shapes, {.rank = 64}, 2);
  AdapterPool measure(config, {.num_slots = 1, .device_bytes = 64 << 20, .shapes = shapes}, stream);
  const size_t small_bytes = packed(measure, small.own)->bytes;
  const size_t large_bytes = packed(measure, large.own)->bytes;

  AdapterPool pool(
      config, {.num_slots = 4, .device_bytes = 2 * small_bytes + 100, .shapes = shapes}, stream);
  const auto too_large = pool.pack(large.own);
  ASSERT_FALSE(too_large);
  EXPECT_EQ(too_large.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(too_large.error().message,
            "adapter \"twin\" takes " + std::to_string(large_bytes) +
                " bytes of device memory, adapter_device_bytes has room for " +
                std::to_string(2 * small_bytes));
  Adapter wide_rank = small.own;
  wide_rank.max_rank = 300;
  const auto unsupported = pool.pack(wide_rank);
  ASSERT_FALSE(unsupported);
  EXPECT_EQ(unsupported.error().message,
            "adapter \"twin\" has rank 300, the kernels of the device take up to 256");

  // Two fit, a third only in the place of one of them.
  const auto adapter = packed(pool, small.own);
  pool.fill(0, *adapter);
  pool.fill(3, *adapter);
  EXPECT_EQ(pool.used_bytes(), 2 * small_bytes);
  EXPECT_FALSE(pool.has_room(*adapter, {}));
  const int32_t neither[] = {1, 2}, one[] = {1, 3};
  EXPECT_FALSE(pool.has_room(*adapter, neither));
  EXPECT_TRUE(pool.has_room(*adapter, one));
  EXPECT_THROW(pool.fill(1, *adapter), InternalError);
  EXPECT_THROW(pool.fill(0, *adapter), InternalError);
  EXPECT_THROW(pool.fill(1, small.own), InternalError);  // not packed
}

TEST(AdapterPool, PacksOnSeveralThreadsAtOnce) {
  BRAID_NEEDS_CUDA();
  const ModelConfig config = padded_model();
  const AdapterShapes shapes = padded_shapes();
  const Stream stream;
  AdapterPool pool(config, {.num_slots = 4, .device_bytes = 64 << 20, .shapes = shapes}, stream);
  std::vector<std::unique_ptr<TwinAdapters>> twins;
  std::vector<std::shared_ptr<const Adapter>> adapters(4);
  for (uint32_t i = 0; i < 4; ++i) {
    twins.push_back(std::make_unique<TwinAdapters>(
        config, shapes, AdapterRecipe{.rank = 8, .mixed_ranks = true}, i));
  }
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < 4; ++i)
      threads.emplace_back([&, i] { adapters[i] = packed(pool, twins[i]->own); });
  }
  const int32_t slots[] = {0, 1, 2, 3};
  for (const int32_t slot : slots) pool.fill(slot, *adapters[static_cast<size_t>(slot)]);
  for (const int32_t slot : slots) pool.wait_until_ready(slot);
  for (const int32_t slot : slots)
    expect_adapter(pool, slot, config, shapes, twins[static_cast<size_t>(slot)]->wide);
}

}  // namespace
}  // namespace braid::test
