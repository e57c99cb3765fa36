#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "adapter/adapter.h"

namespace braid {

// Destroys adapters on a thread of its own. The engine's thread is often the last to let go of one,
// and giving 512 MB back to the system takes it 40 to 70 ms in small pages (2 ms in huge ones).
class BackgroundFree {
 public:
  BackgroundFree();

  // Destroys what is left.
  ~BackgroundFree();
  BackgroundFree(const BackgroundFree&) = delete;
  BackgroundFree& operator=(const BackgroundFree&) = delete;

  // The same adapter. When its last holder lets go, on any thread, it is destroyed here; by the
  // holder once this object is gone.
  std::shared_ptr<const Adapter> guard(std::shared_ptr<const Adapter> adapter);

 private:
  struct Queue {
    std::mutex mutex;
    std::condition_variable has_work;
    std::vector<std::shared_ptr<const Adapter>> adapters;
    bool stops = false;
  };
  static void run(Queue& queue);

  std::shared_ptr<Queue> queue_ = std::make_shared<Queue>();  // guarded adapters outlive this
  std::thread thread_;
};

}  // namespace braid
