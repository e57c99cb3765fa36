#include "model/model.h"

#include <utility>

#include "base/check.h"
#include "model/layer_weights.h"
#include "model/mixtral.h"
#include "model/qwen3_moe.h"

namespace braid {

Result<std::unique_ptr<Model>> Model::load(const ModelConfig& config, WeightSource& source,
                                           const Progress& progress) {
  auto weights = load_decoder_weights(config, source, progress);
  if (!weights) return pass_on(weights);
  switch (config.architecture) {
    case Architecture::kMixtral:
      return make_mixtral(config, std::move(*weights));
    case Architecture::kQwen3Moe:
      return make_qwen3_moe(config, std::move(*weights));
  }
  BRAID_UNREACHABLE(static_cast<int>(config.architecture));
}

}  // namespace braid
