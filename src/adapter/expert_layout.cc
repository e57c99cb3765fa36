#include "adapter/expert_layout.h"

#include <array>
#include <charconv>

namespace braid {
namespace {

constexpr std::string_view kRemedy =
    "pass --lora-expert-layout peft or --lora-expert-layout grouped";

// What the writer the evidence points to would have written.
struct Writer {
  std::string why;              // "" when there is no evidence
  std::optional<bool> swapped;  // nothing: either
  std::optional<bool> grouped;  // nothing: either
};

struct Version {
  std::array<int, 3> parts = {0, 0, 0};
  bool is_release = true;
};

// "0.19.1" or "0.18.2.dev0@1a2b3c"; nothing when it is no version.
std::optional<Version> parse_version(const std::string& text) {
  Version version;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (size_t i = 0; i < 3; ++i) {
    const auto [next, error] = std::from_chars(at, end, version.parts[i]);
    if (error != std::errc()) return {};
    at = next;
    if (at == end || *at != '.') break;
    if (i < 2) ++at;
  }
  version.is_release = at == end;
  return version;
}

Writer find_writer(const LoraConfig& config) {
  if (config.says_unsloth) {
    return {.why =
                "the config, its base model or the model card names Unsloth, whose column order "
                "changed in September 2026"};
  }
  if (config.target_parameters.empty()) return {};
  if (!config.peft_version.empty()) {
    Writer writer = {
        .why = fmt::format("peft_version is \"{}\"", config.peft_version.substr(0, 40)),
        .grouped = false};
    const auto version = parse_version(config.peft_version);
    // PEFT 0.19.1 put in and out right. A development build can be on either side of it.
    if (version && version->is_release) {
      writer.swapped = version->parts < std::array<int, 3>{0, 19, 1};
    }
    return writer;
  }
  if (config.has_peft_keys) {
    return {.why = "target_parameters with PEFT's full key set but no peft_version: PEFT 0.17",
            .swapped = true,
            .grouped = false};
  }
  if (config.num_keys <= 24 && !config.use_rslora && config.alpha_pattern.empty()) {
    return {.why = fmt::format("target_parameters with a short key set ({} keys) and no "
                               "peft_version: Megatron-Bridge",
                               config.num_keys),
            .swapped = true,
            .grouped = true};
  }
  return {};
}

std::string orientation(bool swapped) {
  return swapped
             ? "in and out are swapped (A is as wide as the output, as PEFT before 0.19.1 wrote)"
             : "A is as wide as the input, as PEFT writes since 0.19.1";
}

}  // namespace

Result<ParameterReading> read_expert_parameters(const LoraConfig& config,
                                                const ParameterShapes& shapes, ExpertLayout wish) {
  ParameterReading reading;
  const Writer writer = find_writer(config);
  if (!writer.why.empty()) reading.evidence.push_back(writer.why);

  if (!shapes.swapped && !writer.swapped) {
    return fail(ErrorCode::kInvalidArgument,
                "3-D expert factors: input and output are equally wide and nothing in "
                "adapter_config.json tells the orientation; save the adapter with PEFT 0.19.1 or "
                "later");
  }
  reading.swapped = shapes.swapped ? *shapes.swapped : *writer.swapped;
  reading.evidence.push_back((shapes.swapped ? "shapes: " : "by the writer: ") +
                             orientation(reading.swapped));

  if (wish != ExpertLayout::kAuto) {
    reading.grouped = wish == ExpertLayout::kGrouped;
    reading.evidence.push_back("the column order of B was given by --lora-expert-layout");
    if (writer.grouped && *writer.grouped != reading.grouped) {
      reading.warnings.push_back(
          fmt::format("--lora-expert-layout overrides the evidence: {}", writer.why));
    }
    return reading;
  }
  if (!shapes.order_is_visible) {
    reading.evidence.push_back("rank 1 per expert: both column orders of B are the same");
    return reading;
  }
  if (writer.why.empty()) {
    return fail(
        ErrorCode::kInvalidArgument,
        "3-D expert factors: nothing in adapter_config.json tells the column order of B; {}",
        kRemedy);
  }
  if (!writer.grouped) {
    return fail(ErrorCode::kInvalidArgument, "3-D expert factors: {}; {}", writer.why, kRemedy);
  }
  if (writer.swapped && *writer.swapped != reading.swapped) {
    return fail(ErrorCode::kInvalidArgument,
                "3-D expert factors: the evidence conflicts: {}, but {}; {}", writer.why,
                orientation(reading.swapped), kRemedy);
  }
  reading.grouped = *writer.grouped;
  return reading;
}

}  // namespace braid
