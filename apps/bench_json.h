#pragma once

#include <string>

#include "base/json_fwd.h"

namespace braid::apps {

// Writes what a benchmark measured, if a file was asked for; leave()s where that fails.
void write_bench_json(const std::string& file, const Json& json);

}  // namespace braid::apps
