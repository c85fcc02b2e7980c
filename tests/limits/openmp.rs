//! The compiler's own OpenMP runtime, observed by the teams that regions really get.

use crate::fakes::{alone, in_own_process, openblas, team};
use parallel_backend::limits::{self, Limit};

/// threadpoolctl: test_openmp_limit_num_threads (1, 2, 4). An exact limit may exceed the number of CPUs.
#[test]
fn a_region_has_as_many_threads_as_the_limit_says() {
    let _alone = alone();
    let team = team("libteam_size.so");
    let original = team.ask("max_threads");
    for limit in [1, 2, 4] {
        let scope = limits::push(limit, limits::OPENMP).unwrap();
        assert_eq!(team.ask("team_size"), limit);
        limits::pop(scope).unwrap();
        assert_eq!((team.ask("team_size"), team.ask("max_threads")), (original, original));
    }
}

/// threadpoolctl: test_nested_limits
#[test]
fn an_inner_scope_may_raise_what_an_outer_one_lowered() {
    let _alone = alone();
    let team = team("libteam_nested.so");
    let original = team.ask("max_threads");
    let outer = limits::push(1, 0).unwrap();
    assert_eq!(team.ask("team_size"), 1);
    let inner = limits::push(2, 0).unwrap();
    assert_eq!(team.ask("team_size"), 2);
    limits::pop(inner).unwrap();
    assert_eq!(team.ask("team_size"), 1);
    limits::pop(outer).unwrap();
    assert_eq!(team.ask("team_size"), original);
}

/// threadpoolctl: test_set_threadpool_limits_by_api, test_threadpool_controller_limit
#[test]
fn a_limit_concerns_the_apis_that_it_names() {
    // An OpenBLAS on OpenMP, which has one count with its runtime, must not be there.
    if !in_own_process("openmp::a_limit_concerns_the_apis_that_it_names") {
        return;
    }
    let team = team("libteam_api.so");
    let blas = openblas("libopenblas_by_api.so");
    let original = team.ask("max_threads");
    for (user_api, expected) in [
        (limits::BLAS, (3, original)),
        (limits::OPENMP, (8, 3)),
        (limits::BLAS | limits::OPENMP, (3, 3)),
        (0, (3, 3)),
    ] {
        let scope = limits::push(3, user_api).unwrap();
        assert_eq!((blas.count(), team.ask("max_threads")), expected);
        limits::pop(scope).unwrap();
        assert_eq!((blas.count(), team.ask("max_threads")), (8, original));
    }
}

/// threadpoolctl: test_controller_info_actualized
#[test]
fn the_list_shows_the_count_of_the_moment() {
    let _alone = alone();
    let team = team("libteam_info.so");
    let runtimes =
        || limits::pools().into_iter().filter(|pool| pool.user_api == "openmp").collect::<Vec<_>>();
    let original = team.ask("max_threads");
    assert!(runtimes().iter().any(|pool| pool.num_threads == original && pool.scope == "thread"));
    let scope = limits::push(original + 1, 0).unwrap();
    assert!(runtimes().iter().all(|pool| pool.num_threads == original + 1));
    limits::pop(scope).unwrap();
    assert!(runtimes().iter().any(|pool| pool.num_threads == original));
}

// Trap 8: a limit on the thread that submits does nothing for the threads that work.
#[test]
fn each_thread_has_its_own_count() {
    let _alone = alone();
    let team = team("libteam_threads.so");
    let original = team.ask("max_threads");
    let scope = limits::push(original + 2, 0).unwrap();
    let worker = || {
        let before = team.ask("max_threads");
        let limit = limits::enter_thread(Limit { threads: 1, exact: false });
        let inside = team.ask("team_size");
        drop(limit);
        (before, inside, team.ask("max_threads"))
    };
    let seen = std::thread::scope(|threads| threads.spawn(worker).join().unwrap());
    assert_eq!(seen, (original, 1, original));
    assert_eq!(team.ask("team_size"), original + 2);
    limits::pop(scope).unwrap();
}

#[test]
fn a_cap_lowers_and_never_raises() {
    let _alone = alone();
    let team = team("libteam_cap.so");
    let original = team.ask("max_threads");
    team.tell("set_threads", 3);
    for (cap, expected) in [(1, 1), (3, 3), (7, 3)] {
        let limit = limits::enter_thread(Limit { threads: cap, exact: false });
        assert_eq!(team.ask("team_size"), expected);
        drop(limit);
        assert_eq!(team.ask("max_threads"), 3);
    }
    team.tell("set_threads", original);
}

/// threadpoolctl: test_openmp_nesting, with one runtime
#[test]
fn a_scope_inside_a_region_limits_only_what_is_inside() {
    let _alone = alone();
    extern "C" fn push() -> i32 {
        // The token fits no int: a thread of the team has one scope, which is closed by its depth.
        let depth = limits::open_scopes() as i32;
        limits::push(1, 0).unwrap();
        depth
    }
    extern "C" fn pop(depth: i32) {
        limits::close_above(depth as usize);
    }
    let team = team("libteam_nesting.so");
    type Nested = unsafe extern "C" fn(extern "C" fn() -> i32, extern "C" fn(i32)) -> i32;
    // SAFETY: the function's type in team.c.
    let nested = unsafe { team.library.get::<Nested>(b"nested_team_size") }.unwrap();
    // SAFETY: the callbacks do not unwind.
    let sizes = unsafe { nested(push, pop) };
    assert_eq!((sizes & 0xff, sizes >> 8), (1, 2));
}
