// Scopes of C++ end with their block, however it is left, and only once.
#include "check.h"
#include "status_of.h"

#include <parallel_backend.hpp>

#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

std::string backend() { return pb_current_backend(); }

/// A native pool for the tests: what the limit sets, it shows.
std::int32_t pool_threads = 8;
std::int32_t get_pool_threads(void *) { return pool_threads; }
void set_pool_threads(void *, std::int32_t n) { pool_threads = n; }

pb::scope one_thread() { return pb::scope("threading", {1}); }

TEST(a_scope_holds_until_the_end_of_its_block) {
    const std::string before = backend();
    {
        const pb::scope outer("threading", {3});
        CHECK(backend() == "threading");
        CHECK_INT(3, pb::effective_n_jobs());
        {
            const pb::scope inner("sequential");
            CHECK(backend() == "sequential");
            CHECK_INT(1, pb::effective_n_jobs());
        }
        CHECK(backend() == "threading");
    }
    CHECK(backend() == before);
}

TEST(no_name_keeps_the_enclosing_backend) {
    const pb::scope outer("threading", {3});
    const pb::scope inner(nullptr, {2});
    CHECK(backend() == "threading");
    CHECK_INT(2, pb::effective_n_jobs());
}

TEST(an_exception_ends_the_scopes_that_it_leaves) {
    const pb::scope outer("threading", {3});
    try {
        const pb::scope inner("sequential");
        pb::for_each(3, [](std::size_t) { throw std::runtime_error("out"); });
    } catch (const pb::task_error &) {
        CHECK(backend() == "threading");
    }
    CHECK_INT(3, pb::effective_n_jobs());
}

TEST(a_scope_that_was_moved_away_ends_nothing) {
    const pb::scope outer("threading", {3});
    {
        std::optional<pb::scope> first(std::in_place, "sequential");
        const pb::scope second(std::move(*first));
        first.reset();
        CHECK(backend() == "sequential");
    }
    CHECK_INT(3, pb::effective_n_jobs());
}

TEST(a_function_may_return_a_scope) {
    const pb::scope outer("threading", {3});
    {
        const pb::scope returned = one_thread();
        CHECK_INT(1, pb::effective_n_jobs());
    }
    CHECK_INT(3, pb::effective_n_jobs());
}

TEST(scopes_are_neither_copied_nor_assigned) {
    static_assert(!std::is_copy_constructible_v<pb::scope> && !std::is_copy_assignable_v<pb::scope>);
    static_assert(!std::is_move_assignable_v<pb::scope> && !std::is_move_assignable_v<pb::thread_limit>);
    CHECK(std::is_nothrow_move_constructible_v<pb::scope>);
}

TEST(pop_ends_a_scope_early_and_once) {
    const std::string before = backend();
    pb::scope scope("sequential");
    scope.pop();
    CHECK(backend() == before);
    scope.pop();
    CHECK(backend() == before);
}

TEST(an_outer_scope_cannot_end_before_an_inner_one) {
    pb::scope outer("threading", {3});
    pb::scope inner("sequential");
    CHECK_INT(PB_ERR_SCOPE, status_of([&outer] { outer.pop(); }));
    CHECK(backend() == "sequential");
    inner.pop();
    outer.pop();
}

TEST(a_scope_cannot_end_on_another_thread) {
    pb::scope scope("sequential");
    pb_status status = PB_OK;
    std::thread([&] { status = status_of([&scope] { scope.pop(); }); }).join();
    CHECK_INT(PB_ERR_SCOPE, status);
    CHECK(backend() == "sequential");
}

TEST(an_unknown_backend_is_an_error_that_lists_the_known_ones) {
    const std::string before = backend();
    std::string text;
    try {
        const pb::scope scope("no-such-backend");
    } catch (const pb::error &error) {
        CHECK_INT(PB_ERR_UNKNOWN_BACKEND, error.status());
        text = error.what();
    }
    CHECK(text.find("threading") != std::string::npos);
    CHECK(backend() == before);
}

TEST(unknown_params_are_an_error) {
    pb::backend_options options;
    options.params = "no_such_key=1";
    CHECK_INT(PB_ERR_INVALID_ARGUMENT, status_of([&options] { pb::scope scope("threading", options); }));
}

TEST(a_context_brings_the_choice_to_a_thread) {
    const pb::scope scope("sequential");
    const pb::context context = pb::context::capture();
    std::string before, attached, after;
    std::thread([&, context] {
        before = backend();
        {
            const pb::scope here = context.attach();
            attached = backend();
        }
        after = backend();
    }).join();
    CHECK(attached == "sequential");
    CHECK(after == before);
}

TEST(a_context_outlives_the_scope_that_it_captured) {
    std::optional<pb::context> context;
    {
        const pb::scope scope("threading", {3});
        context = pb::context::capture();
    }
    const pb::scope sequential("sequential");
    const pb::scope again = context->attach();
    CHECK_INT(3, pb::effective_n_jobs());
}

TEST(a_thread_limit_holds_until_the_end_of_its_block) {
    pb::check(
        pb_register_thread_pool("blas", "testblas", get_pool_threads, set_pool_threads, nullptr, "process"));
    {
        const pb::thread_limit limit(2, PB_API_BLAS);
        CHECK_INT(2, pool_threads);
        {
            const pb::thread_limit one(1);
            CHECK_INT(1, pool_threads);
        }
        CHECK_INT(2, pool_threads);
    }
    CHECK_INT(8, pool_threads);
}

TEST(thread_pools_are_values) {
    const std::vector<pb::thread_pool> pools = pb::thread_pools();
    bool found = false;
    for (const pb::thread_pool &pool : pools) {
        if (pool.internal_api == "testblas") {
            found = true;
            CHECK(pool.user_api == "blas");
            CHECK(pool.scope == "process");
            CHECK(pool.version.empty());
            CHECK(pool.controllable);
            CHECK_INT(8, pool.num_threads);
        }
    }
    CHECK(found);
}

TEST(cpus_are_counted) {
    CHECK(pb::cpu_count() >= 1);
    CHECK(pb::cpu_count(true) >= 1);
    CHECK(pb::cpu_count(true) <= pb::cpu_count());
}

} // namespace

int main() {
    RUN(a_scope_holds_until_the_end_of_its_block);
    RUN(no_name_keeps_the_enclosing_backend);
    RUN(an_exception_ends_the_scopes_that_it_leaves);
    RUN(a_scope_that_was_moved_away_ends_nothing);
    RUN(a_function_may_return_a_scope);
    RUN(scopes_are_neither_copied_nor_assigned);
    RUN(pop_ends_a_scope_early_and_once);
    RUN(an_outer_scope_cannot_end_before_an_inner_one);
    RUN(a_scope_cannot_end_on_another_thread);
    RUN(an_unknown_backend_is_an_error_that_lists_the_known_ones);
    RUN(unknown_params_are_an_error);
    RUN(a_context_brings_the_choice_to_a_thread);
    RUN(a_context_outlives_the_scope_that_it_captured);
    RUN(a_thread_limit_holds_until_the_end_of_its_block);
    RUN(thread_pools_are_values);
    RUN(cpus_are_counted);
    return check_result();
}
