//! Section 6 of the header: backends.

use super::abi::{self, Tail, writable};
use super::guard::{guard, guard_status, guard_value};
use super::job::{job, shared};
use crate::backends::foreign::{Foreign, PB_BACKEND_ABI_VERSION, pb_backend_vtable};
use crate::context;
use crate::job::{Chunk, Job as pb_job};
use crate::registry;
use crate::status::{Error, Result, Status, pb_status};
use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::path::Path;
use std::sync::Arc;

/// `pb_register_backend`: also make it the process default.
pub const PB_BACKEND_MAKE_DEFAULT: u32 = 0x1;

/// Items `begin` to `end - 1`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pb_chunk {
    /// First index.
    pub begin: usize,
    /// One past the last.
    pub end: usize,
}

// SAFETY: integers, pointers and optional functions, `struct_size` first; all zeroes is a value.
unsafe impl abi::Sized0 for pb_backend_vtable {}

/// The size of a table as the first version had it.
const FIRST_TABLE: usize = offset_of!(pb_backend_vtable, max_n_jobs);

/// Reads a table, checking its version before its size: a table of another version is not looked into.
///
/// # Safety
/// `vtable` is NULL or points to a table with its header set.
unsafe fn read_vtable(vtable: *const pb_backend_vtable) -> Result<pb_backend_vtable> {
    let header = offset_of!(pb_backend_vtable, capabilities);
    // SAFETY: the caller promised a table with its header set.
    let table = unsafe { abi::read(vtable, header, Tail::Ignore, "pb_backend_vtable") }?;
    let theirs = table.abi_version;
    if theirs != PB_BACKEND_ABI_VERSION {
        let advice = if theirs > PB_BACKEND_ABI_VERSION {
            "update parallel_backend"
        } else {
            "compile the backend anew"
        };
        return Err(Error::new(
            Status::ERR_ABI,
            format!("the table has abi_version {theirs}, this library {PB_BACKEND_ABI_VERSION}: {advice}"),
        ));
    }
    // SAFETY: as above.
    unsafe { abi::read(vtable, FIRST_TABLE, Tail::Ignore, "pb_backend_vtable") }
}

/// Adds a backend. From now on `pb_push_backend(name, …)` finds it, in all threads.
///
/// @param name  1 to 64 letters, digits, '_', '-' or '.'
/// @param vtable  copied; see `pb_backend_vtable`
/// @param state  passed to every slot; must live until `destroy`
/// @param flags  0 or PB_BACKEND_MAKE_DEFAULT
///
/// Errors: PB_ERR_EXISTS for a name in use, PB_ERR_ABI, PB_ERR_INVALID_ARGUMENT (a required slot is NULL), PB_ERR_UNSUPPORTED
/// (unknown capabilities). After an error nothing was kept and `destroy` is not called.
///
/// # Safety
/// The slots have the header's types and keep its rules.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_register_backend(
    name: *const c_char,
    vtable: *const pb_backend_vtable,
    state: *mut c_void,
    flags: u32,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a text.
        let name = unsafe { abi::required_text(name, "name") }?;
        // SAFETY: the caller promised a table with its header set.
        let table = unsafe { read_vtable(vtable) }?;
        if flags & !PB_BACKEND_MAKE_DEFAULT != 0 {
            return Err(Error::invalid(format!("flags 0x{flags:x} has bits that are not defined")));
        }
        // SAFETY: the caller promised slots of the header's types.
        registry::register(name, || Ok(Arc::new(unsafe { Foreign::new(name, table, state) }?)))?;
        if flags & PB_BACKEND_MAKE_DEFAULT != 0 {
            context::make_default(name);
        }
        Ok(())
    })
}

/// Hides a backend's name at once. Scopes and maps in being keep the backend alive; its `destroy` runs after the last, on
/// the thread that ends it. A process default of that name is dropped. Errors: PB_ERR_UNKNOWN_BACKEND, or
/// PB_ERR_BACKEND_UNAVAILABLE for a name of a later version; PB_ERR_INVALID_ARGUMENT for a built-in one.
///
/// # Safety
/// `name` is nul-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_unregister_backend(name: *const c_char) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a text.
        let name = unsafe { abi::required_text(name, "name") }?;
        registry::unregister(name)?;
        context::forget_backend(name);
        Ok(())
    })
}

/// Loads a shared library that exports `pb_status pb_plugin_init(void)`, and calls that, which registers the plugin's
/// backends. The library stays loaded. A backend that is asked for by name is also looked for as `libpb_backend_NAME.so` in
/// the directories of the environment variable PB_PLUGIN_PATH, and in `parallel_backend/` beside this library.
///
/// Errors: PB_ERR_IO when it cannot be loaded, PB_ERR_ABI without the entry point, else what the entry point returned.
///
/// # Safety
/// `path` is nul-terminated; the library is one that may be loaded into this process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_load_plugin(path: *const c_char) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a text.
        let path = unsafe { abi::required_text(path, "path") }?;
        registry::load_plugin(Path::new(path))
    })
}

/// The names of the usable backends, comma-separated, in alphabetical order.
///
/// @param buffer, size  receives the text with its nul; (NULL, 0) only asks for the size
/// @param needed  receives the bytes that the text takes with its nul; NULL is fine
///
/// Errors: PB_ERR_INVALID_ARGUMENT when the buffer is too small; nothing is written then.
///
/// # Safety
/// `buffer` is writable over `size` bytes; `needed` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_backend_names(buffer: *mut c_char, size: usize, needed: *mut usize) -> pb_status {
    guard(|| {
        let names = registry::names().join(",");
        let bytes = names.len() + 1;
        if !(buffer.is_null() && size == 0) {
            writable(buffer, "buffer")?;
            if size < bytes {
                return Err(Error::invalid(format!("the buffer has {size} bytes; {bytes} are needed")));
            }
            // SAFETY: the caller promised `size` writable bytes, which are enough.
            unsafe {
                std::ptr::copy_nonoverlapping(names.as_ptr().cast(), buffer, names.len());
                *buffer.add(names.len()) = 0;
            }
        }
        if !needed.is_null() {
            // SAFETY: not NULL, and the caller promised that it is writable.
            unsafe { *needed = bytes };
        }
        Ok(())
    })
}

/// For a backend's slots and `pb_plugin_init`: makes `message` (copied) the text of the error that they are about to
/// return, as in `return pb_backend_fail(PB_ERR_IO, "no such host");`. Returns `status`.
///
/// # Safety
/// `message` is NULL or nul-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_backend_fail(status: pb_status, message: *const c_char) -> pb_status {
    guard_value(
        |error| error.status.0,
        || {
            // SAFETY: the caller promised a text, or NULL.
            let message = unsafe { abi::text(message, "message") }?.unwrap_or_default();
            crate::status::set_last(Error::new(Status(status), message));
            Ok(status)
        },
    )
}

/// For `run`: the most threads that may run chunks of this job at the same time; never more than there are items.
///
/// # Safety
/// `job` was passed to a `run` that has not returned, or was submitted and not freed. The same holds for the functions below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_n_jobs(job: *const pb_job) -> i32 {
    // SAFETY: the caller promised a job.
    guard_value(|_| 0, || Ok(i32::try_from(unsafe { self::job(job) }?.n_jobs()).unwrap_or(i32::MAX)))
}

/// For `run`: how many items the job has.
///
/// # Safety
/// As `pb_job_n_jobs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_n_items(job: *const pb_job) -> usize {
    // SAFETY: the caller promised a job.
    guard_value(|_| 0, || Ok(unsafe { self::job(job) }?.n_items()))
}

/// For `run`: 1 once no further item is to start, because the job was cancelled or has failed.
///
/// # Safety
/// As `pb_job_n_jobs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_cancelled(job: *const pb_job) -> i32 {
    // SAFETY: the caller promised a job.
    guard_value(|_| 0, || Ok(i32::from(unsafe { self::job(job) }?.is_stopped())))
}

/// For `run`: claims the next chunk, on any thread. PB_DONE when none is left, or the job has stopped. Every claimed chunk
/// must be run. Errors: PB_ERR_INVALID_ARGUMENT outside `run`.
///
/// # Safety
/// As `pb_job_n_jobs`; `chunk` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_claim(job: *mut pb_job, chunk: *mut pb_chunk) -> pb_status {
    guard_status(|| {
        // SAFETY: the caller promised a job.
        let job = unsafe { self::job(job) }?;
        writable(chunk, "chunk")?;
        let Some(Chunk { begin, end }) = job.claim_outside()? else { return Ok(Status::DONE) };
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *chunk = pb_chunk { begin, end } };
        Ok(Status::OK)
    })
}

/// For `run`: runs a claimed chunk on this thread, in the context and with the inner limits of the job's tasks. PB_OK even
/// if items fail: the job knows. Errors: PB_ERR_INVALID_ARGUMENT for a chunk that was not claimed or was run, and when
/// `pb_job_n_jobs` threads run chunks already (the chunk stays claimed).
///
/// # Safety
/// As `pb_job_n_jobs`; `chunk` is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_run(job: *mut pb_job, chunk: *const pb_chunk) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a job.
        let job = unsafe { shared(job) }?;
        // SAFETY: the caller promised a chunk, or NULL.
        let pb_chunk { begin, end } = *unsafe { chunk.as_ref() }.ok_or_else(|| abi::null("chunk"))?;
        job.run_outside(Chunk { begin, end })
    })
}

/// For `run`: the backend's own failure. No further item starts, and the call returns `status` with the text.
///
/// # Safety
/// As `pb_job_n_jobs`; `message` is NULL or nul-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_job_fail(
    job: *mut pb_job,
    status: pb_status,
    message: *const c_char,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a job.
        let job = unsafe { self::job(job) }?;
        // SAFETY: the caller promised a text, or NULL.
        let message = unsafe { abi::text(message, "message") }?;
        if !Status(status).is_known_error() {
            return Err(Error::invalid(format!(
                "status {status} is no error of this interface: use a PB_ERR_ value"
            )));
        }
        job.fail(Error::new(Status(status), message.unwrap_or("the backend failed and said no more")));
        Ok(())
    })
}
