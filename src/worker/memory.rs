//! What a worker has mapped of its caller's memory, as the notes on the socket tell.

use crate::link::segment;
use crate::link::socket::{self, About, Note};
use crate::link::{Bell, CTX, CTX_KEPT, Control, SLOTS, START_NOTES};
use crate::message::Pieces;
use crate::shared::Mapping;
use crate::status::{Error, Result, Status};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// A copy of a ctx.
struct Ctx {
    id: u64,
    mapping: Mapping,
    /// The call that last used it: what tasks of an earlier one wrote is not for the next.
    call: u64,
}

pub(super) struct Memory {
    socket: OwnedFd,
    received: u64,
    control: Option<Arc<Mapping>>,
    bells: Option<Mapping>,
    pub patience: Duration,
    areas: [Option<Arc<Mapping>>; SLOTS],
    ctxs: VecDeque<Ctx>,
    blocks: HashMap<u64, Mapping>,
}

impl Memory {
    pub fn new(socket: OwnedFd) -> Self {
        Memory {
            socket,
            received: 0,
            control: None,
            bells: None,
            patience: Duration::from_secs(300),
            areas: [const { None }; SLOTS],
            ctxs: VecDeque::new(),
            blocks: HashMap::new(),
        }
    }

    /// Waits for the first notes: the head of the worker's segment, and the bells. `None` where one did not come, or could not
    /// be mapped.
    pub fn begin(&mut self) -> Option<(Arc<Mapping>, Mapping)> {
        if !self.take_notes(START_NOTES) {
            return None;
        }
        Some((self.control.clone()?, self.bells.take()?))
    }

    /// Takes notes until there were so many. False at the end of the line.
    pub fn take_notes(&mut self, count: u64) -> bool {
        while self.received < count {
            let Some((note, file)) = socket::receive(self.socket.as_fd()) else { return false };
            self.received += 1;
            // What could not be mapped is missed when it is asked for.
            let _ = self.take(note, file);
        }
        true
    }

    fn take(&mut self, note: Note, file: Option<OwnedFd>) -> Result<()> {
        let len = usize::try_from(note.len).unwrap_or(usize::MAX);
        let shared = || {
            let file = file.as_ref().ok_or_else(|| missing(note.id))?;
            Mapping::of_file(file.as_fd(), 0, len)
        };
        match note.about {
            About::Control if len >= size_of::<Control>() => self.control = Some(Arc::new(shared()?)),
            About::Bells if len >= size_of::<Bell>() => self.bells = Some(shared()?),
            About::Control | About::Bells | About::Reply => {}
            About::Area => {
                if let Some(area) = self.areas.get_mut(note.slot as usize) {
                    // The old one goes first: together they may be more than there is room for.
                    *area = None;
                    *area = Some(Arc::new(shared()?));
                }
            }
            About::Ctx => {
                self.ctxs.truncate(CTX_KEPT - 1);
                let file = file.as_ref().ok_or_else(|| missing(note.id))?;
                let mapping = Mapping::private(file.as_fd(), len)?;
                self.ctxs.push_front(Ctx { id: note.id, mapping, call: 0 });
            }
            About::Block => drop(self.blocks.insert(note.id, shared()?)),
            About::Forget => drop(self.blocks.remove(&note.id)),
            About::Patience => self.patience = Duration::from_millis(note.len),
        }
        Ok(())
    }

    /// Sends a reply that is too long for its place.
    pub fn send_reply(&self, reply: &Pieces) -> Result<()> {
        let (file, mapping) = segment::create(reply.len())?;
        reply.iter().for_each(|(at, piece)| mapping.write(at, piece));
        let note = Note { about: About::Reply, id: 0, len: reply.len() as u64, slot: 0 };
        let sent = socket::send(self.socket.as_fd(), note, Some(file.as_fd()));
        sent.map_err(|error| Error::new(Status::ERR_IO, error.to_string()))
    }

    /// The area of a slot; `None` where it could not be mapped.
    pub fn area(&self, slot: usize) -> Option<Arc<Mapping>> {
        self.areas[slot].clone()
    }

    /// The address of a range of a ctx, or of a block.
    pub fn at(&mut self, block: u64, call: u64, offset: u64, len: u64) -> Result<usize> {
        let mapping = match block & CTX {
            0 => self.blocks.get(&block).ok_or_else(|| missing(block))?,
            _ => {
                let known = self.ctxs.iter_mut().find(|ctx| ctx.id == block).ok_or_else(|| missing(block))?;
                if known.call != call {
                    known.mapping.forget_changes();
                    known.call = call;
                }
                &known.mapping
            }
        };
        range(mapping, offset, len)
    }
}

/// The address of a range of a mapping.
pub(super) fn range(mapping: &Mapping, offset: u64, len: u64) -> Result<usize> {
    let end = offset.checked_add(len).filter(|end| *end <= mapping.len() as u64);
    let outside = || Error::new(Status::ERR_INTERNAL, "a chunk refers to memory outside what it was given");
    end.map(|_| mapping.base() as usize + offset as usize).ok_or_else(outside)
}

fn missing(block: u64) -> Error {
    let what = if block & CTX != 0 { "ctx" } else { "a block of pb_alloc_shared" };
    Error::new(
        Status::ERR_OUT_OF_MEMORY,
        format!(
            "a worker process could not map {what}: it has no address space left (RLIMIT_AS?), or no memory"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::BELLS;

    fn first_notes(caller: &OwnedFd, bells: Option<&OwnedFd>) {
        let (control, _) = segment::create(size_of::<Control>()).unwrap();
        let note = |about, len: usize| Note { about, id: 0, len: len as u64, slot: 0 };
        let tell = |note, file: Option<&OwnedFd>| socket::send(caller.as_fd(), note, file.map(AsFd::as_fd));
        tell(note(About::Patience, 1000), None).unwrap();
        tell(note(About::Bells, BELLS * size_of::<Bell>()), bells).unwrap();
        tell(note(About::Control, size_of::<Control>()), Some(&control)).unwrap();
    }

    #[test]
    fn a_worker_begins_with_all_that_its_caller_shares() {
        let (caller, worker) = socket::pair().unwrap();
        let (bells, _) = segment::create(BELLS * size_of::<Bell>()).unwrap();
        first_notes(&caller, Some(&bells));
        let mut memory = Memory::new(worker);
        assert!(memory.begin().is_some());
        assert_eq!(memory.patience, Duration::from_secs(1));
    }

    #[test]
    fn it_ends_rather_than_waits_where_a_part_is_missing() {
        let (caller, worker) = socket::pair().unwrap();
        first_notes(&caller, None);
        assert!(Memory::new(worker).begin().is_none());
    }
}
