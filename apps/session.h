#pragma once

#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "apps/answer.h"
#include "apps/in_flight.h"
#include "braid/engine.h"

namespace braid::apps {

// The requests of one `braid generate`: all are given to the engine, which mixes them in its
// batches, and their answers are gathered.
class Session {
 public:
  explicit Session(Engine& engine) : engine_(engine) {}

  // Adds a request with its place, adapter, prompt and the request's tokens and sampling filled in.
  //
  // Errors  kNotFound (adapter)
  Status add(Answer answer);

  size_t size() const { return answers_.size(); }

  // Called as text comes, on the engine's thread. What it throws ends its request, and run()
  // throws it again.
  using OnText = std::function<void(std::string_view)>;
  // Called once an answer, in the order they were added, on the thread of run().
  using OnAnswer = std::function<void(const Answer&)>;

  // Submits every request, waiting for room where the engine's queue is full, and returns when all
  // are answered. A request that the engine refuses has the refusal as its answer. Whatever the
  // callbacks throw comes out when nothing runs any more.
  void run(const OnAnswer& on_answer, const OnText& on_text = {});

  int64_t num_failed() const;
  // "3 requests, 120 prompt tokens (16 cached), ..."
  std::string summary() const;

 private:
  struct Entry {
    Answer answer;
    bool finished = false;  // guarded by mutex_
  };

  bool try_submit(InFlight& in_flight, Entry& entry, const OnText& on_text);
  void take(Entry& entry, const TokenEvent& event, const OnText& on_text);
  bool is_finished(const Entry& entry);

  Engine& engine_;
  std::deque<Entry> answers_;  // a deque: callbacks keep references
  std::mutex mutex_;
  std::exception_ptr thrown_;  // by on_text; guarded by mutex_
  double seconds_ = 0;
};

}  // namespace braid::apps
