//! Section 11 of the header: work in other processes.

use super::abi::{self, writable};
use super::backend::pb_chunk;
use super::bytes::{pb_bytes, pb_bytes_fn, pb_results};
use super::guard::{guard, guard_value};
use super::job::{job, shared};
use super::map::pb_task_fn;
use crate::job::{Chunk, Job as pb_job, Loss};
use crate::message::Pieces;
#[cfg(not(target_os = "linux"))]
use crate::status::Status;
use crate::status::{Error, Result, pb_status};
use crate::tasks;
use crate::worker::{self, Alone, Worker};
use std::ffi::{CStr, c_char, c_void};

/// Gives a task a name by which worker processes find it, in this process: call it in the program before `pb_worker_main`,
/// or in the initialiser of the library that has the task, so that it is called in workers too. Without a name a task is
/// found by itself where it is a function of a shared library (static ones too, as long as both processes load the same build
/// of the library), or of a program that calls `pb_worker_main`.
///
/// Errors: PB_ERR_EXISTS when another task has the name; PB_ERR_INVALID_ARGUMENT.
///
/// # Safety
/// `name` is nul-terminated; `fn` stays where it is for the life of the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_register_task(name: *const c_char, r#fn: pb_task_fn) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a text.
        let name = unsafe { abi::required_text(name, "name") }?;
        let call = r#fn.ok_or_else(|| abi::null("fn"))?;
        tasks::register(name, call as usize)
    })
}

/// The first line of `main()` of a program whose own functions are tasks for worker processes: where the program was started as
/// a worker it becomes one here and ends here; otherwise the call returns at once, and from now on workers of backend `loky`
/// are this program started again. What comes before it in `main()` (`pb_register_task`, say) is done in workers too.
///
/// # Safety
/// `argv` has `argc` nul-terminated texts, as main's has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_worker_main(argc: i32, argv: *mut *mut c_char) {
    guard_value(
        |_| (),
        || {
            let count = usize::try_from(argc).unwrap_or(0);
            // SAFETY: the caller promised so many texts; NULL ends them, if it comes earlier.
            let texts =
                (0..count).map(|i| unsafe { if argv.is_null() { argv.cast() } else { *argv.add(i) } });
            let texts = texts.take_while(|text: &*mut c_char| !text.is_null());
            // SAFETY: as above.
            let arguments: Vec<_> =
                texts.map(|text| unsafe { CStr::from_ptr(text) }.to_string_lossy()).collect();
            worker_main(&arguments.iter().map(|text| &**text).collect::<Vec<_>>());
            Ok(())
        },
    );
}

fn worker_main(arguments: &[&str]) {
    // In a worker too: maps inside its tasks may have workers of their own.
    tasks::note_rerun();
    #[cfg(target_os = "linux")]
    worker::serve::live_if_asked(arguments);
    #[cfg(not(target_os = "linux"))]
    let _ = arguments;
}

/// In a worker program of its own, in any language, that a scope names by `"worker=PROGRAM ARGUMENTS"`: serves the process that
/// started it until that one wants no more, and returns then. Every item of a `pb_map_bytes` is given to `handler`, whatever
/// task the map names; on this thread, one at a time. The program has inherited what its caller had open without close-on-exec,
/// as any that is started has; `pb_worker_main` closes that, but here it may be what the program itself has opened by now.
///
/// @param fd  3: the descriptor that the program was started with
/// @param handler  runs an item
/// @param user  its ctx
///
/// Errors: PB_ERR_INVALID_ARGUMENT in a program that was not started as a worker, PB_ERR_IO when its caller is gone,
/// PB_ERR_UNSUPPORTED where there are no worker processes.
///
/// # Safety
/// Nothing else in the process uses the descriptor; `handler` may be called with `user`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_worker_serve(fd: i32, handler: pb_bytes_fn, user: *mut c_void) -> pb_status {
    guard(|| {
        let call = handler.ok_or_else(|| abi::null("handler"))?;
        let handler = worker::Handler { call, user: user as usize };
        #[cfg(target_os = "linux")]
        // SAFETY: as the caller promised.
        return unsafe { worker::serve::serve(fd, handler) };
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (fd, handler);
            Err(Error::new(Status::ERR_UNSUPPORTED, "backend 'loky' is for Linux"))
        }
    })
}

/// For `run` of a backend without shared memory: a claimed chunk as a message, for `pb_worker_run` in any process that has
/// the same version of the library. It has all that is needed: the task's name or place, ctx, the context, the inputs.
///
/// @param message  receives the bytes; they stay until the chunk is completed or returned
///
/// Errors: PB_ERR_TASK_NOT_PORTABLE when the task, or its ctx, cannot be sent: the text says how it could; the chunk stays
/// claimed. PB_ERR_INVALID_ARGUMENT for a chunk that was not claimed.
///
/// # Safety
/// As `pb_job_n_jobs`; `chunk` is readable, `message` writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_encode(
    job: *mut pb_job,
    chunk: *const pb_chunk,
    message: *mut pb_bytes,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a job and a chunk, or NULL.
        let (job, chunk) = unsafe { (self::job(job)?, read_chunk(chunk)?) };
        writable(message, "message")?;
        let (data, size) = job.encode_outside(chunk, None)?;
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *message = pb_bytes { data: data.cast(), size } };
        Ok(())
    })
}

/// For `run`: `pb_job_encode` for a backend that numbers its workers itself.
///
/// @param worker  whose the chunk will be, from 0 to `pb_job_n_jobs` - 1: what its tasks see as `pb_worker_index`. The backend
///   sees to it that chunks of one number run one after the other
///
/// Errors: as `pb_job_encode`, and PB_ERR_INVALID_ARGUMENT for such a number. A chunk that is encoded already keeps its
/// message.
///
/// # Safety
/// As `pb_job_encode`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_encode_for(
    job: *mut pb_job,
    chunk: *const pb_chunk,
    worker: i32,
    message: *mut pb_bytes,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a job and a chunk, or NULL.
        let (job, chunk) = unsafe { (self::job(job)?, read_chunk(chunk)?) };
        writable(message, "message")?;
        let number = usize::try_from(worker).ok().filter(|worker| *worker < job.n_jobs());
        let number = number.ok_or_else(|| {
            Error::invalid(format!("worker {worker} is none of the job's {}", job.n_jobs()))
        })?;
        let (data, size) = job.encode_outside(chunk, Some(number))?;
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *message = pb_bytes { data: data.cast(), size } };
        Ok(())
    })
}

/// For `run`: an encoded chunk has come back. Writes outputs and statuses, and notes failures: PB_OK even if items failed, or
/// the worker could not run the chunk at all: the job knows. Items that the worker did not run, because it was asked to stop
/// early, can be claimed again.
///
/// Errors: PB_ERR_INVALID_ARGUMENT for what is no reply to this chunk, PB_ERR_ABI for one of another version; the chunk is
/// still on its way then: `pb_job_return` it.
///
/// # Safety
/// As `pb_job_n_jobs`; `chunk` is readable, `reply` over `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_complete(
    job: *mut pb_job,
    chunk: *const pb_chunk,
    reply: *const c_void,
    size: usize,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a job and a chunk, or NULL.
        let (job, chunk) = unsafe { (shared(job)?, read_chunk(chunk)?) };
        // SAFETY: the caller promised readable bytes, or NULL.
        let reply = unsafe { read_bytes(reply, size, "reply") }?;
        job.complete_outside(chunk, reply)
    })
}

/// For `run`: an encoded chunk was lost with its worker. Its items can be claimed again, one by one, as often as `retries` in
/// the map's options allows; otherwise they fail with PB_ERR_WORKER_LOST. With PB_NON_IDEMPOTENT they always do, since they
/// may have run.
///
/// @param why  what became of the worker, as in "was killed by signal 9": it follows "item 7 was lost: its worker
///   process"; NULL is fine
///
/// # Safety
/// As `pb_job_n_jobs`; `chunk` is readable, `why` NULL or nul-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_return(
    job: *mut pb_job,
    chunk: *const pb_chunk,
    why: *const c_char,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a job and a chunk, or NULL.
        let (job, chunk) = unsafe { (shared(job)?, read_chunk(chunk)?) };
        // SAFETY: the caller promised a text, or NULL.
        let how = unsafe { abi::text(why, "why") }?.unwrap_or("was lost").to_owned();
        job.return_outside(chunk, &Loss { how, exit_code: -1, signal: 0, attempts: 1 })
    })
}

/// In the other process: runs an encoded chunk on this thread, in the context and with the inner limits of its map.
/// Several threads may do so at once.
///
/// @param reply  receives results whose item 0 is the message for `pb_job_complete`
///
/// PB_OK whatever becomes of the chunk: the reply says what was wrong with it. Errors: PB_ERR_INVALID_ARGUMENT for NULL.
///
/// # Safety
/// `message` is readable over `size` bytes and comes from `pb_job_encode` of a caller that is trusted as far as its tasks
/// are; `reply` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_worker_run(
    message: *const c_void,
    size: usize,
    reply: *mut *mut pb_results,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised readable bytes, or NULL.
        let message = unsafe { read_bytes(message, size, "message") }?;
        writable(reply, "reply")?;
        let keep = |reply: Pieces| reply.into_bytes().into_owned();
        let answer = Worker::default().run(message, Alone::new(), keep);
        let results = Box::new(pb_results::one(answer));
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *reply = Box::into_raw(results) };
        Ok(())
    })
}

/// In the other process: asks every chunk that `pb_worker_run` is running there now to stop: no further item of it starts, and
/// `pb_cancelled` tells the one that runs. It may be called from any thread, and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn pb_worker_cancel() {
    worker::cancel_all();
}

/// For `run`: the random number of the call that the job carries out, by which its chunks can be cancelled
/// (`pb_worker_cancel_call`) and its ctx be brought (`pb_job_detach_ctx`) in other processes; never 0. 0 for NULL.
///
/// # Safety
/// As `pb_job_n_jobs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_call(job: *mut pb_job) -> u64 {
    // SAFETY: the caller promised a job, or NULL.
    guard_value(|_| 0, || Ok(unsafe { self::job(job) }?.call()))
}

/// For `run`, where ctx is too large for every message: from now on `pb_job_encode` leaves it out, and the backend brings it
/// to each worker once, who gives it to `pb_worker_put_ctx`. Worth it from some 10 KiB.
///
/// @param ctx  receives the bytes, which stay until `run` returns; data is NULL where the map's ctx is, and then there is
///   nothing to bring
///
/// Errors: PB_ERR_TASK_NOT_PORTABLE where ctx has no size.
///
/// # Safety
/// As `pb_job_n_jobs`; `ctx` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_detach_ctx(job: *mut pb_job, ctx: *mut pb_bytes) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a job, or NULL.
        let job = unsafe { self::job(job) }?;
        writable(ctx, "ctx")?;
        let bytes = job.detach_ctx()?;
        let (data, size) = bytes.map_or((std::ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()));
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *ctx = pb_bytes { data: data.cast(), size } };
        Ok(())
    })
}

/// In the other process: the ctx of a call whose chunks come without it. Tasks get this very memory, and should not write to
/// it: other chunks of the call see it too. Given again, it replaces what was there.
///
/// @param call  `pb_job_call` of the job
/// @param data  `size` bytes, at an address that is a multiple of what the task needs (64 is always enough)
///
/// # Safety
/// `data` is readable over `size` bytes until `pb_worker_drop_ctx`, or for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_worker_put_ctx(call: u64, data: *const c_void, size: usize) -> pb_status {
    guard(|| {
        if data.is_null() {
            return Err(abi::null("data"));
        }
        worker::put_ctx(call, data as usize, size);
        Ok(())
    })
}

/// In the other process: forgets the ctx of a call, of which no chunk runs here any more. A call that has none is fine.
#[unsafe(no_mangle)]
pub extern "C" fn pb_worker_drop_ctx(call: u64) {
    worker::drop_ctx(call);
}

/// In the other process: asks the chunks of one call to stop, those that run here now and those that come later: no further
/// item of them starts, and `pb_cancelled` tells the one that runs. It may be called from any thread. The newest 1,024 calls
/// are remembered.
#[unsafe(no_mangle)]
pub extern "C" fn pb_worker_cancel_call(call: u64) {
    worker::cancel_call(call);
}

/// In the other process, on a machine that is not the caller's: how many of its CPUs the tasks of each chunk own, for maps
/// inside them and for BLAS and OpenMP. Usually the machine's CPUs divided by how many chunks run there at once. An inner limit
/// that the caller has set stays. 0, and so it is at first: the share that they have where the map was called.
///
/// Errors: PB_ERR_INVALID_ARGUMENT for a number below 0.
#[unsafe(no_mangle)]
pub extern "C" fn pb_worker_set_cpus(cpus: i32) -> pb_status {
    guard(|| {
        if cpus < 0 {
            return Err(Error::invalid(format!(
                "cpus is {cpus}: it is 1 or more, or 0 for the caller's share"
            )));
        }
        worker::set_cpus(cpus);
        Ok(())
    })
}

/// In the other process: loads a library, for good, that has tasks. Chunks whose task lies in the same build of it find it
/// there, whatever its path is in the process that calls.
///
/// Errors: PB_ERR_TASK_NOT_PORTABLE with the loader's text; PB_ERR_INVALID_ARGUMENT.
///
/// # Safety
/// `path` is nul-terminated; the file's initialisers may run here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_worker_load(path: *const c_char) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a text.
        let path = unsafe { abi::required_text(path, "path") }?;
        tasks::bring(path)
    })
}

/// # Safety
/// `chunk` is NULL or readable.
unsafe fn read_chunk(chunk: *const pb_chunk) -> Result<Chunk> {
    // SAFETY: as the caller promised.
    let pb_chunk { begin, end } = *unsafe { chunk.as_ref() }.ok_or_else(|| abi::null("chunk"))?;
    Ok(Chunk { begin, end })
}

/// # Safety
/// `data` is NULL or readable over `size` bytes, for as long as the result is used.
unsafe fn read_bytes<'a>(data: *const c_void, size: usize, what: &str) -> Result<&'a [u8]> {
    if data.is_null() || size > isize::MAX as usize {
        return Err(abi::null(what));
    }
    // SAFETY: not NULL; the rest as the caller promised.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), size) })
}
