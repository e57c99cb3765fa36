#include "braid/engine.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "adapter/dummy_adapter.h"
#include "adapter/peft_reader.h"
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

struct Engine::Impl {
  struct Registered {
    std::shared_ptr<const Adapter> adapter;
    AdapterReport report;
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

  Result<AdapterId> put(std::string name, Registered adapter) {
    const std::lock_guard lock(mutex);
    if (id_of_name.contains(name)) return name_taken(name);
    const AdapterId id{next_adapter_id++};
    adapters.emplace(id, std::move(adapter));
    id_of_name.emplace(std::move(name), id);
    return id;
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
            .eos_tokens = impl->text.eos_tokens()});
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kResourceExhausted,
                "no memory for a KV cache of {} bytes; lower kv_cache_bytes",
                plan->shape.bytes_per_block() * plan->shape.num_blocks);
  }
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Result<AdapterId> Engine::add_adapter(std::string name, const std::filesystem::path& dir,
                                      AdapterExpertLayout layout) {
  if (name.empty()) return fail(ErrorCode::kInvalidArgument, "an adapter's name is empty");
  if (find_adapter(name)) return impl_->name_taken(name);  // before the work of reading
  auto read = read_adapter(dir, impl_->thread->model().config(),
                           {.name = name,
                            .expert_layout = expert_layout(layout),
                            .max_lora_rank = impl_->config.max_lora_rank,
                            .base_model_name = impl_->base_model_name});
  if (!read) return pass_on(read);
  return impl_->put(std::move(name), {std::move(read->adapter), std::move(read->report)});
}

Result<AdapterId> Engine::add_dummy_adapter(std::string name, int32_t rank, uint64_t seed) {
  if (name.empty()) return fail(ErrorCode::kInvalidArgument, "an adapter's name is empty");
  if (rank < 1 || rank > impl_->config.max_lora_rank) {
    return fail(ErrorCode::kInvalidArgument, "rank = {}, need 1 to max_lora_rank = {}", rank,
                impl_->config.max_lora_rank);
  }
  auto adapter = make_dummy_adapter(impl_->thread->model().config(), name, rank, seed);
  AdapterReport report = {.layout = "random factors",
                          .bytes_resident = adapter->bytes,
                          .min_rank = rank,
                          .max_rank = rank};
  return impl_->put(std::move(name), {std::move(adapter), std::move(report)});
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
