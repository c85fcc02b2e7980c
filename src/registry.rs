//! Names and the backends they stand for.
//!
//! A name is looked up once, when a scope opens or a map needs a default; from then on the scope or the map keeps
//! the backend alive. Unregistering only hides the name: the backend is destroyed after its last session.

use crate::backends::sequential::Sequential;
use crate::backends::threading::Threading;
use crate::backends::{Backend, OpenRequest, Session};
use crate::status::{Error, Result, Status};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Names that stay.
const BUILT_IN: [&str; 6] = ["dask", "loky", "multiprocessing", "ray", "sequential", "threading"];

/// Those of them that other systems do not have in this version.
const FOR_LINUX: [&str; 4] = ["loky", "multiprocessing", "dask", "ray"];

/// Names of this project's plugins that may not be installed, or not be usable where they are.
const PLUGINS: [&str; 1] = ["mpi"];

/// A backend with a session: what a scope holds. The session closes before the backend can be destroyed.
pub struct Opened {
    /// The name it was opened by.
    pub name: Arc<str>,
    /// Runs the maps.
    pub session: Box<dyn Session>,
    /// What the name stood for when the session was opened.
    pub backend: Arc<dyn Backend>,
}

struct Entry {
    name: Arc<str>,
    backend: Arc<dyn Backend>,
    /// The session of maps whose scope did not open one: defaults, the environment, nested calls.
    implicit: Option<Arc<Opened>>,
}

type Names = BTreeMap<Arc<str>, Entry>;

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(|| {
    let mut names = Names::new();
    #[cfg(target_os = "linux")]
    {
        use crate::backends::engine::{Engine, Kind};
        use crate::backends::{loky::Loky, multiprocessing::Multiprocessing};
        insert(&mut names, "loky", Arc::new(Loky));
        insert(&mut names, "multiprocessing", Arc::new(Multiprocessing));
        insert(&mut names, "dask", Arc::new(Engine(Kind::Dask)));
        insert(&mut names, "ray", Arc::new(Engine(Kind::Ray)));
    }
    insert(&mut names, "sequential", Arc::new(Sequential));
    insert(&mut names, "threading", Arc::new(Threading));
    Mutex::new(names)
});

fn insert(names: &mut Names, name: &str, backend: Arc<dyn Backend>) {
    let name: Arc<str> = name.into();
    names.insert(name.clone(), Entry { name, backend, implicit: None });
}

fn lock() -> MutexGuard<'static, Names> {
    // Nothing that can panic runs under the lock, so a poisoned map is still whole.
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds the lock over a fork, so that the child finds it free.
pub fn fork_guard() -> impl Sized + 'static {
    lock()
}

/// The usable names, in alphabetical order.
pub fn names() -> Vec<Arc<str>> {
    lock().keys().cloned().collect()
}

/// The names of this project that cannot be used here, with the reason. Loads its plugins.
pub fn unavailable() -> Vec<(&'static str, String)> {
    let plugins = PLUGINS.iter().filter_map(|name| Some((*name, check(name).err()?.message.clone())));
    let mut missing: Vec<_> = plugins.collect();
    let names = lock();
    let elsewhere = FOR_LINUX.iter().filter(|name| !names.contains_key(**name));
    missing.extend(elsewhere.map(|name| (*name, "for Linux in this version".to_owned())));
    missing
}

fn unknown(name: &str) -> Error {
    let known = names().join(", ");
    if FOR_LINUX.contains(&name) {
        return Error::new(
            Status::ERR_BACKEND_UNAVAILABLE,
            format!("backend '{name}' is for Linux in this version; available here: {known}"),
        );
    }
    if PLUGINS.contains(&name) {
        let looked: Vec<_> = plugin_dirs().iter().map(|dir| dir.display().to_string()).collect();
        return Error::new(
            Status::ERR_BACKEND_UNAVAILABLE,
            format!(
                "backend '{name}' is a plugin that is not installed here: there is no {} in {}. It is built with \
                 parallel_backend where its own requirements are found (docs/{name}.md), and found elsewhere by \
                 PB_PLUGIN_PATH; available here: {known}",
                plugin_file(name),
                looked.join(", ")
            ),
        );
    }
    Error::new(
        Status::ERR_UNKNOWN_BACKEND,
        format!(
            "unknown backend '{name}'; known here: {known}. A plugin adds its backends by pb_load_plugin, \
             or by itself from a directory listed in PB_PLUGIN_PATH"
        ),
    )
}

/// The backend of that name; a plugin called `libpb_backend_NAME.so` is loaded on demand.
fn find(name: &str) -> Result<(Arc<str>, Arc<dyn Backend>)> {
    let get = || lock().get(name).map(|entry| (entry.name.clone(), entry.backend.clone()));
    if let Some(found) = get() {
        return Ok(found);
    }
    let Some(path) = plugin_path(name) else { return Err(unknown(name)) };
    let loaded = load_plugin(&path);
    // A plugin that finds its backend there already was loaded by another thread meanwhile: that is as good.
    get().map_or_else(|| loaded.and_then(|()| Err(unknown(name))), Ok)
}

/// Whether a backend of that name can be had; loads its plugin, if need be.
pub fn check(name: &str) -> Result<()> {
    find(name).map(drop)
}

/// Opens a session of its own for a scope.
pub fn open(name: &str, request: &OpenRequest) -> Result<Arc<Opened>> {
    let (name, backend) = find(name)?;
    let session = backend.open(request)?;
    Ok(Arc::new(Opened { name, session, backend }))
}

/// The session shared by all calls that no scope gave one.
pub fn implicit(name: &str, n_jobs: i32, inner_max_num_threads: i32) -> Result<Arc<Opened>> {
    if let Some(opened) = lock().get(name).and_then(|entry| entry.implicit.clone()) {
        return Ok(opened);
    }
    // A backend's `open` may be foreign code, so it runs without the lock; the first of two racers stays.
    let opened = open(name, &OpenRequest { n_jobs, inner_max_num_threads, params: None })?;
    let mut names = lock();
    let kept = match names.get_mut(name) {
        Some(entry) if Arc::ptr_eq(&entry.backend, &opened.backend) => {
            entry.implicit.get_or_insert_with(|| opened.clone()).clone()
        }
        // Unregistered meanwhile: this call keeps what it opened.
        _ => opened.clone(),
    };
    drop(names);
    Ok(kept)
}

/// Adds a backend under a new name. `make` is called only if the name can be given.
pub fn register(name: &str, make: impl FnOnce() -> Result<Arc<dyn Backend>>) -> Result<()> {
    check_name(name)?;
    let mut names = lock();
    if names.contains_key(name) {
        return Err(Error::new(
            Status::ERR_EXISTS,
            format!(
                "there is a backend '{name}' already: choose another name, or pb_unregister_backend first"
            ),
        ));
    }
    insert(&mut names, name, make()?);
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Error::invalid(format!(
            "'{name}' cannot name a backend: 1 to 64 letters, digits, '_', '-' or '.'"
        )));
    }
    Ok(())
}

/// Hides a name. Sessions in being keep the backend alive.
pub fn unregister(name: &str) -> Result<()> {
    if BUILT_IN.contains(&name) {
        return Err(Error::invalid(format!("backend '{name}' is built in and stays")));
    }
    let removed = lock().remove(name);
    // The last reference may run foreign code (close, destroy): it is dropped here, without the lock.
    removed.map(drop).ok_or_else(|| unknown(name))
}

/// Closes the sessions that no scope opened (the next call opens new ones), and has backends end what is idle.
pub fn shutdown() {
    let closing: Vec<_> = lock().values_mut().filter_map(|entry| entry.implicit.take()).collect();
    // Foreign code runs without the lock.
    drop(closing);
    let backends: Vec<_> = lock().values().map(|entry| entry.backend.clone()).collect();
    backends.iter().for_each(|backend| backend.shutdown());
}

fn plugin_file(name: &str) -> String {
    format!("libpb_backend_{name}{}", std::env::consts::DLL_SUFFIX)
}

/// Where plugins are looked for: what PB_PLUGIN_PATH lists, then what was installed with this library.
fn plugin_dirs() -> Vec<PathBuf> {
    let path = std::env::var_os("PB_PLUGIN_PATH").unwrap_or_default();
    let listed = std::env::split_paths(&path).filter(|dir| !dir.as_os_str().is_empty());
    let own = crate::tasks::own_library().and_then(|file| file.parent().map(Path::to_owned));
    listed.chain(own.map(|dir| dir.join("parallel_backend"))).collect()
}

fn plugin_path(name: &str) -> Option<PathBuf> {
    check_name(name).ok()?;
    let file = plugin_file(name);
    plugin_dirs().iter().map(|dir| dir.join(&file)).find(|file| file.is_file())
}

/// Loads a shared library and has it register its backends. It stays loaded for the life of the process.
pub fn load_plugin(path: &Path) -> Result<()> {
    crate::backends::foreign::init_plugin(path)
}
