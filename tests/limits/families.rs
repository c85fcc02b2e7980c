//! What each family's knob does.

use crate::fakes::{Fake, alone, build, in_own_process, load};
use libloading::os::unix::Library;
use parallel_backend::limits::{self, Limit};

#[test]
fn mkl_asleep_is_not_woken_and_mkl_awake_gets_back_what_its_setter_returned() {
    let _alone = alone();
    let rt = load(&build("libmkl_rt.so.2", "mkl_rt.c", &[]));
    let scope = limits::push(2, 0).unwrap();
    let pool = rt.pool();
    assert_eq!((pool.internal_api.as_str(), pool.num_threads, pool.controllable), ("mkl", 0, false));
    limits::pop(scope).unwrap();
    assert_eq!(rt.ask("fake_mkl_calls"), 0, "the first call would choose MKL's layers for the program");

    let _core = load(&build("libmkl_core.so.2", "mkl_core.c", &[]));
    let pool = rt.pool();
    assert_eq!((pool.scope, pool.num_threads, pool.controllable), ("thread", 8, true));
    assert_eq!(pool.version.as_deref(), Some("2026.2-Product"));
    assert_eq!(pool.threading_layer.as_deref(), Some("gnu"));
    let scope = limits::push(2, 0).unwrap();
    assert_eq!((rt.count(), rt.ask("fake_mkl_local")), (2, 2));
    limits::pop(scope).unwrap();
    assert_eq!(rt.ask("fake_mkl_local"), 0, "the thread follows the process again");
    rt.tell("MKL_Set_Num_Threads", 5);
    assert_eq!(rt.count(), 5);
    rt.tell("MKL_Set_Num_Threads", 8);
}

#[test]
fn blis_before_1_0_has_one_count_for_the_process() {
    let _alone = alone();
    let fake = load(&build("libblis.so.4", "blis.c", &[]));
    let pool = fake.pool();
    assert_eq!((pool.internal_api.as_str(), pool.scope, pool.num_threads), ("blis", "process", 8));
    assert_eq!(pool.version.as_deref(), Some("0.9.0"));
    assert_eq!(pool.threading_layer.as_deref(), Some("pthreads"));
    assert_eq!(pool.architecture.as_deref(), Some("haswell"));
    let scope = limits::push(2, 0).unwrap();
    assert_eq!(std::thread::scope(|threads| threads.spawn(|| fake.count()).join().unwrap()), 2);
    limits::pop(scope).unwrap();
    assert_eq!(fake.count(), 8);
}

#[test]
fn blis_since_1_0_has_a_count_for_each_thread() {
    let _alone = alone();
    let fake = load(&build("libblis.so.5", "blis.c", &["-DSINCE_1_0"]));
    assert_eq!(fake.pool().scope, "thread");
    assert_eq!(fake.pool().threading_layer.as_deref(), Some("pthreads"));
    let scope = limits::push(2, 0).unwrap();
    let in_another_thread = || {
        let before = fake.count();
        let limit = limits::enter_thread(Limit { threads: 1, exact: false });
        let inside = fake.count();
        drop(limit);
        (before, inside, fake.count())
    };
    let seen = std::thread::scope(|threads| threads.spawn(in_another_thread).join().unwrap());
    assert_eq!(seen, (8, 1, 8));
    assert_eq!(fake.count(), 2);
    limits::pop(scope).unwrap();
    assert_eq!(fake.count(), 8);
}

// "Ways beat threads": while a way is above 1 the count is ignored.
#[test]
fn blis_ways_are_reset_and_put_back() {
    let _alone = alone();
    let fake = load(&build("libblis_ways.so", "blis.c", &["-DSINCE_1_0"]));
    // SAFETY: the function's type in bli_thread.h.
    let set_ways =
        unsafe { fake.library.get::<unsafe extern "C" fn(i64, i64, i64, i64, i64)>(b"bli_thread_set_ways") }
            .unwrap();
    // SAFETY: as above.
    unsafe { set_ways(2, 1, 3, 1, 1) };
    assert_eq!(fake.count(), 6);
    let scope = limits::push(2, 0).unwrap();
    assert_eq!((fake.count(), fake.ask("bli_thread_get_ic_nt")), (2, 1));
    limits::pop(scope).unwrap();
    assert_eq!((fake.count(), fake.ask("bli_thread_get_ic_nt")), (6, 3));
}

#[test]
fn blis_says_how_wide_its_integers_are() {
    let _alone = alone();
    let fake = load(&build("libblis_narrow.so", "blis.c", &["-DINTEGER=int32_t"]));
    let scope = limits::push(2, 0).unwrap();
    assert_eq!(fake.ask("bli_thread_get_num_threads"), 2);
    limits::pop(scope).unwrap();
    assert_eq!(fake.ask("bli_thread_get_num_threads"), 8);
}

#[test]
fn aocl_blis_goes_on_following_openmp() {
    let _alone = alone();
    let fake = load(&build("libblis-mt.so.5", "blis.c", &["-DSINCE_1_0", "-DAMD", "-fopenmp"]));
    let original = fake.ask("bli_thread_get_num_threads");
    assert_eq!(fake.pool().scope, "thread");
    let scope = limits::push(original + 1, limits::BLAS).unwrap();
    assert_eq!(fake.ask("bli_thread_get_num_threads"), original + 1);
    limits::pop(scope).unwrap();
    assert_eq!(fake.ask("bli_thread_get_num_threads"), original);
    assert_eq!(fake.ask("fake_blis_decides"), 0);
}

#[test]
fn tbb_is_held_down_by_an_object_of_ours() {
    let _alone = alone();
    let fake = load(&build("libtbb.so.12", "tbb.c", &[]));
    let pool = fake.pool();
    assert_eq!((pool.user_api.as_str(), pool.version.as_deref()), ("tbb", Some("2023.2")));
    let outer = limits::push(2, limits::TBB).unwrap();
    let inner = limits::push(3, limits::TBB).unwrap();
    assert_eq!((fake.count(), fake.ask("fake_tbb_alive")), (3, 1));
    limits::pop(inner).unwrap();
    assert_eq!(fake.count(), 2);
    limits::pop(outer).unwrap();
    assert_eq!((fake.count(), fake.ask("fake_tbb_alive")), (8, 0));
}

/// An OpenBLAS on OpenMP of this version.
fn openblas_on_openmp(version: &str, own_count: &str) -> Fake {
    let version_argument = format!("-DVERSION=\"{version}\"");
    let own_argument = format!("-DOWN_COUNT={own_count}");
    let arguments =
        ["-DPREFIX=scipy_", "-DSUFFIX=64_", "-DPARALLEL=2", "-fopenmp", &version_argument, &own_argument];
    load(&build(&format!("libscipy_openblas64_openmp-{version}.so"), "openblas.c", &arguments))
}

/// The versions of an OpenBLAS on OpenMP that differ in what their own setter does, and the scope of the
/// knob.
const GENERATIONS: [(&str, &str, &str); 5] = [
    ("0.3.20", "STICKY", "process"),
    ("0.3.21", "IGNORED", "thread"),
    ("0.3.23", "ALONE", "process"),
    ("0.3.30", "IGNORED", "thread"),
    ("0.3.34", "BOUND", "thread"),
];

#[test]
fn an_openblas_on_openmp_really_uses_the_limit_in_every_version() {
    let _alone = alone();
    for (version, own_count, reach) in GENERATIONS {
        let fake = openblas_on_openmp(version, own_count);
        let pool = fake.pool();
        assert_eq!((pool.scope, pool.threading_layer.as_deref()), (reach, Some("openmp")), "{version}");
        let original = fake.ask("openblas_threads_of_next_call");
        for limit in [1, 2] {
            let scope = limits::push(limit, 0).unwrap();
            assert_eq!(fake.ask("openblas_threads_of_next_call"), limit, "{version}");
            assert_eq!(fake.count(), limit, "{version}");
            limits::pop(scope).unwrap();
            assert_eq!(fake.ask("openblas_threads_of_next_call"), original, "{version}");
        }
    }
}

// The exception to "limiting BLAS leaves OpenMP untouched": here they are one count.
#[test]
fn limiting_blas_reaches_an_openblas_on_openmp_through_its_runtime() {
    let _alone = alone();
    let fake = openblas_on_openmp("0.3.31", "IGNORED");
    let team = crate::fakes::team("libteam_blas.so");
    let original = team.ask("max_threads");
    let scope = limits::push(1, limits::BLAS).unwrap();
    assert_eq!((fake.ask("openblas_threads_of_next_call"), team.ask("max_threads")), (1, 1));
    limits::pop(scope).unwrap();
    assert_eq!(team.ask("max_threads"), original);
}

// Trap 2: a runtime in global scope takes the calls that were meant for the one that OpenBLAS came with.
#[test]
fn a_runtime_in_global_scope_is_the_one_that_counts() {
    if !in_own_process("families::a_runtime_in_global_scope_is_the_one_that_counts") {
        return;
    }
    let global = build("libomp_global.so", "openmp_runtime.c", &[]);
    // SAFETY: the stand-in has no initialiser.
    let _global = unsafe { Library::open(Some(&global), libc::RTLD_NOW | libc::RTLD_GLOBAL) }.unwrap();
    let own = build("libomp_own.so", "openmp_runtime.c", &[]);
    let arguments = ["-DPREFIX=", "-DSUFFIX=", "-DPARALLEL=2", "-DOWN_COUNT=IGNORED", "-DVERSION=\"0.3.30\""];
    let arguments = [&arguments[..], &[own.to_str().unwrap()]].concat();
    let fake = load(&build("libopenblas_interposed.so", "openblas.c", &arguments));
    let scope = limits::push(2, limits::BLAS).unwrap();
    assert_eq!((fake.ask("openblas_threads_of_next_call"), fake.count()), (2, 2));
    assert_eq!(load(&own).count(), 8);
    limits::pop(scope).unwrap();
    assert_eq!(fake.ask("openblas_threads_of_next_call"), 8);
}

// The workers of a map: each limits itself, and the map holds the process-wide half.
#[test]
fn workers_of_a_map_see_the_share_and_leave_nothing_behind() {
    let _alone = alone();
    let share = Limit { threads: 1, exact: false };
    for (version, own_count, _) in GENERATIONS {
        let fake = openblas_on_openmp(&format!("{version}.map"), own_count);
        let original = fake.ask("openblas_threads_of_next_call");
        let map = limits::enter_process(share);
        let work = || {
            let _limit = limits::enter_thread(share);
            fake.ask("openblas_threads_of_next_call")
        };
        let seen = std::thread::scope(|threads| {
            let workers = [threads.spawn(work), threads.spawn(work)];
            workers.map(|worker| worker.join().unwrap())
        });
        drop(map);
        assert_eq!(seen, [1, 1], "{version}");
        assert_eq!(fake.ask("openblas_threads_of_next_call"), original, "{version}");
    }
}
