#include "quant/e2m1.h"

#include <cmath>

namespace braid {

uint8_t to_e2m1(float x) {
  const float a = std::fabs(x);
  // Midpoints between neighbours; a midpoint goes to the neighbour with the even code.
  uint8_t code = 7;
  if (a <= 0.25f) {
    code = 0;
  } else if (a < 0.75f) {
    code = 1;
  } else if (a <= 1.25f) {
    code = 2;
  } else if (a < 1.75f) {
    code = 3;
  } else if (a <= 2.5f) {
    code = 4;
  } else if (a < 3.5f) {
    code = 5;
  } else if (a <= 5.0f) {
    code = 6;
  }
  return std::signbit(x) ? static_cast<uint8_t>(code | 8u) : code;
}

}  // namespace braid
