//! A map on a cluster in virtual time: one scheduler that takes tasks one after the other, slots that run them, and a client
//! that uses the library's own rules.

use parallel_backend::backends::engine::frames::Ready;
use parallel_backend::backends::engine::sizes::{Sizes, group, most_bytes, window};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Seconds for a message from one machine to the next.
const HOP: f64 = 0.002;
/// How often the client looks around, as `call.rs` does.
const LOOK: f64 = 0.01;

/// A cluster and a map on it.
pub struct Plan {
    pub slots: usize,
    pub slot_cost: f64,
    pub least: f64,
    pub credit: u64,
    /// Seconds and bytes of an item.
    pub item: f64,
    pub item_bytes: u64,
    pub n_items: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub chunks: usize,
    /// Seconds of the middle one of the chunks in order of their length.
    pub median: f64,
    /// The part of the time in which the scheduler was busy, and slots.
    pub scheduler: f64,
    pub slots: f64,
    /// The most bytes that were on their way.
    pub bytes: u64,
}

/// Times as the heaps want them: nanoseconds.
fn ticks(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

pub fn run(plan: &Plan) -> Outcome {
    let ready = Ready {
        engine: String::new(),
        engine_version: String::new(),
        python: String::new(),
        slots: plan.slots as u32,
        slot_cost: plan.slot_cost,
        least: plan.least,
        chunk_bytes: 8 << 20,
        credit: plan.credit,
    };
    let mut sizes = Sizes::new(&ready, 0);
    let window = window(plan.slots, 0);
    let fitting =
        most_bytes(&ready, window).checked_div(plan.item_bytes).map_or(usize::MAX, |items| items as usize);
    let mut free: BinaryHeap<Reverse<u64>> = (0..plan.slots).map(|_| Reverse(0)).collect();
    let mut replies: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let (mut now, mut scheduler, mut left, mut on_their_way) = (0.0_f64, 0.0_f64, plan.n_items, 0_usize);
    let (mut bytes, mut most, mut chunks) = (0, 0, BTreeMap::<usize, usize>::new());
    let mut sent = 0;
    loop {
        let has_room = on_their_way == 0 || on_their_way + group(window, plan.slots) <= window;
        while has_room && left > 0 && sizes.may_send(on_their_way, sent, window, now, plan.slots) {
            let items = sizes.next(left, plan.slots).min(fitting).min(left).max(1);
            if on_their_way > 0 && bytes + items as u64 * plan.item_bytes > plan.credit {
                break;
            }
            scheduler = scheduler.max(now + HOP) + plan.slot_cost;
            let slot = free.pop().map_or(0, |Reverse(time)| time);
            let end = slot.max(ticks(scheduler + HOP)) + ticks(items as f64 * plan.item);
            free.push(Reverse(end));
            replies.push(Reverse((end + ticks(HOP), items)));
            bytes += items as u64 * plan.item_bytes;
            most = most.max(bytes);
            *chunks.entry(items).or_default() += 1;
            (left, sent, on_their_way) = (left - items, sent + 1, on_their_way + 1);
        }
        let Some(&Reverse((time, items))) = replies.peek() else { break };
        let time = time as f64 * 1e-9;
        // Until the next reply, or the next look at what may be sent by now.
        if left > 0 && on_their_way < window && now + LOOK < time {
            now += LOOK;
            continue;
        }
        replies.pop();
        now = now.max(time);
        sizes.took(items, items as f64 * plan.item);
        on_their_way -= 1;
        bytes -= items as u64 * plan.item_bytes;
    }
    let count: usize = chunks.values().sum();
    let mut below = 0;
    let median = chunks.iter().find(|(_, number)| {
        below += **number;
        2 * below >= count
    });
    Outcome {
        chunks: count,
        median: median.map_or(0.0, |(items, _)| *items as f64 * plan.item),
        scheduler: count as f64 * plan.slot_cost / now,
        slots: plan.n_items as f64 * plan.item / (now * plan.slots as f64),
        bytes: most,
    }
}
