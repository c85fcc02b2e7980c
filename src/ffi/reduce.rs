//! Section 13 of the header: reductions.

use super::abi::{self, writable};
use super::blocks::{CReduce, Cuts, Functions};
use super::guard::guard;
use super::map::{self, PB_COLLECT_ERRORS, pb_map_options};
use crate::call;
use crate::job::Rules;
use crate::status::{Error, Result, pb_status};
use std::ffi::c_void;
use std::sync::Arc;

/// Folds the items `begin` to `end - 1` into `partial`, which holds a copy of the identity at first. `inputs` points at the
/// element of item `begin` (NULL where there is no array). 0 is success. The rules are those of a `pb_task_fn`.
pub type pb_reduce_fn = Option<
    unsafe extern "C-unwind" fn(
        ctx: *mut c_void,
        begin: usize,
        end: usize,
        inputs: *const c_void,
        partial: *mut c_void,
    ) -> i32,
>;

/// Combines two partial results: `left` becomes the result of its own items and of those of `right`, which follow them.
/// 0 is success. The rules are those of a `pb_task_fn`.
pub type pb_combine_fn =
    Option<unsafe extern "C-unwind" fn(ctx: *mut c_void, left: *mut c_void, right: *const c_void) -> i32>;

/// Reduces n_items items to one result that has the same bits for any number of workers, on any backend, in every run:
/// sums of floating-point numbers too.
///
/// The items are cut into blocks, by `n_items` and the option `batch_size` alone: blocks of `batch_size` items, or 256
/// blocks of equal size (fewer where there are fewer items) if it is 0. `fold` folds each block into a partial result of
/// its own; `combine` combines neighbours in a binary tree over the blocks in their order. So `combine` must be
/// associative as far as the result should make sense, but it need not be commutative, nor exactly associative. Another
/// `batch_size`, or another number of items, is another tree.
///
/// It runs as a map of the blocks would: same context, workers, nesting, cancellation, progress (in blocks), timeout (of one
/// block). A backend that does not share memory is replaced by `threading`.
///
/// @param fold  folds a block
/// @param combine  combines two partial results
/// @param ctx  passed to both; shared by all of them
/// @param n_items  how many; 0 leaves the identity in `result`
/// @param inputs, input_size  an array of n_items elements of input_size bytes, or NULL
/// @param result, result_size  the identity before the call, the result after it; unchanged if the call fails. Partial
///   results are copied byte by byte; their addresses are multiples of 128
/// @param options  NULL for the defaults; `statuses` and PB_COLLECT_ERRORS are refused, a reduction has one result
///
/// Errors: as `pb_parallel_map`. The text names the items of the block that failed; `task_index` is the first of them.
///
/// # Safety
/// The arrays are as large as said; the functions may be called from several threads at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_reduce(
    fold: pb_reduce_fn,
    combine: pb_combine_fn,
    ctx: *mut c_void,
    n_items: usize,
    inputs: *const c_void,
    input_size: usize,
    result: *mut c_void,
    result_size: usize,
    options: *const pb_map_options,
) -> pb_status {
    guard(|| {
        let fold = fold.ok_or_else(|| abi::null("fold"))?;
        let combine = combine.ok_or_else(|| abi::null("combine"))?;
        if !inputs.is_null()
            && n_items.checked_mul(input_size).is_none_or(|bytes| bytes > isize::MAX as usize)
        {
            return Err(Error::invalid(format!(
                "inputs: {n_items} items of {input_size} bytes are more than memory can hold"
            )));
        }
        writable(result, "result")?;
        let mut own = None;
        // SAFETY: the caller promised options with their size set, or NULL.
        let options = unsafe { map::read_options(options, &mut own) }?;
        check(options)?;
        let cuts = Cuts::new(n_items, options.batch_size);
        let functions = Functions { fold, combine, ctx, inputs, input_size };
        // SAFETY: the caller promised what the header asks for, until this call returns.
        let reduce = Arc::new(unsafe { CReduce::new(functions, cuts, result.cast(), result_size) }?);
        let mut request = map::request(cuts.count(), options, false);
        request.wishes.shared_memory = true;
        // The batch size has cut the blocks; how many of them a worker takes at once is adapted.
        request.rules = Rules { batch_size: 0, ..request.rules };
        call::run(reduce.clone(), &request)?;
        // SAFETY: the caller promised a writable result.
        unsafe { reduce.take(result.cast(), result_size) };
        Ok(())
    })
}

fn check(options: &pb_map_options) -> Result<()> {
    map::no_range(options)?;
    if options.flags & PB_COLLECT_ERRORS != 0 || !options.statuses.is_null() {
        return Err(Error::invalid(
            "a reduction has one result: it has no use for PB_COLLECT_ERRORS and statuses",
        ));
    }
    Ok(())
}
