//! Which libraries are found, and as what.

use crate::fakes::{PTHREADS, alone, build, load, openblas};
use parallel_backend::limits;

#[test]
fn an_openblas_is_found_whatever_affixes_its_names_have() {
    let _alone = alone();
    for (file, prefix, suffix) in [
        ("libopenblas_plain.so", "", ""),
        ("libscipy_openblas64_-0123.so", "scipy_", "64_"),
        ("libopenblas_suffix.so", "", "_64"),
        ("libopenblas_own.so", "my_", "_build"),
    ] {
        let affixes = [format!("-DPREFIX={prefix}"), format!("-DSUFFIX={suffix}")];
        let arguments = [&[affixes[0].as_str(), &affixes[1]], &PTHREADS[2..]].concat();
        let fake = load(&build(file, "openblas.c", &arguments));
        let pool = fake.pool();
        assert_eq!((pool.user_api.as_str(), pool.internal_api.as_str()), ("blas", "openblas"), "{file}");
        assert_eq!(pool.version.as_deref(), Some("0.3.21"));
        assert_eq!(pool.threading_layer.as_deref(), Some("pthreads"));
        assert_eq!(pool.architecture.as_deref(), Some("Haswell"));
        assert_eq!((pool.scope, pool.num_threads, pool.controllable), ("shared-pool", 8, true));
        let scope = limits::push(3, limits::BLAS).unwrap();
        assert_eq!(fake.ask("openblas_threads_of_next_call"), 3, "{file}");
        limits::pop(scope).unwrap();
        assert_eq!(fake.ask("openblas_threads_of_next_call"), 8, "{file}");
    }
}

#[test]
fn a_prefix_is_what_the_file_is_known_by() {
    let _alone = alone();
    assert_eq!(openblas("libopenblasp-r0.3.21.so").pool().prefix, "libopenblas");
    assert_eq!(openblas("libscipy_openblas-abcd.so").pool().prefix, "libscipy_openblas");
    assert_eq!(openblas("extension.cpython-311.so").pool().prefix, "extension");
}

// Trap 1 of dlsym: it finds openblas_get_num_threads through the front, as it finds omp_* through OpenBLAS.
#[test]
fn a_library_that_only_needs_openblas_is_no_second_pool() {
    let _alone = alone();
    let backend = build("libopenblas_behind.so", "openblas.c", PTHREADS);
    let front = load(&build("libblas.so.3", "front.c", &[backend.to_str().unwrap()]));
    assert_eq!(front.ask("front_of_openblas"), 8);
    assert_eq!(front.pools(), []);
    assert_eq!(load(&backend).pools().len(), 1);
}

#[test]
fn two_copies_are_two_pools_and_two_names_of_one_file_are_one() {
    let _alone = alone();
    let one = openblas("libopenblas_copy1.so");
    let two = openblas("libopenblas_copy2.so");
    let link = one.path.with_file_name("libopenblas_link.so");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&one.path, &link).unwrap();
    let again = load(&link);
    let scope = limits::push(2, 0).unwrap();
    assert_eq!((one.count(), two.count(), again.count()), (2, 2, 2));
    limits::pop(scope).unwrap();
    assert_eq!((one.count(), two.count()), (8, 8));
}

#[test]
fn a_serial_openblas_is_listed_and_left_alone() {
    let _alone = alone();
    let arguments = ["-DPREFIX=", "-DSUFFIX=", "-DPARALLEL=0", "-DOWN_COUNT=ALONE", "-DVERSION=\"0.3.21\""];
    let fake = load(&build("libopenblas-r0.3.21.so", "openblas.c", &arguments));
    let pool = fake.pool();
    assert_eq!(pool.threading_layer.as_deref(), Some("disabled"));
    assert_eq!((pool.num_threads, pool.controllable), (1, false));
    let scope = limits::push(2, 0).unwrap();
    assert_eq!(fake.ask("openblas_get_num_threads"), 8);
    limits::pop(scope).unwrap();
}

#[test]
fn flexiblas_is_a_front_although_it_exports_every_setter() {
    let _alone = alone();
    let fake = load(&build("libflexiblas.so.3", "flexiblas.c", &[]));
    let pool = fake.pool();
    assert_eq!((pool.internal_api.as_str(), pool.version.as_deref()), ("flexiblas", Some("3.4.82")));
    assert_eq!((pool.num_threads, pool.controllable), (6, false));
    let scope = limits::push(2, 0).unwrap();
    assert_eq!(fake.ask("flexiblas_forwarded"), 0);
    limits::pop(scope).unwrap();
    assert_eq!(fake.ask("flexiblas_forwarded"), 0);
}

// Trap 7: what is loaded inside a scope.
#[test]
fn a_library_loaded_later_is_seen_and_comes_under_the_limits_in_force() {
    let _alone = alone();
    let before = limits::pools().len();
    let outer = limits::push(3, 0).unwrap();
    let fake = openblas("libopenblas_late.so");
    assert_eq!(limits::pools().len(), before + 1);
    assert_eq!(fake.ask("openblas_get_num_threads"), 3);
    let inner = limits::push(2, 0).unwrap();
    assert_eq!(fake.ask("openblas_get_num_threads"), 2);
    limits::pop(inner).unwrap();
    limits::pop(outer).unwrap();
    assert_eq!(fake.ask("openblas_get_num_threads"), 8);
}

#[test]
fn a_library_closed_inside_a_scope_stays_loaded() {
    let _alone = alone();
    let fake = openblas("libopenblas_closed.so");
    type Get = unsafe extern "C" fn() -> i32;
    // SAFETY: the function's type.
    let count: Get = unsafe { *fake.library.get(b"openblas_get_num_threads").unwrap() };
    let scope = limits::push(2, 0).unwrap();
    fake.library.close().unwrap();
    limits::pop(scope).unwrap();
    // SAFETY: the library is pinned since it was found.
    assert_eq!(unsafe { count() }, 8);
}
