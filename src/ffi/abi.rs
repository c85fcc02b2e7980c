//! Values that cross the boundary: texts, and structs that grow.

use crate::status::{Error, Result, Status};
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

/// A text argument that may be NULL.
///
/// # Safety
/// `text` is NULL or a nul-terminated text that outlives the result.
pub unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, and the caller promised the rest.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| Error::invalid(format!("{what} is not UTF-8 text")))
}

/// A text argument that is required.
///
/// # Safety
/// As [`text`].
pub unsafe fn required_text<'a>(argument: *const c_char, what: &str) -> Result<&'a str> {
    // SAFETY: the caller promised what `text` asks for.
    unsafe { text(argument, what) }?.ok_or_else(|| null(what))
}

/// The error for a required argument that is NULL.
pub fn null(what: &str) -> Error {
    Error::invalid(format!("{what} is NULL"))
}

/// Checks an output pointer before anything is done.
pub fn writable<T>(pointer: *mut T, what: &str) -> Result<()> {
    if pointer.is_null() { Err(null(what)) } else { Ok(()) }
}

/// What to do with the part of a caller's struct that this version does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// It offers more than is needed.
    Ignore,
    /// It asks for something that would be dropped silently: refused unless it is all zero.
    MustBeZero,
}

/// Whether `T` may be copied byte by byte from C, and all zeroes is one of its values: integers, raw pointers and
/// `Option<fn>` in `repr(C)`, with `struct_size: usize` first.
///
/// # Safety
/// As said.
pub unsafe trait Sized0: Copy {}

/// Reads a caller's struct by its `struct_size`: `smallest` is the size of the oldest version that is still understood.
///
/// # Safety
/// `pointer` is NULL or points to a struct whose first field is its own size and which is readable over that size.
pub unsafe fn read<T: Sized0>(pointer: *const T, smallest: usize, tail: Tail, what: &str) -> Result<T> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL, and every such struct begins with its size.
    let theirs = unsafe { pointer.cast::<usize>().read() };
    let ours = size_of::<T>();
    if theirs < smallest {
        return Err(Error::new(
            Status::ERR_ABI,
            format!(
                "struct_size of {what} is {theirs}, below {smallest}: set it to sizeof({what}) before the call"
            ),
        ));
    }
    if theirs < ours && (ours - theirs) % size_of::<usize>() != 0 {
        // What has been added is pointers: no version ends within one.
        return Err(Error::new(
            Status::ERR_ABI,
            format!(
                "struct_size of {what} is {theirs}, which no version has: set it to sizeof({what}) before the call"
            ),
        ));
    }
    if theirs > ours && tail == Tail::MustBeZero {
        // SAFETY: the caller promised that the struct is readable over its size.
        let rest = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(ours), theirs - ours) };
        if rest.iter().any(|byte| *byte != 0) {
            return Err(Error::new(
                Status::ERR_UNSUPPORTED,
                format!("{what} sets fields that version {} does not know", env!("CARGO_PKG_VERSION")),
            ));
        }
    }
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: both sides are at least that long, and all zeroes is a value of T.
    unsafe {
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), theirs.min(ours));
        Ok(copy.assume_init())
    }
}

/// Writes a result into a caller's struct, as far as it reaches; its `struct_size` stays.
///
/// # Safety
/// `pointer` is NULL or points to a struct whose first field is its own size and which is writable over that size.
pub unsafe fn write<T: Sized0>(pointer: *mut T, value: T, smallest: usize, what: &str) -> Result<()> {
    writable(pointer, what)?;
    // SAFETY: not NULL, and every such struct begins with its size.
    let theirs = unsafe { pointer.cast::<usize>().read() };
    if theirs < smallest {
        return Err(Error::new(
            Status::ERR_ABI,
            format!(
                "struct_size of {what} is {theirs}, below {smallest}: set it to sizeof({what}) before the call"
            ),
        ));
    }
    let skip = size_of::<usize>();
    let len = theirs.min(size_of::<T>()) - skip;
    // SAFETY: both sides are at least that long; the field `struct_size` is skipped on both.
    unsafe {
        std::ptr::copy_nonoverlapping(
            (&raw const value).cast::<u8>().add(skip),
            pointer.cast::<u8>().add(skip),
            len,
        );
    }
    Ok(())
}
