#include "apps/operation_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "apps/table.h"
#include "base/json.h"

namespace braid::apps {
namespace {

double seconds_of(const OperationTimes& times, std::string_view name) {
  const auto found = std::ranges::find(times.operations, name, &OperationTimes::Operation::name);
  return found == times.operations.end() ? 0.0 : found->seconds;
}

double ms_a_step(double seconds, const OperationTimes& times) {
  return times.steps == 0 ? 0.0 : seconds * 1e3 / static_cast<double>(times.steps);
}

double sum_ms(const OperationTimes& times) {
  double seconds = 0;
  for (const auto& operation : times.operations) seconds += operation.seconds;
  return ms_a_step(seconds, times);
}

}  // namespace

const char* const kOperationTableNote =
    "\nOperations are timed apart, each from the end of the one before to its own end, over all "
    "layers:\n"
    "their launches do not overlap then, so the sum exceeds the step. inputs: copies to the GPU "
    "and the\n"
    "start of the graph. outputs: tokens back to the host.\n";

OperationTimes since(const OperationTimes& now, const OperationTimes& before) {
  OperationTimes times = {.steps = now.steps - before.steps, .operations = {}};
  for (const auto& [name, seconds] : now.operations)
    times.operations.push_back({name, seconds - seconds_of(before, name)});
  return times;
}

std::string operation_table(const std::vector<OperationColumn>& columns) {
  std::vector<std::string> headings = {"operation"};
  std::vector<std::string_view> names;
  for (const OperationColumn& column : columns) {
    headings.push_back(column.heading);
    headings.emplace_back("share");
    for (const auto& operation : column.times.operations) {
      if (std::ranges::count(names, operation.name) == 0) names.push_back(operation.name);
    }
  }
  Table table(headings);
  const auto add = [&](std::string_view name, const auto& ms_of, bool has_share) {
    std::vector<std::string> cells = {std::string(name)};
    for (const OperationColumn& column : columns) {
      const double ms = ms_of(column), sum = sum_ms(column.times);
      cells.push_back(fmt::format("{:.3f}", ms));
      cells.push_back(has_share && sum > 0 ? fmt::format("{:.1f} %", 100 * ms / sum) : "");
    }
    table.add(std::move(cells));
  };
  for (const std::string_view name : names) {
    add(
        name,
        [&](const OperationColumn& column) {
          return ms_a_step(seconds_of(column.times, name), column.times);
        },
        true);
  }
  add(
      "sum", [](const OperationColumn& column) { return sum_ms(column.times); }, false);
  add(
      "the step", [](const OperationColumn& column) { return column.step_ms; }, false);
  return table.to_string();
}

Json operations_json(const OperationTimes& times) {
  Json json = Json::array();
  for (const auto& [name, seconds] : times.operations)
    json.push_back({{"operation", name}, {"ms", ms_a_step(seconds, times)}});
  return json;
}

}  // namespace braid::apps
