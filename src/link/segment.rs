//! Nameless files in memory, for what two processes both map.

use crate::shared::{Mapping, nameless_file, within_file_limit};
use crate::status::{Error, Result, Status};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A new file of `len` zeroes, and its mapping here.
pub fn create(len: usize) -> Result<(OwnedFd, Mapping)> {
    let refused = |what: &str, error: io::Error| {
        Error::new(
            Status::ERR_OUT_OF_MEMORY,
            format!("no {len} bytes of memory to share with a worker process: {what}: {error}"),
        )
    };
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
