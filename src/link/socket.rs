//! The socket between a caller and a worker: short notes from the caller, most of which bring a descriptor; a greeting from the
//! worker. Each is one packet (SOCK_SEQPACKET), so none arrives by halves.

use super::rights;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

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
    fn to_bytes(self) -> [u8; NOTE] {
        let mut bytes = [0; NOTE];
        for (to, word) in bytes.chunks_exact_mut(8).zip([self.about as u64, self.id, self.len, self.slot]) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
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
    rights::pair(libc::SOCK_SEQPACKET)
}

/// Sends a note, with a descriptor if there is one. Never blocks: a worker that takes no notes is as good as lost.
pub fn send(socket: BorrowedFd, note: Note, file: Option<BorrowedFd>) -> io::Result<()> {
    rights::send(socket, &note.to_bytes(), file).map(drop)
}

/// Waits for a note. `None` at the end of the line.
pub fn receive(socket: BorrowedFd) -> Option<(Note, Option<OwnedFd>)> {
    let mut bytes = [0; NOTE];
    let (received, file) = rights::receive(socket, &mut bytes, 0).ok()?;
    if received != NOTE {
        return None;
    }
    Some((Note::from_bytes(&bytes)?, file))
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
    match rights::receive(socket, &mut bytes, libc::MSG_DONTWAIT) {
        Ok((0, _)) => Line::Closed,
        Ok((count, file)) => match (Note::from_bytes(&bytes), file) {
            (Some(Note { about: About::Reply, .. }), Some(file)) if count == NOTE => Line::Reply(file),
            _ => Line::Greeting(bytes[..count].to_vec()),
        },
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Line::Quiet,
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
