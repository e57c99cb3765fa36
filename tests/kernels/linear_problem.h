#pragma once

#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "base/ids.h"
#include "kernels/linear/linear.h"
#include "ops/ops.h"
#include "tests/kernels/random_weights.h"
#include "tests/support/close.h"

namespace braid::test {

struct LinearShape {
  WeightFormat format = WeightFormat::kF32;
  int32_t num_tokens = 1;
  int32_t rows = 1;
  int32_t cols = 1;
  std::vector<int32_t> ranks = {};  // one a slot; empty: no adapters
};

// A linear with random contents. Token t has adapter slot (t mod (slots + 1)) - 1: base tokens
// stand among adapted ones. Rows of x and y have a gap behind them, which must stay as it is.
class LinearProblem {
 public:
  LinearProblem(const LinearShape& shape, uint32_t seed)
      : shape_(shape), random_(seed), w_(random_, shape.format, shape.rows, shape.cols) {
    x_ = random_floats(random_, static_cast<size_t>(shape.num_tokens * x_stride()));
    loras_.reserve(shape.ranks.size());
    for (const int32_t rank : shape.ranks) {
      loras_.emplace_back(random_, rank, shape.cols, shape.rows, 0.7f);
      views_.push_back(loras_.back().view());
    }
    const auto num_slots = static_cast<int32_t>(shape.ranks.size());
    for (int32_t t = 0; t < shape.num_tokens; ++t) slots_.push_back(t % (num_slots + 1) - 1);
  }

  int64_t x_stride() const { return shape_.cols + 3; }
  int64_t y_stride() const { return shape_.rows + 5; }

  kernels::LinearParams params(std::vector<float>& y, bool with_lora = true) const {
    const bool lora = with_lora && !views_.empty();
    return {.x = x_.data(),
            .x_stride = x_stride(),
            .w = w_.view(),
            .y = y.data(),
            .y_stride = y_stride(),
            .num_tokens = shape_.num_tokens,
            .lora_of_slot = lora ? views_.data() : nullptr,
            .adapter_slot_of_token = lora ? slots_.data() : nullptr,
            .num_slots = lora ? static_cast<int32_t>(views_.size()) : 0};
  }

  // All of y, gaps included, NaN wherever nothing was written.
  std::vector<float> run(const ops::Context& context, bool with_lora = true) const {
    std::vector<float> y(static_cast<size_t>(shape_.num_tokens * y_stride()), kPoison);
    const kernels::LinearParams p = params(y, with_lora);
    ops::linear(context, std::span(&p, 1));
    return y;
  }

  // [T, rows] of what run() gave; the gaps are checked to be untouched.
  std::vector<float> dense(const std::vector<float>& y) const {
    std::vector<float> rows;
    for (int64_t t = 0; t < shape_.num_tokens; ++t) {
      const auto row = y.begin() + t * y_stride();
      rows.insert(rows.end(), row, row + shape_.rows);
      for (auto gap = row + shape_.rows; gap < row + y_stride(); ++gap) EXPECT_TRUE(*gap != *gap);
    }
    return rows;
  }

  // What the sum is, and how far float sums of it may be off: a sum of cols products and one of
  // rank products over sums of cols products, each weight decoded with up to three roundings.
  Sums want(bool with_lora = true) const {
    Sums all;
    for (int32_t t = 0; t < shape_.num_tokens; ++t) {
      const std::vector<double> x(x_.begin() + t * x_stride(),
                                  x_.begin() + t * x_stride() + shape_.cols);
      const int32_t slot = with_lora ? slots_[static_cast<size_t>(t)] : kNoAdapter;
      const LoraPair* lora = slot == kNoAdapter ? nullptr : &views_[static_cast<size_t>(slot)];
      const Sums row = times_with_lora(w_, lora, x.data());
      all.value.insert(all.value.end(), row.value.begin(), row.value.end());
      all.magnitude.insert(all.magnitude.end(), row.magnitude.begin(), row.magnitude.end());
    }
    return all;
  }
  std::vector<double> tolerance(const Sums& want) const {
    int32_t rank = 0;
    for (const LoraPair& lora : views_) rank = std::max(rank, lora.rank);
    std::vector<double> tolerance;
    for (const double m : want.magnitude)
      tolerance.push_back(fp32_gamma(shape_.cols + rank + 8) * m);
    return tolerance;
  }

  const LinearShape& shape() const { return shape_; }
  const std::vector<float>& x() const { return x_; }
  std::vector<int32_t>& slots() { return slots_; }

 private:
  static constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

  LinearShape shape_;
  std::mt19937 random_;
  RandomMatrix w_;
  std::vector<float> x_;
  std::vector<RandomLora> loras_;
  std::vector<LoraPair> views_;
  std::vector<int32_t> slots_;
};

}  // namespace braid::test
