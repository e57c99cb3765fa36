#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "grammar/code_points.h"
#include "grammar/network.h"
#include "grammar/regex_syntax.h"

namespace braid::grammar {

// How a character is written.
enum class Encoding {
  kUtf8,        // as it is
  kJsonString,  // inside a JSON string: as it is, or by the shortest escape where it needs one
};

// Each adds a part to the network that starts at `from`, and returns the state behind it. Nothing
// leads back into `from`, so that several parts may start at one state.

StateId add_text(NetworkBuilder& net, StateId from, std::string_view bytes);

// One character of the set.
StateId add_characters(NetworkBuilder& net, StateId from, const CodePointSet& set,
                       Encoding encoding);

// `add_part(from)` min to max times (max < 0: without end), where each part reads at least a byte
// unless part_is_nullable. The part must be made of the same states each time.
StateId add_repeated(NetworkBuilder& net, StateId from, int32_t min, int32_t max,
                     bool part_is_nullable, const std::function<StateId(StateId)>& add_part);

// A text that the whole expression matches.
StateId add_regex(NetworkBuilder& net, StateId from, const Regex& regex, Encoding encoding);

// A text in which the expression matches somewhere, as JSON Schema reads "pattern".
StateId add_regex_search(NetworkBuilder& net, StateId from, const Regex& regex, Encoding encoding);

}  // namespace braid::grammar
