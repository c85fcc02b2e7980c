//! Section 9 of the header: maps of bytes.

use super::abi::{self, writable};
use super::bytes_task::{BytesTask, Items, Needs};
use super::guard::{guard, guard_value};
use super::map::{self, pb_map_options};
use crate::call;
use crate::shared::Output as pb_output;
use crate::status::{Error, Result, Status, pb_status};
use std::ffi::c_void;
use std::sync::Arc;

/// Bytes somewhere.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pb_bytes {
    /// The first of them.
    pub data: *const c_void,
    /// How many.
    pub size: usize,
}

/// Results of any sizes: those of a map of bytes, or the one reply of a worker.
pub struct pb_results(Kept);

enum Kept {
    Map(Arc<Items>),
    One(Vec<u8>),
}

impl pb_results {
    /// Results of which item 0 is all.
    pub(super) fn one(bytes: Vec<u8>) -> pb_results {
        pb_results(Kept::One(bytes))
    }

    fn get(&self, index: usize) -> Result<(*const u8, usize)> {
        match &self.0 {
            Kept::Map(items) => items.result(index),
            Kept::One(bytes) if index == 0 => Ok((bytes.as_ptr(), bytes.len())),
            Kept::One(_) => Err(Error::invalid(format!("there is one result, none with index {index}"))),
        }
    }
}

/// Runs for one item. `input` points at its `input_size` bytes (NULL and 0 where there are no inputs); the result is what the
/// item writes to `output`, nothing at all included. 0 is success; any other code is the item's failure. Otherwise as
/// `pb_task_fn`.
pub type pb_bytes_fn = Option<
    unsafe extern "C-unwind" fn(
        ctx: *mut c_void,
        index: usize,
        input: *const c_void,
        input_size: usize,
        output: *mut pb_output,
    ) -> i32,
>;

/// For a `pb_bytes_fn`: appends bytes (copied) to the result of its item. Errors: PB_ERR_OUT_OF_MEMORY, with which the item
/// fails, whatever it returns; PB_ERR_INVALID_ARGUMENT.
///
/// # Safety
/// `output` was passed to the task that calls; `data` is readable over `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_output_write(
    output: *mut pb_output,
    data: *const c_void,
    size: usize,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised the output of its own item, which no other thread uses now.
        let output = unsafe { output.as_mut() }.ok_or_else(|| abi::null("output"))?;
        if size == 0 {
            return Ok(());
        }
        if data.is_null() {
            return Err(abi::null("data"));
        }
        if size > isize::MAX as usize {
            return Err(Error::invalid(format!("size is {size}: more than memory can hold")));
        }
        // SAFETY: not NULL, and the caller promised so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) };
        output.arena.append(bytes).inspect_err(|error| output.broken = Some(error.clone()))
    })
}

/// Runs `fn` for each of `n_items` opaque inputs of any size and collects their opaque results, of any size: on the backend
/// and with the workers and options that `pb_parallel_map` would use, in any order, and returns when all is over.
///
/// @param inputs  n_items entries; NULL where there are none
/// @param options  as for `pb_parallel_map`; NULL for the defaults
/// @param results  receives the results, to be freed by `pb_results_free`, when the call returns PB_OK, and also when it
///   returns PB_ERR_TASK_FAILED with PB_COLLECT_ERRORS
///
/// Results lie one behind the other in the memory of each worker: no allocation an item, and where workers are other
/// processes they are read where those have written them.
///
/// # Safety
/// As `pb_parallel_map`, for the array of inputs and the bytes that it points to; `results` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_map_bytes(
    r#fn: pb_bytes_fn,
    ctx: *mut c_void,
    n_items: usize,
    inputs: *const pb_bytes,
    options: *const pb_map_options,
    results: *mut *mut pb_results,
) -> pb_status {
    guard(|| {
        let mut own = None;
        // SAFETY: the caller promised options with their size set, or NULL.
        let options = unsafe { map::read_options(options, &mut own) }?;
        map::no_range(options)?;
        let call = r#fn.ok_or_else(|| abi::null("fn"))?;
        writable(results, "results")?;
        let collects = options.flags & map::PB_COLLECT_ERRORS != 0;
        // SAFETY: the caller promised a text, or NULL.
        let name = unsafe { abi::text(options.task, "task") }?.map(str::to_owned);
        let needs = Needs { ctx, ctx_size: options.ctx_size, name, statuses: options.statuses };
        // SAFETY: the caller promised the function and the arrays, until this call returns.
        let items = Arc::new(unsafe { Items::new(call, needs, n_items, inputs) }?);
        let request = map::request(n_items, options, false);
        let ran = call::run(BytesTask(items.clone()), &request);
        let kept = match &ran {
            Ok(()) => true,
            Err(error) => collects && error.status == Status::ERR_TASK_FAILED,
        };
        if kept {
            items.collect()?;
            // SAFETY: checked not NULL, and the caller promised that it is writable.
            unsafe { *results = Box::into_raw(Box::new(pb_results(Kept::Map(items)))) };
        }
        ran
    })
}

/// # Safety
/// `results` is NULL, or was made by this library and not freed.
unsafe fn results<'a>(results: *const pb_results) -> Result<&'a pb_results> {
    // SAFETY: the caller promised results, or NULL.
    unsafe { results.as_ref() }.ok_or_else(|| abi::null("results"))
}

/// The bytes of an item's result, valid until the results are freed. On any thread. Errors: PB_ERR_INVALID_ARGUMENT for an
/// index that there is not; PB_ERR_TASK_FAILED for an item without a result, because it failed.
///
/// # Safety
/// `results` was made by this library and not freed; `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_results_get(
    results: *const pb_results,
    index: usize,
    out: *mut pb_bytes,
) -> pb_status {
    guard(|| {
        // SAFETY: the caller promised results, or NULL.
        let (data, size) = unsafe { self::results(results) }?.get(index)?;
        writable(out, "out")?;
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *out = pb_bytes { data: data.cast(), size } };
        Ok(())
    })
}

/// Frees results, and all bytes that `pb_results_get` gave. NULL is fine; twice is not.
///
/// # Safety
/// `results` is NULL, or was made by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_results_free(results: *mut pb_results) {
    guard_value(
        |_| (),
        || {
            if !results.is_null() {
                // SAFETY: the caller gives back what the library made.
                drop(unsafe { Box::from_raw(results) });
            }
            Ok(())
        },
    );
}
