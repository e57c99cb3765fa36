#pragma once

#include <cstdint>

// How NVFP4 weights lie so that a lane decodes its mma fragments with one operation a weight.
namespace braid::kernels {

// A block is 128 rows by 128 columns: codes by [64 rows, 64 columns, warp, lane], 16 bytes each, 8
// of the upper 8 of a warp's 16 rows and 8 of the lower, then scales by [warp, lane], 8 bytes each,
// 4 of each 64 rows.
inline constexpr int32_t kNvfp4QuarterBytes = 64 * 64 / 2;
inline constexpr int32_t kNvfp4CodeBytes = 4 * kNvfp4QuarterBytes;
inline constexpr int32_t kNvfp4BlockBytes = kNvfp4CodeBytes + 128 * 8;

// Of a row, lane i % 4 = q holds columns 32 q to 32 q + 31 of the block, which are two groups of
// one scale each. A register of a fragment has a column of both, so that it is multiplied with both
// scales at once: fragment columns 8 i + 2 q and 8 i + 2 q + 1 are columns 32 q + i and
// 32 q + 16 + i. Activations are stored in that order.
constexpr int32_t nvfp4_place(int32_t column) {
  return column % 16 * 8 + column / 32 * 2 + column / 16 % 2;
}

// Codes become BF16 by bits: sign, exponent and mantissa of e2m1 stand at bits 15, 8, 7 and 6 of a
// 16-bit half, and what that makes is the weight times 2^-126. Two words, of 8 rows and 64 columns,
// hold eight registers, one for each i of 0..7 (or 8..15): three in each, rotated by 0, 6 and 12
// bits, and the last two in the bits that are left, put together and rotated by 2 and 8.
inline constexpr uint32_t kNvfp4CodeMask = 0x81C081C0;
constexpr int32_t nvfp4_rotation(int32_t i) { return 6 * i; }
inline constexpr uint32_t kNvfp4LeftMask = 0x60306030;  // bits left in a word
inline constexpr int32_t kNvfp4LeftRotation = 2;  // brings the second word's beside the first's
constexpr int32_t nvfp4_left_rotation(int32_t i) { return 2 + 6 * i; }

// Scales: an e4m3 code at bits 10 to 4 of a half is the scale times 2^-120; that of the lower 8
// rows stands 8 bits below, rotated.
inline constexpr uint32_t kNvfp4ScaleMask = 0x07F007F0;
inline constexpr int32_t kNvfp4ScaleRotation = 8;

// Such a scale times kNvfp4ScaleUnit twice (once is more than BF16 holds), times such a code, is
// the weight over kNvfp4Unit: exact in BF16, and far from both ends of its range.
inline constexpr float kNvfp4ScaleUnit = 0x1p115f;
inline constexpr float kNvfp4Unit = 0x1p16f;

}  // namespace braid::kernels
