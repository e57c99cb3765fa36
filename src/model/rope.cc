#include "model/rope.h"

#include <cmath>

namespace braid {

std::vector<float> rope_inv_freq(const ModelConfig& config) {
  std::vector<float> inv_freq;
  const int32_t half = config.head_dim / 2;
  for (int32_t i = 0; i < half; ++i) {
    inv_freq.push_back(
        static_cast<float>(std::pow(config.rope_theta, -static_cast<double>(i) / half)));
  }
  return inv_freq;
}

}  // namespace braid
