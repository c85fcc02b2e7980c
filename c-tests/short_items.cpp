// Items of a nanosecond, for which the library copies its loop to a place near the program once it has paid:
// what an item does is exact with and without the copy.
#include "check.h"

#include <parallel_backend.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <sched.h>
#include <vector>

namespace {

constexpr std::size_t none = SIZE_MAX;
constexpr const char *backends[] = {"sequential", "threading"};

/// What the items do, and what they did.
struct plan {
    enum { fails, fails_with_text, leaves_a_text } how = fails;
    std::size_t at = none;
    std::size_t ran = 0; // where one worker runs them
    bool has_one_worker = true;
};

std::int32_t act(plan &p, std::size_t index) {
    switch (p.how) {
    case plan::fails:
        return 7;
    case plan::fails_with_text:
        CHECK_OK(pb_task_fail("not this one"));
        return 7;
    case plan::leaves_a_text:
        CHECK_OK(pb_task_fail("of an item that succeeds after all"));
        p.how = plan::fails;
        p.at = index + 1;
        return 0;
    }
    return 0;
}

std::int32_t item(void *ctx, std::size_t index, const void *input, void *output) {
    plan &p = *static_cast<plan *>(ctx);
    if (p.has_one_worker) {
        CHECK_INT(p.ran, index);
        p.ran++;
    }
    if (index == p.at)
        return act(p, index);
    if (output != nullptr)
        *static_cast<int *>(output) = (input != nullptr ? *static_cast<const int *>(input) : 5) + 1;
    return 0;
}

std::int32_t quick(void *, std::size_t, const void *, void *) { return 0; }

bool is_far(std::uintptr_t a, std::uintptr_t b) { return (a < b ? b - a : a - b) >= std::uintptr_t{1} << 32; }

/// Whether code of the shared library lies where a call from it to this program is short.
bool is_code_near() {
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != nullptr);
    bool is_near = false;
    char line[4096];
    while (fgets(line, sizeof line, maps) != nullptr) {
        const auto begin = static_cast<std::uintptr_t>(strtoull(line, nullptr, 16));
        const bool is_code =
            strstr(line, " r-xp ") != nullptr && strstr(line, "/libparallel_backend.so") != nullptr;
        is_near = is_near || (is_code && !is_far(begin, reinterpret_cast<std::uintptr_t>(&item)));
    }
    fclose(maps);
    return is_near;
}

/// Whether all of it is far. Not where the program has it in itself, nor under memcheck, which loads programs
/// and libraries side by side.
bool is_library_far() {
    return is_far(reinterpret_cast<std::uintptr_t>(&item),
                  reinterpret_cast<std::uintptr_t>(&pb_parallel_map));
}

TEST(a_few_short_items_are_not_worth_a_copy) { CHECK(!is_code_near()); }

TEST(after_many_of_them_there_is_one_near_the_program) {
    const pb::scope scope("sequential", {1});
    for (int again = 0; again < 3; again++)
        CHECK_OK(pb_parallel_map(quick, nullptr, 100000, nullptr, 0, nullptr, 0, nullptr));
    CHECK(is_code_near());
}

TEST(every_item_has_its_elements) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {2});
        for (std::size_t n : {1, 7, 8, 15, 16, 17, 23, 24, 25, 100, 1000, 3000}) {
            std::vector<int> in(n), out(n);
            for (std::size_t i = 0; i < n; i++)
                in[i] = static_cast<int>(3 * i);
            plan p;
            p.has_one_worker = false;
            CHECK_OK(pb_parallel_map(item, &p, n, in.data(), sizeof(int), out.data(), sizeof(int), nullptr));
            for (std::size_t i = 0; i < n; i++)
                CHECK_INT(3 * i + 1, out[i]);
            CHECK_OK(pb_parallel_map(item, &p, n, nullptr, 0, out.data(), sizeof(int), nullptr));
            for (std::size_t i = 0; i < n; i++)
                CHECK_INT(6, out[i]);
            CHECK_OK(pb_parallel_map(item, &p, n, in.data(), sizeof(int), nullptr, 0, nullptr));
        }
    }
}

/// Maps by one worker, with arrays and without, whose item `at` does something else: calls `check` after
/// each.
template <class Check> void with_an_odd_item(decltype(plan::how) how, Check check) {
    std::vector<int> in(100), out(100);
    for (std::size_t at : {0, 1, 6, 7, 8, 9, 15, 16, 17, 63, 95, 96, 98, 99}) {
        for (bool has_arrays : {false, true}) {
            for (const char *backend : backends) {
                const pb::scope scope(backend, {1});
                plan p;
                p.how = how;
                p.at = at;
                const pb_status status =
                    has_arrays ? pb_parallel_map(item, &p, 100, in.data(), sizeof(int), out.data(),
                                                 sizeof(int), nullptr)
                               : pb_parallel_map(item, &p, 100, nullptr, 0, nullptr, 0, nullptr);
                check(status, p, at);
            }
        }
    }
}

pb_error_info last_info() {
    pb_error_info info = {};
    info.struct_size = sizeof info;
    CHECK_OK(pb_last_error_info(&info));
    return info;
}

void check_failed_at(std::size_t at, pb_status status, const plan &p) {
    CHECK_INT(PB_ERR_TASK_FAILED, status);
    CHECK_INT(at, last_info().task_index);
    CHECK_INT(at + 1, p.ran);
}

TEST(one_that_fails_is_the_last) {
    with_an_odd_item(plan::fails, [](pb_status status, const plan &p, std::size_t at) {
        check_failed_at(at, status, p);
        CHECK_INT(7, last_info().task_code);
    });
    with_an_odd_item(plan::fails_with_text, [](pb_status status, const plan &p, std::size_t at) {
        check_failed_at(at, status, p);
        CHECK_TEXT("code 7: not this one");
    });
}

TEST(what_one_leaves_behind_does_not_reach_the_next) {
    with_an_odd_item(plan::leaves_a_text, [](pb_status status, const plan &p, std::size_t at) {
        if (at == 99) {
            CHECK_INT(PB_OK, status);
            return;
        }
        check_failed_at(at + 1, status, p);
        CHECK(strstr(pb_last_error(), "succeeds after all") == nullptr);
    });
}

/// One worker's item fails while the other worker is in the middle of its chunk.
struct failing_neighbour {
    static constexpr std::size_t chunk = 1000, odd = chunk + 20;
    std::atomic<bool> other_has_begun{false};
    std::atomic<std::size_t> after{0}; // items of the other worker that ran after the failure
};

std::int32_t fail_beside(void *ctx, std::size_t index, const void *, void *) {
    failing_neighbour &n = *static_cast<failing_neighbour *>(ctx);
    if (index == 0) {
        while (!n.other_has_begun)
            sched_yield();
        return 7;
    }
    if (index == n.odd) {
        n.other_has_begun = true;
        while (!pb_cancelled())
            sched_yield();
    }
    if (index > n.odd)
        ++n.after;
    return 0;
}

TEST(after_one_that_fails_the_other_worker_runs_no_further) {
    const pb::scope scope("threading", {2});
    pb_map_options options = {};
    options.struct_size = sizeof options;
    options.batch_size = failing_neighbour::chunk;
    failing_neighbour n;
    CHECK_STATUS(pb_parallel_map(fail_beside, &n, 2 * n.chunk, nullptr, 0, nullptr, 0, &options),
                 PB_ERR_TASK_FAILED);
    CHECK_INT(0, last_info().task_index);
    CHECK_INT(0, n.after);
}

void each_of_them() {
    RUN(every_item_has_its_elements);
    RUN(one_that_fails_is_the_last);
    RUN(what_one_leaves_behind_does_not_reach_the_next);
    RUN(after_one_that_fails_the_other_worker_runs_no_further);
}

} // namespace

int main() {
    each_of_them();
#if defined(__x86_64__) && defined(__GLIBC__)
    if (is_library_far()) {
        RUN(a_few_short_items_are_not_worth_a_copy);
        RUN(after_many_of_them_there_is_one_near_the_program);
        each_of_them();
    }
#endif
    return check_result();
}
