//! Forks: the child has one thread, and whatever lock another thread held at that moment would stay locked for ever.
//!
//! So the forking thread takes all locks of the library before the fork, and both sides let go of them after it; in the
//! child the pool of threads is forgotten. No lock is ever held while foreign code runs, so taking them all cannot wait
//! for the forking thread itself.

use crate::{backends::threading, context, fork, limits, registry, shared, tasks, trace, worker};
use std::any::Any;
use std::cell::RefCell;
use std::sync::{MutexGuard, Once};

struct Held {
    timeline: trace::ForkGuard,
    #[cfg(target_os = "linux")]
    workers: crate::backends::loky::ForkGuard,
    #[cfg(target_os = "linux")]
    bridges: crate::backends::engine::ForkGuard,
    spare: MutexGuard<'static, Vec<shared::Mapping>>,
    _locks: [Box<dyn Any>; 7],
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

extern "C" fn prepare() {
    let _ = HELD.try_with(|held| {
        // The first one comes first: who holds it may take others.
        let locks: [Box<dyn Any>; 7] = [
            Box::new(threading::fork_guard()),
            Box::new(registry::fork_guard()),
            Box::new(context::fork_guard()),
            Box::new(limits::fork_guard()),
            Box::new(tasks::fork_guard()),
            Box::new(shared::fork_guard()),
            Box::new(worker::fork_guard()),
        ];
        held.replace(Some(Held {
            timeline: trace::fork_guard(),
            #[cfg(target_os = "linux")]
            workers: crate::backends::loky::fork_guard(),
            #[cfg(target_os = "linux")]
            bridges: crate::backends::engine::fork_guard(),
            spare: shared::spare_fork_guard(),
            _locks: locks,
        }));
    });
}

extern "C" fn parent() {
    let _ = HELD.try_with(RefCell::take);
}

extern "C" fn child() {
    fork::in_child();
    if let Ok(Some(held)) = HELD.try_with(RefCell::take) {
        held.timeline.in_child();
        #[cfg(target_os = "linux")]
        {
            held.workers.in_child();
            held.bridges.in_child();
        }
        shared::forget_in_child(held.spare);
    }
    threading::forget_after_fork();
}

/// Registers the handlers of forks and of the exit, once in a process.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are functions of this library, which is never unloaded (linked with -z nodelete).
        unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
        super::trace::install();
    });
}
