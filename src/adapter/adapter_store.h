#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "adapter/adapter_lease.h"
#include "adapter/background_free.h"
#include "adapter/peft_reader.h"
#include "base/result.h"
#include "braid/adapter.h"
#include "braid/adapter_report.h"

namespace braid {

// The registered adapters and the host memory they take.
//
// An adapter has a name, an id, and one current content. A content is in memory, or, if it came
// from a folder, may be evicted and is read again when a request needs it. Whoever uses a content
// holds a lease: contents with leases are not evicted, and one that was replaced or removed goes
// with its last lease.
//
// host_bytes bounds what is in memory. When more is needed, unpinned contents from folders are
// evicted, those without leases first and of these the one used longest ago: the adapter keeps its
// place, and who asks for it next waits for it to be read again. A content that is evicted with
// leases takes its memory until they end. A load that requests wait for waits for that in turn;
// loads are done in the order in which they were asked for, so nobody waits for ever. Loads that a
// caller asked for never wait: an adapter that finds no room is checked, registered and left on
// disk.
//
// Contents are compared by their hash when they are read again: a folder that has changed gives an
// error, never other factors under the same version.
//
// Reads run on threads of low priority, one at a time, and hold no lock. All members may be called
// from any thread.
class AdapterStore {
 public:
  struct Options {
    size_t host_bytes = 0;       // 0: no limit
    std::filesystem::path root;  // canonical; "": nothing is found by name
    AdapterReadOptions read;     // but for name, layout and `within`
    // Makes of what was read what is kept, as AdapterPool::pack does; null: nothing is to be done.
    // Its errors are the load's. On the threads that read, or that of who brings a made adapter.
    std::function<Result<std::shared_ptr<const Adapter>>(const Adapter&)> pack;
    // A load has ended, or a content was let go, by now by all of the store too: a content that
    // nobody else holds then is nobody's. On any thread.
    std::function<void()> on_change;
  };

  AdapterStore(ModelConfig model, Options options);

  // Waits for the read that is going on, if one is. Loads not begun end with an error.
  ~AdapterStore();
  AdapterStore(const AdapterStore&) = delete;
  AdapterStore& operator=(const AdapterStore&) = delete;

  // See Engine.
  Result<AdapterId> add(const std::string& name, const std::filesystem::path& folder,
                        const AdapterOptions& options);
  Result<AdapterId> add(const std::string& name, const AdapterBytes& bytes,
                        const AdapterOptions& options);
  Result<AdapterId> add(const std::string& name, AdapterAndReport made);
  Result<AdapterId> resolve(std::string_view name);
  Status remove(AdapterId id);
  Status pin(AdapterId id, bool pinned);
  std::optional<AdapterId> find(std::string_view name) const;

  // The current content, for one request. If it is not in memory, its load has been asked for.
  //
  // Errors  kNotFound
  Result<AdapterLease> lease(AdapterId id);

  // By name. No content is in a slot as far as the store knows.
  std::vector<AdapterInfo> list() const;

  // Errors  kNotFound (report: also not read yet)
  Result<AdapterInfo> info(AdapterId id) const;
  Result<AdapterReport> report(AdapterId id) const;

  // The current content; null: not in memory. Whoever lets go of it tells those who hear of
  // changes: it may have been removed meanwhile.
  //
  // Errors  kNotFound
  Result<std::shared_ptr<const Adapter>> resident(AdapterId id) const;

  // Of contents in memory, also of those that only wait for the end of their leases.
  size_t host_bytes() const;

  // Of all adapters so far, also of those that were removed.
  struct Totals {
    int64_t loads = 0;  // that succeeded
    int64_t failed_loads = 0;
    int64_t evictions = 0;
    double load_seconds = 0.0;
  };
  Totals totals() const;

 private:
  // One content of an adapter. While it is in memory and its entry's, it is not changed.
  struct Content {
    std::filesystem::path folder;  // "": it came from memory and cannot be read again
    AdapterReadOptions read;
    std::optional<AdapterHash> hash;         // empty before the first load
    std::shared_ptr<const Adapter> adapter;  // null: not in memory
    std::shared_ptr<AdapterLoad> load;       // asked for and not done
    int64_t last_lease = 0;                  // of clock_
    std::shared_ptr<std::atomic<int32_t>> num_leases = std::make_shared<std::atomic<int32_t>>(0);

    bool is_leased() const { return *num_leases > 0; }
    size_t bytes() const { return adapter ? adapter->bytes : 0; }
  };
  struct Entry {
    AdapterInfo info;                     // but for tier and counts
    std::optional<AdapterReport> report;  // empty before the first load
    float share = 1.0f;
    std::shared_ptr<Content> content;  // shared with loads_
    std::shared_ptr<AdapterCounters> counters = std::make_shared<AdapterCounters>();

    bool is_evictable() const {
      return content->adapter && !info.pinned && !content->folder.empty();
    }
  };
  // Memory of a content that is no entry's any more, for as long as it is leased.
  struct Departed {
    std::shared_ptr<std::atomic<int32_t>> num_leases;
    size_t bytes = 0;
  };

  struct Read {
    std::shared_ptr<const Adapter> adapter;
    AdapterReport report;
    double seconds = 0.0;
  };

  AdapterReadOptions read_options(const std::string& name, AdapterExpertLayout layout) const;
  Result<std::shared_ptr<const Adapter>> as_kept(std::shared_ptr<const Adapter> adapter);
  template <class Source>
  Result<Read> read_source(const Source& source, const AdapterReadOptions& options);
  template <class Source>
  Result<Read> read_on_a_nice_thread(const Source& source, const AdapterReadOptions& options);
  template <class Source>
  Result<AdapterId> read_and_put(AdapterInfo info, const Source& source, Content content,
                                 const AdapterOptions& options);
  Result<std::filesystem::path> confine(const std::filesystem::path& folder) const;
  Result<AdapterId> put(AdapterInfo info, Content content, Read read,
                        const AdapterOptions& options);
  void run();

  // The rest under mutex_; what takes the lock releases it meanwhile.
  Status check_mode(const std::string& name, LoadMode mode) const;
  void note_load(Entry& entry, Read& read);
  AdapterInfo info_of(const Entry& entry) const;
  AdapterLease lease_of(Entry& entry);
  Entry* entry_of(const std::shared_ptr<Content>& content);
  void forget(Entry& entry);
  Result<std::shared_ptr<const Adapter>> load_content(std::unique_lock<std::mutex>& lock,
                                                      const std::shared_ptr<Content>& content);

  // Memory. `but`, `replaced`: an entry whose content is about to go.
  void depart(const Content& content);
  void evict(Entry& entry);
  size_t held_bytes(const Entry* but) const;
  bool can_ever_fit(size_t bytes, const Entry* but) const;
  Error no_room(const std::string& name, size_t bytes, const Entry* but) const;
  Entry* least_recently_used(bool leased_too, const Entry* but);
  bool make_room_now(size_t bytes, const Entry* replaced);
  Status wait_for_room(std::unique_lock<std::mutex>& lock, const std::string& name, size_t bytes);

  const ModelConfig model_;
  const Options options_;

  BackgroundFree background_free_;
  std::mutex read_mutex_;  // one adapter is read at a time
  mutable std::mutex mutex_;
  std::condition_variable has_loads_;
  std::condition_variable load_ended_;
  // Under mutex_:
  std::map<AdapterId, Entry> entries_;
  std::map<std::string, AdapterId, std::less<>> id_of_name_;
  std::vector<Departed> departed_;
  std::deque<std::shared_ptr<Content>> loads_;  // in the order they were asked for
  Totals totals_;
  int32_t next_id_ = 0;
  int64_t clock_ = 0;
  bool stops_ = false;

  std::thread thread_;
};

}  // namespace braid
