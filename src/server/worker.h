#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <type_traits>
#include <utility>

namespace braid::server {

namespace internal {

template <class T>
boost::asio::awaitable<T> call(std::function<T()> work) {
  co_return work();
}

}  // namespace internal

// Runs `work` on a thread of the pool and comes back with its result to the executor that asked.
// What it throws comes out here. Once begun, it is never interrupted. Hand over a variable if it
// captures more than references: see Exchange::send for why.
template <class Work, class T = std::invoke_result_t<Work>>
boost::asio::awaitable<T> run_on(boost::asio::thread_pool& pool, Work work) {
  std::function<T()> job = std::move(work);
  // Without a cancellation slot: the signal would be passed on to the pool's thread, which may have
  // ended the coroutine it is for by then.
  co_return co_await boost::asio::co_spawn(
      pool, internal::call<T>(std::move(job)),
      boost::asio::bind_cancellation_slot(boost::asio::cancellation_slot(),
                                          boost::asio::use_awaitable));
}

}  // namespace braid::server
