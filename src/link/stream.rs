//! A stream of bytes between a caller and a helper process, with descriptors beside them; and a pipe for what the helper
//! prints. Neither side of the stream ever waits inside a call here for longer than it says.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Room for one descriptor beside the bytes.
#[repr(C, align(8))]
struct Beside([u8; 24]);

// SAFETY: plain arithmetic.
const _: () = assert!(size_of::<Beside>() >= unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize);

/// Two ends, closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are nobody else's once made.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) != 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// A pipe, closed on exec: the end to read from, which does not block, and the end to write to.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are nobody else's once made; the flags are those of the reading end alone.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(io::Error::last_os_error());
        }
        let (read, write) = (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]));
        match libc::fcntl(read.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) {
            0 => Ok((read, write)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Sends all of `parts`, with a descriptor beside the first byte if there is one. Fails with `TimedOut` where the other side
/// takes nothing for as long as `patience`: then a part of the bytes may have gone, and the stream is of no more use.
pub fn send(
    socket: BorrowedFd,
    parts: &[&[u8]],
    mut file: Option<BorrowedFd>,
    patience: Duration,
) -> io::Result<()> {
    let mut until = Instant::now() + patience;
    for part in parts {
        let mut left = *part;
        while !left.is_empty() {
            match send_some(socket, left, file) {
                Ok(sent) => {
                    left = &left[sent..];
                    file = None;
                    until = Instant::now() + patience;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let rest = until.saturating_duration_since(Instant::now());
                    if rest.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    wait_for_room(socket, rest);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn send_some(socket: BorrowedFd, bytes: &[u8], file: Option<BorrowedFd>) -> io::Result<usize> {
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

fn wait_for_room(socket: BorrowedFd, most: Duration) {
    let mut polled = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let most = i32::try_from(most.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: one entry, as said.
    unsafe { libc::poll(&mut polled, 1, most) };
}

/// Takes what has arrived, without waiting: how many bytes (0 at the end of the stream), and the descriptor that came beside
/// one of them.
pub fn receive(socket: BorrowedFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut beside = Beside([0; 24]);
    // SAFETY: as in `send_some`, and the bytes are written to; a descriptor that came is nobody else's.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut beside).cast();
        message.msg_controllen = size_of::<Beside>() as _;
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
        let received = loop {
            match usize::try_from(libc::recvmsg(socket.as_raw_fd(), &mut message, flags)) {
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

/// In a forked child: closes its copy of a descriptor that is the parent's. Whoever owns it must never be dropped here.
pub fn close_in_child(file: &OwnedFd) {
    // SAFETY: the descriptor is open, and nobody in this process uses it or closes it again, as the caller promises by
    // forgetting its owner.
    unsafe { libc::close(file.as_fd().as_raw_fd()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn bytes_arrive_in_order_and_a_descriptor_with_the_first() {
        let (one, other) = pair().unwrap();
        let file = super::super::segment::sealed(&[b"he", b"re"]).unwrap();
        send(one.as_fd(), &[b"first"], None, PATIENCE).unwrap();
        send(one.as_fd(), &[b"sec", b"ond"], Some(file.as_fd()), PATIENCE).unwrap();
        drop(one);
        let (mut bytes, mut files) = (Vec::<u8>::new(), Vec::new());
        loop {
            let mut some = [0; 4];
            let (count, file) = receive(other.as_fd(), &mut some).unwrap();
            files.extend(file);
            bytes.extend(&some[..count]);
            if count == 0 {
                break;
            }
        }
        assert_eq!(bytes, b"firstsecond");
        assert_eq!(files.len(), 1);
        let mut text = [0; 4];
        let mut file = std::fs::File::from(files.remove(0));
        file.rewind().unwrap();
        file.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"here");
    }

    #[test]
    fn nobody_waits_for_ever_for_one_who_takes_nothing() {
        let (one, other) = pair().unwrap();
        let much = vec![0; 16 << 20];
        let error = send(one.as_fd(), &[&much], None, Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(receive(one.as_fd(), &mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(other);
        assert!(send(one.as_fd(), &[b"x"], None, PATIENCE).is_err());
    }
}
