#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "tensor/tensor_view.h"

namespace braid::test {

// A new empty folder, removed with everything in it when the object goes.
class TemporaryFolder {
 public:
  TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();

  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& file, std::string_view bytes) const;

  // The message with this folder's path written DIR.
  std::string without_path(std::string message) const;

 private:
  std::filesystem::path path_;
};

// A safetensors file of this header text (size in front of it) and data.
std::string safetensors_bytes(std::string_view header, std::string_view data);

struct TensorData {
  Dtype dtype = Dtype::kBf16;
  Shape shape;
  std::string bytes;
};

// Values that BF16 holds exactly, different from element to element, from `name`.
TensorData bf16_tensor(const std::string& name, const Shape& shape);
TensorData f32_tensor(const Shape& shape, const std::vector<float>& values);
TensorData filled(Dtype dtype, const Shape& shape, uint8_t byte);

// A checkpoint in memory, to be damaged and written.
struct TestCheckpoint {
  Json config;
  std::map<std::string, TensorData> tensors;
  size_t data_offset_in_file = 0;  // pads the header so that data begins at this offset modulo 8

  void write(const TemporaryFolder& folder) const;
};

// hidden 32, 1 layer, 2 heads on 1 kv head of 16, 2 experts of width 16, top-1, vocabulary 8.
TestCheckpoint tiny_mixtral();
// The same as Qwen3-MoE with 2 layers, the first dense with width 48.
TestCheckpoint tiny_qwen3();

// Puts the experts of a layer of these, named from + "0." + names[i], into the 3-D tensors of
// transformers 5: to + "gate_up_proj" and "down_proj".
TestCheckpoint fused_experts(const TestCheckpoint& checkpoint, const std::string& from,
                             const std::array<std::string, 3>& names, const std::string& to);

}  // namespace braid::test
