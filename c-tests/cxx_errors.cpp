// What a callable throws reaches the caller, with the index of its item; nothing leaks and nothing is lost.
#include "check.h"

#include <parallel_backend.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr const char *backends[] = {"sequential", "threading"};

/// Counts its living objects.
class counted {
  public:
    counted() { ++alive; }
    counted(counted &&) noexcept { ++alive; }
    counted &operator=(counted &&) = delete;
    ~counted() { --alive; }

    static std::atomic<int> alive;
};
std::atomic<int> counted::alive{0};

bool contains(const char *text, const char *part) { return std::strstr(text, part) != nullptr; }

void fail_at_42(std::size_t index) {
    if (index == 42) {
        throw std::out_of_range("no row 42");
    }
}

/// The exception that `map` ends with; it must end with one of this type.
template <class Error, class Map> Error failure_of(Map map) {
    std::optional<Error> thrown;
    try {
        map();
    } catch (const Error &error) {
        thrown = error;
    }
    CHECK(thrown.has_value());
    return *thrown;
}

TEST(a_task_error_has_the_index_and_the_text) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        const auto error = failure_of<pb::task_error>([] { pb::for_each(100, fail_at_42); });
        CHECK_INT(PB_ERR_TASK_FAILED, error.status());
        CHECK_INT(42, error.index());
        CHECK(error.task_code() != 0);
        CHECK(contains(error.what(), "42"));
        CHECK(contains(error.what(), "no row 42"));
    }
}

TEST(the_exception_itself_is_nested) {
    const auto error = failure_of<pb::task_error>([] { pb::for_each(100, fail_at_42); });
    const auto nested = failure_of<std::out_of_range>([&error] { std::rethrow_if_nested(error); });
    CHECK(std::string(nested.what()) == "no row 42");
    const auto cause = failure_of<std::out_of_range>([&error] { std::rethrow_exception(error.cause()); });
    CHECK(std::string(cause.what()) == "no row 42");
}

TEST(a_task_error_is_an_error_and_a_runtime_error) {
    CHECK_INT(42, failure_of<pb::error>([] { pb::for_each(100, fail_at_42); }).index());
    CHECK(
        contains(failure_of<std::runtime_error>([] { pb::for_each(100, fail_at_42); }).what(), "no row 42"));
}

TEST(the_c_interface_knows_the_text_too) {
    failure_of<pb::task_error>([] { pb::for_each(100, fail_at_42); });
    CHECK(contains(pb_last_error(), "no row 42"));
}

TEST(anything_may_be_thrown) {
    const auto error = failure_of<pb::task_error>([] { pb::for_each(3, [](std::size_t) { throw 7; }); });
    CHECK_INT(7, failure_of<int>([&error] { std::rethrow_exception(error.cause()); }));
}

TEST(results_that_were_made_are_destroyed) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        failure_of<pb::task_error>([] {
            pb::map(100, [](std::size_t index) {
                fail_at_42(index);
                return counted();
            });
        });
        CHECK_INT(0, counted::alive);
        CHECK_INT(100, pb::map(100, [](std::size_t) { return counted(); }).size());
        CHECK_INT(0, counted::alive);
    }
}

TEST(a_failed_sequential_map_starts_no_further_item) {
    const pb::scope scope("sequential");
    std::size_t calls = 0;
    failure_of<pb::task_error>([&calls] {
        pb::for_each(100, [&calls](std::size_t index) {
            ++calls;
            fail_at_42(index);
        });
    });
    CHECK_INT(43, calls);
}

TEST(collecting_errors_runs_every_item_and_reports_the_lowest) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        std::vector<std::int32_t> statuses;
        pb::options options;
        options.flags = PB_COLLECT_ERRORS;
        options.statuses = &statuses;
        std::atomic<int> calls{0};
        const auto error = failure_of<pb::task_error>([&] {
            pb::for_each(
                100,
                [&calls](std::size_t index) {
                    ++calls;
                    if (index % 10 == 5) {
                        throw std::runtime_error("item " + std::to_string(index));
                    }
                },
                options);
        });
        CHECK_INT(100, calls);
        CHECK_INT(5, error.index());
        CHECK(contains(error.what(), "item 5"));
        CHECK_INT(100, statuses.size());
        CHECK_INT(90, std::count(statuses.begin(), statuses.end(), 0));
        CHECK_INT(error.task_code(), statuses[95]);
    }
}

TEST(an_inner_error_is_nested_in_the_outer_one) {
    const auto outer = failure_of<pb::task_error>([] {
        pb::for_each(3, [](std::size_t row) {
            if (row == 1) {
                pb::for_each(100, fail_at_42);
            }
        });
    });
    CHECK_INT(1, outer.index());
    const auto inner = failure_of<pb::task_error>([&outer] { std::rethrow_if_nested(outer); });
    CHECK_INT(42, inner.index());
}

TEST(what_progress_throws_is_thrown_by_the_map) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        pb::options options;
        options.progress = [](const pb::progress_info &) -> bool { throw std::domain_error("no screen"); };
        const auto error = failure_of<std::domain_error>([&options] {
            pb::for_each(
                1000, [](std::size_t) {}, options);
        });
        CHECK(std::string(error.what()) == "no screen");
    }
}

TEST(progress_may_cancel) {
    // More items than fit between two reports.
    constexpr std::size_t many = 500'000'000;
    for (const char *backend : backends) {
        const pb::scope scope(backend, {2});
        pb::options options;
        options.progress = [](const pb::progress_info &) { return false; };
        const auto error = failure_of<pb::error>([&options] {
            pb::for_each(
                many, [](std::size_t) {}, options);
        });
        CHECK_INT(PB_ERR_CANCELLED, error.status());
    }
}

TEST(a_map_works_after_a_failed_one) {
    failure_of<pb::task_error>([] { pb::for_each(100, fail_at_42); });
    CHECK_INT(3, pb::map(3, [](std::size_t i) { return i; }).size());
}

TEST(check_gives_other_statuses_back) {
    CHECK_INT(PB_OK, pb::check(PB_OK));
    CHECK_INT(PB_DONE, pb::check(PB_DONE));
}

TEST(check_says_the_name_of_a_status_that_is_not_the_last_error) {
    failure_of<pb::error>([] { pb::scope scope("no-such-backend"); });
    const auto error = failure_of<pb::error>([] { pb::check(PB_ERR_SCOPE); });
    CHECK_INT(PB_ERR_SCOPE, error.status());
    CHECK(std::string(error.what()) == "PB_ERR_SCOPE");
    CHECK_INT(SIZE_MAX, error.index());
}

} // namespace

int main() {
    RUN(a_task_error_has_the_index_and_the_text);
    RUN(the_exception_itself_is_nested);
    RUN(a_task_error_is_an_error_and_a_runtime_error);
    RUN(the_c_interface_knows_the_text_too);
    RUN(anything_may_be_thrown);
    RUN(results_that_were_made_are_destroyed);
    RUN(a_failed_sequential_map_starts_no_further_item);
    RUN(collecting_errors_runs_every_item_and_reports_the_lowest);
    RUN(an_inner_error_is_nested_in_the_outer_one);
    RUN(what_progress_throws_is_thrown_by_the_map);
    RUN(progress_may_cancel);
    RUN(a_map_works_after_a_failed_one);
    RUN(check_gives_other_statuses_back);
    RUN(check_says_the_name_of_a_status_that_is_not_the_last_error);
    return check_result();
}
