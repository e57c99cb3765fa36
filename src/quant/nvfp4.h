#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "quant/weight_matrix.h"

namespace braid {

// A matrix in NVFP4: e2m1 pairs, an e4m3 scale for 16 columns, a float scale for the matrix.
struct Nvfp4Matrix {
  int32_t rows = 0;
  int32_t cols = 0;
  std::vector<uint8_t> data;         // [rows, cols / 2], low nibble = even column
  std::vector<uint8_t> group_scale;  // [rows, cols / 16] e4m3, positive
  float global_scale = 1.0f;

  // Valid while this object lives unchanged.
  WeightMatrix view() const;
};

// Largest magnitude of a matrix.
//
// Errors  kInvalidArgument  an element is NaN or infinite (its row and column are named)
Result<float> max_magnitude(const WeightMatrix& w);

// amax / (6 * 448), so that the group of the largest element has the largest group scale; 1 for a
// matrix of zeros. Matrices that engines fuse (gate and up, q, k and v) share one, from the largest
// of their amax.
float nvfp4_global_scale(float amax);

// Group scales are chosen for the smallest squared error among the e4m3 codes from two below
// amax / 6 to one above amax / 4 (the largest element becomes 6, or 4 with a finer grid under it).
// Groups of zeros stay exactly zero.
//
// Errors  kInvalidArgument  columns are not a multiple of 16; an element is NaN or infinite
// Source: the NVFP4 export of NVIDIA ModelOpt (layout); the choice between 6 and 4: Cook et al.,
// Four Over Six, arXiv:2512.02010.
Result<Nvfp4Matrix> quantize_nvfp4(const WeightMatrix& w, float global_scale);

}  // namespace braid
