//! One thread's events: the thread appends, anybody reads, and neither ever waits for the other.
//!
//! Events lie in blocks of a fixed size. Only the [`Writer`] stores into a block: first the words of an event (Relaxed),
//! then the block's `len` (Release). A reader loads `len` (Acquire) and looks at no event beyond it, so it never sees
//! half of one; what the thread appends meanwhile is not seen, or is seen whole. A slot is written once in its life, so
//! what has been read cannot change either. The list of blocks has a lock, which the writer takes once a block.

use super::event::{WORDS, Words};
use crate::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};
use std::sync::{Arc, PoisonError};

/// Events in a block: 64 KiB of them, so that a new one costs a few microseconds, once in a thousand events.
pub(super) const BLOCK: usize = if cfg!(loom) { 1 } else { 1024 };

struct Block {
    slots: Box<[[AtomicU64; WORDS]]>,
    len: AtomicUsize,
}

impl Block {
    fn new() -> Arc<Block> {
        let slot = || std::array::from_fn(|_| AtomicU64::new(0));
        Arc::new(Block { slots: (0..BLOCK).map(|_| slot()).collect(), len: AtomicUsize::new(0) })
    }
}

/// The readers' end.
#[derive(Default)]
pub(super) struct Buffer {
    blocks: Mutex<Vec<Arc<Block>>>,
    dropped: AtomicU64,
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Block>>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `each` with the events appended so far, in order, until it fails.
    pub fn read<E>(&self, mut each: impl FnMut(Words) -> Result<(), E>) -> Result<(), E> {
        let blocks = self.lock().clone();
        for block in blocks {
            let len = block.len.load(Ordering::Acquire);
            for slot in &block.slots[..len] {
                each(std::array::from_fn(|word| slot[word].load(Ordering::Relaxed)))?;
            }
        }
        Ok(())
    }

    /// Events for which there was no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The writer's end, which only one thread has.
pub(super) struct Writer {
    buffer: Arc<Buffer>,
    /// The block that is being filled.
    last: Option<Arc<Block>>,
}

impl Writer {
    pub fn new(buffer: Arc<Buffer>) -> Self {
        Writer { buffer, last: None }
    }

    /// Appends an event. `may_grow` is asked when that needs a new block; if it says no, the event is dropped and counted.
    pub fn push(&mut self, event: Words, may_grow: impl FnOnce() -> bool) {
        // Relaxed: nobody but this thread stores it.
        let full = |block: &Arc<Block>| block.len.load(Ordering::Relaxed) == BLOCK;
        if self.last.as_ref().is_none_or(full) {
            if !may_grow() {
                self.buffer.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let block = Block::new();
            self.buffer.lock().push(block.clone());
            self.last = Some(block);
        }
        let Some(block) = &self.last else { return };
        let len = block.len.load(Ordering::Relaxed);
        for (slot, word) in block.slots[len].iter().zip(event) {
            slot.store(word, Ordering::Relaxed);
        }
        block.len.store(len + 1, Ordering::Release);
    }
}

#[cfg(test)]
pub(super) fn read_all(buffer: &Buffer) -> Vec<Words> {
    let mut found = Vec::new();
    let read: Result<(), ()> = buffer.read(|event| {
        found.push(event);
        Ok(())
    });
    assert_eq!(read, Ok(()));
    found
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_whole_and_in_order() {
        let buffer = Arc::new(Buffer::default());
        let mut writer = Writer::new(buffer.clone());
        let events: Vec<Words> = (0..3 * BLOCK as u64 + 1).map(|n| [n; WORDS]).collect();
        events.iter().for_each(|event| writer.push(*event, || true));
        assert_eq!(read_all(&buffer), events);
        assert_eq!(buffer.dropped(), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let buffer = Arc::new(Buffer::default());
        let mut writer = Writer::new(buffer.clone());
        let mut blocks = 2;
        for n in 0..3 * BLOCK as u64 {
            writer.push([n; WORDS], || {
                blocks -= 1;
                blocks >= 0
            });
        }
        assert_eq!(read_all(&buffer).len(), 2 * BLOCK);
        assert_eq!(buffer.dropped(), BLOCK as u64);
    }

    #[test]
    fn reading_ends_with_the_first_failure() {
        let buffer = Arc::new(Buffer::default());
        let mut writer = Writer::new(buffer.clone());
        (0..3).for_each(|n| writer.push([n; WORDS], || true));
        assert_eq!(buffer.read(|event| if event[0] == 1 { Err(event[0]) } else { Ok(()) }), Err(1));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    /// Whoever stops a timeline reads while the thread still writes: it sees the first events, each of them whole.
    #[test]
    fn loom_a_reader_sees_whole_events_in_order() {
        loom::model(|| {
            let buffer = Arc::new(Buffer::default());
            let mut writer = Writer::new(buffer.clone());
            let thread = loom::thread::spawn(move || {
                writer.push([1; WORDS], || true);
                writer.push([2; WORDS], || true);
            });
            let seen = read_all(&buffer);
            assert_eq!(seen, [[1; WORDS], [2; WORDS]][..seen.len()]);
            thread.join().unwrap();
            assert_eq!(read_all(&buffer).len(), 2);
        });
    }
}
