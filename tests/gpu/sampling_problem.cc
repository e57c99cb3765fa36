#include "tests/gpu/sampling_problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/logprobs.h"
#include "engine/sampler.h"

namespace braid::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class T>
T* keep(std::vector<DeviceBuffer>& parts, const std::vector<T>& values) {
  if (values.empty()) return nullptr;
  parts.push_back(DeviceBuffer::of(values));
  return parts.back().as<T>();
}

DeviceBuffer poisoned(size_t bytes) {
  DeviceBuffer buffer(bytes);
  buffer.fill(0xff);
  return buffer;
}

bool has_penalties(const SamplingParams& p) {
  return p.repetition_penalty != 1.0f || p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f;
}

// The host's answer; a status in place of a sentence. The mask is applied to the logits first: -inf
// stays -inf under bias and penalties.
kernels::SampledToken sample_on_host(const SamplingCase& row) {
  using kernels::SamplingStatus;
  if (const std::string why = why_unusable(row.logits, 0); !why.empty()) {
    const bool is_nan = why.find("NaN") != std::string::npos;
    return {0, is_nan ? SamplingStatus::kNan : SamplingStatus::kNoFiniteMaximum};
  }
  std::vector<float> logits = row.logits;
  for (size_t id = 0; id < logits.size() && !row.mask.empty(); ++id) {
    const bool is_end = std::ranges::count(row.end_tokens, static_cast<int32_t>(id)) > 0;
    if ((row.mask[id / 64] >> (id % 64) & 1u) == 0 && !(row.may_end && is_end))
      logits[id] = -kInfinity;
  }
  Sampler sampler(row.params, row.prompt, row.end_tokens);
  for (const int32_t token : row.reply) sampler.count(token);
  const auto num_generated = static_cast<int32_t>(row.reply.size());
  auto sample = sampler.sample(logits, row.position, num_generated);
  if (!sample && !row.mask.empty())
    sample = sampler.sample(logits, row.position, row.params.min_tokens);
  if (!sample) return {0, SamplingStatus::kNoTokenLeft};
  return {sample->token, SamplingStatus::kOk};
}

std::string why_wrong_logprob(const SamplingCase& row, const SamplingResult& got) {
  const TokenLogprob want = compute_logprob(row.logits, got.logprob.token, *row.params.logprobs);
  if (got.logprob.rank != want.rank)
    return fmt::format("rank {}, not {}", got.logprob.rank, want.rank);
  // Sums in another order: beside the last bit of the result what is lost of sums of doubles.
  const float largest = *std::ranges::max_element(row.logits);
  const auto is_close = [&](float a, float b) {
    return a == b || std::abs(a - b) <= std::abs(b) * 0x1p-23f + (std::abs(largest) + 1) * 0x1p-48f;
  };
  if (!is_close(got.logprob.logprob, want.logprob))
    return fmt::format("logprob {}, not {}", got.logprob.logprob, want.logprob);
  for (size_t i = 0; i < want.top.size(); ++i) {
    if (got.top[i].token != want.top[i].first || !is_close(got.top[i].logprob, want.top[i].second))
      return fmt::format("top {} is {} with {}, not {} with {}", i, got.top[i].token,
                         got.top[i].logprob, want.top[i].first, want.top[i].second);
  }
  for (size_t i = want.top.size(); i < got.top.size(); ++i) {
    if (got.top[i].token != -1) return fmt::format("top {} was written", i);
  }
  return "";
}

}  // namespace

bool operator==(const SamplingResult& a, const SamplingResult& b) {
  return std::memcmp(&a.sampled, &b.sampled, sizeof(a.sampled)) == 0 &&
         std::memcmp(&a.logprob, &b.logprob, sizeof(a.logprob)) == 0 &&
         std::memcmp(a.top.data(), b.top.data(), a.top.size() * sizeof(a.top[0])) == 0;
}

SamplingBatch::SamplingBatch(std::vector<SamplingCase> rows) : rows_(std::move(rows)) {
  vocab_size_ = static_cast<int32_t>(rows_.front().logits.size());
  stride_ = (vocab_size_ + 3) / 4 * 4 + 4;
  const auto stride = static_cast<size_t>(stride_), vocab_size = static_cast<size_t>(vocab_size_);
  std::vector<float> logits(rows_.size() * stride, std::numeric_limits<float>::quiet_NaN());
  seen_ = poisoned(rows_.size() * vocab_size * sizeof(uint32_t));
  newest_ = poisoned(rows_.size() * sizeof(int32_t));
  sampled_ = poisoned(rows_.size() * sizeof(kernels::SampledToken));
  logprobs_ = poisoned(rows_.size() * sizeof(kernels::RowLogprob));
  top_ = poisoned(rows_.size() * kernels::kMaxTopLogprobs * sizeof(kernels::TopLogprob));
  scratch_ = poisoned(rows_.size() * kernels::kScratchBytesPerRow);
  std::vector<kernels::SamplingRow> sampling_rows;
  std::vector<kernels::LogprobRow> logprob_rows;
  const Stream stream;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const SamplingCase& row = rows_[i];
    const SamplingParams& params = row.params;
    std::ranges::copy(row.logits, logits.begin() + static_cast<int64_t>(i * stride));
    std::vector<kernels::LogitBias> bias;
    for (const auto& [token, value] : params.logit_bias) bias.push_back({token, value});
    std::ranges::stable_sort(bias, {}, &kernels::LogitBias::token);
    sampling_rows.push_back(
        {.samples = row.samples,
         .temperature = params.temperature,
         .top_k = params.top_k,
         .top_p = params.top_p,
         .min_p = params.min_p,
         .seed = params.seed,
         .position = row.position,
         .repetition_penalty = params.repetition_penalty,
         .presence_penalty = params.presence_penalty,
         .frequency_penalty = params.frequency_penalty,
         .penalty_slot = has_penalties(params) ? static_cast<int32_t>(i) : -1,
         .logit_bias = keep(parts_, bias),
         .num_logit_bias = static_cast<int32_t>(bias.size()),
         .num_end_tokens = static_cast<int32_t>(row.end_tokens.size()),
         .end_tokens = keep(parts_, row.end_tokens),
         .mask = keep(parts_, row.mask),
         .may_end = row.may_end,
         .rules_out_end = static_cast<int32_t>(row.reply.size()) < params.min_tokens,
         .request_slot = static_cast<int32_t>(i)});
    logprob_rows.push_back(
        {.num_top = params.logprobs.value_or(-1), .token = row.given_token.value_or(-1)});
    if (!has_penalties(params)) continue;
    std::vector<int32_t> tokens = row.prompt;
    tokens.insert(tokens.end(), row.reply.begin(), row.reply.end());
    kernels::launch_count_seen({.tokens = keep(parts_, tokens),
                                .num_prompt = static_cast<int32_t>(row.prompt.size()),
                                .num_tokens = static_cast<int32_t>(tokens.size()),
                                .seen = seen_.as<uint32_t>() + i * vocab_size,
                                .vocab_size = vocab_size_},
                               stream.get());
  }
  stream.wait();
  logits_ = DeviceBuffer::of(logits);
  sampling_rows_ = DeviceBuffer::of(sampling_rows);
  logprob_rows_ = DeviceBuffer::of(logprob_rows);
}

kernels::SampleParams SamplingBatch::sample_params() const {
  return {.logits = logits_.as<float>(),
          .logits_stride = stride_,
          .rows = sampling_rows_.as<kernels::SamplingRow>(),
          .sampled = sampled_.as<kernels::SampledToken>(),
          .newest_token = newest_.as<int32_t>(),
          .seen = seen_.as<uint32_t>(),
          .scratch = scratch_.data(),
          .num_rows = static_cast<int32_t>(rows_.size()),
          .vocab_size = vocab_size_};
}

void SamplingBatch::enqueue(const Stream& stream) const {
  const kernels::SampleParams p = sample_params();
  kernels::launch_sample(p, stream.get());
  kernels::launch_logprobs({.logits = p.logits,
                            .logits_stride = p.logits_stride,
                            .rows = logprob_rows_.as<kernels::LogprobRow>(),
                            .sampled = p.sampled,
                            .logprobs = logprobs_.as<kernels::RowLogprob>(),
                            .top = top_.as<kernels::TopLogprob>(),
                            .scratch = scratch_.data(),
                            .num_rows = p.num_rows,
                            .vocab_size = p.vocab_size},
                           stream.get());
}

std::vector<SamplingResult> SamplingBatch::download() const {
  const auto sampled = sampled_.download<kernels::SampledToken>(rows_.size());
  const auto logprobs = logprobs_.download<kernels::RowLogprob>(rows_.size());
  const auto top = top_.download<kernels::TopLogprob>(rows_.size() * kernels::kMaxTopLogprobs);
  std::vector<SamplingResult> results;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const auto first = top.begin() + static_cast<int64_t>(i) * kernels::kMaxTopLogprobs;
    results.push_back({sampled[i], logprobs[i], {first, first + kernels::kMaxTopLogprobs}});
  }
  return results;
}

std::vector<SamplingResult> SamplingBatch::run() {
  for (DeviceBuffer* buffer : {&sampled_, &logprobs_, &top_, &newest_}) buffer->fill(0xff);
  const Stream stream;
  enqueue(stream);
  stream.wait();
  return download();
}

std::vector<int32_t> SamplingBatch::newest_tokens() const {
  return newest_.download<int32_t>(rows_.size());
}

std::string why_wrong(const SamplingCase& row, const SamplingResult& got) {
  using kernels::SamplingStatus;
  const auto want =
      row.samples ? sample_on_host(row) : kernels::SampledToken{0, SamplingStatus::kOk};
  if (got.sampled.status != want.status || got.sampled.token != want.token) {
    const auto& p = row.params;
    return fmt::format(
        "token {} with status {}, not {} with {} (V {}, temperature {}, top_k {}, top_p {}, min_p "
        "{}, {} biases, {}, {})",
        got.sampled.token, static_cast<int>(got.sampled.status), want.token,
        static_cast<int>(want.status), row.logits.size(), p.temperature, p.top_k, p.top_p, p.min_p,
        p.logit_bias.size(), has_penalties(p) ? "penalties" : "no penalties",
        row.mask.empty() ? "no mask" : "a mask");
  }
  if (!row.params.logprobs) {
    const auto& l = got.logprob;
    const bool is_zero =
        l.token == 0 && l.status == SamplingStatus::kOk && l.logprob == 0 && l.rank == 0;
    return is_zero ? "" : "a log probability that was not asked for";
  }
  auto status = want.status;
  int32_t token = want.token;
  if (row.given_token) {
    const std::string why = why_unusable(row.logits, 0);
    status = why.empty()                            ? SamplingStatus::kOk
             : why.find("NaN") != std::string::npos ? SamplingStatus::kNan
                                                    : SamplingStatus::kNoFiniteMaximum;
    token = status == SamplingStatus::kOk ? *row.given_token : 0;
  }
  if (got.logprob.status != status || got.logprob.token != token)
    return fmt::format("the log probability of {} with status {}, not of {} with {}",
                       got.logprob.token, static_cast<int>(got.logprob.status), token,
                       static_cast<int>(status));
  if (status == SamplingStatus::kOk) return why_wrong_logprob(row, got);
  return got.logprob.logprob == 0 && got.logprob.rank == 0 ? "" : "a log probability of nothing";
}

SamplingCase random_case(std::mt19937& random, int32_t vocab_size) {
  const auto below = [&](int32_t n) { return std::uniform_int_distribution(0, n - 1)(random); };
  const auto pick = [&]<class T>(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<int32_t>(values.size()))];
  };
  const auto token = [&] { return below(vocab_size); };
  SamplingCase row;
  const int32_t kind = below(9);
  const float sigma = pick({0.5f, 2.0f, 4.0f});
  std::normal_distribution<float> normal(pick({0.0f, -7.0f, 11.0f}), sigma);
  for (int32_t id = 0; id < vocab_size; ++id) {
    float x = normal(random);
    if (kind == 1) x = std::round(2 * x) / 2;                      // many equals
    if (kind == 2 && below(3) != 0) x = -kInfinity;                //
    if (kind == 3) x = 1.25f;                                      // all the same
    if (kind == 4) x *= 1e30f;                                     //
    if (kind == 5 && below(vocab_size) < 4) x += 18;               // a few likely tokens
    if (kind == 6) x *= pick({1e-3f, 1e-40f, 1.0f, 0.0f, -0.0f});  //
    if (kind == 7) x = id % 5 == 0 ? 3.0f : -kInfinity;            //
    row.logits.push_back(x);
  }
  if (below(60) == 0) row.logits[static_cast<size_t>(token())] = std::nanf("");
  if (below(60) == 0) row.logits[static_cast<size_t>(token())] = kInfinity;
  if (below(60) == 0) std::ranges::fill(row.logits, -kInfinity);

  SamplingParams& p = row.params;
  p.temperature = pick({0.0f, 0.7f, 1.0f, 1.0f, 1.0f, 1.5f, 0.01f, 100.0f, 1e-30f, 1e30f, 1e-45f});
  if (below(2) == 0) p.top_k = pick({1, 2, 20, 50, 128, 129, 1000, 1 << 30});
  if (below(2) == 0)
    p.top_p = pick({0.9f, 0.5f, 0.95f, 1e-30f, 0.999999f, 1 - 0x1p-24f, 0.25f, 0.75f});
  if (below(4) == 0) p.min_p = pick({0.05f, 0.5f, 1.0f, 1e-20f});
  p.seed = random();
  row.position = pick({int64_t{0}, int64_t{below(100000)}, int64_t{1} << 40});
  for (int32_t i = below(4); i > 0; --i) row.end_tokens.push_back(token());
  if (below(4) == 0) {
    for (int32_t i = below(40); i >= 0; --i)
      p.logit_bias.emplace_back(token(), pick({-100.0f, 100.0f, 0.1f, -1.7f}));
    p.logit_bias.emplace_back(p.logit_bias.front().first, 0.3f);
  }
  for (int32_t i = below(50); i > 0; --i) row.prompt.push_back(token());
  for (int32_t i = below(50); i > 0; --i)
    row.reply.push_back(below(2) == 0 && !row.reply.empty() ? row.reply.back() : token());
  if (below(4) == 0) p.repetition_penalty = pick({1.2f, 0.8f, 1e-40f, 30.0f});
  if (below(4) == 0) p.presence_penalty = pick({0.3f, -2.0f});
  if (below(4) == 0) p.frequency_penalty = pick({0.1f, -0.7f, 2.0f});
  p.max_tokens = 1000;
  if (below(4) == 0) p.min_tokens = pick({1, 1000});
  if (below(4) == 0) {
    const int32_t share = pick({1, 2, 50, 1000});  // one in so many is allowed
    row.may_end = below(2) == 0;
    row.mask.resize((static_cast<size_t>(vocab_size) + 63) / 64);
    for (int32_t id = 0; id < vocab_size; ++id) {
      if (below(share) == 0) row.mask[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64);
    }
  }
  if (below(3) == 0) {
    p.logprobs = pick({0, 1, 5, 20});
    if (below(3) == 0) row.given_token = token();
  }
  row.samples = below(12) != 0;
  if (!row.samples && p.logprobs) row.given_token = token();
  return row;
}

}  // namespace braid::test
