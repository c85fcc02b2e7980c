//! What a child tells its parent: a ring of words with one writer and one reader.
//!
//! A record is a head word (kind, length of the text), two numbers, and the text. The child writes a record's words and then
//! moves `head` (Release); the parent reads `head` (Acquire), the words, and then moves `tail` (Release), which the child
//! reads (Acquire) before it writes over what was read. So the parent sees whole records only, however the child dies.

use crate::job::{Chunk, Ended};
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of a ring: 64 KiB, 2,700 records without texts.
pub(super) const RING_WORDS: usize = 8192;
/// A longer text is cut, so that a record is always much smaller than the ring.
const TEXT_BYTES: usize = 4096;

const DONE: u64 = 1;
const RETURNED: u64 = 2;
const RETURNED_WITH_TEXT: u64 = 3;
const LATE: u64 = 4;
/// Beside RETURNED or RETURNED_WITH_TEXT: after it had been asked to end.
const ASKED: u64 = 8;

/// What a child has to tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// These items succeeded.
    Done(Chunk),
    /// This one did not.
    Ended(usize, Ended),
}

#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    pub words: &'a [AtomicU64],
    pub head: &'a AtomicU64,
    pub tail: &'a AtomicU64,
}

impl Ring<'_> {
    fn word(&self, at: u64) -> &AtomicU64 {
        &self.words[at as usize % RING_WORDS]
    }

    /// Writes a record; false if there is no room for it now.
    pub fn write(&self, record: &Record) -> bool {
        let (kind, first, second, text) = match record {
            Record::Done(chunk) => (DONE, chunk.begin as u64, chunk.end as u64, ""),
            Record::Ended(index, ended @ (Ended::Returned(code, text) | Ended::Asked(code, text))) => {
                let kind = if text.is_some() { RETURNED_WITH_TEXT } else { RETURNED };
                let kind = if matches!(ended, Ended::Asked(..)) { kind | ASKED } else { kind };
                (kind, *index as u64, u64::from(*code as u32), text.as_deref().unwrap_or_default())
            }
            Record::Ended(index, _) => (LATE, *index as u64, 0, ""),
        };
        let text = cut(text);
        let head = self.head.load(Ordering::Relaxed);
        let needed = 3 + text.len().div_ceil(8) as u64;
        if head + needed - self.tail.load(Ordering::Acquire) > RING_WORDS as u64 {
            return false;
        }
        let words = [kind << 32 | text.len() as u64, first, second].into_iter();
        let words = words.chain(text.chunks(8).map(|bytes| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_ne_bytes(word)
        }));
        words.zip(head..).for_each(|(word, at)| self.word(at).store(word, Ordering::Relaxed));
        self.head.store(head + needed, Ordering::Release);
        true
    }

    /// Whether so much is written that the reader should come.
    pub fn is_filling(&self) -> bool {
        self.head.load(Ordering::Relaxed) - self.tail.load(Ordering::Relaxed) > RING_WORDS as u64 / 2
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire) == self.tail.load(Ordering::Relaxed)
    }

    /// Takes the next record. A task has the run of its process: should it have written over the ring, what makes no sense
    /// is dropped with all that follows.
    pub fn read(&self) -> Option<Record> {
        let head = self.head.load(Ordering::Acquire);
        let tail = self.tail.load(Ordering::Relaxed);
        if head == tail {
            return None;
        }
        let get = |at| self.word(at).load(Ordering::Relaxed);
        let (kind, length) = (get(tail) >> 32, (get(tail) & 0xffff_ffff) as usize);
        let next = tail.wrapping_add(3 + length.div_ceil(8) as u64);
        if length > TEXT_BYTES || head.wrapping_sub(next) > RING_WORDS as u64 {
            self.tail.store(head, Ordering::Release);
            return None;
        }
        let (first, second) = (get(tail.wrapping_add(1)) as usize, get(tail.wrapping_add(2)));
        let record = match kind & !ASKED {
            DONE => Record::Done(Chunk { begin: first, end: second as usize }),
            RETURNED | RETURNED_WITH_TEXT => {
                let bytes = (tail.wrapping_add(3)..next).flat_map(|at| get(at).to_ne_bytes()).take(length);
                let text = String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned();
                let text = (kind & !ASKED == RETURNED_WITH_TEXT).then_some(text);
                let ended = if kind & ASKED == 0 { Ended::Returned } else { Ended::Asked };
                Record::Ended(first, ended(second as u32 as i32, text))
            }
            _ => Record::Ended(first, Ended::Late),
        };
        self.tail.store(next, Ordering::Release);
        Some(record)
    }

    /// Empties it, while it has no writer.
    pub fn reset(&self) {
        self.head.store(0, Ordering::Relaxed);
        self.tail.store(0, Ordering::Relaxed);
    }
}

fn cut(text: &str) -> &[u8] {
    let mut end = text.len().min(TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_ring(test: impl FnOnce(Ring)) {
        let words: Vec<_> = (0..RING_WORDS).map(|_| AtomicU64::new(0)).collect();
        let (head, tail) = (AtomicU64::new(0), AtomicU64::new(0));
        test(Ring { words: &words, head: &head, tail: &tail });
    }

    fn returned(index: usize, code: i32, text: &str) -> Record {
        Record::Ended(index, Ended::Returned(code, Some(text.to_owned())))
    }

    #[test]
    fn records_arrive_whole_and_in_order_round_and_round() {
        with_ring(|ring| {
            for round in 0..5000 {
                let sent = [
                    Record::Done(Chunk { begin: round, end: round + 7 }),
                    returned(round, -5, &"ü".repeat(round % 40)),
                    Record::Ended(3, Ended::Returned(i32::MIN, None)),
                    Record::Ended(5, Ended::Asked(7, None)),
                    Record::Ended(6, Ended::Asked(7, Some("text".to_owned()))),
                    Record::Ended(4, Ended::Late),
                ];
                sent.iter().for_each(|record| assert!(ring.write(record)));
                let received: Vec<_> = std::iter::from_fn(|| ring.read()).collect();
                assert_eq!(received, sent);
                assert!(ring.is_empty());
            }
        });
    }

    #[test]
    fn a_full_ring_takes_nothing_and_loses_nothing() {
        with_ring(|ring| {
            let mut written = 0;
            while ring.write(&returned(written, 1, "text")) {
                written += 1;
            }
            assert_eq!(written, RING_WORDS / 4);
            assert!(ring.is_filling());
            assert_eq!(ring.read(), Some(returned(0, 1, "text")));
            assert!(ring.write(&returned(written, 1, "text")));
            assert_eq!(std::iter::from_fn(|| ring.read()).count(), written);
        });
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        with_ring(|ring| {
            assert!(ring.write(&returned(0, 1, &format!("x{}", "ü".repeat(TEXT_BYTES)))));
            let Some(Record::Ended(0, Ended::Returned(1, Some(text)))) = ring.read() else { panic!() };
            assert_eq!(text.len(), TEXT_BYTES - 1);
        });
    }

    #[test]
    fn nonsense_is_dropped() {
        with_ring(|ring| {
            ring.words[0].store(u64::MAX, Ordering::Relaxed);
            ring.head.store(20, Ordering::Relaxed);
            assert_eq!(ring.read(), None);
            assert!(ring.is_empty());
        });
    }
}
