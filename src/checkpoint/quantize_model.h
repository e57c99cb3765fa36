#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "quant/weight_matrix.h"

namespace braid {

struct QuantizeOptions {
  WeightFormat format = WeightFormat::kFp8Block128;  // or kNvfp4
  // Modules that stay as they are besides those that always do: shell patterns of names such as
  // "model.layers.0.self_attn.q_proj". What engines fuse is left out as a whole or not at all.
  std::vector<std::string> exclude;
  int32_t num_threads = 0;                 // 0: one for each core
  int64_t shard_bytes = int64_t{4} << 30;  // largest shard, unless one tensor is larger
  // (done, total) in weight elements; called from several threads, one at a time.
  std::function<void(int64_t done, int64_t total)> progress;
};

// What quantising did to one matrix: ||w' - w|| / ||w||.
struct ModuleError {
  std::string module;
  double relative_l2 = 0;
};

struct QuantizeReport {
  std::vector<ModuleError> modules;  // in the order of weight_table
  int64_t bytes_before = 0;          // of all tensors
  int64_t bytes_after = 0;
  int32_t num_shards = 0;
};

// Writes a quantised copy of a BF16, F16 or F32 checkpoint that other engines read too: FP8 as
// DeepSeek-V3 and Qwen3 spell it (`weight_scale_inv`, float), NVFP4 as ModelOpt does for weights
// alone (`weight_scale`, `weight_scale_2`). Attention and MLP projections and experts are
// quantised; router, norms, embeddings and head are copied. Gate and up, and q, k and v, share one
// weight_scale_2. Fused 3-D experts are written expert by expert. Other files of the folder
// (tokenizer, templates, ...) are copied, weights in other file formats are not.
//
// The result is made beside out_dir and renamed, so out_dir is there whole or not at all.
// Holds one shard in memory.
//
// Errors  those of read_model_config and open_checkpoint
//         kInvalidArgument  the checkpoint is quantised already, out_dir exists and is not empty,
//                           a weight is NaN or infinite, NVFP4 with columns no multiple of 16, a
//                           pattern of `exclude` that fits no module, or leaves out a part of what
//                           engines fuse or the checkpoint has in one tensor
//         kIo
Result<QuantizeReport> quantize_checkpoint(const std::filesystem::path& model_dir,
                                           const std::filesystem::path& out_dir,
                                           const QuantizeOptions& options);

}  // namespace braid
