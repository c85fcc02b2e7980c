// pb::phase: threads that stay awake until the end of a block.
#include "check.h"
#include "status_of.h"

#include <parallel_backend.hpp>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include <unistd.h>

namespace {

/// The state of a thread, as the kernel tells it: R runs or could, S sleeps.
char state_of(const std::string &thread) {
    std::ifstream file("/proc/self/task/" + thread + "/stat");
    std::string line;
    std::getline(file, line);
    const std::size_t name_ends = line.rfind(')');
    return name_ends == std::string::npos ? 'S' : line.at(name_ends + 2);
}

auto threads() { return std::filesystem::directory_iterator("/proc/self/task"); }

std::ptrdiff_t count_threads() { return std::distance(begin(threads()), end(threads())); }

bool all_others_sleep() {
    for (const auto &thread : threads()) {
        const std::string id = thread.path().filename();
        if (id != std::to_string(getpid()) && state_of(id) != 'S') {
            return false;
        }
    }
    return true;
}

void wait_until_all_others_sleep() {
    const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!all_others_sleep()) {
        CHECK(std::chrono::steady_clock::now() < patience);
    }
}

TEST(the_end_of_the_block_ends_it) {
    {
        const pb::phase phase(3);
        CHECK_INT(3, count_threads());
    }
    wait_until_all_others_sleep();
}

TEST(it_asks_for_what_a_map_would_have) {
    const pb::scope four("threading", {4});
    const pb::phase phase;
    CHECK_INT(4, count_threads());
}

TEST(end_ends_it_early_and_once_on_any_thread) {
    pb::phase phase(2);
    std::thread([&phase] { phase.end(); }).join();
    phase.end();
}

TEST(a_context_that_cannot_be_used_is_an_exception) {
    CHECK_INT(0, setenv("PB_N_JOBS", "many", 1));
    CHECK_INT(PB_ERR_INVALID_ARGUMENT, status_of([] { pb::phase phase; }));
    CHECK_INT(0, unsetenv("PB_N_JOBS"));
}

TEST(a_phase_that_was_moved_away_ends_nothing) {
    static_assert(!std::is_copy_constructible_v<pb::phase> && !std::is_move_assignable_v<pb::phase>);
    pb::phase first(2);
    pb::phase second(std::move(first));
    first.end();
    second.end();
}

} // namespace

int main() {
    CHECK_INT(0, unsetenv("PB_BACKEND"));
    CHECK_INT(0, unsetenv("PB_N_JOBS"));
    RUN(the_end_of_the_block_ends_it);
    RUN(it_asks_for_what_a_map_would_have);
    RUN(end_ends_it_early_and_once_on_any_thread);
    RUN(a_context_that_cannot_be_used_is_an_exception);
    RUN(a_phase_that_was_moved_away_ends_nothing);
    CHECK_OK(pb_shutdown());
    return check_result();
}
