#pragma once

#include <memory>
#include <vector>

#include "adapter/adapter.h"
#include "checkpoint/model_config.h"

namespace braid::test {

// Models small enough for plain loops, with all that the device has to be right about.

// Experts of both are FP8 by their quant_method.
//
// Sizes that the device pads, six heads on two, all layers mixtures.
ModelConfig padded_mixtral();

// Head norms, dense layers between mixtures, tied embeddings.
ModelConfig mixed_qwen3_moe();

// Adapters that differ in what they sit on and how: every module at ranks 1, 8, 20 and 64; gate and
// up with one A; factors that experts share; attention alone; experts alone; head and embedding
// alone; single modules of several ranks. What they add is a good part of what it is added to, with
// another scaling for each module.
std::vector<std::shared_ptr<const Adapter>> adapters_of_all_kinds(const ModelConfig& config);
inline constexpr int kMaxTestRank = 64;

}  // namespace braid::test
