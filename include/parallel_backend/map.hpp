// Parallel loops over C++ callables. Included by <parallel_backend.hpp>.
#ifndef PARALLEL_BACKEND_MAP_HPP
#define PARALLEL_BACKEND_MAP_HPP

#include <parallel_backend.h>
#include <parallel_backend/error.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace pb {

/// How far a map has come.
struct progress_info {
    std::size_t done;
    std::size_t failed;
    std::size_t total;
    std::chrono::duration<double> elapsed;
};

/// Settings of one map. Zero and empty mean "not given: inherit or default".
struct options {
    /// Workers, as in backend_options.
    std::int32_t n_jobs = 0;
    /// PB_COLLECT_ERRORS and other flags of the C interface.
    std::uint32_t flags = 0;
    /// Items that a worker takes at once; 0: found out while running.
    std::size_t batch_size = 0;
    /// Time of one item from its own start; zero: none. An item that runs sees it as pb_cancelled().
    std::chrono::duration<double> timeout{0};
    /// Called now and then, from one thread at a time, which may be any. false cancels the map
    /// (PB_ERR_CANCELLED); what it throws cancels too, and is thrown by the map.
    std::function<bool(const progress_info &)> progress = {};
    /// Made as long as the map and filled with each item's fate: 0, 1 where the callable threw, or a PB_ERR_
    /// value where the item did not finish.
    std::vector<std::int32_t> *statuses = nullptr;
};

namespace detail {

constexpr const char *unnamed_exception = "an exception that is not a std::exception";

/// The C form of a map over C++ callables: the callbacks, what they need, and what they threw. Stays in place
/// while the map runs.
template <class Body> class call {
  public:
    /// `body` is called with each index.
    call(Body body, const options &settings) : body_(std::move(body)), settings_(settings) {}
    call(const call &) = delete;
    call &operator=(const call &) = delete;

    pb_status run(std::size_t n) {
        pb_map_options c = c_options(n, PB_REQUIRE_SHAREDMEM);
        c.range = run_range;
        return pb_parallel_map(run_item, this, n, nullptr, 0, nullptr, 0, &c);
    }

    pb_status submit(std::size_t n, pb_job **job) {
        const pb_map_options c = c_options(n, PB_REQUIRE_SHAREDMEM);
        return pb_submit_map(run_item, this, n, nullptr, 0, nullptr, 0, &c, job);
    }

    /// `body` is called with each index, its input, and its output. On any backend.
    pb_status run_bytes(std::size_t n, const pb_bytes *inputs, pb_results **results) {
        const pb_map_options c = c_options(n, 0);
        return pb_map_bytes(run_bytes_item, this, n, inputs, &c, results);
    }

    /// Turns what the map ended with into an exception; gives a status that is no error back.
    pb_status finish(pb_status status) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (status == PB_ERR_TASK_FAILED && thrown_) {
            throw_task_error();
        }
        if (status != PB_PENDING && progress_thrown_) {
            std::rethrow_exception(progress_thrown_);
        }
        return check(status);
    }

  private:
    static constexpr std::int32_t thrown_code = 1;

    pb_map_options c_options(std::size_t n, std::uint32_t required) {
        pb_map_options c{};
        c.struct_size = sizeof c;
        c.n_jobs = settings_.n_jobs;
        c.flags = settings_.flags | required;
        c.batch_size = settings_.batch_size;
        c.timeout = settings_.timeout.count();
        if (settings_.statuses != nullptr) {
            settings_.statuses->assign(n, 0);
            c.statuses = settings_.statuses->data();
        }
        if (settings_.progress) {
            c.progress = report;
            c.progress_user = this;
        }
        return c;
    }

    static std::int32_t run_item(void *self, std::size_t index, const void *, void *) noexcept {
        call &map = *static_cast<call *>(self);
        return map.contain(index, [&] { map.body_(index); });
    }

    /// The compiler sees loop and body together: short items cost no call each.
    static std::int32_t run_range(void *self, std::size_t begin, std::size_t end, const void *, void *,
                                  std::size_t *failed) noexcept {
        call &map = *static_cast<call *>(self);
        std::size_t index = begin;
        const std::int32_t code = map.contain(index, [&] {
            for (; index < end; ++index) {
                map.body_(index);
            }
        });
        if (code != 0) {
            *failed = index;
        }
        return code;
    }

    static std::int32_t run_bytes_item(void *self, std::size_t index, const void *input, std::size_t size,
                                       pb_output *output) noexcept {
        call &map = *static_cast<call *>(self);
        return map.contain(index, [&] { map.body_(index, input, size, output); });
    }

    /// `index` is the item that runs when `work` throws.
    template <class Work> std::int32_t contain(const std::size_t &index, Work &&work) noexcept {
        try {
            work();
            return 0;
        } catch (const std::exception &thrown) {
            return keep(index, thrown.what());
        } catch (...) {
            return keep(index, unnamed_exception);
        }
    }

    /// Called while the exception of item `index` is being handled. The lowest index is kept, so that the
    /// same failures give the same exception whichever thread was faster.
    std::int32_t keep(std::size_t index, const char *text) noexcept {
        static_cast<void>(pb_task_fail(text));
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!thrown_ || index < thrown_index_) {
            thrown_ = std::current_exception();
            thrown_index_ = index;
        }
        return thrown_code;
    }

    static std::int32_t report(void *self, std::size_t done, std::size_t failed, std::size_t total,
                               double seconds) noexcept {
        call &map = *static_cast<call *>(self);
        try {
            const bool go_on =
                map.settings_.progress({done, failed, total, std::chrono::duration<double>(seconds)});
            return go_on ? 0 : 1;
        } catch (...) {
            const std::lock_guard<std::mutex> lock(map.mutex_);
            map.progress_thrown_ = std::current_exception();
            return 1;
        }
    }

    [[noreturn]] void throw_task_error() const {
        pb_error_info info{};
        info.status = PB_ERR_TASK_FAILED;
        info.task_code = thrown_code;
        info.task_index = thrown_index_;
        info.exit_code = -1;
        info.attempts = 1;
        const std::string prefix = "task " + std::to_string(thrown_index_) + ": ";
        // A task_error nests the exception that is being handled.
        try {
            std::rethrow_exception(thrown_);
        } catch (const std::exception &thrown) {
            throw task_error(info, prefix + thrown.what());
        } catch (...) {
            throw task_error(info, prefix + unnamed_exception);
        }
    }

    Body body_;
    const options settings_;
    std::mutex mutex_;
    std::exception_ptr thrown_;
    std::size_t thrown_index_ = 0;
    std::exception_ptr progress_thrown_;
};

/// Values that may be written into a vector that already has them. Not bool: vector<bool> shares its bytes.
template <class R>
constexpr bool is_plain =
    std::conjunction_v<std::is_trivially_copyable<R>, std::is_trivially_default_constructible<R>,
                       std::is_move_assignable<R>, std::negation<std::is_same<R, bool>>>;

/// The results of a map, each written by the task of its index. Items that did not finish have none.
template <class R, bool Plain = is_plain<R>> class results {
  public:
    explicit results(std::size_t n)
        : n_(n), filled_(std::make_unique<unsigned char[]>(n)), slots_(std::allocator<R>().allocate(n)) {}
    results(const results &) = delete;
    results &operator=(const results &) = delete;
    ~results() {
        for (std::size_t i = 0; i < n_; ++i) {
            if (filled_[i] != 0) {
                slots_[i].~R();
            }
        }
        std::allocator<R>().deallocate(slots_, n_);
    }

    template <class F> void fill(std::size_t index, F &&make) {
        ::new (static_cast<void *>(slots_ + index)) R(make());
        filled_[index] = 1;
    }

    R &operator[](std::size_t index) { return slots_[index]; }

    /// All results, once every item has finished.
    std::vector<R> take() {
        return std::vector<R>(std::make_move_iterator(slots_), std::make_move_iterator(slots_ + n_));
    }

  private:
    std::size_t n_;
    std::unique_ptr<unsigned char[]> filled_; // bytes, so that tasks may write neighbours at the same time
    R *slots_;
};

/// Plain values are written straight into the vector that is handed out.
template <class R> class results<R, true> {
  public:
    explicit results(std::size_t n) : values_(n) {}
    template <class F> void fill(std::size_t index, F &&make) { values_[index] = make(); }
    R &operator[](std::size_t index) { return values_[index]; }
    std::vector<R> take() { return std::move(values_); }

  private:
    std::vector<R> values_;
};

/// What `F` returns for `Argument`, as a value.
template <class F, class Argument> using result_t = std::decay_t<std::invoke_result_t<F &, Argument>>;

template <class T, class = void> struct is_contiguous : std::false_type {};
template <class T>
struct is_contiguous<
    T, std::void_t<decltype(*std::data(std::declval<T &>())), decltype(std::size(std::declval<T &>()))>>
    : std::true_type {};

template <class Range> using if_contiguous = std::enable_if_t<is_contiguous<Range>::value, int>;

} // namespace detail

/// Calls f(index) for each index in [0, n), in parallel, and returns when all calls have. What f returns is
/// ignored.
///
/// The loop over a chunk of items is compiled together with f, so that f may take a nanosecond.
///
/// Throws task_error where a call of f threw: no further chunk is begun, and of the items that failed the one
/// with the lowest index is reported. With PB_COLLECT_ERRORS every item runs first. Throws error for every
/// other failure.
template <class F> void for_each(std::size_t n, F &&f, const options &settings = {}) {
    auto body = [&f](std::size_t index) { static_cast<void>(std::invoke(f, index)); };
    detail::call<decltype(body)> call(body, settings);
    call.finish(call.run(n));
}

/// Calls f(element) for each element of a contiguous range: a vector, an array, anything with data() and
/// size().
template <class Range, class F, detail::if_contiguous<Range> = 0>
void for_each(Range &&range, F &&f, const options &settings = {}) {
    auto *first = std::data(range);
    for_each(
        std::size(range), [first, &f](std::size_t i) { std::invoke(f, first[i]); }, settings);
}

/// The results of f(index) for each index in [0, n), in index order. Throws as for_each does; results that
/// are there by then are destroyed. The result type needs a move constructor, nothing else.
template <class F> auto map(std::size_t n, F &&f, const options &settings = {}) {
    using R = detail::result_t<F, std::size_t>;
    static_assert(!std::is_void_v<R>, "the callable of pb::map returns nothing: use pb::for_each");
    detail::results<R> results(n);
    for_each(
        n, [&](std::size_t i) { results.fill(i, [&]() -> R { return std::invoke(f, i); }); }, settings);
    return results.take();
}

/// The results of f(element) for each element of a contiguous range, in the range's order.
template <class Range, class F, detail::if_contiguous<Range> = 0>
auto map(Range &&range, F &&f, const options &settings = {}) {
    auto *first = std::data(range);
    using R = detail::result_t<F, decltype(*first)>;
    return map(
        std::size(range), [first, &f](std::size_t i) -> R { return std::invoke(f, first[i]); }, settings);
}

} // namespace pb

#endif
