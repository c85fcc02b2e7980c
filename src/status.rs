//! What a call can end with: a status number, a text, and where a task failed.
//!
//! Inside the library every failure is an [`Error`]; `ffi/guard.rs` turns it into a `pb_status` and leaves it
//! here as the calling thread's last error, where `pb_last_error` reads it.

use std::cell::RefCell;
use std::ffi::CString;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// The result of everything inside the library that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How a call ended: PB_OK, another number that is not negative where the function says so, or an error below 0.
#[allow(non_camel_case_types, reason = "the name that C sees")]
pub type pb_status = i32;

/// A status number of the C interface. Negative ones are errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub i32);

macro_rules! statuses {
    ($($name:ident = $value:literal),* $(,)?) => {
        #[allow(missing_docs, reason = "the C constant of the same name has the meaning")]
        impl Status {
            $(pub const $name: Status = Status($value);)*
        }

        impl Status {
            /// The constant's name as C spells it, e.g. `"PB_ERR_TIMEOUT"`; nul-terminated for C.
            pub fn c_name(self) -> &'static std::ffi::CStr {
                const PREFIXED: &[(i32, &str)] = &[$(($value, concat!("PB_", stringify!($name), "\0"))),*];
                PREFIXED
                    .iter()
                    .find(|(value, _)| *value == self.0)
                    .and_then(|(_, name)| std::ffi::CStr::from_bytes_with_nul(name.as_bytes()).ok())
                    .unwrap_or(c"PB_UNKNOWN_STATUS")
            }
        }
    };
}

statuses! {
    OK = 0, PENDING = 1, DONE = 2,
    ERR_INVALID_ARGUMENT = -1, ERR_UNKNOWN_BACKEND = -2, ERR_BACKEND_UNAVAILABLE = -3, ERR_SCOPE = -4,
    ERR_TASK_FAILED = -5, ERR_TASK_NOT_PORTABLE = -6, ERR_WORKER_LOST = -7, ERR_TIMEOUT = -8,
    ERR_CANCELLED = -9, ERR_UNSUPPORTED = -10, ERR_OUT_OF_MEMORY = -11, ERR_IO = -12, ERR_ABI = -13,
    ERR_EXISTS = -14, ERR_INTERNAL = -15,
}

impl Status {
    /// The constant's name as C spells it.
    pub fn name(self) -> &'static str {
        self.c_name().to_str().unwrap_or("PB_UNKNOWN_STATUS")
    }

    /// Whether this number is one of the errors that the interface defines.
    pub fn is_known_error(self) -> bool {
        (Status::ERR_INTERNAL.0..=Status::ERR_INVALID_ARGUMENT.0).contains(&self.0)
    }
}

/// A failure. One word, so that a success is not larger: every call returns some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Facts>);

/// What an [`Error`] says: its status, a text that says what was wrong and what to do, and the item it concerns, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The status that the C call returns.
    pub status: Status,
    /// For people: what was wrong, and what to do about it.
    pub message: String,
    /// For programs: which item, and how it ended.
    pub item: ItemFate,
}

/// How one item of a map ended badly. The defaults mean "not applicable".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemFate {
    /// What the task returned.
    pub task_code: i32,
    /// The item's index; `usize::MAX` where there is none.
    pub index: usize,
    /// Exit code of a lost worker; -1 where there is none.
    pub exit_code: i32,
    /// Signal that killed it; 0 where there is none.
    pub signal: i32,
    /// How many times the item was started.
    pub attempts: u32,
}

impl Default for ItemFate {
    fn default() -> Self {
        ItemFate { task_code: 0, index: usize::MAX, exit_code: -1, signal: 0, attempts: 0 }
    }
}

impl Error {
    /// An error that concerns no item.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Error(Box::new(Facts { status, message: message.into(), item: ItemFate::default() }))
    }

    /// The caller passed something that cannot be used.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(Status::ERR_INVALID_ARGUMENT, message)
    }

    /// The same error, said of one item.
    pub fn at(mut self, item: ItemFate) -> Self {
        self.item = item;
        self
    }

    /// The same error with another status.
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// The same error in other words, made of its own.
    pub fn in_words(mut self, words: impl FnOnce(&str) -> String) -> Self {
        self.message = words(&self.message);
        self
    }
}

impl Deref for Error {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut Facts {
        &mut self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status.name(), self.message)
    }
}

impl std::error::Error for Error {}

/// The last error of a thread, in the form that C reads it.
#[derive(Default)]
struct Last {
    text: CString,
    error: Option<Error>,
    count: u64,
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

/// Makes `error` this thread's last error.
pub fn set_last(error: Error) {
    // A thread that is being torn down has no place for a text any more; the status still says what happened.
    let _ = LAST.try_with(|last| {
        let mut last = last.borrow_mut();
        // C ends a text at its first nul: so do we.
        let text = error.message.split('\0').next().unwrap_or_default();
        last.text = CString::new(text).unwrap_or_default();
        last.error = Some(error);
        last.count += 1;
    });
}

/// This thread's last error, if any call on it has failed.
pub fn last() -> Option<Error> {
    LAST.try_with(|last| last.borrow().error.clone()).ok().flatten()
}

/// How many errors this thread has seen: two readings tell whether a foreign function left a new one.
pub fn last_count() -> u64 {
    LAST.try_with(|last| last.borrow().count).unwrap_or(0)
}

/// Address of this thread's text, valid until the next [`set_last`] on this thread.
pub fn last_text() -> *const std::ffi::c_char {
    LAST.try_with(|last| last.borrow().text.as_ptr()).unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_c() {
        assert_eq!(Status::ERR_TIMEOUT.name(), "PB_ERR_TIMEOUT");
        assert_eq!(Status::OK.name(), "PB_OK");
        assert_eq!(Status(77).name(), "PB_UNKNOWN_STATUS");
    }

    #[test]
    fn the_last_error_belongs_to_its_thread() {
        set_last(Error::invalid("here"));
        std::thread::spawn(|| assert!(last().is_none())).join().unwrap();
        assert_eq!(last().unwrap().message, "here");
    }
}
