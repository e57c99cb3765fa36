#pragma once

struct CUstream_st;

namespace braid {

// cudaStream_t under a name that headers may use without CUDA. Null is the default stream.
using CudaStream = CUstream_st*;

}  // namespace braid
