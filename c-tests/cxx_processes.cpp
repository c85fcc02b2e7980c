// What C++ sees of backends without shared memory: plain tasks run in worker processes and fail with their
// item; callables, which live in the caller's memory, run where that is, or are refused with a text.
#include "check.h"
#include "status_of.h"

#include <parallel_backend.hpp>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

namespace {

constexpr const char *backends[] = {"multiprocessing", "loky"};
constexpr std::size_t n = 200;

struct line {
    std::int64_t slope, offset;
};

/// Exceptions end where the task does: C++ on both sides of a C function.
std::int32_t evaluate(void *ctx, std::size_t, const void *input, void *output) {
    try {
        const auto &[slope, offset] = *static_cast<const line *>(ctx);
        const std::int64_t x = *static_cast<const std::int64_t *>(input);
        if (x < 0) {
            throw std::domain_error("x is below 0");
        }
        *static_cast<std::int64_t *>(output) = slope * x + offset;
        return 0;
    } catch (const std::exception &thrown) {
        pb_task_fail(thrown.what());
        return 7;
    }
}

std::vector<std::int64_t> evaluate_all(const std::vector<std::int64_t> &x, std::uint32_t flags = 0,
                                       std::int32_t *statuses = nullptr) {
    line ctx{3, 4};
    std::vector<std::int64_t> y(x.size());
    pb_map_options options{};
    options.struct_size = sizeof options;
    options.ctx_size = sizeof ctx;
    options.flags = flags;
    options.statuses = statuses;
    pb::check(
        pb_parallel_map(evaluate, &ctx, x.size(), x.data(), sizeof x[0], y.data(), sizeof y[0], &options));
    return y;
}

std::vector<std::int64_t> numbers() {
    std::vector<std::int64_t> x(n);
    for (std::size_t i = 0; i < n; ++i) {
        x[i] = static_cast<std::int64_t>(i);
    }
    return x;
}

TEST(a_plain_task_runs_in_the_workers) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        const auto y = evaluate_all(numbers());
        for (std::size_t i = 0; i < n; ++i) {
            CHECK_INT(3 * static_cast<long long>(i) + 4, y[i]);
        }
    }
}

TEST(its_failure_is_an_exception_with_item_code_and_text) {
    auto x = numbers();
    x[50] = -1;
    for (const char *backend : backends) {
        const pb::scope scope(backend, {2});
        bool caught = false;
        try {
            evaluate_all(x);
        } catch (const pb::error &failed) {
            caught = true;
            CHECK_INT(PB_ERR_TASK_FAILED, failed.status());
            CHECK_INT(50, failed.index());
            CHECK(std::string_view(failed.what()).find("x is below 0") != std::string_view::npos);
        }
        CHECK(caught);
    }
}

TEST(collected_errors_leave_the_others_alone) {
    auto x = numbers();
    x[0] = x[199] = -1;
    for (const char *backend : backends) {
        const pb::scope scope(backend, {2});
        std::vector<std::int32_t> statuses(n, -1);
        CHECK_INT(PB_ERR_TASK_FAILED,
                  status_of([&] { evaluate_all(x, PB_COLLECT_ERRORS, statuses.data()); }));
        CHECK_INT(7, statuses[0]);
        CHECK_INT(0, statuses[100]);
        CHECK_INT(7, statuses[199]);
    }
}

std::int32_t own_process(void *, std::size_t, const void *, void *output) {
    *static_cast<std::int64_t *>(output) = getpid();
    return 0;
}

TEST(it_is_another_process) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {2});
        std::int64_t pids[4] = {};
        pb::check(pb_parallel_map(own_process, nullptr, 4, nullptr, 0, pids, sizeof pids[0], nullptr));
        for (const std::int64_t pid : pids) {
            CHECK(pid != getpid());
        }
    }
}

TEST(callables_that_share_memory_run_on_threads_of_the_caller) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {2});
        std::vector<std::string> texts(n);
        pb::for_each(n, [&texts](std::size_t i) { texts[i] = std::to_string(i); });
        CHECK(texts[199] == "199");
        CHECK(pb::map(n, [](std::size_t i) { return 2 * i; })[199] == 398);
    }
}

TEST(callables_over_bytes_reach_forks_and_are_refused_by_loky) {
    const std::vector<std::string> words = {"one", "two"};
    const auto twice = [](std::string_view word) { return std::string(word) + std::string(word); };
    {
        const pb::scope scope("multiprocessing", {2});
        CHECK(pb::map_bytes(words, twice)[1] == "twotwo");
    }
    const pb::scope scope("loky", {2});
    CHECK_INT(PB_ERR_TASK_NOT_PORTABLE, status_of([&] { pb::map_bytes(words, twice); }));
    CHECK_TEXT("ctx_size");
}

} // namespace

int main(int argc, char **argv) {
    pb_worker_main(argc, argv);
    RUN(a_plain_task_runs_in_the_workers);
    RUN(its_failure_is_an_exception_with_item_code_and_text);
    RUN(collected_errors_leave_the_others_alone);
    RUN(it_is_another_process);
    RUN(callables_that_share_memory_run_on_threads_of_the_caller);
    RUN(callables_over_bytes_reach_forks_and_are_refused_by_loky);
    CHECK_OK(pb_shutdown());
    return check_result();
}
