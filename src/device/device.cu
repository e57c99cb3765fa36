#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <utility>

#include "base/cuda_error.h"
#include "device/device.h"

namespace braid {
namespace {

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  throw CudaError(std::string(call) + ": " + cudaGetErrorString(error));
}

void check_inside(const PinnedBuffer& buffer, size_t end) {
  if (end > buffer.bytes()) throw CudaError("a copy past the end of a PinnedBuffer");
}

// Of so many bytes from an offset on, those that lie in the offset's piece.
size_t in_one_piece(size_t offset, size_t bytes) {
  return std::min(bytes, PinnedBuffer::kPiece - offset % PinnedBuffer::kPiece);
}

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// As long as a piece takes, so that other threads get at the driver at least every second time.
constexpr std::chrono::microseconds kPauseBetweenPieces{500};

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
  size_t total_bytes = 0;
  check(cudaMemGetInfo(&facts.free_bytes, &total_bytes), "cudaMemGetInfo");
  check(cudaDriverGetVersion(&facts.driver), "cudaDriverGetVersion");
  check(cudaDeviceGetAttribute(&facts.clock_khz, cudaDevAttrClockRate, 0),
        "cudaDeviceGetAttribute");
  return facts;
}

ProfileRange::ProfileRange(const char* name) { nvtxRangePushA(name); }
ProfileRange::~ProfileRange() { nvtxRangePop(); }

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
  // A copy of a few pages may return while it is under way, and our streams do not wait for it.
  check(cudaStreamSynchronize(cudaStreamLegacy), "cudaMemcpy to the device");
}
void DeviceBuffer::download_bytes(void* to, size_t bytes, size_t offset) const {
  check(cudaMemcpy(to, as<uint8_t>() + offset, bytes, cudaMemcpyDeviceToHost),
        "cudaMemcpy from the device");
}

PinnedBuffer::PinnedBuffer(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = static_cast<uint8_t*>(std::aligned_alloc(kHugePage, round_up(bytes, kHugePage)));
  if (data_ == nullptr) throw std::bad_alloc();
  madvise(data_, bytes, MADV_HUGEPAGE);  // a wish; small pages do as well
  for (size_t begin = 0; begin < bytes; begin += kPiece) {
    const size_t size = std::min(kPiece, bytes - begin);
    std::memset(data_ + begin, 0, size);
    if (begin > 0) std::this_thread::sleep_for(kPauseBetweenPieces);
    if (cudaHostRegister(data_ + begin, size, cudaHostRegisterDefault) != cudaSuccess) {
      cudaGetLastError();  // it is ours
      unlock(begin);
      throw std::bad_alloc();
    }
  }
}
PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}
PinnedBuffer::~PinnedBuffer() { unlock(bytes_); }

void PinnedBuffer::unlock(size_t bytes) noexcept {
  for (size_t begin = 0; begin < bytes; begin += kPiece) {
    if (begin > 0) std::this_thread::sleep_for(kPauseBetweenPieces);
    cudaHostUnregister(data_ + begin);
  }
  std::free(data_);
}

Stream::Stream() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}
Stream::~Stream() { cudaStreamDestroy(stream_); }
void Stream::wait() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }
void Stream::upload(void* to, const PinnedBuffer& from, size_t offset, size_t bytes) const {
  check_inside(from, offset + bytes);
  for (size_t done = 0; done < bytes;) {
    const size_t size = in_one_piece(offset + done, bytes - done);
    check(cudaMemcpyAsync(static_cast<uint8_t*>(to) + done, from.data() + offset + done, size,
                          cudaMemcpyHostToDevice, stream_),
          "cudaMemcpyAsync to the device");
    done += size;
  }
}
void Stream::download(const PinnedBuffer& to, size_t offset, const void* from, size_t bytes) const {
  check_inside(to, offset + bytes);
  for (size_t done = 0; done < bytes;) {
    const size_t size = in_one_piece(offset + done, bytes - done);
    check(cudaMemcpyAsync(to.data() + offset + done, static_cast<const uint8_t*>(from) + done, size,
                          cudaMemcpyDeviceToHost, stream_),
          "cudaMemcpyAsync from the device");
    done += size;
  }
}
void Stream::upload(const Rows& rows, const PinnedBuffer& from) const {
  if (rows.num_rows == 0) return;
  const size_t end = rows.from_offset + (rows.num_rows - 1) * rows.from_stride + rows.row_bytes;
  check_inside(from, end);
  if (rows.from_offset / PinnedBuffer::kPiece != (end - 1) / PinnedBuffer::kPiece)
    throw CudaError("an upload of rows that lie in two pieces of a PinnedBuffer");
  check(cudaMemcpy2DAsync(rows.to, rows.to_stride, from.data() + rows.from_offset, rows.from_stride,
                          rows.row_bytes, rows.num_rows, cudaMemcpyHostToDevice, stream_),
        "cudaMemcpy2DAsync to the device");
}

Event::Event() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
Event::~Event() { cudaEventDestroy(event_); }
void Event::record(const Stream& stream) {
  check(cudaEventRecord(event_, stream.get()), "cudaEventRecord");
}
void Event::record_in_graph(const Stream& stream) {
  check(cudaEventRecordWithFlags(event_, stream.get(), cudaEventRecordExternal),
        "cudaEventRecordWithFlags");
}
void Event::make_wait(const Stream& stream) const {
  check(cudaStreamWaitEvent(stream.get(), event_), "cudaStreamWaitEvent");
}
bool Event::is_done() const {
  const cudaError_t error = cudaEventQuery(event_);
  if (error == cudaErrorNotReady) return false;
  check(error, "cudaEventQuery");
  return true;
}
void Event::wait() const { check(cudaEventSynchronize(event_), "cudaEventSynchronize"); }
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
