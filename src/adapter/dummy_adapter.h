#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "adapter/adapter.h"
#include "checkpoint/model_config.h"

namespace braid {

// An adapter with random factors of one rank on every module an adapter can sit on but the
// embedding and lm_head: attention projections, routers, dense MLPs, and every expert of every
// layer. Equal on every machine for the same seed. Deltas are about a tenth of the base's
// activations, so that a model with dummy weights stays finite. For benchmarks and tests.
std::shared_ptr<const Adapter> make_dummy_adapter(const ModelConfig& config, std::string name,
                                                  int32_t rank, uint64_t seed);

}  // namespace braid
