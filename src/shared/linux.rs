//! What Linux has for memory that processes share: files without a name, space in them, pages ahead of time.

use super::page;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An empty file that has no name in a file system; `name` is what `/proc` shows.
pub fn nameless_file(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the name is nul-terminated; a new descriptor is nobody else's.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Gives a range of a file memory of its own.
pub fn allocate(file: BorrowedFd, offset: u64, len: usize) -> io::Result<()> {
    loop {
        // SAFETY: an open descriptor; numbers only.
        let failed = unsafe { libc::fallocate(file.as_raw_fd(), 0, offset as i64, len as i64) } != 0;
        let error = io::Error::last_os_error();
        match failed {
            false => return Ok(()),
            true if error.kind() == io::ErrorKind::Interrupted => {}
            true => return Err(error),
        }
    }
}

/// Takes the memory of a range of whole pages away again; what was there is gone.
pub fn give_back(file: BorrowedFd, offset: u64, len: u64) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: an open descriptor; numbers only. Where it fails the memory stays until the file is gone.
    unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) };
}

/// Bytes of memory and swap; no limit where the system does not tell.
pub fn memory() -> usize {
    // SAFETY: all zeroes is a value, and the call writes into it.
    let info = unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        if libc::sysinfo(&mut info) != 0 {
            return usize::MAX;
        }
        info
    };
    let bytes = (info.totalram + info.totalswap).saturating_mul(u64::from(info.mem_unit));
    usize::try_from(bytes).map_or(usize::MAX, |bytes| bytes.max(page()))
}

/// Maps a range of whole pages, as if each were read or written.
pub fn populate(begin: usize, len: usize, as_if_written: bool) {
    const MADV_POPULATE_READ: i32 = 22;
    const MADV_POPULATE_WRITE: i32 = 23;
    let advice = if as_if_written { MADV_POPULATE_WRITE } else { MADV_POPULATE_READ };
    // SAFETY: populating changes no content, and fails where nothing is mapped.
    unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(begin), len, advice) };
}
