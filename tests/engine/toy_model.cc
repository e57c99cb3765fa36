#include "tests/engine/toy_model.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/check.h"
#include "base/ids.h"

namespace braid::test {
namespace {

constexpr int32_t kParts = ToyModel::kNumHeads * ToyModel::kHeadDim;

// The finaliser of splitmix64.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

void write_entry(KvCache& kv, int32_t slot, uint64_t entry) {
  for (int32_t part = 0; part < kParts; ++part) {
    const auto bits = static_cast<uint16_t>(entry >> (16 * part));
    kv.keys(0)[slot * kParts + part] = bits;
    kv.values(0)[slot * kParts + part] = static_cast<uint16_t>(~bits);
  }
}

uint64_t read_entry(KvCache& kv, int32_t slot) {
  uint64_t entry = 0;
  for (int32_t part = 0; part < kParts; ++part) {
    const auto bits = static_cast<uint16_t>(kv.keys(0)[slot * kParts + part]);
    BRAID_CHECK_EQ(static_cast<float>(static_cast<uint16_t>(~bits)),
                   kv.values(0)[slot * kParts + part]);
    entry |= uint64_t{bits} << (16 * part);
  }
  return entry;
}

class ToyText : public TokenText {
 public:
  std::string push(int32_t token) override {
    if (token < 90) {
      is_open_ = false;
      return std::string(1, static_cast<char>('a' + token % 26));
    }
    if (token % 2 == 0) {
      is_open_ = true;
      return {};
    }
    const bool completes = std::exchange(is_open_, false);
    return completes ? "\xC3\xA9" : "?";
  }
  std::string flush() override { return std::exchange(is_open_, false) ? "\xEF\xBF\xBD" : ""; }

 private:
  bool is_open_ = false;
};

}  // namespace

ToyModel::ToyModel() {
  config_.num_hidden_layers = 1;
  config_.num_key_value_heads = kNumHeads;
  config_.head_dim = kHeadDim;
  config_.vocab_size = kVocabSize;
  config_.max_position_embeddings = 4096;
}

KvCacheShape ToyModel::kv_shape(int32_t num_blocks, int32_t block_size) {
  return {.num_layers = 1,
          .num_blocks = num_blocks,
          .block_size = block_size,
          .num_kv_heads = kNumHeads,
          .head_dim = kHeadDim};
}

void ToyModel::forward(const ops::Context&, const ForwardBatch& batch, const AdapterSlots* adapters,
                       KvCache& kv, float* logits) {
  if (on_forward) on_forward(batch);
  largest_batch = std::max(largest_batch, batch.num_tokens());
  const int32_t block_size = kv.shape().block_size;
  size_t row = 0;
  for (int32_t s = 0; s < batch.num_sequences(); ++s) {
    const auto slot_of = [&](int32_t position) {
      const int32_t block = batch.block_table[s * batch.max_kv_blocks + position / block_size];
      return block * block_size + position % block_size;
    };
    for (int32_t t = batch.query_indptr[s]; t < batch.query_indptr[s + 1]; ++t) {
      const int32_t position = batch.positions[t];
      const int32_t adapter_slot = batch.adapter_slot_of_token[t];
      BRAID_CHECK_EQ(batch.kv_slot_of_token[t], slot_of(position));
      BRAID_CHECK_EQ(position, batch.context_len[s] - (batch.query_indptr[s + 1] - t));
      const uint64_t adapter =
          adapter_slot == kNoAdapter ? 0 : adapters->get(adapter_slot)->hash.low;
      uint64_t entry = mix(adapter * 1000003 + static_cast<uint64_t>(batch.token_ids[t]));
      entry = mix(entry ^ static_cast<uint64_t>(position));
      if (position > 0) entry = mix(entry ^ read_entry(kv, slot_of(position - 1)));
      write_entry(kv, slot_of(position), entry);

      if (row == batch.logits_token.size() || batch.logits_token[row] != t) continue;
      uint64_t seen = 0;
      for (int32_t i = 0; i <= position; ++i) seen = mix(seen ^ read_entry(kv, slot_of(i)));
      for (int32_t v = 0; v < kVocabSize; ++v) {
        const uint64_t bits = mix(seen + static_cast<uint64_t>(v));
        float& logit = logits[row * kVocabSize + v];
        logit = static_cast<float>(bits >> 40) * 0x1p-24f * 8.0f - 4.0f;
        if (batch.token_ids[t] == poisoned_token) logit = std::numeric_limits<float>::quiet_NaN();
      }
      ++row;
    }
  }
  BRAID_CHECK_EQ(row, batch.logits_token.size());
}

std::shared_ptr<const Adapter> toy_adapter(uint64_t number) {
  Adapter adapter;
  adapter.name = "toy " + std::to_string(number);
  adapter.hash = {.high = 7, .low = number};
  adapter.layers.resize(1);
  return std::make_shared<const Adapter>(std::move(adapter));
}

std::shared_ptr<const grammar::Vocabulary> toy_vocabulary(const std::vector<int32_t>& eos_tokens) {
  static constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz";
  return std::make_shared<const grammar::Vocabulary>(ToyModel::kVocabSize, [&](int32_t id) {
    if (std::ranges::count(eos_tokens, id) > 0) return std::string_view();
    if (id < 90) return kLetters.substr(id % 26, 1);
    return std::string_view(id % 2 == 0 ? "\xC3" : "\xA9");
  });
}

std::unique_ptr<TokenText> make_toy_text() { return std::make_unique<ToyText>(); }

}  // namespace braid::test
