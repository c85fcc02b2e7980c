//! What a job tells the timeline: itself, and its chunks.

use super::{Chunk, Job, Seat};
use crate::trace::{self, Span, What};

impl Job {
    /// The map, from now until this is dropped, on the thread that drives it.
    pub fn map_span(&self, backend: &str, level: i32) -> Span {
        trace::span(|| What::Map {
            map: self.number,
            function: self.plan.task.site(),
            items: self.n_items(),
            workers: self.n_jobs(),
            level,
            backend: trace::name(backend),
        })
    }

    /// A chunk that this thread is about to run.
    #[inline]
    pub(super) fn chunk_span(&self, seat: &Seat, chunk: Chunk) -> Span {
        trace::span(|| What::Chunk {
            map: self.number,
            begin: chunk.begin,
            count: chunk.end - chunk.begin,
            seat: seat.number(),
        })
    }
}
