#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/cuda_fwd.h"

struct CUgraphExec_st;

// Owners of CUDA objects. Calls that fail throw CudaError. Builds without CUDA have none of this,
// but for the types.
namespace braid {

// Devices that can run our kernels (compute capability 9.0); 0 where there is no driver.
int num_devices();

struct DeviceFacts {
  std::string name;
  int num_sms = 0;
  size_t memory_bytes = 0;
  size_t free_bytes = 0;  // now
  int driver = 0;         // 13000 is 13.0
  int clock_khz = 0;      // of the SMs, at most
};
DeviceFacts device_facts();

// A range of this thread's time that profilers show by its name (NVTX). Without one it costs a
// call.
class ProfileRange {
 public:
  explicit ProfileRange(const char* name);
  explicit ProfileRange(const std::string& name) : ProfileRange(name.c_str()) {}
  ProfileRange(const ProfileRange&) = delete;
  ProfileRange& operator=(const ProfileRange&) = delete;
  ~ProfileRange();
};

// Device memory, contents undefined at first. Aligned to 256 bytes.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(size_t bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  size_t bytes() const { return bytes_; }
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

  // Every byte the same; waits.
  void fill(uint8_t byte);
  // Whole host arrays; these wait. The array is no longer than the buffer from `offset` on.
  void upload_bytes(const void* from, size_t bytes);
  void download_bytes(void* to, size_t bytes, size_t offset = 0) const;

  template <class T>
  static DeviceBuffer of(std::span<const T> values) {
    DeviceBuffer buffer(values.size_bytes());
    buffer.upload_bytes(values.data(), values.size_bytes());
    return buffer;
  }
  template <class T>
  static DeviceBuffer of(const std::vector<T>& values) {
    return of(std::span<const T>(values));
  }
  template <class T>
  std::vector<T> download(size_t count) const {
    std::vector<T> values(count);
    download_bytes(values.data(), count * sizeof(T));
    return values;
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Page-locked host memory, which copy engines read at their full rate. Zeros at first.
//
// Locking pages holds up what other threads launch, for as long as it takes: 0.8 s for 1.7 GB from
// cudaHostAlloc. So pages are huge ones where the system has them, in memory before they are
// locked, and locked one piece after the other with pauses (0.2 ms a piece); the same when they are
// given back. A copy must lie within one piece: Stream::upload sees to that.
class PinnedBuffer {
 public:
  static constexpr size_t kPiece = size_t{8} << 20;

  PinnedBuffer() = default;
  // Throws std::bad_alloc.
  explicit PinnedBuffer(size_t bytes);
  PinnedBuffer(PinnedBuffer&& other) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  ~PinnedBuffer();

  size_t bytes() const { return bytes_; }
  uint8_t* data() const { return data_; }  // aligned to 2 MiB

 private:
  void unlock(size_t bytes) noexcept;

  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

class Stream {
 public:
  Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream();

  CudaStream get() const { return stream_; }
  void wait() const;

  // Enqueue copies to the device out of a PinnedBuffer, which stays as it is until they are done.
  void upload(void* to, const PinnedBuffer& from, size_t offset, size_t bytes) const;
  // Rows of row_bytes, strides apart; in the buffer all lie within one piece.
  struct Rows {
    void* to = nullptr;
    size_t to_stride = 0;
    size_t from_offset = 0;
    size_t from_stride = 0;
    size_t row_bytes = 0;
    size_t num_rows = 0;
  };
  void upload(const Rows& rows, const PinnedBuffer& from) const;
  // Enqueues a copy from the device to a PinnedBuffer.
  void download(const PinnedBuffer& to, size_t offset, const void* from, size_t bytes) const;

 private:
  CudaStream stream_ = nullptr;
};

// A point in a stream's work, with its time.
class Event {
 public:
  Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event();

  void record(const Stream& stream);
  // The same in a capture: every replay of the graph records it anew.
  void record_in_graph(const Stream& stream);
  // Work put on `stream` later waits for this event.
  void make_wait(const Stream& stream) const;
  // The stream has come to this point, or it was never recorded.
  bool is_done() const;
  void wait() const;
  // Milliseconds from `begin` to this; waits for this.
  float since(const Event& begin) const;

 private:
  CudaEvent event_ = nullptr;
};

// A stream for work beside another's, of the highest priority: it is there to fill gaps.
class ForkJoin {
 public:
  ForkJoin();
  ForkJoin(const ForkJoin&) = delete;
  ForkJoin& operator=(const ForkJoin&) = delete;
  ~ForkJoin();

  SideStream get() const { return side_; }

 private:
  SideStream side_;
};

// What was put on a stream, to be run again and again.
class Graph {
 public:
  // Captures what `enqueue` puts on the stream instead of running it.
  static Graph capture(const Stream& stream, const std::function<void()>& enqueue);
  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&&) = delete;
  ~Graph();

  void launch(const Stream& stream) const;

 private:
  Graph() = default;
  CUgraphExec_st* graph_ = nullptr;
};

}  // namespace braid
