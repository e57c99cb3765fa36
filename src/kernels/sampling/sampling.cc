#include "kernels/sampling/sampling.h"

#include <bit>

#include "base/check.h"
#include "kernels/sampling/enqueue.h"

namespace braid::kernels {
namespace {

std::string why_bad_vocab(int32_t vocab_size) {
  if (vocab_size >= 1 && vocab_size <= kMaxSamplingVocab) return "";
  return fmt::format("vocab_size = {}, need 1 to {}", vocab_size, kMaxSamplingVocab);
}

// What both kernels read.
template <class Params>
std::string why_bad_logits(const Params& p) {
  if (p.num_rows < 0) return fmt::format("num_rows = {}, need 0 or more", p.num_rows);
  if (auto why = why_bad_vocab(p.vocab_size); !why.empty()) return why;
  if (p.logits_stride < p.vocab_size || p.logits_stride % 4 != 0)
    return fmt::format("logits_stride = {}, need a multiple of 4 from vocab_size = {} on",
                       p.logits_stride, p.vocab_size);
  if (p.num_rows == 0) return "";
  if (p.logits == nullptr || p.rows == nullptr || p.scratch == nullptr)
    return "logits, rows or scratch is null";
  if (std::bit_cast<uintptr_t>(p.logits) % 16 != 0) return "logits is not aligned to 16 bytes";
  if (std::bit_cast<uintptr_t>(p.scratch) % 16 != 0) return "scratch is not aligned to 16 bytes";
  return "";
}

}  // namespace

std::string why_unsupported(const SampleParams& p) {
  if (auto why = why_bad_logits(p); !why.empty()) return why;
  if (p.num_rows > 0 && p.sampled == nullptr) return "sampled is null";
  return "";
}

std::string why_unsupported(const LogprobParams& p) {
  if (auto why = why_bad_logits(p); !why.empty()) return why;
  if (p.num_rows > 0 && p.logprobs == nullptr) return "logprobs is null";
  return "";
}

std::string why_unsupported(const CountSeenParams& p) {
  if (auto why = why_bad_vocab(p.vocab_size); !why.empty()) return why;
  if (p.num_prompt < 0 || p.num_prompt > p.num_tokens)
    return fmt::format("num_prompt = {}, need 0 to num_tokens = {}", p.num_prompt, p.num_tokens);
  if (p.seen == nullptr || (p.num_tokens > 0 && p.tokens == nullptr))
    return "seen or tokens is null";
  return "";
}

void launch_sample(const SampleParams& p, CudaStream stream) {
  if (auto why = why_unsupported(p); !why.empty()) throw InternalError("sample: " + why);
  if (p.num_rows > 0) internal::enqueue_sample(p, stream);
}

void launch_logprobs(const LogprobParams& p, CudaStream stream) {
  if (auto why = why_unsupported(p); !why.empty()) throw InternalError("logprobs: " + why);
  if (p.num_rows > 0) internal::enqueue_logprobs(p, stream);
}

void launch_count_seen(const CountSeenParams& p, CudaStream stream) {
  if (auto why = why_unsupported(p); !why.empty()) throw InternalError("count_seen: " + why);
  internal::enqueue_count_seen(p, stream);
}

}  // namespace braid::kernels
