//! Nameless files in memory, for what two processes both map.

use crate::shared::{Mapping, within_file_limit};
use crate::status::{Error, Result, Status};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// A new file of `len` zeroes, and its mapping here.
pub fn create(len: usize) -> Result<(OwnedFd, Mapping)> {
    let refused = |what: &str| {
        Error::new(
            Status::ERR_OUT_OF_MEMORY,
            format!(
                "no {len} bytes of memory to share with a worker process: {what}: {}",
                io::Error::last_os_error()
            ),
        )
    };
    within_file_limit(0, len)?;
    // SAFETY: the name is nul-terminated; a new descriptor is nobody else's.
    let file = unsafe {
        let fd = libc::memfd_create(c"pb-worker".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(refused("memfd_create"));
        }
        OwnedFd::from_raw_fd(fd)
    };
    let length = libc::off_t::try_from(len).map_err(|_| refused("ftruncate"))?;
    // SAFETY: the descriptor is ours.
    if unsafe { libc::ftruncate(file.as_raw_fd(), length) } != 0 {
        return Err(refused("ftruncate"));
    }
    let mapping = Mapping::of_file(file.as_fd(), 0, len)?;
    Ok((file, mapping))
}
