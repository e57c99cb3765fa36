#include "adapter/validate.h"

#include <utility>

#include "base/json.h"

namespace braid {
namespace {

std::string render_bytes(size_t bytes) {
  constexpr double kMega = 1e6;
  if (bytes < 1'000'000) return fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1e3);
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / kMega);
}

void append_list(std::string& out, std::string_view label, const std::vector<std::string>& items) {
  for (const std::string& item : items) {
    out += fmt::format("{:<11}{}\n", label, item);
    label = "";
  }
}

}  // namespace

Result<AdapterAndReport> validate_adapter(const std::filesystem::path& folder,
                                          const std::filesystem::path& model_folder,
                                          AdapterReadOptions options) {
  auto config = read_model_config(model_folder);
  if (!config) return pass_on(config);
  if (options.base_model_name.empty()) {
    // "." and "models/" have no name of their own.
    options.base_model_name = std::filesystem::weakly_canonical(model_folder).string();
  }
  return read_adapter(folder, *config, options);
}

Json to_json(const AdapterReport& report) {
  return {{"layout", report.layout},
          {"layout_inferred", report.layout_inferred},
          {"evidence", report.evidence},
          {"warnings", report.warnings},
          {"targets", report.targets},
          {"num_tensors", report.num_tensors},
          {"num_parameters", report.num_parameters},
          {"bytes_in_file", report.bytes_in_file},
          {"bytes_resident", report.bytes_resident},
          {"num_factors", report.num_factors},
          {"num_distinct_factors", report.num_distinct_factors},
          {"min_rank", report.min_rank},
          {"max_rank", report.max_rank}};
}

std::string render(const AdapterReport& report) {
  std::string out = fmt::format("{:<11}{}\n", "layout", report.layout);
  append_list(out, "because", report.evidence);
  append_list(out, "targets", report.targets);
  out += fmt::format("{:<11}{} in {} tensors, ranks {} to {}\n", "parameters",
                     report.num_parameters, report.num_tensors, report.min_rank, report.max_rank);
  out += fmt::format("{:<11}{} in the file, {} in memory ({} of {} factors are distinct)\n", "size",
                     render_bytes(report.bytes_in_file), render_bytes(report.bytes_resident),
                     report.num_distinct_factors, report.num_factors);
  append_list(out, "warning", report.warnings);
  return out;
}

std::string to_string(const AdapterHash& hash) {
  return fmt::format("{:016x}{:016x}", hash.high, hash.low);
}

}  // namespace braid
