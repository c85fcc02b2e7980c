//! Child processes: fork, death, the signal between them, as safe functions over the system's own.
//!
//! Only processes that were made here are ever waited for or killed, each by its own pid and only while it has not been
//! reaped: a host's other children, and its handler for SIGCHLD, are its own business. Where the host reaps all children
//! by itself (SIGCHLD ignored, `waitpid(-1)`), a death is still seen; only its cause is then unknown.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It is gone, and somebody else has taken note of how.
    Unknown,
}

/// Says how a process ended, to follow "the process".
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                None => write!(f, "was killed by signal {signal}"),
            },
            Exit::Unknown => {
                write!(f, "ended; the program reaps its children by itself, so nobody knows how")
            }
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGKILL => "SIGKILL: out of memory, perhaps",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        _ => return None,
    })
}

/// A forked child that has not been reaped. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    /// Readable once it has ended; `None` where there was no descriptor left.
    pidfd: Option<OwnedFd>,
    reaped: bool,
}

/// Forks. The child runs `work` and ends with the code that it returns; it never comes back from here. It dies with its
/// parent, ignores SIGINT (a terminal's Ctrl-C is for the parent to act on), and has the default action for SIGTERM and
/// SIGCHLD again, whatever handlers the parent has.
///
/// `work` runs with the locks of other threads as they were at the moment of the fork: it must not wait for any that this
/// library's fork handlers do not hold. (malloc is fine: the C library holds its locks over a fork.)
pub fn fork(work: impl FnOnce() -> i32) -> io::Result<Child> {
    // SAFETY: takes no arguments and cannot fail.
    let parent = unsafe { libc::getpid() };
    // SAFETY: what the child may do is said above, and it does not return into the caller's frames.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            const NONE: libc::c_ulong = 0;
            // SAFETY: plain system calls on this process itself. A parent that died before the call to prctl is seen by the
            // changed parent pid.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, NONE, NONE, NONE);
                if libc::getppid() != parent {
                    libc::_exit(1);
                }
                libc::signal(libc::SIGINT, libc::SIG_IGN);
                libc::signal(libc::SIGTERM, libc::SIG_DFL);
                libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            }
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(PANICKED);
            leave(code)
        }
        pid => Ok(Child { pid, pidfd: pidfd(pid), reaped: false }),
    }
}

/// The exit code of a child whose own code panicked.
const PANICKED: i32 = 101;

/// Ends this process at once: no handlers of `atexit`, no flushing of what the parent has buffered.
pub fn leave(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

fn pidfd(pid: libc::pid_t) -> Option<OwnedFd> {
    // SAFETY: the child has not been reaped, so the pid is its own. pidfds are closed on exec by themselves.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: a new descriptor is nobody else's.
    RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Child {
    /// A process that was started in another way than by [`fork`], by its parent alone.
    pub(crate) fn adopt(pid: libc::pid_t) -> Child {
        Child { pid, pidfd: pidfd(pid), reaped: false }
    }

    /// Its number, for people.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable once the child has ended.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.pidfd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Kills it, if it still runs.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// Sends a signal, 0 for none; whether it is there to get one. By its descriptor, if there is one: where the host reaps all
    /// children by itself, another process may have its pid by now.
    fn signal(&self, signal: i32) -> bool {
        if self.reaped {
            return false;
        }
        if let Some(fd) = &self.pidfd {
            let none = std::ptr::null::<libc::siginfo_t>();
            // SAFETY: plain numbers, and no further information.
            let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, none, 0) };
            if sent == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) {
                return sent == 0;
            }
        }
        // SAFETY: not reaped, so the pid is its own.
        unsafe { libc::kill(self.pid, signal) == 0 }
    }

    /// Kills it with all that it has started, where it is the leader of a process group.
    pub(crate) fn kill_group(&self) {
        if self.signal(0) {
            // SAFETY: not reaped, so the number is its own, and no other group has it.
            unsafe { libc::kill(-self.pid, libc::SIGKILL) };
            self.kill();
        }
    }

    /// Reaps it if it has ended.
    pub fn try_wait(&mut self) -> Option<Exit> {
        self.wait_with(libc::WNOHANG)
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> Exit {
        loop {
            if let Some(exit) = self.wait_with(0) {
                return exit;
            }
        }
    }

    fn wait_with(&mut self, flags: i32) -> Option<Exit> {
        // SAFETY: all zeroes is a value; the call writes into it and reaps this child only.
        let (result, info) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let id = self.pid as libc::id_t;
            (libc::waitid(libc::P_PID, id, &mut info, libc::WEXITED | flags), info)
        };
        if result != 0 {
            let interrupted = io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
            return if interrupted { None } else { self.gone(Exit::Unknown) };
        }
        // SAFETY: waitid has filled in the fields of a child's death, or left the pid at 0.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        match info.si_code {
            _ if pid == 0 => None,
            libc::CLD_EXITED => self.gone(Exit::Code(status)),
            _ => self.gone(Exit::Signal(status)),
        }
    }

    fn gone(&mut self, exit: Exit) -> Option<Exit> {
        self.reaped = true;
        Some(exit)
    }

    /// Lets go of a child that is not ours: this process is a fork of its parent.
    pub fn disown(mut self) {
        self.reaped = true;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            self.wait();
        }
    }
}

/// A pipe by which children wake their parent out of [`Bell::wait`].
#[derive(Debug)]
pub struct Bell {
    read: OwnedFd,
    write: OwnedFd,
    /// Device and inode of the pipe.
    identity: (libc::dev_t, libc::ino_t),
}

fn identity(fd: RawFd) -> Option<(libc::dev_t, libc::ino_t)> {
    // SAFETY: all zeroes is a value, and the call writes into it.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &mut stat) == 0).then_some((stat.st_dev, stat.st_ino))
    }
}

impl Bell {
    /// `None` where there are no descriptors left.
    pub fn new() -> Option<Bell> {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors, which are nobody else's once made.
        let (read, write) = unsafe {
            if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) != 0 {
                return None;
            }
            (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
        };
        let identity = identity(write.as_raw_fd())?;
        Some(Bell { read, write, identity })
    }

    /// Rings. A task may have closed our descriptor and opened a file of its own in its place: that is not written to.
    pub fn ring(&self) {
        let fd = self.write.as_raw_fd();
        if identity(fd) == Some(self.identity) {
            // SAFETY: one byte from a static. A full pipe has rung already.
            unsafe { libc::write(fd, c"!".as_ptr().cast(), 1) };
        }
    }

    /// Waits until the bell rings, one of `others` is readable, or `most` has passed. Returns those that are readable.
    pub fn wait(bell: Option<&Bell>, others: impl Iterator<Item = RawFd>, most: Duration) -> Vec<RawFd> {
        let own = bell.map(|bell| bell.read.as_raw_fd());
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut polled: Vec<_> = own.into_iter().chain(others).map(entry).collect();
        let time = libc::timespec {
            tv_sec: most.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: most.subsec_nanos().into(),
        };
        // SAFETY: the array has as many entries as said; the time outlives the call.
        let ready = unsafe {
            libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, &time, std::ptr::null())
        };
        if ready <= 0 {
            return Vec::new();
        }
        if let Some(bell) = bell.filter(|_| polled[0].revents != 0) {
            let mut heard = [0_u8; 64];
            // SAFETY: the buffer is as long as said; the pipe does not block.
            unsafe { libc::read(bell.read.as_raw_fd(), heard.as_mut_ptr().cast(), heard.len()) };
        }
        let readable = polled.iter().skip(usize::from(own.is_some())).filter(|entry| entry.revents != 0);
        readable.map(|entry| entry.fd).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_reaped_with_its_code_or_signal() {
        assert_eq!(fork(|| 7).unwrap().wait(), Exit::Code(7));
        let mut stuck = fork(|| {
            loop {
                std::thread::park();
            }
        })
        .unwrap();
        assert_eq!(stuck.try_wait(), None);
        stuck.kill();
        assert_eq!(stuck.wait(), Exit::Signal(libc::SIGKILL));
        let mut panics = fork(|| std::panic::resume_unwind(Box::new(()))).unwrap();
        assert_eq!(panics.wait(), Exit::Code(PANICKED));
    }

    #[test]
    fn the_bell_rings_once_for_many_rings_and_the_end_of_a_child_wakes_too() {
        let bell = Bell::new().unwrap();
        let mut child = fork(|| {
            bell.ring();
            bell.ring();
            0
        })
        .unwrap();
        assert_eq!(child.wait(), Exit::Code(0));
        assert!(Bell::wait(Some(&bell), std::iter::empty(), Duration::MAX).is_empty());
        let fd = child.descriptor().unwrap();
        assert_eq!(Bell::wait(Some(&bell), [fd].into_iter(), Duration::MAX), [fd]);
    }
}
