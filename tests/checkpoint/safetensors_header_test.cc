#include "checkpoint/safetensors_header.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/checkpoint/checkpoint_files.h"

namespace braid {
namespace {

using test::safetensors_bytes;

Result<SafetensorsContents> parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file)));
}

struct Broken {
  const char* name;
  std::string file;
  ErrorCode code;
  const char* message;
};

std::string entry(const char* dtype, const char* shape, const char* offsets) {
  return std::string(R"({"a":{"dtype":")") + dtype + R"(","shape":)" + shape +
         R"(,"data_offsets":)" + offsets + "}}";
}

const std::string k24(24, '\0');

const Broken kBroken[] = {
    {"Empty", "", ErrorCode::kCorrupt,
     "file is 0 bytes, safetensors begin with an 8-byte header size"},
    {"ShorterThanTheSize", "1234567", ErrorCode::kCorrupt,
     "file is 7 bytes, safetensors begin with an 8-byte header size"},
    {"HeaderLongerThanFile", safetensors_bytes("{}", "").substr(0, 9), ErrorCode::kCorrupt,
     "header size is 2 bytes, only 1 follow it"},
    {"HeaderSizeNear2To64", std::string(8, '\xff') + "{}", ErrorCode::kCorrupt,
     "header size is 18446744073709551615 bytes, at most 100000000 are accepted"},
    {"EmptyHeader", safetensors_bytes("", ""), ErrorCode::kCorrupt,
     "header does not begin with '{'"},
    {"HeaderIsAnArray", safetensors_bytes("[]", ""), ErrorCode::kCorrupt,
     "header does not begin with '{'"},
    {"DuplicateNames",
     safetensors_bytes(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                       R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                       ""),
     ErrorCode::kCorrupt, "header: key \"a\" stands twice in one object"},
    {"DeepHeader", safetensors_bytes(R"({"a":[[[[[[]]]]]]})", ""), ErrorCode::kCorrupt,
     "header: nested deeper than 4 levels"},
    {"MetadataNotAnObject", safetensors_bytes(R"({"__metadata__":[]})", ""), ErrorCode::kCorrupt,
     "__metadata__ is not an object"},
    {"MetadataNotText", safetensors_bytes(R"({"__metadata__":{"format":1}})", ""),
     ErrorCode::kCorrupt, "__metadata__ entry \"format\" is not a string"},
    {"EntryNotAnObject", safetensors_bytes(R"({"a":3})", ""), ErrorCode::kCorrupt,
     "tensor \"a\": its header entry is not an object"},
    {"UnknownKey", safetensors_bytes(R"({"a":{"strides":[1]}})", ""), ErrorCode::kCorrupt,
     "tensor \"a\": its header entry has an unknown key \"strides\""},
    {"NoDtype", safetensors_bytes(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", "x"),
     ErrorCode::kCorrupt, "tensor \"a\": its header entry has no dtype"},
    {"UnknownDtype", safetensors_bytes(entry("F4", "[2]", "[0,1]"), "x"), ErrorCode::kUnsupported,
     "tensor \"a\": dtype \"F4\" is not known, F64, F32, F16, BF16, F8_E4M3, F8_E5M2, BOOL and "
     "integers are"},
    {"ShapeNotAnArray", safetensors_bytes(entry("F32", "6", "[0,24]"), k24), ErrorCode::kCorrupt,
     "tensor \"a\": shape is not an array"},
    {"NegativeSize", safetensors_bytes(entry("F32", "[-2,-3]", "[0,24]"), k24), ErrorCode::kCorrupt,
     "tensor \"a\": shape holds -2, sizes are non-negative integers"},
    {"FloatSize", safetensors_bytes(entry("F32", "[6.0]", "[0,24]"), k24), ErrorCode::kCorrupt,
     "tensor \"a\": shape holds 6.0, sizes are non-negative integers"},
    {"TextSize", safetensors_bytes(entry("F32", "[\"6\"]", "[0,24]"), k24), ErrorCode::kCorrupt,
     "tensor \"a\": shape holds a value that is not a number, sizes are non-negative integers"},
    {"OverflowingProduct", safetensors_bytes(entry("F32", "[4294967296,4294967296]", "[0,0]"), ""),
     ErrorCode::kCorrupt,
     "tensor \"a\": shape [4294967296,4294967296] has more than 2^63 - 1 elements"},
    {"OverflowBeforeAZero",
     safetensors_bytes(entry("F32", "[4294967296,4294967296,0]", "[0,0]"), ""), ErrorCode::kCorrupt,
     "tensor \"a\": shape [4294967296,4294967296,0] has more than 2^63 - 1 elements"},
    {"OverflowingBytes", safetensors_bytes(entry("F32", "[4611686018427387905]", "[0,4]"), k24),
     ErrorCode::kCorrupt,
     "tensor \"a\": F32 of shape [4611686018427387905] does not take the 4 bytes of data_offsets "
     "[0, 4]"},
    {"ShapeAgainstBytes", safetensors_bytes(entry("F32", "[2,3]", "[0,20]"), k24),
     ErrorCode::kCorrupt,
     "tensor \"a\": F32 of shape [2, 3] does not take the 20 bytes of data_offsets [0, 20]"},
    {"OffsetsBackwards", safetensors_bytes(entry("F32", "[6]", "[24,0]"), k24), ErrorCode::kCorrupt,
     "tensor \"a\": data_offsets [24, 0] end before they begin"},
    {"OffsetsPastTheEnd", safetensors_bytes(entry("F32", "[6]", "[8,32]"), k24),
     ErrorCode::kCorrupt, "tensor \"a\": data_offsets [8, 32] end past the file's 24 data bytes"},
    {"NegativeOffset", safetensors_bytes(entry("F32", "[6]", "[-24,0]"), k24), ErrorCode::kCorrupt,
     "tensor \"a\": data_offsets are not two non-negative integers"},
    {"ThreeOffsets", safetensors_bytes(entry("F32", "[6]", "[0,24,48]"), k24), ErrorCode::kCorrupt,
     "tensor \"a\": data_offsets are not two non-negative integers"},
    {"Overlap",
     safetensors_bytes(R"({"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]},)"
                       R"("b":{"dtype":"U8","shape":[12],"data_offsets":[12,24]}})",
                       k24),
     ErrorCode::kCorrupt, "tensor \"b\": bytes [12, 24) overlap those of tensor \"a\""},
    {"SameBytesTwice",
     safetensors_bytes(R"({"a":{"dtype":"U8","shape":[24],"data_offsets":[0,24]},)"
                       R"("b":{"dtype":"U8","shape":[24],"data_offsets":[0,24]}})",
                       k24),
     ErrorCode::kCorrupt, "tensor \"b\": bytes [0, 24) overlap those of tensor \"a\""},
    {"GapBefore", safetensors_bytes(entry("U8", "[16]", "[8,24]"), k24), ErrorCode::kCorrupt,
     "data bytes [0, 8) before tensor \"a\" belong to no tensor"},
    {"GapAtTheEnd", safetensors_bytes(entry("U8", "[16]", "[0,16]"), k24), ErrorCode::kCorrupt,
     "data bytes [16, 24) at the end belong to no tensor"},
    {"Truncated", safetensors_bytes(entry("U8", "[24]", "[0,24]"), k24.substr(0, 20)),
     ErrorCode::kCorrupt, "tensor \"a\": data_offsets [0, 24] end past the file's 20 data bytes"},
    {"ControlBytesInTheName", safetensors_bytes("{\"\\u001b[2J\":3}", ""), ErrorCode::kCorrupt,
     "tensor \"\\x1b[2J\": its header entry is not an object"},
};

class BrokenSafetensors : public testing::TestWithParam<Broken> {};

TEST_P(BrokenSafetensors, AreRefusedWithTensorValueAndRule) {
  const auto contents = parse(GetParam().file);
  ASSERT_FALSE(contents);
  EXPECT_EQ(contents.error().message, GetParam().message);
  EXPECT_EQ(contents.error().code, GetParam().code);
}

INSTANTIATE_TEST_SUITE_P(Files, BrokenSafetensors, testing::ValuesIn(kBroken),
                         [](const auto& p) { return std::string(p.param.name); });

TEST(ParseSafetensors, ReadsTensorsOfEveryKindAndTheMetadata) {
  const auto contents = parse(safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("e":{"dtype":"I64","shape":[0,5],"data_offsets":[4,4]},)"
      R"("m":{"dtype":"BF16","shape":[2,1],"data_offsets":[4,8]}}   )",
      std::string("\0\0\x80\x3f\x80\x3f\0\x40", 8)));
  ASSERT_TRUE(contents) << contents.error().message;
  EXPECT_EQ(contents->metadata.at("format"), "pt");
  ASSERT_EQ(contents->tensors.size(), 3u);
  float scalar = 0;
  copy_to_float(contents->tensors.at("s"), &scalar);
  EXPECT_EQ(scalar, 1.0f);
  EXPECT_TRUE(contents->tensors.at("e").bytes.empty());
  EXPECT_EQ(contents->tensors.at("m").shape, (Shape{2, 1}));
  float values[2] = {};
  copy_to_float(contents->tensors.at("m"), values);
  EXPECT_EQ(values[0], 1.0f);
  EXPECT_EQ(values[1], 2.0f);
}

TEST(ParseSafetensors, TakesAFileWithoutTensors) {
  EXPECT_TRUE(parse(safetensors_bytes("{}", "")));
}

TEST(ParseSafetensors, SaysWhereTheHeaderIsNotJson) {
  const auto contents = parse(safetensors_bytes("{\"a\":nope}", ""));
  ASSERT_FALSE(contents);
  EXPECT_EQ(contents.error().message.rfind("header: not valid JSON at byte ", 0), 0u)
      << contents.error().message;
}

TEST(QuotedName, CutsLongNames) {
  EXPECT_EQ(quote_name(std::string(300, 'x')), "\"" + std::string(200, 'x') + "...\"");
}

}  // namespace
}  // namespace braid
