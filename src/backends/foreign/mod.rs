//! Backends written in C, C++ or anything else that can fill a table of function pointers.
//!
//! The table is [`Backend`] and [`Session`] with C types. Its known prefix is copied at registration, so it need not
//! outlive the call, and what a newer header appended is never touched.

mod vtable;

pub use vtable::{
    PB_BACKEND_ABI_VERSION, PB_BACKEND_INNER_LIMITS, PB_BACKEND_SHARES_MEMORY, pb_backend_vtable,
};

use super::{Backend, OpenRequest, Session};
use crate::job::Job;
use crate::status::{self, Error, Result, Status, pb_status};
use std::ffi::{CStr, CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// A registered table with its state.
struct Table {
    name: String,
    vtable: pb_backend_vtable,
    state: *mut c_void,
}

// SAFETY: the header asks of every slot that it may be called from any thread, and of `run` that it may run on several
// at once; `state` is only ever passed to the slots.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(destroy) = self.vtable.destroy {
            // SAFETY: the registration promised that `destroy` takes this state; this is its only call. An exception has
            // nowhere to go from here.
            let _ = catch_unwind(AssertUnwindSafe(|| unsafe { destroy(self.state) }));
        }
    }
}

impl Table {
    /// Calls a slot and turns an unwinding into an error.
    fn guard<R>(&self, slot: &str, call: impl FnOnce() -> R) -> Result<R> {
        catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
            Error::new(
                Status::ERR_INTERNAL,
                format!(
                    "backend '{}': its {slot} threw an exception; a slot must return a status instead",
                    self.name
                ),
            )
        })
    }

    /// Calls a slot that returns a status.
    fn call(&self, slot: &str, call: impl FnOnce() -> i32) -> Result<()> {
        let errors = status::last_count();
        let returned = Status(self.guard(slot, call)?);
        check(&format!("backend '{}': its {slot}", self.name), returned, errors)
    }
}

/// Turns what a foreign function returned into a result, with the text that it left, if it left one.
fn check(who: &str, returned: Status, errors_before: u64) -> Result<()> {
    if returned == Status::OK {
        return Ok(());
    }
    let status = if returned.is_known_error() { returned } else { Status::ERR_INTERNAL };
    let left = (status::last_count() != errors_before).then(status::last).flatten();
    Err(match left.filter(|error| !error.message.is_empty()) {
        Some(error) => error.with_status(status).in_words(|said| format!("{who} failed: {said}")),
        None => Error::new(
            status,
            format!(
                "{who} returned {} ({}) without a text (pb_backend_fail gives one)",
                returned.name(),
                returned.0
            ),
        ),
    })
}

/// A backend behind a table.
pub struct Foreign(Arc<Table>);

impl Foreign {
    /// Wraps a table whose header has been checked.
    ///
    /// # Safety
    /// The slots of `vtable` must be functions of the types that the header gives them, callable with `state` from any
    /// thread until `destroy` has been called.
    pub unsafe fn new(name: &str, vtable: pb_backend_vtable, state: *mut c_void) -> Result<Self> {
        if vtable.run.is_none() {
            return Err(Error::invalid(format!("backend '{name}': the slot run is NULL; it is required")));
        }
        let known = PB_BACKEND_SHARES_MEMORY | PB_BACKEND_INNER_LIMITS;
        if vtable.capabilities & !known != 0 {
            return Err(Error::new(
                Status::ERR_UNSUPPORTED,
                format!(
                    "backend '{name}': capabilities 0x{:x} has bits that this version does not know",
                    vtable.capabilities
                ),
            ));
        }
        Ok(Foreign(Arc::new(Table { name: name.to_owned(), vtable, state })))
    }
}

impl Backend for Foreign {
    fn shares_memory(&self) -> bool {
        self.0.vtable.capabilities & PB_BACKEND_SHARES_MEMORY != 0
    }

    fn applies_inner_limits(&self) -> bool {
        self.0.vtable.capabilities & PB_BACKEND_INNER_LIMITS != 0
    }

    fn shutdown(&self) {
        if let Some(slot) = self.0.vtable.shutdown {
            // SAFETY: the slot's type is the header's; the table lives.
            let _ = self.0.guard("shutdown", || unsafe { slot(self.0.state) });
        }
    }

    fn open(&self, request: &OpenRequest) -> Result<Box<dyn Session>> {
        let table = self.0.clone();
        let mut session = std::ptr::null_mut();
        if let Some(open) = table.vtable.open {
            let params = request.params.map(CString::new).transpose();
            let params = params.map_err(|_| Error::invalid("params contain a nul character"))?;
            let params = params.as_ref().map_or(std::ptr::null(), |params| params.as_ptr());
            // SAFETY: the slot's type is the header's; `params` is NULL or nul-terminated and `session` writable, both for
            // the call.
            table.call("open", || unsafe {
                open(table.state, request.n_jobs, request.inner_max_num_threads, params, &mut session)
            })?;
        }
        Ok(Box::new(ForeignSession { table, session }))
    }
}

struct ForeignSession {
    table: Arc<Table>,
    session: *mut c_void,
}

// SAFETY: as for `Table`: the session pointer is only ever passed to the slots, which take it on any thread.
unsafe impl Send for ForeignSession {}
// SAFETY: as above.
unsafe impl Sync for ForeignSession {}

impl Session for ForeignSession {
    fn effective_n_jobs(&self, n_jobs: i32) -> Result<i32> {
        let Some(slot) = self.table.vtable.effective_n_jobs else { return Ok(n_jobs) };
        // SAFETY: the slot's type is the header's; the session is open until `self` is dropped.
        self.table.guard("effective_n_jobs", || unsafe { slot(self.table.state, self.session, n_jobs) })
    }

    fn max_n_jobs(&self) -> Result<Option<i32>> {
        let Some(slot) = self.table.vtable.max_n_jobs else { return Ok(None) };
        // SAFETY: the slot's type is the header's; the session is open until `self` is dropped.
        let all = self.table.guard("max_n_jobs", || unsafe { slot(self.table.state, self.session) })?;
        Ok((all > 0).then_some(all))
    }

    fn run(&self, job: &Arc<Job>) -> Result<()> {
        let Some(slot) = self.table.vtable.run else { return Ok(()) };
        job.open_outside();
        let pointer = Arc::as_ptr(job).cast_mut();
        // SAFETY: the slot's type is the header's; `job` lives, and takes claims, until after `close_outside`.
        let result = self.table.call("run", || unsafe { slot(self.table.state, self.session, pointer) });
        job.close_outside();
        result
    }

    fn nested_backend(&self, level: i32) -> Result<Option<String>> {
        let Some(slot) = self.table.vtable.nested_backend else { return Ok(None) };
        let name = self.table.guard("nested_backend", || {
            // SAFETY: the slot's type is the header's; the session is open until `self` is dropped.
            let name = unsafe { slot(self.table.state, self.session, level) };
            // SAFETY: the slot returns NULL or a nul-terminated text that stays until it is called again.
            (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
        })?;
        Ok(name)
    }
}

impl Drop for ForeignSession {
    fn drop(&mut self) {
        if let Some(close) = self.table.vtable.close {
            // SAFETY: the session was opened by this table and is closed here, once.
            let _ = self.table.guard("close", || unsafe { close(self.table.state, self.session) });
        }
    }
}

/// Loads the shared library and calls its `pb_plugin_init`, which registers its backends. It is never unloaded.
pub fn init_plugin(path: &Path) -> Result<()> {
    // To the system's loader an empty path is the program itself.
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("the path of the plugin is empty"));
    }
    let shown = path.display();
    // SAFETY: loading runs the library's initialisers: that is what the caller asked for.
    let library = unsafe { libloading::Library::new(path) }
        .map_err(|error| Error::new(Status::ERR_IO, format!("cannot load plugin '{shown}': {error}")))?;
    type Init = unsafe extern "C-unwind" fn() -> pb_status;
    // SAFETY: a plugin's entry point has this type by the header.
    let init = unsafe { library.get::<Init>(b"pb_plugin_init\0") }.map(|symbol| *symbol).map_err(|_| {
        Error::new(
            Status::ERR_ABI,
            format!("'{shown}' is no plugin: it does not export pb_status pb_plugin_init(void)"),
        )
    })?;
    // Its backends may be used until the process ends.
    std::mem::forget(library);
    let errors = status::last_count();
    // SAFETY: the entry point's type is the header's, and the library stays loaded.
    let returned = catch_unwind(AssertUnwindSafe(|| unsafe { init() })).map_err(|_| {
        Error::new(Status::ERR_INTERNAL, format!("plugin '{shown}': pb_plugin_init threw an exception"))
    })?;
    check(&format!("plugin '{shown}': pb_plugin_init"), Status(returned), errors)
}
