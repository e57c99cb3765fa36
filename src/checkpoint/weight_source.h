#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/result.h"
#include "checkpoint/model_config.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/weight_table.h"
#include "quant/weight_matrix.h"

namespace braid {

// A weight matrix with whatever memory it stands in: the mapped file, own buffers, or both.
struct Weight {
  WeightMatrix matrix;
  std::vector<std::shared_ptr<const void>> owners;
};

// Where a model's weights come from. Formats are decided per matrix by the tensors that are there.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // A matrix of spec.rows x spec.cols. BF16 and F32 as stored, F16 widened to F32; FP8 with
  // `weight_scale_inv`; NVFP4 in the ModelOpt or compressed-tensors spelling. Bytes are used in
  // place where alignment allows.
  //
  // Errors  kNotFound (no such tensor)  kCorrupt (shape, dtype, scale missing, NaN or non-positive
  //         scale)  kUnsupported (a quantisation this build does not know)
  virtual Result<Weight> matrix(const WeightSpec& spec) = 0;

  // A vector of spec.rows floats (norms).
  virtual Result<std::vector<float>> vector(const WeightSpec& spec) = 0;
};

// Opens the tensors of a checkpoint folder. Names are normalised (`model.language_model.` and the
// other known prefixes); tensors of the file that no spec of the config names are refused, except
// those known to be skipped (rotary buffers, MTP layers, KV scales), so that nothing is dropped in
// silence. Also takes fused 3-D expert tensors (`mlp.experts.gate_up_proj` [E, 2I, H]) apart.
Result<std::unique_ptr<WeightSource>> open_checkpoint(const std::filesystem::path& folder,
                                                      const ModelConfig& config);

// Random weights of the given format for matrices that releases quantise (attention and MLP
// projections, experts) and BF16 for the rest, from the seed and the spec's name: equal on every
// machine. Scaled so that activations stay of order one through all layers.
std::unique_ptr<WeightSource> make_dummy_weights(const ModelConfig& config, WeightFormat format,
                                                 uint64_t seed);

}  // namespace braid
