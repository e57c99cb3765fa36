#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "adapter/factor_memory.h"
#include "kernels/lora/lora_pair.h"

namespace braid {

// The dense matrices of a layer an adapter can sit on. kGateProj..kDownProj: dense MLP layers.
enum class LoraTarget { kQProj, kKProj, kVProj, kOProj, kRouter, kGateProj, kUpProj, kDownProj };
inline constexpr int kNumLoraTargets = 8;

struct LayerLora {
  std::array<LoraPair, kNumLoraTargets> linear;  // by LoraTarget; rank 0: not adapted
  std::vector<ExpertLora> experts;               // [E], or empty when no expert is adapted
};

// 128-bit content hash: equal for adapters that compute the same (names, order of tensors and file
// layout do not matter), different otherwise. Keys the prefix cache.
struct AdapterHash {
  uint64_t high = 0;
  uint64_t low = 0;
  friend auto operator<=>(const AdapterHash&, const AdapterHash&) = default;
};

struct AdapterImage;  // adapter_image.h

// One LoRA fine-tune in host memory, in the form the kernels read: every factor contiguous in BF16
// at its own rank, equal factors stored once. Where AdapterPool::pack() has made it one for a
// device the image has the factors, and of the pairs only ranks and scaling are left, their
// pointers being null. Immutable after it is built; share freely between threads.
struct Adapter {
  std::string name;
  AdapterHash hash;
  std::vector<LayerLora> layers;  // [num_hidden_layers]
  LoraPair lm_head;
  EmbeddingLora embedding;
  int32_t max_rank = 0;
  size_t bytes = 0;  // of the factors, after de-duplication, or of the image

  std::vector<std::shared_ptr<const FactorMemory>> storage;  // what the pairs point into
  std::shared_ptr<const AdapterImage> image;                 // null: not made for a device
};

}  // namespace braid
