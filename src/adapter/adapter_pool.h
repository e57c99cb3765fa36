#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "adapter/adapter_image.h"
#include "adapter/page_runs.h"
#include "adapter/slot_memory.h"
#include "base/result.h"
#include "device/device.h"

namespace braid {

// What the kernels read of the adapters in slots: arrays on the device, [num_slots] each, with
// rank 0 where the slot's adapter leaves the module alone. Their addresses never change.
struct LayerAdapterTables {
  const kernels::MoeAdapterSlot* experts = nullptr;
  const kernels::LinearAdapterSlot* qkv_proj = nullptr;
  const kernels::LinearAdapterSlot* o_proj = nullptr;
  const kernels::LinearAdapterSlot* router = nullptr;
  const kernels::LinearAdapterSlot* gate_up_proj = nullptr;
  const kernels::LinearAdapterSlot* down_proj = nullptr;
};
struct AdapterTables {
  std::vector<LayerAdapterTables> layers;  // [num_hidden_layers]
  const kernels::LinearAdapterSlot* lm_head = nullptr;
  const kernels::EmbeddingAdapterSlot* embedding = nullptr;
};

// Adapters in the memory of a device, by slot.
//
//   host memory     image, pinned: made once, by whoever reads the adapter (pack)
//        |          copied beside the steps (fill)
//   device memory   parts of the image, each in a run of neighbouring pages
//        |
//   tables          where the parts lie, at addresses that captured graphs know
//
// A kernel takes a pointer for each module and layer, so that is what must lie in one piece: an
// adapter finds room wherever there are runs for its layers, be they the places of several smaller
// ones.
//
// A slot is filled on a thread of its own. It waits for the steps that may still read what was in
// the memory before, copies, writes the slot's entries of the tables, and only then the slot is
// ready. Steps wait for nothing, then: those that are enqueued use slots that are ready, and
// memory and entries of others change beside them.
//
// A copy engine serves one stream until nothing of it is left. The thread hands it 16 MiB after the
// other, so that what a step uploads has its turn between them and waits for 0.3 ms at most; this
// costs 3 % of the rate. (Uploads up to 24 kB do not take the engine and wait for nothing.)
//
// Who fills and empties slots decides which adapters stay (engine/adapter_residency.h). All but
// pack() on one thread.
class AdapterPool final : public SlotMemory {
 public:
  struct Options {
    int32_t num_slots = 0;
    size_t device_bytes = 0;  // of factors; the tables come on top, 368 bytes a slot and layer
    AdapterShapes shapes;
  };

  // `compute` is the stream of the steps; it outlives this.
  AdapterPool(const ModelConfig& config, const Options& options, const Stream& compute);

  // Waits for the copy that is going on.
  ~AdapterPool() override;
  AdapterPool(const AdapterPool&) = delete;
  AdapterPool& operator=(const AdapterPool&) = delete;

  // The adapter as slots take it: with an image, and without the factors it was made from. Any
  // thread, but not the engine's: it takes seconds.
  //
  // Errors  kResourceExhausted  it is larger than device_bytes, or there is no host memory for it
  //         kUnsupported        a rank that the kernels do not take
  Result<std::shared_ptr<const Adapter>> pack(const Adapter& adapter) const;

  // The adapters are of pack(). After a copy has failed all of these but has_room() throw what it
  // died of.
  bool has_room(const Adapter& adapter, std::span<const int32_t> emptied) const override;
  void fill(int32_t slot, const Adapter& adapter) override;
  void empty(int32_t slot) override;
  bool is_ready(int32_t slot) const override;
  void wait_until_ready(int32_t slot) const override;

  // A step may use the entries of slots that are filled and ready.
  const AdapterTables& tables() const { return tables_; }

  // Taken by slots, out of device_bytes.
  size_t used_bytes() const;

 private:
  // What is in a slot.
  struct Content {
    int32_t slot = 0;
    const AdapterImage* image = nullptr;  // of the slot's adapter
    std::vector<int64_t> pages;           // the first of each of the image's parts
    Event may_begin;                      // the steps before it was filled
    bool has_arrived = false;             // under mutex_
  };

  void lay_out_tables();
  uint8_t* page(int64_t number) const;
  const std::unique_ptr<Content>& content(int32_t slot) const;

  // On the copying thread.
  void run();
  void copy_parts(const Content& content);
  void write_entries(const Content& content);

  const ModelConfig config_;
  const Options options_;
  const Stream& compute_;
  const Stream copies_;

  DeviceBuffer memory_;
  PageRuns free_pages_;
  std::vector<std::unique_ptr<Content>> contents_;  // [num_slots], null: empty

  DeviceBuffer tables_memory_;
  AdapterTables tables_;
  PinnedBuffer entries_;  // of each slot, on their way to the tables
  size_t entries_stride_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable has_work_;
  mutable std::condition_variable has_arrived_;
  // Under mutex_:
  std::deque<Content*> to_copy_;
  std::exception_ptr failure_;
  bool stops_ = false;

  std::thread thread_;
};

}  // namespace braid
