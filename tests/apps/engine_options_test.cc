#include "apps/engine_options.h"

#include <gtest/gtest.h>

#include "tests/apps/run_program.h"

namespace braid::apps {
namespace {

TEST(ParseBytes, ReadsUnitsOfBothKinds) {
  EXPECT_EQ(parse_bytes("1000000").value(), 1'000'000u);
  EXPECT_EQ(parse_bytes("12B").value(), 12u);
  EXPECT_EQ(parse_bytes("800kB").value(), 800'000u);
  EXPECT_EQ(parse_bytes("512MiB").value(), size_t{512} << 20);
  EXPECT_EQ(parse_bytes("1.5GiB").value(), size_t{3} << 29);
}

TEST(ParseBytes, RefusesWhatIsNoSize) {
  for (const char* text : {"", "GiB", "-1", "0", "1 GiB", "1gib", "nan", "inf", "1e30", "2GiBx"}) {
    const auto bytes = parse_bytes(text);
    ASSERT_FALSE(bytes.has_value()) << text;
    EXPECT_NE(bytes.error().message.find("2GiB, 512MiB"), std::string::npos);
  }
}

TEST(ParseLora, SplitsAtTheFirstEqualsSign) {
  const auto lora = parse_lora("sql=a/b=c").value();
  EXPECT_EQ(lora.name, "sql");
  EXPECT_EQ(lora.folder, "a/b=c");
}

TEST(ParseLora, RefusesWhatIsNoNameAndPath) {
  for (const char* text : {"", "sql", "=path", "sql=", "base=path"})
    EXPECT_FALSE(parse_lora(text).has_value()) << text;
  EXPECT_NE(parse_lora("base=path").error().message.find("without an adapter"), std::string::npos);
}

TEST(ParseLoras, RefusesANameTwiceAndAFolderThatIsNotThere) {
  const std::string folder = test::golden_adapter("tinker");
  EXPECT_EQ(parse_loras({"a=" + folder, "b=" + folder}).value().size(), 2u);
  EXPECT_EQ(parse_loras({"a=" + folder, "a=" + folder}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(parse_loras({"a=/not/there"}).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace braid::apps
