#pragma once

#include <optional>
#include <string>
#include <vector>

#include "adapter/lora_config.h"
#include "adapter/peft_reader.h"
#include "base/result.h"

namespace braid {

// How the 3-D `target_parameters` factors of a file are to be read.
struct ParameterReading {
  bool swapped = false;  // in and out changed places: A [E r, out], B [in, E r]
  bool grouped = false;  // B's column is expert * r + rank; otherwise rank * E + expert
  std::vector<std::string> evidence;
  std::vector<std::string> warnings;
};

// What the tensors say about it.
struct ParameterShapes {
  std::optional<bool> swapped;    // nothing: in == out for every parameter in the file
  bool order_is_visible = false;  // some parameter has more than one rank and one expert
};

// Decides from the shapes, the config's evidence about its writer and the caller's word; the table
// stands in docs/adapters.md. Never guesses.
//
// Errors  kInvalidArgument  the evidence is missing or contradicts itself; the message says what
// was
//                           seen and names --lora-expert-layout
Result<ParameterReading> read_expert_parameters(const LoraConfig& config,
                                                const ParameterShapes& shapes, ExpertLayout wish);

}  // namespace braid
