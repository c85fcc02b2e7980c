//! Results of various sizes, one behind the other: each writer has an arena of its own and no allocation an item.
//!
//! An arena is a list of segments that grow; an item's bytes lie in one piece. It is on the heap, or, for worker processes
//! whose parent is to read the results, in a file that all workers of a map share: each takes ranges from the file's end
//! (an atomic in shared memory), so that no two ever write to the same place, and tells where its items lie by their place
//! in the file.

use super::{Mapping, nameless_file, no_memory, page, pages, system, within_file_limit};
use crate::status::{Error, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const FIRST_SEGMENT: usize = 64 << 10;
/// A segment is larger only where one item is.
const LARGEST_SEGMENT: usize = 16 << 20;
/// What is left behind of an item that moved to a larger segment goes back to the system from this size on.
const WORTH_RETURNING: usize = 1 << 20;

/// Where an item's bytes lie; all zero where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Span {
    place: u64,
    size: u64,
}

/// An item of no bytes.
const EMPTY: Span = Span { place: 1, size: 0 };
/// Set in a place in a file; an address never has this bit.
const IN_FILE: u64 = 1 << 63;

impl Span {
    /// Bytes in this process's memory, which somebody else keeps.
    pub fn of(bytes: &[u8]) -> Span {
        let place = bytes.as_ptr().expose_provenance() as u64;
        if bytes.is_empty() { EMPTY } else { Span { place, size: bytes.len() as u64 } }
    }

    /// Address and size; `file` is the mapping of the whole file. `None` where no item has put anything, or nothing
    /// that can be.
    pub fn find(self, file: Option<&Mapping>) -> Option<(*const u8, usize)> {
        let size = usize::try_from(self.size).ok()?;
        let place = usize::try_from(self.place & !IN_FILE).ok()?;
        match (self.place & IN_FILE != 0, file) {
            _ if self == EMPTY => Some((std::ptr::dangling(), 0)),
            // A worker process may have written nonsense: only what lies in the file is believed.
            (true, Some(file)) => {
                let inside = place.checked_add(size).is_some_and(|end| end <= file.len());
                inside.then(|| (file.base().wrapping_add(place).cast_const(), size))
            }
            (false, None) => (place != 0).then(|| (std::ptr::with_exposed_provenance(place), size)),
            _ => None,
        }
    }
}

/// A file without a name, for the arenas of several processes.
#[derive(Debug)]
pub struct ArenaFile {
    file: OwnedFd,
    /// Holds the file's end, where the next segment begins.
    end: Mapping,
}

impl ArenaFile {
    /// An empty one.
    pub fn new() -> Result<ArenaFile> {
        let end = Mapping::anonymous(size_of::<AtomicU64>())?;
        let refused = |error| no_memory(0, &format!("memfd_create: {error}"));
        let file = nameless_file(c"pb-results").map_err(refused)?;
        Ok(ArenaFile { file, end })
    }

    fn end(&self) -> &AtomicU64 {
        self.end.view(0)
    }

    /// All of it, for reading; `None` while it is empty.
    pub fn map(&self) -> Result<Option<Mapping>> {
        // The file's own size: a task may have written over `end`, and beyond the file there is nothing to read.
        let size = self.file.try_clone().and_then(|file| std::fs::File::from(file).metadata());
        match usize::try_from(size.map_err(|error| no_memory(0, &error.to_string()))?.len()) {
            Ok(0) => Ok(None),
            Ok(len) => Mapping::of_file(self.file.as_fd(), 0, len).map(Some),
            Err(_) => Err(no_memory(usize::MAX, "the results are more than an address space holds")),
        }
    }

    /// A new range, with memory of its own: a file without would kill whoever writes to it when memory runs out.
    fn grow(&self, len: usize) -> Result<(u64, Mapping)> {
        let too_large = || no_memory(len, "more than an address space holds");
        let len = pages(len).ok_or_else(too_large)?;
        let mut offset = self.end().load(Ordering::Relaxed);
        loop {
            within_file_limit(offset, len)?;
            let end = offset.checked_add(len as u64).ok_or_else(too_large)?;
            match self.move_end(offset, end) {
                Ok(_) => break,
                Err(moved) => offset = moved,
            }
        }
        let mapping = system::allocate(self.file.as_fd(), offset, len)
            .map_err(|error| no_memory(len, &error.to_string()))
            .and_then(|()| Mapping::of_file(self.file.as_fd(), offset, len));
        if mapping.is_err() {
            // Where others have gone on behind it meanwhile, the range stays a hole.
            let _ = self.move_end(offset + len as u64, offset);
        }
        Ok((offset, mapping?))
    }

    fn move_end(&self, from: u64, to: u64) -> std::result::Result<u64, u64> {
        self.end().compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
    }

    fn give_back(&self, offset: u64, len: usize) {
        let begin = offset.next_multiple_of(page() as u64);
        let len = (offset + len as u64).saturating_sub(begin);
        if len > 0 {
            system::give_back(self.file.as_fd(), begin, len);
        }
    }
}

#[derive(Debug)]
enum Segment {
    Heap(Vec<u8>),
    /// Mapped, from this place in the file on.
    File(Mapping, u64),
}

impl Segment {
    fn base(&mut self) -> *mut u8 {
        match self {
            Segment::Heap(bytes) => bytes.as_mut_ptr(),
            Segment::File(mapping, _) => mapping.base(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Segment::Heap(bytes) => bytes.capacity(),
            Segment::File(mapping, _) => mapping.len(),
        }
    }
}

/// What a `pb_bytes_fn` writes its item's result to.
#[derive(Debug)]
pub struct Output {
    /// Where it goes.
    pub arena: Arena,
    /// Why something that was to be written is not there.
    pub broken: Option<Error>,
}

/// One writer's results.
#[derive(Debug, Default)]
pub struct Arena {
    /// The last one is written to.
    segments: Vec<Segment>,
    /// Bytes of the last segment that are taken.
    used: usize,
    /// Where the item of the moment begins in it.
    begin: usize,
    file: Option<Arc<ArenaFile>>,
}

impl Arena {
    /// On the heap, or in a file.
    pub fn new(file: Option<Arc<ArenaFile>>) -> Arena {
        Arena { file, ..Arena::default() }
    }

    /// Begins an item.
    pub fn begin(&mut self) {
        self.begin = self.used;
    }

    /// Adds to the item.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let room = self.segments.last().map_or(0, Segment::len) - self.used;
        if bytes.len() > room {
            self.move_on(bytes.len())?;
        }
        if let Some(segment) = self.segments.last_mut() {
            // SAFETY: the segment has room for the bytes behind those that are used, and is nobody else's; the caller's bytes
            // are not in it, since nothing in it was handed out yet but to be read after the map.
            unsafe {
                let to = segment.base().wrapping_add(self.used);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            }
            self.used += bytes.len();
        }
        Ok(())
    }

    /// Ends the item; where it lies.
    pub fn end(&mut self) -> Span {
        let size = (self.used - self.begin) as u64;
        let place = match self.segments.last_mut() {
            None => return EMPTY,
            _ if size == 0 => return EMPTY,
            Some(Segment::File(_, offset)) => IN_FILE | (*offset + self.begin as u64),
            Some(heap) => heap.base().wrapping_add(self.begin).expose_provenance() as u64,
        };
        Span { place, size }
    }

    /// Forgets the item.
    pub fn abandon(&mut self) {
        self.used = self.begin;
    }

    /// Goes on in a new segment that has room for the item so far and `more` bytes.
    fn move_on(&mut self, more: usize) -> Result<()> {
        let item = self.used - self.begin;
        let needed = item.checked_add(more).ok_or_else(|| no_memory(more, "more than memory can hold"))?;
        let last = self.segments.last().map_or(0, Segment::len);
        // Twice the item, where it did not fit: so a large one that comes in small pieces is moved seldom.
        let generous = needed.saturating_mul(2).max((2 * last).clamp(FIRST_SEGMENT, LARGEST_SEGMENT));
        // Where memory is short a part more than the item: with less, every small piece would move all of a large item.
        let mut segment =
            self.segment(generous).or_else(|_| self.segment(needed.saturating_add(item / 8)))?;
        if let Some(old) = self.segments.last_mut() {
            // SAFETY: the item lies in the old segment, and the new one has room for it.
            unsafe {
                let from = old.base().wrapping_add(self.begin).cast_const();
                std::ptr::copy_nonoverlapping(from, segment.base(), item);
            }
            if let (Segment::File(_, offset), Some(file)) = (old, &self.file) {
                if item >= WORTH_RETURNING {
                    file.give_back(*offset + self.begin as u64, item);
                }
                // What was written stays in the file.
                self.segments.clear();
            } else if self.begin == 0 {
                // It held nothing but the item that has moved.
                self.segments.pop();
            }
        }
        self.segments.push(segment);
        (self.begin, self.used) = (0, item);
        Ok(())
    }

    fn segment(&self, len: usize) -> Result<Segment> {
        if let Some(file) = &self.file {
            return file.grow(len).map(|(offset, mapping)| Segment::File(mapping, offset));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|error| no_memory(len, &error.to_string()))?;
        Ok(Segment::Heap(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: usize) -> Vec<u8> {
        (0..number * number % 100_003).map(|i| (i + number) as u8).collect()
    }

    fn write(arena: &mut Arena, bytes: &[u8], piece: usize) -> Span {
        arena.begin();
        bytes.chunks(piece).for_each(|piece| arena.append(piece).unwrap());
        arena.end()
    }

    fn read(span: Span, file: Option<&Mapping>) -> Vec<u8> {
        let (data, size) = span.find(file).unwrap();
        // SAFETY: what was written, or nothing.
        if size == 0 { Vec::new() } else { unsafe { std::slice::from_raw_parts(data, size) }.to_vec() }
    }

    #[test]
    fn items_of_any_size_lie_in_one_piece() {
        let mut arena = Arena::new(None);
        let spans: Vec<_> = (0..500).map(|i| write(&mut arena, &item(i), 1 + i % 5000)).collect();
        spans.iter().enumerate().for_each(|(i, span)| assert_eq!(read(*span, None), item(i)));
        assert_eq!(Span::default().find(None), None);
    }

    #[test]
    fn several_arenas_share_a_file() {
        let file = Arc::new(ArenaFile::new().unwrap());
        assert!(file.map().unwrap().is_none());
        let mut arenas = [0, 1, 2].map(|_| Arena::new(Some(file.clone())));
        let spans: Vec<_> = (0..300).map(|i| write(&mut arenas[i % 3], &item(i), 1 + i % 5000)).collect();
        let large = vec![7; 5 << 20];
        let last = write(&mut arenas[0], &large, 100_000);
        drop(arenas);
        let all = file.map().unwrap();
        spans.iter().enumerate().for_each(|(i, span)| assert_eq!(read(*span, all.as_ref()), item(i)));
        assert_eq!(read(last, all.as_ref()), large);
        assert_eq!(last.find(None), None);
        assert_eq!(Span { place: IN_FILE | 1 << 40, size: 1 }.find(all.as_ref()), None, "outside");
    }

    #[test]
    fn no_more_of_a_file_is_believed_than_there_is() {
        let file = Arc::new(ArenaFile::new().unwrap());
        let span = write(&mut Arena::new(Some(file.clone())), b"first", 5);
        file.end().store(1 << 40, Ordering::Relaxed);
        let all = file.map().unwrap();
        assert_eq!(all.as_ref().unwrap().len(), FIRST_SEGMENT);
        assert_eq!(read(span, all.as_ref()), b"first");
    }

    #[test]
    fn an_abandoned_item_takes_no_room() {
        let mut arena = Arena::new(None);
        let first = write(&mut arena, b"first", 5);
        for _ in 0..1000 {
            arena.begin();
            arena.append(&[0; 1000]).unwrap();
            arena.abandon();
        }
        let second = write(&mut arena, b"second", 1);
        assert_eq!(second.place - first.place, 5);
        assert_eq!(read(first, None), b"first");
    }

    #[test]
    fn what_memory_cannot_hold_is_an_error() {
        for mut arena in [Arena::new(None), Arena::new(Some(Arc::new(ArenaFile::new().unwrap())))] {
            arena.begin();
            arena.append(b"small").unwrap();
            assert!(arena.segment(isize::MAX as usize).is_err());
            assert!(arena.move_on(usize::MAX).is_err());
            arena.append(b" still works").unwrap();
            assert_eq!(arena.end().size, 17);
            // What was refused has taken no room: there is some for a segment more.
            arena.begin();
            arena.append(&[1; 2 * FIRST_SEGMENT]).unwrap();
            assert_eq!(arena.end().size, 2 * FIRST_SEGMENT as u64);
        }
    }
}
