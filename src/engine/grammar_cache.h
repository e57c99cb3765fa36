#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "braid/output_grammar.h"
#include "grammar/grammar.h"
#include "grammar/vocabulary.h"

namespace braid {

// Compiled grammars of recent requests, so that those with one schema share its masks, and of all
// requests at hand, whose memory is bounded together. From any thread.
class GrammarCache {
 public:
  // `vocabulary` may be null: then every grammar is refused.
  explicit GrammarCache(std::shared_ptr<const grammar::Vocabulary> vocabulary,
                        size_t max_bytes = size_t{1} << 30)
      : vocabulary_(std::move(vocabulary)), max_bytes_(max_bytes) {}

  // Compiles it on the calling thread if it is not there, and computes what a reply's first token
  // may be. Bounded in time and memory by the limits of the grammar library.
  //
  // Errors  kUnsupported      no tokenizer; a construct this build would have to ignore
  //         kInvalidArgument  the text makes no sense, allows nothing, or is too large
  //         kResourceExhausted  those of the requests at hand take max_bytes
  Result<grammar::Matcher> matcher(const OutputGrammar& source);

 private:
  static constexpr size_t kMaxGrammars = 32;

  struct Entry {
    OutputGrammar source;
    std::shared_ptr<grammar::Grammar> grammar;
  };

  // With mutex_ held.
  std::shared_ptr<grammar::Grammar> find(const OutputGrammar& source);
  size_t bytes_in_use();

  const std::shared_ptr<const grammar::Vocabulary> vocabulary_;
  const size_t max_bytes_;
  std::mutex mutex_;
  std::list<Entry> entries_;                          // the last one used first
  std::vector<std::weak_ptr<grammar::Grammar>> all_;  // these and those of requests
};

}  // namespace braid
