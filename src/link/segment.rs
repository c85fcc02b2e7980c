//! Nameless files in memory, for what two processes both map.

use crate::shared::{Mapping, nameless_file, within_file_limit};
use crate::status::{Error, Result, Status};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

fn refused(len: usize, what: &str, error: &io::Error) -> Error {
    let message = format!("no {len} bytes of memory to share with a worker process: {what}: {error}");
    Error::new(Status::ERR_OUT_OF_MEMORY, message)
}

/// A new file of `len` zeroes, and its mapping here.
pub fn create(len: usize) -> Result<(OwnedFd, Mapping)> {
    let refused = |what: &str, error: io::Error| refused(len, what, &error);
    within_file_limit(0, len)?;
    let file = nameless_file(c"pb-worker").map_err(|error| refused("memfd_create", error))?;
    let too_large = |_| refused("ftruncate", io::Error::from_raw_os_error(libc::EFBIG));
    let length = libc::off_t::try_from(len).map_err(too_large)?;
    // SAFETY: the descriptor is ours.
    if unsafe { libc::ftruncate(file.as_raw_fd(), length) } != 0 {
        return Err(refused("ftruncate", io::Error::last_os_error()));
    }
    let mapping = Mapping::of_file(file.as_fd(), 0, len)?;
    Ok((file, mapping))
}

/// A file with these bytes, which nobody can change any more.
pub fn sealed(parts: &[&[u8]]) -> Result<OwnedFd> {
    let len = parts.iter().map(|part| part.len()).sum();
    within_file_limit(0, len)?;
    // SAFETY: the name is nul-terminated; a new descriptor is nobody else's.
    let file = unsafe {
        let fd = libc::memfd_create(c"pb-body".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        if fd < 0 {
            return Err(refused(len, "memfd_create", &io::Error::last_os_error()));
        }
        OwnedFd::from_raw_fd(fd)
    };
    let mut file = File::from(file);
    for part in parts {
        file.write_all(part).map_err(|error| refused(len, "write", &error))?;
    }
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: the descriptor is ours.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(file.into()),
        _ => Err(refused(len, "F_ADD_SEALS", &io::Error::last_os_error())),
    }
}
