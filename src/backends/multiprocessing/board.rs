//! What parent and children of one map share: the claims, the word to stop, and for each child what it is doing.
//!
//! Who writes: the parent makes the board before it forks, and later only `stop`, `asleep`, a ring's tail, and the slot of a
//! child that is dead. Children claim from `claims` or `again`, and each writes its own slot and ring. Nothing here is a
//! lock, so a child may die at any point and hold up nobody.
//!
//! What a dead child leaves: `running` is the item that it was in, plus 1 (0: between items). All items from
//! `unpublished` up to that one have succeeded, though their end may not be in the ring yet: the child moves
//! `unpublished` before it starts the first item of a chunk, publishes what failed before it starts the next item, and the
//! items' outputs are written before the `Release` store of the next `running`. Items that it had claimed and not
//! started are found as gaps: claimed, and never accounted for (`books.rs`).

use super::ring::{RING_WORDS, Ring};
use crate::job::Claims;
use crate::shared::{Mapping, Shareable, page};
use crate::status::{Error, Result, Status};
use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The part that all children share.
pub(super) struct Board {
    /// Not 0: no further item starts.
    pub stop: AtomicU32,
    /// Not 0 while the parent waits for its bell.
    pub asleep: CachePadded<AtomicU32>,
    /// Of the first round: all items.
    pub claims: CachePadded<Claims>,
    /// Of later rounds: how many of their list were claimed.
    pub again: CachePadded<AtomicUsize>,
}

// SAFETY: integers and atomics. The plain integers in `claims` are written before the first fork; its other ranges, which would
// lie elsewhere, stay empty, since these claims are never spread.
unsafe impl Shareable for Board {}

/// The part of one child.
pub(super) struct Slot {
    /// The item that runs, plus 1; 0 between items.
    pub running: AtomicUsize,
    /// First item of the chunk whose end is not in the ring.
    pub unpublished: AtomicUsize,
    /// When the item that runs was started, in nanoseconds of the job's clock, plus 1; kept only where items have a limit.
    pub since: AtomicU64,
    /// Not 0 once the child has nothing left to do and is about to leave.
    pub finished: AtomicU32,
    /// Words of the ring that were ever written: by the child.
    pub head: CachePadded<AtomicU64>,
    /// Words of the ring that were ever read: by the parent.
    pub tail: CachePadded<AtomicU64>,
}

// SAFETY: atomics only.
unsafe impl Shareable for CachePadded<Slot> {}

/// Where everything lies in one mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    slots: usize,
    rings: usize,
    count: usize,
    /// Where outputs begin, on a page of its own.
    pub outputs: usize,
    /// Bytes altogether.
    pub len: usize,
}

impl Layout {
    /// For `count` children and so many bytes of outputs.
    pub fn new(count: usize, output_bytes: usize) -> Result<Layout> {
        let slots = size_of::<Board>().next_multiple_of(align_of::<CachePadded<Slot>>());
        let rings = (slots + count * size_of::<CachePadded<Slot>>()).next_multiple_of(page());
        let outputs = (rings + count * RING_WORDS * 8).next_multiple_of(page());
        let len = outputs.checked_add(output_bytes).filter(|len| *len <= isize::MAX as usize);
        let len = len.ok_or_else(|| {
            Error::new(Status::ERR_OUT_OF_MEMORY, format!("outputs of {output_bytes} bytes: too many"))
        })?;
        Ok(Layout { slots, rings, count, outputs, len })
    }

    /// Writes a fresh board and fresh slots, before the first fork.
    pub fn clear(&self, area: &mut Mapping, claims: Claims) {
        area.put(
            0,
            Board {
                stop: AtomicU32::new(0),
                asleep: CachePadded::default(),
                claims: CachePadded::new(claims),
                again: CachePadded::default(),
            },
        );
        for slot in 0..self.count {
            area.put(self.slots + slot * size_of::<CachePadded<Slot>>(), CachePadded::new(Slot::new()));
        }
    }

    pub fn board<'a>(&self, area: &'a Mapping) -> &'a Board {
        area.view(0)
    }

    pub fn slot<'a>(&self, area: &'a Mapping, slot: usize) -> &'a Slot {
        &area.slice::<CachePadded<Slot>>(self.slots, self.count)[slot]
    }

    pub fn ring<'a>(&self, area: &'a Mapping, slot: usize) -> Ring<'a> {
        let words = area.slice::<AtomicU64>(self.rings + slot * RING_WORDS * 8, RING_WORDS);
        let Slot { head, tail, .. } = self.slot(area, slot);
        Ring { words, head, tail }
    }
}

impl Slot {
    /// Makes it fit for the next child, while it has none.
    pub fn clear(&self) {
        self.running.store(0, Ordering::Relaxed);
        self.unpublished.store(0, Ordering::Relaxed);
        self.since.store(0, Ordering::Relaxed);
        self.finished.store(0, Ordering::Relaxed);
    }

    fn new() -> Slot {
        Slot {
            running: AtomicUsize::new(0),
            unpublished: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            finished: AtomicU32::new(0),
            head: CachePadded::default(),
            tail: CachePadded::default(),
        }
    }
}
