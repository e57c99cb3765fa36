#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "device/device.h"
#include "kernels/linear/linear_bf16.h"
#include "tests/kernels/random_weights.h"

namespace braid::test {

struct LinearCase {
  kernels::LinearShape shape;
  int32_t num_tokens = 1;
  bool float_out = false;
  // Of each slot the ranks on each slice; empty: no adapters.
  std::vector<std::vector<int32_t>> ranks = {};
  float base_share = 0.25f;  // of tokens without adapter
  float weight_size = 1.0f;  // 0 leaves the delta alone
};

// One linear layer with random contents, on the host and on the device. What no kernel may use is
// NaN: x past its columns. Outputs lie between columns that nothing may write.
class LinearProblem {
 public:
  LinearProblem(const LinearCase& test, uint32_t seed);

  // Every plan that can run this layer.
  std::vector<kernels::LinearPlan> plans() const;
  kernels::LinearBf16Params params(bool with_lora = true) const;

  // Poisons outputs and workspace, runs, and returns y, [T, out]. Throws if anything was written
  // outside of it.
  std::vector<float> run(const kernels::LinearPlan& plan, bool with_lora = true);
  void poison();
  std::vector<float> download_y() const;

  // Empty, or how y differs from sums in double by more than its arithmetic allows. Every
  // token_step-th token is checked.
  std::string why_wrong(const std::vector<float>& y, bool with_lora = true,
                        int32_t token_step = 1) const;
  // ||y - want|| / ||want||.
  double error(const std::vector<float>& y) const;

  // Drops all tokens but t.
  void keep_token(int32_t t);
  // After x has changed; after slots have.
  void upload();
  void write_order();

  LinearCase test;
  std::vector<Bf16> x;         // [T, in]
  std::vector<int32_t> slots;  // [T]

 private:
  struct Wanted {
    std::vector<double> value, tolerance;
  };
  Wanted wanted(int32_t token, bool with_lora) const;
  int32_t x_stride() const { return test.shape.in + 24; }
  int32_t y_stride() const { return (test.shape.out() + 15) / 8 * 8; }

  std::vector<RandomMatrix> weights_;           // [slices]
  std::vector<std::vector<RandomLora>> loras_;  // [slots][slices]
  DeviceBuffer x_, weights_device_, y_, adapters_, order_, workspace_bytes_;
  std::vector<DeviceBuffer> adapter_bytes_;
  kernels::LinearWorkspace workspace_;
};

}  // namespace braid::test
