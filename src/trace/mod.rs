//! The timeline: what every thread did and when, for people to look at. `docs/tracing.md` shows how.
//!
//! **When it is off** a hook is one relaxed load of [`SWITCH`], and what it would say is not even made. **When it is on** each
//! thread appends fixed-size events to a buffer of its own (`buffer.rs`), without a lock or an allocation but for a new
//! block once in a thousand events.
//!
//! **Starting and stopping while threads work.** The switch holds whether a timeline runs and which one. A thread keeps
//! its writer with the number of the timeline that it writes for; where the switch shows another number, it joins that
//! timeline, under the lock of [`RUNNING`], and lets the old writer go. To stop is to change the switch, take the timeline
//! out of [`RUNNING`], and read what its buffers have published. Nobody waits: a thread that read the switch before it
//! changed appends to a buffer that nobody reads any more, which lives until both ends have let go of it. Nothing is
//! lost of a map that was over before the stop: its helpers appended before they left the map, and leaving released what
//! they wrote to its caller, who stops, or has told whoever stops.
//!
//! **Forks.** The forking thread holds the lock of [`RUNNING`], so the child finds it free; there the timeline is forgotten,
//! never written, and the environment is looked at again. Of the locks that a fork takes none is held while an event is
//! recorded.

mod buffer;
mod environment;
mod event;
mod json;
mod timeline;

pub use environment::{VARIABLE, check as check_environment};
pub use event::{Name, What};
pub use timeline::NameOf;

use crate::status::{Error, Result, Status};
use buffer::Writer;
use event::Event;
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Instant;
use timeline::{Timeline, lock};

/// A timeline runs.
const ON: u32 = 1;
/// The environment has been looked at.
const READ: u32 = 2;
/// The number of the timeline that runs, or ran last, is above the two bits.
const NUMBER: u32 = 4;

/// Changed under the lock of [`RUNNING`] only.
static SWITCH: AtomicU32 = AtomicU32::new(0);
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);
static MAPS: AtomicU64 = AtomicU64::new(0);

struct Running {
    timeline: Arc<Timeline>,
    process: u32,
}

/// What a thread writes with.
struct Own {
    switch: u32,
    timeline: Arc<Timeline>,
    writer: Writer,
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// Whether a timeline runs.
#[inline]
pub fn is_on() -> bool {
    SWITCH.load(Ordering::Relaxed) & ON != 0
}

/// Starts the timeline that `PB_TRACE` asks for, if this process has not looked yet. To be called by every map, which
/// ends with the error: a timeline that was asked for and cannot be written is not forgone in silence.
#[inline]
pub fn heed_environment() -> Result<()> {
    if SWITCH.load(Ordering::Relaxed) & READ != 0 { Ok(()) } else { environment::heed() }
}

/// Nanoseconds of a clock that never goes back; the times of all events are by it.
pub fn clock() -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(FIRST.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Something with a begin and an end; it ends when this is dropped. Nothing while no timeline runs.
#[must_use = "it ends when it is dropped"]
#[derive(Debug)]
pub struct Span(Option<(What, u64)>);

/// Begins a span on this thread. `what` is called only while a timeline runs.
#[inline]
pub fn span(what: impl FnOnce() -> What) -> Span {
    Span(if is_on() { Some((what(), clock())) } else { None })
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some((what, begin)) = self.0.take() {
            record(Event { what, process: 0, begin, duration: Some(clock() - begin) });
        }
    }
}

/// Something that happens on this thread now. `what` is called only while a timeline runs.
#[inline]
pub fn instant(what: impl FnOnce() -> What) {
    if is_on() {
        record(Event { what: what(), process: 0, begin: clock(), duration: None });
    }
}

/// What another process did, as this one saw it: from `begin`, a reading of [`clock`], until now. Such a process has one
/// lane, whichever thread tells of it.
pub fn in_process(process: u32, begin: u64, what: impl FnOnce() -> What) {
    if is_on() {
        record(Event { what: what(), process, begin, duration: Some(clock().saturating_sub(begin)) });
    }
}

/// A number that the events of one map share; 0, which says nothing, while no timeline runs.
#[inline]
pub fn map_number() -> u64 {
    if is_on() { MAPS.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 }
}

/// A text for an event that is about to be recorded, such as a backend's name.
pub fn name(text: &str) -> Name {
    lock(&RUNNING).as_ref().map_or(Name(u32::MAX), |running| running.timeline.name(text))
}

#[cold]
#[inline(never)]
fn record(event: Event) {
    // A thread that is being torn down has no buffer any more.
    let _ = OWN.try_with(|own| {
        let mut own = own.borrow_mut();
        let switch = SWITCH.load(Ordering::Relaxed);
        if own.as_ref().is_none_or(|own| own.switch != switch) {
            *own = join();
        }
        if let Some(own) = &mut *own {
            own.timeline.push(&mut own.writer, &event);
        }
    });
}

/// Joins the timeline that runs, if one does.
fn join() -> Option<Own> {
    let running = lock(&RUNNING);
    let timeline = running.as_ref()?.timeline.clone();
    let writer = timeline.join();
    Some(Own { switch: SWITCH.load(Ordering::Relaxed), timeline, writer })
}

/// Begins a timeline that is to be written into a file, which is made now and replaces one that is there.
pub fn start(path: PathBuf) -> Result<()> {
    start_in(&mut lock(&RUNNING), path)
}

fn start_in(running: &mut Option<Running>, path: PathBuf) -> Result<()> {
    if let Some(running) = running {
        let path = running.timeline.path.display();
        return Err(Error::new(
            Status::ERR_EXISTS,
            format!("a timeline runs already, for '{path}': pb_trace_stop ends it"),
        ));
    }
    let timeline = Arc::new(Timeline::create(path, clock())?);
    *running = Some(Running { timeline, process: std::process::id() });
    let number = SWITCH.load(Ordering::Relaxed) & !(ON | READ);
    SWITCH.store(number.wrapping_add(NUMBER) | READ | ON, Ordering::Relaxed);
    Ok(())
}

/// Ends the timeline and writes it. It is over even if it cannot be written.
pub fn stop(name_of: NameOf) -> Result<()> {
    let mut running = lock(&RUNNING);
    let Some(Running { timeline, process }) = running.take() else {
        return Err(Error::new(
            Status::ERR_SCOPE,
            "no timeline runs: pb_trace_start, or the variable PB_TRACE at the first map, begins one",
        ));
    };
    SWITCH.fetch_and(!ON, Ordering::Relaxed);
    drop(running);
    write(&timeline, process, name_of)
}

/// Writes what there is of the timeline so far, if one runs; it goes on.
pub fn flush(name_of: NameOf) -> Result<()> {
    let running = lock(&RUNNING);
    let Some(Running { timeline, process }) = &*running else { return Ok(()) };
    let (timeline, process) = (timeline.clone(), *process);
    drop(running);
    write(&timeline, process, name_of)
}

/// A child that no fork handler knows of has a copy of the timeline, which is its parent's to write.
fn write(timeline: &Timeline, process: u32, name_of: NameOf) -> Result<()> {
    if process == std::process::id() { timeline.write(name_of) } else { Ok(()) }
}

/// The timeline's lock, held over a fork.
pub struct ForkGuard(MutexGuard<'static, Option<Running>>);

/// Holds the lock over a fork, so that the child finds it free.
pub fn fork_guard() -> ForkGuard {
    ForkGuard(lock(&RUNNING))
}

impl ForkGuard {
    /// In the child: the timeline is the parent's, events and all. The child's first map looks at the environment again.
    pub fn in_child(mut self) {
        // Locks inside may be held by threads that do not exist here: it is never touched again.
        std::mem::forget(self.0.take());
        SWITCH.fetch_and(!(ON | READ), Ordering::Relaxed);
        environment::forked();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::fs;

    /// An event that no other test of this process makes.
    const MARK: What = What::Steal { from: 4711 };

    fn no_names(_: usize) -> Option<String> {
        None
    }

    /// The timeline is one for the process: so is this test.
    #[test]
    fn a_timeline_has_what_happened_between_its_start_and_its_stop() {
        let path = std::env::temp_dir().join(format!("pb-trace-{}.json", std::process::id()));
        let marks = || {
            let file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            file["traceEvents"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|event| event["args"]["from"] == 4711)
                .count()
        };
        let mark = || drop(span(|| MARK));
        assert_eq!(stop(no_names).unwrap_err().status, Status::ERR_SCOPE);
        drop(span(|| panic!("nothing is made of a span while no timeline runs")));
        assert_eq!((is_on(), map_number()), (false, 0));

        let across = span(|| MARK);
        start(path.clone()).unwrap();
        drop(across);
        let again = start(path.clone()).unwrap_err();
        assert_eq!(again.status, Status::ERR_EXISTS);
        assert!(again.message.contains(path.to_str().unwrap()));
        assert!(is_on() && map_number() < map_number());
        mark();
        std::thread::spawn(mark).join().unwrap();
        flush(no_names).unwrap();
        assert_eq!(marks(), 2);
        mark();
        let late = span(|| MARK);
        stop(no_names).unwrap();
        assert_eq!(marks(), 3, "flushed twice, each event is there once");
        drop(late);

        start(path.clone()).unwrap();
        let begun = span(|| MARK);
        stop(no_names).unwrap();
        start(path.clone()).unwrap();
        drop(begun);
        mark();
        stop(no_names).unwrap();
        assert_eq!(marks(), 1, "what began before a timeline is not part of it");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_path_that_cannot_be_written_is_told_with_the_reason() {
        let wrong = Timeline::create("/no/such/folder/x.json".into(), 0).map(drop).unwrap_err();
        assert_eq!(wrong.status, Status::ERR_IO);
        assert!(
            wrong.message.contains("'/no/such/folder/x.json': No such file or directory"),
            "{}",
            wrong.message
        );
    }
}
