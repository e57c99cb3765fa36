#include "adapter/dummy_adapter.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/check.h"

namespace braid {
namespace {

// Source: SplitMix64, Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
// 2014.
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

class Builder {
 public:
  Builder(Adapter& adapter, int32_t rank, uint64_t seed)
      : adapter_(adapter), rank_(rank), random_(seed) {
    adapter.storage.push_back(memory_);
  }

  // x A^T keeps the size of x, and B then makes a tenth of it.
  LoraPair pair(int32_t rows, int32_t cols) {
    return {.a = factor(rank_, cols, std::sqrt(3.0f / static_cast<float>(cols))),
            .b_t = factor(rank_, rows, 0.1f * std::sqrt(3.0f / static_cast<float>(rank_))),
            .rank = rank_,
            .scaling = 1.0f};
  }

 private:
  // Uniform in [-limit, limit], [rows, cols].
  const Bf16* factor(int32_t rows, int32_t cols, float limit) {
    const auto values = memory_->allocate(static_cast<size_t>(rows) * static_cast<size_t>(cols));
    for (Bf16& value : values) {
      const auto bits = static_cast<int32_t>(random_.next() >> 40);  // 24 bits
      value = to_bf16(limit * (static_cast<float>(bits) * 0x1p-23f - 1.0f));
    }
    adapter_.bytes += values.size_bytes();
    return values.data();
  }

  Adapter& adapter_;
  std::shared_ptr<FactorMemory> memory_ = std::make_shared<FactorMemory>();
  int32_t rank_;
  SplitMix64 random_;
};

}  // namespace

std::shared_ptr<const Adapter> make_dummy_adapter(const ModelConfig& config, std::string name,
                                                  int32_t rank, uint64_t seed) {
  BRAID_CHECK_GE(rank, 1);
  auto adapter = std::make_shared<Adapter>();
  adapter->name = std::move(name);
  adapter->max_rank = rank;
  // Content follows from these three numbers, so they identify it.
  adapter->hash = {.high = 0xd0d0d0d0d0d0d0d0ull ^ static_cast<uint64_t>(rank), .low = seed};
  adapter->layers.resize(static_cast<size_t>(config.num_hidden_layers));

  Builder build(*adapter, rank, seed);
  const int32_t hidden = config.hidden_size;
  for (size_t i = 0; i < adapter->layers.size(); ++i) {
    LayerLora& layer = adapter->layers[i];
    const auto set = [&](LoraTarget target, int32_t rows, int32_t cols) {
      layer.linear[static_cast<size_t>(target)] = build.pair(rows, cols);
    };
    set(LoraTarget::kQProj, config.q_size(), hidden);
    set(LoraTarget::kKProj, config.kv_size(), hidden);
    set(LoraTarget::kVProj, config.kv_size(), hidden);
    set(LoraTarget::kOProj, hidden, config.q_size());
    if (config.is_moe_layer[i]) {
      set(LoraTarget::kRouter, config.num_experts, hidden);
      layer.experts.resize(static_cast<size_t>(config.num_experts));
      for (ExpertLora& expert : layer.experts) {
        expert.gate = build.pair(config.moe_intermediate_size, hidden);
        expert.up = build.pair(config.moe_intermediate_size, hidden);
        expert.down = build.pair(hidden, config.moe_intermediate_size);
      }
    } else {
      set(LoraTarget::kGateProj, config.intermediate_size, hidden);
      set(LoraTarget::kUpProj, config.intermediate_size, hidden);
      set(LoraTarget::kDownProj, hidden, config.intermediate_size);
    }
  }
  return adapter;
}

}  // namespace braid
