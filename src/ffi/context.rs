//! Section 2 of the header: the scoped choice of backend.

use super::abi::{self, writable};
use super::guard::{guard, guard_value};
use crate::context::{self, Snapshot as pb_context};
use crate::status::{Error, Status, pb_status};
use crate::{call, cpu};
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::sync::Arc;

/// A scope that is open; 0 is never one.
pub type pb_scope = u64;

/// Opens a scope on this thread: maps that it calls, at any depth of libraries, use this backend until
/// `pb_pop_backend(*scope)`.
///
/// Keys that are not given are inherited, each from the innermost scope that gave it, else from
/// `pb_set_default_backend`, else from the environment (PB_BACKEND, PB_N_JOBS, PB_INNER_MAX_NUM_THREADS), else built in:
/// `threading` on all CPUs, each worker's BLAS and OpenMP limited to its share of them.
///
/// @param backend  its name; NULL keeps the enclosing one
/// @param n_jobs  k > 0: k workers; negative as joblib: -1 all CPUs, -2 all but one; 0: all for a named backend, inherited
///   for NULL. Inside a task "all" are the CPUs of the task's share.
/// @param inner_max_num_threads  threads of BLAS and OpenMP in each task; 0: not given
/// @param params  NULL or "key=value;key=value" for the named backend; an unknown key is an error that names those it knows.
///   `threading`: pin=cores|llc|numa|none, spin_us=0 to 1000000 (how long an idle thread stays awake), stack_size=64K to 64G.
///   Where a scope does not say, PB_PIN, PB_SPIN_US and PB_STACK_SIZE do, read once
/// @param scope  receives the token
///
/// Errors: PB_ERR_INVALID_ARGUMENT, PB_ERR_UNKNOWN_BACKEND, PB_ERR_BACKEND_UNAVAILABLE, and what the backend itself says.
///
/// # Safety
/// Texts are NULL or nul-terminated; `scope` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_push_backend(
    backend: *const c_char,
    n_jobs: i32,
    inner_max_num_threads: i32,
    params: *const c_char,
    scope: *mut pb_scope,
) -> pb_status {
    guard(|| {
        writable(scope, "scope")?;
        // SAFETY: the caller promised texts.
        let (backend, params) = unsafe { (abi::text(backend, "backend")?, abi::text(params, "params")?) };
        let token = context::push(context::setting(backend, n_jobs, inner_max_num_threads, params)?)?;
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *scope = token };
        Ok(())
    })
}

/// Closes a scope, or ends an attached context: on the thread that opened it, innermost first. Errors: PB_ERR_SCOPE when
/// popped out of order, twice, or on another thread; nothing is changed then.
#[unsafe(no_mangle)]
pub extern "C" fn pb_pop_backend(scope: pb_scope) -> pb_status {
    guard(|| context::pop(scope))
}

/// Replaces the choice that applies, in all threads, where no scope says otherwise. Arguments as for `pb_push_backend`;
/// (NULL, 0, 0, NULL) returns to the environment's and the built-in choice.
///
/// # Safety
/// Texts are NULL or nul-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_set_default_backend(
    backend: *const c_char,
    n_jobs: i32,
    inner_max_num_threads: i32,
    params: *const c_char,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised texts.
        let (backend, params) = unsafe { (abi::text(backend, "backend")?, abi::text(params, "params")?) };
        context::set_default(context::setting(backend, n_jobs, inner_max_num_threads, params)?);
        Ok(())
    })
}

/// Workers that a map would use under this thread's context: for `n_jobs` as in `pb_push_backend`, or for the context's
/// own number if 0. At least 1; a negative pb_status if the context cannot be used (text in `pb_last_error`).
#[unsafe(no_mangle)]
pub extern "C" fn pb_effective_n_jobs(n_jobs: i32) -> i32 {
    guard_value(|error| error.status.0, || call::effective_n_jobs(n_jobs))
}

/// CPUs that this process may use now: the least of the CPUs online, the calling thread's affinity, the quota of its
/// cgroup (v1 or v2) and of every cgroup around it, rounded up, and the environment variable PB_MAX_CPU_COUNT. At least 1.
/// Non-zero `only_physical_cores` counts the siblings of one core once.
#[unsafe(no_mangle)]
pub extern "C" fn pb_cpu_count(only_physical_cores: i32) -> i32 {
    guard_value(|_| 1, || Ok(if only_physical_cores != 0 { cpu::physical_count() } else { cpu::count() }))
}

thread_local! {
    static CURRENT_NAME: RefCell<CString> = RefCell::default();
}

/// The name of the backend in force on this thread. Valid until this thread asks again; "" if the context cannot be used
/// (text in `pb_last_error`).
#[unsafe(no_mangle)]
pub extern "C" fn pb_current_backend() -> *const c_char {
    guard_value(
        |_| c"".as_ptr(),
        || {
            let name = CString::new(&*context::current_backend()?).unwrap_or_default();
            CURRENT_NAME
                .try_with(|current| {
                    current.replace(name);
                    current.borrow().as_ptr()
                })
                .map_err(|_| Error::new(Status::ERR_SCOPE, "this thread is ending"))
        },
    )
}

/// How many parallel maps are around the calling code: 0 outside any task. Maps that ran sequentially do not count.
#[unsafe(no_mangle)]
pub extern "C" fn pb_nesting_level() -> i32 {
    guard_value(|_| 0, || Ok(context::place()?.level))
}

/// Inside a task: which of its map's workers runs it, from 0 to n_jobs - 1; no two tasks of a map that run at the same time
/// share it, so it can index scratch memory. On `dask` and `ray` that holds for the tasks of one process, and with n_jobs = -1 it
/// may be larger where the cluster has grown since the map began. -1 outside any task.
#[unsafe(no_mangle)]
pub extern "C" fn pb_worker_index() -> i32 {
    guard_value(
        |_| -1,
        || Ok(context::current_task().map_or(-1, |(_, seat)| i32::try_from(seat).unwrap_or(i32::MAX))),
    )
}

/// Inside a task: 1 when it should stop early, because its map, or a map around it, was cancelled or has failed, or the
/// task's own time is up. 0 otherwise, and outside any task.
#[unsafe(no_mangle)]
pub extern "C" fn pb_cancelled() -> i32 {
    guard_value(
        |_| 0,
        || {
            let around = context::current_task()
                .map_or_else(|| context::place().map(|place| place.parent), |task| Ok(Some(task)))?;
            Ok(i32::from(around.is_some_and(|(job, seat)| job.item_should_stop(seat))))
        },
    )
}

/// Inside a task: attaches a text (copied) to the non-zero code that it is about to return. Errors:
/// PB_ERR_INVALID_ARGUMENT outside any task, or for NULL.
///
/// # Safety
/// `message` is nul-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_task_fail(message: *const c_char) -> pb_status {
    guard(|| {
        if message.is_null() {
            return Err(abi::null("message"));
        }
        // SAFETY: not NULL, and the caller promised a text. What is not UTF-8 is shown as well as it can be.
        let message = unsafe { std::ffi::CStr::from_ptr(message) }.to_string_lossy().into_owned();
        let (job, _) = context::current_task()
            .ok_or_else(|| Error::invalid("pb_task_fail is for tasks: no task runs on this thread"))?;
        job.task_says(message);
        Ok(())
    })
}

/// The context of the calling thread, to be attached on threads that pb did not start: its backend, limits, nesting level
/// and share of the CPUs, and inside a task its cancellation. NULL if there is none (text in `pb_last_error`).
/// `pb_context_free` frees it; attached scopes do not depend on that.
#[unsafe(no_mangle)]
pub extern "C" fn pb_context_capture() -> *mut pb_context {
    guard_value(|_| std::ptr::null_mut(), || Ok(Arc::into_raw(Arc::new(context::resolve()?)).cast_mut()))
}

/// Puts a captured context in force on this thread until `pb_pop_backend(*scope)`. Any number of threads may have it
/// attached at the same time.
///
/// # Safety
/// `context` came from `pb_context_capture` and was not freed; `scope` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_context_attach(context: *const pb_context, scope: *mut pb_scope) -> pb_status {
    guard(|| {
        if context.is_null() {
            return Err(abi::null("context"));
        }
        writable(scope, "scope")?;
        // SAFETY: the pointer is that of a live Arc: the count goes up before a reference of our own is made of it.
        let snapshot = unsafe {
            Arc::increment_strong_count(context);
            Arc::from_raw(context)
        };
        let token = context::attach(snapshot)?;
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *scope = token };
        Ok(())
    })
}

/// Frees a captured context. NULL is fine; twice is not.
///
/// # Safety
/// `context` is NULL or came from `pb_context_capture` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_context_free(context: *mut pb_context) {
    guard_value(
        |_| (),
        || {
            if !context.is_null() {
                // SAFETY: the caller gives back the reference that `pb_context_capture` made.
                drop(unsafe { Arc::from_raw(context) });
            }
            Ok(())
        },
    );
}
