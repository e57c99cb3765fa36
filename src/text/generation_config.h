#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"

namespace braid::text {

// What a model's authors recommend for sampling; a field that the files do not set is empty.
struct GenerationConfig {
  std::optional<int32_t> bos_token_id;
  std::vector<int32_t> eos_token_ids;       // each ends a reply; sorted, none twice
  std::optional<float> temperature;         // >= 0; 0 when do_sample is false
  std::optional<int32_t> top_k;             // >= 0; 0 keeps all
  std::optional<float> top_p;               // (0, 1]
  std::optional<float> min_p;               // [0, 1]
  std::optional<float> repetition_penalty;  // > 0

  // Reads generation_config.json; end tokens that it does not name come from config.json (also from
  // its "text_config"). A folder without either file gives an empty config.
  //
  // Errors  kCorrupt (not JSON, wrong type, value out of range)  kIo
  static Result<GenerationConfig> open(const std::filesystem::path& folder);

  // From the contents of the two files; null: there is none.
  static Result<GenerationConfig> from_json(const Json& generation, const Json& model);
};

}  // namespace braid::text
