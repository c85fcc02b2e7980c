//! A bridge: the Python process that speaks to an engine, the thread that listens to it, and the calls that use it.
//!
//! **Who does what.** One thread of ours belongs to each bridge for as long as that lives. It starts the process (so the
//! system's note of a parent's death, which is about threads, comes when the whole program dies), reads every frame, what
//! the process prints, and its death, and in the end it buries the process. Callers never read: each has an [`Inbox`] into
//! which that thread puts what concerns its call. So the bridge can always write, and no caller's callback holds up another
//! caller. Callers write frames themselves, whole ones, one at a time under `writing`.
//!
//! **Why nobody waits for ever.** The thread waits for nothing but events, with a time limit wherever one is due: for READY,
//! for an unused bridge, for one that was asked to end. A caller that writes gives up after `engine_timeout` without
//! progress; the session is broken then, since half a frame may have gone, and the thread ends it. A caller that waits for its
//! inbox wakes every few milliseconds to look after its job, and the thread puts [`Event::Over`] into every inbox when the
//! session ends, whichever way. An inbox is taken out of `calls` under the same lock under which the session is declared
//! over, so none is forgotten.
//!
//! **Locks.** `writing`, `state` and those of inboxes are held for moments, none while foreign code runs, and never two at
//! once but `state` before an inbox's. A fork in another thread may copy any of them locked: so a child never looks at
//! a bridge of its parent (`generation`), but starts its own.

use super::frames::{Answer, Decoder, Hello, INLINE_MOST, Lost, Order, Ready, Word, encode};
use super::params::Params;
use super::python;
use super::tail::Tail;
use crate::fork;
use crate::link::{segment, spawn, stream};
use crate::process::{Bell, Child, Exit};
use crate::status::{Error, Result, Status};
use crate::tasks;
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a bridge that was asked to end may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long the death of a process may come after the end of its stream.
const LAST_BREATH: Duration = Duration::from_secs(1);
/// How much longer than the bridge itself we wait for its READY: it knows better what it waits for.
const START_MARGIN: Duration = Duration::from_secs(5);

/// What concerns a call.
#[derive(Debug)]
pub enum Event {
    /// Replies, in these bytes.
    Results(Vec<Answer>, Vec<u8>),
    /// Chunks whose workers died.
    Lost(Vec<Lost>),
    /// The call cannot go on.
    Failed(Error),
    /// The cancelled call is over, but for so many chunks, which run there.
    Cancelled(u64, Vec<String>),
    /// The session is over.
    Over(Error),
}

/// Where a call finds its events.
#[derive(Debug, Default)]
struct Inbox {
    events: Mutex<VecDeque<Event>>,
    arrived: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, event: Event) {
        self.lock().push_back(event);
        self.arrived.notify_one();
    }
}

#[derive(Debug)]
enum Phase {
    Starting,
    Ready(Arc<Ready>),
    Over(Error),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The slots of late, and since when there are none.
    slots: u32,
    without_slots: Option<Instant>,
    calls: HashMap<u64, Arc<Inbox>>,
    idle_since: Instant,
    /// No new calls: the process is to end when the last one is over.
    leaving: bool,
    /// Why the thread should end the session at once.
    broken: Option<Error>,
}

/// A bridge.
#[derive(Debug)]
pub struct Bridge {
    params: Params,
    generation: u32,
    socket: OwnedFd,
    writing: Mutex<()>,
    bell: Bell,
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bridge {
    /// Starts one. It is not ready yet: [`Bridge::wait`].
    pub fn start(params: &Params) -> Result<Arc<Bridge>> {
        let cannot = |error: &io::Error| python::cannot_start(params, error);
        let (socket, theirs) = stream::pair().map_err(|error| cannot(&error))?;
        let bell = Bell::new().ok_or_else(|| cannot(&io::Error::last_os_error()))?;
        let state = State {
            phase: Phase::Starting,
            slots: 0,
            without_slots: None,
            calls: HashMap::new(),
            idle_since: Instant::now(),
            leaving: false,
            broken: None,
        };
        let bridge = Arc::new(Bridge {
            params: params.clone(),
            generation: fork::generation(),
            socket,
            writing: Mutex::new(()),
            bell,
            state: Mutex::new(state),
            changed: Condvar::new(),
            thread: Mutex::new(None),
        });
        let own = bridge.clone();
        let thread = std::thread::Builder::new().name("pb-bridge".into());
        let thread = thread.spawn(move || own.live(theirs)).map_err(|error| cannot(&error))?;
        *locked(&bridge.thread) = Some(thread);
        Ok(bridge)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Whether a call with these parameters may use it.
    pub fn serves(&self, params: &Params) -> bool {
        let state = self.state();
        self.params == *params && !state.leaving && !matches!(state.phase, Phase::Over(_))
    }

    /// Whether nothing of it is left but this.
    pub fn is_over(&self) -> bool {
        matches!(self.state().phase, Phase::Over(_))
    }

    /// Waits until the session can be used, or is known to be of no use.
    pub fn wait(&self) -> Result<Arc<Ready>> {
        // The thread has a limit of its own; this one is for a thread that the system does not let run.
        let most = self.params.start + START_MARGIN + FAREWELL + LAST_BREATH;
        let state = self.state();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, most, |state| matches!(state.phase, Phase::Starting))
            .unwrap_or_else(PoisonError::into_inner);
        match &state.phase {
            Phase::Ready(ready) => Ok(ready.clone()),
            Phase::Over(error) => Err(error.clone()),
            Phase::Starting => Err(self.silent_at_start("")),
        }
    }

    /// The slots of late, and for how long there have been none.
    pub fn slots(&self) -> (u32, Option<Duration>) {
        let state = self.state();
        (state.slots, state.without_slots.map(|since| since.elapsed()))
    }

    /// Opens a call under a number that no other has. `None`: the bridge is no more, and another one is to be used.
    pub fn open(self: &Arc<Self>, number: u64) -> Option<Line> {
        let mut state = self.state();
        if state.leaving || !matches!(state.phase, Phase::Ready(_)) || state.calls.contains_key(&number) {
            return None;
        }
        let inbox = Arc::new(Inbox::default());
        state.calls.insert(number, inbox.clone());
        drop(state);
        Some(Line { bridge: self.clone(), inbox, number, is_announced: false })
    }

    /// Sends a frame. `None` for `call` is the session itself.
    fn send(&self, order: Order, call: u64, meta: &impl Serialize, body: &[&[u8]]) -> Result<()> {
        let len: usize = body.iter().map(|part| part.len()).sum();
        let file = if len > INLINE_MOST { Some(segment::sealed(body)?) } else { None };
        let head = encode(order, call, meta, if file.is_some() { 0 } else { len }, file.is_some())?;
        let inline = if file.is_some() { &[][..] } else { body };
        let parts: Vec<&[u8]> = [&head[..]].into_iter().chain(inline.iter().copied()).collect();
        let sent = {
            let _writing = locked(&self.writing);
            stream::send(self.socket.as_fd(), &parts, file.as_ref().map(AsFd::as_fd), self.params.engine)
        };
        sent.map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::TimedOut => format!(
                    "the bridge to {} has taken nothing for {} s: it hangs",
                    self.params.kind.name(),
                    self.params.engine.as_secs_f64()
                ),
                _ => format!("the bridge to {} cannot be reached: {error}", self.params.kind.name()),
            };
            let is_dead = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
            let error = Error::new(Status::ERR_WORKER_LOST, why);
            // Of a bridge that is dead the thread hears by itself, and will say more.
            if !is_dead {
                self.state().broken.get_or_insert(error.clone());
            }
            self.bell.ring();
            error
        })
    }

    /// Asks the process to end once no call uses it.
    pub fn dismiss(&self) {
        self.state().leaving = true;
        self.bell.ring();
    }

    /// Waits until the thread is gone, if no call keeps it. Whether it is.
    pub fn join(&self) -> bool {
        if !self.state().calls.is_empty() {
            return false;
        }
        let thread = locked(&self.thread).take();
        // A panic there would be ours, and has been told as the end of the session.
        thread.into_iter().for_each(|thread| drop(thread.join()));
        true
    }

    /// In a forked child: closes the descriptors, and keeps all else as it is, for it is the parent's.
    pub fn forget_in_child(self: Arc<Self>) {
        stream::close_in_child(&self.socket);
        std::mem::forget(self);
    }

    /// Whether this process is another than the one that started it.
    pub fn is_the_parents(&self) -> bool {
        self.generation != fork::generation()
    }

    // ---- the thread --------------------------------------------------------------------------------------------------

    fn live(&self, theirs: OwnedFd) {
        let error = match self.spawn(theirs) {
            Err(error) => error,
            Ok((mut child, mut tail)) => {
                let ended = self.listen(&child, &mut tail);
                self.bury(&mut child, &mut tail, ended)
            }
        };
        let mut state = self.state();
        for inbox in std::mem::take(&mut state.calls).into_values() {
            inbox.put(Event::Over(error.clone()));
        }
        state.phase = Phase::Over(error);
        drop(state);
        self.changed.notify_all();
    }

    /// Starts the process and tells it who we are.
    fn spawn(&self, theirs: OwnedFd) -> Result<(Child, Tail)> {
        let cannot = |error: &io::Error| python::cannot_start(&self.params, error);
        let modules = python::modules()?;
        let (read, write) = stream::pipe().map_err(|error| cannot(&error))?;
        let child = spawn::spawn(&python::command(&self.params), theirs.as_fd(), Some(write.as_fd()));
        let child = child.map_err(|error| cannot(&error))?;
        drop((theirs, write));
        // One that has ended already is found out when it is listened to.
        let sent = stream::send(self.socket.as_fd(), &[&modules], None, self.params.start);
        if sent.is_ok() {
            let library = tasks::own_library().unwrap_or_default();
            let hello = Hello {
                engine: self.params.engine_name,
                version: env!("CARGO_PKG_VERSION"),
                library: &library.to_string_lossy(),
                options: &self.params.options,
                start_timeout: self.params.start.as_secs_f64(),
            };
            let _ = self.send(Order::Hello, 0, &hello, &[]);
        }
        Ok((child, Tail::new(read)))
    }

    /// Reads until the session is over. An error is ours: we end it.
    fn listen(&self, child: &Child, tail: &mut Tail) -> Result<End> {
        let (mut decoder, mut asked) = (Decoder::default(), None);
        let start = Instant::now() + self.params.start + START_MARGIN;
        loop {
            let due = self.look(start, &mut asked)?;
            let most = due.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
            let own = Some(self.socket.as_raw_fd());
            let others = [own, tail.descriptor(), child.descriptor()];
            let ready = Bell::wait(Some(&self.bell), others.into_iter().flatten(), most);
            tail.read();
            let has_ended = child.descriptor().is_some_and(|descriptor| ready.contains(&descriptor));
            match self.read(&mut decoder, tail)? {
                Some(Heard::Fatal(error)) => return Ok(End::Fatal(error)),
                Some(Heard::End) => return Ok(if asked.is_some() { End::Asked } else { End::Died }),
                None if has_ended => return Ok(if asked.is_some() { End::Asked } else { End::Died }),
                None => {}
            }
        }
    }

    /// What is due now. When the next thing is; an error ends the session.
    fn look(&self, start: Instant, asked: &mut Option<Instant>) -> Result<Option<Instant>> {
        let now = Instant::now();
        let mut state = self.state();
        // A session that never was ready has more to say than that nothing can be written to it.
        if let Some(error) = state.broken.clone().filter(|_| matches!(state.phase, Phase::Ready(_))) {
            return Err(error);
        }
        if matches!(state.phase, Phase::Starting) && !state.leaving {
            return if now < start { Ok(Some(start)) } else { Err(self.silent_at_start("")) };
        }
        let idle_until = state.idle_since + self.params.idle;
        let idle = state.calls.is_empty();
        state.leaving |= idle && now >= idle_until;
        if !idle || !state.leaving {
            return Ok(idle.then_some(idle_until));
        }
        drop(state);
        if asked.is_none() {
            *asked = Some(now + FAREWELL);
            let _ = self.send(Order::Shutdown, 0, &NOTHING, &[]);
        }
        match *asked {
            Some(until) if now >= until => Err(Error::new(Status::ERR_TIMEOUT, "the bridge does not end")),
            until => Ok(until),
        }
    }

    /// Takes what has come, and says what of it ends the session.
    fn read(&self, decoder: &mut Decoder, tail: &mut Tail) -> Result<Option<Heard>> {
        let mut bytes = vec![0; 1 << 16];
        // A bridge that never stops talking must not keep us from looking around.
        for _ in 0..256 {
            match stream::receive(self.socket.as_fd(), &mut bytes) {
                Ok((0, _)) => return Ok(Some(Heard::End)),
                Ok((count, file)) => decoder.feed(&bytes[..count], file),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // It died with bytes of ours unread.
                Err(_) => return Ok(Some(Heard::End)),
            }
            while let Some((call, word)) = decoder.next_word()? {
                match word {
                    Word::Fatal(error) => return Ok(Some(Heard::Fatal(error))),
                    word => self.hear(call, word, tail)?,
                }
            }
        }
        Ok(None)
    }

    /// Puts what was said where it belongs.
    fn hear(&self, call: u64, word: Word, tail: &mut Tail) -> Result<()> {
        let event = match word {
            Word::Results(answers, body) => Event::Results(answers, body),
            Word::Lost(lost) => Event::Lost(lost),
            Word::Failed(error) => Event::Failed(error),
            Word::Cancelled(running, workers) => Event::Cancelled(running, workers),
            Word::Fatal(error) => Event::Failed(error),
            Word::Log(level, text) => {
                tail.note(&format!("{level}: {text}"));
                return Ok(());
            }
            Word::Slots(slots) => {
                self.set_slots(slots);
                return Ok(());
            }
            Word::Ready(ready) => {
                self.set_slots(ready.slots);
                let mut state = self.state();
                if !matches!(state.phase, Phase::Starting) {
                    return Err(Error::new(Status::ERR_INTERNAL, "the bridge was ready twice"));
                }
                state.idle_since = Instant::now();
                state.phase = Phase::Ready(Arc::new(ready));
                drop(state);
                self.changed.notify_all();
                return Ok(());
            }
        };
        // A call that is over wants to hear no more.
        let inbox = self.state().calls.get(&call).cloned();
        if let Some(inbox) = inbox {
            inbox.put(event);
        }
        Ok(())
    }

    fn set_slots(&self, slots: u32) {
        let mut state = self.state();
        state.slots = slots;
        state.without_slots =
            if slots == 0 { state.without_slots.or_else(|| Some(Instant::now())) } else { None };
    }

    /// Ends the process, if it has not ended, with all that it started, and says why the session is over.
    fn bury(&self, child: &mut Child, tail: &mut Tail, ended: Result<End>) -> Error {
        let was_starting = matches!(self.state().phase, Phase::Starting);
        let patience = match ended {
            Ok(End::Asked | End::Died) => LAST_BREATH,
            Ok(End::Fatal(_)) => FAREWELL,
            Err(_) => Duration::ZERO,
        };
        // Its end is seen without reaping it: while it is not reaped, its group is its own and can be killed.
        Bell::wait(None, child.descriptor().into_iter(), patience);
        child.kill_group();
        let exit = child.wait();
        tail.read();
        let error = match ended {
            Ok(End::Asked) => return Error::new(Status::ERR_BACKEND_UNAVAILABLE, "the bridge was shut down"),
            Ok(End::Died) if was_starting => self.no_bridge(&exit),
            Ok(End::Died) => {
                let (name, pid) = (self.params.kind.name(), child.pid());
                let how =
                    format!("the bridge to {name} (process {pid}) {exit}; the next call starts a new one");
                Error::new(Status::ERR_WORKER_LOST, how)
            }
            Ok(End::Fatal(error)) | Err(error) => error,
        };
        Error { message: error.message + &tail.quote(), ..error }
    }

    fn no_bridge(&self, exit: &Exit) -> Error {
        let program = python::program(&self.params);
        let message = format!(
            "backend '{}' started '{}', which {exit} before it answered: it must be a Python of version 3.9 or later, see PB_PYTHON \
             and the parameter python=",
            self.params.kind.name(),
            program.display()
        );
        Error::new(Status::ERR_BACKEND_UNAVAILABLE, message)
    }

    fn silent_at_start(&self, what: &str) -> Error {
        let message = format!(
            "backend '{}' was not ready within {} s{what}: is its cluster there? The parameter start_timeout= waits longer",
            self.params.kind.name(),
            self.params.start.as_secs_f64()
        );
        Error::new(Status::ERR_TIMEOUT, message)
    }
}

/// How a session ends.
enum End {
    /// As we have asked.
    Asked,
    /// The stream has ended, or the process has.
    Died,
    /// The bridge says so.
    Fatal(Error),
}

/// What ends a session, of what was heard.
enum Heard {
    End,
    Fatal(Error),
}

/// Meta where there is nothing to say.
#[derive(Serialize)]
struct Nothing {}
const NOTHING: Nothing = Nothing {};

/// A call's line to its bridge. Dropping it ends the call there: what still comes for it is thrown away.
#[derive(Debug)]
pub struct Line {
    bridge: Arc<Bridge>,
    inbox: Arc<Inbox>,
    number: u64,
    is_announced: bool,
}

impl Line {
    /// The bridge.
    pub fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// Says something about the call.
    pub fn say(&mut self, order: Order, meta: &impl Serialize, body: &[&[u8]]) -> Result<()> {
        self.is_announced |= order == Order::Call;
        self.bridge.send(order, self.number, meta, body)
    }

    /// Asks the engine to stop the call.
    pub fn cancel(&mut self) -> Result<()> {
        self.say(Order::Cancel, &NOTHING, &[])
    }

    /// What has come, after waiting for it for `most` at most.
    pub fn events(&self, most: Duration) -> VecDeque<Event> {
        let events = self.inbox.lock();
        let waited = self.inbox.arrived.wait_timeout_while(events, most, |events| events.is_empty());
        let (mut events, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *events)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.bridge.is_the_parents() {
            return;
        }
        let mut state = self.bridge.state();
        let was_open = state.calls.remove(&self.number).is_some();
        state.idle_since = Instant::now();
        drop(state);
        if was_open && self.is_announced {
            let _ = self.bridge.send(Order::End, self.number, &NOTHING, &[]);
        }
        // The thread counts anew from now, or says farewell.
        self.bridge.bell.ring();
    }
}
