//! The life of a worker process of `loky`: greet, take what the caller shares, run requests in turn, leave when nothing comes
//! for long. `link/mod.rs` has the protocol.
//!
//! A thread watches the caller: when that process is gone, however it ended, this one ends at once, whatever task it runs.

use super::memory::{Memory, range};
use super::{Handler, Surface, Worker};
use crate::link::{
    self, AREA, BELLS, Bell, Control, SLOTS, Slot, WORKER_ARGUMENT, WORKER_SOCKET, socket, state,
};
use crate::message::{Marks, Pieces, Reply};
use crate::process;
use crate::shared::Mapping;
use crate::status::{Error, Result, Status};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a worker looks for the next request before it sleeps: about what it costs to wake one.
const AWAKE: Duration = Duration::from_micros(50);
/// Looks between two readings of the clock.
const LOOKS: u32 = 64;

/// The exit code of a worker that cannot begin.
const CANNOT_BEGIN: i32 = 70;

/// Becomes a worker, and does not come back, if the program was started as one: its last three arguments say so.
pub fn live_if_asked(arguments: &[&str]) {
    if let [.., mark, depth, caller] = arguments {
        if *mark == WORKER_ARGUMENT {
            live(&[depth, caller]);
        }
    }
}

/// Lives as a worker. `arguments` are those behind [`WORKER_ARGUMENT`].
fn live(arguments: &[&str]) -> ! {
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u32>().ok());
    let (Some(depth), Some(caller)) = (number(0), number(1)) else { process::leave(CANNOT_BEGIN) };
    // SAFETY: the caller has given this process its end of a socket under this number, and nobody else here knows it yet.
    let socket = unsafe { OwnedFd::from_raw_fd(WORKER_SOCKET) };
    close_others(WORKER_SOCKET);
    match Service::begin(socket, depth, caller) {
        Some(service) => service.run(Worker::default()),
        None => process::leave(CANNOT_BEGIN),
    }
    // As a program ends that has returned from main: what tasks have printed is written.
    std::process::exit(0)
}

/// Serves a caller on descriptor `fd`, in a process that it has started, until it wants no more: all items go to `handler`.
///
/// # Safety
/// The descriptor is the caller's socket, and nobody else in this process uses it.
pub unsafe fn serve(fd: i32, handler: Handler) -> Result<()> {
    let command = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let arguments: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    // Interpreters may have put arguments of their own behind ours.
    let mark = arguments.iter().position(|text| text == WORKER_ARGUMENT);
    let number = |behind: usize| arguments.get(mark? + behind)?.parse::<u32>().ok();
    let (Some(depth), Some(caller)) = (number(1), number(2)) else {
        return Err(Error::invalid(
            "this process was not started as a worker of backend 'loky' (params \"worker=PROGRAM ARGUMENTS\")",
        ));
    };
    // SAFETY: plain system calls; the rest as the caller promised.
    let socket = unsafe {
        if libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) != 0 {
            return Err(Error::invalid(format!(
                "there is no descriptor {fd}: a worker's socket is {WORKER_SOCKET}"
            )));
        }
        OwnedFd::from_raw_fd(fd)
    };
    let service = Service::begin(socket, depth, caller);
    let service = service.ok_or_else(|| {
        Error::new(
            Status::ERR_IO,
            "the caller of this worker is gone, or there is no memory to map what it shares",
        )
    })?;
    service.run(Worker::with_handler(handler));
    Ok(())
}

/// Closes what the program happens to have open for others, and keeps the socket from programs that tasks start.
fn close_others(socket: i32) {
    // SAFETY: plain system calls; nothing in this process uses a descriptor yet.
    unsafe {
        libc::fcntl(socket, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::syscall(libc::SYS_close_range, socket + 1, u32::MAX, 0);
    }
}

/// Has a thread end this process with its caller. False if the caller is gone already, or no thread can be had.
fn watch(caller: u32) -> bool {
    // SAFETY: plain system calls. The caller cannot have been replaced by another process of its number while it is our parent.
    let mut line = unsafe {
        let line = libc::syscall(libc::SYS_pidfd_open, caller, 0) as i32;
        if libc::getppid() != caller as i32 {
            return false;
        }
        line
    };
    let wait = move || {
        loop {
            let mut poll = libc::pollfd { fd: line, events: libc::POLLIN, revents: 0 };
            // Without a descriptor of the process, its number is looked at now and then.
            let timeout = if line < 0 { 500 } else { -1 };
            // SAFETY: one entry, which lives over the call.
            let ready = unsafe { libc::poll(&mut poll, u64::from(line >= 0), timeout) };
            // SAFETY: takes nothing and cannot fail.
            let orphaned = unsafe { libc::getppid() } != caller as i32;
            if orphaned {
                process::leave(0);
            }
            if ready > 0 {
                // A task has closed it, and may have a file of its own in its place: the caller is still there.
                line = -1;
            }
        }
    };
    // Tasks, and programs that they start, have their own signals.
    std::thread::Builder::new().name("pb-watch".into()).stack_size(64 << 10).spawn(wait).is_ok()
}

struct Service {
    memory: Arc<Mutex<Memory>>,
    control: Arc<Mapping>,
    bells: Mapping,
}

impl Service {
    /// Greets the caller and takes what it shares. `None` if the caller is gone, or what it shares cannot be mapped.
    fn begin(socket: OwnedFd, depth: u32, caller: u32) -> Option<Service> {
        link::set_depth(depth);
        if !watch(caller) {
            return None;
        }
        socket::greet(socket.as_fd());
        let mut memory = Memory::new(socket);
        let (control, bells) = memory.begin()?;
        Some(Service { memory: Arc::new(Mutex::new(memory)), control, bells })
    }

    fn control(&self) -> &Control {
        self.control.view(0)
    }

    fn run(&self, mut worker: Worker) {
        let (mut done, mut ended_call) = (0, None);
        while self.wait(done) {
            let call = self.control().call.load(Ordering::Relaxed);
            // What waited behind an item that ended its map does not begin, though the caller has not heard of it yet.
            if !self.serve(done, ended_call == Some(call), &mut worker) {
                return;
            }
            if worker.ended_map {
                ended_call = Some(call);
            }
            done = done.wrapping_add(1);
            self.control().worker.done.store(done, Ordering::SeqCst);
            let bell = self.control().bell.load(Ordering::Relaxed) as usize % BELLS;
            self.bells.slice::<Bell>(0, BELLS)[bell].ring();
        }
    }

    /// Waits for a request; false when it is time to leave.
    fn wait(&self, done: u32) -> bool {
        self.wait_for_post(done) && self.control().leave.load(Ordering::SeqCst) == 0
    }

    /// Waits until something is posted; false when that takes too long.
    fn wait_for_post(&self, done: u32) -> bool {
        let control = self.control();
        let posted = || control.posted.load(Ordering::Acquire) != done;
        if posted() {
            return true;
        }
        // Whoever else is runnable goes first.
        std::thread::yield_now();
        let begin = Instant::now();
        while begin.elapsed() < AWAKE {
            for _ in 0..LOOKS {
                if posted() {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        let patience = self.memory.lock().unwrap_or_else(PoisonError::into_inner).patience;
        loop {
            let begin = Instant::now();
            control.sleep(done, patience);
            if posted() {
                return true;
            }
            if begin.elapsed() >= patience {
                // For good: what is posted now is given to another worker as soon as the caller sees this.
                control.worker.state.store(state::LEAVING, Ordering::SeqCst);
                return false;
            }
        }
    }

    /// Runs request `number`. False when the caller is gone.
    fn serve(&self, number: u32, is_over: bool, worker: &mut Worker) -> bool {
        let place = number as usize % SLOTS;
        let slot = &self.control().slots[place];
        let area = {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if !memory.take_notes(slot.notes.load(Ordering::Relaxed)) {
                return false;
            }
            memory.area(place)
        };
        // Without it there is no place for an answer: the caller sees the end of this process.
        let Some(area) = area else { return false };
        let desk = Desk {
            memory: self.memory.clone(),
            control: self.control.clone(),
            area: area.clone(),
            number,
            is_over,
        };
        answer(slot, &area, desk, worker, |reply| put_reply(slot, &area, &reply, &self.memory));
        true
    }
}

fn answer(slot: &Slot, area: &Mapping, desk: Desk, worker: &mut Worker, deliver: impl FnOnce(Pieces)) {
    let len = slot.request_len.load(Ordering::Relaxed);
    let request = match range(area, slot.request.load(Ordering::Relaxed), len) {
        // SAFETY: inside the area, which stays mapped while the desk holds it; the caller does not write there until we say that
        // the request is done.
        Ok(address) => unsafe { std::slice::from_raw_parts(address as *const u8, len as usize) },
        Err(error) => return deliver(Pieces::of(Reply::refusal(&error))),
    };
    worker.run(request, Arc::new(desk), deliver)
}

/// Writes the reply into its place; one that is too long goes as a file.
fn put_reply(slot: &Slot, area: &Mapping, reply: &Pieces, memory: &Mutex<Memory>) {
    let room = slot.reply_room.load(Ordering::Relaxed);
    let sent = reply.len() as u64 > room
        && memory.lock().unwrap_or_else(PoisonError::into_inner).send_reply(reply).is_ok();
    if sent {
        slot.reply_len.store(reply.len() as u64, Ordering::Relaxed);
        return;
    }
    let regret = Error::new(Status::ERR_OUT_OF_MEMORY, "no memory in a worker for the results of a chunk");
    let regret = Pieces::of(Reply::refusal(&regret));
    let reply = if reply.len() as u64 <= room { reply } else { &regret };
    let place = slot.reply.load(Ordering::Relaxed);
    if reply.len() as u64 <= room && range(area, place, room).is_ok() {
        // Nobody else writes there until the request is done.
        reply.iter().for_each(|(at, piece)| area.write(place as usize + at, piece));
        slot.reply_len.store(reply.len() as u64, Ordering::Relaxed);
    }
}

/// What one request finds.
struct Desk {
    memory: Arc<Mutex<Memory>>,
    control: Arc<Mapping>,
    area: Arc<Mapping>,
    number: u32,
    /// Whether its map has ended already.
    is_over: bool,
}

impl Desk {
    fn control(&self) -> &Control {
        self.control.view(0)
    }

    fn slot(&self) -> &Slot {
        self.control().slot(self.number)
    }
}

impl Surface for Desk {
    fn at(&self, block: u64, offset: u64, len: u64) -> Result<usize> {
        if block == AREA {
            return range(&self.area, offset, len);
        }
        let call = self.control().call.load(Ordering::Relaxed);
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).at(block, call, offset, len)
    }

    fn marks(&self) -> Option<&Marks> {
        Some(&self.slot().marks)
    }

    fn statuses(&self, count: usize) -> Option<&[AtomicI32]> {
        let offset = self.slot().statuses.load(Ordering::Relaxed);
        range(&self.area, offset, count as u64 * 4).ok()?;
        Some(self.area.slice::<AtomicI32>(offset as usize, count))
    }

    fn stopped(&self) -> bool {
        self.is_over || self.control().is_cancelled(self.number)
    }
}
