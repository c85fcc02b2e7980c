//! A timeline as Chrome's trace event format: what Perfetto and chrome://tracing open. An event a line.
//!
//! "Trace Event Format", Duygulu and others, Google 2016: `X` has a begin and a duration, `i` happens at once, `M` names
//! processes and threads; times are microseconds.

use super::event::{Event, Name, What};
use super::timeline::{NameOf, Thread, Timeline, lock};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::sync::Arc;

/// What the events' numbers stand for.
struct Key {
    process: u32,
    begin: u64,
    /// Of each map, the function's name.
    maps: HashMap<u64, Arc<str>>,
    backends: Vec<Arc<str>>,
}

pub(super) fn write(out: &mut impl Write, timeline: &Timeline, name_of: NameOf) -> io::Result<()> {
    let threads = lock(&timeline.threads).clone();
    let (maps, others) = look_through(&threads, name_of);
    let backends = lock(&timeline.names).clone();
    let key = Key { process: std::process::id(), begin: timeline.begin, maps, backends };
    let dropped: u64 = threads.iter().map(|thread| thread.buffer.dropped()).sum();
    writeln!(out, r#"{{"displayTimeUnit":"ns","otherData":{{"library":"parallel_backend {}","#, version())?;
    writeln!(out, r#""events_dropped":{dropped}}},"traceEvents":["#)?;
    key.write_names(out, &threads, &others)?;
    for thread in &threads {
        thread.buffer.read(|words| match Event::decode(words) {
            Some(event) => key.write_event(out, thread.id, &event),
            None => Ok(()),
        })?;
    }
    if dropped > 0 {
        let name = quoted(&format!("{dropped} events dropped: the timeline's memory was full"));
        let (pid, tid) = (key.process, threads.first().map_or(0, |thread| thread.id));
        write!(
            out,
            r#"{{"ph":"i","s":"p","pid":{pid},"tid":{tid},"ts":0,"cat":"dropped","name":{name},"args":{{}}}},"#
        )?;
        writeln!(out)?;
    }
    // The last one has no comma after it, so it is one that is always there.
    let name = quoted(&process_name());
    writeln!(out, r#"{{"ph":"M","pid":{},"name":"process_name","args":{{"name":{name}}}}}"#, key.process)?;
    writeln!(out, "]}}")
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn process_name() -> String {
    let file = std::env::current_exe().ok();
    let name = file.as_ref().and_then(|file| file.file_name());
    name.map_or_else(|| "process".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The functions of the maps, and which other processes there are.
fn look_through(threads: &[Thread], name_of: NameOf) -> (HashMap<u64, Arc<str>>, BTreeSet<u32>) {
    let mut functions: HashMap<usize, Arc<str>> = HashMap::new();
    let (mut maps, mut others) = (HashMap::new(), BTreeSet::new());
    for thread in threads {
        let read: Result<(), ()> = thread.buffer.read(|words| {
            let Some(event) = Event::decode(words) else { return Ok(()) };
            others.insert(event.process);
            if let What::Map { map, function, .. } = event.what {
                let name = || name_of(function).unwrap_or_else(|| format!("{function:#x}")).into();
                maps.insert(map, functions.entry(function).or_insert_with(name).clone());
            }
            Ok(())
        });
        debug_assert!(read.is_ok());
    }
    others.remove(&0);
    (maps, others)
}

/// A JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Nanoseconds as the microseconds of the format.
fn micros(nanoseconds: u64) -> String {
    format!("{}.{:03}", nanoseconds / 1000, nanoseconds % 1000)
}

impl Key {
    fn write_names(
        &self,
        out: &mut impl Write,
        threads: &[Thread],
        others: &BTreeSet<u32>,
    ) -> io::Result<()> {
        let pid = self.process;
        for (order, thread) in threads.iter().enumerate() {
            let (tid, name) = (thread.id, quoted(&thread.name));
            writeln!(
                out,
                r#"{{"ph":"M","pid":{pid},"tid":{tid},"name":"thread_name","args":{{"name":{name}}}}},"#
            )?;
            writeln!(
                out,
                r#"{{"ph":"M","pid":{pid},"tid":{tid},"name":"thread_sort_index","args":{{"sort_index":{order}}}}},"#
            )?;
        }
        for pid in others {
            writeln!(
                out,
                r#"{{"ph":"M","pid":{pid},"name":"process_name","args":{{"name":"worker process {pid}"}}}},"#
            )?;
        }
        Ok(())
    }

    fn write_event(&self, out: &mut impl Write, thread: u32, event: &Event) -> io::Result<()> {
        let begin = micros(event.begin.saturating_sub(self.begin));
        // What another process did was seen from here: it has one lane there, whoever saw it.
        let (pid, tid) =
            if event.process == 0 { (self.process, thread) } else { (event.process, event.process) };
        match event.duration {
            Some(duration) => {
                write!(out, r#"{{"ph":"X","pid":{pid},"tid":{tid},"ts":{begin},"dur":{},"#, micros(duration))?
            }
            None => write!(out, r#"{{"ph":"i","s":"t","pid":{pid},"tid":{tid},"ts":{begin},"#)?,
        }
        match event.what {
            What::Map { map, function, items, workers, level, backend: Name(backend) } => {
                let name = quoted(&format!("map {}", self.function(map)));
                let function_name = quoted(self.function(map));
                let backend = quoted(self.backends.get(backend as usize).map_or("", |name| name));
                write!(out, r#""cat":"map","name":{name},"args":{{"map":{map},"function":{function_name},"#)?;
                write!(out, r#""address":"{function:#x}","items":{items},"workers":{workers},"#)?;
                writeln!(out, r#""backend":{backend},"level":{level}}}}},"#)
            }
            What::Chunk { map, begin, count, seat } => {
                let name = quoted(self.function(map));
                write!(out, r#""cat":"chunk","name":{name},"args":{{"map":{map},"#)?;
                writeln!(out, r#""begin":{begin},"count":{count},"seat":{seat}}}}},"#)
            }
            What::Join => writeln!(out, r#""cat":"join","name":"waits for helpers","args":{{}}}},"#),
            What::Park => writeln!(out, r#""cat":"park","name":"sleeps","args":{{}}}},"#),
            What::Steal { from } => {
                writeln!(out, r#""cat":"steal","name":"steals","args":{{"from":{from}}}}},"#)
            }
        }
    }

    /// The function of a map; one that was over, or not yet, when the file was written is not known.
    fn function(&self, map: u64) -> &str {
        self.maps.get(&map).map_or("chunk", |name| name)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::trace::buffer::BLOCK;
    use serde_json::{Value, json};
    use std::path::PathBuf;

    fn event(what: What, begin: u64, duration: impl Into<Option<u64>>) -> Event {
        Event { what, process: 0, begin, duration: duration.into() }
    }

    /// What is written of these events of one thread.
    fn written(room: usize, events: &[Event]) -> Value {
        let timeline = Timeline::with_room(PathBuf::from("/dev/null"), room);
        timeline.name("a \"backend\"");
        let mut writer = timeline.join();
        events.iter().for_each(|event| timeline.push(&mut writer, event));
        let mut text = Vec::new();
        write(&mut text, &timeline, |address| (address == 16).then(|| "my\\task".to_owned())).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn of_category<'a>(file: &'a Value, category: &str) -> Vec<&'a Value> {
        file["traceEvents"].as_array().unwrap().iter().filter(|event| event["cat"] == category).collect()
    }

    fn map(map: u64, function: usize) -> What {
        What::Map { map, function, items: 100, workers: 2, level: 1, backend: Name(0) }
    }

    #[test]
    fn events_are_written_in_microseconds_with_what_they_say() {
        let chunk = What::Chunk { map: 3, begin: 10, count: 5, seat: 1 };
        let file = written(9, &[event(chunk, 2_500, 1_001), event(map(3, 16), 2_000, 5_000)]);
        let (pid, found) = (std::process::id(), of_category(&file, "chunk"));
        let args = json!({"map": 3, "begin": 10, "count": 5, "seat": 1});
        let tid = &found[0]["tid"];
        assert_eq!(
            *found[0],
            json!({"ph": "X", "pid": pid, "tid": tid, "ts": 2.5, "dur": 1.001, "cat": "chunk", "name": "my\\task", "args": args})
        );
        let found = of_category(&file, "map")[0];
        assert_eq!(found["name"], "map my\\task");
        let args = json!({"map": 3, "function": "my\\task", "address": "0x10", "items": 100, "workers": 2,
                          "backend": "a \"backend\"", "level": 1});
        assert_eq!(found["args"], args);
        assert_eq!(file["otherData"]["events_dropped"], 0);
    }

    #[test]
    fn a_function_without_a_name_is_an_address() {
        let file = written(9, &[event(map(1, 255), 0, 1)]);
        assert_eq!(of_category(&file, "map")[0]["args"]["function"], "0xff");
    }

    #[test]
    fn threads_and_processes_have_names() {
        let remote =
            Event { process: 77, ..event(What::Chunk { map: 0, begin: 0, count: 1, seat: 0 }, 5, 5) };
        let file = written(9, &[event(What::Steal { from: 4 }, 1, None), remote]);
        let events = file["traceEvents"].as_array().unwrap();
        let names: Vec<_> =
            events.iter().filter(|event| event["ph"] == "M").map(|event| &event["name"]).collect();
        assert_eq!(names, ["thread_name", "thread_sort_index", "process_name", "process_name"]);
        let remote = of_category(&file, "chunk")[0];
        assert_eq!((&remote["pid"], &remote["tid"]), (&json!(77), &json!(77)));
        let steal = of_category(&file, "steal")[0];
        assert_eq!((&steal["ph"], &steal["args"]["from"]), (&json!("i"), &json!(4)));
    }

    #[test]
    fn what_was_dropped_is_said() {
        let events = vec![event(What::Park, 1, 1); BLOCK + 3];
        let file = written(1, &events);
        assert_eq!(of_category(&file, "park").len(), BLOCK);
        assert_eq!(file["otherData"]["events_dropped"], 3);
        assert!(of_category(&file, "dropped")[0]["name"].as_str().unwrap().starts_with("3 events dropped"));
    }
}
