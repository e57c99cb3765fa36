#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "server/backend.h"

namespace braid::server {

class Generation;

// Brings events to the generations they belong to. On the IO thread only. A tag names the
// generation and, in its low bits, the choice; events of generations that have gone are dropped.
class EventHub {
 public:
  static constexpr int kChoiceBits = 16;

  // A number for the generation; its tags are number << kChoiceBits | choice.
  uint64_t add(Generation& generation, std::string_view client_id);
  void remove(uint64_t number);

  // One step's events.
  void deliver(std::vector<Event> events);

  // The generations that a client knows under this id; with "", all.
  std::vector<Generation*> find(std::string_view client_id) const;

 private:
  struct Entry {
    Generation* generation = nullptr;
    std::string client_id;
  };
  uint64_t next_ = 1;
  std::unordered_map<uint64_t, Entry> entries_;
};

}  // namespace braid::server
