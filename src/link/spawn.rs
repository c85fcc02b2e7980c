//! Starting a program as a worker: by posix_spawn, so that nothing of this process, least of all locks that its other threads
//! hold, is copied.

use super::WORKER_SOCKET;
use crate::process::Child;
use std::ffi::{CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What to start.
pub struct Command {
    /// The file.
    pub program: CString,
    /// Its arguments, its own name first.
    pub arguments: Vec<CString>,
    /// `NAME=value`.
    pub environment: Vec<CString>,
}

/// A text for C; what lies behind a nul is left out.
pub fn text(text: impl AsRef<OsStr>) -> CString {
    let bytes = text.as_ref().as_bytes();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

/// A program's file, looked for in PATH where the name has no folder, as a shell does.
pub fn in_path(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").filter(|_| !program.contains('/'));
    let folders = path.iter().flat_map(std::env::split_paths);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file()).unwrap_or_else(|| program.into())
}

/// A copy of a descriptor with a number that no standard stream has, nor the worker's socket.
fn out_of_the_way(file: BorrowedFd) -> io::Result<OwnedFd> {
    // SAFETY: a new descriptor is nobody else's.
    unsafe {
        match libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, WORKER_SOCKET + 1) {
            -1 => Err(io::Error::last_os_error()),
            copy => Ok(OwnedFd::from_raw_fd(copy)),
        }
    }
}

/// Starts a worker whose descriptor [`WORKER_SOCKET`] is `socket`. It has no terminal input, and a process group of its own:
/// a Ctrl-C is for the caller to act on. All signals have their default action and none is blocked. What it prints goes to
/// `output`, or where this process prints.
pub fn spawn(command: &Command, socket: BorrowedFd, output: Option<BorrowedFd>) -> io::Result<Child> {
    let output = output.map(out_of_the_way).transpose()?;
    let pointers = |texts: &[CString]| {
        texts.iter().map(|text| text.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect::<Vec<_>>()
    };
    let (arguments, environment) = (pointers(&command.arguments), pointers(&command.environment));
    let check = |code: i32| if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) };
    let mut pid = 0;
    // SAFETY: both objects are initialised before they are used and destroyed after; all pointers live over the calls; the
    // arrays end with NULL.
    unsafe {
        let mut actions = MaybeUninit::<libc::posix_spawn_file_actions_t>::uninit();
        let mut attributes = MaybeUninit::<libc::posix_spawnattr_t>::uninit();
        check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
        if let Err(error) = check(libc::posix_spawnattr_init(attributes.as_mut_ptr())) {
            libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
            return Err(error);
        }
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        let mut set_up = || {
            let (actions, attributes) = (actions.as_mut_ptr(), attributes.as_mut_ptr());
            // The socket first: it may be descriptor 0. Where it is the wanted one already, dup2 keeps it open over exec.
            check(libc::posix_spawn_file_actions_adddup2(actions, socket.as_raw_fd(), WORKER_SOCKET))?;
            for stream in [1, 2] {
                if let Some(output) = &output {
                    let output = output.as_fd().as_raw_fd();
                    check(libc::posix_spawn_file_actions_adddup2(actions, output, stream))?;
                }
            }
            check(libc::posix_spawn_file_actions_addopen(
                actions,
                0,
                c"/dev/null".as_ptr(),
                libc::O_RDONLY,
                0,
            ))?;
            libc::sigemptyset(signals.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(attributes, signals.as_ptr()))?;
            libc::sigfillset(signals.as_mut_ptr());
            check(libc::posix_spawnattr_setsigdefault(attributes, signals.as_ptr()))?;
            check(libc::posix_spawnattr_setpgroup(attributes, 0))?;
            let flags =
                libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETPGROUP;
            check(libc::posix_spawnattr_setflags(attributes, flags as _))
        };
        let spawned = set_up().and_then(|()| {
            check(libc::posix_spawn(
                &mut pid,
                command.program.as_ptr(),
                actions.as_ptr(),
                attributes.as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
            ))
        });
        libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
        libc::posix_spawnattr_destroy(attributes.as_mut_ptr());
        spawned?;
    }
    Ok(Child::adopt(pid))
}
