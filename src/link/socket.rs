//! The socket between a caller and a worker: short notes from the caller, most of which bring a descriptor; a greeting from the
//! worker. Each is one packet (SOCK_SEQPACKET), so none arrives by halves.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum About {
    /// The segment with [`super::Control`].
    Control = 1,
    /// The page of [`super::Bell`]s.
    Bells,
    /// An area; `id` is its number, `slot` whose it is.
    Area,
    /// A ctx; `id` is its number.
    Ctx,
    /// A block of `pb_alloc_shared`; `id` is its number.
    Block,
    /// That block is gone.
    Forget,
    /// How long to wait for work: `len` is milliseconds.
    Patience,
    /// From the worker: a reply that is too long for its place, of `len` bytes.
    Reply,
}

/// A note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub about: About,
    /// Which one.
    pub id: u64,
    /// Bytes.
    pub len: u64,
    /// Which slot.
    pub slot: u64,
}

/// Bytes of a note, and of a greeting.
const NOTE: usize = 32;

impl Note {
    fn words(self) -> [u64; 4] {
        [self.about as u64, self.id, self.len, self.slot]
    }

    fn from_bytes(bytes: &[u8; NOTE]) -> Option<Note> {
        let word =
            |at: usize| bytes[at * 8..at * 8 + 8].try_into().map(u64::from_ne_bytes).unwrap_or_default();
        let (about, id, len, slot) = (word(0), word(1), word(2), word(3));
        use About::*;
        let all = [Control, Bells, Area, Ctx, Block, Forget, Patience, Reply];
        let about = all.into_iter().find(|known| *known as u64 == about)?;
        Some(Note { about, id, len, slot })
    }
}

/// Two ends, closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are nobody else's once made.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr())
            != 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Room for one descriptor beside a message.
#[repr(C, align(8))]
struct Beside([u8; 24]);

/// Sends a note, with a descriptor if there is one. Never blocks: a worker that takes no notes is as good as lost.
pub fn send(socket: BorrowedFd, note: Note, file: Option<BorrowedFd>) -> io::Result<()> {
    let mut words = note.words();
    let mut part = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&words) };
    let mut beside = Beside([0; 24]);
    // SAFETY: all zeroes is a value of msghdr; the pointers in it live over the call; the control buffer has room for the header
    // and one descriptor (checked below at compile time).
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
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

// SAFETY: plain arithmetic.
const _: () = assert!(size_of::<Beside>() >= unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize);

/// Waits for a note. `None` at the end of the line.
pub fn receive(socket: BorrowedFd) -> Option<(Note, Option<OwnedFd>)> {
    let mut bytes = [0; NOTE];
    let (received, file) = take(socket, &mut bytes, 0);
    if received != Ok(NOTE) {
        return None;
    }
    Some((Note::from_bytes(&bytes)?, file))
}

/// Receives a packet, with the descriptor that came beside it.
fn take(
    socket: BorrowedFd,
    bytes: &mut [u8; NOTE],
    flags: i32,
) -> (Result<usize, io::ErrorKind>, Option<OwnedFd>) {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut beside = Beside([0; 24]);
    // SAFETY: as in `send`; a descriptor that came is nobody else's.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut beside).cast();
        message.msg_controllen = size_of::<Beside>() as _;
        let received = loop {
            let received = libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC | flags);
            if received >= 0 {
                break received as usize;
            }
            let error = io::Error::last_os_error().kind();
            if error != io::ErrorKind::Interrupted {
                return (Err(error), None);
            }
        };
        let header = if received > 0 { libc::CMSG_FIRSTHDR(&message) } else { std::ptr::null_mut() };
        let has_file = !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS;
        let file =
            has_file.then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()));
        (Ok(received), file)
    }
}

/// The greeting of this version: its number, filled up with zeroes. No note begins so.
pub fn greeting() -> [u8; NOTE] {
    let mut text = [0; NOTE];
    for (to, from) in text.iter_mut().zip(concat!("pb ", env!("CARGO_PKG_VERSION")).bytes()) {
        *to = from;
    }
    text
}

/// The worker's first words.
pub fn greet(socket: BorrowedFd) {
    let text = greeting();
    // SAFETY: the bytes live over the call.
    unsafe { libc::send(socket.as_raw_fd(), text.as_ptr().cast(), text.len(), libc::MSG_NOSIGNAL) };
}

/// The state of the line, as the caller sees it.
#[derive(Debug)]
pub enum Line {
    /// The worker has said nothing.
    Quiet,
    /// The worker has said this.
    Greeting(Vec<u8>),
    /// The worker has sent a reply as a file.
    Reply(OwnedFd),
    /// The worker has closed its end.
    Closed,
}

/// Looks, without waiting, whether the worker has said something.
pub fn look(socket: BorrowedFd) -> Line {
    let mut bytes = [0; NOTE];
    let (received, file) = take(socket, &mut bytes, libc::MSG_DONTWAIT);
    match received {
        Ok(0) => Line::Closed,
        Ok(count) => match (Note::from_bytes(&bytes), file) {
            (Some(Note { about: About::Reply, .. }), Some(file)) if count == NOTE => Line::Reply(file),
            _ => Line::Greeting(bytes[..count].to_vec()),
        },
        Err(io::ErrorKind::WouldBlock) => Line::Quiet,
        Err(_) => Line::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    #[test]
    fn notes_arrive_with_their_descriptors() {
        let (one, other) = pair().unwrap();
        let (file, _) = super::super::segment::create(4096).unwrap();
        std::fs::File::from(file.try_clone().unwrap()).write_all(b"here").unwrap();
        let note = Note { about: About::Area, id: 7, len: 4096, slot: 1 };
        send(one.as_fd(), note, Some(file.as_fd())).unwrap();
        send(one.as_fd(), Note { about: About::Forget, ..note }, None).unwrap();
        let (received, file) = receive(other.as_fd()).unwrap();
        assert_eq!(received, note);
        let mut text = [0; 4];
        let mut file = std::fs::File::from(file.unwrap());
        file.rewind().unwrap();
        file.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"here");
        assert!(matches!(receive(other.as_fd()), Some((Note { about: About::Forget, .. }, None))));
        drop(one);
        assert!(receive(other.as_fd()).is_none());
    }

    #[test]
    fn the_caller_sees_a_greeting_and_the_end() {
        let (one, other) = pair().unwrap();
        assert!(matches!(look(one.as_fd()), Line::Quiet));
        greet(other.as_fd());
        assert!(matches!(look(one.as_fd()), Line::Greeting(words) if words == greeting()));
        let (file, _) = super::super::segment::create(4096).unwrap();
        send(other.as_fd(), Note { about: About::Reply, id: 0, len: 9, slot: 0 }, Some(file.as_fd()))
            .unwrap();
        assert!(matches!(look(one.as_fd()), Line::Reply(_)));
        drop(other);
        assert!(matches!(look(one.as_fd()), Line::Closed));
    }
}
