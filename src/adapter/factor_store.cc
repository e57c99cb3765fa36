#include "adapter/factor_store.h"

#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <span>
#include <thread>
#include <utility>

#include "base/check.h"

namespace braid {
namespace {

float load(Dtype dtype, const std::byte* bytes, int64_t element) {
  if (dtype == Dtype::kF32) {
    float value;
    std::memcpy(&value, bytes + element * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes + element * 2, 2);
  return dtype == Dtype::kBf16 ? to_float(Bf16{bits}) : from_f16(bits);
}

// Copies the view into out [rows, cols]; the first element that does not become a finite BF16, or
// -1. kDtype is fixed per call so that the inner loop has no branch on it.
template <Dtype kDtype>
int64_t copy_view(const FactorView& view, Bf16* out) {
  const std::byte* bytes = view.tensor->bytes.data();
  // The stride that is shorter in the file runs inside.
  const bool by_column = view.col_stride > view.row_stride;
  const int64_t num_outer = by_column ? view.cols : view.rows;
  const int64_t num_inner = by_column ? view.rows : view.cols;
  const int64_t outer_stride = by_column ? view.col_stride : view.row_stride;
  const int64_t inner_stride = by_column ? view.row_stride : view.col_stride;
  const int64_t out_outer = by_column ? 1 : view.cols, out_inner = by_column ? view.cols : 1;
  for (int64_t i = 0; i < num_outer; ++i) {
    const int64_t start = view.offset + i * outer_stride;
    bool finite = true;
    for (int64_t j = 0; j < num_inner; ++j) {
      const Bf16 value = to_bf16(load(kDtype, bytes, start + j * inner_stride));
      finite &= (value.bits & 0x7f80u) != 0x7f80u;
      out[i * out_outer + j * out_inner] = value;
    }
    if (finite) continue;
    for (int64_t j = 0; j < num_inner; ++j) {
      if ((out[i * out_outer + j * out_inner].bits & 0x7f80u) == 0x7f80u) {
        return start + j * inner_stride;
      }
    }
  }
  return -1;
}

int64_t copy_any(const FactorView& view, Bf16* out) {
  switch (view.tensor->dtype) {
    case Dtype::kF32:
      return copy_view<Dtype::kF32>(view, out);
    case Dtype::kF16:
      return copy_view<Dtype::kF16>(view, out);
    case Dtype::kBf16:
      return copy_view<Dtype::kBf16>(view, out);
    default:
      BRAID_UNREACHABLE(static_cast<int>(view.tensor->dtype));
  }
}

// "[3, 17]" of a flat element.
std::string place(const Shape& shape, int64_t element) {
  Shape at(shape.size());
  for (size_t i = shape.size(); i-- > 0;) {
    at[i] = element % shape[i];
    element /= shape[i];
  }
  return to_string(at);
}

Error bad_element(const FactorView& view, int64_t element) {
  const float value = load(view.tensor->dtype, view.tensor->bytes.data(), element);
  const std::string where = place(view.tensor->shape, element);
  if (!std::isfinite(value)) {
    return {ErrorCode::kCorrupt,
            fmt::format("tensor {} holds {} at {}, need finite values; the training run diverged "
                        "or the file is damaged",
                        *view.name, value, where)};
  }
  return {ErrorCode::kCorrupt, fmt::format("tensor {} holds {} at {}, which is beyond the range of "
                                           "BF16",
                                           *view.name, value, where)};
}

AdapterHash hash_of(const FactorView& view, std::span<const Bf16> values) {
  const uint64_t seed = (static_cast<uint64_t>(static_cast<uint32_t>(view.rows)) << 32) |
                        static_cast<uint32_t>(view.cols);
  const XXH128_hash_t h = XXH3_128bits_withSeed(values.data(), values.size_bytes(), seed);
  return {h.high64, h.low64};
}

}  // namespace

int32_t FactorStore::add(const FactorView& view) {
  const auto [it, is_new] = id_of_view_.emplace(view, num_views());
  if (is_new) views_.push_back(view);
  return it->second;
}

Status FactorStore::convert() {
  factors_.assign(views_.size(), {});
  std::multimap<AdapterHash, std::span<const Bf16>> known;
  std::mutex mutex;  // over known, storage_, bad_id, bad and failure
  size_t bad_id = views_.size();
  Error bad;
  std::exception_ptr failure;
  std::atomic<size_t> next{0};

  const auto convert_one = [&](size_t id, std::vector<Bf16>& values) {
    const FactorView& view = views_[id];
    values.resize(static_cast<size_t>(view.rows) * static_cast<size_t>(view.cols));
    const int64_t wrong = copy_any(view, values.data());
    if (wrong >= 0) {
      Error error = bad_element(view, wrong);
      const std::lock_guard lock(mutex);
      if (id < bad_id) bad_id = id, bad = std::move(error);
      return;
    }
    Factor& factor = factors_[id];
    factor.hash = hash_of(view, values);
    factor.all_zero = std::ranges::all_of(values, [](Bf16 v) { return (v.bits & 0x7fffu) == 0; });
    const std::lock_guard lock(mutex);
    const auto [first, last] = known.equal_range(factor.hash);
    for (auto it = first; it != last; ++it) {
      if (!std::ranges::equal(it->second, values)) continue;
      factor.data = it->second.data();
      return;
    }
    const std::span<Bf16> stored = storage_->allocate(values.size());
    std::ranges::copy(values, stored.begin());
    factor.data = stored.data();
    known.emplace(factor.hash, stored);
  };
  const auto work = [&] {
    try {
      std::vector<Bf16> values;
      for (size_t id = next++; id < views_.size(); id = next++) convert_one(id, values);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
      next = views_.size();
    }
  };
  // A handful of factors is not worth a thread.
  const size_t wanted = std::min<size_t>(std::thread::hardware_concurrency(), views_.size() / 64);
  std::vector<std::jthread> threads;
  for (size_t i = 1; i < std::min<size_t>(wanted, 8); ++i) threads.emplace_back(work);
  work();
  threads.clear();

  if (failure) std::rethrow_exception(failure);
  if (bad_id < views_.size()) return tl::unexpected<Error>(std::move(bad));
  for (const auto& [hash, values] : known) bytes_ += values.size_bytes();
  num_distinct_ = static_cast<int32_t>(known.size());
  return {};
}

}  // namespace braid
