// Reductions over C++ callables. Included by <parallel_backend.hpp>.
#ifndef PARALLEL_BACKEND_REDUCE_HPP
#define PARALLEL_BACKEND_REDUCE_HPP

#include <parallel_backend.h>
#include <parallel_backend/error.hpp>
#include <parallel_backend/map.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace pb {

namespace detail {

/// The C form of a reduction over C++ callables. What the C library copies and combines are pointers to
/// partial results, so these may be of any type that moves.
template <class T, class Fold, class Combine> class reduction {
  public:
    reduction(const T &identity, Fold &fold, Combine &combine, const options &settings)
        : identity_(identity), fold_(fold), combine_(combine), settings_(settings) {}
    reduction(const reduction &) = delete;
    reduction &operator=(const reduction &) = delete;

    T run(std::size_t n) {
        pb_map_options c{};
        c.struct_size = sizeof c;
        c.n_jobs = settings_.n_jobs;
        c.flags = settings_.flags;
        c.batch_size = settings_.batch_size;
        c.timeout = settings_.timeout.count();
        if (settings_.progress) {
            c.progress = report;
            c.progress_user = this;
        }
        slot result = nullptr;
        const pb_status status =
            pb_reduce(fold_block, combine_two, this, n, nullptr, 0, &result, sizeof result, &c);
        if (status != PB_OK && thrown_) {
            std::rethrow_exception(thrown_);
        }
        check(status);
        return result != nullptr ? std::move(**result) : identity_;
    }

  private:
    using slot = std::optional<T> *;

    static std::int32_t fold_block(void *self, std::size_t begin, std::size_t end, const void *,
                                   void *partial) noexcept {
        reduction &own = *static_cast<reduction *>(self);
        return own.keep([&] {
            T sum = own.identity_;
            for (std::size_t i = begin; i < end; ++i) {
                sum = std::invoke(own.fold_, std::move(sum), i);
            }
            *static_cast<slot *>(partial) = own.store(std::move(sum));
        });
    }

    static std::int32_t combine_two(void *self, void *left, const void *right) noexcept {
        reduction &own = *static_cast<reduction *>(self);
        std::optional<T> &into = **static_cast<slot *>(left);
        std::optional<T> &from = **static_cast<const slot *>(right);
        return own.keep([&] {
            into.emplace(std::invoke(own.combine_, std::move(*into), std::move(*from)));
            from.reset();
        });
    }

    /// A place for a partial result that lives as long as the reduction.
    slot store(T &&value) {
        const std::lock_guard<std::mutex> lock(mutex_);
        return &results_.emplace_back(std::move(value));
    }

    template <class Body> std::int32_t keep(Body body) noexcept {
        try {
            body();
            return 0;
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!thrown_) {
                thrown_ = std::current_exception();
            }
            return 1;
        }
    }

    static std::int32_t report(void *self, std::size_t done, std::size_t failed, std::size_t total,
                               double seconds) noexcept {
        reduction &own = *static_cast<reduction *>(self);
        bool go_on = false;
        const std::int32_t failure = own.keep([&] {
            go_on = own.settings_.progress({done, failed, total, std::chrono::duration<double>(seconds)});
        });
        return failure == 0 && go_on ? 0 : 1;
    }

    const T &identity_;
    Fold &fold_;
    Combine &combine_;
    const options &settings_;
    std::mutex mutex_;
    std::list<std::optional<T>> results_;
    std::exception_ptr thrown_;
};

} // namespace detail

/// Folds the indices [0, n) into one result: `fold(partial, index)` returns the partial result with that
/// item, `combine(left, right)` that of two neighbours, and `identity` is where each block begins. Blocks and
/// the order of combining depend on n and settings.batch_size alone, so the result has the same bits for any
/// number of workers (see pb_reduce).
///
///     const double sum = pb::reduce(x.size(), 0.0, [&](double s, std::size_t i) { return s + x[i]; },
///                                   std::plus<>());
///
/// Throws what a call of fold or combine threw, the first in time; error for every other failure.
/// settings.statuses and PB_COLLECT_ERRORS have no meaning here: they are refused.
template <class T, class Fold, class Combine>
T reduce(std::size_t n, const T &identity, Fold &&fold, Combine &&combine, const options &settings = {}) {
    if (settings.statuses != nullptr) {
        throw std::invalid_argument("pb::reduce has one result: it has no use for options.statuses");
    }
    return detail::reduction<T, std::remove_reference_t<Fold>, std::remove_reference_t<Combine>>(
               identity, fold, combine, settings)
        .run(n);
}

} // namespace pb

#endif
