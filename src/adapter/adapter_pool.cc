#include "adapter/adapter_pool.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/check.h"

namespace braid {
namespace {

constexpr size_t kPageBytes = AdapterImage::kPageBytes;

// Of a copy until others have their turn.
constexpr size_t kTurnBytes = 2 * PinnedBuffer::kPiece;

size_t bytes_of_pages(int64_t num_pages) { return static_cast<size_t>(num_pages) * kPageBytes; }

const AdapterImage& image_of(const Adapter& adapter) {
  BRAID_CHECK(adapter.image != nullptr);
  return *adapter.image;
}

// The first page of each part, -1 for one without pages; empty when there is no room for all.
std::optional<std::vector<int64_t>> take_pages(PageRuns& free, const AdapterImage& image) {
  std::vector<int64_t> pages;
  for (const AdapterImage::Part& part : image.parts) {
    const auto first = part.num_pages > 0 ? free.take(part.num_pages) : -1;
    if (!first) return std::nullopt;
    pages.push_back(*first);
  }
  return pages;
}

void give_pages_back(PageRuns& free, const AdapterImage& image, std::span<const int64_t> pages) {
  for (size_t i = 0; i < pages.size(); ++i) {
    if (image.parts[i].num_pages > 0) free.give_back(pages[i], image.parts[i].num_pages);
  }
}

// Calls f with every member of the entries and the table that holds it.
template <class F>
void for_each_member(F&& f) {
  f(&LayerAdapterEntries::experts, &LayerAdapterTables::experts);
  f(&LayerAdapterEntries::qkv_proj, &LayerAdapterTables::qkv_proj);
  f(&LayerAdapterEntries::o_proj, &LayerAdapterTables::o_proj);
  f(&LayerAdapterEntries::router, &LayerAdapterTables::router);
  f(&LayerAdapterEntries::gate_up_proj, &LayerAdapterTables::gate_up_proj);
  f(&LayerAdapterEntries::down_proj, &LayerAdapterTables::down_proj);
}

}  // namespace

AdapterPool::AdapterPool(const ModelConfig& config, const Options& options, const Stream& compute)
    : config_(config),
      options_(options),
      compute_(compute),
      memory_(options.device_bytes / kPageBytes * kPageBytes),
      free_pages_(static_cast<int64_t>(options.device_bytes / kPageBytes)),
      contents_(static_cast<size_t>(options.num_slots)) {
  BRAID_CHECK_GE(config.num_hidden_layers, 1);
  lay_out_tables();
  thread_ = std::thread([this] { run(); });
}

AdapterPool::~AdapterPool() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  has_work_.notify_all();
  thread_.join();
}

void AdapterPool::lay_out_tables() {
  const auto num_slots = contents_.size();
  const auto num_layers = static_cast<size_t>(config_.num_hidden_layers);
  const size_t slot_bytes = num_layers * sizeof(LayerAdapterEntries) + sizeof(OuterAdapterEntries);
  tables_memory_ = DeviceBuffer(num_slots * slot_bytes);
  tables_memory_.fill(0);
  auto* next = tables_memory_.as<uint8_t>();
  const auto take = [&]<class Slot>(const Slot*& table) {
    table = reinterpret_cast<const Slot*>(next);
    next += num_slots * sizeof(Slot);
  };
  // One kind for all layers, so that a slot's entries lie at equal distances.
  tables_.layers.resize(num_layers);
  for_each_member([&](auto, auto table) {
    for (LayerAdapterTables& layer : tables_.layers) take(layer.*table);
  });
  take(tables_.lm_head);
  take(tables_.embedding);

  // A power of two, so that no slot's lie in two pieces of pinned memory.
  entries_stride_ = std::bit_ceil(slot_bytes);
  entries_ = PinnedBuffer(num_slots * entries_stride_);
}

uint8_t* AdapterPool::page(int64_t number) const {
  return memory_.as<uint8_t>() + bytes_of_pages(number);
}

const std::unique_ptr<AdapterPool::Content>& AdapterPool::content(int32_t slot) const {
  return contents_.at(static_cast<size_t>(slot));
}

Result<std::shared_ptr<const Adapter>> AdapterPool::pack(const Adapter& adapter) const {
  auto image = make_adapter_image(adapter, config_, options_.shapes,
                                  static_cast<int64_t>(memory_.bytes() / kPageBytes));
  if (!image) return pass_on(image);
  auto packed = std::make_shared<Adapter>(adapter);
  const auto forget = [](LoraPair& pair) { pair.a = pair.b_t = nullptr; };
  for (LayerLora& layer : packed->layers) {
    for (LoraPair& pair : layer.linear) forget(pair);
    for (ExpertLora& expert : layer.experts) {
      for (LoraPair* pair : {&expert.gate, &expert.up, &expert.down}) forget(*pair);
    }
  }
  forget(packed->lm_head);
  packed->embedding.a_t = packed->embedding.b = nullptr;
  packed->storage.clear();
  packed->bytes = (*image)->bytes.bytes();
  packed->image = std::move(*image);
  return packed;
}

bool AdapterPool::has_room(const Adapter& adapter, std::span<const int32_t> emptied) const {
  PageRuns free = free_pages_;
  for (const int32_t slot : emptied) {
    if (const auto& old = content(slot)) give_pages_back(free, *old->image, old->pages);
  }
  return take_pages(free, image_of(adapter)).has_value();
}

void AdapterPool::fill(int32_t slot, const Adapter& adapter) {
  BRAID_CHECK(content(slot) == nullptr);
  auto filled = std::make_unique<Content>();
  filled->slot = slot;
  filled->image = &image_of(adapter);
  auto pages = take_pages(free_pages_, *filled->image);
  BRAID_CHECK(pages.has_value());
  filled->pages = std::move(*pages);
  filled->may_begin.record(compute_);
  {
    const std::lock_guard lock(mutex_);
    to_copy_.push_back(filled.get());
  }
  has_work_.notify_all();
  contents_[static_cast<size_t>(slot)] = std::move(filled);
}

void AdapterPool::empty(int32_t slot) {
  if (!content(slot)) return;
  wait_until_ready(slot);
  give_pages_back(free_pages_, *content(slot)->image, content(slot)->pages);
  contents_[static_cast<size_t>(slot)].reset();
}

bool AdapterPool::is_ready(int32_t slot) const {
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(failure_);
  return !content(slot) || content(slot)->has_arrived;
}

void AdapterPool::wait_until_ready(int32_t slot) const {
  std::unique_lock lock(mutex_);
  has_arrived_.wait(lock, [&] { return failure_ || !content(slot) || content(slot)->has_arrived; });
  if (failure_) std::rethrow_exception(failure_);
}

size_t AdapterPool::used_bytes() const {
  return memory_.bytes() - bytes_of_pages(free_pages_.num_free());
}

// ---- the copying thread ----

void AdapterPool::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    has_work_.wait(lock, [&] { return stops_ || !to_copy_.empty(); });
    if (stops_) return;
    Content& content = *to_copy_.front();
    to_copy_.pop_front();
    lock.unlock();
    std::exception_ptr failure;
    try {
      content.may_begin.wait();
      copy_parts(content);
      write_entries(content);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    content.has_arrived = true;
    if (failure) failure_ = failure;
    has_arrived_.notify_all();
  }
}

// Parts that are neighbours in the image and on the device are copied as one.
void AdapterPool::copy_parts(const Content& content) {
  const auto& parts = content.image->parts;
  for (size_t i = 0; i < parts.size();) {
    AdapterImage::Part joined = parts[i];
    const int64_t first = content.pages[i++];
    for (; i < parts.size() && content.pages[i] == first + joined.num_pages; ++i)
      joined.num_pages += parts[i].num_pages;
    if (joined.num_pages == 0) continue;
    size_t from = bytes_of_pages(joined.first_page);
    const size_t end = from + bytes_of_pages(joined.num_pages);
    for (uint8_t* to = page(first); from < end;) {
      const size_t bytes = std::min(end - from, kTurnBytes - from % kTurnBytes);
      copies_.upload(to, content.image->bytes, from, bytes);
      copies_.wait();  // others' turn
      to += bytes;
      from += bytes;
    }
  }
}

void AdapterPool::write_entries(const Content& content) {
  const AdapterImage& image = *content.image;
  const size_t num_layers = image.layers.size();
  const auto part = [&](size_t i) {
    return image.parts[i].num_pages > 0 ? page(content.pages[i]) : memory_.as<uint8_t>();
  };
  const auto slot = static_cast<size_t>(content.slot);
  auto* const layers =
      reinterpret_cast<LayerAdapterEntries*>(entries_.data() + slot * entries_stride_);
  for (size_t i = 0; i < num_layers; ++i) layers[i] = placed_at(image.layers[i], part(i));
  auto* const outer = reinterpret_cast<OuterAdapterEntries*>(layers + num_layers);
  *outer = placed_at(image.outer, part(num_layers));

  const auto send = [&]<class Slot>(const Slot* table, const Slot& entry, size_t num_rows) {
    const auto* const from = reinterpret_cast<const uint8_t*>(&entry);
    copies_.upload({.to = const_cast<Slot*>(table) + slot,
                    .to_stride = contents_.size() * sizeof(Slot),
                    .from_offset = static_cast<size_t>(from - entries_.data()),
                    .from_stride = sizeof(LayerAdapterEntries),
                    .row_bytes = sizeof(Slot),
                    .num_rows = num_rows},
                   entries_);
  };
  for_each_member([&](auto entry, auto table) {
    send(tables_.layers[0].*table, layers[0].*entry, num_layers);
  });
  send(tables_.lm_head, outer->lm_head, 1);
  send(tables_.embedding, outer->embedding, 1);
  copies_.wait();
}

}  // namespace braid
