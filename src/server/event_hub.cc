#include "server/event_hub.h"

#include <utility>

#include "server/generation.h"

namespace braid::server {

uint64_t EventHub::add(Generation& generation, std::string_view client_id) {
  entries_.emplace(next_, Entry{&generation, std::string(client_id)});
  return next_++;
}

void EventHub::remove(uint64_t number) { entries_.erase(number); }

void EventHub::deliver(std::vector<Event> events) {
  for (Event& event : events) {
    const auto found = entries_.find(event.tag >> kChoiceBits);
    if (found == entries_.end()) continue;
    const auto choice = static_cast<int32_t>(event.tag & ((1u << kChoiceBits) - 1));
    found->second.generation->take_event(choice, std::move(event));
  }
}

std::vector<Generation*> EventHub::find(std::string_view client_id) const {
  std::vector<Generation*> found;
  for (const auto& [number, entry] : entries_) {
    if (client_id.empty() || entry.client_id == client_id) found.push_back(entry.generation);
  }
  return found;
}

}  // namespace braid::server
