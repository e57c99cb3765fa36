// PinnedBuffer and the copies out of it.

#include "device/device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/cuda_error.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

TEST(PinnedBuffer, BeginsWithZeros) {
  BRAID_NEEDS_CUDA();
  const PinnedBuffer buffer(PinnedBuffer::kPiece + 5000);
  EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + buffer.bytes(),
                          [](uint8_t byte) { return byte == 0; }));
  EXPECT_EQ(PinnedBuffer().data(), nullptr);
}

TEST(PinnedBuffer, IsCopiedAcrossItsPieces) {
  BRAID_NEEDS_CUDA();
  constexpr size_t kBytes = 2 * PinnedBuffer::kPiece + 12345;
  PinnedBuffer buffer(kBytes);
  for (size_t i = 0; i < kBytes; ++i)
    buffer.data()[i] = static_cast<uint8_t>(i * 2654435761u >> 24);
  const Stream stream;
  for (const size_t offset : {size_t{0}, size_t{777}, PinnedBuffer::kPiece - 1}) {
    DeviceBuffer to(kBytes);
    to.fill(0);
    stream.upload(to.data(), buffer, offset, kBytes - offset);
    stream.wait();
    const auto got = to.download<uint8_t>(kBytes);
    EXPECT_TRUE(std::equal(buffer.data() + offset, buffer.data() + kBytes, got.begin())) << offset;
    EXPECT_TRUE(std::all_of(got.end() - static_cast<int64_t>(offset), got.end(),
                            [](uint8_t byte) { return byte == 0; }));
  }
  const DeviceBuffer to(kBytes);
  EXPECT_THROW(stream.upload(to.data(), buffer, 1, kBytes), CudaError);
}

TEST(PinnedBuffer, IsCopiedByRows) {
  BRAID_NEEDS_CUDA();
  PinnedBuffer buffer(PinnedBuffer::kPiece + 4096);
  std::iota(buffer.data(), buffer.data() + 4096, uint8_t{0});
  DeviceBuffer to(1000);
  to.fill(0xee);
  const Stream stream;
  Stream::Rows rows = {.to = to.as<uint8_t>() + 3,
                       .to_stride = 100,
                       .from_offset = 10,
                       .from_stride = 40,
                       .row_bytes = 7,
                       .num_rows = 9};
  stream.upload(rows, buffer);
  stream.wait();
  std::vector<uint8_t> want(1000, 0xee);
  for (size_t row = 0; row < 9; ++row) {
    for (size_t i = 0; i < 7; ++i)
      want[3 + 100 * row + i] = static_cast<uint8_t>(10 + 40 * row + i);
  }
  EXPECT_EQ(to.download<uint8_t>(1000), want);
  rows.from_offset = PinnedBuffer::kPiece - 20;
  EXPECT_THROW(stream.upload(rows, buffer), CudaError);
}

TEST(Event, KnowsWhetherItsStreamHasComeToIt) {
  BRAID_NEEDS_CUDA();
  Event event;
  EXPECT_TRUE(event.is_done());  // never recorded
  const Stream stream;
  PinnedBuffer buffer(size_t{512} << 20);
  const DeviceBuffer to(buffer.bytes());
  stream.upload(to.data(), buffer, 0, buffer.bytes());
  event.record(stream);
  EXPECT_FALSE(event.is_done());  // 10 ms of copying
  event.wait();
  EXPECT_TRUE(event.is_done());
}

}  // namespace
}  // namespace braid::test
