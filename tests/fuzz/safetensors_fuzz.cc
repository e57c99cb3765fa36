#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "checkpoint/safetensors_header.h"

// Any bytes as a safetensors file: a message, or tensors whose bytes can all be read and which
// cover the data exactly.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  const auto contents = braid::parse_safetensors(file);
  if (!contents) {
    if (contents.error().message.empty()) std::abort();
    return 0;
  }
  size_t covered = 0;
  unsigned sum = 0;
  for (const auto& [name, view] : contents->tensors) {
    if (view.bytes.size() !=
        static_cast<size_t>(braid::num_elements(view.shape)) * braid::size_of(view.dtype)) {
      std::abort();
    }
    covered += view.bytes.size();
    for (const std::byte b : view.bytes) sum += static_cast<unsigned>(b);
  }
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < 8; ++i) header_bytes |= static_cast<uint64_t>(data[i]) << (8 * i);
  if (covered != size - 8 - header_bytes) std::abort();
  return sum == 0xffffffffu ? 1 : 0;
}
