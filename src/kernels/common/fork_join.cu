#include "kernels/common/fork_join.h"
#include "kernels/common/launch.h"

namespace braid::kernels {
namespace {

void make_wait(CudaStream waits, CudaStream for_stream, CudaEvent event) {
  check_cuda(cudaEventRecord(event, for_stream), "cudaEventRecord");
  check_cuda(cudaStreamWaitEvent(waits, event), "cudaStreamWaitEvent");
}

}  // namespace

void fork(CudaStream stream, const SideStream& side) {
  make_wait(side.stream, stream, side.forked);
}

void join(CudaStream stream, const SideStream& side) {
  make_wait(stream, side.stream, side.joined);
}

}  // namespace braid::kernels
