#include "braid/engine.h"

#include <algorithm>
#include <map>
#include <set>

#include "adapter/adapter_pool.h"
#include "adapter/adapter_store.h"
#include "adapter/dummy_adapter.h"
#include "adapter/validate.h"
#include "base/check.h"
#include "cpu/read_rate.h"
#include "engine/engine_config.h"
#include "engine/engine_thread.h"
#include "engine/open_runner.h"
#include "engine/text_side.h"
#include "model/step_bytes.h"

namespace braid {
namespace {

// "" stays "".
Result<std::filesystem::path> canonical_root(const std::filesystem::path& root) {
  if (root.empty()) return root;
  std::error_code error;
  auto folder = std::filesystem::canonical(root, error);
  if (!error && std::filesystem::is_directory(folder, error)) return folder;
  return fail(ErrorCode::kNotFound, "adapter_root is {}, it must name a folder", root.string());
}

}  // namespace

std::string_view name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  BRAID_UNREACHABLE(static_cast<int>(reason));
}

struct Engine::Impl {
  EngineConfig config;
  TextSide text;
  std::string device;
  size_t kv_bytes_per_token = 0;

  // Callbacks may submit() until it has stopped, which uses the rest; the store's last words go to
  // it. So it stops first and is destroyed after the store.
  std::unique_ptr<EngineThread> thread;
  std::unique_ptr<AdapterStore> store;

  // What only the engine's thread knows of an adapter.
  void add_slot(AdapterInfo& info, const std::set<std::string>& hashes_in_slots) const {
    if (info.tier == AdapterTier::kHost && hashes_in_slots.contains(info.hash))
      info.tier = AdapterTier::kSlot;
  }

  std::set<std::string> hashes_in_slots() const {
    std::set<std::string> hashes;
    for (const AdapterHash& hash : thread->hashes_in_slots()) hashes.insert(to_string(hash));
    return hashes;
  }
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

// Stopped before any pointer on the way to it changes: the last callbacks still call submit().
Engine::~Engine() { impl_->thread->stop(); }

Result<std::unique_ptr<Engine>> Engine::open(const EngineConfig& config) {
  if (auto status = check(config); !status) return pass_on(status);
  auto root = canonical_root(config.adapter_root);
  if (!root) return pass_on(root);
  auto model_config = read_model_config(config.model_dir);
  if (!model_config) return pass_on(model_config);
  auto text = TextSide::open(config.model_dir);
  if (!text) return pass_on(text);
  auto threads = std::make_unique<cpu::ThreadPool>(thread_count(config));
  auto opened = open_runner(config, *model_config, *threads);
  if (!opened) return pass_on(opened);

  std::function<Result<std::shared_ptr<const Adapter>>(const Adapter&)> pack;
#ifdef BRAID_HAS_CUDA
  if (const AdapterPool* pool = opened->runner->adapter_pool())
    pack = [pool](const Adapter& adapter) { return pool->pack(adapter); };
#endif

  auto impl = std::make_unique<Impl>();
  impl->config = config;
  impl->config.on_progress = {};  // only while open() works
  impl->text = std::move(*text);
  impl->device = std::move(opened->device);
  const KvCacheShape& kv_shape = opened->cache.shape;
  impl->kv_bytes_per_token = kv_shape.bytes_per_block() / static_cast<size_t>(kv_shape.block_size);
  impl->thread = std::make_unique<EngineThread>(
      std::move(threads), std::move(opened->runner), impl->text.token_text(),
      EngineThreadOptions{
          .scheduler = {.max_running = std::min(config.max_batch_size, config.max_batch_tokens),
                        .max_batch_tokens = config.max_batch_tokens,
                        .block_size = config.kv_block_size,
                        .num_blocks = opened->cache.shape.num_blocks,
                        .prefix_caching = config.prefix_caching,
                        .max_running_per_adapter = config.max_running_per_adapter},
          .max_adapters = config.max_adapters,
          .max_queued_requests = config.max_queued_requests,
          .max_context = opened->cache.max_context,
          .eos_tokens = impl->text.eos_tokens(),
          .vocabulary = impl->text.vocabulary(model_config->vocab_size),
          .on_step = config.on_step});
  std::error_code unresolved;  // then the path as given has to do
  const auto folder = std::filesystem::canonical(config.model_dir, unresolved);
  impl->store = std::make_unique<AdapterStore>(
      impl->thread->runner().config(),
      AdapterStore::Options{
          .host_bytes = config.adapter_host_bytes,
          .root = *root,
          .read = {.max_lora_rank = config.max_lora_rank,
                   .base_model_name = base_model_name(unresolved ? config.model_dir : folder)},
          .pack = std::move(pack),
          .on_change = [thread = impl->thread.get()] { thread->adapters_changed(); }});
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Result<AdapterId> Engine::add_adapter(std::string name, const std::filesystem::path& dir,
                                      const AdapterOptions& options) {
  return impl_->store->add(name, dir, options);
}

Result<AdapterId> Engine::add_adapter_bytes(std::string name, const AdapterBytes& bytes,
                                            const AdapterOptions& options) {
  return impl_->store->add(name, bytes, options);
}

Result<AdapterId> Engine::resolve_adapter(std::string_view name) {
  return impl_->store->resolve(name);
}

Status Engine::pin_adapter(AdapterId id, bool pinned) { return impl_->store->pin(id, pinned); }

std::vector<AdapterInfo> Engine::adapters() const {
  auto all = impl_->store->list();
  const auto hashes = impl_->hashes_in_slots();
  for (AdapterInfo& info : all) impl_->add_slot(info, hashes);
  return all;
}

Result<AdapterInfo> Engine::adapter(AdapterId id) const {
  auto info = impl_->store->info(id);
  if (info) impl_->add_slot(*info, impl_->hashes_in_slots());
  return info;
}

Result<AdapterId> Engine::add_dummy_adapter(std::string name, int32_t rank, uint64_t seed) {
  if (rank < 1 || rank > impl_->config.max_lora_rank) {
    return fail(ErrorCode::kInvalidArgument, "rank = {}, need 1 to max_lora_rank = {}", rank,
                impl_->config.max_lora_rank);
  }
  auto adapter = make_dummy_adapter(impl_->thread->runner().config(), name, rank, seed);
  AdapterReport report = {.layout = "random factors",
                          .bytes_resident = adapter->bytes,
                          .min_rank = rank,
                          .max_rank = rank};
  return impl_->store->add(name, {std::move(adapter), std::move(report)});
}

Result<AdapterReport> Engine::adapter_report(AdapterId id) const {
  return impl_->store->report(id);
}

Status Engine::remove_adapter(AdapterId id) { return impl_->store->remove(id); }

std::optional<AdapterId> Engine::find_adapter(std::string_view name) const {
  return impl_->store->find(name);
}

Result<RequestId> Engine::submit(Request request, OnTokens on_tokens) {
  if (request.adapter == AdapterId::kBase)
    return impl_->thread->submit(std::move(request), {}, std::move(on_tokens));
  auto lease = impl_->store->lease(request.adapter);
  if (!lease) return pass_on(lease);
  auto id = impl_->thread->submit(std::move(request), std::move(*lease), std::move(on_tokens));
  if (!id) impl_->thread->adapters_changed();  // the lease has ended
  return id;
}

Result<RequestId> Engine::submit(Request request) { return submit(std::move(request), {}); }

Status Engine::prepare_grammar(const OutputGrammar& grammar) {
  return impl_->thread->prepare_grammar(grammar);
}

void Engine::cancel(RequestId id) { impl_->thread->cancel(id); }

void Engine::wait_until_idle() { impl_->thread->wait_until_idle(); }

EngineStats Engine::stats() const {
  EngineStats stats = impl_->thread->stats();
  const auto totals = impl_->store->totals();
  stats.adapter_host_bytes = impl_->store->host_bytes();
  stats.adapter_loads = totals.loads;
  stats.adapter_failed_loads = totals.failed_loads;
  stats.adapter_evictions = totals.evictions;
  stats.adapter_load_seconds = totals.load_seconds;
  return stats;
}

SamplingParams Engine::default_sampling() const { return impl_->text.default_sampling(); }

void Engine::time_operations(bool on) { impl_->thread->time_operations(on); }

void Engine::flush_prefix_cache() { impl_->thread->flush_prefix_cache(); }

const std::string& Engine::device() const { return impl_->device; }

int32_t Engine::max_context() const { return impl_->thread->max_context(); }

int32_t Engine::vocab_size() const { return impl_->thread->runner().config().vocab_size; }

size_t Engine::decode_step_bytes(std::span<const AdapterId> adapter_of_token,
                                 int32_t context_len) const {
  const Runner& runner = impl_->thread->runner();
  size_t bytes = runner.step_bytes(static_cast<int64_t>(adapter_of_token.size()));
  bytes += adapter_of_token.size() * static_cast<size_t>(context_len) * impl_->kv_bytes_per_token;
  std::map<AdapterId, int64_t> tokens_of_adapter;
  for (const AdapterId id : adapter_of_token) ++tokens_of_adapter[id];
  for (const auto& [id, num_tokens] : tokens_of_adapter) {
    const auto adapter = impl_->store->resident(id);
    if (adapter && *adapter) bytes += adapter_step_bytes(runner.config(), **adapter, num_tokens);
  }
  impl_->thread->adapters_changed();  // they are held no longer
  return bytes;
}

double Engine::measure_read_rate() {
  if (const auto rate = impl_->thread->runner().measure_read_rate()) return *rate;
  cpu::ThreadPool pool(thread_count(impl_->config));
  return cpu::measure_read_rate(pool);
}

Result<size_t> Engine::adapter_bytes(AdapterId id) const {
  if (id == AdapterId::kBase) return 0;
  auto info = impl_->store->info(id);
  if (!info) return pass_on(info);
  return info->bytes;
}

Result<std::vector<int32_t>> Engine::tokenize(std::string_view text,
                                              bool add_special_tokens) const {
  return impl_->text.tokenize(text, add_special_tokens);
}

Result<std::string> Engine::detokenize(std::span<const int32_t> tokens,
                                       bool skip_special_tokens) const {
  return impl_->text.detokenize(tokens, skip_special_tokens);
}

std::string_view Engine::token_bytes(int32_t token) const { return impl_->text.token_bytes(token); }

Result<std::vector<int32_t>> Engine::apply_chat_template(std::string_view messages_json,
                                                         std::string_view options_json) const {
  return impl_->text.apply_chat_template(messages_json, options_json);
}

}  // namespace braid
