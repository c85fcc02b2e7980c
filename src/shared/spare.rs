//! Areas for results that stay warm between calls: a page of shared memory costs far more when it is first touched
//! (1.1 ms a MiB) than to be written again (0.15 ms).
//!
//! Whoever borrows an area has it alone; it comes back when the borrower drops it. A forked child shares the areas' pages with
//! its parent, so it forgets the spare ones: the lock is held over forks for that.

use super::{Mapping, pages};
use crate::status::Result;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that are kept while nobody uses them, all areas together.
const KEPT: usize = 256 << 20;

static SPARE: Mutex<Vec<Mapping>> = Mutex::new(Vec::new());

fn lock() -> MutexGuard<'static, Vec<Mapping>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock, held over a fork.
pub fn fork_guard() -> MutexGuard<'static, Vec<Mapping>> {
    lock()
}

/// In a forked child: the areas are the parent's.
pub fn forget_in_child(mut spare: MutexGuard<'static, Vec<Mapping>>) {
    spare.clear();
}

/// A borrowed area; its content is what its last user left.
#[derive(Debug)]
pub struct Spare {
    mapping: Option<Mapping>,
    process: u32,
}

impl std::ops::Deref for Spare {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        self.mapping.as_ref().expect("taken only when dropped")
    }
}

impl std::ops::DerefMut for Spare {
    fn deref_mut(&mut self) -> &mut Mapping {
        self.mapping.as_mut().expect("taken only when dropped")
    }
}

/// An area of at least `len` bytes: the smallest spare one that is large enough without being far too large, or a new one.
pub fn borrow(len: usize) -> Result<Spare> {
    let process = std::process::id();
    let fits = |mapping: &Mapping| mapping.len() >= len && mapping.len() / 4 <= len.max(1 << 20);
    let mut spare = lock();
    let best = (0..spare.len()).filter(|i| fits(&spare[*i])).min_by_key(|i| spare[*i].len());
    let found = best.map(|best| spare.swap_remove(best));
    drop(spare);
    let mapping = match found {
        Some(mapping) => mapping,
        // A little more than asked for, so that a slightly larger call finds it large enough.
        None => Mapping::anonymous(pages(len).map_or(len, |len| len.saturating_add(len / 8)))
            .or_else(|_| Mapping::anonymous(len))?,
    };
    Ok(Spare { mapping: Some(mapping), process })
}

impl Drop for Spare {
    fn drop(&mut self) {
        let Some(mapping) = self.mapping.take() else { return };
        // In a child that was forked meanwhile the pages are the parent's, who still uses them.
        if self.process != std::process::id() {
            return;
        }
        let mut spare = lock();
        spare.push(mapping);
        let mut kept: usize = spare.iter().map(Mapping::len).sum();
        let mut dropped = Vec::new();
        // The oldest go first.
        while kept > KEPT {
            let oldest = spare.remove(0);
            kept -= oldest.len();
            dropped.push(oldest);
        }
        drop(spare);
    }
}

/// Gives all spare areas back to the system.
pub fn release_all() {
    let all = std::mem::take(&mut *lock());
    drop(all);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The areas are the process's: one test, since two would borrow from each other.
    #[test]
    fn an_area_is_used_again_and_by_one_at_a_time() {
        release_all();
        let first = borrow(1 << 20).unwrap();
        let address = first.base() as usize;
        let second = borrow(1 << 20).unwrap();
        assert_ne!(second.base() as usize, address);
        drop(first);
        let again = borrow((1 << 20) + 4096).unwrap();
        assert_eq!(again.base() as usize, address, "a little larger fits too");
        drop((second, again));
        let large = borrow(KEPT + 1).unwrap();
        drop(large);
        assert!(lock().iter().map(Mapping::len).sum::<usize>() <= KEPT);
        release_all();
        assert!(lock().is_empty());
    }
}
