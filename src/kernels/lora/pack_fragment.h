#pragma once

#include <cstdint>
#include <cstring>

#include "base/bf16.h"

namespace braid::kernels {

// One 16 x 16 fragment of mma's A operand in lane order, or its half: 8 rows or 8 columns.
template <class Value>
uint8_t* pack_fragment(int32_t rows, int32_t columns, Value value, uint8_t* out) {
  for (int32_t lane = 0; lane < 32; ++lane) {
    const int32_t row = lane / 4, column = 2 * (lane % 4);
    for (int32_t c = 0; c < columns; c += 8) {
      for (int32_t r = 0; r < rows; r += 8) {
        const Bf16 pair[2] = {value(row + r, column + c), value(row + r, column + c + 1)};
        std::memcpy(out, pair, 4);
        out += 4;
      }
    }
  }
  return out;
}

}  // namespace braid::kernels
