#include "quant/e4m3.h"

#include <algorithm>
#include <bit>

namespace braid {

uint8_t to_e4m3(float x) {
  const auto u = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (u >> 24) & 0x80u;
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7f;
  uint32_t code = 0;
  if (magnitude < 0x3c800000u) {  // below 2^-6, the smallest normal
    // One unit in the last place of 2^14 is 2^-9, so the addition rounds to whole subnormals. A
    // carry gives 8, which is the code of 2^-6.
    const float sum = std::bit_cast<float>(magnitude) + 0x1p14f;
    code = std::bit_cast<uint32_t>(sum) - std::bit_cast<uint32_t>(0x1p14f);
  } else {
    // Keep three of the 23 mantissa bits; a carry moves into the exponent as it should.
    const uint32_t rounded = (magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20;
    code = std::min(rounded - ((127u - 7u) << 3), 0x7eu);
  }
  return static_cast<uint8_t>(sign | code);
}

}  // namespace braid
