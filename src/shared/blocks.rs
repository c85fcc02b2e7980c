//! Blocks for users' arrays (`pb_alloc_shared`): ordinary memory here, and the same memory in every worker process.
//!
//! A block is a memfd that is mapped shared. Forked children have the mapping at the same address; other processes get
//! the descriptor and map it themselves. Any part of the library may ask whether an array lies in a block ([`find`]).
//! One lock guards the list; it is held over forks, so that a child finds it free and the list whole.

use super::{Mapping, nameless_file, no_memory, system, within_file_limit};
use crate::status::{Error, Result, Status};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A block.
#[derive(Debug)]
pub struct Block {
    /// No other block of this process has had it.
    id: u64,
    mapping: Mapping,
    file: OwnedFd,
}

/// Where in a block an array lies.
#[derive(Clone, Debug)]
pub struct Place {
    block: Arc<Block>,
    /// Bytes from the block's beginning.
    pub offset: usize,
}

impl Place {
    /// The block's memfd, for processes that are to map it. Valid while this place is held.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.block.file.as_fd()
    }

    /// What tells this block from every other one that there was.
    pub fn block_id(&self) -> u64 {
        self.block.id
    }

    /// Bytes of the whole block.
    pub fn block_len(&self) -> usize {
        self.block.mapping.len()
    }
}

/// By address.
static BLOCKS: Mutex<BTreeMap<usize, Arc<Block>>> = Mutex::new(BTreeMap::new());

fn lock() -> MutexGuard<'static, BTreeMap<usize, Arc<Block>>> {
    BLOCKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds the lock over a fork, so that the child finds it free.
pub fn fork_guard() -> impl Sized + 'static {
    lock()
}

/// A new block, all zero, aligned to a page. Errors: PB_ERR_INVALID_ARGUMENT for 0 bytes, PB_ERR_OUT_OF_MEMORY for more
/// than the machine has, or where the system refuses.
pub fn alloc(size: usize) -> Result<*mut u8> {
    if size == 0 {
        return Err(Error::invalid("a shared block of 0 bytes: size must be at least 1"));
    }
    // Pages are given when they are touched, so the system itself would take a size that it can never give.
    let most = system::memory();
    if size > most {
        return Err(no_memory(size, &format!("this machine has {most}, swap included")));
    }
    let block = Block::new(size)?;
    let base = block.mapping.base();
    lock().insert(base as usize, Arc::new(block));
    Ok(base)
}

impl Block {
    fn new(size: usize) -> Result<Block> {
        let refused = |what: &str, error: io::Error| {
            let advice = match error.raw_os_error() {
                Some(libc::EMFILE) => {
                    "; each block holds a file descriptor: allocate fewer, larger blocks, or raise `ulimit -n`"
                }
                _ => "",
            };
            no_memory(size, &format!("{what}: {error}{advice}"))
        };
        let file = nameless_file(c"pb-shared").map_err(|error| refused("memfd_create", error))?;
        within_file_limit(0, size)?;
        let length = libc::off_t::try_from(size).map_err(|_| no_memory(size, "too large for a file"))?;
        // SAFETY: the descriptor is ours.
        if unsafe { libc::ftruncate(file.as_raw_fd(), length) } != 0 {
            return Err(refused("ftruncate", io::Error::last_os_error()));
        }
        let mapping = Mapping::of_file(file.as_fd(), 0, size)?;
        static BLOCKS_MADE: AtomicU64 = AtomicU64::new(1);
        Ok(Block { id: BLOCKS_MADE.fetch_add(1, Ordering::Relaxed), mapping, file })
    }
}

/// Frees a block. It stays mapped until nothing in the library uses it any more. Errors: PB_ERR_INVALID_ARGUMENT for
/// what is no block; nothing is freed then.
pub fn free(block: *mut u8) -> Result<()> {
    let removed = lock().remove(&(block as usize));
    // Unmapping a large block takes a while: not under the lock.
    removed.map(drop).ok_or_else(|| {
        Error::new(
            Status::ERR_INVALID_ARGUMENT,
            format!(
                "{block:p} is no block of pb_alloc_shared, or was freed already: pass the address that it wrote, once"
            ),
        )
    })
}

/// The block that holds all `len` bytes from `address` on, if one does.
pub fn find(address: usize, len: usize) -> Option<Place> {
    let blocks = lock();
    let (base, block) = blocks.range(..=address).next_back()?;
    let offset = address - base;
    let inside = offset.checked_add(len).is_some_and(|end| end <= block.mapping.len());
    inside.then(|| Place { block: block.clone(), offset })
}

/// Whether the block of this number is still there.
pub fn is_alive(id: u64) -> bool {
    lock().values().any(|block| block.id == id)
}

#[cfg(test)]
mod tests {
    use super::super::page;
    use super::*;

    #[test]
    fn a_block_is_found_by_every_address_in_it() {
        let block = alloc(3 * page()).unwrap() as usize;
        assert_eq!(block % page(), 0);
        assert_eq!(find(block, 3 * page()).unwrap().offset, 0);
        assert_eq!(find(block + 100, page()).unwrap().offset, 100);
        assert_eq!(find(block + 100, page()).unwrap().block_len(), 3 * page());
        assert!(find(block + 1, 3 * page()).is_none(), "reaches beyond its end");
        free(block as *mut u8).unwrap();
        assert!(find(block, 1).is_none());
    }

    #[test]
    fn what_is_no_block_is_not_freed() {
        let block = alloc(1).unwrap();
        assert!(free(block.wrapping_add(1)).unwrap_err().message.contains("no block of pb_alloc_shared"));
        free(block).unwrap();
        assert_eq!(free(block).unwrap_err().status, Status::ERR_INVALID_ARGUMENT, "twice");
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        assert_eq!(alloc(0).unwrap_err().status, Status::ERR_INVALID_ARGUMENT);
        for size in [usize::MAX, isize::MAX as usize, 1 << 60] {
            assert_eq!(alloc(size).unwrap_err().status, Status::ERR_OUT_OF_MEMORY);
        }
    }
}
