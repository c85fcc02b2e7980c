//! Native thread pools of this process - OpenBLAS, MKL, BLIS, OpenMP runtimes, oneTBB, registered ones - and
//! limits on the threads they use.
//!
//! A pool's count reaches as far as its library makes it ([`PoolInfo::scope`]), so a limit has two halves.
//! The *thread* half is set on every thread that works and put back on the same thread ([`enter_thread`]).
//! The *process* half is asked for once, in a ledger that counts requests ([`enter_process`]). [`push`] opens
//! both for a scope of the calling thread.
//!
//! Libraries are found by the functions they define themselves, whatever their files are called, and looked
//! for again when something has been loaded. A library in which a pool was found stays loaded for the life of
//! the process. One that is loaded while a limit is in force comes under it when the next limit begins.

mod blis;
mod custom;
#[cfg(target_os = "linux")]
mod elf;
#[cfg_attr(not(target_os = "linux"), path = "find_nothing.rs")]
mod find;
mod flexiblas;
mod ledger;
mod load;
mod loaded;
mod mkl;
mod openblas;
mod openmp;
mod pool;
mod scope;
mod tbb;
mod thread;

pub use custom::{CustomPool, register};
pub use ledger::ProcessLimit;
pub use load::load;
pub use scope::{close_above, open_scopes, pop, pop_above, push};
pub use thread::ThreadLimit;

use crate::status::{Error, Result};
use std::sync::MutexGuard;

/// In a mask of APIs: the BLAS libraries. A mask of 0 means all.
pub const BLAS: u32 = 1;
/// In a mask of APIs: the OpenMP runtimes.
pub const OPENMP: u32 = 2;
/// In a mask of APIs: oneTBB.
pub const TBB: u32 = 4;

const API_NAMES: [(u32, &str); 3] = [(BLAS, "blas"), (OPENMP, "openmp"), (TBB, "tbb")];

fn api_name(number: u32) -> &'static str {
    API_NAMES.iter().find(|(api, _)| *api == number).map_or("", |(_, name)| name)
}

fn api_number(name: &str) -> Result<u32> {
    let found = API_NAMES.iter().find(|(_, api)| *api == name).map(|(number, _)| *number);
    found.ok_or_else(|| {
        Error::invalid(format!("unknown user_api \"{name}\": use \"blas\", \"openmp\" or \"tbb\""))
    })
}

/// What a task's native libraries may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Threads of each pool, the calling one included; at least 1.
    pub threads: i32,
    /// True where the user named the number: then it may also raise a count. False for a cap, which never
    /// raises the count in force.
    pub exact: bool,
}

/// Whether no thread pool is known in this process now, so that a map need not enter any limit.
pub fn nothing_to_limit() -> bool {
    loaded::nothing_known() || loaded::current().is_empty()
}

/// Whether no thread pool was known when it was last asked, by any thread. Those that are registered count at once.
pub fn nothing_known_at_last_look() -> bool {
    loaded::nothing_known_at_last_look()
}

/// The process-wide half of a map's limit: entered once, held for the whole map, ended by dropping it on any
/// thread.
pub fn enter_process(limit: Limit) -> ProcessLimit {
    ledger::request(limit.sane(), 0, false)
}

/// The per-thread half of a map's limit: entered on each worker thread, ended by dropping it on the same
/// thread. Limits nest.
pub fn enter_thread(limit: Limit) -> ThreadLimit {
    ThreadLimit::enter(limit.sane(), 0)
}

impl Limit {
    fn sane(self) -> Limit {
        Limit { threads: self.threads.max(1), ..self }
    }
}

/// Runs `work` on what is known of the process's libraries, without looking for new ones: for a forked child, in which the
/// dynamic loader's lock may never be free.
pub fn without_looking<R>(work: impl FnOnce() -> R) -> R {
    loaded::without_looking(work)
}

/// To be called on the thread that is about to fork a child in which tasks run. libgomp's threads do not come along, and a
/// child would wait for them for ever: the calling thread's own are ended here, and start anew when next needed.
pub fn before_fork() {
    for pool in loaded::current().iter() {
        pool.pause.iter().for_each(|pause| pause.call());
    }
}

/// One thread pool, as the calling thread sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolInfo {
    /// `"blas"`, `"openmp"` or `"tbb"`.
    pub user_api: String,
    /// The library's family, such as `"openblas"`; a registered pool's own name.
    pub internal_api: String,
    /// Prefix of the file's name, such as `"libscipy_openblas"`; empty for a registered pool.
    pub prefix: String,
    /// The file, with links resolved; empty for a registered pool.
    pub filepath: String,
    /// The library's version, where it tells.
    pub version: Option<String>,
    /// What its threads are made with, where it tells: `"pthreads"`, `"openmp"`, `"disabled"`, ...
    pub threading_layer: Option<String>,
    /// Which kernels it uses, where it tells.
    pub architecture: Option<String>,
    /// What its setter reaches: `"thread"`, `"process"` or `"shared-pool"`.
    pub scope: &'static str,
    /// Threads that a call from this thread may use; 0 where asking would start the library.
    pub num_threads: i32,
    /// Whether limits change it.
    pub controllable: bool,
}

/// Looks for loaded libraries and lists the pools that are known.
pub fn pools() -> Vec<PoolInfo> {
    loaded::current().iter().map(|pool| pool.info()).collect()
}

/// All locks of this room.
struct ForkGuard {
    pid: u32,
    ledger: MutexGuard<'static, ledger::Ledger>,
    _known: MutexGuard<'static, loaded::Known>,
    _walk: MutexGuard<'static, ()>,
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        if std::process::id() != self.pid {
            self.ledger.keep_only_this_thread();
        }
    }
}

/// Takes every lock of this room, so that a forked child finds them free: to be called before a fork and
/// dropped in parent and child, on the thread that forks. In the child, requests of the parent's other
/// threads are forgotten.
pub fn fork_guard() -> impl Sized + 'static {
    ForkGuard {
        pid: std::process::id(),
        _known: loaded::lock(),
        ledger: ledger::lock(),
        _walk: find::walk_lock(),
    }
}
