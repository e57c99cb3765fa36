#include "base/file.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

namespace braid::test {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  FileTest() {
    std::string pattern = (fs::temp_directory_path() / "braid-file-XXXXXX").string();
    folder = fs::canonical(mkdtemp(pattern.data()));
    EXPECT_TRUE(write_file(folder / "in", "text"));
  }
  ~FileTest() override { fs::remove_all(folder); }

  fs::path folder;
};

TEST_F(FileTest, StaysWithinAFolder) {
  fs::create_directory(folder / "root");
  fs::create_directory(folder / "root-2");
  ASSERT_TRUE(write_file(folder / "root/file", "text"));
  ASSERT_TRUE(write_file(folder / "root-2/file", "text"));
  fs::create_symlink("file", folder / "root/inner");
  fs::create_symlink(folder / "in", folder / "root/outer");
  const FileAccess access = {.within = folder / "root"};
  EXPECT_EQ(read_file(folder / "root/file", 10, access).value(), "text");
  EXPECT_EQ(read_file(folder / "root/inner", 10, access).value(), "text");
  for (const char* path : {"in", "root/outer", "root/../in", "root-2/file"}) {
    const auto text = read_file(folder / path, 10, access);
    ASSERT_FALSE(text) << path;
    EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(text.error().message,
              (folder / path).string() + ": leads out of " + (folder / "root").string());
    EXPECT_FALSE(MappedFile::open(folder / path, access));
  }
  EXPECT_TRUE(lies_within("/a/b", "/a/b"));
  EXPECT_TRUE(lies_within("/a/b/c", "/a/b"));
  EXPECT_TRUE(lies_within("/a", "/"));
  EXPECT_FALSE(lies_within("/a/bc", "/a/b"));
  EXPECT_FALSE(lies_within("/a", "/a/b"));
}

TEST_F(FileTest, KeepsTheBytesOfAFileThatChanges) {
  const auto mapped = MappedFile::open(folder / "in", {.changes = true});
  ASSERT_TRUE(mapped);
  std::ofstream(folder / "in", std::ios::trunc) << "";  // a plain mapping would raise SIGBUS now
  const auto bytes = (*mapped)->bytes();
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), "text");
  EXPECT_EQ(MappedFile::open(folder / "in", {.changes = true}).value()->bytes().size(), 0u);
}

TEST_F(FileTest, RefusesWhatIsNoFile) {
  EXPECT_EQ(read_file(folder, 10).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(MappedFile::open(folder / "none", {.changes = true}).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(read_file(folder / "in", 3).error().message,
            (folder / "in").string() + ": 4 bytes, at most 3 are accepted");
}

}  // namespace
}  // namespace braid::test
