#include "apps/bench_plan.h"

#include <algorithm>

namespace braid::apps {

Result<BenchPlan> plan_arms(const std::vector<int32_t>& batches,
                            const std::vector<int32_t>& adapter_counts, int32_t num_loras,
                            std::string_view batch_option) {
  if (batches.empty() || std::any_of(batches.begin(), batches.end(), [](auto n) { return n < 1; }))
    return fail(ErrorCode::kInvalidArgument, "{} takes sizes of 1 or more", batch_option);
  if (std::any_of(adapter_counts.begin(), adapter_counts.end(), [](auto n) { return n < 0; }))
    return fail(ErrorCode::kInvalidArgument, "--adapters takes counts of 0 or more");

  BenchPlan plan;
  bool wants_adapters = false;
  const auto add = [&](ArmShape arm) {
    if (std::find(plan.arms.begin(), plan.arms.end(), arm) != plan.arms.end()) return;
    plan.arms.push_back(arm);
    plan.max_batch = std::max(plan.max_batch, arm.batch);
    plan.max_adapters = std::max(plan.max_adapters, arm.num_adapters);
  };
  for (const int32_t batch : batches) {
    add({batch, 0});
    std::vector<int32_t> left_out;
    for (const int32_t count : adapter_counts) {
      wants_adapters |= count > 0;
      if (count > batch) {
        left_out.push_back(count);
      } else if (count > 0) {
        add({batch, count});
      }
    }
    if (!left_out.empty()) {
      plan.notes.push_back(
          fmt::format("--adapters {} left out at {} {}: a request has one adapter, so a batch "
                      "holds at most its size",
                      fmt::join(left_out, ","), batch_option, batch));
    }
  }
  if (wants_adapters && plan.max_adapters == 0) {
    return fail(
        ErrorCode::kInvalidArgument,
        "--adapters {} with {} {} leaves nothing to compare: a request has one adapter, so a "
        "batch holds at most its size",
        fmt::join(adapter_counts, ","), batch_option, fmt::join(batches, ","));
  }
  if (num_loras > plan.max_adapters) {
    plan.notes.push_back(
        fmt::format("{} of {} --lora left out: at most {} run together here; raise --adapters and "
                    "{}",
                    num_loras - plan.max_adapters, num_loras, plan.max_adapters, batch_option));
  }
  return plan;
}

}  // namespace braid::apps
