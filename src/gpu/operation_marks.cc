#include "gpu/operation_marks.h"

#include <algorithm>

namespace braid {
namespace {

void add(OperationTimes& times, std::string_view operation, float ms) {
  auto found = std::ranges::find(times.operations, operation, &OperationTimes::Operation::name);
  if (found == times.operations.end())
    found = times.operations.insert(found, OperationTimes::Operation{.name = operation});
  found->seconds += static_cast<double>(ms) * 1e-3;
}

}  // namespace

void OperationMarks::add(std::string_view operation) {
  marks_.push_back({.operation = operation, .event = std::make_unique<Event>()});
  if (is_in_graph_) {
    marks_.back().event->record_in_graph(stream_);
  } else {
    marks_.back().event->record(stream_);
  }
}

void OperationMarks::add_times(const Event& begin, const Event& end, std::string_view rest,
                               OperationTimes& times) const {
  const Event* before = &begin;
  for (const Mark& mark : marks_) {
    braid::add(times, mark.operation, mark.event->since(*before));
    before = mark.event.get();
  }
  braid::add(times, rest, end.since(*before));
  ++times.steps;
}

}  // namespace braid
