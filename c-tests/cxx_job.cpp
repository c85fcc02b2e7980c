// pb::submit: a map that runs while the program goes on.
#include "check.h"

#include <parallel_backend.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

std::vector<std::size_t> indices(std::size_t n) {
    std::vector<std::size_t> all(n);
    std::iota(all.begin(), all.end(), std::size_t{0});
    return all;
}

template <class R> std::vector<std::size_t> drain(pb::job<R> &job) {
    std::vector<std::size_t> given;
    while (const std::optional<std::size_t> index = job.next()) {
        given.push_back(*index);
    }
    return given;
}

TEST(get_waits_and_gives_the_results_in_order) {
    for (const std::size_t n : {0u, 1u, 2u, 1000u}) {
        auto job = pb::submit(n, [](std::size_t i) { return i; });
        CHECK(job.get() == indices(n));
    }
}

TEST(bool_results_and_no_results_are_fine) {
    auto even = pb::submit(3, [](std::size_t i) { return i % 2 == 0; });
    CHECK((even.get() == std::vector<bool>{true, false, true}));

    std::atomic<int> calls{0};
    auto nothing = pb::submit(3, [&calls](std::size_t) { ++calls; });
    nothing.wait();
    CHECK_INT(3, calls);
}

TEST(next_gives_every_item_in_index_order) {
    auto job = pb::submit(1000, [](std::size_t i) { return std::to_string(i); });
    std::vector<std::size_t> given;
    while (const std::optional<std::size_t> index = job.next()) {
        CHECK(job[*index] == std::to_string(*index));
        given.push_back(*index);
    }
    CHECK(given == indices(1000));
    CHECK(!job.next());
}

TEST(unordered_next_gives_every_item_once) {
    pb::options options;
    options.flags = PB_UNORDERED;
    auto job = pb::submit(
        1000, [](std::size_t i) { return i; }, options);
    std::vector<std::size_t> given = drain(job);
    std::sort(given.begin(), given.end());
    CHECK(given == indices(1000));
}

TEST(wait_for_says_whether_the_job_is_over) {
    const pb::scope scope("threading", {2});
    std::promise<void> gate;
    const std::shared_future<void> open = gate.get_future().share();
    auto job = pb::submit(2, [open](std::size_t) { open.wait(); });
    CHECK(!job.wait_for(std::chrono::milliseconds(1)));
    gate.set_value();
    job.wait();
    CHECK(job.wait_for(std::chrono::seconds(0)));
}

TEST(wait_throws_what_a_task_threw) {
    auto job = pb::submit(100, [](std::size_t i) {
        if (i == 42) {
            throw std::out_of_range("no row 42");
        }
    });
    std::size_t failed = 0;
    try {
        job.wait();
    } catch (const pb::task_error &error) {
        failed = error.index();
    }
    CHECK_INT(42, failed);
}

TEST(cancel_ends_the_job) {
    const pb::scope scope("threading", {2});
    // The items that run end when they see the cancel; thousands never start.
    auto job = pb::submit(10000, [](std::size_t) {
        while (pb_cancelled() == 0) {
            std::this_thread::yield();
        }
    });
    job.cancel();
    pb_status ended = PB_OK;
    try {
        job.wait();
    } catch (const pb::error &error) {
        ended = error.status();
    }
    CHECK_INT(PB_ERR_CANCELLED, ended);
}

TEST(the_destructor_cancels_and_waits) {
    const pb::scope scope("threading", {2});
    std::atomic<int> running{0};
    {
        const auto job = pb::submit(10000, [&running](std::size_t) {
            ++running;
            while (pb_cancelled() == 0) {
                std::this_thread::yield();
            }
            --running;
        });
    }
    CHECK_INT(0, running);
}

TEST(a_job_can_be_moved) {
    auto first = pb::submit(3, [](std::size_t i) { return i; });
    auto second = std::move(first);
    CHECK(second.get() == indices(3));
    second = pb::submit(4, [](std::size_t i) { return i; });
    CHECK(second.get() == indices(4));
}

TEST(a_job_owns_its_callable) {
    auto text = std::make_unique<std::string>("kept");
    auto job = pb::submit(3, [text = std::move(text)](std::size_t) { return *text; });
    CHECK((job.get() == std::vector<std::string>{"kept", "kept", "kept"}));
}

} // namespace

int main() {
    RUN(get_waits_and_gives_the_results_in_order);
    RUN(bool_results_and_no_results_are_fine);
    RUN(next_gives_every_item_in_index_order);
    RUN(unordered_next_gives_every_item_once);
    RUN(wait_for_says_whether_the_job_is_over);
    RUN(wait_throws_what_a_task_threw);
    RUN(cancel_ends_the_job);
    RUN(the_destructor_cancels_and_waits);
    RUN(a_job_can_be_moved);
    RUN(a_job_owns_its_callable);
    return check_result();
}
