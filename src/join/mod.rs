//! Recursive parallelism: two branches, perhaps at the same time, at the price of a few nanoseconds where nobody is free.
//!
//! The outermost join on a thread opens a *region*: one ordinary job (`call.rs`) with as many items as the map in its
//! place would have workers. Whoever runs the first item runs the root's two branches; the others are helpers until the
//! root is over. So backends, the number of workers, limits, nesting level, worker index, cancellation and forks are those
//! of a map, by the same code; and since helpers only ever speed things up, the region is finished by the root's thread
//! alone where they come late or never. Its items wait for one another, which is why they have a fixed batch size of 1:
//! what a quick map does, run on its caller alone, is kept to jobs without.
//!
//! Inside a region a join is a *frame*: its branch b lies in the worker's own array (`slot.rs`) while a runs, and is taken
//! back after it. Frames of the bottom of the array, the oldest and so usually the largest branches, are offered to
//! thieves; the rest is private, and costs its owner a few plain stores (`worker.rs`).
//!
//! **Why nobody waits for ever.** A worker waits only for a branch that another worker is running. Meanwhile it runs
//! nothing but branches that were forked under that one (leapfrogging, Wagner and Calder 1993), never unrelated ones: so
//! waits go from a branch to its own descendants only, which is a tree, its leaves wait for nobody, and a branch that
//! holds a lock around a join cannot meet, on its own stack, somebody who wants that lock. Helpers wait for offers or for
//! the region's end, and nobody waits for helpers without a branch.
//!
//! A thread is in its region only while the region's task is the innermost frame of its context: below a scope that a
//! branch has opened, or in the task of a map that it has called, a join opens a region of its own, with what is chosen
//! there.

mod beds;
mod region;
mod slot;
mod worker;

pub use region::open;
pub use slot::Branch;
pub use worker::Worker;

use crate::status::{Error, ItemFate, Status};

/// What the room leaves to the boundary: calling a caller's function, and remembering a place on a thread's stack.
pub struct Hooks {
    /// Runs a branch; 0 is success. It must not unwind.
    pub run: fn(Branch) -> i32,
    /// Makes a worker the current one of this thread, or none; returns the one before. Who does so lets go of it on the same
    /// thread, in the opposite order, before the worker is gone.
    pub settle: fn(*const Worker) -> *const Worker,
}

/// How a branch failed: boxed, because nearly none does.
pub type Failure = Box<Error>;

/// The failure of a branch that returned `code`, before it is known which branch of its join it was.
fn failure(code: i32, text: Option<String>) -> Failure {
    let message = match text {
        Some(text) => format!("failed with code {code}: {text}"),
        None => format!("failed with code {code}"),
    };
    let fate = ItemFate { task_code: code, attempts: 1, ..ItemFate::default() };
    Box::new(Error::new(Status::ERR_TASK_FAILED, message).at(fate))
}

/// Says which branch it was, unless the failure comes from a join further in, which has said so.
fn of_branch(mut failure: Failure, index: usize) -> Failure {
    if failure.status == Status::ERR_TASK_FAILED && failure.item.index == usize::MAX {
        failure.message = format!("branch {} {}", ["a", "b"][index], failure.message);
        failure.item.index = index;
    }
    failure
}
