#include "tests/adapter/adapter_builder.h"

#include <stdlib.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>

#include "base/bf16.h"
#include "base/check.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"

namespace braid::test {
namespace {

// For values that binary16 holds as a normal number, zero, infinity or NaN: all that tests need.
uint16_t to_f16(float value) {
  if (std::isnan(value)) return 0x7e00;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isinf(value)) return sign | 0x7c00;
  if (value == 0) return sign;
  const auto bits = std::bit_cast<uint32_t>(value);
  const int exponent = static_cast<int>((bits >> 23) & 0xff) - 127;
  BRAID_CHECK(exponent >= -14 && exponent <= 15 && (bits & 0x1fff) == 0);
  return static_cast<uint16_t>(sign | ((exponent + 15) << 10) | ((bits >> 13) & 0x3ff));
}

std::vector<std::byte> encode(const std::vector<float>& values, Dtype dtype) {
  std::vector<std::byte> bytes(values.size() * size_of(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = dtype == Dtype::kF16 ? to_f16(values[i]) : to_bf16(values[i]).bits;
    if (dtype == Dtype::kF32) {
      std::memcpy(&bytes[i * 4], &values[i], 4);
    } else if (size_of(dtype) == 2) {
      std::memcpy(&bytes[i * 2], &half, 2);
    }
  }
  return bytes;
}

}  // namespace

ModelConfig tiny_model() {
  ModelConfig config;
  config.architecture = Architecture::kQwen3Moe;
  config.hidden_size = 8;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 3;
  config.num_key_value_heads = 1;
  config.head_dim = 4;
  config.intermediate_size = 10;
  config.moe_intermediate_size = 6;
  config.num_experts = 4;
  config.top_k = 2;
  config.is_moe_layer = {true, false};
  config.vocab_size = 16;
  config.max_position_embeddings = 64;
  return config;
}

TempFolder::TempFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "braid-adapter-XXXXXX").string();
  BRAID_CHECK(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<float> some_values(int64_t count, uint64_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;
  for (float& value : values) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    const auto step = static_cast<int>((state >> 33) % 127) - 63;  // 6 bits and a sign
    value = static_cast<float>(step == 0 ? 64 : step) / 32;
  }
  return values;
}

AdapterBuilder::AdapterBuilder() : config({{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 4}}) {}

AdapterBuilder& AdapterBuilder::add(const std::string& name, Shape shape, std::vector<float> values,
                                    Dtype dtype) {
  BRAID_CHECK_EQ(static_cast<int64_t>(values.size()), num_elements(shape));
  tensors[name] = {std::move(shape), dtype, encode(values, dtype)};
  return *this;
}

AdapterBuilder& AdapterBuilder::add(const std::string& name, Shape shape, Dtype dtype) {
  const int64_t count = num_elements(shape);
  return add(name, std::move(shape), some_values(count, std::hash<std::string>()(name)), dtype);
}

AdapterBuilder& AdapterBuilder::add_pair(const std::string& module, int64_t in, int64_t out,
                                         int64_t rank) {
  add(module + ".lora_A.weight", {rank, in});
  return add(module + ".lora_B.weight", {out, rank});
}

void AdapterBuilder::write(const std::filesystem::path& folder) const {
  BRAID_CHECK(write_file(folder / "adapter_config.json", config.dump()).has_value());
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, tensor] : tensors) {
    entries.push_back({.name = name, .dtype = tensor.dtype, .shape = tensor.shape, .bytes = [&] {
                         return Result<std::vector<std::byte>>(tensor.bytes);
                       }});
  }
  const auto ok = write_safetensors(folder / "adapter_model.safetensors", entries);
  BRAID_CHECK(ok.has_value());
}

}  // namespace braid::test
