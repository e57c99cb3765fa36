#include "tests/model/step_runner.h"

#include <algorithm>
#include <limits>
#include <random>

#include "batch/forward_batch.h"

namespace braid::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t length(const Sequence& sequence) { return static_cast<int32_t>(sequence.token_ids.size()); }

// The KV blocks of each sequence, of a shuffled pool.
std::vector<std::vector<int32_t>> scattered_blocks(const std::vector<Sequence>& sequences,
                                                   int32_t block_size, int32_t& num_blocks) {
  std::vector<std::vector<int32_t>> tables;
  num_blocks = 3;  // some that belong to nobody
  for (const Sequence& sequence : sequences) {
    tables.emplace_back((length(sequence) + block_size - 1) / block_size);
    num_blocks += static_cast<int32_t>(tables.back().size());
  }
  std::vector<int32_t> free_blocks(static_cast<size_t>(num_blocks));
  for (int32_t i = 0; i < num_blocks; ++i) free_blocks[static_cast<size_t>(i)] = i;
  std::shuffle(free_blocks.begin(), free_blocks.end(), std::mt19937(7));
  for (std::vector<int32_t>& table : tables) {
    for (int32_t& block : table) {
      block = free_blocks.back();
      free_blocks.pop_back();
    }
  }
  return tables;
}

}  // namespace

std::vector<int32_t> random_tokens(const ModelConfig& config, int32_t length, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(length));
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % static_cast<uint64_t>(config.vocab_size));
  }
  return tokens;
}

Schedule all_at_once(const std::vector<Sequence>& sequences) {
  Schedule schedule(1);
  for (size_t s = 0; s < sequences.size(); ++s) {
    schedule[0].push_back({static_cast<int32_t>(s), length(sequences[s])});
  }
  return schedule;
}

Schedule chunked(const std::vector<Sequence>& sequences, int32_t chunk) {
  return prompts_and_replies(sequences, chunk, 0);
}

Schedule prompts_and_replies(const std::vector<Sequence>& sequences, int32_t chunk,
                             int32_t num_decodes) {
  Schedule schedule;
  std::vector<int32_t> done(sequences.size(), 0);
  for (size_t step = 0;; ++step) {
    std::vector<Chunk> chunks;
    bool finished = true;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const int32_t left = length(sequences[s]) - done[s];
      finished = finished && left == 0;
      if (left == 0 || step < s % 2 * s) continue;
      const bool is_decode = left <= num_decodes;
      const int32_t count = is_decode ? 1 : std::min(left - num_decodes, chunk);
      chunks.push_back({static_cast<int32_t>(s), count, is_decode});
      done[s] += count;
    }
    if (finished) return schedule;
    std::ranges::stable_partition(chunks, &Chunk::is_decode);
    schedule.push_back(std::move(chunks));
  }
}

int32_t num_kv_blocks(const std::vector<Sequence>& sequences, int32_t kv_block_size) {
  int32_t num_blocks = 0;
  scattered_blocks(sequences, kv_block_size, num_blocks);
  return num_blocks;
}

std::vector<std::vector<float>> run_steps(const std::vector<Sequence>& sequences,
                                          const Schedule& schedule, const StepOptions& options,
                                          const Forward& forward) {
  const int32_t block_size = options.kv_block_size;
  int32_t num_blocks = 0;
  const auto tables = scattered_blocks(sequences, block_size, num_blocks);
  std::vector<std::vector<float>> logits(sequences.size());
  std::vector<int32_t> done(sequences.size(), 0);
  for (const std::vector<Chunk>& chunks : schedule) {
    ForwardBatch batch;
    for (const std::vector<int32_t>& table : tables) {
      batch.max_kv_blocks = std::max(batch.max_kv_blocks, static_cast<int32_t>(table.size()));
    }
    batch.query_indptr.push_back(0);
    for (const Chunk& chunk : chunks) {
      const auto s = static_cast<size_t>(chunk.sequence);
      for (int32_t i = 0; i < chunk.num_tokens; ++i) {
        const int32_t position = done[s]++;
        const int32_t block = tables[s][static_cast<size_t>(position / block_size)];
        const bool is_last = i + 1 == chunk.num_tokens;
        if (!options.only_last_rows || is_last) batch.logits_token.push_back(batch.num_tokens());
        batch.token_ids.push_back(sequences[s].token_ids[static_cast<size_t>(position)]);
        batch.positions.push_back(position);
        batch.adapter_slot_of_token.push_back(sequences[s].adapter_slot);
        batch.kv_slot_of_token.push_back(block * block_size + position % block_size);
        batch.num_decodes += chunk.is_decode ? 1 : 0;
        if (!chunk.is_decode && !is_last) continue;
        batch.query_indptr.push_back(batch.num_tokens());
        batch.context_len.push_back(done[s]);
        batch.block_table.insert(batch.block_table.end(), tables[s].begin(), tables[s].end());
        batch.block_table.resize(
            batch.context_len.size() * static_cast<size_t>(batch.max_kv_blocks), -1);
      }
    }
    const std::vector<float> out = forward(batch);
    if (chunks.empty()) continue;
    const size_t vocab = out.size() / batch.logits_token.size();
    size_t row = 0;
    for (const Chunk& chunk : chunks) {
      std::vector<float>& of_sequence = logits[static_cast<size_t>(chunk.sequence)];
      const size_t end = row + (options.only_last_rows ? 1 : static_cast<size_t>(chunk.num_tokens));
      of_sequence.insert(of_sequence.end(), out.begin() + static_cast<int64_t>(row * vocab),
                         out.begin() + static_cast<int64_t>(end * vocab));
      row = end;
    }
  }
  return logits;
}

StepRunner::StepRunner(Model& model, int32_t num_threads, ops::Backend backend,
                       int32_t kv_block_size, Rounding rounding)
    : model_(model),
      pool_(num_threads),
      context_{.backend = backend, .pool = &pool_, .rounding = rounding},
      options_{.kv_block_size = kv_block_size} {}

std::vector<std::vector<float>> StepRunner::run(const std::vector<Sequence>& sequences,
                                                const Schedule& schedule,
                                                const AdapterSlots* adapters) {
  const ModelConfig& config = model_.config();
  const auto vocab = static_cast<size_t>(config.vocab_size);
  const int32_t num_blocks = num_kv_blocks(sequences, options_.kv_block_size);
  KvCache kv({.num_layers = config.num_hidden_layers,
              .num_blocks = num_blocks,
              .block_size = options_.kv_block_size,
              .num_kv_heads = config.num_key_value_heads,
              .head_dim = config.head_dim});
  const int64_t layer_elements =
      int64_t{num_blocks} * options_.kv_block_size * config.num_key_value_heads * config.head_dim;
  for (int32_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    std::fill_n(kv.keys(layer), layer_elements, kNan);
    std::fill_n(kv.values(layer), layer_elements, kNan);
  }
  return run_steps(sequences, schedule, options_, [&](const ForwardBatch& batch) {
    std::vector<float> out(batch.logits_token.size() * vocab, kNan);
    model_.forward(context_, batch, adapters, kv, out.data());
    return out;
  });
}

}  // namespace braid::test
