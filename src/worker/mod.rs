//! The other side: runs a chunk that came as a message, and says what came of it.
//!
//! A chunk runs as a small job of its own on the calling thread, so that everything that holds for a task in the process
//! that called - its level, its share, limits, `pb_cancelled`, maps inside it - holds here too. What the carrier adds is
//! [`Surface`]: memory that both sides have mapped, marks that tell the other side how far the chunk has come, and a way to
//! be asked to stop.

mod cancel;
mod held;
mod items;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
pub mod serve;

pub use cancel::{Ticket, cancel_all};
pub use held::{cancel_call, drop_ctx, fork_guard, put_ctx, set_cpus};
pub use items::BytesCall;

use crate::context::TaskSurroundings;
use crate::job::{Chunk, Job, Plan, Rules};
use crate::limits::{self, Limit, ProcessLimit};
use crate::message::{Failure, Kind, Marks, Pieces, Reply, Request};
use crate::status::{Error, Result, Status};
use crate::tasks;
use items::{Buffer, Items};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;

/// What a carrier offers to the chunks that it brings.
pub trait Surface: Send + Sync {
    /// The address of `len` bytes at `offset` of a piece of memory that both sides have mapped. They stay where they are until
    /// the chunk is over.
    fn at(&self, block: u64, offset: u64, len: u64) -> Result<usize>;

    /// Where to note how far the chunk has come.
    fn marks(&self) -> Option<&Marks>;

    /// Where to note how each of `count` items ended.
    fn statuses(&self, count: usize) -> Option<&[AtomicI32]>;

    /// Whether the chunk should end early.
    fn stopped(&self) -> bool;
}

/// What a worker keeps from one chunk to the next.
#[derive(Default)]
pub struct Worker {
    /// The process-wide limit in force: setting one may cost more than a chunk.
    limit: Option<(Limit, ProcessLimit)>,
    /// Whether the last chunk had a failure that ends its map.
    pub ended_map: bool,
    /// Runs all items, whatever task they name: for workers in other languages.
    handler: Option<Handler>,
}

/// A function that runs the items of maps of bytes, with what it gets as ctx.
#[derive(Clone, Copy)]
pub struct Handler {
    /// A `pb_bytes_fn`.
    pub call: BytesCall,
    /// Its ctx.
    pub user: usize,
}

impl Worker {
    /// A worker that hands all items to `handler`.
    pub fn with_handler(handler: Handler) -> Self {
        Worker { handler: Some(handler), ..Worker::default() }
    }

    /// Runs a chunk and hands the reply to `deliver`. What cannot be run gets one too, which says why.
    pub fn run<R>(
        &mut self,
        message: &[u8],
        surface: Arc<dyn Surface>,
        deliver: impl FnOnce(Pieces) -> R,
    ) -> R {
        self.ended_map = false;
        match Request::decode(message).and_then(|request| self.run_request(&request, surface)) {
            Ok((items, failure)) => items.reply(failure, deliver),
            Err(error) => deliver(Pieces::of(Reply::refusal(&error))),
        }
    }

    /// Puts the limits of native libraries in force that all threads of the process share.
    fn limit(&mut self, limit: Option<Limit>) {
        if self.limit.as_ref().map(|(limit, _)| *limit) != limit {
            // The old one goes first: only then does a library show its own count.
            self.limit = None;
            self.limit = limit.map(|limit| (limit, limits::enter_process(limit)));
        }
    }

    fn run_request(
        &mut self,
        request: &Request,
        surface: Arc<dyn Surface>,
    ) -> Result<(Arc<Items>, Option<Failure>)> {
        let address = match self.handler {
            None => resolve(request.task)?,
            Some(handler) if request.kind == Kind::Bytes => handler.call as usize,
            Some(_) => {
                return Err(Error::new(
                    Status::ERR_TASK_NOT_PORTABLE,
                    "this worker takes bytes only (pb_worker_serve): call pb_map_bytes",
                ));
            }
        };
        // The strings of a parcel are aligned as 16-byte elements would be.
        let element = if request.kind == Kind::Bytes { 16 } else { request.input_size as usize };
        let buffers = [
            match self.handler {
                None => Buffer::ctx(&request.ctx, &*surface)?,
                Some(handler) => Buffer::at(handler.user),
            },
            Buffer::input(&request.inputs, element, &*surface)?,
            Buffer::output(&request.outputs, request.items() * request.output_size as usize, &*surface)?,
        ];
        let items = Arc::new(Items::new(address, request, buffers, surface)?);
        let around = TaskSurroundings::from_outside(&held::at_home(&request.around));
        let limit = around.limit(0);
        // Loading the task may have brought native libraries along: the limit comes after it.
        self.limit(limit);
        // Callers without a number of their own choose the workers of their chunks themselves.
        let own = (request.call != 0).then(|| held::sit(request.call, request.seat));
        let seat = own.as_ref().map_or(request.seat, |own| own.number) as usize;
        let job = Job::new(plan(request, items.clone(), around, seat));
        let asked = items.clone();
        job.stop_also_when(Box::new(move || asked.stopped()));
        let seat = job.enter_as(seat);
        job.run(&seat, Chunk { begin: request.begin as usize, end: request.end as usize });
        drop((seat, own));
        let failure = job.first_failure().map(|first| failure_of(request, first)).transpose()?;
        let is_news = failure.as_ref().is_some_and(|failure| !failure.asked);
        self.ended_map = is_news && !request.collect_errors;
        if self.ended_map && request.call != 0 {
            // Chunks of the call that wait behind this one would run for nobody.
            held::cancel_call(request.call);
        }
        Ok((items, failure))
    }
}

thread_local! {
    /// Functions that were found, by the bytes that stand for them, and the number of changes until then.
    static FOUND: RefCell<(u64, HashMap<Vec<u8>, usize>)> = RefCell::default();
}

/// The address of the function that these bytes stand for: looked for once by each thread.
fn resolve(task: &[u8]) -> Result<usize> {
    let changes = tasks::changes();
    let known = FOUND.with_borrow(|(then, found)| found.get(task).copied().filter(|_| *then == changes));
    if let Some(address) = known {
        return Ok(address);
    }
    // A library's initialiser may register tasks now: that counts as a change after.
    let address = tasks::resolve(&Request::decode_task(task)?)?;
    FOUND.with_borrow_mut(|(then, found)| {
        if *then != changes {
            *then = changes;
            found.clear();
        }
        found.insert(task.to_owned(), address);
    });
    Ok(address)
}

fn plan(request: &Request, items: Arc<Items>, around: TaskSurroundings, seat: usize) -> Plan {
    Plan {
        task: Box::new(items),
        // Items keep the numbers that they have in the whole map.
        n_items: request.end as usize,
        n_jobs: (request.seats as usize).max(seat + 1),
        rules: Rules {
            collect_errors: request.collect_errors,
            batch_size: request.items(),
            timeout: request.timeout,
            ..Rules::default()
        },
        most_workers: 0,
        around: Arc::new(around),
        parent: None,
        progress: None,
        started: 0,
    }
}

/// The failure of an item, or of the whole chunk.
fn failure_of(request: &Request, (error, asked): (Error, bool)) -> Result<Failure> {
    let index = error.item.index as u64;
    if !(request.begin..request.end).contains(&index) {
        return Err(error);
    }
    let is_late = error.status == Status::ERR_TIMEOUT;
    Ok(Failure {
        item: index - request.begin,
        status: if is_late { Status::ERR_TIMEOUT } else { Status::ERR_TASK_FAILED },
        code: error.item.task_code,
        asked,
        message: error.message.clone(),
    })
}

/// A carrier that offers nothing but the message, and ctx that it was given apart: whole chunks, asked to stop by
/// `pb_worker_cancel` or `pb_worker_cancel_call`.
pub struct Alone(Ticket);

impl Alone {
    /// For one chunk that begins now.
    pub fn new() -> Arc<Self> {
        Arc::new(Alone(Ticket::take()))
    }
}

impl Surface for Alone {
    fn at(&self, block: u64, offset: u64, len: u64) -> Result<usize> {
        if offset == 0 {
            return held::ctx(block, len);
        }
        Err(Error::invalid("the chunk refers to memory that this worker does not share with its caller"))
    }

    fn marks(&self) -> Option<&Marks> {
        None
    }

    fn statuses(&self, _count: usize) -> Option<&[AtomicI32]> {
        None
    }

    fn stopped(&self) -> bool {
        self.0.is_cancelled()
    }
}
