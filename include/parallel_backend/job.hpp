// A map that runs while the program goes on. Included by <parallel_backend.hpp>.
#ifndef PARALLEL_BACKEND_JOB_HPP
#define PARALLEL_BACKEND_JOB_HPP

#include <parallel_backend.h>
#include <parallel_backend/error.hpp>
#include <parallel_backend/map.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace pb {

namespace detail {

/// Calls that give no result.
template <> class results<void, false> {
  public:
    explicit results(std::size_t) {}
    template <class F> void fill(std::size_t, F &&make) { make(); }
};

} // namespace detail

/// A submitted map. The destructor cancels it and waits for the items that run: the callable and the results
/// live as long as the job. Used by one thread at a time. A job that was moved away may only be destroyed.
///
/// wait, wait_for, next and get throw what pb::for_each would: task_error where the callable threw, else
/// error.
template <class R> class job {
  public:
    /// Returns when the map is over.
    void wait() { static_cast<void>(state_->map.finish(pb_job_wait(state_->running.get(), -1.0))); }

    /// Waits no longer than `duration`; whether the map is over.
    bool wait_for(std::chrono::duration<double> duration) {
        const double seconds = duration.count() > 0 ? duration.count() : 0.0;
        return state_->map.finish(pb_job_wait(state_->running.get(), seconds)) != PB_PENDING;
    }

    /// Waits for the next item that finishes: in index order, or as they finish with PB_UNORDERED. nullopt
    /// once every item was given.
    std::optional<std::size_t> next() {
        std::size_t index = 0;
        if (state_->map.finish(pb_job_next(state_->running.get(), -1.0, &index)) == PB_DONE) {
            return std::nullopt;
        }
        return index;
    }

    /// The result of an item that next() gave and that did not fail, until get().
    template <class T = R> std::enable_if_t<!std::is_void_v<T>, T &> operator[](std::size_t index) {
        return state_->results[index];
    }

    /// Waits, then moves the results out, in index order. Once.
    template <class T = R> std::enable_if_t<!std::is_void_v<T>, std::vector<T>> get() {
        wait();
        return state_->results.take();
    }

    /// Asks the map to end: no further item starts, those that run see it as pb_cancelled(). Does not wait.
    void cancel() { check(pb_job_cancel(state_->running.get())); }

    /// Use pb::submit.
    template <class F>
    job(std::size_t n, F &&f, const options &settings)
        : state_(std::make_unique<state>(n, std::forward<F>(f), settings)) {}

  private:
    struct free_job {
        void operator()(pb_job *job) const { pb_job_free(job); }
    };

    struct state {
        template <class F>
        state(std::size_t n, F &&f, const options &settings)
            : results(n), map(body(std::forward<F>(f)), settings) {
            pb_job *submitted = nullptr;
            check(map.submit(n, &submitted));
            running.reset(submitted);
        }

        template <class F> std::function<void(std::size_t)> body(F &&f) {
            // Shared, because a std::function can be copied and the callable perhaps not.
            auto callable = std::make_shared<std::decay_t<F>>(std::forward<F>(f));
            return [this, callable](std::size_t i) {
                results.fill(i, [&]() -> R { return static_cast<R>(std::invoke(*callable, i)); });
            };
        }

        detail::results<R> results;
        detail::call<std::function<void(std::size_t)>> map;
        // Declared last, so that it ends first: until then its tasks use the other two.
        std::unique_ptr<pb_job, free_job> running;
    };

    // On the heap, because the tasks know its address.
    std::unique_ptr<state> state_;
};

/// Starts f(index) for each index in [0, n) and returns at once. The job owns f; what f refers to, and
/// options::statuses, must live as long as the job. `R` is what f returns, which may be void.
template <class F> [[nodiscard]] auto submit(std::size_t n, F &&f, const options &settings = {}) {
    using R = detail::result_t<std::decay_t<F>, std::size_t>;
    return job<R>(n, std::forward<F>(f), settings);
}

} // namespace pb

#endif
