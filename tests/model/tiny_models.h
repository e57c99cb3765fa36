#pragma once

#include <memory>
#include <string>
#include <vector>

#include "adapter/adapter.h"
#include "checkpoint/model_config.h"
#include "checkpoint/weight_source.h"

namespace braid::test {

// Two layers, five experts top-2, sizes that are ragged for 128x128 scale blocks; head_dim times
// heads differs from hidden_size.
ModelConfig tiny_mixtral();

// Four layers, dense ones among them; seven experts top-3 without renormalisation; q/k norms; tied
// embeddings.
ModelConfig tiny_qwen3_moe();

// The adapter of make_dummy_adapter with factors on lm_head and on the embedding as well.
std::shared_ptr<const Adapter> make_full_adapter(const ModelConfig& config, int32_t rank,
                                                 uint64_t seed);

// An adapter on single modules: o_proj of the last layer and every second expert of the first
// mixture, whose down has another rank than gate and up; in some experts only one matrix.
std::shared_ptr<const Adapter> make_sparse_adapter(const ModelConfig& config, uint64_t seed);

// A source that hands on another's weights, but fails on the module `broken`.
class BrokenSource : public WeightSource {
 public:
  BrokenSource(std::unique_ptr<WeightSource> source, std::string broken)
      : source_(std::move(source)), broken_(std::move(broken)) {}
  Result<Weight> matrix(const WeightSpec& spec) override;
  Result<std::vector<float>> vector(const WeightSpec& spec) override;

 private:
  std::unique_ptr<WeightSource> source_;
  std::string broken_;
};

}  // namespace braid::test
