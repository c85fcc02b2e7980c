//! The file as the library writes it, read into lanes: what each thread did, in order, and how it nests.

use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;

/// A timeline. Times are in microseconds.
#[derive(Debug, Default)]
pub struct Trace {
    pub lanes: Vec<Lane>,
    /// By the number that the file gives it.
    pub maps: HashMap<u64, Map>,
    /// The begin of the first map or chunk and the end of the last.
    pub begin: f64,
    pub end: f64,
    /// Events that found no room.
    pub dropped: u64,
}

/// A thread, or another process.
#[derive(Debug, Default)]
pub struct Lane {
    pub name: String,
    /// In the order of their begins, so that a chunk comes before those inside it.
    pub chunks: Vec<Chunk>,
    pub joins: Vec<Interval>,
    pub parks: Vec<Interval>,
    pub steals: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    pub begin: f64,
    pub end: f64,
}

impl Interval {
    pub fn length(&self) -> f64 {
        self.end - self.begin
    }

    /// Whether the other one lies in this one. Times are rounded to nanoseconds.
    pub fn contains(&self, other: &Interval) -> bool {
        self.begin <= other.begin && other.end <= self.end + 0.001
    }
}

#[derive(Debug)]
pub struct Chunk {
    pub time: Interval,
    pub map: u64,
    pub first: u64,
    pub count: u64,
    pub seat: u64,
    /// Chunks around it on its lane.
    pub depth: usize,
}

#[derive(Debug)]
pub struct Map {
    pub time: Interval,
    pub function: String,
    pub backend: String,
    pub items: u64,
    pub workers: u64,
    pub level: u64,
    /// Whether it was called from no chunk that the file knows of.
    pub outermost: bool,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(rename = "otherData", default)]
    other: Other,
    #[serde(rename = "traceEvents", borrow)]
    events: Vec<Event<'a>>,
}

#[derive(Default, Deserialize)]
struct Other {
    #[serde(default)]
    events_dropped: u64,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Category {
    Map,
    Chunk,
    Join,
    Park,
    Steal,
    #[default]
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    cat: Category,
    pid: u32,
    #[serde(default)]
    tid: u32,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
    #[serde(borrow)]
    args: Args<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Args<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    function: Cow<'a, str>,
    #[serde(borrow)]
    backend: Cow<'a, str>,
    map: u64,
    items: u64,
    workers: u64,
    level: u64,
    begin: u64,
    count: u64,
    seat: u64,
}

/// Reads a file's text; says what is wrong with it.
pub fn parse(text: &str) -> Result<Trace, String> {
    if text.trim().is_empty() {
        return Err("is empty: its program still runs, or has ended without an exit".into());
    }
    let file: File = serde_json::from_str(text).map_err(|error| format!("is not a timeline: {error}"))?;
    let mut trace = Trace { dropped: file.other.events_dropped, ..Trace::default() };
    let mut lanes: HashMap<(u32, u32), usize> = HashMap::new();
    let mut calls: Vec<(usize, u64)> = Vec::new();
    for event in file.events {
        let process_is_named = event.name == "process_name";
        let lane = *lanes
            .entry((event.pid, if process_is_named { event.pid } else { event.tid }))
            .or_insert_with(|| {
                trace.lanes.push(Lane::default());
                trace.lanes.len() - 1
            });
        if event.cat == Category::Map {
            calls.push((lane, event.args.map));
        }
        trace.take(lane, event);
    }
    trace.lanes.iter_mut().for_each(Lane::nest);
    let outermost: Vec<_> = trace.lanes.iter().map(Lane::outermost).collect();
    for (lane, map) in calls {
        if let Some(map) = trace.maps.get_mut(&map) {
            let before = outermost[lane].partition_point(|chunk| chunk.end < map.time.begin);
            map.outermost = !outermost[lane].get(before).is_some_and(|chunk| chunk.contains(&map.time));
        }
    }
    // Threads that did nothing but end, or whose work was not recorded.
    trace.lanes.retain(|lane| !lane.chunks.is_empty() || !lane.joins.is_empty() || !lane.parks.is_empty());
    let chunks = trace.lanes.iter().flat_map(|lane| &lane.chunks).map(|chunk| chunk.time);
    let times: Vec<_> = chunks.chain(trace.maps.values().map(|map| map.time)).collect();
    if times.is_empty() {
        return Err("has no map: nothing ran while the timeline was recorded".into());
    }
    trace.begin = times.iter().map(|time| time.begin).fold(f64::INFINITY, f64::min);
    trace.end = times.iter().map(|time| time.end).fold(f64::NEG_INFINITY, f64::max);
    Ok(trace)
}

impl Trace {
    fn take(&mut self, lane: usize, event: Event) {
        let (lane, args) = (&mut self.lanes[lane], event.args);
        let time = Interval { begin: event.ts, end: event.ts + event.dur };
        match event.cat {
            Category::Map => {
                let map = Map {
                    time,
                    function: args.function.into_owned(),
                    backend: args.backend.into_owned(),
                    items: args.items,
                    workers: args.workers.max(1),
                    level: args.level,
                    outermost: true,
                };
                self.maps.insert(args.map, map);
            }
            Category::Chunk => {
                let (map, first, count, seat) = (args.map, args.begin, args.count, args.seat);
                lane.chunks.push(Chunk { time, map, first, count, seat, depth: 0 });
            }
            Category::Join => lane.joins.push(time),
            Category::Park => lane.parks.push(time),
            Category::Steal => lane.steals += 1,
            // A thread's own name is better than its process's.
            Category::Other if event.name == "thread_name" => lane.name = args.name.into_owned(),
            Category::Other if event.name == "process_name" && lane.name.is_empty() => {
                lane.name = args.name.into_owned();
            }
            Category::Other => {}
        }
    }
}

impl Lane {
    /// The chunks that lie in no other, one after the other.
    pub fn outermost(&self) -> Vec<Interval> {
        self.chunks.iter().filter(|chunk| chunk.depth == 0).map(|chunk| chunk.time).collect()
    }

    /// Sorts the chunks and finds how deep each one lies.
    fn nest(&mut self) {
        let order = |one: &Chunk, other: &Chunk| {
            one.time.begin.total_cmp(&other.time.begin).then(other.time.end.total_cmp(&one.time.end))
        };
        self.chunks.sort_by(order);
        let mut around: Vec<Interval> = Vec::new();
        for chunk in &mut self.chunks {
            around.truncate(around.iter().take_while(|outer| outer.contains(&chunk.time)).count());
            chunk.depth = around.len();
            around.push(chunk.time);
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Two threads, a map of two workers, and one inside the chunk of the second.
    pub const FILE: &str = r#"{"otherData":{"events_dropped":2},"traceEvents":[
        {"ph":"M","pid":1,"tid":1,"name":"thread_name","args":{"name":"main"}},
        {"ph":"X","pid":1,"tid":1,"ts":10,"dur":30,"cat":"chunk","name":"f","args":{"map":1,"begin":0,"count":3,"seat":0}},
        {"ph":"X","pid":1,"tid":1,"ts":40,"dur":60,"cat":"join","name":"waits","args":{}},
        {"ph":"X","pid":1,"tid":1,"ts":9,"dur":91,"cat":"map","name":"map f",
         "args":{"map":1,"function":"f","backend":"threading","items":4,"workers":2,"level":1}},
        {"ph":"M","pid":1,"tid":2,"name":"thread_name","args":{"name":"pb-0"}},
        {"ph":"X","pid":1,"tid":2,"ts":30,"dur":40,"cat":"chunk","name":"g","args":{"map":2,"begin":0,"count":8,"seat":0}},
        {"ph":"X","pid":1,"tid":2,"ts":29,"dur":42,"cat":"map","name":"map g",
         "args":{"map":2,"function":"g","backend":"sequential","items":8,"workers":1,"level":2}},
        {"ph":"X","pid":1,"tid":2,"ts":10,"dur":90,"cat":"chunk","name":"f","args":{"map":1,"begin":3,"count":1,"seat":1}},
        {"ph":"X","pid":1,"tid":2,"ts":0,"dur":8,"cat":"park","name":"sleeps","args":{}},
        {"ph":"i","pid":1,"tid":2,"ts":9,"cat":"steal","name":"steals","args":{"from":3}},
        {"ph":"M","pid":1,"name":"process_name","args":{"name":"program"}}]}"#;

    #[test]
    fn chunks_lie_in_those_around_them() {
        let trace = parse(FILE).unwrap();
        let lanes: Vec<_> = trace.lanes.iter().map(|lane| &*lane.name).collect();
        assert_eq!(lanes, ["main", "pb-0"]);
        let chunks: Vec<_> = trace.lanes[1].chunks.iter().map(|chunk| (chunk.map, chunk.depth)).collect();
        assert_eq!(chunks, [(1, 0), (2, 1)]);
        assert_eq!((trace.maps[&1].outermost, trace.maps[&2].outermost), (true, false));
        assert_eq!((trace.begin, trace.end, trace.dropped), (9.0, 100.0, 2));
        assert_eq!((trace.lanes[1].steals, trace.lanes[1].parks.len()), (1, 1));
    }

    #[test]
    fn a_file_that_is_none_is_told_why() {
        assert!(parse("").unwrap_err().contains("empty"));
        assert!(parse("{}").unwrap_err().contains("not a timeline: missing field `traceEvents`"));
        assert!(parse(r#"{"traceEvents":[]}"#).unwrap_err().contains("no map"));
    }
}
