//! A timeline that is being recorded: the buffers of its threads, and the file that they are to fill.

use super::buffer::{BLOCK, Buffer, Writer};
use super::event::{Event, Name, WORDS};
use super::json;
use crate::status::{Error, Result, Status};
use std::fs::{File, OpenOptions, read_link, read_to_string};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory that the events of a timeline may take: a million of them. The file is about twice as large.
const MEMORY: usize = 64 << 20;

/// Says what function begins at an address, if that can be told.
pub type NameOf = fn(usize) -> Option<String>;

pub(super) struct Timeline {
    /// Where the file is, as texts name it.
    pub path: PathBuf,
    /// Open from the beginning, so that a wrong path shows before the work and not after it.
    file: Mutex<File>,
    /// Its begin, in nanoseconds by [`super::clock`].
    pub begin: u64,
    /// Blocks of events that may still be made.
    room: AtomicUsize,
    pub threads: Mutex<Vec<Thread>>,
    pub names: Mutex<Vec<Arc<str>>>,
}

/// A thread and what it did.
#[derive(Clone)]
pub(super) struct Thread {
    pub id: u32,
    pub name: String,
    pub buffer: Arc<Buffer>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn cannot_write(path: &Path, why: &io::Error) -> Error {
    let path = path.display();
    Error::new(
        Status::ERR_IO,
        format!(
            "cannot write the timeline '{path}': {why}; name a file in a directory that this process may write to"
        ),
    )
}

/// The calling thread's number and name, as the system knows them; else a number of our own.
fn this_thread(count: usize) -> (u32, String) {
    let id = read_link("/proc/thread-self").ok();
    let id = id.as_ref().and_then(|link| link.file_name()?.to_str()?.parse().ok());
    let name = read_to_string("/proc/thread-self/comm").ok().map(|name| name.trim_end().to_owned());
    let name = name.or_else(|| std::thread::current().name().map(str::to_owned));
    // The first thread has the process's number, and its name, which says less.
    let name = if id == Some(std::process::id()) { Some("main".to_owned()) } else { name };
    (id.unwrap_or(count as u32 + 1), name.unwrap_or_else(|| "thread".to_owned()))
}

impl Timeline {
    /// Begins one, to be written into a file that replaces what is there.
    pub fn create(path: PathBuf, begin: u64) -> Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(|error| cannot_write(&path, &error))?;
        Ok(Timeline {
            path,
            file: Mutex::new(file),
            begin,
            room: AtomicUsize::new(MEMORY / (BLOCK * WORDS * size_of::<u64>())),
            threads: Mutex::default(),
            names: Mutex::default(),
        })
    }

    /// Adds the calling thread.
    pub fn join(&self) -> Writer {
        let buffer = Arc::new(Buffer::default());
        let mut threads = lock(&self.threads);
        let (id, name) = this_thread(threads.len());
        threads.push(Thread { id, name, buffer: buffer.clone() });
        Writer::new(buffer)
    }

    /// Appends an event of the calling thread, whose writer this is. What began before the timeline is not part of it.
    pub fn push(&self, writer: &mut Writer, event: &Event) {
        if event.begin >= self.begin {
            writer.push(event.encode(), || {
                self.room
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1))
                    .is_ok()
            });
        }
    }

    /// What events call this text.
    pub fn name(&self, text: &str) -> Name {
        let mut names = lock(&self.names);
        let at = names.iter().position(|name| **name == *text).unwrap_or_else(|| {
            names.push(text.into());
            names.len() - 1
        });
        Name(at as u32)
    }

    /// Writes the file, in the place of what has been written before.
    pub fn write(&self, name_of: NameOf) -> Result<()> {
        let mut file = lock(&self.file);
        let written = (|| {
            // Only of what can be rewound: a pipe or a terminal gets one after the other.
            if file.metadata()?.is_file() {
                file.rewind()?;
                file.set_len(0)?;
            }
            let mut out = BufWriter::new(&mut *file);
            json::write(&mut out, self, name_of)?;
            out.flush()
        })();
        written.map_err(|error| cannot_write(&self.path, &error))
    }
}

#[cfg(test)]
impl Timeline {
    /// One with room for so many blocks.
    pub fn with_room(path: PathBuf, room: usize) -> Self {
        Timeline { room: AtomicUsize::new(room), ..Timeline::create(path, 0).unwrap() }
    }
}
