#include "kernels/linear/linear_bf16.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "kernels/linear/enqueue.h"
#include "kernels/linear/layout.h"

namespace braid::kernels {

LinearWorkspace linear_workspace(int32_t max_tokens, int32_t max_in, int32_t max_total_rank,
                                 void* base, size_t* bytes) {
  LinearWorkspace w = {
      .max_tokens = max_tokens, .max_in = max_in, .max_total_rank = max_total_rank};
  size_t at = 0;
  const auto take = [&]<class T>(T*& field, size_t count) {
    field = base == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<uint8_t*>(base) + at);
    at += (count * sizeof(T) + 1023) / 1024 * 1024;
  };
  const auto tokens = static_cast<size_t>(max_tokens);
  take(w.ctas_done, 1);
  take(w.launches, 1);
  // Rounded up to the largest tiles; more of smaller ones are no more bytes.
  const size_t tiles = (tokens + kLinearLargeTokens - 1) / kLinearLargeTokens;
  take(w.x_image, tiles * static_cast<size_t>((max_in + 127) / 128) *
                      static_cast<size_t>(x_image_bytes(kLinearLargeTokens)));
  take(w.u, tokens * static_cast<size_t>(max_total_rank / 2));
  take(w.u_octets, tokens * static_cast<size_t>(max_total_rank));
  if (bytes != nullptr) *bytes = at;
  return w;
}

int32_t linear_parts(const LinearShape& shape) {
  // As many CTAs as there are SMs, and at least two tiles for each.
  constexpr int32_t kSms = 132, kMostParts = 8;
  return std::clamp(std::min(kSms / num_row_tiles(shape), num_depth_tiles(shape) / 2), 1,
                    kMostParts);
}

namespace {

bool quantizes_apart(const LinearShape& shape, const LinearPlan& plan) {
  return shape.format == WeightFormat::kFp8Block128 &&
         image_tile_tokens(plan) >= kQuantizedApartTokens;
}

// Of x, quantised by the CTA itself.
int32_t quantized_bytes(const LinearShape& shape, const LinearPlan& plan) {
  if (shape.format != WeightFormat::kFp8Block128 || quantizes_apart(shape, plan)) return 0;
  const int32_t ctas = plan.in_cluster ? linear_parts(shape) : 1;
  return (num_depth_tiles(shape) + ctas - 1) / ctas * x_image_bytes(plan.tile_tokens);
}

}  // namespace

LinearPlan plan_linear(const LinearShape& shape, int32_t num_tokens) {
  const bool fp8 = shape.format == WeightFormat::kFp8Block128;
  const int32_t row_tiles = num_row_tiles(shape), parts = linear_parts(shape);
  const auto token_tiles = [&](int32_t tile) { return (num_tokens + tile - 1) / tile; };
  if (fp8 && num_tokens > kMostSmallBatchTokens) return {.large_batch = true};
  LinearPlan plan;
  // Small tiles while there are SMs for all of them; those of FP8 would quantise x once more each.
  while (plan.tile_tokens < kMaxTileTokens && plan.tile_tokens < num_tokens &&
         (fp8 || row_tiles * parts * token_tiles(plan.tile_tokens) > 132))
    plan.tile_tokens *= 2;
  plan.in_cluster = parts > 1 && row_tiles * token_tiles(plan.tile_tokens) < 66;
  if (quantized_bytes(shape, plan) > kMostQuantizedBytes) plan.tile_tokens = kQuantizedApartTokens;
  return plan;
}

std::string to_string(const LinearShape& shape, const LinearPlan& plan) {
  if (plan.large_batch) return fmt::format("large batch, {} parts", linear_parts(shape));
  return fmt::format("tile {}, {} parts{}", plan.tile_tokens, linear_parts(shape),
                     plan.in_cluster ? " in a cluster" : "");
}

std::string why_unsupported(const LinearShape& shape) {
  if (shape.format != WeightFormat::kFp8Block128 && shape.format != WeightFormat::kBf16)
    return fmt::format("shape.format is {}, need FP8 or BF16", name(shape.format));
  if (shape.in < 16 || shape.in % 16 != 0)
    return fmt::format("shape.in = {}, need a multiple of 16", shape.in);
  if (shape.num_slices < 1 || shape.num_slices > kMaxLinearSlices)
    return fmt::format("shape.num_slices = {}, need 1 to {}", shape.num_slices, kMaxLinearSlices);
  for (int32_t s = 0; s < kMaxLinearSlices; ++s) {
    const int32_t out = shape.slice_out[s];
    const int32_t unit = s + 1 < shape.num_slices ? 64 : 8;
    if (s >= shape.num_slices ? out != 0 : out < unit || out % unit != 0) {
      return fmt::format("shape.slice_out[{}] = {}, need {}", s, out,
                         s >= shape.num_slices ? std::string("0 behind the last slice")
                                               : fmt::format("a multiple of {}", unit));
    }
  }
  return "";
}

namespace {

bool aligned(const void* pointer, uintptr_t to) {
  return reinterpret_cast<uintptr_t>(pointer) % to == 0;
}

}  // namespace

std::string why_unsupported(const LinearBf16Params& p) {
  if (auto why = why_unsupported(p.shape); !why.empty()) return why;
  if (p.num_tokens < 0) return fmt::format("num_tokens = {}, need 0 or more", p.num_tokens);
  if (p.x_stride < p.shape.in || p.x_stride % 8 != 0) {
    return fmt::format("x_stride = {}, need a multiple of 8 from shape.in = {} on", p.x_stride,
                       p.shape.in);
  }
  if (p.y_stride < p.shape.out() || p.y_stride % 8 != 0) {
    return fmt::format("y_stride = {}, need a multiple of 8 from shape.out() = {} on", p.y_stride,
                       p.shape.out());
  }
  if (p.num_tokens == 0) return "";
  if (p.x == nullptr || !aligned(p.x, 16)) return "x is null or not 16-byte aligned";
  if (p.weights == nullptr || !aligned(p.weights, 128))
    return "weights is null or not 128-byte aligned";
  if ((p.y == nullptr) == (p.y_float == nullptr)) return "need one of y and y_float";
  if (!aligned(p.y, 16) || !aligned(p.y_float, 16)) return "y is not 16-byte aligned";
  if (p.adapters == nullptr) return "";
  const AdapterOrder& order = p.order;
  if (order.token_of_row == nullptr || order.run_of_row == nullptr || order.runs == nullptr ||
      order.num_runs == nullptr)
    return "order has no token_of_row, run_of_row, runs or num_runs";
  const LinearWorkspace& w = p.workspace;
  if (w.u == nullptr || w.u_octets == nullptr || w.launches == nullptr || w.ctas_done == nullptr)
    return "workspace is null, adapters need it";
  if (w.max_tokens < p.num_tokens)
    return fmt::format("num_tokens = {}, need at most workspace.max_tokens = {}", p.num_tokens,
                       w.max_tokens);
  return "";
}

std::string why_unsupported(const LinearBf16Params& p, const LinearPlan& plan) {
  if (auto why = why_unsupported(p); !why.empty()) return why;
  if (plan.large_batch && p.shape.format != WeightFormat::kFp8Block128)
    return fmt::format("large_batch is set, need FP8 weights, not {}", name(p.shape.format));
  const int32_t tile = plan.tile_tokens;
  if (tile < 8 || tile > kMaxTileTokens || (tile & (tile - 1)) != 0)
    return fmt::format("tile_tokens = {}, need 8, 16, 32 or 64", tile);
  if (plan.in_cluster && linear_parts(p.shape) == 1)
    return "in_cluster is set, need a shape of more than one part";
  if (quantized_bytes(p.shape, plan) > kMostQuantizedBytes) {
    return fmt::format("tile_tokens = {}, need {} for so many columns a CTA", tile,
                       kQuantizedApartTokens);
  }
  if (quantizes_apart(p.shape, plan) && p.num_tokens > 0) {
    const LinearWorkspace& w = p.workspace;
    if (w.x_image == nullptr || w.max_tokens < p.num_tokens || w.max_in < p.shape.in) {
      return fmt::format("num_tokens = {} and shape.in = {}, need at most workspace's {} and {}",
                         p.num_tokens, p.shape.in, w.max_tokens, w.max_in);
    }
  }
  return "";
}

void launch_linear(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream) {
  if (auto why = why_unsupported(p, plan); !why.empty()) throw InternalError("linear: " + why);
  if (p.num_tokens == 0) return;
  if (shrinks_apart(p, plan)) internal::enqueue_linear_large_shrink(p, plan, stream);
  if (quantizes_apart(p.shape, plan)) internal::enqueue_quantize_x(p, plan, stream);
  if (plan.large_batch) {
    internal::enqueue_linear_large(p, stream);
  } else if (p.shape.format == WeightFormat::kBf16) {
    internal::enqueue_linear_bf16(p, plan, stream);
  } else {
    internal::enqueue_linear_fp8(p, plan, stream);
  }
}

}  // namespace braid::kernels
