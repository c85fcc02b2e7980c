//! A call's line to its bridge: what it says, and where it finds what concerns it.

use super::bridge::{Bridge, NOTHING};
use super::frames::{Answer, Lost, Order};
use crate::status::{Error, Result};
use serde::Serialize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
pub(super) struct Inbox {
    events: Mutex<Vec<Event>>,
    arrived: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, event: Event) {
        self.lock().push(event);
        self.arrived.notify_one();
    }

    /// What has come, after waiting for it for `most` at most.
    pub(super) fn take(&self, most: Duration) -> Vec<Event> {
        let waited = self.arrived.wait_timeout_while(self.lock(), most, |events| events.is_empty());
        let (mut events, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *events)
    }
}

/// A call's line to its bridge. Dropping it ends the call there: what still comes for it is thrown away.
#[derive(Debug)]
pub struct Line {
    bridge: Arc<Bridge>,
    inbox: Arc<Inbox>,
    number: u64,
    is_announced: bool,
}

impl Line {
    pub(super) fn new(bridge: Arc<Bridge>, inbox: Arc<Inbox>, number: u64) -> Line {
        Line { bridge, inbox, number, is_announced: false }
    }

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
    pub fn events(&self, most: Duration) -> Vec<Event> {
        self.inbox.take(most)
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
