#include "adapter/adapter_store.h"

#include <sys/resource.h>

#include <algorithm>
#include <exception>
#include <new>
#include <system_error>
#include <utility>

#include "adapter/validate.h"
#include "base/check.h"
#include "base/file.h"

namespace braid {
namespace {

namespace fs = std::filesystem;
using SteadyClock = std::chrono::steady_clock;

constexpr size_t kMaxNameBytes = 256;

// How nice reading is to the threads that compute. Where these want every core, reading gets about
// 3 % of one. At 10, loads in an endless loop made tokens come 1.28 times as slowly on two cores.
constexpr int kReadNiceness = 15;

// How soon a load that waits for the end of leases looks again.
constexpr std::chrono::milliseconds kLookAgain{5};

void be_nice() { ::setpriority(PRIO_PROCESS, 0, kReadNiceness); }  // 0: this thread, on Linux

tl::unexpected<Error> not_there(AdapterId id) {
  return fail(ErrorCode::kNotFound, "there is no adapter with id {}", static_cast<int>(id));
}

Status check_options(const std::string& name, const AdapterOptions& options) {
  if (name.empty() || name.size() > kMaxNameBytes) {
    return fail(ErrorCode::kInvalidArgument, "an adapter's name has {} bytes, accepted are 1 to {}",
                name.size(), kMaxNameBytes);
  }
  if (std::ranges::any_of(name, [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
    return fail(ErrorCode::kInvalidArgument, "an adapter's name has a control character");
  if (!(options.share >= 0.01f && options.share <= 100.0f)) {
    return fail(ErrorCode::kInvalidArgument, "adapter \"{}\": share is {}, accepted is 0.01 to 100",
                name, options.share);
  }
  return {};
}

// "sql" or "team/sql": what may be looked for under the root.
bool is_plain_path(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes) return false;
  if (std::ranges::any_of(name, [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
    return false;
  while (true) {
    const size_t end = std::min(name.find('/'), name.size());
    const std::string_view part = name.substr(0, end);
    if (part.empty() || part == "." || part == "..") return false;
    if (end == name.size()) return true;
    name.remove_prefix(end + 1);
  }
}

double seconds_since(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

ExpertLayout to_expert_layout(AdapterExpertLayout layout) {
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

}  // namespace

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

AdapterStore::AdapterStore(ModelConfig model, Options options)
    : model_(std::move(model)), options_(std::move(options)), thread_([this] { run(); }) {}

AdapterStore::~AdapterStore() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  has_loads_.notify_all();
  thread_.join();
}

// ---- reading ----

AdapterReadOptions AdapterStore::read_options(const std::string& name,
                                              AdapterExpertLayout layout) const {
  AdapterReadOptions options = options_.read;
  options.name = name;
  options.expert_layout = to_expert_layout(layout);
  return options;
}

Result<std::shared_ptr<const Adapter>> AdapterStore::as_kept(
    std::shared_ptr<const Adapter> adapter) {
  if (!options_.pack) return adapter;
  return options_.pack(*adapter);
}

template <class Source>
Result<AdapterStore::Read> AdapterStore::read_source(const Source& source,
                                                     const AdapterReadOptions& options) {
  const std::lock_guard lock(read_mutex_);
  const auto start = SteadyClock::now();
  try {
    auto read = read_adapter(source, model_, options);
    if (!read) return pass_on(read);
    auto kept = as_kept(std::move(read->adapter));
    if (!kept) return pass_on(kept);
    return Read{background_free_.guard(std::move(*kept)), std::move(read->report),
                seconds_since(start)};
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kResourceExhausted, "adapter \"{}\": no memory to read it",
                options.name);
  }
}

template <class Source>
Result<AdapterStore::Read> AdapterStore::read_on_a_nice_thread(const Source& source,
                                                               const AdapterReadOptions& options) {
  std::optional<Result<Read>> read;
  std::exception_ptr failure;
  std::thread([&] {
    be_nice();
    try {
      read = read_source(source, options);
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
  return std::move(*read);
}

Result<fs::path> AdapterStore::confine(const fs::path& folder) const {
  if (options_.root.empty())
    return fail(ErrorCode::kInvalidArgument, "there is no adapter_root to load adapters from");
  std::error_code error;
  const fs::path found = fs::canonical(options_.root / folder, error);
  if (error) return fail(ErrorCode::kNotFound, "{}: {}", folder.string(), error.message());
  if (found == options_.root || !lies_within(found, options_.root)) {
    return fail(ErrorCode::kInvalidArgument, "{} is not a folder inside of adapter_root",
                folder.string());
  }
  return found;
}

// ---- what callers ask for ----

Result<AdapterId> AdapterStore::add(const std::string& name, const fs::path& folder,
                                    const AdapterOptions& options) {
  if (auto ok = check_options(name, options); !ok) return pass_on(ok);
  Content content = {.read = read_options(name, options.layout)};
  if (options.confined) {
    auto confined = confine(folder);
    if (!confined) return pass_on(confined, fmt::format("adapter \"{}\"", name));
    content.folder = std::move(*confined);
    content.read.within = options_.root;
  } else {
    // A link like "latest" may lead elsewhere when the content is read again.
    std::error_code error;
    content.folder = fs::canonical(folder, error);
    if (error) content.folder = folder;
  }
  return read_and_put({.name = name, .source = folder.string()}, content.folder, content, options);
}

Result<AdapterId> AdapterStore::add(const std::string& name, const AdapterBytes& bytes,
                                    const AdapterOptions& options) {
  if (auto ok = check_options(name, options); !ok) return pass_on(ok);
  const Content content = {.read = read_options(name, options.layout)};
  return read_and_put({.name = name}, bytes, content, options);
}

template <class Source>
Result<AdapterId> AdapterStore::read_and_put(AdapterInfo info, const Source& source,
                                             Content content, const AdapterOptions& options) {
  {
    const std::lock_guard lock(mutex_);  // before the work of reading
    if (auto ok = check_mode(info.name, options.mode); !ok) return pass_on(ok);
  }
  auto read = read_on_a_nice_thread(source, content.read);
  auto id = read ? put(std::move(info), std::move(content), std::move(*read), options)
                 : Result<AdapterId>(pass_on(read));
  if (!id) {
    const std::lock_guard lock(mutex_);
    ++totals_.failed_loads;
  }
  return id;
}

Result<AdapterId> AdapterStore::add(const std::string& name, AdapterAndReport made) {
  if (auto ok = check_options(name, {}); !ok) return pass_on(ok);
  auto kept = as_kept(std::move(made.adapter));
  if (!kept) return pass_on(kept);
  return put({.name = name}, {}, {background_free_.guard(std::move(*kept)), std::move(made.report)},
             {});
}

Result<AdapterId> AdapterStore::resolve(std::string_view name) {
  if (const auto id = find(name)) return *id;
  const auto unknown = [&] {
    return fail(ErrorCode::kNotFound, "there is no adapter \"{}\"", name.substr(0, kMaxNameBytes));
  };
  if (options_.root.empty() || !is_plain_path(name)) return unknown();
  const auto folder = confine(fs::path(name));
  std::error_code error;
  if (!folder || !fs::is_regular_file(*folder / "adapter_config.json", error)) return unknown();

  Content content = {.folder = *folder,
                     .read = read_options(std::string(name), AdapterExpertLayout::kAuto)};
  content.read.within = options_.root;
  const std::lock_guard lock(mutex_);
  if (const auto known = id_of_name_.find(name); known != id_of_name_.end()) return known->second;
  const AdapterId id{next_id_++};
  id_of_name_.emplace(name, id);
  entries_[id] = {.info = {.id = id,
                           .name = std::string(name),
                           .source = folder->string(),
                           .found_in_root = true,
                           .version = 1},
                  .content = std::make_shared<Content>(std::move(content))};
  return id;
}

Status AdapterStore::remove(AdapterId id) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return not_there(id);
    forget(found->second);
  }
  options_.on_change();
  return {};
}

Status AdapterStore::pin(AdapterId id, bool pinned) {
  Status status;
  {
    std::unique_lock lock(mutex_);
    auto found = entries_.find(id);
    if (found == entries_.end()) return not_there(id);
    found->second.info.pinned = pinned;  // from now on: it must not be evicted again meanwhile
    if (!pinned || found->second.content->adapter) return {};
    const auto load = lease_of(found->second);
    load_ended_.wait(lock, [&] { return !load.is_loading(); });
    if (auto adapter = load.adapter(); !adapter) {
      status = pass_on(adapter);
      found = entries_.find(id);
      if (found != entries_.end()) found->second.info.pinned = false;
    }
  }
  options_.on_change();  // the lease has ended
  return status;
}

std::optional<AdapterId> AdapterStore::find(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const auto found = id_of_name_.find(name);
  if (found == id_of_name_.end()) return std::nullopt;
  return found->second;
}

Result<AdapterLease> AdapterStore::lease(AdapterId id) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end()) return not_there(id);
  found->second.info.last_used = std::chrono::system_clock::now();
  return lease_of(found->second);
}

std::vector<AdapterInfo> AdapterStore::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<AdapterInfo> all;
  for (const auto& [name, id] : id_of_name_) all.push_back(info_of(entries_.at(id)));
  return all;
}

Result<AdapterInfo> AdapterStore::info(AdapterId id) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end()) return not_there(id);
  return info_of(found->second);
}

Result<AdapterReport> AdapterStore::report(AdapterId id) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end()) return not_there(id);
  if (!found->second.report) {
    return fail(ErrorCode::kNotFound, "adapter \"{}\" has not been read yet",
                found->second.info.name);
  }
  return *found->second.report;
}

Result<std::shared_ptr<const Adapter>> AdapterStore::resident(AdapterId id) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end()) return not_there(id);
  return found->second.content->adapter;
}

size_t AdapterStore::host_bytes() const {
  const std::lock_guard lock(mutex_);
  return held_bytes(nullptr);
}

AdapterStore::Totals AdapterStore::totals() const {
  const std::lock_guard lock(mutex_);
  return totals_;
}

// ---- the books ----

Status AdapterStore::check_mode(const std::string& name, LoadMode mode) const {
  const bool is_taken = id_of_name_.contains(name);
  if (is_taken && mode == LoadMode::kNew) {
    return fail(ErrorCode::kInvalidArgument,
                "adapter \"{}\" is already there; remove it first or choose another name", name);
  }
  if (!is_taken && mode == LoadMode::kReplace)
    return fail(ErrorCode::kNotFound, "there is no adapter \"{}\" to replace", name);
  return {};
}

Result<AdapterId> AdapterStore::put(AdapterInfo info, Content content, Read read,
                                    const AdapterOptions& options) {
  AdapterId id;
  {
    const std::lock_guard lock(mutex_);
    if (auto ok = check_mode(info.name, options.mode); !ok) return pass_on(ok);
    const auto known = id_of_name_.find(info.name);
    Entry* replaced = known != id_of_name_.end() ? &entries_.at(known->second) : nullptr;

    content.hash = read.adapter->hash;
    const size_t bytes = read.adapter->bytes;
    const bool must_be_in = content.folder.empty() || options.pinned;
    if (make_room_now(bytes, replaced)) {
      content.adapter = read.adapter;
    } else if (must_be_in || !can_ever_fit(bytes, replaced)) {
      return tl::unexpected<Error>(no_room(info.name, bytes, replaced));
    }

    id = replaced ? known->second : AdapterId{next_id_++};
    info.id = id;
    info.pinned = options.pinned;
    info.version = 1;
    Entry entry = {.info = std::move(info), .share = options.share};
    if (replaced) {
      entry.info.version = replaced->info.version + 1;
      entry.info.loads = replaced->info.loads;
      entry.info.evictions = replaced->info.evictions;
      entry.info.last_used = replaced->info.last_used;
      entry.counters = replaced->counters;
      depart(*replaced->content);
    }
    entry.content = std::make_shared<Content>(std::move(content));
    entry.content->last_lease = ++clock_;  // just read: not the first to be evicted
    note_load(entry, read);
    id_of_name_[entry.info.name] = id;
    entries_[id] = std::move(entry);
    read.adapter = nullptr;  // the entry alone holds it when the change is told
  }
  options_.on_change();
  return id;
}

void AdapterStore::note_load(Entry& entry, Read& read) {
  ++totals_.loads;
  totals_.load_seconds += read.seconds;
  ++entry.info.loads;
  entry.info.load_seconds = read.seconds;
  entry.info.loaded_at = std::chrono::system_clock::now();
  entry.info.hash = to_string(read.adapter->hash);
  entry.info.bytes = read.adapter->bytes;
  entry.info.rank = read.adapter->max_rank;
  entry.report = std::move(read.report);
}

AdapterInfo AdapterStore::info_of(const Entry& entry) const {
  AdapterInfo info = entry.info;
  info.tier = entry.content->adapter ? AdapterTier::kHost : AdapterTier::kDisk;
  info.counts = entry.counters->counts();
  return info;
}

AdapterLease AdapterStore::lease_of(Entry& entry) {
  Content& content = *entry.content;
  AdapterLease lease;
  lease.num_leases_ = content.num_leases;
  ++*lease.num_leases_;
  lease.counters_ = entry.counters;
  lease.share_ = entry.share;
  content.last_lease = ++clock_;
  if (content.adapter) {
    lease.adapter_ = content.adapter;
    return lease;
  }
  if (!content.load) {
    content.load = std::make_shared<AdapterLoad>();
    loads_.push_back(entry.content);
    has_loads_.notify_all();
  }
  lease.load_ = content.load;
  return lease;
}

AdapterStore::Entry* AdapterStore::entry_of(const std::shared_ptr<Content>& content) {
  for (auto& [id, entry] : entries_) {
    if (entry.content == content) return &entry;
  }
  return nullptr;
}

void AdapterStore::forget(Entry& entry) {
  depart(*entry.content);
  const AdapterId id = entry.info.id;
  id_of_name_.erase(entry.info.name);
  entries_.erase(id);
}

// ---- memory ----

void AdapterStore::depart(const Content& content) {
  std::erase_if(departed_, [](const Departed& d) { return *d.num_leases == 0; });
  if (content.adapter && content.is_leased())
    departed_.push_back({content.num_leases, content.bytes()});
}

void AdapterStore::evict(Entry& entry) {
  Content same = {.folder = entry.content->folder,
                  .read = entry.content->read,
                  .hash = entry.content->hash,
                  .last_lease = entry.content->last_lease};
  depart(*entry.content);
  entry.content = std::make_shared<Content>(std::move(same));
  ++entry.info.evictions;
  ++totals_.evictions;
}

size_t AdapterStore::held_bytes(const Entry* but) const {
  size_t bytes = 0;
  for (const auto& [num_leases, departed_bytes] : departed_) {
    if (*num_leases > 0) bytes += departed_bytes;
  }
  for (const auto& [id, entry] : entries_) {
    if (&entry != but || entry.content->is_leased()) bytes += entry.content->bytes();
  }
  return bytes;
}

bool AdapterStore::can_ever_fit(size_t bytes, const Entry* but) const {
  if (options_.host_bytes == 0) return true;
  for (const auto& [id, entry] : entries_) {
    if (&entry != but && !entry.is_evictable()) bytes += entry.content->bytes();
  }
  return bytes <= options_.host_bytes;
}

Error AdapterStore::no_room(const std::string& name, size_t bytes, const Entry* but) const {
  size_t fixed = 0, leased = 0;
  for (const auto& [id, entry] : entries_) {
    if (&entry == but) continue;
    if (!entry.is_evictable()) {
      fixed += entry.content->bytes();
    } else if (entry.content->is_leased()) {
      leased += entry.content->bytes();
    }
  }
  for (const auto& [num_leases, departed_bytes] : departed_) {
    if (*num_leases > 0) leased += departed_bytes;
  }
  return {ErrorCode::kResourceExhausted,
          fmt::format("adapter \"{}\" takes {} bytes, adapter_host_bytes is {}; {} are pinned or "
                      "came from memory, {} are in use by requests",
                      name, bytes, options_.host_bytes, fixed, leased)};
}

AdapterStore::Entry* AdapterStore::least_recently_used(bool leased_too, const Entry* but) {
  Entry* oldest = nullptr;
  for (auto& [id, entry] : entries_) {
    if (&entry == but || !entry.is_evictable()) continue;
    if (entry.content->is_leased() && !leased_too) continue;
    if (!oldest || entry.content->last_lease < oldest->content->last_lease) oldest = &entry;
  }
  return oldest;
}

bool AdapterStore::make_room_now(size_t bytes, const Entry* replaced) {
  if (options_.host_bytes == 0) return true;
  size_t held = held_bytes(replaced), unused = 0;
  for (const auto& [id, entry] : entries_) {
    if (&entry != replaced && entry.is_evictable() && !entry.content->is_leased())
      unused += entry.content->bytes();
  }
  if (held - unused + bytes > options_.host_bytes) return false;  // then nobody goes
  while (held + bytes > options_.host_bytes) {
    Entry* entry = least_recently_used(false, replaced);
    BRAID_CHECK(entry != nullptr);  // leases begin under mutex_ alone
    held -= entry->content->bytes();
    evict(*entry);
  }
  return true;
}

Status AdapterStore::wait_for_room(std::unique_lock<std::mutex>& lock, const std::string& name,
                                   size_t bytes) {
  if (options_.host_bytes == 0) return {};
  while (!make_room_now(bytes, nullptr)) {
    if (!can_ever_fit(bytes, nullptr)) return tl::unexpected<Error>(no_room(name, bytes, nullptr));
    // Leased ones too, until the end of their leases is all there is to wait for.
    size_t staying = bytes;
    for (const auto& [id, entry] : entries_) staying += entry.content->bytes();
    while (staying > options_.host_bytes) {
      Entry* entry = least_recently_used(true, nullptr);
      BRAID_CHECK(entry != nullptr);  // it can ever fit
      staying -= entry->content->bytes();
      evict(*entry);
    }
    if (has_loads_.wait_for(lock, kLookAgain, [&] { return stops_; }))
      return fail(ErrorCode::kResourceExhausted, "the engine is being closed");
  }
  return {};
}

// ---- loads that requests wait for ----

void AdapterStore::run() {
  be_nice();
  std::unique_lock lock(mutex_);
  for (;;) {
    has_loads_.wait(lock, [&] { return stops_ || !loads_.empty(); });
    if (loads_.empty()) return;
    {
      const auto content = std::move(loads_.front());
      loads_.pop_front();
      const auto load = content->load;
      load->result = load_content(lock, content);
      content->load = nullptr;
      load->is_done = true;
    }
    lock.unlock();
    load_ended_.notify_all();
    options_.on_change();
    lock.lock();
  }
}

Result<std::shared_ptr<const Adapter>> AdapterStore::load_content(
    std::unique_lock<std::mutex>& lock, const std::shared_ptr<Content>& content) {
  if (stops_) return fail(ErrorCode::kResourceExhausted, "the engine is being closed");
  if (!content->is_leased()) return nullptr;  // the requests have gone
  const std::string& name = content->read.name;

  lock.unlock();
  auto read = [&]() -> Result<Read> {
    try {
      return read_source(content->folder, content->read);
    } catch (const std::exception& e) {
      return fail(ErrorCode::kIo, "adapter \"{}\": {}", name, e.what());
    }
  }();
  lock.lock();

  Status status;
  if (!read) {
    status = pass_on(read);
  } else if (content->hash && *content->hash != read->adapter->hash) {
    status = fail(ErrorCode::kCorrupt,
                  "adapter \"{}\": {} has changed since it was loaded; load it again", name,
                  content->folder.string());
  } else {
    status = wait_for_room(lock, name, read->adapter->bytes);
  }
  Entry* entry = entry_of(content);
  if (!status) {
    ++totals_.failed_loads;
    if (entry && entry->info.found_in_root) forget(*entry);
    return pass_on(status);
  }
  auto adapter = std::move(read->adapter);
  read->adapter = adapter;
  content->hash = adapter->hash;
  content->adapter = adapter;
  if (entry) {
    note_load(*entry, *read);
  } else {
    depart(*content);
    content->adapter = nullptr;
  }
  return adapter;
}

}  // namespace braid
