#include "gpu/gpu_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/ids.h"
#include "batch/check_batch.h"
#include "device/read_rate.h"
#include "kernels/sampling/sampling.h"

namespace braid {
namespace {

// Whether a decode reads, as the key before its own, what the one in front of it writes.
bool has_neighbours(const ForwardBatch& batch, int32_t block_size) {
  for (int32_t s = 1; s < batch.num_decodes; ++s) {
    const int32_t before = batch.context_len[static_cast<size_t>(s)] - 2;
    if (before < 0) continue;
    const int64_t at = int64_t{s} * batch.max_kv_blocks + before / block_size;
    const int32_t kv_slot =
        batch.block_table[static_cast<size_t>(at)] * block_size + before % block_size;
    if (kv_slot == batch.kv_slot_of_token[static_cast<size_t>(s) - 1]) return true;
  }
  return false;
}

std::vector<int32_t> used_slots(const ForwardBatch& batch) {
  std::vector<int32_t> slots = batch.adapter_slot_of_token;
  std::sort(slots.begin(), slots.end());
  slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  std::erase(slots, kNoAdapter);
  return slots;
}

}  // namespace

int32_t graph_tokens(int32_t num_tokens) {
  if (num_tokens <= 8) return num_tokens;
  const int32_t step = num_tokens <= 64 ? 8 : 16;
  return (num_tokens + step - 1) / step * step;
}

GpuRunner::GpuRunner(const ModelConfig& config, GpuWeights weights, const GpuRunnerOptions& options)
    : config_(config),
      weights_(std::move(weights)),
      options_(options),
      adapter_pool_(config,
                    {.num_slots = options.limits.num_adapter_slots,
                     .device_bytes = options.adapter_bytes,
                     .shapes = adapter_shapes(config)},
                    stream_),
      inputs_(options.limits),
      decoder_(config, weights_, options.limits, options.kv_shape, options.max_lora_rank),
      asked_(static_cast<size_t>(options.limits.max_logits) * sizeof(kernels::SamplingRow)),
      picked_(static_cast<size_t>(options.limits.max_logits) * sizeof(kernels::SampledToken)),
      logits_(static_cast<size_t>(options.limits.max_logits) *
              static_cast<size_t>(config.vocab_size) * sizeof(float)),
      asked_on_device_(asked_.bytes()),
      picked_on_device_(picked_.bytes()),
      sampling_scratch_(static_cast<size_t>(options.limits.max_logits) *
                        kernels::kScratchBytesPerRow) {}

std::optional<double> GpuRunner::measure_read_rate() const {
  constexpr size_t kEnough = size_t{4} << 30;
  const DeviceBuffer& cache = decoder_.kv_cache();
  return braid::measure_read_rate(cache.data(), std::min(cache.bytes(), kEnough), Stream());
}

std::span<const StepRow> GpuRunner::forward(const ForwardBatch& batch, const AdapterSlots* adapters,
                                            std::span<const Pick> picks) {
  const std::vector<int32_t> slots = used_slots(batch);
  BRAID_CHECK(slots.empty() || adapters != nullptr);
  const std::string problem =
      why_malformed(batch, {.vocab_size = config_.vocab_size,
                            .num_adapter_slots = options_.limits.num_adapter_slots,
                            .num_kv_blocks = options_.kv_shape.num_blocks,
                            .kv_block_size = options_.kv_shape.block_size});
  if (!problem.empty()) throw InternalError("forward batch: " + problem);
  if (batch.num_tokens() == 0) return {};

  const StepLimits& limits = options_.limits;
  StepShape shape = {.num_tokens = batch.num_tokens(),
                     .num_decodes = batch.num_decodes,
                     .num_logits = static_cast<int32_t>(batch.logits_token.size()),
                     .with_adapters = !slots.empty(),
                     .has_neighbours = has_neighbours(batch, options_.kv_shape.block_size)};
  shape.num_prefills = batch.num_sequences() - shape.num_decodes;
  const bool is_graph = options_.use_graphs && !is_tapped_ && shape.num_prefills == 0 &&
                        shape.num_logits == shape.num_tokens && shape.num_tokens <= kMaxGraphTokens;
  if (is_graph) {
    shape.num_tokens =
        std::min({graph_tokens(shape.num_tokens), limits.max_tokens, limits.max_sequences});
    shape.num_decodes = shape.num_logits = shape.num_tokens;
  }
  const ProfileRange step(fmt::format("step: {} tokens, {} replies{}", batch.num_tokens(),
                                      batch.num_decodes, shape.with_adapters ? ", adapters" : ""));
  marks_ = nullptr;
  const Graph* const graph = is_graph ? &graph_of(shape) : nullptr;
  begin_.record(stream_);
  {
    const ProfileRange inputs("inputs");
    int32_t max_rank = 0;
    for (const int32_t slot : slots) max_rank = std::max(max_rank, adapters->get(slot)->max_rank);
    inputs_.upload(batch, shape.num_tokens, max_rank, stream_);
    upload_picks(picks, shape.num_logits);
  }
  if (graph != nullptr) {
    const ProfileRange launch("graph");
    graph->launch(stream_);
  } else {
    const ProfileRange launches("launches");
    if (times_operations_) marks_ = &marks_of_step_.emplace(stream_, false);
    enqueue(shape, marks_);
  }
  const ProfileRange outputs("outputs");
  take_rows(batch.logits_token.size(), picks);
  return rows_;
}

// Captured when a shape first comes up. Sets marks_ where the step is timed.
const Graph& GpuRunner::graph_of(const StepShape& shape) {
  if (times_operations_) {
    auto found = timed_graphs_.find(shape);
    if (found == timed_graphs_.end()) {
      OperationMarks marks(stream_, true);
      Graph graph = Graph::capture(stream_, [&] { enqueue(shape, &marks); });
      found = timed_graphs_.emplace(shape, TimedGraph{std::move(marks), std::move(graph)}).first;
    }
    marks_ = &found->second.marks;
    return found->second.graph;
  }
  auto found = graphs_.find(shape);
  if (found == graphs_.end()) {
    const ProfileRange capture("capture of a graph");
    Graph graph = Graph::capture(stream_, [&] { enqueue(shape, nullptr); });
    found = graphs_.emplace(shape, std::move(graph)).first;
  }
  return found->second;
}

// Of the marks, the first ends the inputs, and the decoder's and the sampler's follow.
void GpuRunner::enqueue(const StepShape& shape, OperationMarks* marks) {
  if (marks != nullptr) marks->add("inputs");
  decoder_.set_mark(marks == nullptr ? GpuDecoder::Mark()
                                     : [=](std::string_view what) { marks->add(what); });
  decoder_.enqueue(shape, inputs_, shape.with_adapters ? &adapter_pool_.tables() : nullptr,
                   stream_.get());
  kernels::launch_sample({.logits = decoder_.logits(),
                          .logits_stride = decoder_.logits_stride(),
                          .rows = asked_on_device_.as<kernels::SamplingRow>(),
                          .sampled = picked_on_device_.as<kernels::SampledToken>(),
                          .scratch = sampling_scratch_.data(),
                          .num_rows = shape.num_logits,
                          .vocab_size = config_.vocab_size},
                         stream_.get());
  if (marks != nullptr) marks->add("sampling");
}

void GpuRunner::upload_picks(std::span<const Pick> picks, int32_t num_rows) {
  auto* const asked = reinterpret_cast<kernels::SamplingRow*>(asked_.data());
  for (int32_t i = 0; i < num_rows; ++i) {
    asked[i] = {};
    if (i >= static_cast<int32_t>(picks.size()) || picks[static_cast<size_t>(i)].wants_logits)
      continue;
    const Pick& pick = picks[static_cast<size_t>(i)];
    asked[i] = {.samples = true,
                .temperature = pick.temperature,
                .top_k = pick.top_k,
                .top_p = pick.top_p,
                .min_p = pick.min_p,
                .seed = pick.seed,
                .position = pick.position};
  }
  stream_.upload(asked_on_device_.data(), asked_, 0,
                 static_cast<size_t>(num_rows) * sizeof(kernels::SamplingRow));
}

// Waits for the step. A row from which nothing could be picked comes with its logits, of which the
// engine's own sampler says what is wrong.
void GpuRunner::take_rows(size_t num_rows, std::span<const Pick> picks) {
  const auto vocab_size = static_cast<size_t>(config_.vocab_size);
  const auto fetch_logits = [&](size_t i) {
    const float* const on_device =
        decoder_.logits() + static_cast<int64_t>(i) * decoder_.logits_stride();
    stream_.download(logits_, i * vocab_size * sizeof(float), on_device,
                     vocab_size * sizeof(float));
    rows_[i].logits = {reinterpret_cast<float*>(logits_.data()) + i * vocab_size, vocab_size};
  };
  rows_.assign(num_rows, {});
  if (num_rows > 0)
    stream_.download(picked_, 0, picked_on_device_.data(),
                     num_rows * sizeof(kernels::SampledToken));
  for (size_t i = 0; i < num_rows; ++i) {
    if (i >= picks.size() || picks[i].wants_logits) fetch_logits(i);
  }
  end_.record(stream_);
  stream_.wait();
  device_seconds_ += static_cast<double>(end_.since(begin_)) * 1e-3;
  if (marks_ != nullptr)
    std::exchange(marks_, nullptr)->add_times(begin_, end_, "outputs", operation_times_);
  const auto* const picked = reinterpret_cast<const kernels::SampledToken*>(picked_.data());
  bool waits = false;
  for (size_t i = 0; i < num_rows; ++i) {
    if (!rows_[i].logits.empty()) continue;
    if (picked[i].status == kernels::SamplingStatus::kOk) {
      rows_[i].token = picked[i].token;
    } else {
      fetch_logits(i);
      waits = true;
    }
  }
  if (waits) stream_.wait();
}

void GpuRunner::set_tap(GpuDecoder::Tap tap) {
  is_tapped_ = tap != nullptr;
  if (!is_tapped_) return decoder_.set_tap({});
  decoder_.set_tap(
      [this, tap = std::move(tap)](int32_t layer, std::string_view what, const DeviceBuffer& rows) {
        stream_.wait();
        tap(layer, what, rows);
      });
}

}  // namespace braid
