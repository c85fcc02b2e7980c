//! A worker, as its caller holds it: posts requests into its slots, takes replies, sees its death.

use super::command::{Threads, command};
use super::params::Params;
use crate::fork;
use crate::link::socket::{self, About, Line, Note};
use crate::link::{AREA, BELLS, Bell, CTX_KEPT, Control, SLOTS, segment, spawn, state};
use crate::message::Data;
use crate::process::{Child, Exit};
use crate::shared::Mapping;
use crate::status::{Error, Result, Status};
use std::collections::{HashSet, VecDeque};
use std::io::{self, ErrorKind::BrokenPipe, ErrorKind::ConnectionReset};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The least that an area has: enough for small chunks, little for a process that has many workers.
const SMALLEST_AREA: usize = 256 << 10;
/// How long a program may take to greet.
const START: Duration = Duration::from_secs(30);

/// Memory that callers have in common: the bells that workers ring.
pub struct Bells {
    file: OwnedFd,
    mapping: Mapping,
}

impl Bells {
    pub fn new() -> Result<Bells> {
        let (file, mapping) = segment::create(BELLS * size_of::<Bell>())?;
        Ok(Bells { file, mapping })
    }

    pub fn get(&self, number: usize) -> &Bell {
        &self.mapping.slice::<Bell>(0, BELLS)[number % BELLS]
    }
}

/// A worker process. Dropping it kills it, with all that its tasks have started.
pub struct Hand {
    child: Option<Child>,
    /// The process that started it: a fork of that one has no say.
    generation: u32,
    socket: OwnedFd,
    control: Mapping,
    areas: [Option<Mapping>; SLOTS],
    notes: u64,
    posted: u32,
    taken: u32,
    ctxs: VecDeque<u64>,
    blocks: HashSet<u64>,
    greeted: bool,
    /// Replies that came as files, for requests that were not taken yet.
    replies: VecDeque<OwnedFd>,
    started: Instant,
    program: String,
    /// Items that it has run.
    pub items: u64,
    /// Whether it has run its initializer.
    pub initialised: bool,
    /// When its memory was last looked at.
    pub looked: Instant,
}

/// How a worker ended.
pub enum Death {
    /// It never was one.
    Unfit(Error),
    /// As a process ends.
    Ended(Exit),
    /// It has closed the line, and was killed for that.
    HungUp,
}

impl Hand {
    /// Starts a worker.
    pub fn start(params: &Params, threads: Threads, bells: &Bells) -> Result<Hand> {
        let command = command(params, threads)?;
        let program = command.program.to_string_lossy().into_owned();
        let cannot = |error: io::Error| cannot_start(&program, &error);
        let (control_file, control) = segment::create(size_of::<Control>())?;
        let (socket, theirs) = socket::pair().map_err(cannot)?;
        let child = spawn::spawn(&command, theirs.as_fd(), None).map_err(cannot)?;
        let mut hand = Hand {
            child: Some(child),
            generation: fork::generation(),
            socket,
            control,
            areas: [const { None }; SLOTS],
            notes: 0,
            posted: 0,
            taken: 0,
            ctxs: VecDeque::new(),
            blocks: HashSet::new(),
            greeted: false,
            replies: VecDeque::new(),
            started: Instant::now(),
            program: program.clone(),
            items: 0,
            initialised: params.initializer.is_none(),
            looked: Instant::now(),
        };
        let patience = u64::try_from(params.idle.as_millis()).unwrap_or(u64::MAX);
        let note = |about, len| Note { about, id: 0, len, slot: 0 };
        let notes = [
            (note(About::Patience, patience), None),
            (note(About::Bells, bells.mapping.len() as u64), Some(bells.file.as_fd())),
            (note(About::Control, hand.control.len() as u64), Some(control_file.as_fd())),
        ];
        for (note, file) in notes {
            match hand.tell(note, file) {
                // A program that has ended already is found out when it is looked at.
                Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => break,
                told => told.map_err(cannot)?,
            }
        }
        Ok(hand)
    }

    fn tell(&mut self, note: Note, file: Option<BorrowedFd>) -> io::Result<()> {
        socket::send(self.socket.as_fd(), note, file)?;
        self.notes += 1;
        Ok(())
    }

    fn control(&self) -> &Control {
        self.control.view(0)
    }

    /// Lends the worker to a call.
    pub fn lend(&self, call: u64, bell: usize) {
        self.control().bell.store((bell % BELLS) as u32, Ordering::Relaxed);
        self.control().call.store(call, Ordering::Relaxed);
    }

    /// Requests on their way or running.
    pub fn in_flight(&self) -> u32 {
        self.posted.wrapping_sub(self.taken)
    }

    /// The slot of the next request, and of the oldest one that was not taken.
    pub fn next_slot(&self) -> usize {
        self.posted as usize % SLOTS
    }

    pub fn oldest_slot(&self) -> usize {
        self.taken as usize % SLOTS
    }

    /// The area of the next request, with room for `len` bytes.
    pub fn area(&mut self, len: usize) -> Result<&Mapping> {
        let slot = self.next_slot();
        if self.areas[slot].as_ref().is_none_or(|area| area.len() < len) {
            // What is larger than the last one may grow on.
            let wanted = len.max(SMALLEST_AREA).checked_next_power_of_two().unwrap_or(len);
            self.areas[slot] = None;
            let (file, mapping) = segment::create(wanted).or_else(|_| segment::create(len))?;
            let note = Note { about: About::Area, id: AREA, len: mapping.len() as u64, slot: slot as u64 };
            self.tell(note, Some(file.as_fd())).map_err(|error| self.deaf(&error))?;
            self.areas[slot] = Some(mapping);
        }
        self.areas[slot].as_ref().ok_or_else(|| Error::new(Status::ERR_INTERNAL, "an area is missing"))
    }

    /// The area of the oldest request.
    pub fn oldest_area(&self) -> Option<&Mapping> {
        self.areas[self.oldest_slot()].as_ref()
    }

    fn deaf(&self, error: &io::Error) -> Error {
        Error::new(Status::ERR_IO, format!("worker '{}' cannot be reached: {error}", self.program))
    }

    /// Makes a ctx known.
    pub fn share_ctx(&mut self, id: u64, file: BorrowedFd, len: usize) -> Result<()> {
        if !self.ctxs.contains(&id) {
            self.tell(Note { about: About::Ctx, id, len: len as u64, slot: 0 }, Some(file))
                .map_err(|error| self.deaf(&error))?;
            self.ctxs.truncate(CTX_KEPT - 1);
            self.ctxs.push_front(id);
        }
        Ok(())
    }

    /// Makes a block of `pb_alloc_shared` known, and what is no block any more forgotten.
    pub fn share_block(&mut self, place: &crate::shared::Place) -> Result<()> {
        let id = place.block_id();
        if self.blocks.contains(&id) {
            return Ok(());
        }
        let gone: Vec<_> = self.blocks.iter().copied().filter(|id| !crate::shared::is_alive(*id)).collect();
        for id in gone {
            let note = Note { about: About::Forget, id, len: 0, slot: 0 };
            self.tell(note, None).map_err(|error| self.deaf(&error))?;
            self.blocks.remove(&id);
        }
        let note = Note { about: About::Block, id, len: place.block_len() as u64, slot: 0 };
        self.tell(note, Some(place.file())).map_err(|error| self.deaf(&error))?;
        self.blocks.insert(id);
        Ok(())
    }

    /// Posts a request whose parts lie in the next slot's area as `layout` says.
    pub fn post(&mut self, layout: &Layout, request: &[u8]) -> Result<()> {
        let number = self.next_slot();
        let area = self.areas[number]
            .as_ref()
            .ok_or_else(|| Error::new(Status::ERR_INTERNAL, "an area is missing"))?;
        area.write(layout.request, request);
        let slot = &self.control().slots[number];
        let set = |word: &AtomicU64, value: usize| word.store(value as u64, Ordering::Relaxed);
        slot.notes.store(self.notes, Ordering::Relaxed);
        set(&slot.request, layout.request);
        set(&slot.request_len, request.len());
        set(&slot.statuses, layout.statuses);
        set(&slot.reply, layout.reply);
        set(&slot.reply_room, layout.reply_room);
        set(&slot.reply_len, 0);
        slot.cancelled.store(0, Ordering::Relaxed);
        set(&slot.marks.begun, 0);
        set(&slot.marks.ended, 0);
        self.posted = self.posted.wrapping_add(1);
        self.control().post(self.posted);
        Ok(())
    }

    /// Whether the oldest request is done.
    pub fn is_done(&self) -> bool {
        let done = self.control().worker.done.load(Ordering::Acquire);
        // Not more than was posted, whatever the worker writes there.
        let ahead = done.wrapping_sub(self.taken);
        ahead > 0 && ahead <= self.in_flight()
    }

    /// How large the oldest request's reply is.
    pub fn reply_len(&self) -> usize {
        self.control().slots[self.oldest_slot()].reply_len.load(Ordering::Relaxed) as usize
    }

    /// Items of the oldest request that have begun and ended.
    pub fn marks(&self) -> (usize, usize) {
        let marks = &self.control().slots[self.oldest_slot()].marks;
        let ended = marks.ended.load(Ordering::Acquire) as usize;
        (marks.begun.load(Ordering::Relaxed) as usize, ended)
    }

    /// The oldest request is over, one way or the other.
    pub fn take(&mut self) {
        self.taken = self.taken.wrapping_add(1);
    }

    /// Asks all that was posted to end early.
    pub fn cancel(&self) {
        let on_their_way = (0..self.in_flight()).map(|ahead| self.taken.wrapping_add(ahead));
        on_their_way.for_each(|number| self.control().cancel(number));
    }

    /// Looks whether the worker is still there.
    pub fn look(&mut self) -> Option<Death> {
        let is_closed = match self.listen() {
            Ok(is_closed) => is_closed,
            Err(unfit) => return Some(unfit),
        };
        if !self.greeted && self.started.elapsed() > START {
            let message = format!(
                "'{}' was started as a worker of backend 'loky' and has not answered for {} s: is it a pb-worker, or a \
                 program that calls pb_worker_main first?",
                self.program,
                START.as_secs()
            );
            return Some(Death::Unfit(Error::new(Status::ERR_BACKEND_UNAVAILABLE, message)));
        }
        let exit = self.child.as_mut().and_then(Child::try_wait);
        if let Some(exit) = exit {
            if self.greeted {
                return Some(Death::Ended(exit));
            }
            // Its last words may have come meanwhile.
            return Some(match self.listen() {
                Err(unfit) => unfit,
                Ok(_) if self.greeted => Death::Ended(exit),
                Ok(_) => Death::Unfit(self.no_worker(&exit)),
            });
        }
        if self.control().worker.state.load(Ordering::SeqCst) == state::LEAVING {
            // It may have output to write yet.
            return Some(Death::Ended(self.ended_soon().unwrap_or(Exit::Code(0))));
        }
        // The end of the line is that of the process, or a task's doing.
        is_closed.then(|| self.hung_up())
    }

    /// Takes what the worker has said; whether it has closed the line.
    fn listen(&mut self) -> Result<bool, Death> {
        loop {
            match socket::look(self.socket.as_fd()) {
                Line::Greeting(words) if words == socket::greeting() => self.greeted = true,
                Line::Greeting(words) => return Err(Death::Unfit(self.other_version(&words))),
                Line::Reply(file) => self.replies.push_back(file),
                Line::Quiet => return Ok(false),
                Line::Closed => return Ok(true),
            }
        }
    }

    /// The file with the oldest request's reply.
    pub fn take_reply_file(&mut self, len: usize) -> Option<Mapping> {
        self.listen().ok()?;
        let file = self.replies.pop_front()?;
        // No more is believed than there is: beyond its end a file cannot be read.
        let size = std::fs::File::from(file.try_clone().ok()?).metadata().ok()?.len();
        if (size as usize) < len { None } else { Mapping::of_file(file.as_fd(), 0, len).ok() }
    }

    fn hung_up(&mut self) -> Death {
        match self.ended_soon() {
            Some(exit) if self.greeted => Death::Ended(exit),
            Some(exit) => Death::Unfit(self.no_worker(&exit)),
            None => Death::HungUp,
        }
    }

    /// How it ended, if it is about to: a process that ends closes its descriptors a moment before it can be reaped.
    fn ended_soon(&mut self) -> Option<Exit> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(50) {
            if let Some(exit) = self.child.as_mut().and_then(Child::try_wait) {
                return Some(exit);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    fn other_version(&self, words: &[u8]) -> Error {
        let theirs = String::from_utf8_lossy(words);
        let theirs = theirs.trim_end_matches('\0').trim_start_matches("pb ");
        Error::new(
            Status::ERR_BACKEND_UNAVAILABLE,
            format!(
                "worker '{}' has version {theirs} of parallel_backend, this program {}: install the pb-worker that belongs to \
                 the library, or set PB_WORKER to it",
                self.program,
                env!("CARGO_PKG_VERSION")
            ),
        )
    }

    fn no_worker(&self, exit: &Exit) -> Error {
        Error::new(
            Status::ERR_BACKEND_UNAVAILABLE,
            format!(
                "'{}' was started as a worker of backend 'loky' and {exit} before it answered: it must be a pb-worker, or a \
                 program that calls pb_worker_main first, and find its libraries",
                self.program
            ),
        )
    }

    /// Resident bytes of the process; 0 where the system does not tell.
    pub fn resident(&self) -> u64 {
        let pid = self.child.as_ref().map_or(0, Child::pid);
        let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok();
        let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        pages.unwrap_or(0) * crate::shared::page() as u64
    }

    /// Asks the worker to end; [`Hand::bury`] waits for it.
    pub fn dismiss(&self) {
        self.control().ask_to_leave();
    }

    /// Waits a moment for the end of a dismissed worker; one that does not end is killed.
    pub fn bury(mut self, until: Instant) {
        while self.child.as_mut().is_some_and(|child| child.try_wait().is_none()) && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Kills it, and says how it ended.
    pub fn kill(&mut self) -> Option<Exit> {
        let child = self.child.as_mut()?;
        child.kill_group();
        Some(child.wait())
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            // It is our parent's.
            self.child.take().into_iter().for_each(Child::disown);
        } else if let Some(child) = &self.child {
            child.kill_group();
        }
    }
}

/// Where the parts of a request lie in its area.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    pub inputs: usize,
    pub outputs: usize,
    pub statuses: usize,
    pub reply: usize,
    pub reply_room: usize,
    pub request: usize,
    /// Bytes before the request.
    pub len: usize,
}

impl Layout {
    /// Room for so many bytes of inputs and outputs, and for how each of `items` ended.
    pub fn new(inputs: usize, outputs: usize, items: usize) -> Layout {
        let line = |at: usize| at.next_multiple_of(64);
        let at_outputs = line(inputs);
        let at_statuses = line(at_outputs + outputs);
        let reply = line(at_statuses + items * 4);
        // A text of 4 KiB, the statuses, and a little for the rest.
        let reply_room = 8192 + items * 4;
        let request = line(reply + reply_room);
        Layout {
            inputs: 0,
            outputs: at_outputs,
            statuses: at_statuses,
            reply,
            reply_room,
            request,
            len: request,
        }
    }

    /// A part of the area, as messages name it.
    pub fn data(offset: usize, len: usize) -> Data<'static> {
        Data::Shared { block: AREA, offset: offset as u64, len: len as u64 }
    }
}

fn cannot_start(program: &str, error: &io::Error) -> Error {
    let advice = match error.raw_os_error() {
        Some(libc::ENOENT) => "there is no such file; set PB_WORKER to the path of pb-worker",
        Some(libc::EACCES | libc::ENOEXEC) => "it must be an executable program",
        Some(libc::EAGAIN) => "the limit on processes is reached (`ulimit -u`)",
        Some(libc::EMFILE) => "the limit on open files is reached (`ulimit -n`); each worker takes two",
        Some(libc::ENOMEM) => "there is no memory",
        _ => "the system refused",
    };
    Error::new(
        Status::ERR_BACKEND_UNAVAILABLE,
        format!("backend 'loky' cannot start a worker, '{program}': {error}; {advice}"),
    )
}
