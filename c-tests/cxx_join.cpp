// pb::join and pb::reduce: recursion and reductions over C++ callables, and what they throw.
#include "check.h"

#include <parallel_backend.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr const char *backends[] = {"sequential", "threading"};

/// The exception that `work` ends with; it must end with one of this type.
template <class Error, class Work> Error failure_of(Work work) {
    std::optional<Error> thrown;
    try {
        work();
    } catch (const Error &error) {
        thrown = error;
    }
    CHECK(thrown.has_value());
    return *thrown;
}

// ---- join

void quicksort(int *first, int *last) {
    if (last - first < 16) {
        std::sort(first, last);
        return;
    }
    const int pivot = first[(last - first) / 2];
    int *const middle = std::partition(first, last, [pivot](int value) { return value < pivot; });
    int *const high = std::partition(middle, last, [pivot](int value) { return value == pivot; });
    pb::join([=] { quicksort(first, middle); }, [=] { quicksort(high, last); });
}

TEST(a_quicksort_sorts) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        std::vector<int> numbers(20000);
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            numbers[i] = static_cast<int>(i * 7919 % 10007);
        }
        quicksort(numbers.data(), numbers.data() + numbers.size());
        CHECK(std::is_sorted(numbers.begin(), numbers.end()));
    }
}

void throw_at_the_bottom(int depth) {
    if (depth == 0) {
        throw std::out_of_range("the bottom");
    }
    pb::join([depth] { throw_at_the_bottom(depth - 1); }, [] {});
}

TEST(an_exception_passes_through_a_recursion_unchanged) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        const auto error = failure_of<std::out_of_range>([] { throw_at_the_bottom(10); });
        CHECK(std::string(error.what()) == "the bottom");
    }
}

TEST(of_two_exceptions_it_is_the_first_callables_and_both_run) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {2});
        std::atomic<int> ran{0};
        const auto fail = [&ran](const char *text) {
            ++ran;
            throw std::runtime_error(text);
        };
        const auto first = failure_of<std::runtime_error>(
            [&] { pb::join([&] { fail("first"); }, [&] { fail("second"); }); });
        CHECK(std::string(first.what()) == "first");
        const auto second =
            failure_of<std::runtime_error>([&] { pb::join([&] { ++ran; }, [&] { fail("second"); }); });
        CHECK(std::string(second.what()) == "second");
        CHECK_INT(4, ran);
    }
}

TEST(callables_are_used_where_they_are) {
    auto only = [one = std::make_unique<int>(1)]() mutable { ++*one; };
    pb::join(only, [other = std::make_unique<int>(2)] { static_cast<void>(*other); });
    pb::join(only, [] {});
}

// ---- reduce

TEST(a_sum_has_the_same_bits_for_any_number_of_workers) {
    const auto term = [](double sum, std::size_t i) { return sum + std::sin(static_cast<double>(i)) * 1e3; };
    std::optional<double> first;
    for (const char *backend : backends) {
        for (int n_jobs = 1; n_jobs < 6; ++n_jobs) {
            const pb::scope scope(backend, {n_jobs});
            const double sum = pb::reduce(50000, 0.0, term, std::plus<>());
            first = first.value_or(sum);
            CHECK(std::memcmp(&*first, &sum, sizeof sum) == 0);
        }
    }
}

TEST(partial_results_may_be_of_any_type_that_moves) {
    std::string expected;
    for (std::size_t i = 0; i < 1000; ++i) {
        expected += std::to_string(i) + ' ';
    }
    for (const char *backend : backends) {
        const pb::scope scope(backend, {4});
        const std::string text = pb::reduce(
            1000, std::string(),
            [](std::string before, std::size_t i) { return std::move(before) + std::to_string(i) + ' '; },
            [](std::string left, const std::string &right) { return std::move(left) + right; });
        CHECK(text == expected);
    }
}

TEST(no_items_give_the_identity) {
    CHECK_INT(7, pb::reduce(
                     0, 7, [](int sum, std::size_t) { return sum; }, std::plus<>()));
}

TEST(what_fold_and_combine_throw_is_thrown) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        const auto fold = [](int sum, std::size_t i) {
            return i == 42 ? throw std::out_of_range("no 42") : sum;
        };
        const auto error = failure_of<std::out_of_range>([&] { pb::reduce(100, 0, fold, std::plus<>()); });
        CHECK(std::string(error.what()) == "no 42");
        const auto keep = [](int sum, std::size_t) { return sum; };
        const auto refuse = [](int, int) -> int { throw std::logic_error("never"); };
        failure_of<std::logic_error>([&] { pb::reduce(100, 0, keep, refuse); });
    }
}

TEST(statuses_are_refused) {
    std::vector<std::int32_t> statuses;
    pb::options options;
    options.statuses = &statuses;
    failure_of<std::invalid_argument>([&options] {
        pb::reduce(
            1, 0, [](int sum, std::size_t) { return sum; }, std::plus<>(), options);
    });
}

TEST(the_last_report_has_every_block) {
    pb::options options;
    options.batch_size = 10;
    pb::progress_info last{};
    options.progress = [&last](const pb::progress_info &now) {
        last = now;
        return true;
    };
    const int items = pb::reduce(
        1000, 0, [](int sum, std::size_t) { return sum + 1; }, std::plus<>(), options);
    CHECK_INT(1000, items);
    CHECK_INT(100, last.done);
    CHECK_INT(100, last.total);
}

} // namespace

int main() {
    RUN(a_quicksort_sorts);
    RUN(an_exception_passes_through_a_recursion_unchanged);
    RUN(of_two_exceptions_it_is_the_first_callables_and_both_run);
    RUN(callables_are_used_where_they_are);
    RUN(a_sum_has_the_same_bits_for_any_number_of_workers);
    RUN(partial_results_may_be_of_any_type_that_moves);
    RUN(no_items_give_the_identity);
    RUN(what_fold_and_combine_throw_is_thrown);
    RUN(statuses_are_refused);
    RUN(the_last_report_has_every_block);
    CHECK_OK(pb_shutdown());
    return check_result();
}
