// launch_attention_decode and launch_attention_prefill against reference::attention.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <span>
#include <utility>

#include "kernels/elementwise/elementwise_bf16.h"
#include "tests/gpu/attention_problem.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

using kernels::KvFormat;

struct Case {
  const char* name;
  AttentionShape shape;
  std::vector<QueryRange> sequences;
};

void PrintTo(const Case& test, std::ostream* out) { *out << test.name; }

std::vector<QueryRange> one_query_each(const std::vector<int32_t>& lengths) {
  std::vector<QueryRange> ranges;
  for (const int32_t length : lengths) ranges.push_back({1, length});
  return ranges;
}

// NaN, which untouched outputs are, equals itself here.
bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// Around stages of 16 keys, units of 256, and where units grow.
const std::vector<int32_t> kBorders = {1,   2,   15,  16,  17,   31,   33,   255, 256,
                                       257, 271, 511, 513, 1023, 1025, 2048, 777, 64};
constexpr KvFormat kE4m3 = KvFormat::kE4m3;

class AttentionDecode : public testing::TestWithParam<Case> {};

TEST_P(AttentionDecode, MatchesReference) {
  BRAID_NEEDS_CUDA();
  AttentionProblem problem(GetParam().shape, GetParam().sequences, /*seed=*/1);
  const int32_t count = problem.num_sequences();
  const auto out = problem.decode(0, count);
  EXPECT_EQ(problem.why_wrong(out, 0, count), "");
  // Counts are as they were: it runs again, on as few SMs as there may be.
  EXPECT_TRUE(same_bits(problem.decode(0, count, /*num_sms=*/1), out));
}

TEST_P(AttentionDecode, GivesASequenceTheSameBitsAlone) {
  BRAID_NEEDS_CUDA();
  AttentionProblem problem(GetParam().shape, GetParam().sequences, /*seed=*/2);
  const auto together = problem.decode(0, problem.num_sequences());
  int32_t token = 0;
  for (int32_t s = 0; s < problem.num_sequences(); ++s) {
    if (GetParam().sequences[static_cast<size_t>(s)].num_queries == 0) continue;
    const auto alone = problem.decode(s, 1, /*num_sms=*/3);
    const auto row = static_cast<size_t>(problem.width()),
               first = row * static_cast<size_t>(token++);
    EXPECT_TRUE(
        same_bits(std::span(alone).subspan(first, row), std::span(together).subspan(first, row)))
        << "sequence " << s;
  }
}

// In one launch with what makes q, the newest keys and values: as after rope_kv_write.
TEST_P(AttentionDecode, GivesTheSameBitsWithRope) {
  BRAID_NEEDS_CUDA();
  AttentionProblem apart(GetParam().shape, GetParam().sequences, /*seed=*/12),
      fused(GetParam().shape, GetParam().sequences, /*seed=*/12);
  const int32_t count = apart.num_sequences();
  const auto rope = [&](const AttentionProblem& problem) {
    return problem.rope_params(problem.newest_slots());
  };
  const Stream stream;
  kernels::launch_rope_kv_write(rope(apart), stream.get());
  stream.wait();
  const auto want = apart.decode(0, count);
  // Every third sequence is padding: it writes no key, whatever is in the cache.
  std::vector<int32_t> slots = fused.newest_slots(), unwritten;
  for (size_t t = 2; t < slots.size(); t += 3) unwritten.push_back(std::exchange(slots[t], -1));
  for (const int32_t num_sms : {132, 1, 7}) {
    fused.spoil_slots(fused.newest_slots());
    EXPECT_TRUE(same_bits(fused.decode_with_rope(fused.rope_params(slots), num_sms), want))
        << num_sms << " SMs";
    apart.spoil_slots(unwritten);
    EXPECT_EQ(fused.download_cache(), apart.download_cache());
  }
}

const Case kDecodeCases[] = {
    {"one_key", {}, one_query_each({1})},
    {"borders", {}, one_query_each(kBorders)},
    {"borders_D64", {.head_dim = 64}, one_query_each(kBorders)},
    {"borders_D96", {.head_dim = 96}, one_query_each(kBorders)},
    {"rotary64", {.rotary_dim = 64}, one_query_each({1, 100, 1000, 400})},
    {"no_rotary_no_norms", {.rotary_dim = 0, .norms = false}, one_query_each({1, 100, 1000, 400})},
    {"mixed_lengths_D64", {.head_dim = 64}, one_query_each({5000, 3, 900, 7777, 256, 257})},
    {"borders_D256", {.num_heads = 4, .head_dim = 256}, one_query_each(kBorders)},
    {"borders_fp8", {.format = kE4m3}, one_query_each(kBorders)},
    {"borders_D64_fp8", {.head_dim = 64, .format = kE4m3}, one_query_each(kBorders)},
    {"borders_D96_fp8", {.head_dim = 96, .format = kE4m3}, one_query_each(kBorders)},
    {"borders_D256_fp8",
     {.num_heads = 4, .head_dim = 256, .format = kE4m3},
     one_query_each(kBorders)},
    {"group1_block32",
     {.num_heads = 3, .num_kv_heads = 3, .block_size = 32},
     one_query_each({1, 33, 300, 1000})},
    {"group2", {.num_heads = 4, .num_kv_heads = 2}, one_query_each({40, 600, 8})},
    {"group5_block64",
     {.num_heads = 10, .num_kv_heads = 2, .block_size = 64},
     one_query_each({5, 320, 1111})},
    {"group8_qwen3_30b", {.num_heads = 32, .num_kv_heads = 4}, one_query_each({2048, 17, 1500})},
    {"group9", {.num_heads = 9, .num_kv_heads = 1}, one_query_each({5, 320, 1111})},
    {"group12_D96_fp8",
     {.num_heads = 12, .num_kv_heads = 1, .head_dim = 96, .format = kE4m3},
     one_query_each({5, 320, 1111})},
    {"group16_D64", {.num_heads = 16, .num_kv_heads = 1, .head_dim = 64}, one_query_each({5, 900})},
    {"group16", {.num_heads = 32, .num_kv_heads = 2}, one_query_each({5, 320, 1111, 256})},
    {"group16_D256",
     {.num_heads = 16, .num_kv_heads = 1, .head_dim = 256},
     one_query_each({5, 320, 1111, 256})},
    {"group16_D256_fp8",
     {.num_heads = 16, .num_kv_heads = 1, .head_dim = 256, .format = kE4m3},
     one_query_each({5, 320, 1111, 256})},
    {"sharp", {.key_sigma = 12.0f}, one_query_each({1, 100, 1000})},
    {"padded", {}, {{1, 300}, {0, 0}, {1, 20}, {0, 500}, {0, 0}}},
    {"nothing_but_padding", {}, {{0, 0}, {0, 7}}},
    {"longer_units", {.num_heads = 2, .num_kv_heads = 1}, one_query_each({8191, 8192, 8193, 9000})},
    {"128k", {.num_heads = 2, .num_kv_heads = 1}, one_query_each({131072, 3, 20000})},
    {"batch256",
     {.num_heads = 2, .num_kv_heads = 1, .head_dim = 64},
     [] {
       std::vector<QueryRange> ranges;
       for (int32_t s = 0; s < 256; ++s) ranges.push_back({1, 1 + s * s % 1013});
       return ranges;
     }()},
};

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionDecode, testing::ValuesIn(kDecodeCases),
                         [](const auto& test) { return std::string(test.param.name); });

// Sums of units that are zero, largest scores among them, look like sums that are not there yet.
TEST(AttentionDecodeSums, MayBeZero) {
  BRAID_NEEDS_CUDA();
  for (const KvFormat format : {KvFormat::kBf16, kE4m3}) {
    AttentionProblem problem({.format = format}, one_query_each({1, 700, 3000, 256}), /*seed=*/13);
    problem.clear_cache();
    for (const int32_t num_sms : {132, 1, 132}) {
      for (const float x : problem.decode(0, 4, num_sms)) ASSERT_EQ(x, 0.0f);
    }
    // A newest key and value beside them.
    const auto rope = problem.rope_params(problem.newest_slots());
    const auto out = problem.decode_with_rope(rope);
    for (const float x : out) ASSERT_TRUE(std::isfinite(x));
    EXPECT_TRUE(same_bits(problem.decode_with_rope(rope, /*num_sms=*/1), out));
  }
}

TEST(AttentionDecodeGraph, ReadsLengthsAndQueriesAtReplay) {
  BRAID_NEEDS_CUDA();
  const auto longest = one_query_each({700, 300, 2000, 9000});
  AttentionProblem problem({}, longest, /*seed=*/3);
  const Stream stream;
  const Graph graph = Graph::capture(stream, [&] {
    kernels::launch_attention_decode(problem.params(0, 4), problem.workspace(), 132, stream.get());
  });
  for (const auto& ranges :
       {longest, one_query_each({1, 1, 1, 1}), one_query_each({257, 16, 2000, 8200}),
        std::vector<QueryRange>{{1, 699}, {0, 0}, {1, 1999}, {0, 1}}, longest}) {
    problem.set_ranges(ranges);
    problem.poison();
    graph.launch(stream);
    graph.launch(stream);
    stream.wait();
    EXPECT_EQ(problem.why_wrong(problem.download_out(), 0, 4), "");
  }
}

// Layer after layer, where a launch begins while the one before still runs.
TEST(AttentionDecodeGraph, RunsLaunchesThatOverlap) {
  BRAID_NEEDS_CUDA();
  for (const auto& ranges :
       {one_query_each({512}), one_query_each({2048}), one_query_each({700, 300, 2000, 9000})}) {
    AttentionProblem problem({.num_heads = 32, .num_kv_heads = 4}, ranges, /*seed=*/7);
    const int32_t count = problem.num_sequences();
    const Stream stream;
    const Graph graph = Graph::capture(stream, [&] {
      for (int32_t layer = 0; layer < 40; ++layer) {
        kernels::launch_attention_decode(problem.params(0, count), problem.workspace(), 132,
                                         stream.get());
      }
    });
    for (int replay = 0; replay < 5; ++replay) {
      problem.poison();
      graph.launch(stream);
      stream.wait();
      EXPECT_EQ(problem.why_wrong(problem.download_out(), 0, count), "");
    }
  }
}

// Each launch writes the newest keys again, while the next one already reads those before them.
TEST(AttentionDecodeGraph, RunsLaunchesWithRopeThatOverlap) {
  BRAID_NEEDS_CUDA();
  for (const auto& ranges :
       {one_query_each({512}), one_query_each({2048}), one_query_each({700, 300, 2000, 9000}),
        std::vector<QueryRange>{{0, 0}, {0, 9}}}) {
    AttentionProblem problem({.num_heads = 32, .num_kv_heads = 4}, ranges, /*seed=*/7);
    const int32_t count = problem.num_sequences();
    const auto rope = problem.rope_params(problem.newest_slots());
    const auto once = problem.decode_with_rope(rope);
    const Stream stream;
    const Graph graph = Graph::capture(stream, [&] {
      for (int32_t layer = 0; layer < 40; ++layer) {
        kernels::launch_rope_attention_decode(rope, problem.params(0, count), problem.workspace(),
                                              132, stream.get());
      }
    });
    for (int replay = 0; replay < 5; ++replay) {
      problem.poison();
      graph.launch(stream);
      stream.wait();
      EXPECT_TRUE(same_bits(problem.download_out(), once));
    }
  }
}

// The newest keys, or any, from the kernel in front, which is not waited for on the host.
TEST(AttentionDecodeGraph, RunsBehindRopeKvWrite) {
  BRAID_NEEDS_CUDA();
  const auto ranges = one_query_each({700, 1, 256, 3000, 17});
  for (const KvFormat format : {KvFormat::kBf16, kE4m3}) {
    for (const bool has_new_keys : {false, true}) {
      const AttentionShape shape = {.num_heads = 32, .num_kv_heads = 4, .format = format};
      const auto run = [&](bool waits) {
        AttentionProblem problem(shape, ranges, /*seed=*/14);
        const auto slots = problem.newest_slots();
        const auto rope = problem.rope_params(slots);
        auto p = problem.params(0, problem.num_sequences());
        p.has_new_keys = has_new_keys;
        problem.spoil_slots(slots);
        problem.poison();
        const Stream stream;
        for (int layer = 0; layer < 10; ++layer) {  // q changes each time
          kernels::launch_rope_kv_write(rope, stream.get());
          if (waits) stream.wait();
          kernels::launch_attention_decode(p, problem.workspace(), 132, stream.get());
          if (waits) stream.wait();
        }
        stream.wait();
        return problem.download_out();
      };
      EXPECT_TRUE(same_bits(run(false), run(true))) << has_new_keys;
    }
  }
}

// More than clusters are for, of one to three units of 1,024 keys.
std::vector<QueryRange> past_units() {
  std::vector<QueryRange> ranges;
  for (int32_t s = 0; s < 110; ++s) ranges.push_back({1 + s % 3, 900 + 13 * s});
  return ranges;
}

class AttentionPrefill : public testing::TestWithParam<Case> {};

TEST_P(AttentionPrefill, MatchesReference) {
  BRAID_NEEDS_CUDA();
  AttentionProblem problem(GetParam().shape, GetParam().sequences, /*seed=*/4);
  const int32_t count = problem.num_sequences();
  EXPECT_EQ(problem.why_wrong(problem.prefill(0, count), 0, count), "");
}

// Few sequences are shared by clusters where contexts are long, many are not.
TEST_P(AttentionPrefill, GivesASequenceTheSameBitsAlone) {
  BRAID_NEEDS_CUDA();
  AttentionProblem problem(GetParam().shape, GetParam().sequences, /*seed=*/8);
  const auto together = problem.prefill(0, problem.num_sequences());
  size_t first = 0;
  for (int32_t s = 0; s < std::min(problem.num_sequences(), 30); ++s) {
    const auto alone = problem.prefill(s, 1);
    const size_t count =
        static_cast<size_t>(GetParam().sequences[static_cast<size_t>(s)].num_queries) *
        static_cast<size_t>(problem.width());
    EXPECT_TRUE(same_bits(std::span(alone).subspan(first, count),
                          std::span(together).subspan(first, count)))
        << "sequence " << s;
    first += count;
  }
}

// A product that overtakes what it reads gives other bits now and then.
TEST_P(AttentionPrefill, GivesTheSameBitsEachTime) {
  BRAID_NEEDS_CUDA();
  AttentionProblem problem(GetParam().shape, GetParam().sequences, /*seed=*/9);
  const int32_t count = problem.num_sequences();
  const auto once = problem.prefill(0, count);
  for (int run = 0; run < 10; ++run) ASSERT_TRUE(same_bits(problem.prefill(0, count), once));
}

const Case kPrefillCases[] = {
    {"one_token", {}, {{1, 1}}},
    {"one_query", {}, {{1, 200}}},
    {"small", {}, {{5, 5}, {3, 70}, {0, 12}, {31, 31}}},
    {"tiles", {.num_heads = 4, .num_kv_heads = 1}, {{32, 32}, {33, 33}, {63, 127}, {64, 64}}},
    {"long_chunk", {.num_heads = 4, .num_kv_heads = 2}, {{130, 333}, {1, 64}, {65, 65}}},
    {"long_context", {.num_heads = 2, .num_kv_heads = 1}, {{40, 3000}}},
    {"long_contexts", {}, {{3, 1024}, {2, 1025}, {33, 1040}, {1, 9000}, {4, 2047}, {4, 4100}}},
    {"long_contexts_D64", {.head_dim = 64}, {{2, 1025}, {33, 1040}, {1, 5000}, {9, 2049}}},
    {"long_contexts_D96", {.head_dim = 96}, {{2, 1025}, {33, 1040}, {1, 5000}, {9, 2049}}},
    {"long_contexts_D256",
     {.num_heads = 4, .head_dim = 256},
     {{2, 1025}, {33, 1040}, {1, 3000}, {9, 2049}}},
    {"many_long_contexts", {.num_heads = 2, .num_kv_heads = 1}, past_units()},
    {"many_long_contexts_D64", {.num_heads = 2, .num_kv_heads = 1, .head_dim = 64}, past_units()},
    {"many_long_contexts_D96", {.num_heads = 2, .num_kv_heads = 1, .head_dim = 96}, past_units()},
    {"qwen3_30b", {.num_heads = 32, .num_kv_heads = 4}, {{150, 150}, {20, 1200}}},
    {"D64", {.head_dim = 64}, {{40, 333}, {70, 70}, {1, 63}}},
    {"D96", {.head_dim = 96}, {{40, 333}, {70, 70}, {1, 64}}},
    {"D256", {.num_heads = 4, .head_dim = 256}, {{40, 333}, {70, 70}, {1, 65}}},
    {"fp8", {.format = kE4m3}, {{40, 333}, {70, 70}, {1, 65}}},
    {"D64_fp8", {.head_dim = 64, .format = kE4m3}, {{40, 333}, {70, 70}}},
    {"D96_fp8", {.head_dim = 96, .format = kE4m3}, {{40, 333}, {70, 70}}},
    {"D256_fp8", {.num_heads = 4, .head_dim = 256, .format = kE4m3}, {{40, 333}, {70, 70}}},
    {"group1_block64", {.num_heads = 2, .num_kv_heads = 2, .block_size = 64}, {{150, 300}, {9, 9}}},
    {"block32", {.block_size = 32}, {{40, 333}, {70, 70}, {1, 65}, {1, 1}}},
    {"block128", {.block_size = 128}, {{40, 333}, {70, 70}, {1, 129}}},
    {"block256_D256", {.num_heads = 4, .head_dim = 256, .block_size = 256}, {{40, 333}, {70, 70}}},
    {"block512_D64", {.head_dim = 64, .block_size = 512}, {{40, 700}, {70, 70}, {5, 513}}},
    {"group5", {.num_heads = 5, .num_kv_heads = 1}, {{77, 300}, {9, 9}}},
    {"group16", {.num_heads = 16, .num_kv_heads = 1}, {{17, 300}, {9, 9}}},
    {"sharp", {.key_sigma = 12.0f}, {{20, 100}}},
    {"sharp_long", {.key_sigma = 12.0f}, {{20, 2100}}},
    {"no_queries", {}, {{0, 0}, {0, 9}}},
    {"many_sequences",
     {.num_heads = 2, .num_kv_heads = 1, .head_dim = 64},
     [] {
       std::vector<QueryRange> ranges;
       for (int32_t s = 0; s < 700; ++s) ranges.push_back({s % 7, s % 7 + s % 101});
       return ranges;
     }()},
};

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionPrefill, testing::ValuesIn(kPrefillCases),
                         [](const auto& test) { return std::string(test.param.name); });

// Queries of a prompt have the same bits however it is cut.
void expect_same_bits_however_cut(const AttentionShape& shape, int32_t length,
                                  const std::vector<std::vector<int32_t>>& cuts) {
  AttentionProblem problem(shape, {{length, length}, {50, 90}}, /*seed=*/5);
  const auto whole = problem.prefill(0, 2);
  const auto row = static_cast<size_t>(problem.width());
  for (const std::vector<int32_t>& ends : cuts) {
    int32_t begin = 0;
    for (const int32_t end : ends) {
      problem.set_ranges({{end - begin, end}, {0, 0}}, begin);
      const auto chunk = problem.prefill(0, 1);
      const size_t first = static_cast<size_t>(begin) * row,
                   count = static_cast<size_t>(end - begin) * row;
      EXPECT_TRUE(
          same_bits(std::span(chunk).subspan(first, count), std::span(whole).subspan(first, count)))
          << "queries " << begin << " to " << end << " at head_dim " << shape.head_dim;
      begin = end;
    }
    EXPECT_EQ(begin, length);
  }
}

TEST(AttentionPrefillBits, DoNotDependOnChunksOrTheBatch) {
  BRAID_NEEDS_CUDA();
  for (const int32_t head_dim : {64, 96, 128, 256}) {
    for (const KvFormat format : {KvFormat::kBf16, kE4m3}) {
      expect_same_bits_however_cut({.head_dim = head_dim, .format = format}, 300,
                                   {{1, 2, 65, 129, 300}, {64, 128, 256, 300}, {299, 300}});
    }
  }
}

// Prompts of several units: whole, one CTA goes over all; in chunks, a cluster does.
TEST(AttentionPrefillBits, DoNotDependOnWhoTakesAUnit) {
  BRAID_NEEDS_CUDA();
  for (const int32_t head_dim : {64, 96, 128}) {
    expect_same_bits_however_cut(
        {.num_heads = 16, .num_kv_heads = 2, .head_dim = head_dim}, 5000,
        {{1020, 1030, 2048, 2049, 2070, 4100, 4999, 5000}, {1024, 4096, 4200, 5000}});
  }
}

TEST(AttentionPrefillGraph, ReadsLengthsAndQueriesAtReplay) {
  BRAID_NEEDS_CUDA();
  const std::vector<QueryRange> longest = {{40, 700}, {64, 64}, {9, 2000}, {33, 1100}};
  AttentionProblem problem({}, longest, /*seed=*/10);
  const Stream stream;
  const Graph graph = Graph::capture(
      stream, [&] { kernels::launch_attention_prefill(problem.params(0, 4), 146, stream.get()); });
  for (const auto& ranges :
       {longest, std::vector<QueryRange>{{1, 1}, {0, 0}, {1, 1}, {0, 9}},
        std::vector<QueryRange>{{0, 0}, {0, 0}, {0, 0}, {0, 0}},
        std::vector<QueryRange>{{1, 657}, {63, 63}, {50, 1999}, {20, 1025}}, longest}) {
    problem.set_ranges(ranges);
    problem.poison();
    graph.launch(stream);
    graph.launch(stream);
    stream.wait();
    EXPECT_EQ(problem.why_wrong(problem.download_out(), 0, 4), "");
  }
}

// Layer after layer, where a launch begins while the one before still runs.
TEST(AttentionPrefillGraph, RunsLaunchesThatOverlap) {
  BRAID_NEEDS_CUDA();
  for (const auto& ranges :
       {std::vector<QueryRange>{{16, 2100}}, std::vector<QueryRange>{{300, 300}, {7, 1500}}}) {
    AttentionProblem problem({.num_heads = 32, .num_kv_heads = 4}, ranges, /*seed=*/11);
    const int32_t count = problem.num_sequences();
    const auto once = problem.prefill(0, count);
    EXPECT_EQ(problem.why_wrong(once, 0, count), "");
    const Stream stream;
    const Graph graph = Graph::capture(stream, [&] {
      for (int32_t layer = 0; layer < 40; ++layer) {
        kernels::launch_attention_prefill(problem.params(0, count), problem.num_tokens(),
                                          stream.get());
      }
    });
    for (int replay = 0; replay < 10; ++replay) {
      problem.poison();
      graph.launch(stream);
      stream.wait();
      ASSERT_TRUE(same_bits(problem.download_out(), once));
    }
  }
}

TEST(AttentionMixed, DecodeAndPrefillOfOneBatch) {
  BRAID_NEEDS_CUDA();
  AttentionProblem problem({}, {{1, 700}, {1, 3}, {1, 256}, {40, 100}, {7, 7}}, /*seed=*/6);
  const Stream stream;
  problem.poison();
  kernels::launch_attention_decode(problem.params(0, 3), problem.workspace(), 132, stream.get());
  kernels::launch_attention_prefill(problem.params(3, 2), 47, stream.get());
  stream.wait();
  EXPECT_EQ(problem.why_wrong(problem.download_out(), 0, 5), "");
}

// Replies beside prompts, as one behind the other. Three times in a row, as layers are; a kernel
// behind them, which waits for the last launch alone, finds all that both have written.
void expect_same_bits_side_by_side(const AttentionShape& shape, std::vector<QueryRange> ranges,
                                   const std::vector<QueryRange>& of_prompts,
                                   int32_t num_sms = 132) {
  const auto num_replies = static_cast<int32_t>(ranges.size());
  int32_t reply_tokens = 0;
  for (const QueryRange& range : ranges) reply_tokens += range.num_queries;
  ranges.insert(ranges.end(), of_prompts.begin(), of_prompts.end());
  AttentionProblem problem(shape, ranges, /*seed=*/6);
  std::vector<int32_t> slots = problem.newest_slots();
  slots.resize(static_cast<size_t>(reply_tokens));
  const kernels::RopeKvWriteBf16Params rope = problem.rope_params(slots);
  const auto replies = problem.params(0, num_replies),
             prompts = problem.params(num_replies, problem.num_sequences() - num_replies);
  const auto& workspace = problem.workspace();
  const int32_t prompt_tokens = problem.num_tokens() - reply_tokens;

  std::vector<int32_t> rows(static_cast<size_t>(problem.num_tokens()));
  std::iota(rows.begin(), rows.end(), 0);
  const DeviceBuffer rows_device = DeviceBuffer::of(rows);
  const size_t elements = rows.size() * static_cast<size_t>(problem.width());
  DeviceBuffer copy(elements * sizeof(Bf16));
  const Stream stream;
  problem.poison();
  kernels::launch_rope_attention_decode(rope, replies, workspace, 132, stream.get());
  kernels::launch_attention_prefill(prompts, prompt_tokens, stream.get());
  stream.wait();
  const auto want = problem.download_out();
  for (int i = 0; i < 5; ++i) {
    problem.spoil_slots(slots);
    problem.poison();
    copy.fill(0xff);
    for (int launch = 0; launch < 3; ++launch) {
      kernels::launch_attention_mixed(prompts, prompt_tokens, rope, replies, workspace, num_sms,
                                      stream.get());
    }
    kernels::launch_embedding({.token_ids = rows_device.as<int32_t>(),
                               .table = replies.out,
                               .out = copy.as<Bf16>(),
                               .num_tokens = problem.num_tokens(),
                               .hidden_size = static_cast<int32_t>(problem.width())},
                              stream.get());
    stream.wait();
    ASSERT_TRUE(same_bits(problem.download_out(), want));
    std::vector<float> copied;
    for (const Bf16 x : copy.download<Bf16>(elements)) copied.push_back(to_float(x));
    ASSERT_TRUE(same_bits(copied, want));
  }
}

// Alone on the SMs that the prompts leave, or behind them where these take all or most.
TEST(AttentionMixed, SideBySideGivesTheSameBits) {
  BRAID_NEEDS_CUDA();
  const auto replies = one_query_each({700, 3000, 256, 1});
  const auto prompts = [](int32_t num_queries) {
    return std::vector<QueryRange>{{num_queries, 5000}, {7, 7}};
  };
  for (const int32_t num_queries : {24, 150, 700}) {
    for (const int32_t num_sms : {132, 7, 1}) {
      SCOPED_TRACE(fmt::format("{} queries, {} SMs", num_queries, num_sms));
      expect_same_bits_side_by_side({.num_heads = 32, .num_kv_heads = 4}, replies,
                                    prompts(num_queries), num_sms);
    }
  }
  for (const int32_t head_dim : {64, 96, 256}) {
    SCOPED_TRACE(fmt::format("head_dim {}", head_dim));
    expect_same_bits_side_by_side({.num_heads = 16, .num_kv_heads = 2, .head_dim = head_dim},
                                  replies, prompts(150));
  }
  expect_same_bits_side_by_side({.num_heads = 32, .num_kv_heads = 4, .format = kE4m3}, replies,
                                prompts(150));
}

TEST(AttentionMixed, SideBySideGivesTheSameBitsWhereOneKindIsMissing) {
  BRAID_NEEDS_CUDA();
  const std::vector<QueryRange> prompts = {{150, 5000}, {7, 7}};
  for (const KvFormat format : {KvFormat::kBf16, kE4m3}) {
    const AttentionShape shape = {.num_heads = 32, .num_kv_heads = 4, .format = format};
    expect_same_bits_side_by_side(shape, {}, prompts);
    // Nothing but padding: a launch without work ends behind the prompts all the same.
    expect_same_bits_side_by_side(shape, {{0, 9}, {0, 700}}, prompts);
    expect_same_bits_side_by_side(shape, one_query_each({700, 9}), {});
    expect_same_bits_side_by_side(shape, one_query_each({700, 9}), {{0, 5000}, {0, 0}});
  }
}

// --- limits: run everywhere ---

kernels::AttentionBf16Params good_params() {
  static uint8_t memory[16] __attribute__((aligned(16)));
  auto* const bf16 = reinterpret_cast<Bf16*>(memory);
  auto* const ints = reinterpret_cast<int32_t*>(memory);
  return {.q = bf16,
          .q_stride = 1024,
          .out = bf16,
          .kv = {.k_cache = memory,
                 .v_cache = memory,
                 .num_kv_heads = 2,
                 .block_size = 16,
                 .head_dim = 128},
          .query_indptr = ints,
          .context_len = ints,
          .block_table = ints,
          .num_sequences = 1,
          .max_kv_blocks = 1,
          .num_heads = 8,
          .softmax_scale = 1.0f};
}

TEST(AttentionBf16Limits, NameTheFieldTheValueAndTheRemedy) {
  EXPECT_EQ(why_unsupported(good_params()), "");
  const auto why = [](auto&& change) {
    kernels::AttentionBf16Params p = good_params();
    change(p);
    return why_unsupported(p);
  };
  EXPECT_EQ(why([](auto& p) { p.kv.head_dim = 80; }), "head_dim = 80, need 64, 96, 128 or 256");
  EXPECT_EQ(why([](auto& p) { p.kv.block_size = 24; }),
            "block_size = 24, need a power of two from 16 on");
  EXPECT_EQ(why([](auto& p) { p.num_heads = 7; }),
            "num_heads = 7, need a multiple of num_kv_heads = 2");
  EXPECT_EQ(why([](auto& p) { p.num_heads = 34, p.q_stride = 34 * 128; }),
            "num_heads = 34, need at most 16 for each of num_kv_heads = 2");
  EXPECT_EQ(why([](auto& p) { p.q_stride = 1000; }),
            "q_stride = 1000, need a multiple of 8 from 1024 on");
  EXPECT_EQ(why([](auto& p) { p.num_sequences = 5000; }), "num_sequences = 5000, need 0 to 1024");
  EXPECT_EQ(why([](auto& p) { p.max_kv_blocks = 0; }), "max_kv_blocks = 0, need 1 or more");
  EXPECT_EQ(why([](auto& p) { p.softmax_scale = 0; }), "softmax_scale = 0, need a number above 0");
  EXPECT_EQ(why([](auto& p) { p.kv.format = kE4m3, p.kv.k_scale = 0; }),
            "k_scale = 0 and v_scale = 1, need numbers above 0");
  EXPECT_EQ(why([](auto& p) { p.q = nullptr; }), "q or out is null");
  EXPECT_EQ(why([](auto& p) { ++p.q; }), "q is not aligned to 16 bytes");
  // Nothing to do is no mistake.
  EXPECT_EQ(why([](auto& p) { p.num_sequences = 0, p.q = nullptr; }), "");
}

TEST(AttentionBf16Limits, NameWhatTheWorkspaceIsFor) {
  kernels::AttentionBf16Params p = good_params();
  EXPECT_EQ(why_unsupported(p, {}), "workspace is null");
  uint8_t byte = 0;
  size_t bytes = 0;
  const auto workspace = kernels::attention_workspace(1, 8, 128, &byte, &bytes);
  EXPECT_EQ(why_unsupported(p, workspace), "");
  EXPECT_GE(bytes, sizeof(float) * 32 * 8 * (128 + 2));
  p.num_sequences = 2;
  EXPECT_EQ(why_unsupported(p, workspace), "num_sequences = 2, the workspace is for 1");
  p.num_sequences = 1, p.kv.head_dim = 64;
  EXPECT_EQ(why_unsupported(p, workspace),
            "num_heads = 8 and head_dim = 64, the workspace is for 8 and 128");
}

TEST(AttentionSplits, FollowALengthAlone) {
  using kernels::keys_per_split;
  using kernels::num_splits;
  EXPECT_EQ(num_splits(0), 0);
  EXPECT_EQ(num_splits(1), 1);
  EXPECT_EQ(num_splits(256), 1);
  EXPECT_EQ(num_splits(257), 2);
  EXPECT_EQ(num_splits(8192), 32);
  EXPECT_EQ(keys_per_split(8192), 256);
  EXPECT_EQ(keys_per_split(8193), 512);
  for (int32_t length = 1; length < 300000; length += 97) {
    const int32_t splits = num_splits(length), keys = keys_per_split(length);
    ASSERT_LE(splits, kernels::kMaxSplits);
    ASSERT_LT((splits - 1) * keys, length);
    ASSERT_GE(splits * keys, length);
  }
}

}  // namespace
}  // namespace braid::test
