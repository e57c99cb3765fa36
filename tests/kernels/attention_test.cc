// ops::attention and ops::rope_kv_write on the CPU against sums in double.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "cpu/thread_pool.h"
#include "ops/ops.h"
#include "tests/kernels/random_weights.h"
#include "tests/kernels/rounded.h"
#include "tests/kernels/targets.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct AttentionShape {
  int32_t num_heads = 1;
  int32_t num_kv_heads = 1;
  int32_t head_dim = 16;
  int32_t block_size = 16;
  float key_sigma = 1.0f;
};

struct SequenceShape {
  int32_t num_queries = 1;
  int32_t context_len = 1;
};

// Sequences over one paged cache whose blocks are handed out in random order.
class AttentionProblem {
 public:
  AttentionProblem(const AttentionShape& shape, const std::vector<SequenceShape>& sequences,
                   uint32_t seed)
      : shape_(shape) {
    std::mt19937 random(seed);
    int32_t num_blocks = 0;
    for (const SequenceShape& s : sequences) {
      const int32_t blocks = (s.context_len + shape.block_size - 1) / shape.block_size;
      num_blocks += blocks;
      max_kv_blocks_ = std::max(max_kv_blocks_, blocks);
    }
    std::vector<int32_t> ids(static_cast<size_t>(num_blocks));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random);
    indptr_.push_back(0);
    for (const SequenceShape& s : sequences) {
      indptr_.push_back(indptr_.back() + s.num_queries);
      context_len_.push_back(s.context_len);
      for (int32_t b = 0; b < max_kv_blocks_; ++b) {
        // Past a sequence's own blocks the table's content is not to be read.
        const bool own = b * shape.block_size < s.context_len;
        table_.push_back(own ? ids.back() : -1);
        if (own) ids.pop_back();
      }
    }
    const size_t cache = static_cast<size_t>(num_blocks) * static_cast<size_t>(shape.block_size) *
                         static_cast<size_t>(shape.num_kv_heads) *
                         static_cast<size_t>(shape.head_dim);
    k_ = random_floats(random, cache, shape.key_sigma);
    v_ = random_floats(random, cache);
    q_ = random_floats(random, static_cast<size_t>(indptr_.back() * q_stride()));
  }

  int64_t width() const { return int64_t{shape_.num_heads} * shape_.head_dim; }
  int64_t q_stride() const { return width() + 7; }
  int32_t num_tokens() const { return indptr_.back(); }

  kernels::AttentionParams params(float* out) const {
    return {.q = q_.data(),
            .q_stride = q_stride(),
            .out = out,
            .k_cache = k_.data(),
            .v_cache = v_.data(),
            .query_indptr = indptr_.data(),
            .context_len = context_len_.data(),
            .block_table = table_.data(),
            .num_sequences = static_cast<int32_t>(context_len_.size()),
            .max_kv_blocks = max_kv_blocks_,
            .block_size = shape_.block_size,
            .num_heads = shape_.num_heads,
            .num_kv_heads = shape_.num_kv_heads,
            .head_dim = shape_.head_dim,
            .softmax_scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim))};
  }

  std::vector<float> run(const ops::Context& context) const {
    std::vector<float> out(static_cast<size_t>(num_tokens() * width()), kNan);
    ops::attention(context, params(out.data()));
    return out;
  }

  // A weight exp(s) is off by the score's error and by that of exp, so an output by twice that
  // times the mean of |v|, plus the rounding of the two sums over the keys.
  void expect_right(const std::vector<float>& got) const {
    const std::vector<float> want = run({.backend = ops::Backend::kReference});
    double q_largest = 0, k_largest = 0, v_largest = 0;
    for (const float x : q_) q_largest = std::max(q_largest, std::abs(double{x}));
    for (const float x : k_) k_largest = std::max(k_largest, std::abs(double{x}));
    for (const float x : v_) v_largest = std::max(v_largest, std::abs(double{x}));
    const double score_magnitude =
        q_largest * k_largest * std::sqrt(static_cast<double>(shape_.head_dim));
    const int32_t longest = *std::max_element(context_len_.begin(), context_len_.end());
    const double relative =
        2 * fp32_gamma(shape_.head_dim + 4) * score_magnitude + 2 * fp32_gamma(longest + 16);
    EXPECT_EQ(why_not_close(got, want, std::vector<double>(want.size(), relative * v_largest)), "");
  }

 private:
  AttentionShape shape_;
  int32_t max_kv_blocks_ = 0;
  std::vector<int32_t> indptr_, context_len_, table_;
  std::vector<float> q_, k_, v_;
};

const std::vector<SequenceShape> kMixed = {{1, 1},  {1, 16}, {1, 17},  {5, 5},
                                           {7, 40}, {0, 9},  {1, 300}, {33, 33}};

TEST(Attention, IsTheWeightedMeanToWithinRounding) {
  cpu::ThreadPool pool(2);
  for (const AttentionShape& shape :
       {AttentionShape{9, 3, 64, 16}, AttentionShape{4, 4, 20, 8}, AttentionShape{8, 1, 128, 32},
        AttentionShape{2, 1, 3, 1}, AttentionShape{2, 2, 16, 16, 30.0f}}) {
    SCOPED_TRACE(shape.head_dim);
    const AttentionProblem problem(shape, kMixed, 1);
    for_each_target([&] { problem.expect_right(problem.run({.pool = &pool})); });
  }
}

// A row of up to 128 keys has one maximum, in the plain loops as in a tile.
TEST(Attention, RoundsAsAGpu) {
  cpu::ThreadPool pool(2);
  for (const AttentionShape& shape : {AttentionShape{9, 3, 64, 16}, AttentionShape{4, 4, 20, 8},
                                      AttentionShape{2, 1, 3, 1}, AttentionShape{2, 2, 16, 48}}) {
    SCOPED_TRACE(shape.head_dim);
    const AttentionProblem problem(shape, {{1, 1}, {7, 40}, {33, 33}, {2, 96}}, 6);
    const std::vector<float> want =
        problem.run({.backend = ops::Backend::kReference, .rounding = Rounding::kBf16});
    for_each_target([&] {
      EXPECT_EQ(why_not_rounded_alike(problem.run({.pool = &pool, .rounding = Rounding::kBf16}),
                                      want, 0.01),
                "");
    });
  }
}

// Of more keys weights may be rounded against other maxima.
TEST(Attention, RoundsLongContextsToo) {
  cpu::ThreadPool pool(2);
  const AttentionProblem problem({6, 2, 64, 16}, {{1, 300}, {5, 777}}, 7);
  const std::vector<float> want =
      problem.run({.backend = ops::Backend::kReference, .rounding = Rounding::kBf16});
  for_each_target([&] {
    EXPECT_EQ(
        why_not_rounded_alike(problem.run({.pool = &pool, .rounding = Rounding::kBf16}), want, 0.5),
        "");
  });
}

TEST(Attention, RunsNothingForNoSequences) {
  cpu::ThreadPool pool(2);
  EXPECT_TRUE(AttentionProblem({4, 2, 16, 16}, {}, 2).run({.pool = &pool}).empty());
}

// However a prompt is cut into chunks and whatever runs beside it, on any number of threads.
TEST(Attention, HasTheSameBitsInAnyChunking) {
  cpu::ThreadPool one(1), three(3);
  constexpr int32_t kLength = 75;
  const AttentionProblem problem({6, 2, 40, 16}, {{kLength, kLength}, {3, 9}}, 3);
  for_each_target([&] {
    for (const Rounding rounding : {Rounding::kNone, Rounding::kBf16}) {
      const ops::Context context = {.pool = &three, .rounding = rounding};
      const std::vector<float> whole = problem.run(context);
      EXPECT_EQ(whole, problem.run({.pool = &one, .rounding = rounding}));
      for (const int32_t at_once : {1, 2, 7, 16, 33}) {
        for (int32_t begin = 0; begin < kLength; begin += at_once) {
          const int32_t count = std::min(at_once, kLength - begin);
          std::vector<float> out(static_cast<size_t>(count * problem.width()), kNan);
          kernels::AttentionParams p = problem.params(out.data());
          const int32_t indptr[] = {0, count}, context_len = begin + count;
          p.q += begin * p.q_stride;
          p.query_indptr = indptr;
          p.context_len = &context_len;
          p.num_sequences = 1;
          ops::attention(context, p);
          ASSERT_EQ(std::memcmp(out.data(), whole.data() + begin * problem.width(),
                                out.size() * sizeof(float)),
                    0)
              << "queries from " << begin << ", " << at_once << " at once";
        }
      }
    }
  });
}

struct RopeRun {
  std::vector<float> q, k, k_cache, v_cache;
};

RopeRun run_rope(const ops::Context& context, int32_t head_dim, int32_t rotary_dim, bool norms) {
  constexpr int32_t kTokens = 11, kHeads = 4, kKvHeads = 2, kSlots = 40;
  std::mt19937 random(4);
  const int64_t q_stride = kHeads * head_dim + 5, k_stride = kKvHeads * head_dim + 2;
  RopeRun run;
  run.q = random_floats(random, static_cast<size_t>(kTokens * q_stride));
  run.k = random_floats(random, static_cast<size_t>(kTokens * k_stride));
  const std::vector<float> v = random_floats(random, static_cast<size_t>(kTokens * k_stride));
  const std::vector<float> q_norm = random_floats(random, static_cast<size_t>(head_dim));
  const std::vector<float> k_norm = random_floats(random, static_cast<size_t>(head_dim));
  run.k_cache.assign(static_cast<size_t>(kSlots * kKvHeads * head_dim), kUntouched);
  run.v_cache = run.k_cache;
  std::vector<float> inv_freq;
  for (int32_t i = 0; i < rotary_dim / 2; ++i) {
    inv_freq.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / rotary_dim)));
  }
  std::vector<int32_t> positions, slots;
  for (int32_t t = 0; t < kTokens; ++t) {
    positions.push_back(t * t * 1000);
    slots.push_back((t * 7) % kSlots);
  }
  ops::rope_kv_write(context, {.q = run.q.data(),
                               .k = run.k.data(),
                               .v = v.data(),
                               .q_stride = q_stride,
                               .k_stride = k_stride,
                               .v_stride = k_stride,
                               .q_norm = norms ? q_norm.data() : nullptr,
                               .k_norm = norms ? k_norm.data() : nullptr,
                               .inv_freq = inv_freq.data(),
                               .positions = positions.data(),
                               .kv_slot_of_token = slots.data(),
                               .k_cache = run.k_cache.data(),
                               .v_cache = run.v_cache.data(),
                               .num_tokens = kTokens,
                               .num_heads = kHeads,
                               .num_kv_heads = kKvHeads,
                               .head_dim = head_dim,
                               .rotary_dim = rotary_dim});
  return run;
}

TEST(RopeKvWrite, TurnsHeadsAndWritesTheCache) {
  cpu::ThreadPool pool(2);
  for (const auto& [head_dim, rotary_dim, norms] :
       {std::tuple{64, 64, false}, {64, 32, true}, {24, 6, true}, {8, 0, false}}) {
    SCOPED_TRACE(head_dim);
    const RopeRun got = run_rope({.pool = &pool}, head_dim, rotary_dim, norms);
    const RopeRun want =
        run_rope({.backend = ops::Backend::kReference}, head_dim, rotary_dim, norms);
    // Of the norm a sum of head_dim squares, then two products and a sum; values stay below 16.
    const double tolerance = 16 * fp32_gamma(norms ? head_dim + 16 : 8);
    EXPECT_EQ(why_not_close(got.q, want.q, std::vector<double>(got.q.size(), tolerance)), "");
    EXPECT_EQ(why_not_close(got.k, want.k, std::vector<double>(got.k.size(), tolerance)), "");
    EXPECT_EQ(got.v_cache, want.v_cache);
    EXPECT_EQ(why_not_close(got.k_cache, want.k_cache,
                            std::vector<double>(want.k_cache.size(), tolerance)),
              "");
    for (size_t i = 0; i < got.k_cache.size(); ++i) {
      if (want.k_cache[i] == kUntouched) {
        EXPECT_EQ(got.k_cache[i], kUntouched) << i;
      }
    }

    const RopeRun rounded =
        run_rope({.pool = &pool, .rounding = Rounding::kBf16}, head_dim, rotary_dim, norms);
    const RopeRun want_rounded =
        run_rope({.backend = ops::Backend::kReference, .rounding = Rounding::kBf16}, head_dim,
                 rotary_dim, norms);
    const auto of_heads = [](const RopeRun& run) {
      std::vector<float> keys;
      for (const float x : run.k_cache) {
        if (x != kUntouched) keys.push_back(x);
      }
      return keys;
    };
    EXPECT_EQ(why_not_rounded_alike(of_heads(rounded), of_heads(want_rounded), 0.01), "");
    EXPECT_EQ(rounded.v_cache, want_rounded.v_cache);
    EXPECT_LE(relative_l2(rounded.q, want_rounded.q), 1e-3);
    EXPECT_GT(relative_l2(rounded.q, want.q), 1e-3);
  }
}

}  // namespace
}  // namespace braid::test
