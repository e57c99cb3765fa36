#include "apps/bench_json.h"

#include "apps/commands.h"
#include "base/file.h"
#include "base/json.h"

namespace braid::apps {

void write_bench_json(const std::string& file, const Json& json) {
  if (file.empty()) return;
  auto written = write_file(file, json.dump(1) + "\n");
  if (!written) leave(written.error().message);
}

}  // namespace braid::apps
