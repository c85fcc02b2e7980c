/* How many CPUs this process may use. Quotas of cgroups are tested where they can be faked: in src/cpu. */
#include "scopes.h"

#include <sched.h>
#include <unistd.h>

/* loky: test_loky_module.py::test_cpu_count */
TEST(there_is_at_least_one_cpu_and_no_more_than_are_online) {
    CHECK(pb_cpu_count(0) >= 1);
    CHECK(pb_cpu_count(0) <= sysconf(_SC_NPROCESSORS_ONLN));
}

/* loky: test_loky_module.py::test_only_physical_cores_error and the like: physical never exceeds logical */
TEST(there_are_no_more_cores_than_cpus) {
    CHECK(pb_cpu_count(1) >= 1);
    CHECK(pb_cpu_count(1) <= pb_cpu_count(0));
}

static void *pin_to_one_cpu(void *unused) {
    cpu_set_t allowed, one;
    CHECK_INT(0, sched_getaffinity(0, sizeof allowed, &allowed));
    int cpu = 0;
    while (!CPU_ISSET(cpu, &allowed))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CHECK_INT(0, sched_setaffinity(0, sizeof one, &one));
    CHECK_INT(1, pb_cpu_count(0));
    CHECK_INT(1, pb_cpu_count(1));
    CHECK_INT(1, pb_effective_n_jobs(-1));
    CHECK_INT(1, pb_effective_n_jobs(0));
    CHECK_INT(3, pb_effective_n_jobs(3)); /* more than there are CPUs is honoured */
    return unused;
}

/* loky: test_loky_module.py::test_cpu_count_affinity (taskset 0 gives 1) */
TEST(a_thread_that_is_pinned_to_one_cpu_has_one) {
    const int32_t cpus = pb_cpu_count(0);
    on_another_thread(pin_to_one_cpu, NULL);
    CHECK_INT(cpus, pb_cpu_count(0));
}

static void set_limit(const char *value) { CHECK_INT(0, setenv("PB_MAX_CPU_COUNT", value, 1)); }

/* loky: test_loky_module.py::test_cpu_count, LOKY_MAX_CPU_COUNT */
TEST(a_variable_lowers_the_count_and_never_raises_it) {
    const int32_t cpus = pb_cpu_count(0);
    set_limit("1");
    CHECK_INT(1, pb_cpu_count(0));
    CHECK_INT(1, pb_cpu_count(1));
    CHECK_INT(1, pb_effective_n_jobs(-1));
    set_limit("1000000");
    CHECK_INT(cpus, pb_cpu_count(0));
    set_limit("99999999999");
    CHECK_INT(cpus, pb_cpu_count(0));
}

TEST(a_variable_that_is_no_count_is_ignored) {
    const int32_t cpus = pb_cpu_count(0);
    const char *const bad[] = {"", " ", "0", "-1", "1.5", "one"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        set_limit(bad[i]);
        CHECK_INT(cpus, pb_cpu_count(0));
    }
}

int main(void) {
    forget_environment();
    RUN(there_is_at_least_one_cpu_and_no_more_than_are_online);
    RUN(there_are_no_more_cores_than_cpus);
    RUN(a_thread_that_is_pinned_to_one_cpu_has_one);
    RUN(a_variable_lowers_the_count_and_never_raises_it);
    forget_environment();
    RUN(a_variable_that_is_no_count_is_ignored);
    return check_result();
}
