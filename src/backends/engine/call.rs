//! One map: sends chunks from the caller's thread and takes what comes of them, until all items have run.
//!
//! Every chunk that is sent gets a number of its own, and is in `flights` until it is answered, lost, or given up. What comes
//! for a number that is not there - late, twice, or made up - is dropped, so a chunk is delivered once, whatever the engine
//! does. When the map stops early, nothing more is sent, the engine is asked to cancel, and after a grace the call returns
//! and says what still runs; nothing is written to the caller's arrays any more, since nobody reads for this call.

use super::Kind;
use super::frames::{Answer, BODY_MOST, CallMeta, Lost, Order, Ready, Shipped, SubmitMeta};
use super::line::{Event, Line};
use super::params::Params;
use super::sizes::{Sizes, group, most_bytes, width, window};
use crate::job::{Cargo, Chunk, Job, Loss};
use crate::message::{Kind as Items, Pieces, Reply};
use crate::status::{Error, Result, Status};
use crate::tasks;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the caller looks after its job while nothing comes.
const LOOK: Duration = Duration::from_millis(10);
/// How long a cancelled call waits for the engine: somewhat longer than the engine waits for its workers.
const GRACE: Duration = Duration::from_secs(6);
/// How long we wait for the bridge's thread to say why the bridge cannot be reached.
const POST_MORTEM: Duration = Duration::from_secs(3);
/// A ctx up to this size travels in each message.
const SMALL_CTX: usize = 4 << 10;
/// A larger one does so too, as long as all the messages on their way have no more of it than this.
const COPIES_OF_CTX: usize = 256 << 10;
/// Chunks in a frame.
const CHUNKS_A_FRAME: usize = 64;
/// Bytes in a frame, unless a single chunk has more.
const BYTES_A_FRAME: usize = 8 << 20;

/// A chunk on its way.
struct Flight {
    chunk: Chunk,
    /// What it counts for against the credit.
    bytes: u64,
}

/// A chunk that is ready to go.
struct Parcel {
    chunk: Chunk,
    message: Vec<u8>,
    bytes: u64,
}

/// A map on its way.
pub struct Call<'a> {
    job: &'a Arc<Job>,
    line: Line,
    ready: Arc<Ready>,
    params: &'a Params,
    task: Vec<u8>,
    /// Workers at most, whatever the number of slots becomes; 0: all that there are.
    wanted: usize,
    sizes: Sizes,
    /// Bytes of an item, there and back; those of a map of bytes are counted when they are packed.
    item_bytes: u64,
    /// Items that were never sent.
    left: usize,
    flights: HashMap<u64, Flight>,
    bytes: u64,
    sent: u64,
    /// A chunk that waits for credit.
    held: Option<Parcel>,
    begun: Instant,
    /// When something was last heard of a chunk, or the first one was sent.
    heard: Instant,
}

/// What can be said against the task before anything is started.
pub fn check(kind: Kind, job: &Job) -> Result<()> {
    let cargo = job.task().cargo()?;
    if kind == Kind::Dask && job.rules().once_only {
        return Err(Error::new(
            Status::ERR_UNSUPPORTED,
            "backend 'dask' cannot promise PB_NON_IDEMPOTENT: Dask runs a task again when a worker leaves with its result. Make \
             the task repeatable and leave the flag out, or use backend 'ray', 'mpi' or 'loky'",
        ));
    }
    files(kind, &cargo).map(drop)
}

/// The files that workers need to run the task.
fn files(kind: Kind, cargo: &Cargo) -> Result<Vec<Shipped>> {
    let place = tasks::reference(cargo.address, cargo.name)?.place;
    let place = place.filter(|place| !place.is_program()).ok_or_else(|| {
        let message = format!(
            "the task is a function of the program itself, which the workers of backend '{}' do not have: put it into a \
             shared library, which is then sent to them",
            kind.name()
        );
        Error::new(Status::ERR_TASK_NOT_PORTABLE, message)
    })?;
    let identity = place.identity.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(vec![Shipped { path: place.file, identity }])
}

impl<'a> Call<'a> {
    /// Announces the call.
    pub fn new(job: &'a Arc<Job>, line: Line, ready: Arc<Ready>, params: &'a Params) -> Result<Self> {
        let cargo = job.task().cargo()?;
        let mut call = Call {
            job,
            line,
            params,
            task: job.encode_task()?,
            // Not the workers that were counted: there may be more slots by now.
            wanted: job.most_workers(),
            sizes: Sizes::new(&ready, job.rules().batch_size),
            ready,
            item_bytes: (cargo.input_size + cargo.output_size) as u64,
            left: job.n_items(),
            flights: HashMap::new(),
            bytes: 0,
            sent: 0,
            held: None,
            begun: Instant::now(),
            heard: Instant::now(),
        };
        call.announce(&cargo)?;
        Ok(call)
    }

    fn announce(&mut self, cargo: &Cargo) -> Result<()> {
        let copies = self.width_and_window().1.min(self.left);
        let large = |ctx: &&[u8]| ctx.len() > SMALL_CTX && ctx.len().saturating_mul(copies) > COPIES_OF_CTX;
        let apart = if cargo.ctx.as_ref().is_some_and(large) { self.job.detach_ctx()? } else { None };
        let apart = apart.unwrap_or_default();
        if apart.len() as u64 > BODY_MOST {
            let message =
                format!("a ctx of {} bytes is more than backends on clusters take (1 GiB)", apart.len());
            return Err(Error::new(Status::ERR_UNSUPPORTED, message));
        }
        let rules = self.job.rules();
        let meta = CallMeta {
            files: files(self.params.kind, cargo)?,
            ctx_size: apart.len() as u64,
            retries: rules.retries,
            once_only: rules.once_only,
        };
        self.say(Order::Call, &meta, &[apart])
    }

    /// Says something to the bridge. If that is dead, its thread knows best what it died of.
    fn say(&mut self, order: Order, meta: &impl serde::Serialize, body: &[&[u8]]) -> Result<()> {
        let Err(error) = self.line.say(order, meta, body) else { return Ok(()) };
        let until = Instant::now() + POST_MORTEM;
        while error.status == Status::ERR_WORKER_LOST && Instant::now() < until {
            let over = self.line.events(LOOK).into_iter().find_map(|event| match event {
                Event::Over(error) => Some(error),
                _ => None,
            });
            if let Some(over) = over {
                return Err(over);
            }
        }
        Err(error)
    }

    /// Chunks that run at once, and those that may be on their way.
    fn width_and_window(&self) -> (usize, usize) {
        let slots = self.line.bridge().slots().0 as usize;
        (width(slots, self.wanted), window(slots, self.wanted))
    }

    /// Runs the job.
    pub fn run(mut self) -> Result<()> {
        let ran = self.drive();
        if self.flights.is_empty() || self.line.bridge().is_the_parents() {
            return ran;
        }
        // Stopped, or something went wrong: what is on its way is called back.
        match (ran, self.stop()) {
            (Ok(()), stopped) => stopped,
            (Err(error), _) => Err(error),
        }
    }

    fn drive(&mut self) -> Result<()> {
        while !self.job.is_stopped() {
            self.feed()?;
            if self.flights.is_empty() {
                return Ok(());
            }
            for event in self.line.events(LOOK) {
                self.take(event)?;
                // A callback may have forked, and the child has none of this.
                if self.line.bridge().is_the_parents() {
                    return Err(forked());
                }
            }
            self.look_at_clock()?;
        }
        Ok(())
    }

    // ---- giving work -------------------------------------------------------------------------------------------------

    /// Sends what may be sent now.
    fn feed(&mut self) -> Result<()> {
        let (width, window) = self.width_and_window();
        if !self.flights.is_empty() && self.flights.len() + group(window, width) > window {
            return Ok(());
        }
        let mut parcels: Vec<Parcel> = Vec::new();
        let mut bytes = 0;
        loop {
            let on_their_way = self.flights.len() + parcels.len();
            let sent = self.sent as usize + parcels.len();
            let elapsed = self.begun.elapsed().as_secs_f64();
            if !self.sizes.may_send(on_their_way, sent, window, elapsed, width) {
                break;
            }
            let held = self.held.take();
            let Some(parcel) = held.map_or_else(|| self.pack(window, width), |held| Ok(Some(held)))? else {
                break;
            };
            if on_their_way > 0 && self.bytes + parcel.bytes > self.ready.credit {
                self.held = Some(parcel);
                break;
            }
            self.bytes += parcel.bytes;
            bytes += parcel.message.len();
            parcels.push(parcel);
            if parcels.len() == CHUNKS_A_FRAME || bytes > BYTES_A_FRAME {
                self.submit(std::mem::take(&mut parcels))?;
                bytes = 0;
            }
        }
        self.submit(parcels)
    }

    fn submit(&mut self, parcels: Vec<Parcel>) -> Result<()> {
        if parcels.is_empty() {
            return Ok(());
        }
        if self.flights.is_empty() {
            self.heard = Instant::now();
        }
        let mut meta = SubmitMeta::default();
        for Parcel { chunk, message, bytes } in &parcels {
            meta.chunks.push((self.sent, message.len() as u64, (chunk.end - chunk.begin) as u64));
            self.flights.insert(self.sent, Flight { chunk: *chunk, bytes: *bytes });
            self.sent += 1;
        }
        let body: Vec<&[u8]> = parcels.iter().map(|parcel| &parcel.message[..]).collect();
        self.say(Order::Submit, &meta, &body)
    }

    /// Claims the next chunk and makes a message of it. `None` where nothing is left now.
    fn pack(&mut self, window: usize, width: usize) -> Result<Option<Parcel>> {
        let most = most_bytes(&self.ready, window);
        let fitting = most.checked_div(self.item_bytes).and_then(|items| usize::try_from(items).ok());
        let items = self.sizes.next(self.left, width).min(fitting.unwrap_or(usize::MAX)).max(1);
        let Some(mut chunk) = self.job.claim_sized(items) else { return Ok(None) };
        loop {
            let message = self.encode(chunk)?;
            let outputs = (chunk.end - chunk.begin) as u64 * self.output_bytes()?;
            let bytes = message.len() as u64 + outputs;
            let is_single = chunk.end - chunk.begin == 1;
            if is_single && bytes > self.ready.chunk_bytes {
                return Err(self.too_large(chunk.begin, bytes));
            }
            if is_single || bytes <= most || self.item_bytes > 0 {
                self.left = self.left.min(self.job.n_items() - chunk.end);
                return Ok(Some(Parcel { chunk, message, bytes }));
            }
            // Byte strings of any length: the half of it may do.
            let middle = chunk.begin + (chunk.end - chunk.begin) / 2;
            self.job.put_back(Chunk { begin: middle, ..chunk });
            chunk.end = middle;
        }
    }

    fn output_bytes(&self) -> Result<u64> {
        Ok(self.job.task().cargo()?.output_size as u64)
    }

    fn encode(&self, chunk: Chunk) -> Result<Vec<u8>> {
        let seat = (self.sent as usize) % self.job.n_jobs();
        let inputs = self.job.task().inputs(chunk).map(Pieces::into_bytes);
        Ok(self.job.request(&self.task, seat, chunk, inputs.as_deref())?.encode())
    }

    fn too_large(&self, index: usize, bytes: u64) -> Error {
        let is_bytes = self.job.task().cargo().is_ok_and(|cargo| cargo.kind == Items::Bytes);
        let what = if is_bytes { "of input" } else { "of input, ctx and output" };
        let message = format!(
            "item {index} has {bytes} bytes {what}, more than the {} that backend '{}' takes in one task: use smaller items, or \
             have the task read what it needs from storage that the workers share",
            self.ready.chunk_bytes,
            self.params.kind.name()
        );
        Error::new(Status::ERR_UNSUPPORTED, message)
    }

    // ---- taking results ----------------------------------------------------------------------------------------------

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Results(answers, body) => {
                answers.iter().try_for_each(|answer| self.answered(answer, &body))
            }
            Event::Lost(lost) => {
                lost.iter().for_each(|lost| self.lost(lost));
                Ok(())
            }
            Event::Failed(error) => {
                self.flights.clear();
                Err(error)
            }
            Event::Over(error) => {
                self.flights.clear();
                Err(error)
            }
            // Nobody has asked for it.
            Event::Cancelled(..) => Ok(()),
        }
    }

    /// Ends a chunk's flight, if it has not ended.
    fn land(&mut self, seq: u64) -> Option<Chunk> {
        let flight = self.flights.remove(&seq)?;
        self.bytes -= flight.bytes;
        self.heard = Instant::now();
        Some(flight.chunk)
    }

    fn answered(&mut self, answer: &Answer, body: &[u8]) -> Result<()> {
        let Some(chunk) = self.land(answer.seq) else { return Ok(()) };
        let from = |error: Error| error.in_words(|said| format!("{said} (worker {})", answer.worker));
        let reply = Reply::decode(&body[answer.place.clone()]).map_err(from)?;
        if let Some((status, text)) = reply.refused {
            self.job.fail(from(Error::new(status, text)));
            return Ok(());
        }
        self.job.complete(chunk, &reply, None).map_err(from)?;
        self.sizes.took(reply.ran as usize, reply.nanoseconds as f64 * 1e-9);
        Ok(())
    }

    fn lost(&mut self, lost: &Lost) {
        let Some(chunk) = self.land(lost.seq) else { return };
        let times = if lost.attempts > 1 { format!(", {} times", lost.attempts) } else { String::new() };
        let how = format!("{} ({}{times})", lost.how, lost.worker);
        self.job.lose(chunk, &Loss { how, exit_code: -1, signal: 0, attempts: 1 });
    }

    // ---- limits of time ----------------------------------------------------------------------------------------------

    /// Ends the map if it waits for what does not come.
    fn look_at_clock(&self) -> Result<()> {
        let name = self.params.kind.name();
        let waiting = self.flights.len();
        let (_, without) = self.line.bridge().slots();
        if without.is_some_and(|since| since > self.params.engine) {
            let seconds = self.params.engine.as_secs_f64();
            let message = format!(
                "the cluster of backend '{name}' has had no workers for {seconds} s, and {waiting} chunks wait: start workers, or \
                 wait longer with the parameter engine_timeout="
            );
            return Err(Error::new(Status::ERR_TIMEOUT, message));
        }
        let silent = self.heard.elapsed();
        if let Some(stall) = self.params.stall.filter(|stall| waiting > 0 && silent > *stall) {
            let seconds = stall.as_secs_f64();
            let message = format!(
                "no chunk has come back from backend '{name}' for {seconds} s (stall_timeout), and {waiting} are on their way"
            );
            return Err(Error::new(Status::ERR_TIMEOUT, message));
        }
        self.look_for_late_items(silent)
    }

    /// A worker tells of late items itself, once they end. One that never ends is seen here: when nothing has come for longer
    /// than the largest chunk may take, and the engine's own patience. Chunks that wait behind other programs' tasks for so long
    /// are taken for such items: only the engine knows which of them have begun, and `dask` and `ray` do not say.
    fn look_for_late_items(&self, silent: Duration) -> Result<()> {
        let timeout = self.job.timeout();
        let largest =
            self.flights.values().map(|flight| flight.chunk.end - flight.chunk.begin).max().unwrap_or(0);
        if timeout <= 0.0
            || silent.as_secs_f64() <= timeout * largest as f64 + self.params.engine.as_secs_f64()
        {
            return Ok(());
        }
        let first = self.flights.values().map(|flight| flight.chunk.begin).min().unwrap_or(0);
        let message = format!(
            "no chunk has come back from backend '{}' for {:.1} s, though none should take longer than {:.1} s with a timeout of \
             {timeout} s an item: an item has not begun or does not end ({} chunks are on their way; the first item of them is {first})",
            self.params.kind.name(),
            silent.as_secs_f64(),
            timeout * largest as f64,
            self.flights.len()
        );
        Err(Error::new(Status::ERR_TIMEOUT, message))
    }

    // ---- the end -----------------------------------------------------------------------------------------------------

    /// Calls back what is on its way, and waits for that for a while. What has run meanwhile counts.
    fn stop(&mut self) -> Result<()> {
        if self.line.cancel().is_err() {
            return Ok(());
        }
        let until = Instant::now() + GRACE;
        while !self.flights.is_empty() {
            if Instant::now() >= until {
                let count = self.flights.len() as u64;
                self.remark(count, &[]);
                return Ok(());
            }
            for event in self.line.events(LOOK) {
                match event {
                    Event::Results(answers, body) => {
                        // What is no reply now is nobody's business any more.
                        answers.iter().for_each(|answer| drop(self.answered(answer, &body)));
                    }
                    Event::Lost(lost) => {
                        for lost in &lost {
                            self.land(lost.seq);
                        }
                    }
                    Event::Cancelled(running, workers) => {
                        self.remark(running, &workers);
                        return Ok(());
                    }
                    Event::Failed(_) | Event::Over(_) => return Ok(()),
                }
                if self.line.bridge().is_the_parents() {
                    return Err(forked());
                }
            }
        }
        Ok(())
    }

    /// Has the map's error say what still runs.
    fn remark(&self, running: u64, workers: &[String]) {
        if running > 0 {
            let chunks =
                if running == 1 { "1 chunk still runs" } else { &format!("{running} chunks still run") };
            let place =
                if workers.is_empty() { String::new() } else { format!(" on {}", workers.join(", ")) };
            self.job.remark(format!("{chunks}{place}, until the task looks at pb_cancelled() or ends"));
        }
    }
}

fn forked() -> Error {
    Error::new(
        Status::ERR_WORKER_LOST,
        "the process was forked by a callback of this map: the child has no part in the map's cluster",
    )
}
