//! Section 4 of the header: submitted jobs.

use super::abi::{self, writable};
use super::guard::{guard, guard_status, guard_value};
use super::map::User;
use crate::context;
use crate::job::{Job as pb_job, Next};
use crate::status::{Error, Result, Status, pb_status};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A reference to the job behind a handle.
///
/// # Safety
/// `job` is NULL or a job's pointer that is still valid: submitted and not freed, or passed to a backend's running `run`.
pub(super) unsafe fn job<'a>(job: *const pb_job) -> Result<&'a pb_job> {
    // SAFETY: the caller promised a valid pointer, or NULL.
    unsafe { job.as_ref() }.ok_or_else(|| abi::null("job"))
}

/// A counted reference to the job behind a handle.
///
/// # Safety
/// As [`job`].
pub(super) unsafe fn shared(pointer: *const pb_job) -> Result<Arc<pb_job>> {
    // SAFETY: the caller promised a valid pointer; every job's pointer is that of an Arc, whose count goes up first.
    unsafe {
        job(pointer)?;
        Arc::increment_strong_count(pointer);
        Ok(Arc::from_raw(pointer))
    }
}

/// Checks a time to wait; any number is fine.
fn timeout(seconds: f64) -> Result<f64> {
    if seconds.is_nan() {
        return Err(Error::invalid("timeout_seconds is not a number: it is seconds, or below 0 for ever"));
    }
    Ok(seconds)
}

/// Waits until the job is over.
///
/// @param timeout_seconds  0 only looks; below 0 waits for ever
/// @return PB_PENDING when the time was up; else how the job ended, with the job's text as this thread's error. It may be
///   asked any number of times, from any thread, but not by a task of the same job.
///
/// # Safety
/// `job` was submitted and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_wait(job: *mut pb_job, timeout_seconds: f64) -> pb_status {
    guard_status(|| {
        // SAFETY: the caller promised a job.
        let job = unsafe { shared(job) }?;
        let timeout = timeout(timeout_seconds)?;
        job.check_waiter(context::current_task())?;
        job.wait(timeout).map_or(Ok(Status::PENDING), |outcome| outcome.map(|()| Status::OK))
    })
}

/// Takes the next finished item: in index order, or in order of completion with PB_UNORDERED. Each item is handed out once.
///
/// @param index  receives it, when PB_OK is returned
/// @return PB_OK; PB_PENDING when the time was up; PB_DONE when all were handed out; or, once the items that finished before
///   it were handed out, the job's failure. With PB_COLLECT_ERRORS failed items are handed out too: see `statuses`.
///
/// # Safety
/// `job` was submitted and not freed; `index` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_next(job: *mut pb_job, timeout_seconds: f64, index: *mut usize) -> pb_status {
    guard_status(|| {
        // SAFETY: the caller promised a job.
        let job = unsafe { shared(job) }?;
        let timeout = timeout(timeout_seconds)?;
        writable(index, "index")?;
        job.check_waiter(context::current_task())?;
        match job.next(timeout)? {
            Next::Pending => Ok(Status::PENDING),
            Next::Done => Ok(Status::DONE),
            Next::Item(item) => {
                // SAFETY: checked not NULL, and the caller promised that it is writable.
                unsafe { *index = item };
                Ok(Status::OK)
            }
        }
    })
}

/// Has `notify(user)` called once, when the job is over: on the thread that ended it, or here and now if it is over. It
/// may call any function of the library, `pb_job_free` of this job included. `user` must live until then: `pb_job_free` does
/// not wait for a callback.
///
/// # Safety
/// `job` was submitted and not freed; `notify` may be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_notify(
    job: *mut pb_job,
    notify: Option<unsafe extern "C-unwind" fn(user: *mut c_void) -> i32>,
    user: *mut c_void,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a job.
        let job = unsafe { shared(job) }?;
        let notify = notify.ok_or_else(|| abi::null("notify"))?;
        let user = User(user);
        job.notify(Box::new(move || {
            let User(user) = { user };
            // SAFETY: the caller promised a function of this type, for any thread. Nobody is left to tell of an exception.
            let _ = catch_unwind(AssertUnwindSafe(|| unsafe { notify(user) }));
        }));
        Ok(())
    })
}

/// Asks the job to stop: no further item starts, those that run see `pb_cancelled`. Returns at once; a job that is over
/// stays as it ended, and one whose items all finish all the same ends with PB_OK.
///
/// # Safety
/// `job` was submitted and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_cancel(job: *mut pb_job) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a job.
        unsafe { self::job(job) }?.cancel();
        Ok(())
    })
}

/// Frees the job. One that still runs is cancelled and waited for; a task that frees the job around it does not wait.
/// NULL is fine; twice is not.
///
/// # Safety
/// `job` is NULL, or was submitted and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_free(job: *mut pb_job) {
    guard_value(
        |_| (),
        || {
            if job.is_null() {
                return Ok(());
            }
            // SAFETY: the caller gives back the reference that `pb_submit_map` made.
            let job = unsafe { Arc::from_raw(job) };
            if !job.is_over() {
                job.cancel();
                if job.check_waiter(context::current_task()).is_ok() {
                    let _ = job.wait(-1.0);
                }
            }
            Ok(())
        },
    );
}
