#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "braid/engine.h"
#include "checkpoint/model_config.h"
#include "tests/adapter/adapter_builder.h"
#include "tests/engine/soak.h"
#include "tests/engine/toy_engine.h"

namespace braid::test {

// What a soak (soak.h) is made of: a model, adapters, and requests with their answers.

// Adapters are known by names; each name has a content, but the last one has two in turn.
inline constexpr int kSoakContents = 8, kSoakNames = 7;
inline constexpr int kBaseName = -1, kSwappedName = kSoakNames - 1;
std::vector<int> contents_of(int name);

// The folder of a tiny model without weights, and in it a folder for each content of an adapter:
// ranks 4 to 32, on attention, every second one on the experts too.
class SoakFolder {
 public:
  explicit SoakFolder(Architecture architecture);

  const std::filesystem::path& model() const { return folder_.path(); }
  std::filesystem::path adapter(int content) const;

 private:
  void write(const std::string& file, const Json& json);
  void write_adapter(int content);

  const bool is_mixtral_;
  TempFolder folder_;
};

// A request, and what it gives alone.
struct SoakCase {
  int name = kBaseName;  // of its adapter
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  std::map<int, Reply> answer_of_content;  // of each content of the name
};

// Requests of all kinds: prompts with common beginnings, tokens that a device can pick and others.
std::vector<SoakCase> make_soak_cases(int32_t count, uint64_t seed);

// Of the adapters as the engine holds them, bytes.
struct SoakSizes {
  size_t largest = 0;
  size_t all = 0;
};

// Runs every case alone, one after the other, on an engine with room for everything and without a
// prefix cache. Throws where that does not work.
SoakSizes answer_alone(const SoakFolder& folder, const SoakOptions& options,
                       std::vector<SoakCase>& cases);

// Of an engine that has too few KV blocks, slots and bytes for what a soak asks of it.
EngineConfig short_of_everything(const SoakFolder& folder, const SoakOptions& options,
                                 const SoakSizes& adapters);

}  // namespace braid::test
