//! What a job is made of that others bring: the items, and what workers find around them.

use super::{Cargo, Chunk, Job};
use crate::message::{Around, Pieces};
use crate::shared::{Mapping, Spare};
use crate::status::{Error, Result, Status};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// The items of a map: the user's function with its arrays.
pub trait Task: Any + Send + Sync {
    /// Tells this function from others.
    fn site(&self) -> usize;

    /// Runs one item; 0 is success.
    fn run(&self, index: usize) -> i32;

    /// Runs items until one fails or `flags` is no longer 0; whoever sets those says [`halt`](Task::halt) as well. Returns the
    /// first index that did not succeed here, with the code of the item that failed, if one did.
    fn run_range(&self, chunk: Chunk, flags: &AtomicU32) -> (usize, Option<i32>);

    /// What loops look at that do not look at flags changes: they end before their next item, until [`resume`](Task::resume).
    fn halt(&self) {}

    /// The flags are 0 again. Nobody runs items.
    fn resume(&self) {}

    /// Writes an item's fate where the caller wants it.
    fn record(&self, index: usize, status: i32);

    /// Whether it is the same task, with the same arrays.
    fn is_same(&self, _other: &Self) -> bool
    where
        Self: Sized,
    {
        false
    }

    /// Whether it holds nothing but what belongs to the caller.
    fn holds_nothing(&self) -> bool {
        false
    }

    /// What texts call an item, and the number that errors give for it.
    fn name(&self, index: usize) -> (String, usize) {
        (format!("item {index}"), index)
    }

    /// What texts call several items.
    fn plural(&self) -> &'static str {
        "items"
    }

    /// What another process needs to run its items, or why it cannot.
    fn cargo(&self) -> Result<Cargo<'_>> {
        let why = "a call of this kind runs in its caller's process only";
        Err(Error::new(Status::ERR_TASK_NOT_PORTABLE, why))
    }

    /// The inputs of a chunk; `None` where there are none. Those of a map of bytes are packed for the way.
    fn inputs(&self, _chunk: Chunk) -> Option<Pieces<'_>> {
        None
    }

    /// Takes outputs that another process made, from item `first` on: whole elements, no more than there are items. Where they
    /// lie in a mapping of their own, `home`, that may be kept instead of a copy.
    fn store(&self, _first: usize, _outputs: &[u8], _home: Option<&Arc<Mapping>>) {}

    /// Where items write their outputs, and how much each.
    fn outputs(&self) -> Outputs {
        Outputs { address: 0, size: 0 }
    }

    /// Called before this process forks children that run the items.
    fn before_fork(&self) -> Result<()> {
        Ok(())
    }

    /// From now on items write their outputs to `area`, from `offset` on, as if the array began there.
    fn redirect_outputs(&self, _area: Arc<Spare>, _offset: usize) {}

    /// Called in a child, before the items of a chunk run: maps the shared memory that they use, where it is much.
    fn populate(&self, _chunk: Chunk) {}

    /// Copies the outputs of a chunk from such an area to where the caller wants them.
    fn fetch_outputs(&self, _chunk: Chunk, _area: &Spare, _offset: usize) {}
}

/// The array that items write their outputs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// Its address; 0 where there is none.
    pub address: usize,
    /// Bytes of one item; 0 where there is no array.
    pub size: usize,
}

/// What a worker enters before its first item and leaves after its last: the context, the limits.
pub trait Surroundings: Send + Sync {
    /// Enters on this thread, which has the job until it leaves. `seat` is the worker's index.
    fn enter(&self, job: Arc<Job>, seat: usize) -> Stay;

    /// Closes what an item has left open on this thread.
    fn tidy(&self, stay: Stay);

    /// Leaves, on the same thread, and gives back the job, unless the thread ends.
    fn leave(&self, stay: Stay) -> Option<Arc<Job>>;

    /// As what it is, for the room that made it.
    fn as_any(&self) -> &dyn Any;

    /// What a worker on `seat` of another process enters.
    fn describe(&self, seat: usize) -> Around;
}

/// A worker's place on its thread's stack of scopes, from when it enters until it leaves.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    /// Scopes that were open.
    pub scopes: usize,
    /// Whether one of them is another task's.
    pub is_nested: bool,
}
