#include <xxhash.h>

#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "base/bf16.h"
#include "base/check.h"
#include "checkpoint/aligned_buffer.h"
#include "checkpoint/weight_source.h"
#include "quant/e4m3.h"

namespace braid {
namespace {

// Random 64-bit words by counter: word i is a mix of key + i * odd constant, so that any part can
// be made alone. Source: Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014.
class Words {
 public:
  explicit Words(uint64_t key) : state_(key) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

// Calls put(i, byte) for n random bytes.
template <class Put>
void for_bytes(Words& words, size_t n, Put put) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const uint64_t word = words.next();
    for (size_t j = 0; j < 8; ++j) put(i + j, static_cast<uint8_t>(word >> (8 * j)));
  }
  if (i == n) return;
  for (uint64_t word = words.next(); i < n; ++i, word >>= 8) put(i, static_cast<uint8_t>(word));
}

// Calls put(i, u) for n values u uniform in [-1, 1), 16 random bits each.
template <class Put>
void for_uniform(Words& words, size_t n, Put put) {
  for (size_t i = 0; i < n; i += 4) {
    uint64_t word = words.next();
    for (size_t j = i; j < n && j < i + 4; ++j, word >>= 16) {
      put(j, static_cast<float>(static_cast<int16_t>(word & 0xffff)) * 0x1p-15f);
    }
  }
}

// Byte -> e4m3 code of a value uniform in [-448, 448].
std::array<uint8_t, 256> make_uniform_e4m3() {
  std::array<uint8_t, 256> codes{};
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i] = to_e4m3((static_cast<float>(i) - 127.5f) / 127.5f * kE4m3Max);
  }
  return codes;
}

float root_mean_square(const std::array<uint8_t, 256>& codes) {
  float sum = 0;
  for (const uint8_t code : codes) sum += from_e4m3(code) * from_e4m3(code);
  return std::sqrt(sum / static_cast<float>(codes.size()));
}

class DummySource : public WeightSource {
 public:
  DummySource(const ModelConfig& config, WeightFormat format, uint64_t seed)
      : num_layers_(config.num_hidden_layers), format_(format), seed_(seed) {}

  Result<Weight> matrix(const WeightSpec& spec) override {
    Weight weight;
    weight.matrix.format = is_usually_quantised(spec.role) || format_ == WeightFormat::kF32
                               ? format_
                               : WeightFormat::kBf16;
    weight.matrix.rows = spec.rows;
    weight.matrix.cols = spec.cols;
    if (weight.matrix.format == WeightFormat::kNvfp4 && spec.cols % 16 != 0) {
      return fail(ErrorCode::kUnsupported,
                  "{}: NVFP4 needs a multiple of 16 columns, this config.json gives {}",
                  spec.module, spec.cols);
    }
    Words words = words_of(spec);
    const float deviation = deviation_of(spec);
    switch (weight.matrix.format) {
      case WeightFormat::kF32:
        fill_uniform<float>(words, deviation, weight, [](float x) { return x; });
        break;
      case WeightFormat::kBf16:
        fill_uniform<Bf16>(words, deviation, weight, to_bf16);
        break;
      case WeightFormat::kFp8Block128:
        fill_fp8(words, deviation, weight);
        break;
      case WeightFormat::kNvfp4:
        fill_nvfp4(words, deviation, weight);
        break;
    }
    return weight;
  }

  Result<std::vector<float>> vector(const WeightSpec& spec) override {
    std::vector<float> values(static_cast<size_t>(spec.rows));
    Words words = words_of(spec);
    for_uniform(words, values.size(), [&](size_t i, float u) { values[i] = 1.0f + 0.25f * u; });
    return values;
  }

 private:
  Words words_of(const WeightSpec& spec) const {
    return Words(XXH3_64bits_withSeed(spec.module.data(), spec.module.size(), seed_));
  }

  // Standard deviation: a product with a vector of order one is of order one, and the sums that
  // two blocks of every layer add to the residual stream together stay of order one.
  float deviation_of(const WeightSpec& spec) const {
    const float fan_in = 1.0f / std::sqrt(static_cast<float>(spec.cols));
    switch (spec.role) {
      case WeightRole::kEmbedding:
        return 1.0f;
      case WeightRole::kOProj:
      case WeightRole::kDownProj:
      case WeightRole::kExpertDownProj:
        return fan_in / std::sqrt(2.0f * static_cast<float>(num_layers_));
      default:
        return fan_in;
    }
  }

  static std::byte* allocate(Weight& weight, size_t bytes) {
    auto buffer = make_aligned_buffer(bytes);
    weight.owners.push_back(buffer);
    return buffer.get();
  }

  static size_t num_elements_of(const Weight& weight) {
    return static_cast<size_t>(weight.matrix.rows) * static_cast<size_t>(weight.matrix.cols);
  }

  // A uniform value in [-1, 1) has deviation 1 / sqrt(3).
  template <class T, class Convert>
  static void fill_uniform(Words& words, float deviation, Weight& weight, Convert convert) {
    const size_t n = num_elements_of(weight);
    auto* values = reinterpret_cast<T*>(allocate(weight, n * sizeof(T)));
    const float scale = deviation * std::sqrt(3.0f);
    for_uniform(words, n, [&](size_t i, float u) { values[i] = convert(u * scale); });
    weight.matrix.data = values;
  }

  static void fill_fp8(Words& words, float deviation, Weight& weight) {
    const size_t n = num_elements_of(weight);
    auto* codes = reinterpret_cast<uint8_t*>(allocate(weight, n));
    const auto table = make_uniform_e4m3();
    for_bytes(words, n, [&](size_t i, uint8_t byte) { codes[i] = table[byte]; });
    const size_t blocks = static_cast<size_t>((weight.matrix.rows + 127) / 128) *
                          static_cast<size_t>((weight.matrix.cols + 127) / 128);
    auto* scales = reinterpret_cast<float*>(allocate(weight, blocks * sizeof(float)));
    // Block scales vary by a quarter, which makes their mean square 49 / 48.
    const float scale = deviation / (root_mean_square(table) * std::sqrt(49.0f / 48.0f));
    for_uniform(words, blocks, [&](size_t i, float u) { scales[i] = scale * (1.0f + 0.25f * u); });
    weight.matrix.data = codes;
    weight.matrix.block_scale = scales;
  }

  static void fill_nvfp4(Words& words, float deviation, Weight& weight) {
    const size_t n = num_elements_of(weight);
    auto* pairs = reinterpret_cast<uint8_t*>(allocate(weight, n / 2));
    for_bytes(words, n / 2, [&](size_t i, uint8_t byte) { pairs[i] = byte; });
    // Codes 0x70 to 0x77 are 128, 144, ... 240.
    auto* scales = reinterpret_cast<uint8_t*>(allocate(weight, n / 16));
    for_bytes(words, n / 16,
              [&](size_t i, uint8_t byte) { scales[i] = static_cast<uint8_t>(0x70 | (byte & 7)); });
    // Mean squares: 8.5625 of the sixteen e2m1 values, 35200 of those eight scales.
    weight.matrix.data = pairs;
    weight.matrix.group_scale = scales;
    weight.matrix.global_scale = deviation / std::sqrt(8.5625f * 35200.0f);
  }

  int32_t num_layers_;
  WeightFormat format_;
  uint64_t seed_;
};

}  // namespace

std::unique_ptr<WeightSource> make_dummy_weights(const ModelConfig& config, WeightFormat format,
                                                 uint64_t seed) {
  return std::make_unique<DummySource>(config, format, seed);
}

}  // namespace braid
