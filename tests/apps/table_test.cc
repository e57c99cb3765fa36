#include "apps/table.h"

#include <gtest/gtest.h>

#include "base/check.h"

namespace braid::apps {
namespace {

TEST(Table, SetsNumbersRightAndTextLeft) {
  Table table({"name", "count"});
  table.add({"a", "5"});
  table.add({"longer", "1,234"});
  EXPECT_EQ(table.to_string(),
            "name    count\n"
            "-------------\n"
            "a           5\n"
            "longer  1,234\n");
}

TEST(Table, TakesDashesRangesAndPercentForNumbers) {
  Table table({"rank", "of base"});
  table.add({"-", "-"});
  table.add({"8-40", "98.5 %"});
  EXPECT_EQ(table.to_string(),
            "rank  of base\n"
            "-------------\n"
            "   -        -\n"
            "8-40   98.5 %\n");
}

TEST(Table, HasNoSpacesAtTheEndsOfLines) {
  Table table({"a", "wide heading"});
  table.add({"x", "y"});
  EXPECT_EQ(table.to_string().find(" \n"), std::string::npos);
}

TEST(Table, WantsACellForEachHeading) {
  Table table({"a", "b"});
  EXPECT_THROW(table.add({"1"}), InternalError);
}

}  // namespace
}  // namespace braid::apps
