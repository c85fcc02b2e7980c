//! One call: borrows workers and drives them from the caller's thread until all items have run.
//!
//! The caller posts chunks and takes replies; between them it sleeps on its bell. Every [`LOOK`], however busy it is, it looks
//! for what rings no bell: workers that died or left, items that are late, a job that was stopped. A worker that is to end
//! early gets a moment to do so and is killed then; another one takes its seat (`losses.rs`).

use super::command::Threads;
use super::executor::{CtxCopy, Executor, next_number};
use super::hand::{Death, Hand, Layout};
use crate::fork;
use crate::job::{Cargo, Chunk, Job, Task};
use crate::link::{Bell, LOOK, SLOTS};
use crate::message::{Data, Kind, Pieces, Reply};
use crate::shared::{self, Place};
use crate::status::{Error, Result, Status};
use crate::tasks;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A ctx up to this size travels in each message: less trouble than a file of its own.
const SMALL_CTX: usize = 16 << 10;
/// A worker whose chunks take less has the next one waiting.
const SHORT: Duration = Duration::from_millis(1);
/// The most bytes of one chunk, unless a single item has more.
const CHUNK_BYTES: usize = 64 << 20;
/// How long the caller looks for replies before it sleeps.
const AWAKE: Duration = Duration::from_micros(50);
/// How long a worker that is replaced has to end by itself.
const FAREWELL: Duration = Duration::from_millis(100);
/// How often a worker's memory is looked at.
const MEMORY_LOOK: Duration = Duration::from_millis(100);

/// A chunk on its way.
pub(super) struct Flight {
    pub chunk: Chunk,
    pub layout: Layout,
    /// How far the chunk had come when it was last looked at, and since when.
    pub begun: usize,
    pub since: Instant,
}

/// A worker with what it was given.
pub(super) struct Station {
    pub hand: Hand,
    pub flights: VecDeque<Flight>,
    /// When it was asked to end early.
    pub asked: Option<Instant>,
    /// What its last chunk took.
    last: Duration,
}

/// A map on its way.
pub struct Call<'a> {
    pub(super) job: &'a Arc<Job>,
    pub(super) executor: Arc<Executor>,
    task: Vec<u8>,
    initializer: Option<Vec<u8>>,
    ctx: Option<Arc<CtxCopy>>,
    /// Where ctx and the arrays lie in blocks of `pb_alloc_shared`.
    ctx_place: Option<Place>,
    inputs: Option<Place>,
    pub(super) outputs: Option<Place>,
    input_size: usize,
    pub(super) output_size: usize,
    /// Whether this is no map of bytes.
    pub(super) has_elements: bool,
    number: u64,
    /// Items that were never claimed.
    left: usize,
    /// A worker for each seat, while it has one.
    pub(super) stations: Vec<Option<Station>>,
    pub(super) false_starts: u32,
    generation: u32,
}

impl<'a> Call<'a> {
    /// Finds out what can be before anything is started.
    pub fn new(job: &'a Arc<Job>, executor: Result<Arc<Executor>>) -> Result<Self> {
        let cargo = check(job.task())?;
        let executor = executor?;
        let in_block = |bytes: &[u8]| shared::find(bytes.as_ptr() as usize, bytes.len());
        let ctx_place = cargo.ctx.and_then(in_block);
        let large = cargo.ctx.filter(|ctx| ctx.len() > SMALL_CTX && ctx_place.is_none());
        let ctx = large.map(|ctx| executor.ctx(ctx)).transpose()?;
        let all = Chunk { begin: 0, end: job.n_items() };
        let has_elements = cargo.kind == Kind::Elements;
        let inputs = if has_elements { job.task().inputs(all) } else { None };
        let inputs = inputs.and_then(|inputs| in_block(&inputs.into_bytes()));
        let outputs = job.task().outputs();
        let outputs = shared::find(outputs.address, outputs.size * job.n_items())
            .filter(|_| has_elements && outputs.address != 0);
        let initializer = executor.params.initializer.as_deref().map(initializer).transpose()?;
        Ok(Call {
            job,
            executor,
            task: job.encode_task()?,
            initializer,
            ctx,
            ctx_place,
            inputs,
            outputs,
            input_size: cargo.input_size,
            output_size: cargo.output_size,
            has_elements,
            number: next_number(),
            left: job.n_items(),
            stations: (0..job.n_jobs()).map(|_| None).collect(),
            false_starts: 0,
            generation: fork::generation(),
        })
    }

    fn bell(&self) -> &Bell {
        self.executor.bells.get(self.number as usize)
    }

    /// Runs the job.
    pub fn run(mut self) -> Result<()> {
        let ran = self.drive();
        if self.is_forked() {
            return ran;
        }
        for station in self.stations.drain(..).flatten() {
            // After an error of our own something may still be on its way.
            if station.flights.is_empty() {
                self.executor.give_back(station.hand);
            } else {
                self.executor.gone(1);
            }
        }
        ran
    }

    fn drive(&mut self) -> Result<()> {
        let mut looked = Instant::now();
        loop {
            let seen = self.bell().seen();
            let mut moved = false;
            for seat in 0..self.stations.len() {
                moved |= self.take_replies(seat)?;
            }
            // Every worker has one chunk before any has the next one waiting.
            for depth in 1..=SLOTS {
                for seat in 0..self.stations.len() {
                    moved |= self.fill(seat, depth)?;
                }
            }
            self.tell()?;
            if self.job.is_stopped() {
                self.cancel();
            }
            if !self.is_busy() {
                if self.job.is_stopped() || !moved {
                    return Ok(());
                }
                continue;
            }
            // Workers that are asked to stop are looked after more often.
            let pause = if self.job.is_stopped() { Duration::from_millis(5) } else { LOOK };
            if looked.elapsed() >= pause {
                self.look_after_workers()?;
                looked = Instant::now();
                continue;
            }
            if moved || self.spin() {
                continue;
            }
            self.bell().sleep(seen, pause.saturating_sub(looked.elapsed()));
        }
    }

    /// Calls the caller's callback, if it is time. It may call maps, and fork.
    fn tell(&self) -> Result<()> {
        if self.job.has_news() {
            let _callback = self.executor.in_callback();
            self.job.tell();
        }
        if self.is_forked() { Err(forked()) } else { Ok(()) }
    }

    /// Whether this is a fork of the process that runs the map: the workers, and the memory that they share, are its parent's.
    fn is_forked(&self) -> bool {
        fork::generation() != self.generation
    }

    fn is_busy(&self) -> bool {
        self.stations.iter().flatten().any(|station| !station.flights.is_empty())
    }

    /// Looks for replies for a short while.
    fn spin(&self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < AWAKE {
            for _ in 0..32 {
                if self.stations.iter().flatten().any(|station| station.hand.is_done()) {
                    return true;
                }
                std::hint::spin_loop();
            }
            // Whoever else is runnable goes first: it may be a worker.
            std::thread::yield_now();
        }
        false
    }

    // ---- giving work -------------------------------------------------------------------------------------------------

    /// Whether the worker of a seat, with so many chunks on their way, should have one more.
    fn takes_more(&self, seat: usize, depth: usize) -> bool {
        let Some(station) = &self.stations[seat] else { return depth == 1 };
        let may = station.asked.is_none() && (station.hand.initialised || station.flights.is_empty());
        // One that waits behind another is worth while where both are short, and not among the last ones.
        let short = station.last < SHORT && self.left > 2 * self.stations.len();
        may && station.flights.len() < depth && (depth == 1 || short)
    }

    /// Gives a seat's worker what it can take, up to `depth` chunks, and the seat a worker if there is work for it.
    fn fill(&mut self, seat: usize, depth: usize) -> Result<bool> {
        let mut moved = false;
        loop {
            if !self.takes_more(seat, depth) {
                return Ok(moved);
            }
            let Some(chunk) = self.job.claim_again() else { return Ok(moved) };
            self.left = self.left.min(self.job.n_items() - chunk.end);
            if self.stations[seat].is_none() {
                match self.hire(seat) {
                    Ok(true) => {}
                    Ok(false) => {
                        self.job.put_back(chunk);
                        if self.stations.iter().any(Option::is_some) {
                            return Ok(moved);
                        }
                        // All are lent to others, and one of ours is needed to get on.
                        self.executor.wait(self.stations.len());
                        continue;
                    }
                    Err(error) => {
                        self.job.put_back(chunk);
                        // With fewer workers than asked for the map takes longer; without any it ends.
                        return if self.stations.iter().any(Option::is_some) {
                            Ok(moved)
                        } else {
                            Err(error)
                        };
                    }
                }
            }
            let mut chunk = self.bounded(chunk);
            if let Err(error) = self.send(seat, &mut chunk) {
                self.job.put_back(chunk);
                self.lost_contact(seat, error)?;
            }
            moved = true;
        }
    }

    /// Gives a seat a worker. False where all are lent to others.
    fn hire(&mut self, seat: usize) -> Result<bool> {
        let around = self.job.around(seat);
        let threads = Threads { count: around.limit, is_exact: around.limit_is_exact };
        let has_some = self.stations.iter().any(Option::is_some);
        let hand = loop {
            let Some(mut hand) = self.executor.borrow(self.stations.len(), has_some, threads)? else {
                return Ok(false);
            };
            // One that has left, or was killed, while nobody looked.
            match hand.look() {
                None => break hand,
                Some(Death::Unfit(error)) => {
                    self.executor.gone(1);
                    return Err(error);
                }
                Some(_) => self.executor.gone(1),
            }
        };
        hand.lend(self.number, self.number as usize);
        let station = Station { hand, flights: VecDeque::new(), asked: None, last: Duration::MAX };
        self.stations[seat] = Some(station);
        if let Err(error) = self.initialise(seat) {
            self.lost_contact(seat, error)?;
        }
        Ok(self.stations[seat].is_some())
    }

    /// Has a new worker run its initializer first, if there is one.
    fn initialise(&mut self, seat: usize) -> Result<()> {
        let Some(station) = self.stations[seat].as_mut().filter(|station| !station.hand.initialised) else {
            return Ok(());
        };
        let Some(task) = &self.initializer else { return Ok(()) };
        let request = self.job.request_elsewhere(task, seat).encode();
        let layout = Layout::new(0, 0, 1);
        station.hand.area(layout.len + request.len())?;
        station.hand.post(&layout, &request)?;
        let nothing = Chunk { begin: 0, end: 0 };
        station.flights.push_back(Flight { chunk: nothing, layout, begun: 0, since: Instant::now() });
        Ok(())
    }

    /// Posts a chunk to the worker of a seat; or its beginning, where its strings are too much for one message.
    fn send(&mut self, seat: usize, chunk: &mut Chunk) -> Result<()> {
        let inputs = loop {
            let inputs = self.job.task().inputs(*chunk);
            let items = chunk.end - chunk.begin;
            if self.has_elements || items == 1 || inputs.as_ref().map_or(0, Pieces::len) <= CHUNK_BYTES {
                break inputs;
            }
            let middle = chunk.begin + items / 2;
            self.job.put_back(Chunk { begin: middle, ..*chunk });
            chunk.end = middle;
        };
        let (chunk, items) = (*chunk, chunk.end - chunk.begin);
        let has_outputs = self.has_elements && self.job.task().outputs().address != 0;
        let own_inputs = inputs.as_ref().filter(|_| self.inputs.is_none());
        let input_len = own_inputs.map_or(0, Pieces::len);
        let output_len = if self.outputs.is_some() { 0 } else { items * self.output_size };
        let layout = Layout::new(input_len, output_len, items);
        let mut request = self.job.request(&self.task, seat, chunk, None)?;
        if let Some(ctx) = &self.ctx {
            request.ctx = Data::Shared { block: ctx.id, offset: 0, len: ctx.len as u64 };
        }
        if let Some(place) = &self.ctx_place {
            if let Data::Inline(bytes) = request.ctx {
                let (offset, len) = (place.offset as u64, bytes.len() as u64);
                request.ctx = Data::Shared { block: place.block_id(), offset, len };
            }
        }
        if inputs.is_some() {
            request.inputs = match &self.inputs {
                Some(place) => in_block(place, chunk, self.input_size),
                None => Layout::data(layout.inputs, input_len),
            };
        }
        if has_outputs {
            request.outputs = match &self.outputs {
                Some(place) => in_block(place, chunk, self.output_size),
                None => Layout::data(layout.outputs, output_len),
            };
        }
        let request = request.encode();
        let Some(station) = &mut self.stations[seat] else { return Ok(()) };
        if let Some(ctx) = &self.ctx {
            station.hand.share_ctx(ctx.id, ctx.file.as_fd(), ctx.len)?;
        }
        for place in self.ctx_place.iter().chain(&self.inputs).chain(&self.outputs) {
            station.hand.share_block(place)?;
        }
        let area = station.hand.area(layout.len + request.len())?;
        for (at, piece) in own_inputs.iter().flat_map(|inputs| inputs.iter()) {
            area.write(layout.inputs + at, piece);
        }
        station.hand.post(&layout, &request)?;
        station.flights.push_back(Flight { chunk, layout, begun: 0, since: Instant::now() });
        Ok(())
    }

    /// The beginning of a chunk that is not too large; the rest is put back.
    fn bounded(&self, chunk: Chunk) -> Chunk {
        let most = (CHUNK_BYTES / (self.input_size + self.output_size).max(1)).max(1);
        // How far a lost worker came in a chunk of bytes tells which results there were, but these are gone with it.
        let most = if self.has_elements || !self.job.rules().once_only { most } else { 1 };
        let end = chunk.end.min(chunk.begin + most);
        self.job.put_back(Chunk { begin: end, ..chunk });
        Chunk { end, ..chunk }
    }

    // ---- taking results ----------------------------------------------------------------------------------------------

    /// Takes what the worker of a seat has done.
    pub(super) fn take_replies(&mut self, seat: usize) -> Result<bool> {
        let mut moved = false;
        while let Some(station) = self.stations[seat].as_mut().filter(|station| station.hand.is_done()) {
            let Some(flight) = station.flights.pop_front() else { break };
            moved = true;
            if let Err(error) = self.take_reply(seat, &flight) {
                // The map is over; and what this worker writes, or has not done, is nothing for the next one.
                self.stations[seat] = None;
                self.executor.gone(1);
                return Err(error);
            }
            let Some(station) = &mut self.stations[seat] else { break };
            station.hand.take();
            if station.flights.is_empty() {
                station.asked = None;
                self.retire_if_worn(seat);
            }
        }
        Ok(moved)
    }

    /// Takes the reply to a worker's oldest request. An error is about the worker: a task may have written where it should
    /// not, or the initializer has failed.
    fn take_reply(&mut self, seat: usize, flight: &Flight) -> Result<()> {
        let Some(station) = &mut self.stations[seat] else { return Ok(()) };
        let len = station.hand.reply_len();
        let room = flight.layout.reply_room;
        // A reply too long for its place comes as a file.
        let file = if len > room { station.hand.take_reply_file(len).map(Arc::new) } else { None };
        let area = station.hand.oldest_area();
        let small = area.filter(|_| len <= room).map(|area| area.bytes(flight.layout.reply, len).to_vec());
        let bytes = file.as_ref().map_or(small.as_deref().unwrap_or_default(), |file| file.bytes(0, len));
        let reply = Reply::decode(bytes)?;
        if !station.hand.initialised {
            initialised(&reply)?;
            station.hand.initialised = true;
            return Ok(());
        }
        let ran = (reply.ran as usize).min(flight.chunk.end - flight.chunk.begin);
        let outputs = if self.outputs.is_some() { 0 } else { ran * self.output_size };
        if let Some(area) = area.filter(|_| outputs > 0) {
            self.job.task().store(flight.chunk.begin, area.bytes(flight.layout.outputs, outputs), None);
        }
        self.job.take_reply(flight.chunk, &reply, file.as_ref())?;
        station.hand.items += ran as u64;
        station.last = Duration::from_nanos(reply.nanoseconds);
        self.false_starts = 0;
        Ok(())
    }

    /// Replaces a worker that has run enough, or has grown too large.
    fn retire_if_worn(&mut self, seat: usize) {
        let params = &self.executor.params;
        let Some(station) = &mut self.stations[seat] else { return };
        let hand = &mut station.hand;
        let mut worn = params.max_tasks > 0 && hand.items >= params.max_tasks;
        if params.max_memory > 0 && hand.looked.elapsed() > MEMORY_LOOK {
            hand.looked = Instant::now();
            worn |= hand.resident() > params.max_memory;
        }
        if worn {
            if let Some(station) = self.stations[seat].take() {
                station.hand.dismiss();
                station.hand.bury(Instant::now() + FAREWELL);
                self.executor.gone(1);
            }
        }
    }
}

fn in_block(place: &Place, chunk: Chunk, size: usize) -> Data<'static> {
    let (offset, len) = (place.offset + chunk.begin * size, (chunk.end - chunk.begin) * size);
    Data::Shared { block: place.block_id(), offset: offset as u64, len: len as u64 }
}

/// What the task needs elsewhere, if workers can run it.
pub fn check(task: &dyn Task) -> Result<Cargo<'_>> {
    let cargo = task.cargo()?;
    let reference = tasks::reference(cargo.address, cargo.name)?;
    let is_program = reference.place.as_ref().is_some_and(|place| place.is_program());
    if reference.name.is_none() && is_program && !tasks::can_rerun() {
        return Err(in_program());
    }
    Ok(cargo)
}

fn in_program() -> Error {
    Error::new(
        Status::ERR_TASK_NOT_PORTABLE,
        "the task is a function of the program itself, which worker processes of backend 'loky' do not have: call \
         pb_worker_main(argc, argv) first in main(), so that workers are the program itself; or put the task into a shared \
         library",
    )
}

/// The bytes that stand for the initializer.
fn initializer(name: &str) -> Result<Vec<u8>> {
    let address = tasks::registered(name).ok_or_else(|| {
        Error::invalid(format!(
            "initializer '{name}' is no registered task: pb_register_task gives a task its name"
        ))
    })?;
    Ok(crate::message::Request::encode_task(&tasks::reference(address, Some(name))?))
}

fn initialised(reply: &Reply) -> Result<()> {
    if let Some((status, text)) = reply.refused {
        return Err(Error::new(status, format!("the initializer cannot run: {text}")));
    }
    match &reply.failure {
        None => Ok(()),
        Some(failure) => {
            Err(Error::new(Status::ERR_TASK_FAILED, format!("the initializer failed: {}", failure.message)))
        }
    }
}

fn forked() -> Error {
    Error::new(
        Status::ERR_WORKER_LOST,
        "the process was forked by a callback of this map: the child has none of the map's workers",
    )
}
