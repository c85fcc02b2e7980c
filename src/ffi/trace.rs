//! Section 14 of the header: the timeline.

use super::abi::required_text;
use super::guard::guard;
use crate::status::{Error, Result, pb_status};
use crate::trace;
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::path::Path;

/// Begins to record what every thread does (maps, chunks, waits) with times, for `pb_trace_stop` to write into a file that
/// Perfetto, chrome://tracing and `pb-info trace` open. One timeline at a time in a process; maps that run already are
/// recorded from here on. The variable PB_TRACE=file.json does the same from the first map of a process on (docs/tracing.md).
/// From any thread.
///
/// @param path  the file, made now; one that is there is replaced
///
/// Errors: PB_ERR_EXISTS while a timeline is recorded, PB_ERR_IO for a file that cannot be written,
/// PB_ERR_INVALID_ARGUMENT.
///
/// # Safety
/// `path` is a nul-terminated text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_trace_start(path: *const c_char) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised a text.
        let path = unsafe { required_text(path, "path") }?;
        if path.is_empty() {
            return Err(Error::invalid("path is empty: it names the file that the timeline is written to"));
        }
        trace::start(path.into())
    })
}

/// Ends the timeline and writes its file, which has all of the maps that are over; of those that still run, the chunks that
/// are over. One that is not stopped is written by `pb_shutdown` and when the process exits. From any thread.
///
/// Errors: PB_ERR_SCOPE where none is recorded, PB_ERR_IO where the file cannot be written; the timeline has ended then too.
#[unsafe(no_mangle)]
pub extern "C" fn pb_trace_stop() -> pb_status {
    guard(|| trace::stop(name_of))
}

/// Writes what there is of a timeline, if one is recorded.
pub(super) fn flush() -> Result<()> {
    trace::flush(name_of)
}

/// Sees to it that the end of the process writes the timeline; to be called once.
pub(super) fn install() {
    // SAFETY: the handler is a function of this library, which is never unloaded (linked with -z nodelete).
    unsafe { libc::atexit(at_exit) };
}

/// Other threads may still run: what they publish meanwhile is written or not. Nobody is left to hear of an error; that the
/// file can be written was seen when the timeline began.
extern "C" fn at_exit() {
    let _ = std::panic::catch_unwind(flush);
}

/// The symbol that begins at an address; else the file that the address is in and its place there, for addr2line.
fn name_of(address: usize) -> Option<String> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr only looks the address up, whatever it is, and `found` is writable.
    if unsafe { libc::dladdr(address as *const _, found.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: all zeroes is a value, and dladdr has filled it.
    let found = unsafe { found.assume_init() };
    let text = |text: *const c_char| {
        // SAFETY: dladdr's texts are nul-terminated and belong to objects that hold a task's function: they stay loaded.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    if found.dli_saddr as usize == address {
        return text(found.dli_sname);
    }
    let file = text(found.dli_fname)?;
    let file = Path::new(&file).file_name()?.to_string_lossy().into_owned();
    Some(format!("{file}+{:#x}", address - found.dli_fbase as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_named_by_its_symbol_or_its_place() {
        let address = libc::getpid as *const () as usize;
        // With underscores in front of it where the C library has several names for the function.
        assert_eq!(name_of(address).unwrap().trim_start_matches('_'), "getpid");
        let inside = name_of(address + 1).unwrap();
        assert!(inside.starts_with("libc") && inside.contains("+0x"), "{inside}");
        assert_eq!(name_of(1), None);
    }
}
