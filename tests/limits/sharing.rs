//! Limits that nest, overlap, end in any order, and meet other people's changes.

use crate::fakes::{Fake, alone, build, load, openblas};
use parallel_backend::limits::{self, Limit};
use std::sync::mpsc;

/// threadpoolctl: test_nested_limits
#[test]
fn an_inner_scope_replaces_the_outer_one_of_its_thread() {
    let _alone = alone();
    let fake = openblas("libopenblas_nested.so");
    let outer = limits::push(1, 0).unwrap();
    assert_eq!(fake.count(), 1);
    let inner = limits::push(2, 0).unwrap();
    assert_eq!(fake.count(), 2);
    limits::pop(inner).unwrap();
    assert_eq!(fake.count(), 1);
    limits::pop(outer).unwrap();
    assert_eq!(fake.count(), 8);
}

#[test]
fn an_inner_scope_of_another_api_replaces_nothing() {
    let _alone = alone();
    let fake = openblas("libopenblas_api.so");
    let outer = limits::push(1, limits::BLAS).unwrap();
    let inner = limits::push(2, limits::OPENMP).unwrap();
    assert_eq!(fake.count(), 1);
    limits::pop(inner).unwrap();
    limits::pop(outer).unwrap();
}

/// A thread that opens and closes a scope when it is told.
struct Holder {
    orders: mpsc::Sender<Option<i32>>,
    done: mpsc::Receiver<()>,
}

impl Holder {
    fn start<'scope>(threads: &'scope std::thread::Scope<'scope, '_>) -> Holder {
        let (orders, inbox) = mpsc::channel();
        let (outbox, done) = mpsc::channel();
        threads.spawn(move || {
            let mut scope = None;
            for order in inbox {
                match order {
                    Some(limit) => scope = Some(limits::push(limit, 0).unwrap()),
                    None => limits::pop(scope.take().unwrap()).unwrap(),
                }
                outbox.send(()).unwrap();
            }
        });
        Holder { orders, done }
    }

    fn push(&self, limit: i32) {
        self.orders.send(Some(limit)).unwrap();
        self.done.recv().unwrap();
    }

    fn pop(&self) {
        self.orders.send(None).unwrap();
        self.done.recv().unwrap();
    }
}

// Trap 9, and threadpoolctl issues 176 and 205: scopes of two threads that overlap.
#[test]
fn overlapping_scopes_of_two_threads_end_in_any_order() {
    let _alone = alone();
    let fake = openblas("libopenblas_overlap.so");
    for (first, second) in [(1, 2), (2, 1), (3, 3), (12, 10)] {
        for first_ends_first in [true, false] {
            std::thread::scope(|threads| {
                let (a, b) = (Holder::start(threads), Holder::start(threads));
                a.push(first);
                assert_eq!(fake.count(), first);
                b.push(second);
                assert_eq!(fake.count(), first.min(second));
                let (earlier, later, left) = if first_ends_first { (a, b, second) } else { (b, a, first) };
                earlier.pop();
                assert_eq!(fake.count(), left);
                later.pop();
            });
            assert_eq!(fake.count(), 8, "after {first} and {second}");
        }
    }
}

// threadpoolctl issues 229 and 239: limits come and go on several threads while another one loads and
// unloads.
#[test]
fn limits_and_loading_at_once_neither_deadlock_nor_leak() {
    let _alone = alone();
    let fake = openblas("libopenblas_stress.so");
    let passing = build("libpassing.so", "mkl_core.c", &[]);
    std::thread::scope(|threads| {
        for limit in 1..=4 {
            let fake = &fake;
            threads.spawn(move || {
                for _ in 0..500 {
                    let scope = limits::push(limit, 0).unwrap();
                    assert!(fake.ask("openblas_get_num_threads") <= limit);
                    limits::pop(scope).unwrap();
                }
            });
        }
        threads.spawn(|| (0..200).for_each(|_| load(&passing).library.close().unwrap()));
    });
    assert_eq!(fake.count(), 8);
}

#[test]
fn a_map_and_a_scope_hold_the_smaller_of_their_limits() {
    let _alone = alone();
    let fake = openblas("libopenblas_map.so");
    let map = limits::enter_process(Limit { threads: 2, exact: false });
    let scope = limits::push(4, 0).unwrap();
    assert_eq!(fake.count(), 2);
    drop(map);
    assert_eq!(fake.count(), 4);
    limits::pop(scope).unwrap();
    assert_eq!(fake.count(), 8);
}

#[test]
fn the_process_wide_half_may_end_on_another_thread() {
    let _alone = alone();
    let fake = openblas("libopenblas_elsewhere.so");
    let map = limits::enter_process(Limit { threads: 2, exact: false });
    assert_eq!(fake.count(), 2);
    std::thread::spawn(move || drop(map)).join().unwrap();
    assert_eq!(fake.count(), 8);
}

#[test]
fn a_cap_never_raises_a_count_and_an_exact_limit_may() {
    let _alone = alone();
    let fake = openblas("libopenblas_raise.so");
    let cap = limits::enter_process(Limit { threads: 12, exact: false });
    assert_eq!(fake.count(), 8);
    drop(cap);
    let exact = limits::enter_process(Limit { threads: 12, exact: true });
    assert_eq!(fake.count(), 12);
    drop(exact);
    assert_eq!(fake.count(), 8);
}

#[test]
fn a_count_that_the_library_clamps_is_put_back_all_the_same() {
    let _alone = alone();
    let fake = openblas("libopenblas_clamp.so");
    let scope = limits::push(100, 0).unwrap();
    assert_eq!(fake.count(), 64);
    limits::pop(scope).unwrap();
    assert_eq!(fake.count(), 8);
}

#[test]
fn what_somebody_else_has_set_meanwhile_is_left_alone() {
    let _alone = alone();
    let fake = openblas("libopenblas_changed.so");
    let scope = limits::push(2, 0).unwrap();
    fake.tell("openblas_set_num_threads", 5);
    limits::pop(scope).unwrap();
    assert_eq!(fake.count(), 5);
}

#[test]
fn a_panic_inside_gives_everything_back() {
    let _alone = alone();
    let fake = openblas("libopenblas_panic.so");
    let team = crate::fakes::team("libteam_panic.so");
    let original = team.ask("max_threads");
    let limit = Limit { threads: original + 1, exact: true };
    let unwound = std::panic::catch_unwind(|| {
        let _process = limits::enter_process(limit);
        let _thread = limits::enter_thread(limit);
        assert_eq!((fake.count(), team.ask("max_threads")), (original + 1, original + 1));
        std::panic::resume_unwind(Box::new("a task's panic"));
    });
    assert!(unwound.is_err());
    assert_eq!((fake.count(), team.ask("max_threads")), (8, original));
}

#[test]
fn a_thread_that_ends_with_an_open_scope_gives_the_process_wide_half_back() {
    let _alone = alone();
    let fake = openblas("libopenblas_ended.so");
    std::thread::spawn(|| limits::push(2, 0).unwrap()).join().unwrap();
    assert_eq!(fake.count(), 8);
}

#[test]
fn scopes_that_a_task_leaves_open_can_be_closed_for_it() {
    let _alone = alone();
    let fake = openblas("libopenblas_left.so");
    let outer = limits::push(4, 0).unwrap();
    let depth = limits::open_scopes();
    limits::push(2, 0).unwrap();
    limits::push(1, 0).unwrap();
    assert_eq!(limits::open_scopes(), depth + 2);
    limits::close_above(depth);
    assert_eq!((limits::open_scopes(), fake.count()), (depth, 4));
    assert!(limits::pop_above(outer, depth).unwrap_err().message.contains("outside the task"));
    limits::pop(outer).unwrap();
    assert_eq!(fake.count(), 8);
}

// Trap 12. The child gets no thread but the one that forked, so nobody there could end another thread's
// request.
#[test]
fn a_forked_child_forgets_the_limits_of_threads_it_does_not_have() {
    let _alone = alone();
    let fake = openblas("libopenblas_fork.so");
    let own = limits::push(6, 0).unwrap();
    std::thread::scope(|threads| {
        let other = Holder::start(threads);
        other.push(2);
        let guard = limits::fork_guard();
        // SAFETY: the child calls nothing but this library, whose locks the guard has taken, and `_exit`.
        let child = unsafe { libc::fork() };
        drop(guard);
        if child == 0 {
            let passed = child_sees_only_its_own(&fake, own);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if passed { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child that was started above.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status}");
        assert_eq!(fake.count(), 2);
        other.pop();
    });
    limits::pop(own).unwrap();
    assert_eq!(fake.count(), 8);
}

fn child_sees_only_its_own(fake: &Fake, own: u64) -> bool {
    let Ok(inner) = limits::push(3, 0) else { return false };
    let inside = fake.ask("openblas_get_num_threads") == 3;
    inside
        && limits::pop(inner).is_ok()
        && limits::pop(own).is_ok()
        && fake.ask("openblas_get_num_threads") == 8
}
