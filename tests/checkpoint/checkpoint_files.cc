#include "tests/checkpoint/checkpoint_files.h"

#include <stdlib.h>

#include <cstring>
#include <fstream>
#include <stdexcept>

#include "base/bf16.h"
#include "base/json.h"
#include "checkpoint/model_config.h"
#include "checkpoint/weight_table.h"

namespace braid::test {

namespace fs = std::filesystem;

TemporaryFolder::TemporaryFolder() {
  std::string path = (fs::temp_directory_path() / "braid-test-XXXXXX").string();
  if (::mkdtemp(path.data()) == nullptr) throw std::runtime_error("cannot make " + path);
  path_ = path;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void TemporaryFolder::write(const std::string& file, std::string_view bytes) const {
  std::ofstream out(path_ / file, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!out) throw std::runtime_error("cannot write " + file);
}

std::string TemporaryFolder::without_path(std::string message) const {
  const std::string path = path_.string();
  for (size_t at = 0; (at = message.find(path, at)) != message.npos;) {
    message.replace(at, path.size(), "DIR");
  }
  return message;
}

std::string safetensors_bytes(std::string_view header, std::string_view data) {
  const uint64_t size = header.size();
  std::string out(sizeof(size), '\0');
  std::memcpy(out.data(), &size, sizeof(size));
  return out.append(header).append(data);
}

TensorData bf16_tensor(const std::string& name, const Shape& shape) {
  TensorData tensor{Dtype::kBf16, shape,
                    std::string(static_cast<size_t>(num_elements(shape)) * 2, 0)};
  uint32_t state = 2166136261u;
  for (const char c : name) state = (state ^ static_cast<unsigned char>(c)) * 16777619u;
  for (size_t i = 0; i < tensor.bytes.size(); i += 2) {
    state = state * 1664525u + 1013904223u;
    const Bf16 value = to_bf16(static_cast<float>(static_cast<int32_t>(state >> 24) - 128) / 64.0f);
    std::memcpy(tensor.bytes.data() + i, &value, 2);
  }
  return tensor;
}

TensorData f32_tensor(const Shape& shape, const std::vector<float>& values) {
  TensorData tensor{Dtype::kF32, shape, std::string(values.size() * 4, 0)};
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

TensorData filled(Dtype dtype, const Shape& shape, uint8_t byte) {
  return {dtype, shape,
          std::string(static_cast<size_t>(num_elements(shape)) * size_of(dtype),
                      static_cast<char>(byte))};
}

void TestCheckpoint::write(const TemporaryFolder& folder) const {
  folder.write("config.json", config.dump());
  Json header = Json::object();
  std::string data;
  for (const auto& [key, tensor] : tensors) {
    header[key] = {{"dtype", name(tensor.dtype)},
                   {"shape", tensor.shape},
                   {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  std::string text = header.dump();
  while (text.size() % 8 != data_offset_in_file % 8) text += ' ';
  folder.write("model.safetensors", safetensors_bytes(text, data));
}

namespace {

TestCheckpoint with_weights(Json config) {
  TestCheckpoint out{.config = std::move(config)};
  const auto parsed = parse_model_config(out.config, Json());
  if (!parsed) throw std::runtime_error(parsed.error().message);
  for (const WeightSpec& spec : weight_table(*parsed)) {
    const std::string tensor = spec.module + ".weight";
    out.tensors[tensor] =
        bf16_tensor(tensor, spec.cols > 0 ? Shape{spec.rows, spec.cols} : Shape{spec.rows});
  }
  return out;
}

}  // namespace

TestCheckpoint tiny_mixtral() {
  return with_weights({{"architectures", {"MixtralForCausalLM"}},
                       {"hidden_size", 32},
                       {"intermediate_size", 16},
                       {"num_hidden_layers", 1},
                       {"num_attention_heads", 2},
                       {"num_key_value_heads", 1},
                       {"num_local_experts", 2},
                       {"num_experts_per_tok", 1},
                       {"max_position_embeddings", 64},
                       {"vocab_size", 8}});
}

TestCheckpoint tiny_qwen3() {
  return with_weights({{"architectures", {"Qwen3MoeForCausalLM"}},
                       {"hidden_size", 32},
                       {"intermediate_size", 48},
                       {"moe_intermediate_size", 16},
                       {"num_hidden_layers", 2},
                       {"mlp_only_layers", {0}},
                       {"num_attention_heads", 2},
                       {"num_key_value_heads", 1},
                       {"num_experts", 2},
                       {"num_experts_per_tok", 1},
                       {"max_position_embeddings", 64},
                       {"vocab_size", 8}});
}

TestCheckpoint fused_experts(const TestCheckpoint& checkpoint, const std::string& from,
                             const std::array<std::string, 3>& names, const std::string& to) {
  TestCheckpoint out = checkpoint;
  TensorData gate_up{Dtype::kBf16, {2, 32, 32}, ""};
  TensorData down{Dtype::kBf16, {2, 32, 16}, ""};
  for (const char* expert : {"0.", "1."}) {
    for (size_t i = 0; i < 3; ++i) {
      const std::string name = from + expert + names[i] + ".weight";
      (i < 2 ? gate_up : down).bytes += out.tensors.at(name).bytes;
      out.tensors.erase(name);
    }
  }
  out.tensors[to + "gate_up_proj"] = gate_up;
  out.tensors[to + "down_proj"] = down;
  return out;
}

}  // namespace braid::test
