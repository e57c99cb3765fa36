#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace braid {

/// A registered adapter. It keeps its id when its content is replaced.
enum class AdapterId : int32_t { kBase = -1 };

enum class AdapterExpertLayout { kAuto, kPeft, kGrouped };

/// What a load makes of its name.
enum class LoadMode {
  kNew,           ///< the name must be free
  kReplace,       ///< the name must be taken: its adapter gets the new content
  kNewOrReplace,  ///< either
};

/// Of a load. One that replaces an adapter sets all of them anew.
struct AdapterOptions {
  AdapterExpertLayout layout = AdapterExpertLayout::kAuto;
  LoadMode mode = LoadMode::kNew;
  bool pinned = false;  ///< never evicted from host memory
  float share = 1.0f;   ///< [0.01, 100]; tokens it gets beside others that wait too; the base has 1
  bool confined = false;  ///< the folder is named by a stranger: it must lie in adapter_root
};

/// An adapter as the two files of a PEFT folder, in memory. Read during the call only.
struct AdapterBytes {
  std::string_view config_json;  ///< adapter_config.json
  std::string_view safetensors;  ///< adapter_model.safetensors
};

/// Where an adapter's factors are.
enum class AdapterTier {
  kDisk,  ///< not in memory; read again when a request needs them
  kHost,  ///< in host memory
  kSlot,  ///< in one of the max_adapters slots that steps read from
};

std::string_view name(AdapterTier tier);

/// Requests and tokens of an adapter, or of the base model alone.
struct AdapterCounts {
  int32_t running = 0;
  int32_t waiting = 0;        ///< accepted and not running, also while its adapter is read
  int64_t requests = 0;       ///< accepted so far
  int64_t prompt_tokens = 0;  ///< computed, without cached ones
  int64_t cached_tokens = 0;  ///< taken from the prefix cache
  int64_t generated_tokens = 0;
};

struct AdapterInfo {
  AdapterId id = AdapterId::kBase;
  std::string name;
  std::string source;  ///< folder as it was given; "" if it came from memory
  bool pinned = false;
  bool found_in_root = false;  ///< registered by resolve_adapter()
  AdapterTier tier = AdapterTier::kDisk;
  int32_t version = 0;  ///< 1 for the first content, one more for each replacement
  std::string hash;     ///< of the content, 32 hexadecimal digits; "" before the first load
  size_t bytes = 0;     ///< of the factors in memory; 0 before the first load
  int32_t rank = 0;     ///< the largest; 0 before the first load
  AdapterCounts counts;
  int64_t loads = 0;
  int64_t evictions = 0;                            ///< from host memory
  double load_seconds = 0.0;                        ///< of the last load
  std::chrono::system_clock::time_point loaded_at;  ///< the last load; epoch: none
  std::chrono::system_clock::time_point last_used;  ///< by a request; epoch: never
};

}  // namespace braid
