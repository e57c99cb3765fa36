#include "braid/engine.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "adapter/dummy_adapter.h"
#include "adapter/peft_reader.h"
#include "adapter/validate.h"
#include "base/check.h"
#include "checkpoint/weight_source.h"
#include "cpu/read_rate.h"
#include "engine/engine_config.h"
#include "engine/engine_thread.h"
#include "engine/text_side.h"
#include "model/model.h"
#include "model/step_bytes.h"

namespace braid {
namespace {

WeightFormat weight_format(DummyWeights weights) {
  switch (weights) {
    case DummyWeights::kBf16:
      return WeightFormat::kBf16;
    case DummyWeights::kFp8:
      return WeightFormat::kFp8Block128;
    case DummyWeights::kNvfp4:
      return WeightFormat::kNvfp4;
  }
  BRAID_UNREACHABLE(static_cast<int>(weights));
}

ExpertLayout expert_layout(AdapterExpertLayout layout) {
  switch (layout) {
    case AdapterExpertLayout::kAuto:
      return ExpertLayout::kAuto;
    case AdapterExpertLayout::kPeft:
      return ExpertLayout::kPeft;
    case AdapterExpertLayout::kGrouped:
      return ExpertLayout::kGrouped;
  }
  BRAID_UNREACHABLE(static_cast<int>(layout));
}

Result<std::unique_ptr<Model>> load_model(const EngineConfig& config, const ModelConfig& model) {
  std::unique_ptr<WeightSource> source;
  if (config.load_format == LoadFormat::kDummy) {
    source = make_dummy_weights(model, weight_format(config.dummy_weights), config.dummy_seed);
  } else {
    auto opened = open_checkpoint(config.model_dir, model);
    if (!opened) return pass_on(opened);
    source = std::move(*opened);
  }
  Model::Progress progress;
  if (config.on_progress) {
    progress = [&](int64_t done, int64_t total) { config.on_progress("load model", done, total); };
  }
  return Model::load(model, *source, progress);
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

std::string_view name(AdapterTier tier) {
  switch (tier) {
    case AdapterTier::kDisk:
      return "disk";
    case AdapterTier::kHost:
      return "host";
    case AdapterTier::kSlot:
      return "slot";
  }
  BRAID_UNREACHABLE(static_cast<int>(tier));
}

struct Engine::Impl {
  struct Registered {
    std::shared_ptr<const Adapter> adapter;
    AdapterReport report;
    AdapterInfo info;
  };

  EngineConfig config;
  std::string base_model_name;  // the folder's
  TextSide text;

  mutable std::mutex mutex;  // of the next three
  std::map<AdapterId, Registered> adapters;
  std::map<std::string, AdapterId, std::less<>> id_of_name;
  int32_t next_adapter_id = 0;

  // Last, so destroyed first: until it has stopped, callbacks may submit(), which uses the rest.
  std::unique_ptr<EngineThread> thread;

  Result<std::shared_ptr<const Adapter>> find(AdapterId id) const {
    if (id == AdapterId::kBase) return nullptr;
    const std::lock_guard lock(mutex);
    const auto found = adapters.find(id);
    if (found == adapters.end()) return not_there(id);
    return found->second.adapter;
  }

  static tl::unexpected<Error> not_there(AdapterId id) {
    return fail(ErrorCode::kNotFound, "there is no adapter with id {}", static_cast<int>(id));
  }

  static tl::unexpected<Error> name_taken(const std::string& name) {
    return fail(ErrorCode::kInvalidArgument,
                "adapter \"{}\" is already there; remove it first or choose another name", name);
  }

  Status check_name(const std::string& name, LoadMode mode) const {
    constexpr size_t kMaxBytes = 256;
    if (name.empty() || name.size() > kMaxBytes) {
      return fail(ErrorCode::kInvalidArgument,
                  "an adapter's name has {} bytes, accepted are 1 to {}", name.size(), kMaxBytes);
    }
    if (std::ranges::any_of(name, [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
      return fail(ErrorCode::kInvalidArgument, "an adapter's name has a control character");
    const std::lock_guard lock(mutex);
    return check_mode(name, mode);
  }

  // Under mutex.
  Status check_mode(const std::string& name, LoadMode mode) const {
    const bool is_taken = id_of_name.contains(name);
    if (is_taken && mode == LoadMode::kNew) return name_taken(name);
    if (!is_taken && mode == LoadMode::kReplace)
      return fail(ErrorCode::kNotFound, "there is no adapter \"{}\" to replace", name);
    return {};
  }

  Result<AdapterId> put(std::string name, Registered adapter, LoadMode mode) {
    const std::lock_guard lock(mutex);
    if (auto ok = check_mode(name, mode); !ok) return pass_on(ok);
    const auto known = id_of_name.find(name);
    const AdapterId id = known != id_of_name.end() ? known->second : AdapterId{next_adapter_id++};
    Registered& entry = adapters[id];
    adapter.info.version = entry.info.version + 1;
    adapter.info.loads = entry.info.loads + 1;
    adapter.info.id = id;
    adapter.info.name = name;
    adapter.info.tier = AdapterTier::kHost;
    adapter.info.hash = to_string(adapter.adapter->hash);
    adapter.info.bytes = adapter.adapter->bytes;
    adapter.info.rank = adapter.adapter->max_rank;
    adapter.info.loaded_at = std::chrono::system_clock::now();
    entry = std::move(adapter);
    id_of_name.emplace(std::move(name), id);
    return id;
  }

  AdapterReadOptions read_options(const std::string& name, const AdapterOptions& options) const {
    return {.name = name,
            .expert_layout = expert_layout(options.layout),
            .max_lora_rank = config.max_lora_rank,
            .base_model_name = base_model_name};
  }

  // The canonical folder, if it lies in the root.
  Result<std::filesystem::path> confine(const std::filesystem::path& dir) const {
    if (config.adapter_root.empty())
      return fail(ErrorCode::kInvalidArgument, "there is no adapter_root to load from");
    std::error_code error;
    const auto root = std::filesystem::canonical(config.adapter_root, error);
    if (error)
      return fail(ErrorCode::kNotFound, "{}: {}", config.adapter_root.string(), error.message());
    auto folder = std::filesystem::canonical(root / dir, error);
    if (error) return fail(ErrorCode::kNotFound, "{}: {}", dir.string(), error.message());
    if (!folder.string().starts_with(root.string() + "/")) {
      return fail(ErrorCode::kInvalidArgument, "{} is outside of the folder for adapters",
                  dir.string());
    }
    return folder;
  }
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

// Stopped before any pointer on the way to it changes: the last callbacks still call submit().
Engine::~Engine() { impl_->thread->stop(); }

Result<std::unique_ptr<Engine>> Engine::open(const EngineConfig& config) {
  if (auto status = check(config); !status) return pass_on(status);
  auto model_config = read_model_config(config.model_dir);
  if (!model_config) return pass_on(model_config);
  auto plan = plan_cache(config, *model_config);  // before the weights: loading may take minutes
  if (!plan) return pass_on(plan);
  auto text = TextSide::open(config.model_dir);
  if (!text) return pass_on(text);
  auto model = load_model(config, *model_config);
  if (!model) return pass_on(model);

  auto impl = std::make_unique<Impl>();
  impl->config = config;
  impl->config.on_progress = {};  // only while open() works
  std::error_code unresolved;     // then the path as given has to do
  const auto folder = std::filesystem::canonical(config.model_dir, unresolved);
  impl->base_model_name = base_model_name(unresolved ? config.model_dir : folder);
  impl->text = std::move(*text);
  try {
    impl->thread = std::make_unique<EngineThread>(
        std::move(*model), std::make_unique<cpu::ThreadPool>(thread_count(config)),
        impl->text.token_text(),
        EngineThreadOptions{
            .scheduler = {.max_running = std::min(config.max_batch_size, config.max_batch_tokens),
                          .max_batch_tokens = config.max_batch_tokens,
                          .block_size = config.kv_block_size,
                          .num_blocks = plan->shape.num_blocks,
                          .prefix_caching = config.prefix_caching},
            .kv_shape = plan->shape,
            .max_adapters = config.max_adapters,
            .max_queued_requests = config.max_queued_requests,
            .max_context = plan->max_context,
            .eos_tokens = impl->text.eos_tokens(),
            .on_step = config.on_step});
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kResourceExhausted,
                "no memory for a KV cache of {} bytes; lower kv_cache_bytes",
                plan->shape.bytes_per_block() * plan->shape.num_blocks);
  }
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Result<AdapterId> Engine::add_adapter(std::string name, const std::filesystem::path& dir,
                                      const AdapterOptions& options) {
  if (auto ok = impl_->check_name(name, options.mode); !ok) return pass_on(ok);  // before reading
  std::filesystem::path folder = dir;
  if (options.confined) {
    auto confined = impl_->confine(dir);
    if (!confined) return pass_on(confined);
    folder = *confined;
  }
  auto read =
      read_adapter(folder, impl_->thread->model().config(), impl_->read_options(name, options));
  if (!read) return pass_on(read);
  return impl_->put(std::move(name),
                    {std::move(read->adapter),
                     std::move(read->report),
                     {.source = dir.string(), .pinned = options.pinned}},
                    options.mode);
}

Result<AdapterId> Engine::add_adapter_bytes(std::string name, const AdapterBytes& bytes,
                                            const AdapterOptions& options) {
  if (auto ok = impl_->check_name(name, options.mode); !ok) return pass_on(ok);
  auto read =
      read_adapter(bytes, impl_->thread->model().config(), impl_->read_options(name, options));
  if (!read) return pass_on(read);
  return impl_->put(std::move(name),
                    {std::move(read->adapter), std::move(read->report), {.pinned = options.pinned}},
                    options.mode);
}

Result<AdapterId> Engine::resolve_adapter(std::string_view name) {
  if (const auto id = find_adapter(name)) return *id;
  auto id = add_adapter(std::string(name), std::filesystem::path(name), {.confined = true});
  if (!id) return fail(ErrorCode::kNotFound, "there is no adapter \"{}\"", name);
  return id;
}

Status Engine::pin_adapter(AdapterId id, bool pinned) {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->adapters.find(id);
  if (found == impl_->adapters.end()) return Impl::not_there(id);
  found->second.info.pinned = pinned;
  return {};
}

std::vector<AdapterInfo> Engine::adapters() const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<AdapterInfo> all;
  for (const auto& [name, id] : impl_->id_of_name) all.push_back(impl_->adapters.at(id).info);
  return all;
}

Result<AdapterInfo> Engine::adapter(AdapterId id) const {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->adapters.find(id);
  if (found == impl_->adapters.end()) return Impl::not_there(id);
  return found->second.info;
}

Result<AdapterId> Engine::add_dummy_adapter(std::string name, int32_t rank, uint64_t seed) {
  if (auto ok = impl_->check_name(name, LoadMode::kNew); !ok) return pass_on(ok);
  if (rank < 1 || rank > impl_->config.max_lora_rank) {
    return fail(ErrorCode::kInvalidArgument, "rank = {}, need 1 to max_lora_rank = {}", rank,
                impl_->config.max_lora_rank);
  }
  auto adapter = make_dummy_adapter(impl_->thread->model().config(), name, rank, seed);
  AdapterReport report = {.layout = "random factors",
                          .bytes_resident = adapter->bytes,
                          .min_rank = rank,
                          .max_rank = rank};
  return impl_->put(std::move(name), {std::move(adapter), std::move(report), {}}, LoadMode::kNew);
}

Result<AdapterReport> Engine::adapter_report(AdapterId id) const {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->adapters.find(id);
  if (found == impl_->adapters.end()) return Impl::not_there(id);
  return found->second.report;
}

Status Engine::remove_adapter(AdapterId id) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (impl_->adapters.erase(id) == 0) return Impl::not_there(id);
    std::erase_if(impl_->id_of_name, [&](const auto& entry) { return entry.second == id; });
  }
  impl_->thread->forget_removed_adapters();
  return {};
}

std::optional<AdapterId> Engine::find_adapter(std::string_view name) const {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->id_of_name.find(name);
  if (found == impl_->id_of_name.end()) return std::nullopt;
  return found->second;
}

Result<RequestId> Engine::submit(Request request, OnTokens on_tokens) {
  auto adapter = impl_->find(request.adapter);
  if (!adapter) return pass_on(adapter);
  return impl_->thread->submit(std::move(request), std::move(*adapter), std::move(on_tokens));
}

Result<RequestId> Engine::submit(Request request) { return submit(std::move(request), {}); }

void Engine::cancel(RequestId id) { impl_->thread->cancel(id); }

void Engine::wait_until_idle() { impl_->thread->wait_until_idle(); }

EngineStats Engine::stats() const { return impl_->thread->stats(); }

SamplingParams Engine::default_sampling() const { return impl_->text.default_sampling(); }

int32_t Engine::max_context() const { return impl_->thread->max_context(); }

int32_t Engine::vocab_size() const { return impl_->thread->model().config().vocab_size; }

size_t Engine::decode_step_bytes(std::span<const AdapterId> adapter_of_token) const {
  const Model& model = impl_->thread->model();
  size_t bytes = model.step_bytes(static_cast<int64_t>(adapter_of_token.size()));
  std::map<AdapterId, int64_t> tokens_of_adapter;
  for (const AdapterId id : adapter_of_token) ++tokens_of_adapter[id];
  for (const auto& [id, num_tokens] : tokens_of_adapter) {
    const auto adapter = impl_->find(id);
    if (adapter && *adapter) bytes += adapter_step_bytes(model.config(), **adapter, num_tokens);
  }
  return bytes;
}

double Engine::measure_read_rate() {
  cpu::ThreadPool pool(thread_count(impl_->config));
  return cpu::measure_read_rate(pool);
}

Result<size_t> Engine::adapter_bytes(AdapterId id) const {
  auto adapter = impl_->find(id);
  if (!adapter) return pass_on(adapter);
  return *adapter ? (*adapter)->bytes : 0;
}

Result<std::vector<int32_t>> Engine::tokenize(std::string_view text,
                                              bool add_special_tokens) const {
  return impl_->text.tokenize(text, add_special_tokens);
}

Result<std::string> Engine::detokenize(std::span<const int32_t> tokens,
                                       bool skip_special_tokens) const {
  return impl_->text.detokenize(tokens, skip_special_tokens);
}

Result<std::vector<int32_t>> Engine::apply_chat_template(std::string_view messages_json,
                                                         std::string_view options_json) const {
  return impl_->text.apply_chat_template(messages_json, options_json);
}

}  // namespace braid
