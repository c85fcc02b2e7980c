/* Finding real libraries: each is listed once, as what it is, with the count that a call from this thread
 * has. */
#include "native_library.h"

static const char *other_file;

static pb_thread_pool listed(void) {
    pb_thread_pool pool = {.struct_size = sizeof pool};
    REQUIRE(list_pools(library.internal_api, &pool) == 1);
    return pool;
}

/* threadpoolctl: test_threadpool_info, test_openblas_threading_layer, test_threadpool_controller_info */
TEST(a_library_is_described_as_what_it_is) {
    pb_thread_pool pool = listed();
    CHECK_STR(library.user_api, pool.user_api);
    CHECK_STR(library.internal_api, pool.internal_api);
    CHECK_STR(library.prefix, pool.prefix);
    CHECK_STR(library.scope, pool.scope);
    CHECK_INT(!is_serial(), pool.controllable);
    CHECK(strstr(pool.filepath, library.prefix) != NULL);
    if (library.layer == NULL)
        CHECK(pool.threading_layer == NULL);
    else
        CHECK_STR(library.layer, pool.threading_layer);
}

/* threadpoolctl: test_architecture. OpenBLAS says "OpenBLAS 0.3.21 ..." and "Haswell"; OpenMP runtimes say
 * nothing. */
TEST(version_and_architecture_are_the_librarys_own_words) {
    pb_thread_pool pool = listed();
    if (!is_openblas()) {
        CHECK(pool.version == NULL);
        CHECK(pool.architecture == NULL);
        return;
    }
    char *(*config)(void);
    char *(*corename)(void);
    char version[32] = "";
    LIBRARY_FUNCTION(config, "openblas_get_config");
    LIBRARY_FUNCTION(corename, "openblas_get_corename");
    REQUIRE(sscanf(config(), "OpenBLAS %31s", version) == 1);
    CHECK_STR(version, pool.version);
    CHECK_STR(corename(), pool.architecture);
}

TEST(another_file_that_leads_to_it_is_no_second_pool) {
    size_t before = pb_thread_pool_count();
    REQUIRE(dlopen(other_file, RTLD_NOW | RTLD_LOCAL) != NULL);
    CHECK_INT(before, pb_thread_pool_count());
    listed();
}

TEST(openblas_on_openmp_brings_its_runtime_and_others_bring_none) {
    pb_thread_pool runtime = {.struct_size = sizeof runtime};
    int is_on_openmp = library.layer != NULL && strcmp(library.layer, "openmp") == 0;
    CHECK_INT(is_on_openmp || !is_openblas(), list_pools("openmp", &runtime));
    CHECK_INT(1 + is_on_openmp, pb_thread_pool_count());
}

/* threadpoolctl: test_controller_info_actualized, with the user's own call */
TEST(the_count_is_the_one_of_this_moment) {
    CHECK_INT(count_of(ORIGINAL), listed_count());
    library.set(2);
    CHECK_INT(count_of(2), listed_count());
    library.set(ORIGINAL);
    CHECK_INT(count_of(ORIGINAL), listed_count());
}

static void *count_there(void *out) {
    *(int *)out = listed_count();
    return NULL;
}

TEST(the_count_is_the_one_of_the_thread_that_asks) {
    pthread_t thread;
    int there = 0;
    library.set(2);
    REQUIRE(pthread_create(&thread, NULL, count_there, &there) == 0);
    pthread_join(thread, NULL);
    /* A thread's own count begins with the environment's value. */
    CHECK_INT(count_of(count_is_per_thread() ? ORIGINAL : 2), there);
    library.set(ORIGINAL);
}

/* Looking is not touching: threadpoolctl finds the scope out by changing the count on a thread of its own. */
TEST(looking_changes_nothing) {
    for (int i = 0; i < 100; i++)
        listed();
    CHECK_INT(count_of(ORIGINAL), library.get());
    CHECK_INT(count_of(ORIGINAL), library.used());
}

TEST(a_library_that_is_closed_by_its_user_stays_listed_and_usable) {
    CHECK_INT(0, dlclose(library.handle));
    CHECK_INT(count_of(ORIGINAL), listed_count());
    CHECK_INT(count_of(ORIGINAL), library.get());
}

int main(int argc, char **argv) {
    CHECK_INT(0, pb_thread_pool_count()); /* the test itself has no such library */
    library_start(argc, argv);
    other_file = argv[3];
    RUN(a_library_is_described_as_what_it_is);
    RUN(version_and_architecture_are_the_librarys_own_words);
    RUN(openblas_on_openmp_brings_its_runtime_and_others_bring_none);
    RUN(another_file_that_leads_to_it_is_no_second_pool);
    RUN(the_count_is_the_one_of_this_moment);
    RUN(the_count_is_the_one_of_the_thread_that_asks);
    RUN(looking_changes_nothing);
    RUN(a_library_that_is_closed_by_its_user_stays_listed_and_usable);
    CHECK_OK(pb_shutdown());
    return check_result();
}
