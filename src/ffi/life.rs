//! Section 8 of the header: life.

use super::abi::writable;
use super::context::pb_scope;
use super::guard::guard;
use crate::backends::threading;
use crate::call;
use crate::context;
use crate::registry;
use crate::shared;
use crate::status::{Error, Result, Status, pb_status};

/// Ends idle threads and worker processes, and sessions that no scope opened, and gives back memory that is kept warm for
/// results; the next call starts them again. Tasks that run are not disturbed: their threads end after them. A timeline that is
/// being recorded is written as far as it has come, and goes on. May be called at any time and any number of times. Errors:
/// PB_ERR_IO where the timeline cannot be written; the rest is done then.
#[unsafe(no_mangle)]
pub extern "C" fn pb_shutdown() -> pb_status {
    guard(|| {
        registry::shutdown();
        threading::shutdown();
        #[cfg(target_os = "linux")]
        {
            crate::backends::loky::shutdown();
            crate::backends::engine::shutdown();
        }
        shared::release_all();
        super::trace::flush()
    })
}

/// Begins a phase, a time in which many maps are called: idle threads of the backend `threading` stay awake until
/// `pb_phase_end(*phase)`, so that a call finds them at hand however long ago the last one was. Waiting awake, each of them uses a
/// CPU that nobody else wants; once the phase ends they sleep at once. Threads that do not run yet are started here.
///
/// Phases belong to the process: they may begin and end on any thread, in any order, and several may be open; as many threads stay
/// awake as the largest of them asks for. `pb_shutdown` ends threads in a phase too; those that later calls start stay awake
/// again. A forked child has no phase.
///
/// @param max_workers  workers of the largest map that is to come, the caller counted, as `n_jobs` in `pb_push_backend`; 0:
///   as many as a map would have here. Where another backend than `threading` is in force, the phase keeps no thread awake
/// @param phase  receives the token
///
/// Errors: PB_ERR_INVALID_ARGUMENT, and those of a map whose context cannot be used.
///
/// # Safety
/// `phase` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_phase_begin(max_workers: i32, phase: *mut pb_scope) -> pb_status {
    guard(|| {
        writable(phase, "phase")?;
        let token = threading::begin_phase(workers_here(max_workers)?);
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *phase = token };
        Ok(())
    })
}

/// Workers of `threading` that a map of so many would have on this thread.
fn workers_here(max_workers: i32) -> Result<usize> {
    let workers = call::effective_n_jobs(max_workers)?;
    let used = &*context::current_backend()? == "threading";
    Ok(if used { usize::try_from(workers).unwrap_or(1) } else { 1 })
}

/// Ends a phase, on any thread. Errors: PB_ERR_SCOPE where it is not open; nothing is changed then.
#[unsafe(no_mangle)]
pub extern "C" fn pb_phase_end(phase: pb_scope) -> pb_status {
    guard(|| {
        if threading::end_phase(phase) {
            return Ok(());
        }
        let why = match phase {
            0 => "0 is never a phase: pass the token that pb_phase_begin wrote",
            _ => {
                "this phase is not open: it was ended already, or pb_phase_begin did not make it; a forked child has none \
                 of its parent's"
            }
        };
        Err(Error::new(Status::ERR_SCOPE, why))
    })
}
