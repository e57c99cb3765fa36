#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "braid/engine.h"
#include "device/device.h"
#include "kernels/sampling/logprobs.h"
#include "kernels/sampling/sampling.h"

namespace braid::test {

// What one row is asked, and what the host's sampler is asked for it.
struct SamplingCase {
  std::vector<float> logits;  // [V]
  SamplingParams params;      // logprobs: the row is asked for them too
  std::vector<int32_t> prompt, reply;
  std::vector<int32_t> end_tokens;
  std::vector<uint64_t> mask;  // empty: no grammar
  bool may_end = false;
  int64_t position = 0;
  bool samples = true;
  std::optional<int32_t> given_token;  // whose log probability is asked, instead of the sampled one
};

struct SamplingResult {
  kernels::SampledToken sampled;
  kernels::RowLogprob logprob;
  std::vector<kernels::TopLogprob> top;  // [kMaxTopLogprobs]
};
bool operator==(const SamplingResult& a, const SamplingResult& b);

// Rows of one launch on the device. Outputs are poisoned first, and rows of logits have NaN behind
// them.
class SamplingBatch {
 public:
  explicit SamplingBatch(std::vector<SamplingCase> rows);

  // Runs both kernels. Tokens that are picked stay counted for the next call.
  std::vector<SamplingResult> run();
  void enqueue(const Stream& stream) const;
  std::vector<SamplingResult> download() const;
  std::vector<int32_t> newest_tokens() const;  // by row

  const std::vector<SamplingCase>& rows() const { return rows_; }

 private:
  kernels::SampleParams sample_params() const;

  std::vector<SamplingCase> rows_;
  int32_t vocab_size_ = 0;
  int64_t stride_ = 0;
  std::vector<DeviceBuffer> parts_;  // biases, masks and end tokens of rows
  DeviceBuffer logits_, sampling_rows_, logprob_rows_, sampled_, logprobs_, top_, newest_, seen_;
  DeviceBuffer scratch_;
};

// Empty, or how a row's result differs from that of the host's sampler.
std::string why_wrong(const SamplingCase& row, const SamplingResult& got);

// Logits of one of many kinds (with equals, -inf, all the same, huge, peaked) and any combination
// of parameters.
SamplingCase random_case(std::mt19937& random, int32_t vocab_size);

}  // namespace braid::test
