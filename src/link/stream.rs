//! A stream of bytes between a caller and a helper process, with descriptors beside them; and a pipe for what the helper
//! prints. Neither side of the stream ever waits inside a call here for longer than it says.

use super::rights;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Two ends, closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    rights::pair(libc::SOCK_STREAM)
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
            match rights::send(socket, left, file) {
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

fn wait_for_room(socket: BorrowedFd, most: Duration) {
    let mut polled = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let most = i32::try_from(most.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: one entry, as said.
    unsafe { libc::poll(&mut polled, 1, most) };
}

/// Takes what has arrived, without waiting: how many bytes (0 at the end of the stream), and the descriptor that came beside
/// one of them.
pub fn receive(socket: BorrowedFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    rights::receive(socket, bytes, libc::MSG_DONTWAIT)
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
