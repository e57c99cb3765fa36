#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "tests/checkpoint/checkpoint_files.h"

namespace braid {
namespace {

using test::TemporaryFolder;

std::string one_tensor(const std::string& name) {
  return test::safetensors_bytes(
      "{\"" + name + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x");
}

struct BrokenFolder {
  const char* name;
  std::function<void(const TemporaryFolder&)> fill;
  ErrorCode code;
  const char* message;
};

constexpr const char* kIndex = "model.safetensors.index.json";

const BrokenFolder kBroken[] = {
    {"Nothing", [](const auto&) {}, ErrorCode::kNotFound,
     "DIR: neither model.safetensors nor model.safetensors.index.json is there"},
    {"NoWeightMap", [](const auto& f) { f.write(kIndex, "{}"); }, ErrorCode::kCorrupt,
     "DIR/model.safetensors.index.json: no weight_map object"},
    {"ShardNotText", [](const auto& f) { f.write(kIndex, R"({"weight_map":{"a":7}})"); },
     ErrorCode::kCorrupt,
     "DIR/model.safetensors.index.json: weight_map entry \"a\" is not a string"},
    {"ShardOutsideTheFolder",
     [](const auto& f) { f.write(kIndex, R"({"weight_map":{"a":"../x.safetensors"}})"); },
     ErrorCode::kCorrupt,
     "DIR/model.safetensors.index.json: tensor \"a\" is in shard \"../x.safetensors\", a file name "
     "in the same folder is expected"},
    {"AbsoluteShard",
     [](const auto& f) { f.write(kIndex, R"({"weight_map":{"a":"/etc/passwd"}})"); },
     ErrorCode::kCorrupt,
     "DIR/model.safetensors.index.json: tensor \"a\" is in shard \"/etc/passwd\", a file name in "
     "the same folder is expected"},
    {"ShardMissing",
     [](const auto& f) { f.write(kIndex, R"({"weight_map":{"a":"1.safetensors"}})"); },
     ErrorCode::kNotFound, "DIR/1.safetensors: cannot open for reading: No such file or directory"},
    {"TensorMissing",
     [](const auto& f) {
       f.write(kIndex, R"({"weight_map":{"a":"1.safetensors","b":"1.safetensors"}})");
       f.write("1.safetensors", one_tensor("a"));
     },
     ErrorCode::kCorrupt,
     "DIR/model.safetensors.index.json: tensor \"b\" is not in its shard \"1.safetensors\""},
    {"TensorNotInTheIndex",
     [](const auto& f) {
       f.write(kIndex, R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
       f.write("1.safetensors", one_tensor("a"));
       f.write("2.safetensors", one_tensor("c"));
     },
     ErrorCode::kCorrupt, "DIR/2.safetensors: tensor \"c\" is not in model.safetensors.index.json"},
    {"TensorInTwoShards",
     [](const auto& f) {
       f.write(kIndex, R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
       f.write("1.safetensors", one_tensor("a"));
       f.write("2.safetensors", one_tensor("a"));
     },
     ErrorCode::kCorrupt,
     "DIR/2.safetensors: tensor \"a\" is here, model.safetensors.index.json has it in "
     "\"1.safetensors\""},
    {"SingleFileBesideAnIndex",
     [](const auto& f) {
       f.write(kIndex, R"({"weight_map":{"a":"1.safetensors"}})");
       f.write("1.safetensors", one_tensor("a"));
       f.write("model.safetensors", one_tensor("a"));
     },
     ErrorCode::kCorrupt,
     "DIR: both model.safetensors and model.safetensors.index.json, which does not name it; remove "
     "one"},
    {"BrokenShard",
     [](const auto& f) {
       f.write(kIndex, R"({"weight_map":{"a":"1.safetensors"}})");
       f.write("1.safetensors", "short");
     },
     ErrorCode::kCorrupt,
     "DIR/1.safetensors: file is 5 bytes, safetensors begin with an 8-byte header size"},
};

class BrokenSafetensorsFolder : public testing::TestWithParam<BrokenFolder> {};

TEST_P(BrokenSafetensorsFolder, IsRefusedWithFileAndTensor) {
  const TemporaryFolder folder;
  GetParam().fill(folder);
  const auto opened = Safetensors::open_folder(folder.path());
  ASSERT_FALSE(opened);
  EXPECT_EQ(folder.without_path(opened.error().message), GetParam().message);
  EXPECT_EQ(opened.error().code, GetParam().code);
}

INSTANTIATE_TEST_SUITE_P(Folders, BrokenSafetensorsFolder, testing::ValuesIn(kBroken),
                         [](const auto& p) { return std::string(p.param.name); });

TEST(Safetensors, OpensShardsAsOne) {
  const TemporaryFolder folder;
  folder.write(kIndex, R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
  folder.write("1.safetensors", one_tensor("a"));
  folder.write("2.safetensors", one_tensor("b"));
  const auto opened = Safetensors::open_folder(folder.path());
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(opened->tensors().size(), 2u);
  EXPECT_EQ(opened->files().size(), 2u);
  EXPECT_NE(opened->find("b"), nullptr);
  EXPECT_EQ(opened->find("c"), nullptr);
}

TEST(Safetensors, OpensAnotherStem) {
  const TemporaryFolder folder;
  folder.write("adapter_model.safetensors", one_tensor("a"));
  EXPECT_TRUE(Safetensors::open_folder(folder.path(), "adapter_model"));
  EXPECT_FALSE(Safetensors::open_folder(folder.path()));
}

TEST(Safetensors, ReadsBackWhatItWrites) {
  const TemporaryFolder folder;
  const auto bytes_of = [](size_t n, char c) {
    return [n, c]() -> Result<std::vector<std::byte>> {
      return std::vector<std::byte>(n, static_cast<std::byte>(c));
    };
  };
  const auto path = folder.path() / "x.safetensors";
  const auto written = write_safetensors(path,
                                         {{"odd", Dtype::kU8, {3}, bytes_of(3, 1)},
                                          {"wide", Dtype::kF64, {2}, bytes_of(16, 2)},
                                          {"empty", Dtype::kF32, {0}, bytes_of(0, 0)},
                                          {"scalar", Dtype::kF32, {}, bytes_of(4, 3)}},
                                         {{"format", "pt"}});
  ASSERT_TRUE(written) << written.error().message;
  const auto opened = Safetensors::open_file(path);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(opened->tensors().size(), 4u);
  EXPECT_EQ(opened->metadata().at("format"), "pt");
  EXPECT_EQ(opened->find("odd")->bytes[2], std::byte{1});
  for (const char* name : {"wide", "scalar"}) {
    const auto* view = opened->find(name);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view->bytes.data()) % size_of(view->dtype), 0u) << name;
  }
}

TEST(Safetensors, LeavesNothingBehindWhenAnEntryFails) {
  const TemporaryFolder folder;
  const auto written =
      write_safetensors(folder.path() / "x.safetensors",
                        {{"a", Dtype::kU8, {1}, []() -> Result<std::vector<std::byte>> {
                            return tl::unexpected<Error>(Error{ErrorCode::kCorrupt, "no bytes"});
                          }}});
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().message, "no bytes");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Safetensors, SaysWhenItCannotWrite) {
  const auto written = write_safetensors("/nonexistent/x.safetensors", {});
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, ErrorCode::kIo);
}

}  // namespace
}  // namespace braid
