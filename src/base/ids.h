#pragma once

#include <cstdint>

namespace braid {

// In `adapter_slot_of_token`: the token runs on the base model alone.
inline constexpr int32_t kNoAdapter = -1;

// In `expert_of_pair` and `topk_ids`: the pair is not computed and adds nothing.
inline constexpr int32_t kNoExpert = -1;

}  // namespace braid
