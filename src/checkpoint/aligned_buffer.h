#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace braid {

// Uninitialised memory on a cache line boundary. Shared, because several weights may stand in one.
inline std::shared_ptr<std::byte> make_aligned_buffer(size_t bytes) {
  constexpr std::align_val_t kCacheLine{64};
  auto* data = static_cast<std::byte*>(::operator new(bytes, kCacheLine));
  return {data, [](std::byte* p) { ::operator delete (p, std::align_val_t{64}); }};
}

inline bool is_aligned(const void* data, size_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % bytes == 0;
}

}  // namespace braid
