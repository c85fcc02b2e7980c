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

use super::frames::{INLINE_MOST, Order, Ready, encode};
use super::line::{Event, Inbox, Line};
use super::params::Params;
use super::python;
use crate::cpu::SignalsBlocked;
use crate::fork;
use crate::link::{segment, stream};
use crate::process::Bell;
use crate::status::{Error, Result, Status};
use serde::Serialize;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bounds of the bridge's life, besides those of its parameters.
pub(super) mod patience {
    use std::time::Duration;

    /// How long a bridge that was asked to end may take: a little longer than it gives its engine.
    pub const FAREWELL: Duration = Duration::from_secs(11);
    /// How long the death of a process may come after the end of its stream.
    pub const LAST_BREATH: Duration = Duration::from_secs(1);
    /// How much longer than the bridge itself we wait for its READY: it knows better what it waits for.
    pub const START_MARGIN: Duration = Duration::from_secs(6);
}

#[derive(Debug)]
pub(super) enum Phase {
    Starting,
    Ready(Arc<Ready>),
    /// It has ended as it was asked to.
    Gone,
    Over(Error),
}

#[derive(Debug)]
pub(super) struct State {
    pub phase: Phase,
    /// The slots of late, and since when there are none.
    pub slots: u32,
    pub without_slots: Option<Instant>,
    pub calls: HashMap<u64, Arc<Inbox>>,
    pub idle_since: Instant,
    /// No new calls: the process is to end when the last one is over.
    pub leaving: bool,
    /// Why the thread should end the session at once.
    pub broken: Option<Error>,
}

/// A bridge.
#[derive(Debug)]
pub struct Bridge {
    pub(super) params: Params,
    generation: u32,
    pub(super) socket: OwnedFd,
    writing: Mutex<()>,
    pub(super) bell: Bell,
    state: Mutex<State>,
    pub(super) changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bridge {
    /// One whose thread does not run yet, and the other end of its socket.
    pub(super) fn new(params: &Params) -> Result<(Bridge, OwnedFd)> {
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
        let bridge = Bridge {
            params: params.clone(),
            generation: fork::generation(),
            socket,
            writing: Mutex::new(()),
            bell,
            state: Mutex::new(state),
            changed: Condvar::new(),
            thread: Mutex::new(None),
        };
        Ok((bridge, theirs))
    }

    /// Starts one. It is not ready yet: [`Bridge::wait`].
    pub fn start(params: &Params) -> Result<Arc<Bridge>> {
        let (bridge, theirs) = Bridge::new(params)?;
        let bridge = Arc::new(bridge);
        let own = bridge.clone();
        let thread = std::thread::Builder::new().name("pb-bridge".into());
        let blocked = SignalsBlocked::enter();
        let thread = thread.spawn(move || own.live(theirs));
        drop(blocked);
        let thread = thread.map_err(|error| python::cannot_start(params, &error))?;
        *locked(&bridge.thread) = Some(thread);
        Ok(bridge)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Whether a call with these parameters may use it.
    pub fn serves(&self, params: &Params) -> bool {
        let state = self.state();
        self.params == *params && !state.leaving && matches!(state.phase, Phase::Starting | Phase::Ready(_))
    }

    /// Whether nothing of it is left but this.
    pub fn is_gone(&self) -> bool {
        let is_over = matches!(self.state().phase, Phase::Gone | Phase::Over(_));
        is_over && locked(&self.thread).as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The session is over, for all who use it. `None`: as we have asked, and nobody uses it.
    pub(super) fn declare_over(&self, error: Option<Error>) {
        let mut state = self.state();
        if let Some(error) = &error {
            for inbox in std::mem::take(&mut state.calls).into_values() {
                inbox.put(Event::Over(error.clone()));
            }
        }
        state.phase = error.map_or(Phase::Gone, Phase::Over);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the session can be used, or is known to be of no use. `None`: it was shut down, and another one may do.
    pub fn wait(&self) -> Result<Option<Arc<Ready>>> {
        // The thread has a limit of its own; this one is for a thread that the system does not let run.
        let most = self.params.start + 2 * patience::START_MARGIN;
        let state = self.state();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, most, |state| matches!(state.phase, Phase::Starting))
            .unwrap_or_else(PoisonError::into_inner);
        match &state.phase {
            Phase::Ready(ready) => Ok(Some(ready.clone())),
            Phase::Gone => Ok(None),
            Phase::Over(error) => Err(error.clone()),
            Phase::Starting => Err(self.silent_at_start()),
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
        Some(Line::new(self.clone(), inbox, number))
    }

    /// Sends a frame, of the session itself where `call` is 0.
    pub(super) fn send(&self, order: Order, call: u64, meta: &impl Serialize, body: &[&[u8]]) -> Result<()> {
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

    /// Waits until the thread is gone, unless a call keeps it.
    pub fn join(&self) {
        let is_used = !self.state().calls.is_empty();
        let thread = if is_used { None } else { locked(&self.thread).take() };
        if let Some(thread) = thread {
            // A panic there would be ours, and has been told as the end of the session.
            let _ = thread.join();
        }
    }

    /// In a forked child: closes the descriptors, and keeps all else as it is, for it is the parent's.
    pub fn forget_in_child(self: Arc<Self>) {
        stream::close_in_child(&self.socket);
        std::mem::forget(self);
    }

    pub(super) fn silent_at_start(&self) -> Error {
        let message = format!(
            "backend '{}' was not ready within {} s: is its cluster there? The parameter start_timeout= waits longer",
            self.params.kind.name(),
            self.params.start.as_secs_f64()
        );
        Error::new(Status::ERR_TIMEOUT, message)
    }

    /// Whether this process is another than the one that started it.
    pub fn is_the_parents(&self) -> bool {
        self.generation != fork::generation()
    }
}

/// Meta where there is nothing to say.
#[derive(Serialize)]
pub(super) struct Nothing {}
pub(super) const NOTHING: Nothing = Nothing {};
