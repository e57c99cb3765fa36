#include "adapter/background_free.h"

#include <utility>

namespace braid {

BackgroundFree::BackgroundFree() : thread_([this] { run(*queue_); }) {}

BackgroundFree::~BackgroundFree() {
  {
    const std::lock_guard lock(queue_->mutex);
    queue_->stops = true;
  }
  queue_->has_work.notify_one();
  thread_.join();
}

std::shared_ptr<const Adapter> BackgroundFree::guard(std::shared_ptr<const Adapter> adapter) {
  const Adapter* address = adapter.get();
  const auto let_go = [queue = queue_, owner = std::move(adapter)](const Adapter*) mutable {
    const std::lock_guard lock(queue->mutex);
    if (queue->stops) return;  // the owner goes with this function
    queue->adapters.push_back(std::move(owner));
    queue->has_work.notify_one();
  };
  return {address, let_go};
}

void BackgroundFree::run(Queue& queue) {
  std::vector<std::shared_ptr<const Adapter>> adapters;
  std::unique_lock lock(queue.mutex);
  while (true) {
    queue.has_work.wait(lock, [&] { return queue.stops || !queue.adapters.empty(); });
    adapters.swap(queue.adapters);
    if (adapters.empty()) return;
    lock.unlock();
    adapters.clear();
    lock.lock();
  }
}

}  // namespace braid
