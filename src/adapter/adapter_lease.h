#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "adapter/adapter.h"
#include "base/result.h"
#include "braid/adapter.h"

namespace braid {

// What became of an adapter's requests. Written by the engine, read by anybody.
struct AdapterCounters {
  std::atomic<int32_t> unfinished = 0;
  std::atomic<int32_t> running = 0;
  std::atomic<int64_t> requests = 0;
  std::atomic<int64_t> prompt_tokens = 0;
  std::atomic<int64_t> cached_tokens = 0;
  std::atomic<int64_t> generated_tokens = 0;

  AdapterCounts counts() const {
    const int32_t now_running = running;
    return {.running = now_running,
            .waiting = std::max(unfinished - now_running, 0),
            .requests = requests,
            .prompt_tokens = prompt_tokens,
            .cached_tokens = cached_tokens,
            .generated_tokens = generated_tokens};
  }
};

// A read of an adapter from its folder that requests wait for.
struct AdapterLoad {
  std::atomic<bool> is_done = false;
  Result<std::shared_ptr<const Adapter>> result;  // read-only once is_done
};

// One request's hold on one content of an adapter: as long as it lives, that content stays in
// memory, also when the adapter is replaced or removed meanwhile. Moves between threads.
class AdapterLease {
 public:
  // Of the base model.
  AdapterLease() = default;

  // Of an adapter that is in no store.
  AdapterLease(std::shared_ptr<const Adapter> adapter) : adapter_(std::move(adapter)) {
    if (adapter_) counters_ = std::make_shared<AdapterCounters>();
  }

  AdapterLease(AdapterLease&&) = default;
  AdapterLease& operator=(AdapterLease&&) = delete;
  ~AdapterLease() {
    if (num_leases_) --*num_leases_;
  }

  // The adapter is not in memory yet.
  bool is_loading() const { return load_ != nullptr && !load_->is_done; }

  // Null for the base model. Not while it is loading.
  //
  // Errors  those of the load
  Result<std::shared_ptr<const Adapter>> adapter() const {
    if (load_) return load_->result;
    return adapter_;
  }

  // Of all versions of the adapter; null for the base model.
  const std::shared_ptr<AdapterCounters>& counters() const { return counters_; }
  float share() const { return share_; }

 private:
  friend class AdapterStore;

  std::shared_ptr<const Adapter> adapter_;
  std::shared_ptr<AdapterLoad> load_;                 // null: there is nothing to wait for
  std::shared_ptr<std::atomic<int32_t>> num_leases_;  // of the content; null: it is in no store
  std::shared_ptr<AdapterCounters> counters_;
  float share_ = 1.0f;
};

}  // namespace braid
