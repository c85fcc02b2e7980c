//! Where files of code cannot be looked into: every task needs a name.

use super::{Place, not_portable};
use crate::status::Result;
use std::path::PathBuf;

/// The place of a function: not known here.
pub fn place_of(_address: usize) -> Result<Place> {
    Err(not_portable(
        "on this system a task needs a name to be found in another process: pb_register_task".into(),
    ))
}

/// The function at a place: not known here.
pub fn address_of(_place: &Place) -> Result<usize> {
    Err(not_portable(
        "on this system a task needs a name to be found in another process: pb_register_task".into(),
    ))
}

/// Loads a library in advance: not of use here.
pub fn load_file(_path: &str) -> Result<Vec<u8>> {
    Err(not_portable(
        "on this system a task needs a name to be found in another process: pb_register_task".into(),
    ))
}

/// The file that this library is part of: not known here.
pub fn own_library() -> Option<PathBuf> {
    None
}
