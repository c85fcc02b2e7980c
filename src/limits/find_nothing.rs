//! Stands in for `find` where the loaded objects are not looked through yet: no library is found, and limits
//! apply to registered pools alone.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Never changes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Always 0.
    pub loads: u64,
    /// Always 0.
    pub unloads: u64,
}

/// One loaded object; there is none.
pub struct Loaded {
    /// Where it lies.
    pub base: usize,
}

impl Loaded {
    /// None has.
    pub fn has_no_pool(&self) -> bool {
        true
    }

    /// The last part of its name.
    pub fn file_name(&self) -> String {
        String::new()
    }
}

/// The same at each call.
pub fn generation() -> Generation {
    Generation { loads: 0, unloads: 0 }
}

/// Guards nothing.
pub fn walk_lock() -> MutexGuard<'static, ()> {
    static WALK: Mutex<()> = Mutex::new(());
    WALK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lists nothing.
pub fn loaded() -> Vec<Loaded> {
    Vec::new()
}

/// A loaded object that was looked into; there is none.
pub struct Object {
    /// Where it lies.
    pub base: usize,
}

impl Object {
    /// Opens nothing.
    pub fn open(_loaded: &Loaded) -> Option<Object> {
        None
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        PathBuf::new()
    }

    /// The name it was loaded by.
    pub fn file_name(&self) -> String {
        String::new()
    }

    /// Defines nothing.
    pub fn defines(&self, _name: &str) -> bool {
        false
    }

    /// Has no functions.
    pub fn containing(&self, _part: &str) -> Vec<&'static str> {
        Vec::new()
    }

    /// Finds nothing.
    ///
    /// # Safety
    /// None needed.
    pub unsafe fn own<F: Copy>(&self, _name: &str) -> Option<F> {
        None
    }

    /// Finds nothing.
    ///
    /// # Safety
    /// None needed.
    pub unsafe fn bound<F: Copy>(&self, _name: &str) -> Option<F> {
        None
    }

    /// Starts with nothing known.
    pub fn prefix(&self, _known: &[&str]) -> String {
        String::new()
    }
}
