//! The objects that are loaded in this process: listed quickly, then pinned one by one and looked into.
//!
//! Inside the callback of `dl_iterate_phdr` the dynamic loader's lock is held, so the callback only copies
//! names and addresses. An object that is looked into is pinned first: it cannot be unloaded meanwhile, and
//! an object in which a thread pool is found stays pinned for the life of the process, whatever the program
//! does with `dlclose`, so that no function pointer into it dangles.

use super::elf::{Dyn, Symbols};
use crossbeam_utils::CachePadded;
use libloading::os::unix::Library;
use std::ffi::{CStr, CString, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held over every walk of the loader's list, and over forks: glibc (2.36, for one) leaves the list's own lock in a forked
/// child as another thread held it, and the child's first walk would wait for ever. In a line of its own, which a loop of calls writes
/// again and again: workers read what lies beside it.
static WALK: CachePadded<Mutex<()>> = CachePadded::new(Mutex::new(()));

/// Nothing else is locked while it is held.
pub fn walk_lock() -> MutexGuard<'static, ()> {
    WALK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts of all loads and unloads so far: two equal readings mean that the same objects are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Objects loaded since the process began.
    pub loads: u64,
    /// Objects unloaded since then.
    pub unloads: u64,
}

/// One loaded object as the dynamic loader lists it. It may be gone by the time one looks.
pub struct Loaded {
    /// The name it was loaded by, byte for byte; empty for the program itself.
    name: CString,
    /// Where it lies: its identity.
    pub base: usize,
    dynamic: usize,
}

impl Loaded {
    /// The last part of the name it was loaded by.
    pub fn file_name(&self) -> &[u8] {
        self.name.to_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// Whether it is surely none with a pool: the C library, what compilers link to every program, and this library. To look into
    /// each of them is a good part of a first call.
    pub fn has_no_pool(&self) -> bool {
        const SYSTEM: [&str; 12] = [
            "libc.so.",
            "libm.so.",
            "libmvec.so.",
            "libpthread.so.",
            "libdl.so.",
            "librt.so.",
            "libgcc_s.so.",
            "libstdc++.so.",
            "ld-linux",
            "libc.musl-",
            "ld-musl-",
            "libparallel_backend.so",
        ];
        let name = self.file_name();
        SYSTEM.iter().any(|system| name.starts_with(system.as_bytes()))
    }

    /// Whether there is a file behind it (the kernel's own object has none).
    fn is_file(&self) -> bool {
        let name = self.name.to_bytes();
        let is_kernels = name.starts_with(b"linux-") && !name.contains(&b'/');
        self.dynamic != 0 && !is_kernels
    }
}

/// Asks the loader for its counts, without walking over its objects.
pub fn generation() -> Generation {
    unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, out: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid description, and `out` is the variable below.
        unsafe {
            *out.cast() = Generation { loads: (*info).dlpi_adds, unloads: (*info).dlpi_subs };
        }
        1
    }
    let mut counts = Generation { loads: 0, unloads: 0 };
    let _walk = walk_lock();
    // SAFETY: the callback has the type that the loader wants and `counts` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut counts).cast()) };
    counts
}

/// Lists the objects that are loaded now.
pub fn loaded() -> Vec<Loaded> {
    unsafe extern "C" fn copy(info: *mut libc::dl_phdr_info, _: usize, out: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid description, whose name and headers hold during this call, and
        // `out` is the vector below.
        unsafe {
            let info = &*info;
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
            let dynamic = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC);
            let name = if info.dlpi_name.is_null() { c"" } else { CStr::from_ptr(info.dlpi_name) };
            let base = info.dlpi_addr as usize;
            (*out.cast::<Vec<Loaded>>()).push(Loaded {
                name: name.to_owned(),
                base,
                dynamic: dynamic.map_or(0, |header| base + header.p_vaddr as usize),
            });
        }
        0
    }
    let mut objects = Vec::<Loaded>::new();
    {
        let _walk = walk_lock();
        // SAFETY: the callback has the type that the loader wants and `objects` outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(copy), (&raw mut objects).cast()) };
    }
    objects.retain(Loaded::is_file);
    objects
}

/// A loaded object that cannot be unloaded while this value lives.
pub struct Object {
    /// Where it lies: its identity.
    pub base: usize,
    /// What it was loaded by; empty for the program.
    name: PathBuf,
    symbols: Symbols,
    library: Library,
}

impl Object {
    /// Pins a listed object and finds its symbols. `None` if it has gone meanwhile, or has no symbols.
    ///
    /// Takes the dynamic loader's lock: call it without holding one of ours.
    pub fn open(loaded: &Loaded) -> Option<Object> {
        use std::os::unix::ffi::OsStrExt;
        let is_program = loaded.name.is_empty();
        // SAFETY: the loader listed this dynamic table for this base. The object at this base is pinned by `library` below, whose
        // symbols do not leave this value, or is the program, which is never unloaded.
        let symbols = || unsafe { Symbols::read(loaded.base, loaded.dynamic as *const Dyn) };
        // Usually there are none, and a handle would be for nothing.
        if is_program && symbols().is_none() {
            return None;
        }
        let name = std::ffi::OsStr::from_bytes(loaded.name.to_bytes());
        let library = if is_program {
            Library::this()
        } else {
            // SAFETY: the object is loaded already, so no initialiser runs; if it is not, nothing is loaded.
            unsafe { Library::open(Some(name), libc::RTLD_LAZY | libc::RTLD_NOLOAD) }.ok()?
        };
        let library = still_at(loaded.base, library)?;
        Some(Object { base: loaded.base, name: name.into(), symbols: symbols()?, library })
    }

    /// Its file, with links resolved. The system is asked for each part of it, so only for objects that matter.
    pub fn path(&self) -> PathBuf {
        let is_program = self.name.as_os_str().is_empty();
        let path = if is_program { std::env::current_exe().unwrap_or_default() } else { self.name.clone() };
        path.canonicalize().unwrap_or(path)
    }

    /// The name it was loaded by, less the directories.
    pub fn file_name(&self) -> String {
        let own = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if self.name.as_os_str().is_empty() { own(&self.path()) } else { own(&self.name) }
    }

    /// Whether the object itself defines a function of this name.
    pub fn defines(&self, name: &str) -> bool {
        self.symbols.defines(name)
    }

    /// The names of its own functions that contain `part`.
    pub fn containing(&self, part: &str) -> Vec<&'static str> {
        self.symbols.containing(part)
    }

    /// The address of one of its own functions.
    ///
    /// # Safety
    /// `F` is the type of that function's pointer, and the result is used only while this value lives.
    pub unsafe fn own<F: Copy>(&self, name: &str) -> Option<F> {
        // SAFETY: the caller vouches for the type.
        if self.defines(name) { unsafe { look_up(&self.library, name) } } else { None }
    }

    /// The address of the function that the object's calls of this name go to: its own; or the one in global
    /// scope (the program, what it links, what was loaded with RTLD_GLOBAL), which the loader looks through
    /// first; or that of a library it depends on.
    ///
    /// # Safety
    /// As for [`Object::own`].
    pub unsafe fn bound<F: Copy>(&self, name: &str) -> Option<F> {
        // SAFETY: the caller vouches for the type.
        unsafe {
            self.own(name)
                .or_else(|| look_up(&Library::this(), name))
                .or_else(|| look_up(&self.library, name))
        }
    }

    /// Which of the known file name prefixes it has, or else the name up to its first dot. A link such as
    /// `libiomp5.so` and the file behind it may differ: the name it was loaded by comes first.
    pub fn prefix(&self, known: &[&str]) -> String {
        let (given, path) = (self.file_name(), self.path());
        let real = path.file_name().unwrap_or_default().to_string_lossy();
        let starts =
            |name: &str| known.iter().find(|prefix| name.starts_with(**prefix)).map(|p| (*p).to_owned());
        starts(&given)
            .or_else(|| starts(&real))
            .unwrap_or_else(|| given.split('.').next().unwrap_or_default().to_owned())
    }
}

/// What `dlsym` finds in a library and in what it depends on.
///
/// # Safety
/// As for [`Object::own`].
unsafe fn look_up<F: Copy>(library: &Library, name: &str) -> Option<F> {
    // SAFETY: the caller vouches for the type.
    unsafe { library.get::<F>(name.as_bytes()) }.ok().map(|function| *function)
}

/// The same handle, if the object that it pins lies at `base`: between listing and pinning a library may have
/// been replaced by another one of the same name.
#[cfg(target_env = "gnu")]
fn still_at(base: usize, library: Library) -> Option<Library> {
    let handle = library.into_raw();
    let mut link_map: *const usize = std::ptr::null();
    // SAFETY: the handle is open, and RTLD_DI_LINKMAP writes one pointer.
    let failed = unsafe { libc::dlinfo(handle, libc::RTLD_DI_LINKMAP, (&raw mut link_map).cast()) };
    // SAFETY: the handle comes from `into_raw` and is owned by nobody else.
    let library = unsafe { Library::from_raw(handle) };
    // SAFETY: on success the pointer is that of the object's link map, whose first word is its base.
    (failed == 0 && unsafe { *link_map } == base).then_some(library)
}

/// musl never unloads an object, so none can have been replaced.
#[cfg(not(target_env = "gnu"))]
fn still_at(_base: usize, library: Library) -> Option<Library> {
    Some(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_belongs_to_the_object_that_defines_it() {
        let objects: Vec<_> = loaded().iter().filter_map(Object::open).collect();
        let libc =
            objects.iter().find(|object| object.file_name().starts_with("libc.")).expect("the C library");
        assert!(libc.defines("qsort"));
        assert!(libc.containing("qsort").contains(&"qsort_r"));
        // Every object can reach qsort through its dependencies; only the C library has it.
        let owners = objects.iter().filter(|object| object.defines("qsort")).count();
        assert_eq!(owners, 1);
    }

    #[test]
    fn the_program_may_have_a_pool_and_the_c_library_has_none() {
        let (without, with): (Vec<_>, Vec<_>) = loaded().into_iter().partition(Loaded::has_no_pool);
        assert!(without.iter().any(|object| object.file_name().starts_with(b"libc.")));
        assert!(with.iter().any(|object| object.name.is_empty()));
    }

    #[test]
    fn a_program_that_defines_nothing_for_others_is_not_looked_into() {
        let loaded = loaded();
        let program = loaded.iter().find(|object| object.name.is_empty()).expect("the program");
        assert!(Object::open(program).is_none());
    }

    #[test]
    fn the_generation_stands_still_while_nothing_is_loaded() {
        // Another test's thread may load something between two readings, but not between all of them.
        assert!((0..100).any(|_| generation() == generation()));
    }
}
