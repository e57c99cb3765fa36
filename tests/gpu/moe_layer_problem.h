#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "device/device.h"
#include "kernels/moe_gemm/moe_layer.h"
#include "tests/kernels/random_weights.h"

namespace braid::test {

enum class LoraLayout {
  kPerExpert,
  kSharedOuter,  // A of gate and up, and B of down, are the same for all experts
  kOneA,         // gate and up have one A
};

// Of weights and x. Those that are no normal numbers are for BF16 and NVFP4 and one expert a token;
// gate's sums are so large that silu is the identity, and why_wrong() asks for equal bits.
enum class LayerContents {
  kNormal,
  kIntegers,     // sums of gate and up are exact
  kUnitVectors,  // x has one element that is not zero: so are those of down
};

struct LayerShape {
  int32_t num_tokens = 1;
  kernels::MoeSizes sizes = {.hidden_size = 256,
                             .moe_intermediate_size = 128,
                             .num_experts = 8,
                             .num_shared_experts = 0,
                             .top_k = 2};
  std::vector<int32_t> ranks = {};          // one a slot; empty: no adapters
  std::vector<LoraLayout> layouts = {};     // by slot, repeated; empty: per expert
  float base_share = 0.25f;                 // of tokens without adapter
  float weight_size = 1.0f;                 // scale of the base weights; 0 leaves the delta alone
  std::optional<int32_t> only_expert = {};  // every token's first choice
  LayerContents contents = LayerContents::kNormal;
};

// One MoE layer with random contents, on the host and on the device. What is public may be changed
// before upload(); topk_ids, weights and stages are read back from the device.
class LayerProblem {
 public:
  LayerProblem(const LayerShape& shape, uint32_t seed);
  LayerProblem(LayerProblem&&) = default;

  // Runs the layer with outputs and workspace poisoned first. Returns y as floats, [T, H].
  std::vector<float> run(bool with_lora = true);
  // As many launches as wanted share what upload() put on the device.
  void upload();
  kernels::MoeLayerParams device_params(bool with_lora = true) const;
  kernels::MoePlan plan(bool with_lora = true) const;
  void poison();
  std::vector<Bf16> download_y() const;

  // Empty, or the first stage (router, h, y) that differs from the reference by more than its
  // arithmetic allows. After run().
  std::string why_wrong(bool with_lora = true) const;

  // Drops all tokens but t. Before upload().
  void keep_token(int32_t t);
  // Other x, logits and adapters of the tokens, on the host and on the device. After upload().
  void change_inputs(uint32_t seed);
  // ||y - want|| / ||want|| against the reference in double, from the h that the kernels quantised;
  // with weight_size 0 y is the delta alone. After run().
  double delta_error(const std::vector<float>& y) const;

  LayerShape shape;
  kernels::MoeLayerParams router;    // scoring, groups, norm_topk_prob, routed_scaling
  std::vector<Bf16> x;               // [T, H]
  std::vector<float> logits;         // [T, E]
  std::vector<float> bias;           // [E] or empty
  std::vector<float> shared_weight;  // [T] or empty
  std::vector<int32_t> replay_ids;   // [T, K] or empty
  std::vector<int32_t> slots;        // [T]
  int32_t tile_tokens = 0;           // 0: the plan's
  bool small_batch = false;          // even where the plan has a routing kernel
  kernels::MoeLoraPlan lora_plan = kernels::MoeLoraPlan::kFused;  // before upload()

 private:
  kernels::MoeLayerParams host_params() const;
  void draw_inputs(std::mt19937& random);
  // why_wrong(), and y as it should be.
  std::string compare(bool with_lora, std::vector<float>& want) const;

  std::vector<RandomMatrix> gate_, up_, down_;  // [experts]
  std::vector<std::vector<Bf16>> factors_;
  std::vector<std::vector<ExpertLora>> loras_;  // [slots][experts]
  DeviceBuffer x_, logits_, bias_, shared_weight_, replay_ids_, slots_, topk_ids_, y_;
  DeviceBuffer gate_up_weights_, down_weights_, adapters_, workspace_;
  std::vector<DeviceBuffer> adapter_bytes_;
  size_t workspace_bytes_ = 0;
};

}  // namespace braid::test
