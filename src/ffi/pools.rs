//! Section 7 of the header: native thread pools.

use super::abi::{self};
use super::context::pb_scope;
use super::guard::{guard, guard_value};
use super::map::User;
use crate::context;
use crate::limits::{self, CustomPool, PoolInfo};
use crate::status::{Error, Result, Status, pb_status};
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_void};

/// For `pb_push_thread_limit`: BLAS libraries.
pub const PB_API_BLAS: u32 = 0x1;
/// For `pb_push_thread_limit`: OpenMP runtimes.
pub const PB_API_OPENMP: u32 = 0x2;
/// For `pb_push_thread_limit`: oneTBB.
pub const PB_API_TBB: u32 = 0x4;
/// For `pb_push_thread_limit`: all of them.
pub const PB_API_ALL: u32 = 0x0;

/// A thread pool of a library that is loaded in this process. Texts live until the next `pb_thread_pool_count` on the same
/// thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pb_thread_pool {
    /// `sizeof(pb_thread_pool)`, set by the caller.
    pub struct_size: usize,
    /// "blas", "openmp", "tbb".
    pub user_api: *const c_char,
    /// "openblas", "mkl", "blis", "flexiblas", "openmp", ...
    pub internal_api: *const c_char,
    /// File name prefix, e.g. "libscipy_openblas".
    pub prefix: *const c_char,
    /// The file that the library was loaded from.
    pub filepath: *const c_char,
    /// NULL where unknown.
    pub version: *const c_char,
    /// "pthreads", "openmp", "disabled", ...; NULL where there is no such thing.
    pub threading_layer: *const c_char,
    /// The processor type that the library chose its code for; NULL where unknown.
    pub architecture: *const c_char,
    /// What the setter reaches: "thread" (the calling thread's calls), "process" (everybody's calls), "shared-pool"
    /// (everybody's calls, which also queue for one pool).
    pub scope: *const c_char,
    /// Threads that a call from this thread would use now.
    pub num_threads: i32,
    /// 1 if the number can be set.
    pub controllable: i32,
}

// SAFETY: pointers and integers, `struct_size` first; all zeroes is a value.
unsafe impl abi::Sized0 for pb_thread_pool {}

/// A pool with its texts as C reads them.
struct Texts {
    user_api: CString,
    internal_api: CString,
    prefix: CString,
    filepath: CString,
    version: Option<CString>,
    threading_layer: Option<CString>,
    architecture: Option<CString>,
    scope: CString,
    num_threads: i32,
    controllable: bool,
}

thread_local! {
    static FOUND: RefCell<Vec<Texts>> = const { RefCell::new(Vec::new()) };
}

fn texts(pool: PoolInfo) -> Texts {
    // A file name with a nul cannot exist; should one appear, an empty text does no harm.
    let text = |text: String| CString::new(text).unwrap_or_default();
    Texts {
        user_api: text(pool.user_api),
        internal_api: text(pool.internal_api),
        prefix: text(pool.prefix),
        filepath: text(pool.filepath),
        version: pool.version.map(text),
        threading_layer: pool.threading_layer.map(text),
        architecture: pool.architecture.map(text),
        scope: text(pool.scope.to_owned()),
        num_threads: pool.num_threads,
        controllable: pool.controllable,
    }
}

fn ending() -> Error {
    Error::new(Status::ERR_SCOPE, "this thread is ending")
}

/// Looks for the native thread pools that are loaded now, and says how many there are; `pb_thread_pool_get` describes them.
#[unsafe(no_mangle)]
pub extern "C" fn pb_thread_pool_count() -> usize {
    guard_value(
        |_| 0,
        || {
            let found: Vec<_> = limits::pools().into_iter().map(texts).collect();
            let count = found.len();
            FOUND.try_with(|slot| slot.replace(found)).map_err(|_| ending())?;
            Ok(count)
        },
    )
}

/// Describes the pool number `i` of this thread's last `pb_thread_pool_count`. Errors: PB_ERR_INVALID_ARGUMENT for a number
/// beyond it, PB_ERR_ABI for a `struct_size` that is too small.
///
/// # Safety
/// `out` points to a pb_thread_pool whose `struct_size` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_thread_pool_get(i: usize, out: *mut pb_thread_pool) -> pb_status {
    let describe = |found: &RefCell<Vec<Texts>>| -> Result<pb_thread_pool> {
        let found = found.borrow();
        let pool = found.get(i).ok_or_else(|| {
            Error::invalid(format!(
                "there is no pool {i}: pb_thread_pool_count found {} on this thread",
                found.len()
            ))
        })?;
        let or_null = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        Ok(pb_thread_pool {
            struct_size: 0,
            user_api: pool.user_api.as_ptr(),
            internal_api: pool.internal_api.as_ptr(),
            prefix: pool.prefix.as_ptr(),
            filepath: pool.filepath.as_ptr(),
            version: or_null(&pool.version),
            threading_layer: or_null(&pool.threading_layer),
            architecture: or_null(&pool.architecture),
            scope: pool.scope.as_ptr(),
            num_threads: pool.num_threads,
            controllable: i32::from(pool.controllable),
        })
    };
    guard(|| {
        let pool = FOUND.try_with(describe).map_err(|_| ending())??;
        // SAFETY: the caller promised a pb_thread_pool with its size set.
        unsafe { abi::write(out, pool, size_of::<pb_thread_pool>(), "pb_thread_pool") }
    })
}

/// Sets the number of threads of native libraries until `pb_pop_thread_limit(*scope)`: on this thread where a library counts
/// by thread; in the process where it does not, the least of all threads' limits then. Of nested scopes on one thread the
/// innermost holds.
///
/// @param limit  threads, from 1 up
/// @param user_api  PB_API_BLAS, PB_API_OPENMP, PB_API_TBB, or'ed, or PB_API_ALL
/// @param scope  receives the token
///
/// # Safety
/// `scope` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_push_thread_limit(limit: i32, user_api: u32, scope: *mut pb_scope) -> pb_status {
    guard(|| {
        abi::writable(scope, "scope")?;
        let token = context::push_thread_limit(limit, user_api)?;
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *scope = token };
        Ok(())
    })
}

/// Ends a limit and puts back what it found, unless somebody else has changed it meanwhile. On the thread that pushed it,
/// innermost first. Errors: PB_ERR_SCOPE; nothing is changed then.
#[unsafe(no_mangle)]
pub extern "C" fn pb_pop_thread_limit(scope: pb_scope) -> pb_status {
    guard(|| context::pop_thread_limit(scope))
}

/// Makes a thread pool known that this library does not find by itself: it is listed, and limited like the others.
///
/// @param user_api  "blas", "openmp" or "tbb"
/// @param internal_api  the library's name, in lower case
/// @param get, set  read and set its number of threads, from any thread
/// @param user  passed to both
/// @param scope  what `set` reaches: "thread", "process" or "shared-pool"
///
/// Errors: PB_ERR_INVALID_ARGUMENT, PB_ERR_EXISTS.
///
/// # Safety
/// Texts are nul-terminated; the functions stay callable for the life of the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_register_thread_pool(
    user_api: *const c_char,
    internal_api: *const c_char,
    get: Option<unsafe extern "C-unwind" fn(user: *mut c_void) -> i32>,
    set: Option<unsafe extern "C-unwind" fn(user: *mut c_void, n: i32)>,
    user: *mut c_void,
    scope: *const c_char,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised texts.
        let text = |text, what| unsafe { abi::required_text(text, what) }.map(str::to_owned);
        let (user_api, internal_api) = (text(user_api, "user_api")?, text(internal_api, "internal_api")?);
        let get = get.ok_or_else(|| abi::null("get"))?;
        let set = set.ok_or_else(|| abi::null("set"))?;
        let user = User(user);
        limits::register(CustomPool {
            user_api,
            internal_api,
            scope: text(scope, "scope")?,
            get: Box::new(move || {
                let User(user) = { user };
                // SAFETY: the caller promised a function of this type, for any thread and for ever.
                unsafe { get(user) }
            }),
            set: Box::new(move |n| {
                let User(user) = { user };
                // SAFETY: as above.
                unsafe { set(user, n) }
            }),
        })
    })
}
