//! A caller's function with its arrays, as the job runs it.

use super::items::{Call, Next, Walk};
use super::map::{pb_range_fn, pb_task_fn};
use crate::job::{self, Cargo, Chunk, Outputs, Task};
use crate::message::{Kind, Pieces};
use crate::shared::{self, Mapping, Owner, Spare};
use crate::status::{Error, Result, Status};
use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// What a task "returned" that threw an exception instead.
pub(super) const THREW: i32 = i32::MIN;

/// The items of a call. What workers need of each comes first, in one line of the cache.
#[repr(C, align(64))]
pub struct CTask {
    next: Next,
    call: Call,
    ctx: *mut c_void,
    inputs: *const u8,
    input_size: usize,
    /// Where the array begins; another place in a worker process.
    outputs: AtomicPtr<u8>,
    output_size: usize,
    /// A loop over items, where the caller has one.
    range: pb_range_fn,
    statuses: *mut i32,
    /// Keeps that other place.
    area: OnceLock<Arc<Spare>>,
    /// Bytes of ctx, and the task's name: what other processes need.
    ctx_size: usize,
    name: Option<String>,
}

// SAFETY: the header says that the function runs on any thread and on several at once, and that ctx and the arrays live
// until the call or the job is over; each item touches its own element only.
unsafe impl Send for CTask {}
// SAFETY: as above.
unsafe impl Sync for CTask {}

/// What a call runs, as C passed it.
#[derive(Clone, Copy)]
pub struct Elements<'a> {
    pub call: pb_task_fn,
    pub ctx: *mut c_void,
    pub ctx_size: usize,
    pub inputs: *const c_void,
    pub input_size: usize,
    pub outputs: *mut c_void,
    pub output_size: usize,
    pub statuses: *mut i32,
    /// The task's, for other processes.
    pub name: Option<&'a str>,
    pub range: pb_range_fn,
}

impl Elements<'_> {
    pub const NONE: Elements<'static> = Elements {
        call: None,
        ctx: null_mut(),
        ctx_size: 0,
        inputs: null(),
        input_size: 0,
        outputs: null_mut(),
        output_size: 0,
        statuses: null_mut(),
        name: None,
        range: None,
    };
}

impl CTask {
    /// Checks what can be checked of a call, and writes "did not finish" into every status.
    ///
    /// # Safety
    /// The function and the arrays are what the header asks for, for `n_items` items, until the job is over.
    #[inline(always)]
    pub unsafe fn new(n_items: usize, elements: Elements) -> Result<Self> {
        let Elements { call, ctx, ctx_size, inputs, input_size, outputs, output_size, statuses, name, range } =
            elements;
        let call = call.ok_or_else(|| super::abi::null("fn"))?;
        let fits = |size: usize| n_items.checked_mul(size).is_some_and(|bytes| bytes <= isize::MAX as usize);
        for (what, size, array) in
            [("inputs", input_size, inputs), ("outputs", output_size, outputs.cast_const())]
        {
            if !array.is_null() && !fits(size) {
                return Err(too_many(what, n_items, size));
            }
        }
        // SAFETY: the caller promised an entry for each item, or NULL.
        unsafe { fill_statuses(statuses, n_items) }?;
        Ok(CTask {
            next: Next::new(call),
            call,
            ctx,
            inputs: inputs.cast(),
            input_size,
            outputs: AtomicPtr::new(outputs.cast()),
            output_size,
            range,
            area: OnceLock::new(),
            statuses,
            ctx_size,
            name: name.map(str::to_owned),
        })
    }

    /// Whether a task of these elements would be the same.
    #[inline(always)]
    pub fn is_of(&self, elements: &Elements) -> bool {
        let Elements { call, ctx, ctx_size, inputs, input_size, outputs, output_size, statuses, name, range } =
            *elements;
        call.is_some_and(|call| self.call as usize == call as usize)
            && (self.ctx, self.ctx_size, self.statuses) == (ctx, ctx_size, statuses)
            && (self.inputs, self.input_size) == (inputs.cast(), input_size)
            && (self.first_output(), self.output_size) == (outputs.cast(), output_size)
            && self.name.as_deref() == name
            && self.range.map(|range| range as usize) == range.map(|range| range as usize)
            && self.area.get().is_none()
    }

    /// The elements of an item, NULL where there is no array.
    fn elements(&self, index: usize) -> (*const u8, *mut u8) {
        // An element's address, where there is an array: index <= n_items, and the array has n_items elements.
        let input = self.inputs.wrapping_add(index * self.input_step());
        (input, self.first_output().wrapping_add(index * self.output_step()))
    }

    /// Bytes from one input to the next; 0 where there are none, so that NULL stays NULL.
    fn input_step(&self) -> usize {
        if self.inputs.is_null() { 0 } else { self.input_size }
    }

    fn output_step(&self) -> usize {
        if self.first_output().is_null() { 0 } else { self.output_size }
    }

    #[inline(always)]
    fn walk(&self, Chunk { begin, end }: Chunk) -> Walk {
        let (input, output) = self.elements(begin);
        let (input_step, output_step) = (self.input_step(), self.output_step());
        Walk {
            next: &self.next,
            at: Cell::new(begin),
            ctx: self.ctx,
            end,
            input,
            output,
            input_step,
            output_step,
        }
    }

    /// The caller's own loop over a chunk: the code of the item that failed, if one did. None where there is no such loop.
    fn run_loop(&self, chunk: Chunk, at: &Cell<usize>) -> Option<Option<i32>> {
        let range = self.range?;
        let Chunk { begin, end } = chunk;
        let (inputs, outputs) = self.elements(begin);
        // SAFETY: the caller promised that the loop may be called so, from this thread too; end <= n_items.
        let code = unsafe { range(self.ctx, begin, end, inputs.cast(), outputs.cast(), at.as_ptr()) };
        let failed = code != 0;
        at.set(if failed { at.get().clamp(begin, end.saturating_sub(1).max(begin)) } else { end });
        Some(failed.then_some(code))
    }

    fn first_output(&self) -> *mut u8 {
        self.outputs.load(Ordering::Relaxed)
    }
}

#[cold]
fn too_many(what: &str, n_items: usize, size: usize) -> Error {
    Error::invalid(format!("{what}: {n_items} items of {size} bytes are more than memory can hold"))
}

/// Writes "did not finish" into every status, where there are any.
///
/// # Safety
/// `statuses` is NULL or has an entry for each item.
#[inline]
pub(super) unsafe fn fill_statuses(statuses: *mut i32, n_items: usize) -> Result<()> {
    if statuses.is_null() {
        return Ok(());
    }
    if n_items > isize::MAX as usize / size_of::<i32>() {
        return Err(Error::invalid(format!("statuses: {n_items} entries are more than memory can hold")));
    }
    // SAFETY: the caller promised an entry for each item.
    unsafe { std::slice::from_raw_parts_mut(statuses, n_items) }.fill(Status::ERR_CANCELLED.0);
    Ok(())
}

/// Keeps an exception of a task, or a panic, from going further. It was not allowed, so this is best effort.
pub(super) fn contain<R>(body: impl FnOnce() -> R, threw: R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        job::set_text("the task threw an exception; a task must return a code instead".into());
        threw
    })
}

impl Task for CTask {
    fn is_same(&self, other: &Self) -> bool {
        self.is_of(&Elements {
            call: Some(other.call),
            ctx: other.ctx,
            ctx_size: other.ctx_size,
            inputs: other.inputs.cast(),
            input_size: other.input_size,
            outputs: other.first_output().cast(),
            output_size: other.output_size,
            statuses: other.statuses,
            name: other.name.as_deref(),
            range: other.range,
        })
    }

    fn holds_nothing(&self) -> bool {
        true
    }

    fn site(&self) -> usize {
        self.call as usize
    }

    fn run(&self, index: usize) -> i32 {
        let (input, output) = self.elements(index);
        // SAFETY: the caller promised that the function may be called so, from this thread too; index < n_items.
        contain(|| unsafe { (self.call)(self.ctx, index, input.cast(), output.cast()) }, THREW)
    }

    fn run_range(&self, chunk: Chunk, _flags: &AtomicU32) -> (usize, Option<i32>) {
        let mut walk = self.walk(chunk);
        let code = contain(
            || {
                let own = self.run_loop(chunk, &walk.at);
                // SAFETY: the caller promised that the function may be called so, from this thread too; end <= n_items.
                own.unwrap_or_else(|| unsafe { walk.run(self.call) })
            },
            Some(THREW),
        );
        (walk.at.get(), code)
    }

    fn halt(&self) {
        self.next.halt();
    }

    fn resume(&self) {
        self.next.set(self.call);
    }

    fn record(&self, index: usize, status: i32) {
        if !self.statuses.is_null() {
            // SAFETY: index < n_items, the array has an entry for each, and only this item's worker writes it.
            unsafe { *self.statuses.add(index) = status };
        }
    }

    fn cargo(&self) -> Result<Cargo<'_>> {
        // SAFETY: the caller promised ctx_size bytes that live until the job is over.
        let ctx = unsafe { sendable_ctx(self.ctx, self.ctx_size) }?;
        Ok(Cargo {
            address: self.call as usize,
            kind: Kind::Elements,
            name: self.name.as_deref(),
            ctx,
            input_size: self.input_step(),
            output_size: self.output_step(),
        })
    }

    fn inputs(&self, chunk: Chunk) -> Option<Pieces<'_>> {
        let (input, _) = self.elements(chunk.begin);
        let size = (chunk.end - chunk.begin) * self.input_step();
        // SAFETY: the array is there, has an element for each of the items, and stays as it is until the job is over.
        (!input.is_null()).then(|| Pieces::of(unsafe { std::slice::from_raw_parts(input, size) }))
    }

    fn store(&self, first: usize, outputs: &[u8], _home: Option<&Arc<Mapping>>) {
        let (_, output) = self.elements(first);
        if !output.is_null() {
            // SAFETY: the array has room for as many elements from `first` on, and only the chunk that they belong to writes them.
            unsafe { std::ptr::copy_nonoverlapping(outputs.as_ptr(), output, outputs.len()) };
        }
    }

    fn outputs(&self) -> Outputs {
        let step = self.output_step();
        Outputs { address: if step == 0 { 0 } else { self.first_output() as usize }, size: step }
    }

    fn redirect_outputs(&self, area: Arc<Spare>, offset: usize) {
        let base = area.base().wrapping_add(offset);
        if self.area.set(area).is_ok() {
            self.outputs.store(base, Ordering::Relaxed);
        }
    }

    fn populate(&self, chunk: Chunk) {
        let (input, output) = self.elements(chunk.begin);
        let items = chunk.end - chunk.begin;
        let (inputs, outputs) = (items * self.input_step(), items * self.output_step());
        shared::populate(output as usize, outputs, Owner::Shared);
        if shared::find(input as usize, inputs).is_some() {
            shared::populate(input as usize, inputs, Owner::Shared);
        }
    }

    fn fetch_outputs(&self, chunk: Chunk, area: &Spare, offset: usize) {
        let (begin, end) = (chunk.begin * self.output_size, chunk.end * self.output_size);
        assert!(offset + end <= area.len(), "outputs outside their area");
        let to = self.first_output().wrapping_add(begin);
        // The fork has left the caller's pages to be copied when they are written to: here all at once.
        shared::populate(to as usize, end - begin, Owner::Own);
        // SAFETY: the caller's array has n_items elements, of which this chunk is a part; the area is as large (checked).
        // They are different memory, and the processes that wrote there have published what they wrote.
        unsafe {
            let from = area.base().wrapping_add(offset + begin).cast_const();
            std::ptr::copy_nonoverlapping(from, to, end - begin);
        }
    }
}

/// The bytes of a ctx for another process; `None` for NULL.
///
/// # Safety
/// `ctx` is NULL, or has `size` bytes that live as long as the result is used.
pub unsafe fn sendable_ctx<'a>(ctx: *mut c_void, size: usize) -> Result<Option<&'a [u8]>> {
    match (ctx.is_null(), size) {
        (true, _) => Ok(None),
        (false, 0) => Err(Error::new(
            Status::ERR_TASK_NOT_PORTABLE,
            "ctx is given without ctx_size, so it cannot be sent to another process: set ctx_size in pb_map_options to the \
             bytes that ctx has (pointers in it would mean nothing there), or pass NULL",
        )),
        (false, size) if size > isize::MAX as usize => {
            Err(Error::invalid(format!("ctx_size is {size}: more than memory can hold")))
        }
        // SAFETY: as the caller promised.
        (false, size) => Ok(Some(unsafe { std::slice::from_raw_parts(ctx.cast::<u8>().cast_const(), size) })),
    }
}
