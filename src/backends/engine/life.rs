//! What a bridge's own thread does: starts the process, listens, buries it. `bridge.rs` has the argument.

use super::bridge::{Bridge, NOTHING, Phase, patience};
use super::frames::{Decoder, Hello, Order, Word};
use super::line::Event;
use super::python;
use super::tail::Tail;
use crate::link::{spawn, stream};
use crate::process::{Bell, Child, Exit};
use crate::status::{Error, Result, Status};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

impl Bridge {
    /// All of the thread's life. Whatever ends it, nobody waits for it any more.
    pub(super) fn live(&self, theirs: OwnedFd) {
        self.to_the_end(|| self.serve(theirs));
    }

    /// A panic is the end of the session too: callers would wait for a thread that is no more.
    fn to_the_end(&self, life: impl FnOnce()) {
        // What a panic leaves behind is looked at no more, but for the state, of which every field stands alone.
        if catch_unwind(AssertUnwindSafe(life)).is_err() {
            let message = format!("the thread of the bridge to {} has panicked", self.params.kind.name());
            self.declare_over(Some(Error::new(Status::ERR_INTERNAL, message)));
        }
    }

    fn serve(&self, theirs: OwnedFd) {
        let (mut child, mut tail) = match self.spawn(theirs) {
            Ok(started) => started,
            Err(error) => return self.declare_over(Some(error)),
        };
        let with_tail = |error: Error, tail: &Tail| error.in_words(|said| said.to_owned() + &tail.quote());
        match self.listen(&child, &mut tail) {
            // Who waits need not wait for the funeral.
            Ok(End::Fatal(error)) => {
                self.declare_over(Some(with_tail(error, &tail)));
                bury(&mut child, patience::FAREWELL);
            }
            Err(error) => {
                self.declare_over(Some(with_tail(error, &tail)));
                bury(&mut child, Duration::ZERO);
            }
            Ok(End::Asked) => {
                bury(&mut child, patience::LAST_BREATH);
                self.declare_over(None);
            }
            Ok(End::Died) => {
                let exit = bury(&mut child, patience::LAST_BREATH);
                tail.read();
                self.declare_over(Some(with_tail(self.death(&child, &exit), &tail)));
            }
        }
    }

    /// Starts the process and tells it who we are.
    fn spawn(&self, theirs: OwnedFd) -> Result<(Child, Tail)> {
        let cannot = |error: &io::Error| python::cannot_start(&self.params, error);
        let (modules, library) = (python::modules()?, python::library()?);
        let (read, write) = stream::pipe().map_err(|error| cannot(&error))?;
        let child = spawn::spawn(&python::command(&self.params), theirs.as_fd(), Some(write.as_fd()));
        let child = child.map_err(|error| cannot(&error))?;
        drop((theirs, write));
        // One that has ended already is found out when it is listened to.
        let sent = stream::send(self.socket.as_fd(), &[&modules], None, self.params.start);
        if sent.is_ok() {
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
        let start = Instant::now() + self.params.start + patience::START_MARGIN;
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
            return if now < start { Ok(Some(start)) } else { Err(self.silent_at_start()) };
        }
        let idle_until = state.idle_since + self.params.idle;
        let idle = state.calls.is_empty();
        state.leaving |= idle && now >= idle_until;
        if !idle || !state.leaving {
            return Ok(idle.then_some(idle_until));
        }
        drop(state);
        if asked.is_none() {
            *asked = Some(now + patience::FAREWELL);
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
                if let Some(error) = self.hear(call, word, tail)? {
                    return Ok(Some(Heard::Fatal(error)));
                }
            }
        }
        Ok(None)
    }

    /// Puts what was said where it belongs. What ends the session it gives back.
    fn hear(&self, call: u64, word: Word, tail: &mut Tail) -> Result<Option<Error>> {
        let event = match word {
            Word::Results(answers, body) => Event::Results(answers, body),
            Word::Lost(lost) => Event::Lost(lost),
            Word::Failed(error) => Event::Failed(error),
            Word::Cancelled(running, workers) => Event::Cancelled(running, workers),
            Word::Fatal(error) => return Ok(Some(error)),
            Word::Log(level, text) => {
                tail.note(&format!("{level}: {text}"));
                return Ok(None);
            }
            Word::Slots(slots) => {
                self.set_slots(slots);
                return Ok(None);
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
                return Ok(None);
            }
        };
        // A call that is over wants to hear no more.
        let inbox = self.state().calls.get(&call).cloned();
        if let Some(inbox) = inbox {
            inbox.put(event);
        }
        Ok(None)
    }

    fn set_slots(&self, slots: u32) {
        let mut state = self.state();
        state.slots = slots;
        state.without_slots =
            if slots == 0 { state.without_slots.or_else(|| Some(Instant::now())) } else { None };
    }

    /// What to say of a bridge that has died by itself.
    fn death(&self, child: &Child, exit: &Exit) -> Error {
        let name = self.params.kind.name();
        if !matches!(self.state().phase, Phase::Starting) {
            let pid = child.pid();
            let message =
                format!("the bridge to {name} (process {pid}) {exit}; the next call starts a new one");
            return Error::new(Status::ERR_WORKER_LOST, message);
        }
        let message = format!(
            "backend '{name}' started '{}', which {exit} before it answered: it must be Python 3.9 or later; see PB_PYTHON and \
             the parameter python=",
            python::program(&self.params).display()
        );
        Error::new(Status::ERR_BACKEND_UNAVAILABLE, message)
    }
}

/// Ends the process, after a while in which it may do so itself, with all that it has started.
fn bury(child: &mut Child, patience: Duration) -> Exit {
    // Its end is seen without reaping it: while it is not reaped, its group is its own and can be killed.
    Bell::wait(None, child.descriptor().into_iter(), patience);
    child.kill_group();
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::line::Inbox;
    use super::super::params::Params;
    use super::*;

    #[test]
    fn a_panic_ends_the_session_for_all_who_wait() {
        let params = Params::parse(Kind::Dask, Some("address=echo")).unwrap();
        let (bridge, _theirs) = Bridge::new(&params).unwrap();
        let inbox = Arc::new(Inbox::default());
        bridge.state().calls.insert(7, inbox.clone());
        bridge.to_the_end(|| panic!("on purpose"));
        assert_eq!(bridge.wait().unwrap_err().status, Status::ERR_INTERNAL);
        let events = inbox.take(Duration::ZERO);
        assert!(matches!(&events[..], [Event::Over(error)] if error.message.contains("panicked")));
    }
}
