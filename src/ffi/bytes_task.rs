//! The items of a map of bytes, as the job runs them.
//!
//! Seen from the job this is a map whose outputs have a fixed size: each is the place where an item's bytes lie, and the bytes
//! themselves lie in the arena of whoever ran the item. So backends that bring fixed-size outputs home bring these.

use super::bytes::pb_bytes;
use super::task::{THREW, contain, fill_statuses, sendable_ctx};
use crate::job::{self, Cargo, Chunk, Outputs, Task};
use crate::message::{Kind, Pieces, pack, unpack};
use crate::shared::{Arena, ArenaFile, Mapping, Output as pb_output, Span, Spare};
use crate::status::{Error, Result, Status};
use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

type Call = unsafe extern "C-unwind" fn(*mut c_void, usize, *const c_void, usize, *mut pb_output) -> i32;

/// What a call says beside its inputs.
pub struct Needs {
    pub ctx: *mut c_void,
    /// Bytes of ctx, and the task's name: what other processes need.
    pub ctx_size: usize,
    pub name: Option<String>,
    pub statuses: *mut i32,
}

/// The items, and what has come of them.
pub struct Items {
    call: Call,
    needs: Needs,
    n_items: usize,
    inputs: *const pb_bytes,
    /// Where each result lies. Written through `first_span`, each by its item only.
    spans: Box<[Span]>,
    /// The first span; in a worker process that of the area that the parent reads.
    first_span: AtomicPtr<Span>,
    /// Keeps that area.
    area: OnceLock<Arc<Spare>>,
    /// Arenas that no item is writing to: as many as there were workers.
    arenas: Mutex<Vec<Arena>>,
    /// Where worker processes write results to.
    file: OnceLock<Arc<ArenaFile>>,
    /// All of it, once the map is over.
    mapped: OnceLock<Mapping>,
    /// Replies of other processes that are large enough to be kept as they came.
    homes: Mutex<Vec<Arc<Mapping>>>,
    /// Why a result that another process has sent is missing.
    missing: OnceLock<Error>,
}

/// Results that come together and are larger stay in the memory in which they came, rather than being copied.
const WORTH_KEEPING: usize = 1 << 20;

// SAFETY: the header says that the function runs on any thread and on several at once, and that ctx and the inputs live
// until the call is over; each item writes its own span and status only, and spans are read when the map is over.
unsafe impl Send for Items {}
// SAFETY: as above.
unsafe impl Sync for Items {}

impl Items {
    /// Checks what can be checked, and writes "did not finish" into every status.
    ///
    /// # Safety
    /// The function and the arrays are what the header asks for, for `n_items` items, until the call is over.
    pub unsafe fn new(call: Call, needs: Needs, n_items: usize, inputs: *const pb_bytes) -> Result<Items> {
        let too_many = || {
            let message = format!("{n_items} items are more than memory can hold");
            Error::new(Status::ERR_OUT_OF_MEMORY, message)
        };
        let mut spans = Vec::new();
        spans.try_reserve_exact(n_items).map_err(|_| too_many())?;
        spans.resize(n_items, Span::default());
        // SAFETY: the caller promised an entry for each item, or NULL.
        unsafe { fill_statuses(needs.statuses, n_items) }?;
        let mut spans = spans.into_boxed_slice();
        let first_span = AtomicPtr::new(spans.as_mut_ptr());
        Ok(Items {
            call,
            needs,
            n_items,
            inputs,
            spans,
            first_span,
            area: OnceLock::new(),
            arenas: Mutex::default(),
            file: OnceLock::new(),
            mapped: OnceLock::new(),
            homes: Mutex::default(),
            missing: OnceLock::new(),
        })
    }

    /// Makes the results of worker processes readable, once the map is over. An error where not all of them are here.
    pub fn collect(&self) -> Result<()> {
        if let Some(error) = self.missing.get() {
            return Err(error.clone());
        }
        if let Some(mapping) = self.file.get().map(|file| file.map()).transpose()?.flatten() {
            let _ = self.mapped.set(mapping);
        }
        Ok(())
    }

    /// An item's bytes.
    pub fn result(&self, index: usize) -> Result<(*const u8, usize)> {
        if index >= self.n_items {
            let message = format!("there is no result {index}: the map had {} items", self.n_items);
            return Err(Error::invalid(message));
        }
        // SAFETY: index < n_items; spans are the caller's own again now that the map is over, and nobody writes any more.
        let span = unsafe { self.first_span.load(Ordering::Relaxed).add(index).read() };
        span.find(self.mapped.get()).ok_or_else(|| {
            Error::new(
                Status::ERR_TASK_FAILED,
                format!("item {index} has no result: it failed, see statuses"),
            )
        })
    }

    fn set_span(&self, index: usize, span: Span) {
        // SAFETY: index < n_items, there is a span for each, and only this item's worker writes it.
        unsafe { self.first_span.load(Ordering::Relaxed).add(index).write(span) }
    }

    fn take_arena(&self) -> Arena {
        let free = self.arenas.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| Arena::new(self.area.get().and_then(|_| self.file.get().cloned())))
    }

    fn put_back(&self, arena: Arena) {
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
    }

    fn run(&self, index: usize, output: &mut pb_output) -> i32 {
        let input = if self.inputs.is_null() {
            pb_bytes { data: std::ptr::null(), size: 0 }
        } else {
            // SAFETY: the caller promised an entry for each item, and index < n_items.
            unsafe { *self.inputs.add(index) }
        };
        // Should the item never end, nobody is to find what an earlier map has left here.
        self.set_span(index, Span::default());
        output.arena.begin();
        // SAFETY: the caller promised that the function may be called so, from this thread too.
        let call = || unsafe { (self.call)(self.needs.ctx, index, input.data, input.size, output) };
        let code = job::incomplete(contain(call, THREW), output.broken.take());
        if code == 0 {
            self.set_span(index, output.arena.end());
        } else {
            output.arena.abandon();
        }
        code
    }

    fn with_output<R>(&self, work: impl FnOnce(&mut pb_output) -> R) -> R {
        let mut output = pb_output { arena: self.take_arena(), broken: None };
        let result = work(&mut output);
        self.put_back(output.arena);
        result
    }
}

/// Copies a result.
fn keep(arena: &mut Arena, bytes: &[u8]) -> Result<Span> {
    arena.begin();
    arena.append(bytes)?;
    Ok(arena.end())
}

/// The items as a job's task.
pub struct BytesTask(pub Arc<Items>);

impl Task for BytesTask {
    fn site(&self) -> usize {
        self.0.call as usize
    }

    fn run(&self, index: usize) -> i32 {
        self.0.with_output(|output| self.0.run(index, output))
    }

    fn run_range(&self, chunk: Chunk, flags: &AtomicU32) -> (usize, Option<i32>) {
        self.0.with_output(|output| {
            for index in chunk.begin..chunk.end {
                if flags.load(Ordering::Relaxed) != 0 {
                    return (index, None);
                }
                let code = self.0.run(index, output);
                if code != 0 {
                    return (index, Some(code));
                }
            }
            (chunk.end, None)
        })
    }

    fn record(&self, index: usize, status: i32) {
        if !self.0.needs.statuses.is_null() {
            // SAFETY: index < n_items, the array has an entry for each, and only this item's worker writes it.
            unsafe { *self.0.needs.statuses.add(index) = status };
        }
    }

    fn cargo(&self) -> Result<Cargo<'_>> {
        let Needs { ctx, ctx_size, name, .. } = &self.0.needs;
        Ok(Cargo {
            address: self.0.call as usize,
            kind: Kind::Bytes,
            name: name.as_deref(),
            // SAFETY: the caller promised ctx_size bytes that live until the call is over.
            ctx: unsafe { sendable_ctx(*ctx, *ctx_size) }?,
            input_size: 0,
            output_size: 0,
        })
    }

    fn inputs(&self, chunk: Chunk) -> Option<Pieces<'_>> {
        if self.0.inputs.is_null() {
            return None;
        }
        let input = |index: usize| {
            // SAFETY: the caller promised an entry for each item, and readable bytes behind each that is not NULL.
            unsafe {
                let pb_bytes { data, size } = *self.0.inputs.add(index);
                (!data.is_null()).then(|| std::slice::from_raw_parts(data.cast::<u8>(), size))
            }
        };
        Some(pack((chunk.begin..chunk.end).map(input)))
    }

    fn store(&self, first: usize, outputs: &[u8], home: Option<&Arc<Mapping>>) {
        let count = outputs.get(..8).and_then(|count| count.try_into().ok()).map_or(0, u64::from_le_bytes);
        let results = unpack(outputs, count).unwrap_or_default();
        let results = (first..self.0.n_items).zip(results);
        if let Some(home) = home.filter(|_| outputs.len() >= WORTH_KEEPING) {
            results
                .for_each(|(index, result)| self.0.set_span(index, result.map_or(Span::default(), Span::of)));
            self.0.homes.lock().unwrap_or_else(PoisonError::into_inner).push(home.clone());
            return;
        }
        self.0.with_output(|output| {
            for (index, result) in results {
                let span = result.map_or(Ok(Span::default()), |bytes| keep(&mut output.arena, bytes));
                self.0.set_span(index, *span.as_ref().unwrap_or(&Span::default()));
                if let Err(error) = span {
                    let message = format!("the result of item {index} cannot be kept: {}", error.message);
                    let _ = self.0.missing.set(Error::new(Status::ERR_OUT_OF_MEMORY, message));
                }
            }
        });
    }

    fn outputs(&self) -> Outputs {
        Outputs { address: self.0.spans.as_ptr() as usize, size: size_of::<Span>() }
    }

    fn before_fork(&self) -> Result<()> {
        if self.0.file.get().is_none() {
            let _ = self.0.file.set(Arc::new(ArenaFile::new()?));
        }
        Ok(())
    }

    fn redirect_outputs(&self, area: Arc<Spare>, offset: usize) {
        let base = area.base().wrapping_add(offset).cast();
        if self.0.area.set(area).is_ok() {
            self.0.first_span.store(base, Ordering::Relaxed);
        }
    }

    fn fetch_outputs(&self, chunk: Chunk, area: &Spare, offset: usize) {
        let size = size_of::<Span>();
        assert!(offset + chunk.end * size <= area.len(), "outputs outside their area");
        // SAFETY: there is a span for each of the items here, and in the area (checked); they are different memory, and the
        // processes that wrote there have published what they wrote. Any bits are a span.
        unsafe {
            let from = area.base().wrapping_add(offset).cast::<Span>().cast_const().add(chunk.begin);
            let to = self.0.first_span.load(Ordering::Relaxed).add(chunk.begin);
            std::ptr::copy_nonoverlapping(from, to, chunk.end - chunk.begin);
        }
    }
}
