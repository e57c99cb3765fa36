#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "adapter/adapter_pool.h"
#include "device/device.h"
#include "gpu/gpu_decoder.h"
#include "gpu/gpu_weights.h"
#include "gpu/operation_marks.h"
#include "gpu/step_inputs.h"
#include "model/runner.h"

namespace braid {

struct GpuRunnerOptions {
  StepLimits limits;
  KvCacheShape kv_shape;
  int32_t max_lora_rank = 0;
  size_t adapter_bytes = 0;  // device memory for factors
  // Steps that only decode are replayed as CUDA graphs, padded to a few sizes.
  bool use_graphs = true;
};

// A decoder on the device, with its KV cache and the adapters in slots.
class GpuRunner final : public Runner {
 public:
  // Throws CudaError when the device refuses, by lack of memory most likely.
  GpuRunner(const ModelConfig& config, GpuWeights weights, const GpuRunnerOptions& options);

  const ModelConfig& config() const override { return config_; }
  size_t step_bytes(int64_t num_tokens) const override {
    return braid::step_bytes(config_, weights_.bytes, num_tokens);
  }
  double device_seconds() const override { return device_seconds_; }
  void time_operations(bool on) override { times_operations_ = on; }
  OperationTimes operation_times() const override { return operation_times_; }
  std::optional<double> measure_read_rate() const override;
  AdapterPool* adapter_pool() override { return &adapter_pool_; }
  using Runner::forward;
  std::span<const StepRow> forward(const ForwardBatch& batch, const AdapterSlots* adapters,
                                   std::span<const Pick> picks) override;

  // Listens to the steps that follow, with rows that are there when it is called: steps then run
  // launch by launch, not as graphs, and wait after each stage. An empty function stops it.
  void set_tap(GpuDecoder::Tap tap);

 private:
  // A graph whose operations are marked.
  struct TimedGraph {
    OperationMarks marks;
    Graph graph;
  };

  void enqueue(const StepShape& shape, OperationMarks* marks);
  const Graph& graph_of(const StepShape& shape);
  void upload_picks(std::span<const Pick> picks, int32_t num_rows);
  void take_rows(size_t num_rows, std::span<const Pick> picks);

  const ModelConfig config_;
  const GpuWeights weights_;
  const GpuRunnerOptions options_;
  Stream stream_;
  AdapterPool adapter_pool_;
  StepInputs inputs_;
  GpuDecoder decoder_;
  std::map<StepShape, Graph> graphs_;
  std::map<StepShape, TimedGraph> timed_graphs_;
  // Of the rows of logits: what is asked, and what was picked.
  PinnedBuffer asked_, picked_, logits_;
  DeviceBuffer asked_on_device_, picked_on_device_, sampling_scratch_;
  std::vector<StepRow> rows_;
  Event begin_, end_;  // of a step
  double device_seconds_ = 0;
  bool is_tapped_ = false;
  std::atomic<bool> times_operations_ = false;
  OperationTimes operation_times_;
  std::optional<OperationMarks> marks_of_step_;  // of the newest timed step without a graph
  OperationMarks* marks_ = nullptr;              // of the step that runs, if it is timed
};

// Tokens to which a batch of decodes is padded, so that few graphs serve all sizes: itself up to 8,
// then the next multiple of 8, from 64 on of 16.
int32_t graph_tokens(int32_t num_tokens);
inline constexpr int32_t kMaxGraphTokens = 256;

}  // namespace braid
