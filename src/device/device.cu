#include <cuda_runtime.h>

#include <utility>

#include "base/cuda_error.h"
#include "device/device.h"

namespace braid {
namespace {

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  throw CudaError(std::string(call) + ": " + cudaGetErrorString(error));
}

}  // namespace

int num_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return 0;
  int major = 0;
  if (count == 0 ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess)
    return 0;
  return major == 9 ? count : 0;
}

DeviceFacts device_facts() {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  DeviceFacts facts = {.name = properties.name,
                       .num_sms = properties.multiProcessorCount,
                       .memory_bytes = properties.totalGlobalMem};
  check(cudaDriverGetVersion(&facts.driver), "cudaDriverGetVersion");
  check(cudaDeviceGetAttribute(&facts.clock_khz, cudaDevAttrClockRate, 0),
        "cudaDeviceGetAttribute");
  return facts;
}

DeviceBuffer::DeviceBuffer(size_t bytes) : bytes_(bytes) {
  if (bytes > 0) check(cudaMalloc(&data_, bytes), "cudaMalloc");
}
DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}
DeviceBuffer::~DeviceBuffer() { cudaFree(data_); }

void DeviceBuffer::fill(uint8_t byte) {
  check(cudaMemset(data_, byte, bytes_), "cudaMemset");
  check(cudaDeviceSynchronize(), "cudaMemset");
}
void DeviceBuffer::upload_bytes(const void* from, size_t bytes) {
  check(cudaMemcpy(data_, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
}
void DeviceBuffer::download_bytes(void* to, size_t bytes, size_t offset) const {
  check(cudaMemcpy(to, as<uint8_t>() + offset, bytes, cudaMemcpyDeviceToHost),
        "cudaMemcpy from the device");
}

Stream::Stream() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}
Stream::~Stream() { cudaStreamDestroy(stream_); }
void Stream::wait() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

Event::Event() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
Event::~Event() { cudaEventDestroy(event_); }
void Event::record(const Stream& stream) {
  check(cudaEventRecord(event_, stream.get()), "cudaEventRecord");
}
void Event::make_wait(const Stream& stream) const {
  check(cudaStreamWaitEvent(stream.get(), event_), "cudaStreamWaitEvent");
}
float Event::since(const Event& begin) const {
  check(cudaEventSynchronize(event_), "cudaEventSynchronize");
  float ms = 0;
  check(cudaEventElapsedTime(&ms, begin.event_, event_), "cudaEventElapsedTime");
  return ms;
}

ForkJoin::ForkJoin() {
  int lowest, highest;
  check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "cudaDeviceGetStreamPriorityRange");
  check(cudaStreamCreateWithPriority(&side_.stream, cudaStreamNonBlocking, highest),
        "cudaStreamCreateWithPriority");
  for (CudaEvent* event : {&side_.forked, &side_.joined})
    check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreate");
}
ForkJoin::~ForkJoin() {
  cudaEventDestroy(side_.forked);
  cudaEventDestroy(side_.joined);
  cudaStreamDestroy(side_.stream);
}

Graph Graph::capture(const Stream& stream, const std::function<void()>& enqueue) {
  check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal),
        "cudaStreamBeginCapture");
  cudaGraph_t captured = nullptr;
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(stream.get(), &captured);
    if (captured != nullptr) cudaGraphDestroy(captured);
    throw;
  }
  check(cudaStreamEndCapture(stream.get(), &captured), "cudaStreamEndCapture");
  Graph graph;
  const cudaError_t error = cudaGraphInstantiate(&graph.graph_, captured, 0);
  cudaGraphDestroy(captured);
  check(error, "cudaGraphInstantiate");
  return graph;
}
Graph::Graph(Graph&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
Graph::~Graph() {
  if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
}
void Graph::launch(const Stream& stream) const {
  check(cudaGraphLaunch(graph_, stream.get()), "cudaGraphLaunch");
}

}  // namespace braid
