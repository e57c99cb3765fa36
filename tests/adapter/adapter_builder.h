#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/model_config.h"
#include "tensor/tensor_view.h"

namespace braid::test {

// A model small enough to write shapes by hand: H 8, q 12, kv 4, vocab 16; layer 0 has 4 experts of
// 6, layer 1 is a dense MLP of 10.
ModelConfig tiny_model();

// A folder that is deleted with the object.
class TempFolder {
 public:
  TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// rows * cols values that BF16 holds exactly, never zero, different for each seed.
std::vector<float> some_values(int64_t count, uint64_t seed);

// An adapter folder in the making: {"peft_type": "LORA", "r": 2, "lora_alpha": 4} and no tensors.
struct AdapterBuilder {
  AdapterBuilder();

  // Values are rounded to the dtype. Without values: some_values of a seed from the name.
  AdapterBuilder& add(const std::string& name, Shape shape, std::vector<float> values,
                      Dtype dtype = Dtype::kBf16);
  AdapterBuilder& add(const std::string& name, Shape shape, Dtype dtype = Dtype::kBf16);
  // NAME.lora_A.weight [rank, in] and NAME.lora_B.weight [out, rank]
  AdapterBuilder& add_pair(const std::string& module, int64_t in, int64_t out, int64_t rank = 2);

  void write(const std::filesystem::path& folder) const;

  struct Tensor {
    Shape shape;
    Dtype dtype;
    std::vector<std::byte> bytes;
  };
  Json config;
  std::map<std::string, Tensor> tensors;
};

}  // namespace braid::test
