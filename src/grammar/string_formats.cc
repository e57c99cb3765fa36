#include "grammar/string_formats.h"

namespace braid::grammar {
namespace {

#define BRAID_DATE                                            \
  "(\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|"         \
  "(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))|" \
  "(\\d\\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)"
#define BRAID_TIME \
  "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define BRAID_BYTE "(\\d|[1-9]\\d|1\\d\\d|2[0-4]\\d|25[0-5])"
#define BRAID_LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
#define BRAID_HOST "(" BRAID_LABEL "\\.){0,4}[A-Za-z]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"

struct Format {
  std::string_view name;
  std::string_view expression;
};

constexpr Format kFormats[] = {
    {"date", BRAID_DATE},
    {"time", BRAID_TIME},
    {"date-time", BRAID_DATE "T" BRAID_TIME},
    {"duration",
     "P(\\d{1,4}W|\\d{1,4}D(T\\d{1,4}[HMS])?|\\d{1,4}Y(\\d{1,4}M(\\d{1,4}D)?)?|\\d{1,4}M(\\d{1,4}D)"
     "?|"
     "T(\\d{1,4}H(\\d{1,4}M(\\d{1,4}S)?)?|\\d{1,4}M(\\d{1,4}S)?|\\d{1,4}S))"},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"ipv4", BRAID_BYTE "(\\." BRAID_BYTE "){3}"},
    {"hostname", BRAID_HOST},
    {"email",
     "[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,32}){0,2}@(" BRAID_LABEL "\\.){1,3}[A-Za-z]{2,24}"},
};

#undef BRAID_DATE
#undef BRAID_TIME
#undef BRAID_BYTE
#undef BRAID_LABEL
#undef BRAID_HOST

}  // namespace

std::optional<std::string_view> expression_of_format(std::string_view format) {
  for (const Format& known : kFormats) {
    if (known.name == format) return known.expression;
  }
  return std::nullopt;
}

std::vector<std::string_view> known_formats() {
  std::vector<std::string_view> names;
  for (const Format& known : kFormats) names.push_back(known.name);
  return names;
}

}  // namespace braid::grammar
