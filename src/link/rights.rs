//! Bytes through a local socket with a descriptor beside them (SCM_RIGHTS): what notes and streams have in common.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Room for one descriptor beside the bytes.
#[repr(C, align(8))]
struct Beside([u8; 24]);

// SAFETY: plain arithmetic.
const _: () = assert!(size_of::<Beside>() >= unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize);

/// Two ends, closed on exec. `kind` is SOCK_STREAM or SOCK_SEQPACKET.
pub fn pair(kind: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are nobody else's once made.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Sends what there is room for, without waiting and without SIGPIPE: how many bytes. The descriptor goes with the first.
pub fn send(socket: BorrowedFd, bytes: &[u8], file: Option<BorrowedFd>) -> io::Result<usize> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut beside = Beside([0; 24]);
    // SAFETY: all zeroes is a value of msghdr; the pointers in it live over the call, which only reads the bytes; the control
    // buffer has room for the header and one descriptor (checked above at compile time).
    let sent = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        if let Some(file) = file {
            message.msg_control = (&raw mut beside).cast();
            message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(file.as_raw_fd());
        }
        libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives: how many bytes (0 at the end), and the descriptor that came beside them. Waits unless `flags` has MSG_DONTWAIT.
pub fn receive(socket: BorrowedFd, bytes: &mut [u8], flags: i32) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut beside = Beside([0; 24]);
    // SAFETY: as in `send`, and the bytes are written to; a descriptor that came is nobody else's.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut beside).cast();
        message.msg_controllen = size_of::<Beside>() as _;
        let received = loop {
            let received = libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC | flags);
            match usize::try_from(received) {
                Ok(received) => break received,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        };
        let header = if received > 0 { libc::CMSG_FIRSTHDR(&message) } else { std::ptr::null_mut() };
        let has_file = !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS;
        let file =
            has_file.then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()));
        Ok((received, file))
    }
}
