//! Builds and loads the stand-ins.

use libloading::os::unix::Library;
use parallel_backend::limits::{self, PoolInfo};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Limits apply to the whole process: one test at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that libraries of other tests would disturb: runs it again in a process of its own, where this
/// returns true. Here it returns false once that process has passed.
pub fn in_own_process(test: &str) -> bool {
    const INSIDE: &str = "LIMITS_TEST_IN_OWN_PROCESS";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let ended = again.args(["--exact", test]).env(INSIDE, "1").output().unwrap();
    let output = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && output.contains("1 passed"), "{output}");
    false
}

/// A loaded stand-in.
pub struct Fake {
    pub path: PathBuf,
    pub library: Library,
}

/// Compiles `fakes/<source>` into the library `file` with these compiler arguments.
pub fn build(file: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("limits");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(file);
    // Written aside and renamed: a library of an earlier run may still be mapped somewhere.
    let fresh = folder.join(format!("{file}.{}", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/limits/fakes").join(source);
    let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    cc.args(["-shared", "-fPIC", "-O1", "-Wl,--no-as-needed", "-o"]).arg(&fresh).arg(source).args(arguments);
    let ended = cc.status().expect("a C compiler");
    assert!(ended.success(), "{cc:?}");
    std::fs::rename(fresh, &path).unwrap();
    path.canonicalize().unwrap()
}

/// Loads a library.
pub fn load(path: &Path) -> Fake {
    // SAFETY: the stand-ins have no initialisers.
    let library = unsafe { Library::new(path) }.unwrap();
    Fake { path: path.canonicalize().unwrap(), library }
}

/// Arguments for `openblas.c`: plain names, threads of its own.
pub const PTHREADS: &[&str] =
    &["-DPREFIX=", "-DSUFFIX=", "-DPARALLEL=1", "-DOWN_COUNT=ALONE", "-DVERSION=\"0.3.21\""];

/// An OpenBLAS with plain names and threads of its own, under a file name that no other test uses.
pub fn openblas(file: &str) -> Fake {
    load(&build(file, "openblas.c", PTHREADS))
}

/// The program's own OpenMP code, on the runtime that the compiler links.
pub fn team(file: &str) -> Fake {
    load(&build(file, "team.c", &["-fopenmp"]))
}

impl Fake {
    /// Calls an `int(void)` of the library.
    pub fn ask(&self, name: &str) -> i32 {
        // SAFETY: all the functions that the tests ask have this type.
        unsafe { self.library.get::<unsafe extern "C" fn() -> i32>(name.as_bytes()).unwrap()() }
    }

    /// Calls a `void(int)` of the library, as somebody else than us would.
    pub fn tell(&self, name: &str, value: i32) {
        // SAFETY: all the functions that the tests call in this way have this type.
        unsafe { self.library.get::<unsafe extern "C" fn(i32)>(name.as_bytes()).unwrap()(value) }
    }

    /// The pools that were found in this file.
    pub fn pools(&self) -> Vec<PoolInfo> {
        let path = self.path.to_str().unwrap();
        limits::pools().into_iter().filter(|pool| pool.filepath == path).collect()
    }

    /// The one pool that was found in this file.
    pub fn pool(&self) -> PoolInfo {
        let mut pools = self.pools();
        assert_eq!(pools.len(), 1, "{pools:?}");
        pools.remove(0)
    }

    /// The count of the one pool, as this thread sees it.
    pub fn count(&self) -> i32 {
        self.pool().num_threads
    }
}
