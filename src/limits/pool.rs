//! One thread pool: what it is, and the knob that sets its count.

use super::PoolInfo;
use super::find::Object;
use std::ffi::c_int;
use std::sync::Arc;

/// A library's `int get(void)`.
pub type Get = unsafe extern "C" fn() -> c_int;
/// A library's `void set(int)`.
pub type Set = unsafe extern "C" fn(c_int);

/// How far a knob reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Each thread has its own count.
    Thread,
    /// One count for the process; each caller has threads of its own.
    Process,
    /// One count, and one set of threads that all callers share.
    SharedPool,
}

impl Reach {
    /// As the C interface spells it.
    pub fn name(self) -> &'static str {
        match self {
            Reach::Thread => "thread",
            Reach::Process => "process",
            Reach::SharedPool => "shared-pool",
        }
    }
}

/// What a knob needs to be put back. "Unset" is a state of its own in some libraries, so a count is not
/// enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The count it had, or the library's own word for "unset".
    Count(i32),
    /// BLIS: the ways of its five loops, and the count.
    Ways([i64; 5], i64),
    /// Nothing is needed.
    Nothing,
}

/// A library's count of threads. What a call reaches depends on the pool's [`Reach`].
pub trait Knob: Send + Sync {
    /// Threads that a call into the library from this thread may use; 0 where asking would wake it up.
    fn get(&self) -> i32;

    /// Sets the count and returns what [`Knob::restore`] needs.
    fn set(&self, threads: i32) -> Saved;

    /// Undoes a `set`; for a knob of one thread, on that thread.
    fn restore(&self, saved: Saved);

    /// Undoes a `set` after which the count read `seen`, unless somebody else has changed it since.
    fn restore_unless_changed(&self, saved: Saved, seen: i32) {
        if self.get() == seen {
            self.restore(saved);
        }
    }
}

/// A count that is read and set by functions of C's `int`, as most are.
#[derive(Clone, Copy)]
pub struct Count {
    get: Get,
    set: Set,
}

impl Count {
    /// # Safety
    /// The functions have these types and stay loaded. Any thread may call the getter; the setter is called where the pool's
    /// [`Reach`] says: on any thread where it concerns the calling thread only, else by the ledger, on one at a time.
    pub unsafe fn new(get: Get, set: Set) -> Self {
        Count { get, set }
    }
}

impl Knob for Count {
    fn get(&self) -> i32 {
        // SAFETY: promised when the count was made.
        unsafe { (self.get)() }
    }

    fn set(&self, threads: i32) -> Saved {
        let before = self.get();
        // SAFETY: as above.
        unsafe { (self.set)(threads) };
        Saved::Count(before)
    }

    fn restore(&self, saved: Saved) {
        if let Saved::Count(before) = saved {
            // SAFETY: as above.
            unsafe { (self.set)(before) };
        }
    }
}

/// OpenMP's `int omp_pause_resource_all(omp_pause_resource_t)`.
#[derive(Clone, Copy)]
pub struct Pause(unsafe extern "C" fn(c_int) -> c_int);

impl Pause {
    /// # Safety
    /// The function has this type and meaning, and stays loaded.
    pub unsafe fn new(function: unsafe extern "C" fn(c_int) -> c_int) -> Self {
        Pause(function)
    }

    /// Ends the calling thread's idle helpers; inside a parallel region it does nothing.
    pub fn call(self) {
        const SOFT: c_int = 1;
        // SAFETY: promised when it was made.
        unsafe { (self.0)(SOFT) };
    }
}

/// A count that can be read at most: the library has no setter, or must not be touched.
pub struct ReadOnly(pub i32);

impl Knob for ReadOnly {
    fn get(&self) -> i32 {
        self.0
    }

    fn set(&self, _threads: i32) -> Saved {
        Saved::Nothing
    }

    fn restore(&self, _saved: Saved) {}
}

/// A thread pool of this process.
pub struct Pool {
    /// Where its object lies; 0 for a registered pool.
    pub base: usize,
    /// [`super::BLAS`], [`super::OPENMP`] or [`super::TBB`].
    pub user_api: u32,
    /// The library's family.
    pub internal_api: String,
    /// Prefix of the file's name.
    pub prefix: String,
    /// The file.
    pub filepath: String,
    /// The library's version, where it tells.
    pub version: Option<String>,
    /// What its threads are made with, where it tells.
    pub threading_layer: Option<String>,
    /// Which kernels it uses, where it tells.
    pub architecture: Option<String>,
    /// How far the knob reaches.
    pub reach: Reach,
    /// Whether the knob does anything.
    pub controllable: bool,
    /// Loaded, but not started: to be looked at again when more has been loaded.
    pub asleep: bool,
    /// Ends the calling thread's idle helpers, where they would not survive a fork.
    pub pause: Option<Pause>,
    /// The count.
    pub knob: Box<dyn Knob>,
    /// Keeps the library loaded; `None` for a registered pool, whose functions are the user's own code.
    pub object: Option<Arc<Object>>,
}

impl Pool {
    /// A pool of the library `object`, with nothing known about it but its knob. `prefixes` are the file
    /// names that the family is known by.
    pub fn of(
        object: &Arc<Object>,
        user_api: u32,
        internal_api: &str,
        prefixes: &[&str],
        reach: Reach,
        knob: Box<dyn Knob>,
    ) -> Pool {
        Pool {
            base: object.base,
            user_api,
            internal_api: internal_api.to_owned(),
            prefix: object.prefix(prefixes),
            filepath: object.path().to_string_lossy().into_owned(),
            version: None,
            threading_layer: None,
            architecture: None,
            reach,
            controllable: true,
            asleep: false,
            pause: None,
            knob,
            object: Some(object.clone()),
        }
    }

    /// Whether `user_api`, a mask where 0 means all, asks for this pool.
    pub fn is_asked_by(&self, user_api: u32) -> bool {
        user_api == 0 || user_api & self.user_api != 0
    }

    /// What can be told about it, with the count that the calling thread sees.
    pub fn info(&self) -> PoolInfo {
        PoolInfo {
            user_api: super::api_name(self.user_api).to_owned(),
            internal_api: self.internal_api.clone(),
            prefix: self.prefix.clone(),
            filepath: self.filepath.clone(),
            version: self.version.clone(),
            threading_layer: self.threading_layer.clone(),
            architecture: self.architecture.clone(),
            scope: self.reach.name(),
            num_threads: self.knob.get(),
            controllable: self.controllable,
        }
    }
}
