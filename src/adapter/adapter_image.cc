#include "adapter/adapter_image.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <new>
#include <span>
#include <thread>
#include <utility>

#include "base/check.h"
#include "kernels/elementwise/pack.h"
#include "kernels/linear/pack.h"
#include "kernels/moe_gemm/pack.h"

namespace braid {
namespace {

constexpr size_t kModuleAlignment = 256;  // whole lines of memory for copies by TMA

constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// ---- factors as wide as the device's matrices ----

// Factors with zeros at the ends of their rows. Equal pointers give equal pointers, so that shared
// factors stay shared.
class WidenedFactors {
 public:
  LoraPair widen(LoraPair pair, int32_t in, int32_t wide_in, int32_t out, int32_t wide_out) {
    pair.a = widen(pair.a, pair.rank, in, wide_in);
    pair.b_t = widen(pair.b_t, pair.rank, out, wide_out);
    return pair;
  }

 private:
  const Bf16* widen(const Bf16* factor, int32_t rank, int32_t cols, int32_t wide_cols) {
    BRAID_CHECK_LE(cols, wide_cols);
    if (rank == 0 || cols == wide_cols) return factor;
    std::vector<Bf16>& wide = wide_[{factor, wide_cols}];
    if (wide.empty()) {
      wide.resize(static_cast<size_t>(rank) * static_cast<size_t>(wide_cols));
      for (int64_t r = 0; r < rank; ++r)
        std::copy_n(factor + r * cols, cols, wide.data() + r * wide_cols);
    }
    return wide.data();
  }

  std::map<std::pair<const Bf16*, int32_t>, std::vector<Bf16>> wide_;
};

// ---- modules ----

// Packed modules on their way into a part of an image.
class PartBuilder {
 public:
  // Where the module will begin in the part; `write` is to fill its bytes there.
  const void* add(size_t num_bytes, std::function<void(uint8_t*)> write) {
    const size_t begin = round_up(num_bytes_, kModuleAlignment);
    modules_.push_back({begin, std::move(write)});
    num_bytes_ = begin + num_bytes;
    return reinterpret_cast<const void*>(begin);
  }

  size_t num_bytes() const { return num_bytes_; }

  void write(uint8_t* part) const {
    for (const Module& module : modules_) module.write(part + module.begin);
  }

 private:
  struct Module {
    size_t begin = 0;
    std::function<void(uint8_t*)> write;
  };
  std::vector<Module> modules_;
  size_t num_bytes_ = 0;
};

template <class Values>
std::function<void(uint8_t*)> copy_of(Values values) {
  return [values = std::move(values)](uint8_t* out) {
    std::memcpy(out, values.data(), values.size() * sizeof(values[0]));
  };
}

kernels::LinearAdapterSlot placed(const kernels::LinearAdapterSlot& slot, const void* at) {
  return kernels::PackedLinearAdapter{.bytes = {}, .slot = slot}.placed_at(at);
}
kernels::MoeAdapterSlot placed(const kernels::MoeAdapterSlot& slot, const void* at) {
  return kernels::MoeAdapterLayout{.slot = slot}.placed_at(at);
}
kernels::EmbeddingAdapterSlot placed(const kernels::EmbeddingAdapterSlot& slot, const void* at) {
  return kernels::PackedEmbeddingAdapter{.values = {}, .slot = slot}.placed_at(at);
}

struct Slice {
  const LoraPair& pair;
  int32_t out = 0;  // of the model
};

kernels::LinearAdapterSlot add_linear(PartBuilder& part, const kernels::LinearShape& shape,
                                      int32_t in, std::span<const Slice> slices) {
  if (std::ranges::all_of(slices, [](const Slice& s) { return s.pair.rank == 0; })) return {};
  WidenedFactors factors;
  std::vector<LoraPair> pairs;
  for (size_t s = 0; s < slices.size(); ++s)
    pairs.push_back(factors.widen(slices[s].pair, in, shape.in, slices[s].out, shape.slice_out[s]));
  auto packed = kernels::pack_linear_adapter(shape, pairs);
  const size_t num_bytes = packed.bytes.size();
  return placed(packed.slot, part.add(num_bytes, copy_of(std::move(packed.bytes))));
}

kernels::MoeAdapterSlot add_experts(PartBuilder& part, const kernels::MoeSizes& sizes,
                                    const ModelConfig& config,
                                    const std::vector<ExpertLora>& experts) {
  if (experts.empty()) return {};
  BRAID_CHECK_EQ(experts.size(), static_cast<size_t>(sizes.all_experts()));
  const int32_t hidden = config.hidden_size, wide_hidden = sizes.hidden_size;
  const int32_t width = config.moe_intermediate_size, wide_width = sizes.moe_intermediate_size;
  struct Source {
    WidenedFactors factors;
    std::vector<ExpertLora> experts;
  };
  const auto source = std::make_shared<Source>();
  for (const ExpertLora& e : experts) {
    source->experts.push_back(
        {.gate = source->factors.widen(e.gate, hidden, wide_hidden, width, wide_width),
         .up = source->factors.widen(e.up, hidden, wide_hidden, width, wide_width),
         .down = source->factors.widen(e.down, width, wide_width, hidden, wide_hidden)});
  }
  const auto layout = kernels::moe_adapter_layout(sizes, source->experts.data());
  if (layout.bytes == 0) return {};
  return layout.placed_at(part.add(static_cast<size_t>(layout.bytes), [=](uint8_t* out) {
    kernels::pack_moe_adapter(sizes, source->experts.data(), layout, out);
  }));
}

LayerAdapterEntries add_layer(PartBuilder& part, const LayerLora& layer, const ModelConfig& config,
                              const AdapterShapes& shapes) {
  const auto pair = [&](LoraTarget target) -> const LoraPair& {
    return layer.linear[static_cast<size_t>(target)];
  };
  const auto linear = [&](const kernels::LinearShape& shape, int32_t in,
                          std::initializer_list<Slice> slices) {
    return add_linear(part, shape, in, {slices.begin(), slices.size()});
  };
  const int32_t hidden = config.hidden_size, width = config.intermediate_size;
  return {
      .experts = add_experts(part, shapes.moe, config, layer.experts),
      .qkv_proj = linear(shapes.qkv_proj, hidden,
                         {{pair(LoraTarget::kQProj), config.q_size()},
                          {pair(LoraTarget::kKProj), config.kv_size()},
                          {pair(LoraTarget::kVProj), config.kv_size()}}),
      .o_proj = linear(shapes.o_proj, config.q_size(), {{pair(LoraTarget::kOProj), hidden}}),
      .router = linear(shapes.router, hidden, {{pair(LoraTarget::kRouter), config.num_experts}}),
      .gate_up_proj =
          linear(shapes.gate_up_proj, hidden,
                 {{pair(LoraTarget::kGateProj), width}, {pair(LoraTarget::kUpProj), width}}),
      .down_proj = linear(shapes.down_proj, width, {{pair(LoraTarget::kDownProj), hidden}})};
}

OuterAdapterEntries add_outer(PartBuilder& part, const Adapter& adapter, const ModelConfig& config,
                              const AdapterShapes& shapes) {
  OuterAdapterEntries entries;
  const Slice head{adapter.lm_head, config.vocab_size};
  entries.lm_head = add_linear(part, shapes.lm_head, config.hidden_size, {&head, 1});
  if (adapter.embedding.rank == 0) return entries;
  auto packed = kernels::pack_embedding_adapter(adapter.embedding, config.vocab_size,
                                                config.hidden_size, shapes.moe.hidden_size);
  const size_t num_bytes = packed.values.size() * sizeof(Bf16);
  entries.embedding = placed(packed.slot, part.add(num_bytes, copy_of(std::move(packed.values))));
  return entries;
}

// ---- the whole ----

// body(0) to body(count - 1), on a few threads.
void for_each_index(size_t count, const std::function<void(size_t)>& body) {
  constexpr size_t kMaxThreads = 8;
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < count; i = next++) body(i);
  };
  const size_t num_threads =
      std::min({size_t{std::thread::hardware_concurrency()}, kMaxThreads, count});
  std::vector<std::future<void>> others;
  for (size_t i = 1; i < num_threads; ++i) others.push_back(std::async(std::launch::async, work));
  work();
  for (auto& other : others) other.get();
}

Result<std::shared_ptr<const AdapterImage>> make_image(const Adapter& adapter,
                                                       const ModelConfig& config,
                                                       const AdapterShapes& shapes,
                                                       int64_t max_pages) {
  const size_t num_layers = adapter.layers.size();
  BRAID_CHECK_EQ(num_layers, static_cast<size_t>(config.num_hidden_layers));
  auto image = std::make_shared<AdapterImage>();
  image->layers.resize(num_layers);
  image->parts.resize(num_layers + 1);
  std::vector<PartBuilder> builders(num_layers + 1);
  for_each_index(builders.size(), [&](size_t i) {
    if (i < num_layers) {
      image->layers[i] = add_layer(builders[i], adapter.layers[i], config, shapes);
    } else {
      image->outer = add_outer(builders[i], adapter, config, shapes);
    }
  });

  int64_t num_pages = 0;
  for (size_t i = 0; i < builders.size(); ++i) {
    const size_t bytes = round_up(builders[i].num_bytes(), AdapterImage::kPageBytes);
    image->parts[i] = {.first_page = num_pages,
                       .num_pages = static_cast<int64_t>(bytes / AdapterImage::kPageBytes)};
    num_pages += image->parts[i].num_pages;
  }
  if (num_pages > max_pages) {
    const auto bytes = [](int64_t pages) {
      return static_cast<size_t>(pages) * AdapterImage::kPageBytes;
    };
    return fail(ErrorCode::kResourceExhausted,
                "adapter \"{}\" takes {} bytes of device memory, adapter_device_bytes has room for "
                "{}",
                adapter.name, bytes(num_pages), bytes(max_pages));
  }
  image->bytes = PinnedBuffer(static_cast<size_t>(num_pages) * AdapterImage::kPageBytes);
  for_each_index(builders.size(), [&](size_t i) {
    builders[i].write(image->bytes.data() +
                      static_cast<size_t>(image->parts[i].first_page) * AdapterImage::kPageBytes);
  });
  return image;
}

}  // namespace

AdapterShapes adapter_shapes(const ModelConfig& config) {
  constexpr auto up_to = [](int32_t n, int32_t unit) { return (n + unit - 1) / unit * unit; };
  const auto stacked = [&](int32_t in, std::initializer_list<int32_t> slices) {
    kernels::LinearShape shape = {.in = up_to(in, 16),
                                  .num_slices = static_cast<int32_t>(slices.size())};
    std::ranges::transform(slices, shape.slice_out, [&](int32_t n) { return up_to(n, 64); });
    return shape;
  };
  const auto single = [&](int32_t in, int32_t out) {
    kernels::LinearShape shape = {.in = up_to(in, 16), .num_slices = 1};
    shape.slice_out[0] = up_to(out, 16);
    return shape;
  };
  const int32_t hidden = config.hidden_size, width = config.intermediate_size;
  return {.moe = {.hidden_size = up_to(hidden, 128),
                  .moe_intermediate_size = up_to(config.moe_intermediate_size, 128),
                  .num_experts = config.num_experts,
                  .num_shared_experts = 0,
                  .top_k = config.top_k},
          .qkv_proj = stacked(hidden, {config.q_size(), config.kv_size(), config.kv_size()}),
          .o_proj = single(config.q_size(), hidden),
          .router = single(hidden, config.num_experts),
          .gate_up_proj = stacked(hidden, {width, width}),
          .down_proj = single(width, hidden),
          .lm_head = single(hidden, config.vocab_size)};
}

LayerAdapterEntries placed_at(const LayerAdapterEntries& entries, const void* part) {
  return {.experts = placed(entries.experts, part),
          .qkv_proj = placed(entries.qkv_proj, part),
          .o_proj = placed(entries.o_proj, part),
          .router = placed(entries.router, part),
          .gate_up_proj = placed(entries.gate_up_proj, part),
          .down_proj = placed(entries.down_proj, part)};
}

OuterAdapterEntries placed_at(const OuterAdapterEntries& entries, const void* part) {
  return {.lm_head = placed(entries.lm_head, part), .embedding = placed(entries.embedding, part)};
}

Result<std::shared_ptr<const AdapterImage>> make_adapter_image(const Adapter& adapter,
                                                               const ModelConfig& config,
                                                               const AdapterShapes& shapes,
                                                               int64_t max_pages) {
  if (adapter.max_rank > AdapterImage::kMaxRank) {
    return fail(ErrorCode::kUnsupported,
                "adapter \"{}\" has rank {}, the kernels of the device take up to {}", adapter.name,
                adapter.max_rank, AdapterImage::kMaxRank);
  }
  try {
    return make_image(adapter, config, shapes, max_pages);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kResourceExhausted,
                "adapter \"{}\": no memory to pack it for the device", adapter.name);
  }
}

}  // namespace braid
