//! Section 5 of the header: the table of a backend.
#![allow(non_camel_case_types, reason = "types are named as C sees them")]

use crate::job::Job as pb_job;
use crate::status::pb_status;
use std::ffi::{c_char, c_void};

/// The `abi_version` of [`pb_backend_vtable`].
pub const PB_BACKEND_ABI_VERSION: u32 = 1;
/// Capability: tasks run in this process; function, ctx and arrays are used as they are.
pub const PB_BACKEND_SHARES_MEMORY: u32 = 0x1;
/// Capability: the backend applies `inner_max_num_threads` itself.
pub const PB_BACKEND_INNER_LIMITS: u32 = 0x2;

/// A backend as a table of function pointers.
///
/// `pb_register_backend` copies the table; `state` must live until `destroy`. Every slot may be called from any thread,
/// and `run` from several at once. A slot must not throw or longjmp. A slot that fails returns an error status, best
/// by `return pb_backend_fail(status, text)`.
///
/// New slots will only be added at the end: a table with a larger `struct_size` than the library knows is accepted and
/// its tail ignored; one that is too small, or of another `abi_version`, is refused with PB_ERR_ABI and nothing in it is
/// called.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pb_backend_vtable {
    /// `sizeof(pb_backend_vtable)` where the backend was compiled.
    pub struct_size: usize,
    /// PB_BACKEND_ABI_VERSION.
    pub abi_version: u32,
    /// PB_BACKEND_SHARES_MEMORY, PB_BACKEND_INNER_LIMITS.
    pub capabilities: u32,
    /// Optional. Called when a scope pushes the backend, or before the first map that no scope gave a session. `n_jobs`
    /// is positive or negative as joblib counts; `inner_max_num_threads` is 0 where not given; `params` is the text given
    /// to `pb_push_backend`, or NULL. Writes `*session`, which is passed to the other slots.
    pub open: Option<
        unsafe extern "C-unwind" fn(
            state: *mut c_void,
            n_jobs: i32,
            inner_max_num_threads: i32,
            params: *const c_char,
            session: *mut *mut c_void,
        ) -> pb_status,
    >,
    /// Optional. Ends a session, once, after its last map.
    pub close: Option<unsafe extern "C-unwind" fn(state: *mut c_void, session: *mut c_void)>,
    /// Optional. Workers that a map that asks for `n_jobs` (positive) would really get; below 1: there is no active worker,
    /// and maps fail with PB_ERR_BACKEND_UNAVAILABLE. NULL: the number asked for.
    pub effective_n_jobs:
        Option<unsafe extern "C-unwind" fn(state: *mut c_void, session: *mut c_void, n_jobs: i32) -> i32>,
    /// Required. Claims and runs chunks until PB_DONE, on as many threads as `pb_job_n_jobs` says; returns when all are
    /// over.
    pub run: Option<
        unsafe extern "C-unwind" fn(state: *mut c_void, session: *mut c_void, job: *mut pb_job) -> pb_status,
    >,
    /// Optional. The backend for maps inside this one's tasks, at nesting level `level`; NULL, as slot or as result: the
    /// default nesting rule. The text is copied before the slot is called again.
    pub nested_backend: Option<
        unsafe extern "C-unwind" fn(state: *mut c_void, session: *mut c_void, level: i32) -> *const c_char,
    >,
    /// Optional. Called once, after the last session is closed, when the backend is unregistered.
    pub destroy: Option<unsafe extern "C-unwind" fn(state: *mut c_void)>,
    /// Optional. Workers that n_jobs = -1 stands for, where these are not this machine's CPUs; NULL, as slot, or a result
    /// below 1: the CPUs.
    pub max_n_jobs: Option<unsafe extern "C-unwind" fn(state: *mut c_void, session: *mut c_void) -> i32>,
    /// Optional. `pb_shutdown` was called, and the sessions that no scope opened are closed: ends what is idle.
    pub shutdown: Option<unsafe extern "C-unwind" fn(state: *mut c_void)>,
}
