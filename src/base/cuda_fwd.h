#pragma once

struct CUevent_st;
struct CUstream_st;

namespace braid {

// cudaStream_t under a name that headers may use without CUDA. Null is the default stream.
using CudaStream = CUstream_st*;
// The same of cudaEvent_t.
using CudaEvent = CUevent_st*;

// A second stream for work that goes on beside another stream's. ForkJoin (device/device.h) owns
// one. Its events may be recorded again as soon as they have been waited for, so one serves any
// number of forks, one after the other.
struct SideStream {
  CudaStream stream = nullptr;
  CudaEvent forked = nullptr;  // what the side stream waits for
  CudaEvent joined = nullptr;  // what is waited for when it has done its work
};

}  // namespace braid
