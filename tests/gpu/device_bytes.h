#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace braid::test {

// What lies at an address of the device, once all its work is done.
std::vector<uint8_t> device_bytes(const void* address, size_t count);

}  // namespace braid::test
