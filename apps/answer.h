#pragma once

#include <string>
#include <vector>

#include "apps/terminal.h"
#include "base/json.h"
#include "braid/engine.h"

namespace braid::apps {

// One request of `braid generate` and what came of it.
struct Answer {
  std::string place;    // where the request stands, "requests.jsonl:7"; empty: the command line
  std::string adapter;  // empty: the base model
  Json prompt;          // as people wrote it: a string, or an array of token ids
  Request request;

  std::string text;
  std::vector<int32_t> tokens;
  std::vector<TokenLogprob> logprobs;
  std::vector<TokenLogprob> prompt_logprobs;  // one a token of the prompt but the first
  FinishReason reason = FinishReason::kStop;
  std::string error;  // not empty iff reason == kError; begins with the place
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
};

// A line of `--json`.
Json to_json(const Answer& answer);

// What the prompt is headed with, fit for a terminal.
std::string render_prompt(const Answer& answer, const Terminal& terminal);

// The reply as it may be shown: its text, or the ids of its tokens where the model has no
// tokenizer.
std::string shown_reply(const Answer& answer, const Engine& engine);

// Name, reply and error of an answer, each on its own lines.
std::string render_answer(const Answer& answer, const Engine& engine, const Terminal& terminal);

// Tables of the log probabilities that were asked for; empty when none were.
std::string render_logprobs(const Answer& answer, const Engine& engine);

}  // namespace braid::apps
