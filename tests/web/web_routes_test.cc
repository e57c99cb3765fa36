#include "server/web/web_routes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/file.h"
#include "server/http/router.h"

namespace braid::test {
namespace {

using server::web_files;

TEST(WebRoutes, HoldTheFilesOfTheFolder) {
  const std::filesystem::path folder = std::filesystem::path(BRAID_SOURCE_DIR) / "src/server/web";
  size_t num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.ends_with(".cc") || name.ends_with(".h")) continue;
    ++num_files;
    const auto file = std::ranges::find(web_files(), name, &server::WebFile::name);
    ASSERT_NE(file, web_files().end()) << name;
    EXPECT_EQ(file->bytes, *read_file(entry.path(), 1 << 20)) << name;
  }
  EXPECT_EQ(web_files().size(), num_files);
}

TEST(WebRoutes, AreOpenAndUnderTheirPaths) {
  server::Router router;
  server::add_web_routes(router);
  for (const char* path : {"/", "/web/app.js", "/web/style.css", "/web/icon.svg"}) {
    const auto match = router.find("GET", path);
    ASSERT_NE(match.route, nullptr) << path;
    EXPECT_EQ(match.route->access, server::Access::kOpen);
    EXPECT_EQ(router.find("POST", path).route, nullptr);
  }
  for (const char* path : {"/index.html", "/web/", "/web/index.html", "/web/../server.cc"})
    EXPECT_EQ(router.find("GET", path).route, nullptr) << path;
}

// Nothing inline and nothing from elsewhere: the policy would stop it, the page would be broken.
TEST(WebRoutes, FilesKeepToThePolicy) {
  for (const auto& file : web_files()) {
    for (const char* what : {"http://", "https://", " style=", " onclick=", "eval(", "innerHTML"}) {
      const size_t at = file.bytes.find(what);
      if (at == file.bytes.npos) continue;
      EXPECT_TRUE(file.bytes.substr(at).starts_with("http://www.w3.org/2000/svg"))
          << file.name << ": " << what;
    }
  }
}

}  // namespace
}  // namespace braid::test
