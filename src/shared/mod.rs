//! Memory that several processes share: mappings, blocks for users' arrays, warm areas for results.
//!
//! Nothing here has a name in a file system: a mapping is anonymous or that of a memfd, so whatever way the processes
//! end, nothing is left.

mod arena;
mod blocks;
mod spare;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "nothing.rs"]
mod system;

pub use arena::{Arena, ArenaFile, Output, Span};
pub use blocks::{Place, alloc, find, fork_guard, free, is_alive};
pub use spare::{Spare, borrow, forget_in_child, fork_guard as spare_fork_guard, release_all};
pub use system::nameless_file;

use crate::status::{Error, Result, Status};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// What may lie in shared memory and be looked at by several processes at once: atomics, and numbers that are only
/// written before the others come.
///
/// # Safety
/// All zeroes is a value of the type, it holds no pointers and nothing to drop, and shared references to it may be used
/// from several processes (it is `Sync` by atomics, without locks that live elsewhere).
pub unsafe trait Shareable: Sync {}

// SAFETY: an integer whose every access is atomic.
unsafe impl Shareable for std::sync::atomic::AtomicU64 {}
// SAFETY: as above.
unsafe impl Shareable for std::sync::atomic::AtomicUsize {}
// SAFETY: as above.
unsafe impl Shareable for std::sync::atomic::AtomicI32 {}

/// Bytes of a page.
pub fn page() -> usize {
    // SAFETY: asks for a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// `len` rounded up to whole pages; `None` where that is more than an address space holds.
pub fn pages(len: usize) -> Option<usize> {
    len.checked_next_multiple_of(page()).filter(|len| *len <= isize::MAX as usize)
}

/// A range of memory that forked children, and other processes that map the same file, see as we do. Dropping it unmaps
/// it in this process only.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a range of memory belongs to no thread; all access through it is by `Shareable` references or raw pointers.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// New memory, all zero, that children of a fork share. `len` is rounded up to pages; pages are taken from the system
    /// when they are first touched.
    pub fn anonymous(len: usize) -> Result<Mapping> {
        Mapping::new(len, libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1, 0)
    }

    /// A part of a file; `offset` is a multiple of the page size.
    pub fn of_file(file: BorrowedFd, offset: u64, len: usize) -> Result<Mapping> {
        Mapping::new(len, libc::MAP_SHARED, file.as_raw_fd(), offset)
    }

    /// A file as a copy of this process's own: what is written to it is seen by nobody else, until [`Mapping::forget_changes`].
    pub fn private(file: BorrowedFd, len: usize) -> Result<Mapping> {
        Mapping::new(len, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
    }

    /// Of a private copy: it is the file's again. Nobody looks at it meanwhile.
    pub fn forget_changes(&mut self) {
        // SAFETY: the range is this mapping; dropping its own pages leaves the file's, and `&mut self` says that no
        // references exist.
        unsafe { libc::madvise(self.base().cast(), self.len, libc::MADV_DONTNEED) };
    }

    fn new(len: usize, flags: i32, fd: i32, offset: u64) -> Result<Mapping> {
        let too_large = || no_memory(len, "it is more than an address space holds");
        let bytes = pages(len.max(1)).ok_or_else(too_large)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| too_large())?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the system's choice touches no memory that is in use.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, fd, offset) };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Mapping { base, len: bytes }),
            _ => Err(no_memory(len, &io::Error::last_os_error().to_string())),
        }
    }

    /// Its first byte.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes, a multiple of the page size.
    #[allow(clippy::len_without_is_empty, reason = "there is no empty mapping")]
    pub fn len(&self) -> usize {
        self.len
    }

    fn at<T>(&self, offset: usize, count: usize) -> *mut T {
        let fits = size_of::<T>()
            .checked_mul(count)
            .and_then(|bytes| bytes.checked_add(offset))
            .is_some_and(|end| end <= self.len);
        assert!(fits && offset % align_of::<T>() == 0, "a view outside its mapping");
        self.base.as_ptr().wrapping_add(offset).cast()
    }

    /// Writes a value, while nobody else looks.
    pub fn put<T: Shareable>(&mut self, offset: usize, value: T) {
        // SAFETY: `at` has checked that the place is inside and aligned; `&mut self`: no references exist in this process,
        // and there is none in another yet.
        unsafe { self.at::<T>(offset, 1).write(value) }
    }

    /// What lies at `offset`.
    pub fn view<T: Shareable>(&self, offset: usize) -> &T {
        // SAFETY: `at` has checked that the place is inside and aligned; memory begins as zeroes, which are a value.
        unsafe { &*self.at::<T>(offset, 1) }
    }

    /// `count` values that lie from `offset` on.
    pub fn slice<T: Shareable>(&self, offset: usize, count: usize) -> &[T] {
        // SAFETY: as in `view`.
        unsafe { std::slice::from_raw_parts(self.at::<T>(offset, count), count) }
    }

    /// Copies bytes in. The processes that map this have agreed that nobody else is there now.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let place = self.at::<u8>(offset, bytes.len());
        // SAFETY: `at` has checked that the range is inside; nobody else is there, as agreed.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
    }

    /// A range that nobody writes to now, as the processes that map this have agreed.
    pub fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: `at` has checked that the range is inside; nobody writes there, as agreed.
        unsafe { std::slice::from_raw_parts(self.at::<u8>(offset, len), len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and is unmapped here, once; references into it cannot outlive `self`.
        unsafe { libc::munmap(self.base().cast(), self.len) };
    }
}

/// Whose a range of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Several processes': each maps a page for itself, though another has filled it.
    Shared,
    /// This process's own: a fork has left its pages to be copied at the first write.
    Own,
}

/// From so many bytes on it is worth while to have the system map a range in one go, rather than page by page as they are
/// touched: that costs 2.2 µs a page here, three times what it takes to copy one.
const WORTH_POPULATING: usize = 64 << 10;

/// Maps the whole pages of a range that is about to be read or written. No content changes. Where the system cannot, pages
/// fault as they are used.
///
/// Shared pages are asked for as if to be read: then one fault maps all present ones of sixteen (0.06 µs a page, against 0.15
/// to 0.3 as if to be written), and maps them writable, since nobody keeps count of writes to memory without a disk behind it.
pub fn populate(address: usize, len: usize, owner: Owner) {
    if len < WORTH_POPULATING {
        return;
    }
    let begin = address.next_multiple_of(page());
    let end = (address + len) / page() * page();
    system::populate(begin, end - begin, owner == Owner::Own);
}

/// Whether this process may have a file with `len` bytes from `offset` on. One beyond RLIMIT_FSIZE would not only be refused:
/// the system would send the whole process a signal that ends it.
pub fn within_file_limit(offset: u64, len: usize) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } == 0;
    if !known || limit.rlim_cur == libc::RLIM_INFINITY || offset.saturating_add(len as u64) <= limit.rlim_cur
    {
        return Ok(());
    }
    let most = limit.rlim_cur;
    Err(no_memory(
        len,
        &format!("this process may have no file larger than {most} bytes (RLIMIT_FSIZE): raise `ulimit -f`"),
    ))
}

fn no_memory(bytes: usize, why: &str) -> Error {
    Error::new(Status::ERR_OUT_OF_MEMORY, format!("no {bytes} bytes of shared memory: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn a_mapping_begins_as_zeroes_and_is_whole_pages() {
        let mut mapping = Mapping::anonymous(page() + 1).unwrap();
        assert_eq!(mapping.len(), 2 * page());
        assert_eq!(mapping.view::<AtomicU64>(8).load(Ordering::Relaxed), 0);
        mapping.put(8, AtomicU64::new(7));
        assert_eq!(mapping.slice::<AtomicU64>(0, 2)[1].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn populating_leaves_contents_alone_and_cannot_fail() {
        let len = 2 * WORTH_POPULATING;
        let mut bytes = vec![7_u8; len];
        let mapping = Mapping::anonymous(len).unwrap();
        for owner in [Owner::Shared, Owner::Own] {
            populate(bytes.as_mut_ptr().expose_provenance() + 1, len - 2, owner);
            populate(mapping.base().expose_provenance(), len, owner);
            populate(0, len, owner);
        }
        assert!(bytes.iter().all(|byte| *byte == 7));
        assert_eq!(mapping.view::<AtomicU64>(len - 8).load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        for bytes in [usize::MAX, isize::MAX as usize] {
            assert_eq!(Mapping::anonymous(bytes).unwrap_err().status, Status::ERR_OUT_OF_MEMORY);
        }
    }

    #[test]
    #[should_panic(expected = "outside its mapping")]
    fn a_view_beyond_the_end_is_refused() {
        let mapping = Mapping::anonymous(1).unwrap();
        mapping.slice::<AtomicU64>(0, page() / 8 + 1);
    }
}
