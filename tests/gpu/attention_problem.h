#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bf16.h"
#include "device/device.h"
#include "kernels/attention/attention_bf16.h"

namespace braid::test {

struct AttentionShape {
  int32_t num_heads = 8;
  int32_t num_kv_heads = 2;
  int32_t head_dim = 128;
  int32_t block_size = 16;
  kernels::KvFormat format = kernels::KvFormat::kBf16;
  float key_sigma = 1.0f;
  int32_t rotary_dim = -1;  // head_dim
  bool norms = true;
};

struct QueryRange {
  int32_t num_queries = 1;
  int32_t context_len = 1;
};

// Sequences over one paged cache whose blocks are handed out in random order, on the host and on
// the device. What no kernel may use is NaN (rows past a sequence's end, blocks of nobody) or out
// of range (the block table past a sequence's own).
class AttentionProblem {
 public:
  AttentionProblem(const AttentionShape& shape, const std::vector<QueryRange>& sequences,
                   uint32_t seed);

  int32_t num_sequences() const { return static_cast<int32_t>(context_len_.size()); }
  int32_t num_tokens() const { return query_indptr_.back(); }
  int64_t width() const { return int64_t{shape.num_heads} * shape.head_dim; }
  // Of a row of q, k and v.
  int64_t stride() const { return width() + int64_t{2} * shape.num_kv_heads * shape.head_dim + 8; }

  // Of sequences [first, first + count), on the device.
  kernels::AttentionBf16Params params(int32_t first, int32_t count) const;
  const kernels::AttentionWorkspace& workspace() const { return workspace_; }

  // Fill the outputs with NaN, run, and return them, [T, num_heads * head_dim]. What lies behind
  // the outputs is checked to be as before.
  std::vector<float> decode(int32_t first, int32_t count, int32_t num_sms = 132);
  std::vector<float> prefill(int32_t first, int32_t count);
  // Of all sequences, q, keys and values being made of the same rows. launch_rope_kv_write changes
  // q in place.
  std::vector<float> decode_with_rope(const kernels::RopeKvWriteBf16Params& rope,
                                      int32_t num_sms = 132);
  // Rope for one query a sequence; a slot a token.
  kernels::RopeKvWriteBf16Params rope_params(const std::vector<int32_t>& slots) const;
  std::vector<int32_t> newest_slots() const;  // of each token
  // Makes keys and values of these slots NaN.
  void spoil_slots(const std::vector<int32_t>& slots);
  // Makes all keys and values zero.
  void clear_cache();
  std::vector<uint8_t> download_cache() const;
  void poison();
  std::vector<float> download_out() const;

  // Empty, or how outputs of sequences [first, first + count) differ from sums in double: by
  // element against what the arithmetic allows, and as a whole.
  std::string why_wrong(const std::vector<float>& out, int32_t first, int32_t count) const;

  // Other lengths and queries of the same sequences, none longer than before; the first query is
  // token first_token.
  void set_ranges(const std::vector<QueryRange>& sequences, int32_t first_token = 0);

  AttentionShape shape;

 private:
  int32_t max_kv_blocks_ = 0, num_blocks_ = 0;
  float k_scale_ = 1.0f, v_scale_ = 1.0f;
  std::vector<int32_t> query_indptr_, context_len_, block_table_;
  std::vector<Bf16> q_;       // [T, stride()]
  std::vector<float> k_, v_;  // [num_blocks, block_size, num_kv_heads, head_dim], as reference::
  int32_t max_tokens_ = 0;
  DeviceBuffer q_device_, out_, k_device_, v_device_, indptr_device_, len_device_, table_device_;
  DeviceBuffer inv_freq_, norm_, workspace_bytes_;
  mutable DeviceBuffer positions_, slots_;
  kernels::AttentionWorkspace workspace_;
};

}  // namespace braid::test
