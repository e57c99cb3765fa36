#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/token_text.h"
#include "grammar/vocabulary.h"
#include "model/model.h"

namespace braid::test {

// A model whose logits are a hash of all the KV entries a token sees, and whose KV entries are a
// hash of token, position, adapter and the entry before. So a block that is shared wrongly, lost,
// overwritten or of another adapter changes every later token, while equal histories give equal
// bits. 16-bit parts of the hash stand in the keys; the values hold their complement.
class ToyModel : public Model {
 public:
  static constexpr int32_t kVocabSize = 97;
  static constexpr int32_t kNumHeads = 2;
  static constexpr int32_t kHeadDim = 2;  // 4 elements of 16 bits each: one 64-bit hash

  ToyModel();
  const ModelConfig& config() const override { return config_; }
  size_t step_bytes(int64_t num_tokens) const override { return static_cast<size_t>(num_tokens); }
  void forward(const ops::Context& context, const ForwardBatch& batch, const AdapterSlots* adapters,
               KvCache& kv, float* logits) override;

  static KvCacheShape kv_shape(int32_t num_blocks, int32_t block_size);

  // Called at the start of forward(); may block or throw.
  std::function<void(const ForwardBatch&)> on_forward;
  int32_t poisoned_token = -1;  // logits of a sequence ending in it are NaN
  int32_t largest_batch = 0;    // tokens, of any step so far

 private:
  ModelConfig config_;
};

// An adapter without factors; the toy model tells adapters apart by their hash.
std::shared_ptr<const Adapter> toy_adapter(uint64_t number);

// Token t reads as the letter 'a' + t % 26, but tokens from 90 are halves of a two-byte character:
// an even one its first byte, an odd one its second.
std::unique_ptr<TokenText> make_toy_text();

// The same pieces for grammars.
std::shared_ptr<const grammar::Vocabulary> toy_vocabulary(const std::vector<int32_t>& eos_tokens);

}  // namespace braid::test
