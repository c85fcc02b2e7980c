//! Section 3 of the header: the map.

use super::abi::{self, Tail, writable};
use super::guard::guard;
use super::task::{CTask, Elements};
use crate::call::{self, Request, Wishes};
use crate::job::{Job as pb_job, Progress, Rules, Stream};
use crate::status::{Error, Result, pb_status};
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// Runs for one item. `input` and `output` point at that item's element (NULL where the array is NULL). 0 is success; any
/// other code is the item's failure, to which `pb_task_fail` attaches a text. It may run on any thread, and on several at
/// once; it must not throw or longjmp.
pub type pb_task_fn = Option<
    unsafe extern "C-unwind" fn(
        ctx: *mut c_void,
        index: usize,
        input: *const c_void,
        output: *mut c_void,
    ) -> i32,
>;

/// Runs the items from `begin` to `end - 1`, one after the other, each as the map's function would. `inputs` and `outputs` point at the
/// elements of item `begin` (NULL where the array is NULL). 0 is success; else it stops at the first item that fails, writes its index
/// to `failed`, and returns its code. As `pb_task_fn`, it may run on any thread, and on several at once, and must not throw or longjmp.
pub type pb_range_fn = Option<
    unsafe extern "C-unwind" fn(
        ctx: *mut c_void,
        begin: usize,
        end: usize,
        inputs: *const c_void,
        outputs: *mut c_void,
        failed: *mut usize,
    ) -> i32,
>;

/// Hard: a backend without shared memory is replaced by `threading`, as joblib does.
pub const PB_REQUIRE_SHAREDMEM: u32 = 0x01;
/// Soft: `threading` where no backend was chosen.
pub const PB_PREFER_THREADS: u32 = 0x02;
/// Soft: worker processes where no backend was chosen: `loky`, or else `multiprocessing`. Not inside tasks.
pub const PB_PREFER_PROCESSES: u32 = 0x04;
/// Run everything; `statuses` has each item's fate; the call returns PB_ERR_TASK_FAILED if any failed.
pub const PB_COLLECT_ERRORS: u32 = 0x08;
/// Never run an item twice: a lost item is an error.
pub const PB_NON_IDEMPOTENT: u32 = 0x10;
/// `pb_job_next`: in order of completion.
pub const PB_UNORDERED: u32 = 0x20;

const KNOWN_FLAGS: u32 = PB_REQUIRE_SHAREDMEM
    | PB_PREFER_THREADS
    | PB_PREFER_PROCESSES
    | PB_COLLECT_ERRORS
    | PB_NON_IDEMPOTENT
    | PB_UNORDERED;

/// Hears of a map's progress: at most twenty times a second, from one thread at a time, on every backend; a call that
/// succeeds ends with done == total. Non-zero asks to cancel.
pub type pb_progress_fn = Option<
    unsafe extern "C-unwind" fn(
        user: *mut c_void,
        done: usize,
        failed: usize,
        total: usize,
        elapsed_seconds: f64,
    ) -> i32,
>;

/// How a map is run. Zero everywhere but in `struct_size` is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pb_map_options {
    /// `sizeof(pb_map_options)`.
    pub struct_size: usize,
    /// Workers, as in `pb_push_backend`; 0: the context's number. Never more than there are items.
    pub n_jobs: i32,
    /// PB_REQUIRE_SHAREDMEM and the others.
    pub flags: u32,
    /// Items that a worker takes at once; 0: adapted to the time that they take.
    pub batch_size: usize,
    /// Seconds that one task may take, from its own start; 0: any. Where tasks share this process's memory a late task is
    /// asked to stop (`pb_cancelled`), no further one starts, and the call returns when those that run have ended. Where they
    /// run in processes of their own on this machine, one that goes on is killed with its process 100 ms later. On clusters
    /// (`dask`, `ray`, `mpi`) it is only asked; docs/clusters.md says what becomes of one that never ends.
    pub timeout: f64,
    /// Bytes of ctx, for backends without shared memory.
    pub ctx_size: usize,
    /// Registered name of the task, for such backends; NULL: found from the function.
    pub task: *const c_char,
    /// An entry for each item, or NULL: 0, the code that the task returned, or a PB_ERR_ value where it did not finish.
    pub statuses: *mut i32,
    /// Hears of progress, or NULL.
    pub progress: pb_progress_fn,
    /// Passed to `progress`.
    pub progress_user: *mut c_void,
    /// How often an item whose worker process died is started again.
    pub retries: u32,
    /// 0.
    pub reserved: u32,
    /// For items so short that to call a function for each is a good part of their time: a loop over a range of them, which your
    /// compiler can inline them into; or NULL. It must do what the function does. It is called for a chunk where the function would be
    /// called for each of its items: in this process, where nobody watches single ones (`timeout`, `statuses`, `progress`,
    /// PB_COLLECT_ERRORS, submitted maps). Between two items of a chunk nothing is looked at then: after a failure elsewhere, or when the
    /// map is cancelled, those begun are run to their end, some 50 to 200 µs of them unless `batch_size` says otherwise; and what an item
    /// leaves behind, an open scope or a text, reaches the next. Since 0.1.0.
    pub range: pb_range_fn,
}

// SAFETY: integers, pointers and an optional function, `struct_size` first; all zeroes is a value.
unsafe impl abi::Sized0 for pb_map_options {}

/// Runs `fn(ctx, i, inputs + i * input_size, outputs + i * output_size)` for every i below `n_items`, on the backend and
/// with the workers that the calling thread's context says, and returns when all is over: no task touches a buffer after
/// that. Items may run in any order, at the same time or one after the other, so they must not wait for each other; the
/// caller's thread takes part where the backend shares memory.
///
/// @param fn  the task
/// @param ctx  passed to every item; shared by all of them
/// @param n_items  how many; 0 is PB_OK
/// @param inputs, input_size  an array of n_items elements of input_size bytes, or NULL
/// @param outputs, output_size  likewise; each item writes its own element. In worker processes it begins with arbitrary
///   content
/// @param options  NULL for the defaults
///
/// Errors: PB_ERR_TASK_FAILED for the first item in time that returned non-zero (no further item starts then; see
/// `pb_last_error_info`), PB_ERR_TIMEOUT, PB_ERR_CANCELLED, PB_ERR_INVALID_ARGUMENT, PB_ERR_UNSUPPORTED for maps nested
/// without end, and what the backend says.
///
/// # Safety
/// The arrays are as large as said; the function may be called from several threads at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_parallel_map(
    r#fn: pb_task_fn,
    ctx: *mut c_void,
    n_items: usize,
    inputs: *const c_void,
    input_size: usize,
    outputs: *mut c_void,
    output_size: usize,
    options: *const pb_map_options,
) -> pb_status {
    guard(|| {
        let (needs, request) = if options.is_null() {
            (Elements::NONE, Request { n_items, ..Request::default() })
        } else {
            // SAFETY: the caller promised options with their size set.
            unsafe { read_request(n_items, options, false) }?
        };
        let elements = Elements { call: r#fn, ctx, inputs, input_size, outputs, output_size, ..needs };
        let mut call = call::begin(&request)?;
        // In a loop there is nothing to check twice, and no task to make.
        if let Some(result) = call.repeat(|last: &CTask| last.is_of(&elements)) {
            return result;
        }
        // SAFETY: the caller promised what the header asks for, until this call returns.
        call.run(unsafe { CTask::new(n_items, elements) }?)
    })
}

/// Starts the same map without waiting, for event loops, interrupts and generators. It runs on the library's threads, in
/// the context of this call. The buffers, and ctx, must outlive the job.
///
/// @param job  receives the job, to be freed by `pb_job_free`
///
/// # Safety
/// As `pb_parallel_map`, until the job is over; `job` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_submit_map(
    r#fn: pb_task_fn,
    ctx: *mut c_void,
    n_items: usize,
    inputs: *const c_void,
    input_size: usize,
    outputs: *mut c_void,
    output_size: usize,
    options: *const pb_map_options,
    job: *mut *mut pb_job,
) -> pb_status {
    guard(|| {
        writable(job, "job")?;
        // SAFETY: the caller promised options with their size set, or NULL.
        let (needs, request) = unsafe { read_request(n_items, options, true) }?;
        let elements = Elements { call: r#fn, ctx, inputs, input_size, outputs, output_size, ..needs };
        // SAFETY: the caller promised what the header asks for, until the job is over.
        let task = unsafe { CTask::new(n_items, elements) }?;
        let submitted = call::submit(task, &request)?;
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *job = Arc::into_raw(submitted).cast_mut() };
        Ok(())
    })
}

/// What a call's options say of its elements, and of how they are run.
///
/// # Safety
/// As [`read_options`]; the task's name outlives the result.
#[inline(never)]
unsafe fn read_request<'a>(
    n_items: usize,
    options: *const pb_map_options,
    submitted: bool,
) -> Result<(Elements<'a>, Request)> {
    let mut own = None;
    // SAFETY: the caller promised options with their size set, or NULL.
    let options = unsafe { read_options(options, &mut own) }?;
    // SAFETY: the caller promised a text, or NULL.
    let name = unsafe { abi::text(options.task, "task") }?;
    let needs = Elements {
        ctx_size: options.ctx_size,
        statuses: options.statuses,
        name,
        range: options.range,
        ..Elements::NONE
    };
    Ok((needs, request(n_items, options, submitted)))
}

/// A request to run a task by these options.
pub(super) fn request(n_items: usize, options: &pb_map_options, submitted: bool) -> Request {
    let flags = options.flags;
    Request {
        n_items,
        n_jobs: options.n_jobs,
        wishes: Wishes {
            shared_memory: flags & PB_REQUIRE_SHAREDMEM != 0,
            threads: flags & PB_PREFER_THREADS != 0,
            processes: flags & PB_PREFER_PROCESSES != 0,
            ..Wishes::default()
        },
        rules: Rules {
            collect_errors: flags & PB_COLLECT_ERRORS != 0,
            batch_size: options.batch_size,
            timeout: options.timeout,
            record: !options.statuses.is_null(),
            retries: options.retries,
            once_only: flags & PB_NON_IDEMPOTENT != 0,
            stream: match (submitted, flags & PB_UNORDERED != 0) {
                (false, _) => Stream::None,
                (true, false) => Stream::Ordered,
                (true, true) => Stream::Unordered,
            },
        },
        progress: progress(options).map(Arc::new),
    }
}

/// The options of a call, checked, in a copy of our `own`; NULL is the defaults.
///
/// # Safety
/// `options` is NULL or points to options with their `struct_size` set.
pub(super) unsafe fn read_options(
    options: *const pb_map_options,
    own: &mut Option<pb_map_options>,
) -> Result<&pb_map_options> {
    if options.is_null() {
        return Ok(&DEFAULTS);
    }
    const SMALLEST: usize = std::mem::offset_of!(pb_map_options, range);
    // SAFETY: the caller promised options with their size set.
    let read = unsafe { abi::read(options, SMALLEST, Tail::MustBeZero, "pb_map_options") }?;
    check(&read)?;
    Ok(own.insert(read))
}

const DEFAULTS: pb_map_options = pb_map_options {
    struct_size: size_of::<pb_map_options>(),
    n_jobs: 0,
    flags: 0,
    batch_size: 0,
    timeout: 0.0,
    ctx_size: 0,
    task: std::ptr::null(),
    statuses: std::ptr::null_mut(),
    progress: None,
    progress_user: std::ptr::null_mut(),
    retries: 0,
    reserved: 0,
    range: None,
};

/// Refuses a loop over items in a call that has no use for it.
pub(super) fn no_range(options: &pb_map_options) -> Result<()> {
    match options.range {
        None => Ok(()),
        Some(_) => Err(Error::invalid(
            "range is for maps over arrays (pb_parallel_map, pb_submit_map): leave it NULL here",
        )),
    }
}

fn check(options: &pb_map_options) -> Result<()> {
    let flags = options.flags;
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Error::invalid(format!(
            "flags 0x{flags:x} has bits that are not defined: 0x{:x}",
            flags & !KNOWN_FLAGS
        )));
    }
    if flags & PB_PREFER_THREADS != 0 && flags & PB_PREFER_PROCESSES != 0 {
        return Err(Error::invalid("PB_PREFER_THREADS and PB_PREFER_PROCESSES exclude each other"));
    }
    if flags & PB_PREFER_PROCESSES != 0 && flags & PB_REQUIRE_SHAREDMEM != 0 {
        return Err(Error::invalid("PB_PREFER_PROCESSES and PB_REQUIRE_SHAREDMEM exclude each other"));
    }
    if options.timeout.is_nan() || options.timeout < 0.0 {
        return Err(Error::invalid(format!("timeout is {}: it is seconds, or 0 for none", options.timeout)));
    }
    if options.reserved != 0 {
        return Err(Error::invalid("the field reserved must be 0"));
    }
    Ok(())
}

/// A callback's user pointer.
#[derive(Clone, Copy)]
pub(super) struct User(pub *mut c_void);

// SAFETY: the header says of each callback on which threads it is called; the pointer is only passed back to it.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

fn progress(options: &pb_map_options) -> Option<Progress> {
    let call = options.progress?;
    let user = User(options.progress_user);
    Some(Progress::new(Box::new(move |done, failed, total, elapsed| {
        let User(user) = { user };
        // SAFETY: the caller promised a function of this type; calls do not overlap. An exception asks to stop, too.
        std::panic::catch_unwind(|| unsafe { call(user, done, failed, total, elapsed) })
            .map_or(true, |asked| asked != 0)
    })))
}
