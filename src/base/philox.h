#pragma once

#include <array>
#include <cstdint>

namespace braid {

// Philox4x32 with ten rounds: 128 random bits as a pure function of key and counter, so a draw
// depends on nothing that happened before it.
//
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter,
                                             std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// 53 random bits: the draw for the token at `position` of a sequence.
constexpr uint64_t philox_bits(uint64_t seed, uint64_t position) {
  const auto words =
      philox4x32({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return ((uint64_t{words[1]} << 32) | words[0]) >> 11;
}

// The same bits as a number, uniform in [0, 1).
constexpr double philox_uniform(uint64_t seed, uint64_t position) {
  return static_cast<double>(philox_bits(seed, position)) * 0x1p-53;
}

}  // namespace braid
