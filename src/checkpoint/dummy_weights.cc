#include <xxhash.h>

#include <algorithm>
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
  static constexpr size_t kBlock = 512;

  explicit Words(uint64_t key) : state_(key) {}

  // The next kBlock words. Whole blocks, because converting them is then a loop that vectorises.
  const std::array<uint64_t, kBlock>& next_block() {
    uint64_t state = state_;
    for (uint64_t& word : block_) {
      uint64_t z = (state += 0x9e3779b97f4a7c15u);
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
      word = z ^ (z >> 31);
    }
    state_ = state;
    return block_;
  }

 private:
  uint64_t state_;
  std::array<uint64_t, kBlock> block_;
};

// Calls put(out + i, bytes, count) for runs of n random bytes.
template <class Put>
void for_bytes(Words& words, uint8_t* out, size_t n, Put put) {
  for (size_t i = 0; i < n; i += Words::kBlock * 8) {
    std::array<uint8_t, Words::kBlock * 8> bytes;
    std::memcpy(bytes.data(), words.next_block().data(), bytes.size());
    put(out + i, bytes.data(), std::min(bytes.size(), n - i));
  }
}

// out[i] = convert(u) for n values u uniform in [-1, 1), 16 random bits each.
template <class T, class Convert>
void for_uniform(Words& words, T* out, size_t n, Convert convert) {
  for (size_t i = 0; i < n; i += Words::kBlock * 4) {
    std::array<int16_t, Words::kBlock * 4> halves;
    std::memcpy(halves.data(), words.next_block().data(), sizeof(halves));
    const size_t count = std::min(halves.size(), n - i);
    for (size_t j = 0; j < count; ++j) {
      out[i + j] = convert(static_cast<float>(halves[j]) * 0x1p-15f);
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
    // BF16, as checkpoints have them.
    for_uniform(words, values.data(), values.size(),
                [](float u) { return to_float(to_bf16(1.0f + 0.25f * u)); });
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
    for_uniform(words, values, n, [&](float u) { return convert(u * scale); });
    weight.matrix.data = values;
  }

  static void fill_fp8(Words& words, float deviation, Weight& weight) {
    const size_t n = num_elements_of(weight);
    auto* codes = reinterpret_cast<uint8_t*>(allocate(weight, n));
    const auto table = make_uniform_e4m3();
    for_bytes(words, codes, n, [&](uint8_t* out, const uint8_t* bytes, size_t count) {
      for (size_t i = 0; i < count; ++i) out[i] = table[bytes[i]];
    });
    const size_t blocks = static_cast<size_t>((weight.matrix.rows + 127) / 128) *
                          static_cast<size_t>((weight.matrix.cols + 127) / 128);
    auto* scales = reinterpret_cast<float*>(allocate(weight, blocks * sizeof(float)));
    // Block scales vary by a quarter, which makes their mean square 49 / 48.
    const float scale = deviation / (root_mean_square(table) * std::sqrt(49.0f / 48.0f));
    for_uniform(words, scales, blocks, [&](float u) { return scale * (1.0f + 0.25f * u); });
    weight.matrix.data = codes;
    weight.matrix.block_scale = scales;
  }

  static void fill_nvfp4(Words& words, float deviation, Weight& weight) {
    const size_t n = num_elements_of(weight);
    auto* pairs = reinterpret_cast<uint8_t*>(allocate(weight, n / 2));
    for_bytes(words, pairs, n / 2, [](uint8_t* out, const uint8_t* bytes, size_t count) {
      std::memcpy(out, bytes, count);
    });
    // Codes 0x70 to 0x77 are 128, 144, ... 240.
    auto* scales = reinterpret_cast<uint8_t*>(allocate(weight, n / 16));
    for_bytes(words, scales, n / 16, [](uint8_t* out, const uint8_t* bytes, size_t count) {
      for (size_t i = 0; i < count; ++i) out[i] = static_cast<uint8_t>(0x70 | (bytes[i] & 7));
    });
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
