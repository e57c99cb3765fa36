#include "grammar/decimal_range.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>

namespace braid::grammar {
namespace {

// A number is compared with the bounds digit by digit: as long as its digits are those of a bound,
// the next digit is held to the bound's; from the first digit that differs on, it is free.
class RangeBuilder {
 public:
  RangeBuilder(NetworkBuilder& net, const std::optional<DecimalBound>& low,
               const std::optional<DecimalBound>& high, bool is_integer)
      : net_(net), low_(low), high_(high), is_integer_(is_integer), to_(net.add_state()) {
    max_fraction_ = kMaxFractionDigits;
    if (low_) max_fraction_ = std::max(max_fraction_, low_->fraction.size());
    if (high_) max_fraction_ = std::max(max_fraction_, high_->fraction.size());
  }

  StateId add(StateId from) {
    const size_t shortest = low_ ? low_->whole.size() : 1;
    const size_t longest = high_ ? high_->whole.size() : size_t{kMaxWholeDigits};
    for (size_t length = shortest; length <= longest; ++length) {
      length_ = length;
      states_.clear();
      add_digits(
          from,
          {.at = 0, .on_low = low_ && length == shortest, .on_high = high_ && length == longest});
    }
    return to_;
  }

 private:
  struct Point {
    size_t at;  // digits before it: whole ones, then those of the fraction
    bool on_low;
    bool on_high;
    auto operator<=>(const Point&) const = default;
  };

  static int digit(const DecimalBound& bound, size_t at) {
    if (at < bound.whole.size()) return bound.whole[at] - '0';
    const size_t i = at - bound.whole.size();
    return i < bound.fraction.size() ? bound.fraction[i] - '0' : 0;
  }

  // Whether a number whose digits so far are all there are is in the range.
  bool may_stop(const Point& p) const {
    const auto is_whole_bound = [&](const DecimalBound& bound) {
      return p.at >= bound.whole.size() + bound.fraction.size();
    };
    if (p.on_low && !(is_whole_bound(*low_) && low_->is_inclusive)) return false;
    return !p.on_high || !is_whole_bound(*high_) || high_->is_inclusive;
  }

  void add_digits(StateId from, const Point& p) {
    const int lowest = p.on_low ? digit(*low_, p.at) : (p.at == 0 && length_ > 1 ? 1 : 0);
    const int highest = p.on_high ? digit(*high_, p.at) : 9;
    for (int d = lowest; d <= highest; ++d) {
      const Point next = {
          .at = p.at + 1, .on_low = p.on_low && d == lowest, .on_high = p.on_high && d == highest};
      net_.add_bytes(from, static_cast<uint8_t>('0' + d), static_cast<uint8_t>('0' + d),
                     state_behind(next));
    }
  }

  StateId state_behind(const Point& p) {
    const auto known = states_.find(p);
    if (known != states_.end()) return known->second;
    const StateId state = net_.add_state();
    states_.emplace(p, state);
    if (p.at < length_) {
      add_digits(state, p);
      return state;
    }
    if (may_stop(p)) net_.add_epsilon(state, to_);
    if (is_integer_ || net_.is_full()) return state;
    if (p.at == length_) {
      const StateId point = net_.add_state();
      net_.add_bytes(state, '.', '.', point);
      add_digits(point, p);
    } else if (p.at < length_ + max_fraction_) {
      add_digits(state, p);
    }
    return state;
  }

  NetworkBuilder& net_;
  const std::optional<DecimalBound>& low_;
  const std::optional<DecimalBound>& high_;
  bool is_integer_;
  StateId to_;
  size_t max_fraction_ = 0;
  size_t length_ = 0;  // digits before the point
  std::map<Point, StateId> states_;
};

}  // namespace

StateId add_decimal_range(NetworkBuilder& net, StateId from, const std::optional<DecimalBound>& low,
                          const std::optional<DecimalBound>& high, bool is_integer) {
  return RangeBuilder(net, low, high, is_integer).add(from);
}

}  // namespace braid::grammar
