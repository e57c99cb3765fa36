#include "adapter/background_free.h"

#include <gtest/gtest.h>

#include <chrono>

namespace braid::test {
namespace {

std::shared_ptr<const Adapter> some_adapter() {
  auto adapter = std::make_shared<Adapter>();
  adapter->name = "x";
  return adapter;
}

TEST(BackgroundFree, DestroysWhenTheLastHolderLetsGo) {
  BackgroundFree background;
  auto original = some_adapter();
  const std::weak_ptr<const Adapter> watched = original;
  auto guarded = background.guard(std::move(original));
  auto second = guarded;
  guarded.reset();
  EXPECT_EQ(second->name, "x");
  EXPECT_FALSE(watched.expired());
  second.reset();
  while (!watched.expired()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(BackgroundFree, DestroysAtOnceWhenItHasGone) {
  auto background = std::make_unique<BackgroundFree>();
  auto original = some_adapter();
  auto queued = some_adapter();
  const std::weak_ptr<const Adapter> watched = original, watched_queued = queued;
  auto guarded = background->guard(std::move(original));
  background->guard(std::move(queued)).reset();
  background.reset();
  EXPECT_TRUE(watched_queued.expired());
  EXPECT_EQ(guarded->name, "x");
  guarded.reset();
  EXPECT_TRUE(watched.expired());
}

}  // namespace
}  // namespace braid::test
