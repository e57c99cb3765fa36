#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "adapter/adapter.h"
#include "base/result.h"
#include "checkpoint/model_config.h"
#include "device/device.h"
#include "kernels/elementwise/elementwise_bf16.h"
#include "kernels/linear/linear_bf16.h"
#include "kernels/moe_gemm/moe_layer.h"

namespace braid {

// The modules of a model as they are on the device. Where sizes are larger than the model's own,
// the device pads with zeros, and so are factors.
struct AdapterShapes {
  kernels::MoeSizes moe;          // of mixture layers; hidden_size is the embedding's too
  kernels::LinearShape qkv_proj;  // slices q, k and v
  kernels::LinearShape o_proj;
  kernels::LinearShape router;        // of mixture layers
  kernels::LinearShape gate_up_proj;  // slices gate and up; of dense layers
  kernels::LinearShape down_proj;     // of dense layers
  kernels::LinearShape lm_head;
};

// The model's own sizes, rounded up to what the kernels take.
AdapterShapes adapter_shapes(const ModelConfig& config);

// What one adapter has on a layer, as the kernels take it; rank 0 where it has nothing.
struct LayerAdapterEntries {
  kernels::MoeAdapterSlot experts;
  kernels::LinearAdapterSlot qkv_proj;
  kernels::LinearAdapterSlot o_proj;
  kernels::LinearAdapterSlot router;
  kernels::LinearAdapterSlot gate_up_proj;
  kernels::LinearAdapterSlot down_proj;
};

// The same outside the layers.
struct OuterAdapterEntries {
  kernels::LinearAdapterSlot lm_head;
  kernels::EmbeddingAdapterSlot embedding;
};

// All of an adapter's factors in the order of the kernels, at its own ranks, to be copied to the
// device as they are. It consists of parts that may lie anywhere there, each in one piece: the
// layers, and what is outside them. Immutable after it is made.
struct AdapterImage {
  // Of device memory. Parts are whole pages, one behind the other in `bytes`.
  static constexpr size_t kPageBytes = size_t{16} << 10;

  static constexpr int32_t kMaxRank = 256;  // that the kernels take

  struct Part {
    int64_t first_page = 0;  // in the image
    int64_t num_pages = 0;   // 0: nothing is adapted
  };

  PinnedBuffer bytes;
  std::vector<Part> parts;                  // [num_hidden_layers + 1], the last of what is outside
  std::vector<LayerAdapterEntries> layers;  // their pointers are offsets from their part's begin
  OuterAdapterEntries outer;
};

// The same entries, their part lying at `part` on the device.
LayerAdapterEntries placed_at(const LayerAdapterEntries& entries, const void* part);
OuterAdapterEntries placed_at(const OuterAdapterEntries& entries, const void* part);

// Packs an adapter for devices on which it may take max_pages, on a few threads, which are as nice
// as the caller. Takes a core about two seconds per gigabyte.
//
// Errors  kResourceExhausted  it takes more; or there is no memory to pack it
//         kUnsupported        a rank that the kernels do not take
Result<std::shared_ptr<const AdapterImage>> make_adapter_image(const Adapter& adapter,
                                                               const ModelConfig& config,
                                                               const AdapterShapes& shapes,
                                                               int64_t max_pages);

}  // namespace braid
