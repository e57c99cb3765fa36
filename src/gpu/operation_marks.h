#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "braid/operation_times.h"
#include "device/device.h"

namespace braid {

// Points of a stream between the operations of a step, each with its time. On one stream.
class OperationMarks {
 public:
  // in_graph: the stream is being captured, and each replay of the graph sets the times anew.
  OperationMarks(const Stream& stream, bool in_graph) : stream_(stream), is_in_graph_(in_graph) {}

  // What was put on the stream since the mark before is of `operation`, a literal.
  void add(std::string_view operation);

  // Adds what each operation of a step took, from `begin` on; what comes after the last mark until
  // `end` is of `rest`. Waits for `end`.
  void add_times(const Event& begin, const Event& end, std::string_view rest,
                 OperationTimes& times) const;

 private:
  struct Mark {
    std::string_view operation;
    std::unique_ptr<Event> event;
  };

  const Stream& stream_;
  const bool is_in_graph_;
  std::vector<Mark> marks_;
};

}  // namespace braid
