#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace braid {

// A bug of ours: an invariant does not hold. Carries the place and the values.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

namespace internal {

[[noreturn]] void check_failed(const char* file, int line, const std::string& what);

template <class A, class B>
[[noreturn]] void check_op_failed(const char* file, int line, const char* text, const A& a,
                                  const B& b) {
  check_failed(file, line, fmt::format("{} ({} vs {})", text, a, b));
}

}  // namespace internal
}  // namespace braid

// Checks stay on in release builds; keep them out of inner loops. Both sides are evaluated once.
#define BRAID_CHECK(condition)                                         \
  do {                                                                 \
    if (!(condition)) [[unlikely]]                                     \
      ::braid::internal::check_failed(__FILE__, __LINE__, #condition); \
  } while (false)

#define BRAID_CHECK_OP_(a, op, b)                                                         \
  do {                                                                                    \
    const auto& braid_a_ = (a);                                                           \
    const auto& braid_b_ = (b);                                                           \
    if (!(braid_a_ op braid_b_)) [[unlikely]]                                             \
      ::braid::internal::check_op_failed(__FILE__, __LINE__, #a " " #op " " #b, braid_a_, \
                                         braid_b_);                                       \
  } while (false)

#define BRAID_CHECK_EQ(a, b) BRAID_CHECK_OP_(a, ==, b)
#define BRAID_CHECK_NE(a, b) BRAID_CHECK_OP_(a, !=, b)
#define BRAID_CHECK_LT(a, b) BRAID_CHECK_OP_(a, <, b)
#define BRAID_CHECK_LE(a, b) BRAID_CHECK_OP_(a, <=, b)
#define BRAID_CHECK_GT(a, b) BRAID_CHECK_OP_(a, >, b)
#define BRAID_CHECK_GE(a, b) BRAID_CHECK_OP_(a, >=, b)

// After a switch that handles every enumerator. Prints the value that should not exist.
#define BRAID_UNREACHABLE(value) \
  ::braid::internal::check_op_failed(__FILE__, __LINE__, "unreachable", value, "no such case")
