#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "adapter/adapter.h"
#include "base/result.h"
#include "tensor/tensor_view.h"

namespace braid {

// A matrix inside a tensor: element (i, j) is the tensor's element offset + i * row_stride +
// j * col_stride. Every layout of LoRA factors is such a view, transposes included.
struct FactorView {
  const TensorView* tensor = nullptr;  // F32, F16 or BF16; not owned
  const std::string* name = nullptr;   // of the tensor, for messages; not owned
  int64_t offset = 0;                  // elements
  int64_t row_stride = 0;              // elements
  int64_t col_stride = 1;              // elements
  int32_t rows = 0;
  int32_t cols = 0;

  friend auto operator<=>(const FactorView&, const FactorView&) = default;
};

// Factors as contiguous BF16, each distinct content once. Rounding is to nearest even.
class FactorStore {
 public:
  struct Factor {
    const Bf16* data = nullptr;  // [rows, cols], in storage()
    AdapterHash hash;            // of rows, cols and the BF16 values
    bool all_zero = false;
  };

  // Asks for a factor; equal views get equal ids. The tensor must outlive convert().
  int32_t add(const FactorView& view);

  // Converts everything that was asked for, on a few threads.
  //
  // Errors  kCorrupt  NaN, infinity, or a value that BF16 cannot hold, with tensor and place
  Status convert();

  // After convert().
  const Factor& factor(int32_t id) const { return factors_[static_cast<size_t>(id)]; }
  std::shared_ptr<const FactorMemory> storage() const { return storage_; }
  size_t bytes() const { return bytes_; }
  int32_t num_views() const { return static_cast<int32_t>(views_.size()); }
  int32_t num_distinct() const { return num_distinct_; }

 private:
  std::vector<FactorView> views_;
  std::map<FactorView, int32_t> id_of_view_;
  std::vector<Factor> factors_;
  std::shared_ptr<FactorMemory> storage_ = std::make_shared<FactorMemory>();
  size_t bytes_ = 0;
  int32_t num_distinct_ = 0;
};

}  // namespace braid
