#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "adapter/adapter.h"
#include "checkpoint/model_config.h"
#include "checkpoint/weight_source.h"

namespace braid::test {

// The second opinion on src/model: a decoder written down as directly as its formulas read. Double
// loops over dequantised weights, one whole sequence at a time, no cache, no batch, adapters merged
// into the weights. It shares no code with the model but the reading of weights.
class PlainModel {
 public:
  PlainModel(const ModelConfig& config, WeightSource& source);

  // The model with w + scaling B A in place of every weight w that the adapter sits on.
  PlainModel merged(const Adapter& adapter) const;

  struct Output {
    std::vector<double> logits;  // [n, vocab_size]
    // The smallest difference between the last expert taken and the first one not, over tokens and
    // layers: an implementation whose errors are smaller must route alike.
    double routing_margin = 1.0;
  };
  Output run(std::span<const int32_t> token_ids) const;

 private:
  using Key = std::tuple<WeightRole, int32_t, int32_t>;  // role, layer, expert
  struct Matrix {
    int32_t rows = 0;
    int32_t cols = 0;  // 0: a vector
    std::vector<double> values;
  };
  using Row = std::vector<double>;

  const Matrix& weight(WeightRole role, int32_t layer = -1, int32_t expert = -1) const;
  Row times(const Matrix& w, const Row& x) const;
  Row norm(const Matrix& w, const Row& x) const;
  Row swiglu(const Matrix& gate, const Matrix& up, const Matrix& down, const Row& x) const;
  std::vector<Row> attention(int32_t layer, const std::vector<Row>& x) const;
  Row mixture(int32_t layer, const Row& x, double& margin) const;
  void rotate(Row& x, int64_t position) const;
  void norm_heads(const Matrix& w, Row& x) const;

  ModelConfig config_;
  std::map<Key, Matrix> weights_;
};

}  // namespace braid::test
