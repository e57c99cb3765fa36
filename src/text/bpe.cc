#include "text/bpe.h"

#include <functional>
#include <queue>
#include <utility>

#include "base/check.h"

namespace braid::text {
namespace {

// Up to here scanning all pairs for each merge beats keeping a heap.
constexpr size_t kShortWord = 24;

// A pair that can be merged: the symbol at `at` with the one after it.
struct Candidate {
  int32_t rank;
  int32_t at;
  int32_t token;

  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : at > other.at;
  }
};

}  // namespace

Bpe::Bpe(Tables tables)
    : merges_(std::move(tables.merges)),
      ignore_merges_(tables.ignore_merges),
      unk_token_(tables.unk_token),
      fuse_unk_(tables.fuse_unk),
      cache_(std::make_unique<WordCache>()) {
  id_of_bytes_.reserve(tables.tokens.size());
  for (auto& [bytes, id] : tables.tokens) id_of_bytes_.emplace(std::move(bytes), id);
  for (int byte = 0; byte < 256; ++byte) {
    id_of_byte_[byte] = find(std::string(1, static_cast<char>(byte)));
  }
}

int32_t Bpe::find(std::string_view bytes) const {
  const auto found = id_of_bytes_.find(bytes);
  return found == id_of_bytes_.end() ? kNoToken : found->second;
}

void Bpe::encode_word(std::string_view word, std::vector<int32_t>& out) const {
  if (word.empty()) return;
  const bool cached = word.size() <= WordCache::kMaxWordBytes;
  if (cached && cache_->append(word, out)) return;

  std::vector<int32_t> symbols;
  const int32_t whole = ignore_merges_ ? find(word) : kNoToken;
  if (whole != kNoToken) {
    symbols.push_back(whole);
  } else {
    first_symbols(word, symbols);
    if (symbols.size() <= kShortWord) {
      merge_short(symbols);
    } else {
      merge_long(symbols);
    }
  }
  out.insert(out.end(), symbols.begin(), symbols.end());
  if (cached) cache_->remember(word, symbols.data(), symbols.size());
}

void Bpe::first_symbols(std::string_view word, std::vector<int32_t>& symbols) const {
  symbols.reserve(word.size());
  bool in_unk_run = false;
  for (const char c : word) {
    const int32_t id = id_of_byte_[static_cast<uint8_t>(c)];
    if (id != kNoToken) {
      symbols.push_back(id);
    } else if (unk_token_ != kNoToken && !(fuse_unk_ && in_unk_run)) {
      symbols.push_back(unk_token_);
    }
    in_unk_run = id == kNoToken;
  }
}

void Bpe::merge_short(std::vector<int32_t>& symbols) const {
  while (symbols.size() > 1) {
    const Merge* best = nullptr;
    size_t best_at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const Merge* merge = merges_.find(symbols[i], symbols[i + 1]);
      if (merge && (!best || merge->rank < best->rank)) best = merge, best_at = i;
    }
    if (!best) return;
    symbols[best_at] = best->token;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best_at) + 1);
  }
}

void Bpe::merge_long(std::vector<int32_t>& symbols) const {
  BRAID_CHECK_LT(symbols.size(), size_t{1} << 31);
  const int32_t n = static_cast<int32_t>(symbols.size());
  std::vector<int32_t> previous(n), next(n);  // neighbours that are left; -1 and n: none
  std::vector<Candidate> heap_storage;
  heap_storage.reserve(n);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap(
      std::greater<>(), std::move(heap_storage));
  const auto offer = [&](int32_t at) {
    if (at < 0 || next[at] >= n) return;
    if (const Merge* merge = merges_.find(symbols[at], symbols[next[at]])) {
      heap.push({merge->rank, at, merge->token});
    }
  };
  for (int32_t i = 0; i < n; ++i) previous[i] = i - 1, next[i] = i + 1;
  for (int32_t i = 0; i < n; ++i) offer(i);

  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    const int32_t left = top.at;
    // The pair may be gone: its left symbol swallowed (kNoToken), or either side grown since.
    if (symbols[left] == kNoToken || next[left] >= n) continue;
    const int32_t right = next[left];
    const Merge* merge = merges_.find(symbols[left], symbols[right]);
    if (!merge || merge->token != top.token) continue;
    symbols[left] = top.token;
    symbols[right] = kNoToken;
    next[left] = next[right];
    if (next[right] < n) previous[next[right]] = left;
    offer(previous[left]);
    offer(left);
  }
  std::erase(symbols, kNoToken);
}

}  // namespace braid::text
