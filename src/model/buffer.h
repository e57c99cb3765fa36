#pragma once

#include <cstdint>

#include "base/aligned.h"

namespace braid {

// Room for `count` elements of a step. Grows to the largest step seen and stays, so that a steady
// state allocates nothing. Contents are unspecified: every user writes before it reads.
template <class T>
T* ensure(AlignedVector<T>& buffer, int64_t count) {
  if (static_cast<int64_t>(buffer.size()) < count) {
    buffer.clear();  // nothing to copy over
    buffer.resize(static_cast<size_t>(count));
  }
  return buffer.data();
}

}  // namespace braid
