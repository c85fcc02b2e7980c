//! Pools that the program registers, and arguments that cannot be used.

use crate::fakes::alone;
use parallel_backend::limits::{self, CustomPool, Limit};
use parallel_backend::status::Status;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// A pool with one count, which starts at 8.
fn custom(name: &str, scope: &str) -> (CustomPool, Arc<AtomicI32>) {
    let count = Arc::new(AtomicI32::new(8));
    let (getter, setter) = (count.clone(), count.clone());
    let pool = CustomPool {
        user_api: "blas".into(),
        internal_api: name.into(),
        scope: scope.into(),
        get: Box::new(move || getter.load(Ordering::SeqCst)),
        set: Box::new(move |threads| setter.store(threads, Ordering::SeqCst)),
    };
    (pool, count)
}

/// threadpoolctl: test_custom_controller
#[test]
fn a_registered_pool_is_listed_and_limited_and_put_back() {
    let _alone = alone();
    for reach in ["thread", "process", "shared-pool"] {
        let name = format!("registered-{reach}");
        let (pool, count) = custom(&name, reach);
        limits::register(pool).unwrap();
        let listed = limits::pools().into_iter().find(|pool| pool.internal_api == name).unwrap();
        assert_eq!((listed.user_api.as_str(), listed.scope, listed.num_threads), ("blas", reach, 8));
        let outer = limits::push(1, limits::BLAS).unwrap();
        let inner = limits::push(2, limits::BLAS).unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 2);
        limits::pop(inner).unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        limits::pop(outer).unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 8);
    }
}

#[test]
fn a_pool_registered_inside_a_scope_comes_under_its_limit() {
    let _alone = alone();
    let scope = limits::push(2, 0).unwrap();
    let (pool, count) = custom("registered-late", "process");
    limits::register(pool).unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 2);
    limits::pop(scope).unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 8);
}

// No lock is held while the user's functions run: a setter may use this library itself.
#[test]
fn a_setter_may_call_back() {
    let _alone = alone();
    let (mut pool, count) = custom("registered-callback", "process");
    let set = pool.set;
    pool.set = Box::new(move |threads| {
        let scope = limits::push(threads, limits::OPENMP).unwrap();
        assert!(!limits::pools().is_empty());
        set(threads);
        limits::pop(scope).unwrap();
    });
    limits::register(pool).unwrap();
    let map = limits::enter_process(Limit { threads: 3, exact: false });
    assert_eq!(count.load(Ordering::SeqCst), 3);
    drop(map);
    assert_eq!(count.load(Ordering::SeqCst), 8);
}

#[test]
fn a_setter_that_panics_harms_nobody() {
    let _alone = alone();
    let (mut pool, _) = custom("registered-panics", "process");
    pool.set = Box::new(|_| std::panic::resume_unwind(Box::new("a setter's panic")));
    limits::register(pool).unwrap();
    let (other, count) = custom("registered-after-it", "process");
    limits::register(other).unwrap();
    let scope = limits::push(2, 0).unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 2);
    limits::pop(scope).unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 8);
}

/// threadpoolctl: test_threadpool_limits_bad_input
#[test]
fn arguments_that_cannot_be_used_are_named() {
    for limit in [0, -1, i32::MIN] {
        let error = limits::push(limit, 0).unwrap_err();
        assert_eq!(error.status, Status::ERR_INVALID_ARGUMENT);
        assert!(error.message.contains(&limit.to_string()), "{}", error.message);
    }
    let error = limits::push(1, limits::BLAS | 8).unwrap_err();
    assert_eq!(error.status, Status::ERR_INVALID_ARGUMENT);
    assert!(error.message.contains("0x8"), "{}", error.message);
    assert_eq!(limits::open_scopes(), 0);

    let refused = |pool: CustomPool| {
        let error = limits::register(pool).unwrap_err();
        (error.status, error.message.clone())
    };
    let (mut pool, _) = custom("registered-wrong", "process");
    pool.user_api = "lapack".into();
    let (status, message) = refused(pool);
    assert_eq!(status, Status::ERR_INVALID_ARGUMENT);
    assert!(message.contains("\"lapack\""), "{message}");
    let (status, message) = refused(custom("registered-wrong", "galaxy").0);
    assert_eq!(status, Status::ERR_INVALID_ARGUMENT);
    assert!(message.contains("\"galaxy\""), "{message}");
    assert_eq!(refused(custom("", "process").0).0, Status::ERR_INVALID_ARGUMENT);
}

#[test]
fn a_name_is_registered_once() {
    let _alone = alone();
    limits::register(custom("registered-twice", "process").0).unwrap();
    let error = limits::register(custom("registered-twice", "thread").0).unwrap_err();
    assert_eq!(error.status, Status::ERR_EXISTS);
    assert!(error.message.contains("registered-twice"), "{}", error.message);
}
