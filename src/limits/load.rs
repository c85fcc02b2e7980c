//! Loads a library on request, for programs that want to see its thread pool.

use crate::status::{Error, Result, Status};
use libloading::Library;
use std::path::Path;

/// Loads a shared library, found as the dynamic loader finds one, and keeps it for the life of the process.
///
/// Errors: `PB_ERR_IO` with the loader's own text.
pub fn load(path: &Path) -> Result<()> {
    // SAFETY: the library's initialisers run, and to run them is what the caller, who names the library, asks for.
    // Nothing of it is called here, and it is never unloaded.
    let library = unsafe { Library::new(path) };
    let library = library
        .map_err(|error| Error::new(Status::ERR_IO, format!("cannot load '{}': {error}", path.display())))?;
    std::mem::forget(library);
    Ok(())
}
