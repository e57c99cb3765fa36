#include "tests/gpu/attention_problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "quant/e4m3.h"
#include "reference/reference.h"
#include "tests/kernels/random_weights.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr size_t kGuardElements = 4096;

}  // namespace

AttentionProblem::AttentionProblem(const AttentionShape& of, const std::vector<QueryRange>& ranges,
                                   uint32_t seed)
    : shape(of) {
  std::mt19937 random(seed);
  const int32_t spare = 3;
  num_blocks_ = spare;
  max_kv_blocks_ = 1;
  for (const QueryRange& r : ranges) {
    const int32_t blocks = (r.context_len + of.block_size - 1) / of.block_size;
    num_blocks_ += blocks;
    max_kv_blocks_ = std::max(max_kv_blocks_, blocks);
  }
  std::vector<int32_t> ids(static_cast<size_t>(num_blocks_));
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), random);

  // --- keys and values, NaN where nobody's ---
  const size_t row = static_cast<size_t>(of.num_kv_heads * of.head_dim);
  const size_t elements = static_cast<size_t>(num_blocks_ * of.block_size) * row;
  k_.assign(elements, kNan), v_.assign(elements, kNan);
  if (of.format == kernels::KvFormat::kE4m3) k_scale_ = 0.02f * of.key_sigma, v_scale_ = 0.013f;
  const auto as_stored = [&](float x, float scale) {
    return of.format == kernels::KvFormat::kE4m3 ? from_e4m3(to_e4m3(x / scale)) * scale
                                                 : to_float(to_bf16(x));
  };
  for (const QueryRange& r : ranges) {
    for (int32_t b = 0; b < max_kv_blocks_; ++b) {
      const bool own = b * of.block_size < r.context_len;
      block_table_.push_back(own ? ids.back() : std::numeric_limits<int32_t>::max() / 2);
      if (!own) continue;
      const size_t first = static_cast<size_t>(ids.back() * of.block_size) * row;
      const auto count =
          static_cast<size_t>(std::min(of.block_size, r.context_len - b * of.block_size)) * row;
      ids.pop_back();
      const std::vector<float> k = random_floats(random, count, of.key_sigma),
                               v = random_floats(random, count);
      for (size_t i = 0; i < count; ++i) {
        k_[first + i] = as_stored(k[i], k_scale_);
        v_[first + i] = as_stored(v[i], v_scale_);
      }
    }
  }
  const auto upload = [&](const std::vector<float>& from, float scale) {
    const auto heads = static_cast<size_t>(of.num_kv_heads),
               keys = static_cast<size_t>(of.block_size), dim = static_cast<size_t>(of.head_dim);
    std::vector<Bf16> bf16(elements);
    std::vector<uint8_t> e4m3(elements);
    for (size_t i = 0; i < elements; ++i) {
      const size_t d = i % dim, h = i / dim % heads, key = i / row % keys, b = i / row / keys;
      const size_t to = ((b * heads + h) * keys + key) * dim + d;
      bf16[to] = to_bf16(from[i]);
      e4m3[to] = to_e4m3(from[i] / scale);
    }
    return of.format == kernels::KvFormat::kE4m3 ? DeviceBuffer::of(e4m3) : DeviceBuffer::of(bf16);
  };
  k_device_ = upload(k_, k_scale_);
  v_device_ = upload(v_, v_scale_);

  // --- queries and lengths ---
  for (const QueryRange& r : ranges) max_tokens_ += r.num_queries;
  max_tokens_ = std::max(1, max_tokens_);
  for (const float x : random_floats(random, static_cast<size_t>(max_tokens_ * stride())))
    q_.push_back(to_bf16(x));
  q_device_ = DeviceBuffer::of(q_);
  if (shape.rotary_dim < 0) shape.rotary_dim = of.head_dim;
  std::vector<float> inv_freq;
  for (int32_t i = 0; i < shape.rotary_dim / 2; ++i)
    inv_freq.push_back(
        std::pow(1e6f, -2.0f * static_cast<float>(i) / static_cast<float>(shape.rotary_dim)));
  if (!inv_freq.empty()) inv_freq_ = DeviceBuffer::of(inv_freq);
  std::vector<Bf16> norm;
  for (const float x : random_floats(random, static_cast<size_t>(2 * of.head_dim)))
    norm.push_back(to_bf16(x));
  norm_ = DeviceBuffer::of(norm);
  table_device_ = DeviceBuffer::of(block_table_);
  indptr_device_ = DeviceBuffer((ranges.size() + 1) * 4);
  len_device_ = DeviceBuffer(std::max<size_t>(1, ranges.size()) * 4);
  set_ranges(ranges);
  out_ = DeviceBuffer((static_cast<size_t>(max_tokens_ * width()) + kGuardElements) * 2);
  size_t bytes = 0;
  const int32_t sequences = std::max(1, num_sequences());
  kernels::attention_workspace(sequences, of.num_heads, of.head_dim, nullptr, &bytes);
  workspace_bytes_ = DeviceBuffer(bytes);
  workspace_bytes_.fill(0);
  workspace_ = kernels::attention_workspace(sequences, of.num_heads, of.head_dim,
                                            workspace_bytes_.data(), &bytes);
}

void AttentionProblem::set_ranges(const std::vector<QueryRange>& ranges, int32_t first_token) {
  query_indptr_.assign(1, first_token);
  context_len_.clear();
  for (const QueryRange& r : ranges) {
    query_indptr_.push_back(query_indptr_.back() + r.num_queries);
    context_len_.push_back(r.context_len);
  }
  indptr_device_.upload_bytes(query_indptr_.data(), query_indptr_.size() * 4);
  len_device_.upload_bytes(context_len_.data(), context_len_.size() * 4);
}

kernels::AttentionBf16Params AttentionProblem::params(int32_t first, int32_t count) const {
  return {.q = q_device_.as<Bf16>(),
          .q_stride = stride(),
          .out = out_.as<Bf16>(),
          .kv = {.k_cache = k_device_.data(),
                 .v_cache = v_device_.data(),
                 .format = shape.format,
                 .k_scale = k_scale_,
                 .v_scale = v_scale_,
                 .num_kv_heads = shape.num_kv_heads,
                 .block_size = shape.block_size,
                 .head_dim = shape.head_dim},
          .query_indptr = indptr_device_.as<int32_t>() + first,
          .context_len = len_device_.as<int32_t>() + first,
          .block_table = table_device_.as<int32_t>() + int64_t{first} * max_kv_blocks_,
          .num_sequences = count,
          .max_kv_blocks = max_kv_blocks_,
          .num_heads = shape.num_heads,
          .softmax_scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
}

void AttentionProblem::poison() { out_.fill(0xff); }

std::vector<float> AttentionProblem::download_out() const {
  const auto used = static_cast<size_t>(max_tokens_ * width());
  const std::vector<Bf16> out = out_.download<Bf16>(used + kGuardElements);
  std::vector<float> floats;
  for (size_t i = 0; i < used; ++i) floats.push_back(to_float(out[i]));
  // A write past the end shows as an output that is off.
  for (size_t i = used; i < out.size(); ++i) {
    if (out[i].bits != 0xffff && !floats.empty()) floats[0] = kNan;
  }
  return floats;
}

std::vector<float> AttentionProblem::decode(int32_t first, int32_t count, int32_t num_sms) {
  const Stream stream;
  poison();
  kernels::launch_attention_decode(params(first, count), workspace_, num_sms, stream.get());
  stream.wait();
  return download_out();
}

std::vector<float> AttentionProblem::decode_with_rope(const kernels::RopeKvWriteBf16Params& rope,
                                                      int32_t num_sms) {
  const Stream stream;
  poison();
  kernels::launch_rope_attention_decode(rope, params(0, num_sequences()), workspace_, num_sms,
                                        stream.get());
  stream.wait();
  return download_out();
}

kernels::RopeKvWriteBf16Params AttentionProblem::rope_params(
    const std::vector<int32_t>& slots) const {
  std::vector<int32_t> positions;
  for (size_t s = 0; s < context_len_.size(); ++s) {
    if (query_indptr_[s + 1] > query_indptr_[s]) positions.push_back(context_len_[s] - 1);
  }
  if (slots.empty()) positions.push_back(0);
  positions_ = DeviceBuffer::of(positions);
  slots_ = DeviceBuffer::of(slots.empty() ? std::vector<int32_t>{-1} : slots);
  const kernels::PagedKv kv = params(0, 0).kv;
  return {.qkv = q_device_.as<Bf16>(),
          .qkv_stride = stride(),
          .q_norm = shape.norms ? norm_.as<Bf16>() : nullptr,
          .k_norm = shape.norms ? norm_.as<Bf16>() + shape.head_dim : nullptr,
          .inv_freq = inv_freq_.as<float>(),
          .positions = positions_.as<int32_t>(),
          .kv_slot_of_token = slots_.as<int32_t>(),
          .kv = kv,
          .num_tokens = static_cast<int32_t>(slots.size()),
          .num_heads = shape.num_heads,
          .rotary_dim = shape.rotary_dim};
}

std::vector<int32_t> AttentionProblem::newest_slots() const {
  std::vector<int32_t> slots;
  for (size_t s = 0; s < context_len_.size(); ++s) {
    if (query_indptr_[s + 1] == query_indptr_[s]) continue;
    const int32_t key = context_len_[s] - 1;
    const int32_t block = block_table_[s * static_cast<size_t>(max_kv_blocks_) +
                                       static_cast<size_t>(key / shape.block_size)];
    slots.push_back(block * shape.block_size + key % shape.block_size);
  }
  return slots;
}

void AttentionProblem::spoil_slots(const std::vector<int32_t>& slots) {
  const auto bytes = static_cast<size_t>(shape.head_dim * kernels::element_bytes(shape.format));
  for (DeviceBuffer* const cache : {&k_device_, &v_device_}) {
    std::vector<uint8_t> all = cache->download<uint8_t>(cache->bytes());
    for (const int32_t slot : slots) {
      for (int32_t head = 0; head < shape.num_kv_heads; ++head) {
        const int32_t row =
            (slot / shape.block_size * shape.num_kv_heads + head) * shape.block_size +
            slot % shape.block_size;
        std::fill_n(all.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(row) * bytes), bytes,
                    uint8_t{0xff});
      }
    }
    cache->upload_bytes(all.data(), all.size());
  }
}

void AttentionProblem::clear_cache() {
  std::ranges::fill(k_, 0.0f), std::ranges::fill(v_, 0.0f);
  k_device_.fill(0), v_device_.fill(0);
}

std::vector<uint8_t> AttentionProblem::download_cache() const {
  std::vector<uint8_t> k = k_device_.download<uint8_t>(k_device_.bytes());
  const std::vector<uint8_t> v = v_device_.download<uint8_t>(v_device_.bytes());
  k.insert(k.end(), v.begin(), v.end());
  return k;
}

std::vector<float> AttentionProblem::prefill(int32_t first, int32_t count) {
  const Stream stream;
  poison();
  kernels::launch_attention_prefill(params(first, count), num_tokens(), stream.get());
  stream.wait();
  return download_out();
}

std::string AttentionProblem::why_wrong(const std::vector<float>& out, int32_t first,
                                        int32_t count) const {
  const auto row = static_cast<size_t>(width());
  std::vector<float> q;
  for (size_t i = 0; i < q_.size(); ++i) q.push_back(to_float(q_[i]));
  std::vector<float> want(static_cast<size_t>(max_tokens_) * row), magnitude(want.size());
  kernels::AttentionParams p = {
      .q = q.data(),
      .q_stride = stride(),
      .out = want.data(),
      .k_cache = k_.data(),
      .v_cache = v_.data(),
      .query_indptr = query_indptr_.data() + first,
      .context_len = context_len_.data() + first,
      .block_table = block_table_.data() + int64_t{first} * max_kv_blocks_,
      .num_sequences = count,
      .max_kv_blocks = max_kv_blocks_,
      .block_size = shape.block_size,
      .num_heads = shape.num_heads,
      .num_kv_heads = shape.num_kv_heads,
      .head_dim = shape.head_dim,
      .softmax_scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
  reference::attention(p);
  // Weighted magnitudes of the values: what rounding errors are multiples of.
  std::vector<float> sizes = v_;
  for (float& x : sizes) x = std::abs(x);
  p.v_cache = sizes.data(), p.out = magnitude.data();
  reference::attention(p);

  const auto dim = static_cast<size_t>(shape.head_dim);
  double longest_key = 0;
  for (size_t i = 0; i < k_.size(); i += dim) {
    double squares = 0;
    for (size_t d = 0; d < dim; ++d) squares += double{k_[i + d]} * k_[i + d];
    if (squares > longest_key) longest_key = squares;  // NaN is nobody's
  }
  for (int32_t s = first; s < first + count; ++s) {
    const auto index = static_cast<size_t>(s);
    const auto begin = static_cast<size_t>(query_indptr_[index]) * row,
               end = static_cast<size_t>(query_indptr_[index + 1]) * row;
    if (begin == end) continue;
    std::vector<double> tolerance, wanted(want.begin() + static_cast<ptrdiff_t>(begin),
                                          want.begin() + static_cast<ptrdiff_t>(end));
    for (size_t i = begin; i < end; ++i) {
      const float* of_head =
          q.data() + i / row * static_cast<size_t>(stride()) + i % row / dim * dim;
      double squares = 0;
      for (size_t d = 0; d < dim; ++d) squares += double{of_head[d]} * of_head[d];
      // Of a score, in units of the exponent: tensor cores cut off where float rounds.
      const double score_error =
          4 * fp32_gamma(shape.head_dim + 8) * p.softmax_scale * std::sqrt(squares * longest_key);
      // Weights are rounded to BF16, by 2^-8 of each at most; so is the result.
      tolerance.push_back(magnitude[i] * (0x1p-7 + 2 * score_error + 0x1p-18) +
                          std::abs(want[i]) * 0x1.1p-8 + 1e-30);
    }
    const std::span<const float> got(out.data() + begin, end - begin);
    if (auto why = why_not_close(got, wanted, tolerance); !why.empty())
      return fmt::format("sequence {}: {}", s, why);
    const double error = relative_l2(got, std::span<const float>(want.data() + begin, end - begin));
    // Roundings of weights and of the result, each about 2^-8 / sqrt(3) / sqrt(2) of it.
    if (!(error < 0x1p-8)) return fmt::format("sequence {}: relative L2 error {}", s, error);
  }
  return "";
}

}  // namespace braid::test
