#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cctype>
#include <utility>

#include "base/check.h"
#include "base/result.h"
#include "text/utf8.h"

namespace braid::text {
namespace {

// Steps of one match attempt. Splitting patterns need a few per byte; more than this is a pattern
// that backtracks without end.
constexpr uint32_t kMatchLimit = 50'000'000;
constexpr uint32_t kHeapLimitKib = 512 << 10;
// Reserved, and only touched as far as a match needs it: some patterns keep a frame per character.
constexpr size_t kSmallStack = 64 << 10;
constexpr size_t kLargeStack = size_t{512} << 20;

struct FreeContext {
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
template <class T>
using Owned = std::unique_ptr<T, FreeContext>;

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> buffer = {};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct Regex::Code {
  std::string pattern;
  pcre2_code* code = nullptr;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

Result<Regex> Regex::compile(std::string_view pattern, RegexFlavour flavour) {
  if (pattern.size() > kMaxPatternBytes) {
    return fail(ErrorCode::kInvalidArgument, "a regex has {} bytes, at most {} are accepted",
                pattern.size(), kMaxPatternBytes);
  }
  Result<std::string> rewritten = to_pcre2(pattern, flavour);
  if (!rewritten) return pass_on(rewritten);
  auto code = std::make_unique<Code>();
  code->pattern = pattern;
  int error = 0;
  PCRE2_SIZE error_at = 0;
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(rewritten->data()), rewritten->size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &error_at, nullptr);
  if (!code->code) {
    return fail(ErrorCode::kUnsupported, "regex \"{}\" does not compile: {}",
                pattern.substr(0, 200), message_of(error));
  }
  // Where there is no JIT for this machine or pattern, matching is interpreted: slower, not other.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  return Regex(std::move(code));
}

Result<Regex> Regex::literal(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && !std::isalnum(byte)) {
      pattern += fmt::format("\\x{{{:X}}}", byte);
    } else {
      pattern += c;
    }
  }
  return compile(pattern, RegexFlavour::kRust);
}

Status Regex::find_all(std::string_view text, std::vector<Range>& matches) const {
  const Owned<pcre2_match_data> data(pcre2_match_data_create(1, nullptr));
  const Owned<pcre2_match_context> context(pcre2_match_context_create(nullptr));
  BRAID_CHECK(data && context);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  Owned<pcre2_jit_stack> stack;  // made when the 32 KiB of the machine stack do not do

  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  bool any_before = false;
  size_t before_end = 0;
  for (size_t at = 0; at <= text.size();) {
    // The text is well-formed, and the check would read all of it again for every match.
    const int rc = pcre2_match(code_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK,
                               data.get(), context.get());
    if (rc == PCRE2_ERROR_NOMATCH) return {};
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !stack) {
      stack.reset(pcre2_jit_stack_create(kSmallStack, kLargeStack, nullptr));
      if (stack) {
        pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
        continue;
      }
    }
    if (rc < 0) {
      return fail(ErrorCode::kResourceExhausted, "regex \"{}\" gave up on a text of {} bytes: {}",
                  std::string_view(code_->pattern).substr(0, 200), text.size(), message_of(rc));
    }
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data.get());
    const Range match = {offsets[0], offsets[1]};
    if (match.end > match.begin) {
      matches.push_back(match);
      at = match.end;
    } else {
      if (!any_before || match.begin != before_end) matches.push_back(match);
      if (match.end >= text.size()) return {};
      at = match.end;
      next_char(text, at);
    }
    any_before = true;
    before_end = match.end;
  }
  return {};
}

}  // namespace braid::text
