// Norm, embedding, SwiGLU's middle, and rope with KV write on the device against reference::.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "base/ids.h"
#include "device/device.h"
#include "kernels/attention/attention_bf16.h"
#include "kernels/elementwise/elementwise_bf16.h"
#include "kernels/elementwise/pack.h"
#include "quant/e4m3.h"
#include "reference/reference.h"
#include "tests/gpu/bf16_rows.h"
#include "tests/kernels/random_weights.h"
#include "tests/support/close.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

constexpr double kBf16Rounding = 0x1p-8;  // half a step of 7 stored bits

std::vector<float> floats(const std::vector<Bf16>& values) {
  std::vector<float> out;
  for (const Bf16 x : values) out.push_back(to_float(x));
  return out;
}

// Of results that are rounded to BF16 after a few operations in float.
std::vector<double> relative_tolerance(const std::vector<float>& want, double of_float) {
  std::vector<double> tolerance;
  for (const float x : want) tolerance.push_back(std::abs(x) * (kBf16Rounding + of_float) + 1e-38);
  return tolerance;
}

struct NormShape {
  int32_t tokens, hidden;
  bool with_delta;
};
class RmsNormBf16 : public testing::TestWithParam<NormShape> {};

TEST_P(RmsNormBf16, MatchesReference) {
  BRAID_NEEDS_CUDA();
  const auto [tokens, hidden, with_delta] = GetParam();
  std::mt19937 random(1);
  const auto n = static_cast<size_t>(tokens) * static_cast<size_t>(hidden);
  const auto residual = random_bf16(random, n), delta = random_bf16(random, n, 0.3f),
             weight = random_bf16(random, static_cast<size_t>(hidden));
  const DeviceBuffer residual_device = DeviceBuffer::of(residual), y = poisoned_bf16(n),
                     delta_device = DeviceBuffer::of(delta),
                     weight_device = DeviceBuffer::of(weight);
  const Stream stream;
  kernels::launch_rms_norm({.residual = residual_device.as<Bf16>(),
                            .delta = with_delta ? delta_device.as<Bf16>() : nullptr,
                            .weight = weight_device.as<Bf16>(),
                            .y = y.as<Bf16>(),
                            .num_tokens = tokens,
                            .hidden_size = hidden,
                            .eps = 1e-5f},
                           stream.get());
  stream.wait();

  // What is stored is rounded, and the norm is of that.
  std::vector<Bf16> sum = residual;
  for (size_t i = 0; i < n && with_delta; ++i)
    sum[i] = to_bf16(to_float(residual[i]) + to_float(delta[i]));
  EXPECT_EQ(residual_device.download<Bf16>(n), sum);
  std::vector<float> x = floats(sum), want(n);
  const std::vector<float> w = floats(weight);
  reference::rms_norm({.residual = x.data(),
                       .weight = w.data(),
                       .y = want.data(),
                       .num_tokens = tokens,
                       .hidden_size = hidden,
                       .eps = 1e-5f});
  EXPECT_EQ(why_not_close(floats(y.download<Bf16>(n)), want,
                          relative_tolerance(want, fp32_gamma(hidden) + 0x1p-20)),
            "");
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNormBf16,
                         testing::Values(NormShape{1, 8, false}, NormShape{1, 2048, true},
                                         NormShape{3, 2040, true}, NormShape{5, 2056, true},
                                         NormShape{7, 4096, true}, NormShape{2, 5120, false},
                                         NormShape{4, 8192, true}, NormShape{3, 16384, true},
                                         NormShape{300, 256, true}),
                         [](const auto& test) {
                           return "T" + std::to_string(test.param.tokens) + "_H" +
                                  std::to_string(test.param.hidden) +
                                  (test.param.with_delta ? "_delta" : "");
                         });

TEST(RmsNormBf16Padded, HasTheMeanOfWhatIsNotPadding) {
  BRAID_NEEDS_CUDA();
  constexpr int32_t kTokens = 3, kSize = 576, kPadded = 640;
  std::mt19937 random(4);
  std::vector<Bf16> x(size_t{kTokens} * kPadded), weight(kPadded);
  std::vector<float> unpadded;
  for (int32_t t = 0; t < kTokens; ++t) {
    const auto row = random_bf16(random, kSize);
    std::copy(row.begin(), row.end(), x.begin() + t * kPadded);
    for (const Bf16 value : row) unpadded.push_back(to_float(value));
  }
  const auto some = random_bf16(random, kSize);
  std::copy(some.begin(), some.end(), weight.begin());
  const DeviceBuffer x_device = DeviceBuffer::of(x), weight_device = DeviceBuffer::of(weight),
                     y = poisoned_bf16(x.size());
  const Stream stream;
  kernels::launch_rms_norm({.residual = x_device.as<Bf16>(),
                            .weight = weight_device.as<Bf16>(),
                            .y = y.as<Bf16>(),
                            .num_tokens = kTokens,
                            .hidden_size = kPadded,
                            .mean_size = kSize,
                            .eps = 1e-5f},
                           stream.get());
  stream.wait();
  const std::vector<float> w = floats(some);
  std::vector<float> normed(unpadded.size()), want(x.size());
  reference::rms_norm({.residual = unpadded.data(),
                       .weight = w.data(),
                       .y = normed.data(),
                       .num_tokens = kTokens,
                       .hidden_size = kSize,
                       .eps = 1e-5f});
  for (int32_t t = 0; t < kTokens; ++t)
    std::copy_n(normed.begin() + t * kSize, kSize, want.begin() + t * kPadded);
  EXPECT_EQ(why_not_close(floats(y.download<Bf16>(x.size())), want,
                          relative_tolerance(want, fp32_gamma(kPadded) + 0x1p-20)),
            "");
}

TEST(EmbeddingBf16, CopiesRows) {
  BRAID_NEEDS_CUDA();
  std::mt19937 random(2);
  constexpr int32_t kVocab = 37, kHidden = 264;
  const auto table = random_bf16(random, size_t{kVocab} * kHidden);
  const std::vector<int32_t> ids = {0, 36, 5, 5, 17};
  const DeviceBuffer table_device = DeviceBuffer::of(table), ids_device = DeviceBuffer::of(ids),
                     out = poisoned_bf16(ids.size() * kHidden);
  const Stream stream;
  kernels::launch_embedding({.token_ids = ids_device.as<int32_t>(),
                             .table = table_device.as<Bf16>(),
                             .out = out.as<Bf16>(),
                             .num_tokens = static_cast<int32_t>(ids.size()),
                             .hidden_size = kHidden},
                            stream.get());
  stream.wait();
  std::vector<Bf16> want;
  for (const int32_t id : ids)
    want.insert(want.end(), table.begin() + id * kHidden, table.begin() + (id + 1) * kHidden);
  EXPECT_EQ(out.download<Bf16>(want.size()), want);
}

// Tokens of four slots and of none, against the delta in double. Ranks that are no multiple of 8
// and columns past the hidden size are padded.
TEST(EmbeddingBf16, AddsTheDeltaOfEachTokensAdapter) {
  BRAID_NEEDS_CUDA();
  std::mt19937 random(5);
  constexpr int32_t kVocab = 37, kHidden = 520, kPadded = 640, kTokens = 61;
  const auto vocab = size_t{kVocab}, hidden = size_t{kHidden}, width = size_t{kPadded};
  // Small, so that the delta is not lost in the rounding of the sum.
  const auto table = random_bf16(random, vocab * width, 0.01f);
  std::vector<std::vector<Bf16>> as, bs;
  std::vector<EmbeddingLora> loras;
  std::vector<DeviceBuffer> memory;
  std::vector<kernels::EmbeddingAdapterSlot> slots;
  for (const int32_t rank : {16, 3, 0, 256}) {
    const auto r = static_cast<size_t>(rank);
    as.push_back(random_bf16(random, vocab * r));
    bs.push_back(random_bf16(random, hidden * r));
    loras.push_back({.a_t = as.back().data(),
                     .b = bs.back().data(),
                     .rank = rank,
                     .scaling = 0.75f / static_cast<float>(1 + rank)});
    const auto packed = kernels::pack_embedding_adapter(loras.back(), kVocab, kHidden, kPadded);
    memory.push_back(DeviceBuffer::of(packed.values));
    slots.push_back(packed.placed_at(memory.back().data()));
  }
  std::vector<int32_t> ids, slot_of_token;
  for (int32_t t = 0; t < kTokens; ++t) {
    ids.push_back(t * 11 % kVocab);
    slot_of_token.push_back(t % 5 - 1);  // kNoAdapter, 0, 1, 2, 3
  }
  const DeviceBuffer table_device = DeviceBuffer::of(table), ids_device = DeviceBuffer::of(ids),
                     slots_device = DeviceBuffer::of(slots),
                     slot_of_token_device = DeviceBuffer::of(slot_of_token),
                     out = poisoned_bf16(size_t{kTokens} * width);
  const Stream stream;
  kernels::launch_embedding({.token_ids = ids_device.as<int32_t>(),
                             .table = table_device.as<Bf16>(),
                             .out = out.as<Bf16>(),
                             .num_tokens = kTokens,
                             .hidden_size = kPadded,
                             .adapters = slots_device.as<kernels::EmbeddingAdapterSlot>(),
                             .adapter_slot_of_token = slot_of_token_device.as<int32_t>()},
                            stream.get());
  stream.wait();
  const std::vector<Bf16> got = out.download<Bf16>(size_t{kTokens} * width);
  std::vector<float> got_floats;
  std::vector<double> want, tolerance;
  for (size_t t = 0; t < size_t{kTokens}; ++t) {
    const auto id = static_cast<size_t>(ids[t]);
    const int32_t slot = slot_of_token[t];
    for (size_t h = 0; h < width; ++h) {
      const Bf16 base = table[id * width + h];
      if (slot == kNoAdapter || h >= hidden) {
        ASSERT_EQ(got[t * width + h], base);
        continue;
      }
      const EmbeddingLora& lora = loras[static_cast<size_t>(slot)];
      const auto rank = static_cast<size_t>(lora.rank);
      double delta = 0, size = 0;
      for (size_t r = 0; r < rank; ++r) {
        const double term = double{lora.scaling} * to_float(lora.a_t[id * rank + r]) *
                            to_float(lora.b[h * rank + r]);
        delta += term, size += std::abs(term);
      }
      got_floats.push_back(to_float(got[t * width + h]));
      want.push_back(to_float(base) + delta);
      tolerance.push_back(std::abs(want.back()) * kBf16Rounding * 1.01 +
                          size * fp32_gamma(lora.rank + 2));
    }
  }
  EXPECT_EQ(why_not_close(got_floats, want, tolerance), "");
}

TEST(SiluMulBf16, MatchesReferenceOnHalvesOfFusedRows) {
  BRAID_NEEDS_CUDA();
  std::mt19937 random(3);
  for (const auto& [tokens, width] : {std::pair{1, 8}, {3, 776}, {17, 1536}}) {
    const auto row = static_cast<size_t>(width), n = static_cast<size_t>(tokens) * row;
    auto fused = random_bf16(random, 2 * n, 8.0f);
    // Where the exponential leaves float's range on either side.
    fused[0] = to_bf16(-200.0f), fused[1] = to_bf16(200.0f), fused[2] = to_bf16(-89.0f);
    const DeviceBuffer fused_device = DeviceBuffer::of(fused), z = poisoned_bf16(n);
    const Stream stream;
    kernels::launch_silu_mul({.gate = fused_device.as<Bf16>(),
                              .up = fused_device.as<Bf16>() + width,
                              .z = z.as<Bf16>(),
                              .gate_stride = 2 * width,
                              .up_stride = 2 * width,
                              .num_tokens = tokens,
                              .intermediate_size = width},
                             stream.get());
    stream.wait();
    std::vector<float> gate, up, want(n);
    for (size_t i = 0; i < n; ++i) {
      gate.push_back(to_float(fused[i / row * 2 * row + i % row]));
      up.push_back(to_float(fused[i / row * 2 * row + row + i % row]));
    }
    reference::silu_mul({.gate = gate.data(),
                         .up = up.data(),
                         .z = want.data(),
                         .num_elements = static_cast<int64_t>(n)});
    auto tolerance = relative_tolerance(want, 0);
    // The exponential's argument is rounded: an error of 2^-22 of its size.
    for (size_t i = 0; i < n; ++i)
      tolerance[i] += std::abs(want[i]) * 0x1p-21 * (4 + std::abs(gate[i])) + 1e-34;
    EXPECT_EQ(why_not_close(floats(z.download<Bf16>(n)), want, tolerance), "");
  }
}

// --- rope and KV write ---

struct RopeShape {
  const char* name;
  int32_t tokens = 5;
  int32_t num_heads = 8;
  int32_t num_kv_heads = 2;
  int32_t head_dim = 128;
  int32_t rotary_dim = 128;
  bool norms = true;
  kernels::KvFormat format = kernels::KvFormat::kBf16;
  int32_t block_size = 16;
};
void PrintTo(const RopeShape& shape, std::ostream* out) { *out << shape.name; }
class RopeKvWriteBf16 : public testing::TestWithParam<RopeShape> {};

TEST_P(RopeKvWriteBf16, MatchesReference) {
  BRAID_NEEDS_CUDA();
  const RopeShape& s = GetParam();
  const bool fp8 = s.format == kernels::KvFormat::kE4m3;
  std::mt19937 random(4);
  const auto dim = static_cast<size_t>(s.head_dim), tokens = static_cast<size_t>(s.tokens);
  const auto heads = static_cast<size_t>(s.num_heads),
             kv_heads = static_cast<size_t>(s.num_kv_heads);
  const size_t row = (heads + 2 * kv_heads) * dim, stride = row + 24;
  const auto qkv = random_bf16(random, tokens * stride, 2.0f);
  const auto q_norm = random_bf16(random, dim), k_norm = random_bf16(random, dim);
  std::vector<float> inv_freq;
  for (int32_t i = 0; i < s.rotary_dim / 2; ++i)
    inv_freq.push_back(
        std::pow(1e6f, -2.0f * static_cast<float>(i) / static_cast<float>(s.rotary_dim)));
  // Slots in random order over more blocks than are used; every third token keeps nothing.
  const int32_t num_blocks = s.tokens / s.block_size + 3;
  std::vector<int32_t> slots(static_cast<size_t>(num_blocks * s.block_size)), positions;
  std::iota(slots.begin(), slots.end(), 0);
  std::shuffle(slots.begin(), slots.end(), random);
  slots.resize(tokens);
  for (size_t t = 0; t < tokens; ++t) {
    if (t % 3 == 2) slots[t] = -1;
    positions.push_back(static_cast<int32_t>(t * t * 977 % 131072));
  }

  const float k_scale = fp8 ? 0.03f : 1.0f, v_scale = fp8 ? 0.02f : 1.0f;
  const size_t cache = static_cast<size_t>(num_blocks * s.block_size) * kv_heads * dim;
  const size_t cache_bytes = cache * static_cast<size_t>(kernels::element_bytes(s.format));
  DeviceBuffer k_cache(cache_bytes), v_cache(cache_bytes);
  k_cache.fill(0xff), v_cache.fill(0xff);
  const DeviceBuffer qkv_device = DeviceBuffer::of(qkv), q_norm_device = DeviceBuffer::of(q_norm),
                     k_norm_device = DeviceBuffer::of(k_norm),
                     freq_device = DeviceBuffer::of(inv_freq),
                     positions_device = DeviceBuffer::of(positions),
                     slots_device = DeviceBuffer::of(slots);
  const Stream stream;
  kernels::launch_rope_kv_write({.qkv = qkv_device.as<Bf16>(),
                                 .qkv_stride = static_cast<int64_t>(stride),
                                 .q_norm = s.norms ? q_norm_device.as<Bf16>() : nullptr,
                                 .k_norm = s.norms ? k_norm_device.as<Bf16>() : nullptr,
                                 .rms_norm_eps = 1e-6f,
                                 .inv_freq = freq_device.as<float>(),
                                 .positions = positions_device.as<int32_t>(),
                                 .kv_slot_of_token = slots_device.as<int32_t>(),
                                 .kv = {.k_cache = k_cache.data(),
                                        .v_cache = v_cache.data(),
                                        .format = s.format,
                                        .k_scale = k_scale,
                                        .v_scale = v_scale,
                                        .num_kv_heads = s.num_kv_heads,
                                        .block_size = s.block_size,
                                        .head_dim = s.head_dim},
                                 .num_tokens = s.tokens,
                                 .num_heads = s.num_heads,
                                 .rotary_dim = s.rotary_dim},
                                stream.get());
  stream.wait();

  // --- the same in double; tokens that keep nothing go to a row of their own ---
  std::vector<float> rows = floats(qkv);
  const std::vector<float> qn = floats(q_norm), kn = floats(k_norm);
  std::vector<int32_t> all_slots = slots;
  for (size_t t = 0; t < tokens; ++t) {
    if (slots[t] < 0) all_slots[t] = num_blocks * s.block_size + static_cast<int32_t>(t);
  }
  std::vector<float> k_want(cache + tokens * kv_heads * dim), v_want(k_want.size());
  reference::rope_kv_write({.q = rows.data(),
                            .k = rows.data() + heads * dim,
                            .v = rows.data() + (heads + kv_heads) * dim,
                            .q_stride = static_cast<int64_t>(stride),
                            .k_stride = static_cast<int64_t>(stride),
                            .v_stride = static_cast<int64_t>(stride),
                            .q_norm = s.norms ? qn.data() : nullptr,
                            .k_norm = s.norms ? kn.data() : nullptr,
                            .rms_norm_eps = 1e-6f,
                            .inv_freq = inv_freq.data(),
                            .positions = positions.data(),
                            .kv_slot_of_token = all_slots.data(),
                            .k_cache = k_want.data(),
                            .v_cache = v_want.data(),
                            .num_tokens = s.tokens,
                            .num_heads = s.num_heads,
                            .num_kv_heads = s.num_kv_heads,
                            .head_dim = s.head_dim,
                            .rotary_dim = s.rotary_dim});

  // --- q in place, k and v of the row as they were ---
  const std::vector<Bf16> after = qkv_device.download<Bf16>(qkv.size());
  std::vector<float> got, want;
  std::vector<double> tolerance;
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t i = 0; i < stride; ++i) {
      const size_t at = t * stride + i;
      if (i >= heads * dim) {
        ASSERT_EQ(after[at], qkv[at]);
        continue;
      }
      // Rotation adds two numbers of a head: float errors are of the larger one's size. 20 bounds
      // any of them after 4 sigma of values and norms.
      got.push_back(to_float(after[at])), want.push_back(rows[at]);
      tolerance.push_back(std::abs(rows[at]) * kBf16Rounding * 1.01 + 20 * 0x1p-20);
    }
  }
  EXPECT_EQ(why_not_close(got, want, tolerance), "");

  // --- the cache: kept rows, and nothing else ---
  const auto check_cache = [&](const DeviceBuffer& buffer, const std::vector<float>& of,
                               float scale) {
    const std::vector<uint8_t> bytes = buffer.download<uint8_t>(cache_bytes);
    got.clear(), want.clear(), tolerance.clear();
    const auto block_size = static_cast<size_t>(s.block_size);
    for (size_t slot = 0; slot < static_cast<size_t>(num_blocks) * block_size; ++slot) {
      const bool kept =
          std::find(slots.begin(), slots.end(), static_cast<int32_t>(slot)) != slots.end();
      for (size_t i = 0; i < kv_heads * dim; ++i) {
        const size_t block = slot / block_size, head = i / dim;
        const size_t at =
            ((block * kv_heads + head) * block_size + slot % block_size) * dim + i % dim;
        const Bf16 bf16 = {static_cast<uint16_t>(fp8 ? 0 : bytes[2 * at] | bytes[2 * at + 1] << 8)};
        if (!kept) {
          ASSERT_EQ(fp8 ? bytes[at] * 257 : bf16.bits, 0xffff) << "slot " << slot;
          continue;
        }
        const float x = of[slot * kv_heads * dim + i];
        want.push_back(x);
        got.push_back(fp8 ? from_e4m3(bytes[at]) * scale : to_float(bf16));
        // e4m3 rounds to 2^-4 of a number, or by half a step of 2^-9 near zero.
        tolerance.push_back(
            (fp8 ? std::max(std::abs(x) * 0x1p-4, scale * 0x1p-10) : std::abs(x) * kBf16Rounding) *
                1.01 +
            20 * 0x1p-20);
      }
    }
    EXPECT_EQ(why_not_close(got, want, tolerance), "");
  };
  check_cache(k_cache, k_want, k_scale);
  check_cache(v_cache, v_want, v_scale);
}

const RopeShape kRopeShapes[] = {
    {.name = "one_token", .tokens = 1},
    {.name = "qwen3", .tokens = 33, .num_heads = 32, .num_kv_heads = 4},
    {.name = "mixtral", .tokens = 9, .num_heads = 32, .num_kv_heads = 8, .norms = false},
    {.name = "D64", .head_dim = 64, .rotary_dim = 64},
    {.name = "D96", .head_dim = 96, .rotary_dim = 96},
    {.name = "D256_partial", .head_dim = 256, .rotary_dim = 64},
    {.name = "D96_partial", .head_dim = 96, .rotary_dim = 48},
    {.name = "no_rotation", .rotary_dim = 0},
    {.name = "fp8", .tokens = 17, .format = kernels::KvFormat::kE4m3},
    {.name = "D96_fp8_block64",
     .tokens = 70,
     .head_dim = 96,
     .rotary_dim = 96,
     .format = kernels::KvFormat::kE4m3,
     .block_size = 64},
    {.name = "one_head", .num_heads = 1, .num_kv_heads = 1},
};
INSTANTIATE_TEST_SUITE_P(Shapes, RopeKvWriteBf16, testing::ValuesIn(kRopeShapes),
                         [](const auto& test) { return std::string(test.param.name); });

// --- limits: run everywhere ---

TEST(ElementwiseBf16Limits, NameTheFieldTheValueAndTheRemedy) {
  alignas(16) uint8_t memory[32] = {};
  auto* const bf16 = reinterpret_cast<Bf16*>(memory);
  auto* const ints = reinterpret_cast<int32_t*>(memory);
  kernels::RmsNormBf16Params norm = {
      .residual = bf16, .weight = bf16, .y = bf16, .num_tokens = 1, .hidden_size = 8};
  EXPECT_EQ(why_unsupported(norm), "");
  norm.hidden_size = 12;
  EXPECT_EQ(why_unsupported(norm), "hidden_size = 12, need a multiple of 8 up to 16384");
  norm.hidden_size = 8, norm.y = bf16 + 1;
  EXPECT_EQ(why_unsupported(norm), "y is not aligned to 16 bytes");
  norm.y = nullptr;
  EXPECT_EQ(why_unsupported(norm), "residual, weight or y is null");
  norm.num_tokens = 0;
  EXPECT_EQ(why_unsupported(norm), "");

  kernels::EmbeddingBf16Params embedding = {
      .token_ids = ints, .table = bf16, .out = bf16, .num_tokens = -1, .hidden_size = 8};
  EXPECT_EQ(why_unsupported(embedding), "num_tokens = -1, need 0 or more");
  const kernels::EmbeddingAdapterSlot adapter;
  embedding.num_tokens = 1, embedding.adapters = &adapter;
  EXPECT_EQ(why_unsupported(embedding), "adapter_slot_of_token is null");

  kernels::SiluMulBf16Params silu = {.gate = bf16,
                                     .up = bf16,
                                     .z = bf16,
                                     .gate_stride = 8,
                                     .up_stride = 20,
                                     .num_tokens = 1,
                                     .intermediate_size = 8};
  EXPECT_EQ(why_unsupported(silu), "up_stride = 20, need a multiple of 8 from 8 on");

  kernels::RopeKvWriteBf16Params rope = {.qkv = bf16,
                                         .qkv_stride = 256,
                                         .inv_freq = reinterpret_cast<float*>(memory),
                                         .positions = ints,
                                         .kv_slot_of_token = ints,
                                         .kv = {.k_cache = memory,
                                                .v_cache = memory,
                                                .num_kv_heads = 1,
                                                .block_size = 16,
                                                .head_dim = 64},
                                         .num_tokens = 1,
                                         .num_heads = 2,
                                         .rotary_dim = 64};
  EXPECT_EQ(why_unsupported(rope), "");
  rope.rotary_dim = 40;
  EXPECT_EQ(why_unsupported(rope), "rotary_dim = 40, need a multiple of 16 up to head_dim = 64");
  rope.rotary_dim = 64, rope.qkv_stride = 192;
  EXPECT_EQ(why_unsupported(rope), "qkv_stride = 192, need a multiple of 8 from 256 on");
  rope.qkv_stride = 256, rope.inv_freq = nullptr;
  EXPECT_EQ(why_unsupported(rope), "inv_freq is null");
}

}  // namespace
}  // namespace braid::test
