//! What a timeline comes to: how busy its threads were, and how evenly its maps were shared out.

use super::file::{Interval, Lane, Trace};
use std::collections::{BTreeMap, HashMap};

pub struct Figures {
    /// One for each lane.
    pub threads: Vec<Thread>,
    /// Maps that are alike, those that took longest first.
    pub groups: Vec<Group>,
    /// The group of each map.
    pub group_of: HashMap<u64, usize>,
    /// Threads that were busy, on average.
    pub busy_threads: f64,
    /// Of the time that the outermost maps had their workers, the part that the workers ran chunks in.
    pub utilisation: f64,
}

pub struct Thread {
    /// Microseconds in chunks, without waiting for the helpers of maps inside them.
    pub busy: f64,
    pub waiting: f64,
    pub asleep: f64,
    /// The part of the whole time that it was busy.
    pub share: f64,
}

/// Maps of one function on one backend, at one level, with as many workers.
pub struct Group {
    pub function: String,
    pub backend: String,
    pub level: u64,
    pub workers: u64,
    pub maps: usize,
    pub items: u64,
    pub chunks: usize,
    /// Microseconds from the begins of the maps to their ends.
    pub time: f64,
    /// Of the time that the maps had their workers, the part that these ran chunks in.
    pub utilisation: f64,
    /// The busiest worker's time to the mean of all workers': 1 is even, the number of workers is all on one of them.
    pub imbalance: f64,
}

/// The time in chunks of a map's workers, by seat.
type Seats = HashMap<u64, f64>;

impl Figures {
    pub fn of(trace: &Trace) -> Figures {
        let whole = trace.end - trace.begin;
        let threads: Vec<_> = trace.lanes.iter().map(|lane| Thread::of(lane, trace, whole)).collect();
        let (mut seats, mut chunks): (HashMap<u64, Seats>, HashMap<u64, usize>) = Default::default();
        for chunk in trace.lanes.iter().flat_map(|lane| &lane.chunks) {
            *seats.entry(chunk.map).or_default().entry(chunk.seat).or_default() += chunk.time.length();
            *chunks.entry(chunk.map).or_default() += 1;
        }
        let (groups, group_of) = groups(trace, &seats, &chunks);
        let outermost = || trace.maps.iter().filter(|(_, map)| map.outermost);
        let worked: f64 =
            outermost().filter_map(|(number, _)| seats.get(number)).flat_map(Seats::values).sum();
        let had: f64 = outermost().map(|(_, map)| map.time.length() * map.workers as f64).sum();
        Figures {
            busy_threads: ratio(threads.iter().map(|thread| thread.busy).sum(), whole),
            utilisation: ratio(worked, had),
            threads,
            groups,
            group_of,
        }
    }
}

/// 0 where there is nothing to compare with.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

impl Thread {
    fn of(lane: &Lane, trace: &Trace, whole: f64) -> Thread {
        let outermost = lane.outermost();
        let all = Interval { begin: trace.begin, end: trace.end };
        let asleep =
            lane.parks.iter().map(|park| (park.end.min(all.end) - park.begin.max(all.begin)).max(0.0));
        // Both are in the order of time: the joins of outermost maps are beyond the chunks.
        let mut chunks = outermost.iter().peekable();
        let mut joins = lane.joins.clone();
        joins.sort_by(|one, other| one.begin.total_cmp(&other.begin));
        let inside = joins.iter().filter(|join| {
            while chunks.next_if(|chunk| chunk.end < join.begin).is_some() {}
            chunks.peek().is_some_and(|chunk| chunk.contains(join))
        });
        let busy = outermost.iter().map(Interval::length).sum::<f64>()
            - inside.map(|join| join.length()).sum::<f64>();
        let waiting: f64 = lane.joins.iter().map(Interval::length).sum();
        // The sum of nothing is -0.
        Thread {
            busy: busy + 0.0,
            waiting: waiting + 0.0,
            asleep: asleep.sum::<f64>() + 0.0,
            share: ratio(busy, whole),
        }
    }
}

fn groups(
    trace: &Trace,
    seats: &HashMap<u64, Seats>,
    chunks: &HashMap<u64, usize>,
) -> (Vec<Group>, HashMap<u64, usize>) {
    let mut alike: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for (number, map) in &trace.maps {
        alike.entry((&*map.function, &*map.backend, map.level, map.workers)).or_default().push(*number);
    }
    let mut found: Vec<_> = alike
        .into_iter()
        .map(|((function, backend, level, workers), numbers)| {
            let maps = || numbers.iter().map(|number| &trace.maps[number]);
            let time: f64 = maps().map(|map| map.time.length()).sum();
            let busy = || numbers.iter().filter_map(|number| seats.get(number));
            let worked: f64 = busy().flat_map(Seats::values).sum();
            let busiest: f64 = busy().map(|seats| seats.values().copied().fold(0.0, f64::max)).sum();
            let group = Group {
                function: function.to_owned(),
                backend: backend.to_owned(),
                level,
                workers,
                maps: numbers.len(),
                items: maps().map(|map| map.items).sum(),
                chunks: numbers.iter().filter_map(|number| chunks.get(number)).sum(),
                time,
                utilisation: ratio(worked, time * workers as f64),
                imbalance: if worked > 0.0 { busiest * workers as f64 / worked } else { 1.0 },
            };
            (group, numbers)
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| other.time.total_cmp(&one.time));
    let group_of = found
        .iter()
        .enumerate()
        .flat_map(|(at, (_, numbers))| numbers.iter().map(move |number| (*number, at)));
    let group_of = group_of.collect();
    (found.into_iter().map(|(group, _)| group).collect(), group_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::file::{self, tests::FILE};

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn busy_is_time_in_chunks() {
        let figures = Figures::of(&file::parse(FILE).unwrap());
        let [main, helper] = &figures.threads[..] else { panic!("two threads") };
        assert!(near(main.busy, 30.0) && near(main.waiting, 60.0) && near(main.share, 30.0 / 91.0));
        assert!(near(helper.busy, 90.0) && near(helper.asleep, 0.0), "it slept before the first map");
        assert!(near(figures.busy_threads, 120.0 / 91.0));
        assert!(near(figures.utilisation, 120.0 / 182.0));
    }

    #[test]
    fn a_wait_inside_a_chunk_is_not_busy() {
        let join =
            r#"{"ph":"X","pid":1,"tid":2,"ts":71,"dur":9,"cat":"join","name":"waits","args":{}},{"ph":"M""#;
        let text = FILE.replacen(r#"{"ph":"M""#, join, 1);
        assert!(near(Figures::of(&file::parse(&text).unwrap()).threads[0].busy, 81.0));
    }

    #[test]
    fn imbalance_compares_the_busiest_worker_with_the_mean() {
        let figures = Figures::of(&file::parse(FILE).unwrap());
        let [f, g] = &figures.groups[..] else { panic!("two kinds of maps") };
        assert_eq!((&*f.function, f.chunks, f.items, &*g.function), ("f", 2, 4, "g"));
        assert!(near(f.imbalance, 90.0 / 60.0) && near(g.imbalance, 1.0));
        assert!(near(f.utilisation, 120.0 / 182.0) && near(g.utilisation, 40.0 / 42.0));
        assert_eq!(figures.group_of, HashMap::from([(1, 0), (2, 1)]));
    }
}
