//! Outputs on their way from the area to the caller's array, when a map has ended: by as many threads as it had workers,
//! where they are much. All workers wrote at once what one thread would copy alone, over pages that the fork has left to be
//! copied at the first write: with many workers that would be most of the time that a map takes.

use crate::cpu::SignalsBlocked;
use crate::job::{Chunk, Job};
use crate::shared::Spare;
use std::thread::{Builder, Scope};

/// Bytes that are worth a thread: they take milliseconds, its start and end 40 µs.
const WORTH_A_THREAD: usize = 8 << 20;
/// A copy needs no stack to speak of.
const STACK: usize = 64 << 10;

/// Copies the outputs of `chunks`, which lie in `area` from `offset` on.
pub(super) fn fetch(job: &Job, chunks: impl Iterator<Item = Chunk>, area: &Spare, offset: usize) {
    let copy = |chunk| job.task().fetch_outputs(chunk, area, offset);
    std::thread::scope(|threads| {
        for chunk in chunks {
            let bytes = (chunk.end - chunk.begin) * job.task().outputs().size;
            let mut parts = split(chunk, (bytes / WORTH_A_THREAD).clamp(1, job.n_jobs()));
            let own = parts.next();
            parts.filter(|part| !start(threads, *part, &copy)).for_each(copy);
            own.into_iter().for_each(copy);
        }
    });
}

/// Has a thread of its own do a part; false where there is none to be had.
fn start<'scope>(
    threads: &'scope Scope<'scope, '_>,
    part: Chunk,
    copy: &'scope (impl Fn(Chunk) + Sync),
) -> bool {
    let _blocked = SignalsBlocked::enter();
    Builder::new().stack_size(STACK).spawn_scoped(threads, move || copy(part)).is_ok()
}

/// A chunk in `count` parts of nearly one size, without those that are empty.
fn split(chunk: Chunk, count: usize) -> impl Iterator<Item = Chunk> {
    let items = chunk.end - chunk.begin;
    let at = move |part: usize| chunk.begin + items / count * part + (items % count).min(part);
    (0..count)
        .map(move |part| Chunk { begin: at(part), end: at(part + 1) })
        .filter(|part| part.begin < part.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole() {
        for (begin, end, count) in [(0, 10, 3), (5, 6, 4), (7, 7, 2), (0, 1000, 7), (3, 4, 1)] {
            let parts: Vec<_> = split(Chunk { begin, end }, count).collect();
            let items: Vec<_> = parts.iter().flat_map(|part| part.begin..part.end).collect();
            assert_eq!(items, (begin..end).collect::<Vec<_>>());
            let sizes = parts.iter().map(|part| part.end - part.begin);
            assert!(sizes.clone().max().unwrap_or(0) <= sizes.min().unwrap_or(0) + 1);
        }
    }
}
