//! What an event says, and how it fits into a fixed number of words.

/// Words of an event: where and what kind it is, its begin, its duration, and what the kind has to say.
pub(super) const WORDS: usize = 8;
pub(super) type Words = [u64; WORDS];

/// The duration of what has none.
const INSTANT: u64 = u64::MAX;

/// A text that events refer to, as [`super::name`] gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(pub(super) u32);

/// What happened on a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A map, on the thread that drives it.
    Map {
        /// What its chunks and joins name it by; see [`super::map_number`].
        map: u64,
        /// The address of the task's function.
        function: usize,
        /// How many items it has.
        items: usize,
        /// Its workers.
        workers: usize,
        /// Nesting level of its tasks.
        level: i32,
        /// Where it runs.
        backend: Name,
    },
    /// A chunk of a map.
    Chunk {
        /// Its map.
        map: u64,
        /// First item.
        begin: usize,
        /// How many were claimed; a map that stops leaves the last ones.
        count: usize,
        /// The worker's seat.
        seat: usize,
    },
    /// A caller that has nothing left to claim waits for its helpers.
    Join,
    /// A pool thread sleeps because there is nothing to do.
    Park,
    /// A worker has run out and takes half of another one's items.
    Steal {
        /// The other one's seat.
        from: usize,
    },
}

/// An event: what, when and, unless in this process, where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub what: What,
    /// Process that it happened in; 0 is this one.
    pub process: u32,
    /// Nanoseconds by [`super::clock`].
    pub begin: u64,
    /// Nanoseconds; `None` for what only happens.
    pub duration: Option<u64>,
}

impl Event {
    pub fn encode(&self) -> Words {
        let (kind, says) = match self.what {
            What::Map { map, function, items, workers, level, backend } => {
                let level = u64::from(level.unsigned_abs());
                (0, [map, function as u64, items as u64, workers as u64, level << 32 | u64::from(backend.0)])
            }
            What::Chunk { map, begin, count, seat } => (1, [map, begin as u64, count as u64, seat as u64, 0]),
            What::Join => (2, [0; 5]),
            What::Park => (3, [0; 5]),
            What::Steal { from } => (4, [from as u64, 0, 0, 0, 0]),
        };
        let [a, b, c, d, e] = says;
        [u64::from(self.process) << 32 | kind, self.begin, self.duration.unwrap_or(INSTANT), a, b, c, d, e]
    }

    /// The event in these words, unless no event is encoded so.
    pub fn decode([head, begin, duration, a, b, c, d, e]: Words) -> Option<Event> {
        let what = match head & 0xffff_ffff {
            0 => What::Map {
                map: a,
                function: b as usize,
                items: c as usize,
                workers: d as usize,
                level: (e >> 32) as i32,
                backend: Name(e as u32),
            },
            1 => What::Chunk { map: a, begin: b as usize, count: c as usize, seat: d as usize },
            2 => What::Join,
            3 => What::Park,
            4 => What::Steal { from: a as usize },
            _ => return None,
        };
        let duration = (duration != INSTANT).then_some(duration);
        Some(Event { what, process: (head >> 32) as u32, begin, duration })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let map = What::Map {
            map: 7,
            function: usize::MAX,
            items: 1 << 40,
            workers: 256,
            level: 3,
            backend: Name(u32::MAX),
        };
        let chunk = What::Chunk { map: u64::MAX, begin: 1 << 50, count: 12, seat: 255 };
        for what in [map, chunk, What::Join, What::Park, What::Steal { from: 9 }] {
            for (process, duration) in [(0, Some(0)), (u32::MAX, Some(1 << 60)), (1, None)] {
                let event = Event { what, process, begin: 5, duration };
                assert_eq!(Event::decode(event.encode()), Some(event));
            }
        }
        assert_eq!(Event::decode([99, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
