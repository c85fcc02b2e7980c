//! The items of a chunk in a worker: a function that was found here, with arrays that came from elsewhere.

use super::Surface;
use super::held::Watch;
use crate::job::{self, Chunk, Task};
use crate::message::{Data, Failure, Kind, Marks, Pieces, Reply, Request, Statuses, pack, unpack};
use crate::shared::{Arena, Output, Span};
use crate::status::{Error, Result, Status};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A `pb_task_fn`.
type Call = unsafe extern "C-unwind" fn(*mut c_void, usize, *const c_void, *mut c_void) -> i32;
/// A `pb_bytes_fn`.
pub type BytesCall =
    unsafe extern "C-unwind" fn(*mut c_void, usize, *const c_void, usize, *mut Output) -> i32;

/// What is called for an item.
enum Function {
    Elements(Call),
    Bytes(BytesCall, Parcel),
}

/// The strings of a map of bytes.
struct Parcel {
    /// Address and size of each input.
    inputs: Vec<(usize, usize)>,
    output: Mutex<Output>,
    /// Where the results lie; written by the worker's one thread.
    results: Mutex<Vec<Span>>,
}

/// What a task "returned" that threw an exception instead.
const THREW: i32 = i32::MIN;

/// One line of a cache, and the strictest alignment that arrays are given.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Bytes for tasks: somebody else's, or our own copy.
pub(super) struct Buffer {
    address: usize,
    _own: Vec<Line>,
}

impl Buffer {
    const NULL: Buffer = Buffer { address: 0, _own: Vec::new() };

    pub(super) fn at(address: usize) -> Self {
        Buffer { address, _own: Vec::new() }
    }

    fn zeroed(size: usize) -> Result<Self> {
        let lines = size.div_ceil(64).max(1);
        let mut own = Vec::new();
        own.try_reserve_exact(lines).map_err(|_| no_memory(&format!("{size} bytes of a chunk")))?;
        own.resize(lines, Line([0; 64]));
        Ok(Buffer { address: own.as_mut_ptr() as usize, _own: own })
    }

    fn copy(bytes: &[u8]) -> Result<Self> {
        let buffer = Buffer::zeroed(bytes.len())?;
        // SAFETY: the buffer was made for as many bytes, and nobody else has it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.address as *mut u8, bytes.len()) };
        Ok(buffer)
    }

    /// Inputs, in place where elements of that size are aligned as a compiler may expect.
    pub(super) fn input(data: &Data, size: usize, surface: &dyn Surface) -> Result<Self> {
        let align = if size == 0 { 64 } else { (1 << size.trailing_zeros()).min(64) };
        match *data {
            Data::None => Ok(Buffer::NULL),
            Data::Inline(bytes) if bytes.as_ptr() as usize % align == 0 => {
                Ok(Buffer::at(bytes.as_ptr() as usize))
            }
            Data::Inline(bytes) => Buffer::copy(bytes),
            Data::Shared { block, offset, len } => surface.at(block, offset, len).map(Buffer::at),
        }
    }

    /// Room for outputs.
    pub(super) fn output(data: &Data, size: usize, surface: &dyn Surface) -> Result<Self> {
        match *data {
            Data::None => Ok(Buffer::NULL),
            Data::Inline(_) => Buffer::zeroed(size),
            Data::Shared { block, offset, len } => surface.at(block, offset, len).map(Buffer::at),
        }
    }

    /// A ctx that tasks may write to, as they may in the process that called: what they write goes no further.
    pub(super) fn ctx(data: &Data, surface: &dyn Surface) -> Result<Self> {
        match *data {
            Data::None => Ok(Buffer::NULL),
            Data::Inline(bytes) => Buffer::copy(bytes),
            Data::Shared { block, offset, len } => surface.at(block, offset, len).map(Buffer::at),
        }
    }
}

pub(super) struct Items {
    function: Function,
    ctx: Buffer,
    inputs: Buffer,
    input_step: usize,
    outputs: Buffer,
    output_step: usize,
    output_in_reply: bool,
    begin: usize,
    surface: Arc<dyn Surface>,
    watch: Watch,
    own_marks: Marks,
    /// How each item ended, where errors are collected and the carrier has no place for it.
    own_statuses: Vec<AtomicI32>,
    collect_errors: bool,
    count: usize,
    /// What the last item returned.
    last: AtomicI32,
    started: Instant,
}

impl Items {
    /// The items of `request`, whose function is at `address`.
    pub(super) fn new(
        address: usize,
        request: &Request,
        [ctx, inputs, outputs]: [Buffer; 3],
        surface: Arc<dyn Surface>,
    ) -> Result<Self> {
        let count = request.items();
        let own = if request.collect_errors && surface.statuses(count).is_none() { count } else { 0 };
        // SAFETY: `tasks::resolve` gave the address of a function that its caller registered, or passed to a map, as a task of
        // this type; a place's build was compared with the one it was taken from.
        let function = unsafe {
            match request.kind {
                Kind::Elements => Function::Elements(std::mem::transmute::<usize, Call>(address)),
                Kind::Bytes => {
                    let call = std::mem::transmute::<usize, BytesCall>(address);
                    Function::Bytes(call, Parcel::open(&request.inputs, &inputs, count)?)
                }
            }
        };
        Ok(Items {
            function,
            ctx,
            inputs,
            input_step: request.input_size as usize,
            outputs,
            output_step: request.output_size as usize,
            output_in_reply: matches!(request.outputs, Data::Inline(_)),
            begin: request.begin as usize,
            surface,
            watch: Watch::new(request.call),
            own_marks: Marks::default(),
            own_statuses: table(own, || AtomicI32::new(0))?,
            collect_errors: request.collect_errors,
            count,
            last: AtomicI32::new(0),
            started: Instant::now(),
        })
    }

    /// Whether the chunk should end early.
    pub(super) fn stopped(&self) -> bool {
        self.surface.stopped() || self.watch.is_cancelled()
    }

    fn marks(&self) -> &Marks {
        self.surface.marks().unwrap_or(&self.own_marks)
    }

    fn statuses(&self) -> &[AtomicI32] {
        match self.collect_errors {
            true => self.surface.statuses(self.count).unwrap_or(&self.own_statuses),
            false => &[],
        }
    }

    fn element(buffer: &Buffer, item: usize, step: usize) -> *mut c_void {
        // NULL stays NULL.
        if buffer.address == 0 { std::ptr::null_mut() } else { (buffer.address + item * step) as *mut c_void }
    }

    /// Runs one item; `item` counts from the chunk's first.
    fn run_item(&self, item: usize, marks: &Marks) -> i32 {
        marks.begun.store(item as u64 + 1, Ordering::Relaxed);
        let code = match &self.function {
            Function::Elements(call) => self.call(*call, item),
            Function::Bytes(call, parcel) => self.call_bytes(*call, parcel, item),
        };
        match code {
            // Where errors are collected an item has ended once its status is written: see `record`.
            0 if self.collect_errors => {}
            0 => marks.ended.store(item as u64 + 1, Ordering::Release),
            _ => self.last.store(code, Ordering::Relaxed),
        }
        code
    }

    fn call(&self, call: Call, item: usize) -> i32 {
        let input = Items::element(&self.inputs, item, self.input_step);
        let output = Items::element(&self.outputs, item, self.output_step);
        let ctx = self.ctx.address as *mut c_void;
        // SAFETY: the function is a task; its arrays have an element for each of the chunk's items, as the decoded request
        // says; a task may be called so on any thread.
        contain(|| unsafe { call(ctx, self.begin + item, input, output) })
    }

    fn call_bytes(&self, call: BytesCall, parcel: &Parcel, item: usize) -> i32 {
        let (input, size) = parcel.inputs.get(item).copied().unwrap_or_default();
        let ctx = self.ctx.address as *mut c_void;
        // One thread runs the chunk: nobody else wants the locks.
        let mut output = parcel.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.arena.begin();
        let place: *mut Output = &mut *output;
        // SAFETY: the function is a task of bytes; the input lies in the request, the output is this item's alone.
        let code = contain(|| unsafe { call(ctx, self.begin + item, input as *const c_void, size, place) });
        let code = job::incomplete(code, output.broken.take());
        let span = if code == 0 {
            output.arena.end()
        } else {
            output.arena.abandon();
            Span::default()
        };
        if let Some(result) = parcel.results.lock().unwrap_or_else(PoisonError::into_inner).get_mut(item) {
            *result = span;
        }
        code
    }

    /// Hands over the answer, when all is over.
    pub(super) fn reply<R>(&self, failure: Option<Failure>, deliver: impl FnOnce(Pieces) -> R) -> R {
        // All that have begun are over; the last one may have failed.
        let ran = self.marks().begun.load(Ordering::Relaxed) as usize;
        let last = self.last.load(Ordering::Relaxed);
        let mut each: Vec<u8> = Vec::new();
        if self.collect_errors {
            let ended = self.statuses().iter().take(ran);
            each.extend(ended.flat_map(|status| status.load(Ordering::Relaxed).to_le_bytes()));
        } else if last != 0 {
            // Where errors are not collected only the last item can have failed.
            each.resize(ran * 4 - 4, 0);
            each.extend(last.to_le_bytes());
        }
        let outputs = if self.output_in_reply { ran * self.output_step } else { 0 };
        // SAFETY: the buffer has an element for each item of the chunk, and no task runs any more.
        let outputs = unsafe { bytes_at(self.outputs.address, outputs) };
        let reply = Reply {
            refused: None,
            ran: ran as u64,
            statuses: if each.is_empty() { Statuses::AllGood } else { Statuses::Each(&each) },
            failure,
            nanoseconds: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            outputs: &[],
        };
        match &self.function {
            Function::Elements(_) => deliver(reply.encode_with(Pieces::of(outputs))),
            Function::Bytes(_, parcel) => parcel.close(ran, |outputs| deliver(reply.encode_with(outputs))),
        }
    }
}

/// Runs a task, and keeps an exception from going further.
fn contain(call: impl FnOnce() -> i32) -> i32 {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        job::set_text("the task threw an exception; a task must return a code instead".into());
        THREW
    })
}

impl Parcel {
    fn open(data: &Data, inputs: &Buffer, count: usize) -> Result<Parcel> {
        let size = match data {
            Data::None => 0,
            Data::Inline(bytes) => bytes.len(),
            Data::Shared { len, .. } => *len as usize,
        };
        // SAFETY: the buffer has the bytes of the request's inputs, which stay as they are until the chunk is over.
        let bytes = unsafe { bytes_at(inputs.address, size) };
        let strings = if inputs.address == 0 { Vec::new() } else { unpack(bytes, count as u64)? };
        let place =
            |string: Option<&[u8]>| string.map_or((0, 0), |bytes| (bytes.as_ptr() as usize, bytes.len()));
        Ok(Parcel {
            inputs: strings.into_iter().map(place).collect(),
            output: Mutex::new(Output { arena: Arena::new(None), broken: None }),
            results: Mutex::new(table(count, Span::default)?),
        })
    }

    /// Hands over the first results, packed.
    fn close<R>(&self, count: usize, deliver: impl FnOnce(Pieces) -> R) -> R {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let _arena = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let strings = results.iter().take(count).map(|span| {
            let (address, size) = span.find(None)?;
            // SAFETY: the span lies in the arena, which is held, and nobody writes to it any more.
            Some(unsafe { std::slice::from_raw_parts(address, size) })
        });
        deliver(pack(strings))
    }
}

/// A value for each of `count` items, of which a message may name any number.
fn table<T>(count: usize, value: impl Fn() -> T) -> Result<Vec<T>> {
    let mut table = Vec::new();
    table.try_reserve_exact(count).map_err(|_| no_memory(&format!("the results of {count} items")))?;
    table.extend((0..count).map(|_| value()));
    Ok(table)
}

fn no_memory(what: &str) -> Error {
    Error::new(Status::ERR_OUT_OF_MEMORY, format!("no memory in the worker for {what}"))
}

/// # Safety
/// There are that many readable bytes, which nobody writes meanwhile; or none are asked for.
unsafe fn bytes_at<'a>(address: usize, size: usize) -> &'a [u8] {
    // SAFETY: as the caller promised.
    if size == 0 { &[] } else { unsafe { std::slice::from_raw_parts(address as *const u8, size) } }
}

impl Task for Arc<Items> {
    fn site(&self) -> usize {
        match self.function {
            Function::Elements(call) => call as usize,
            Function::Bytes(call, _) => call as usize,
        }
    }

    fn run(&self, index: usize) -> i32 {
        self.run_item(index - self.begin, self.marks())
    }

    fn run_range(&self, chunk: Chunk, flags: &AtomicU32) -> (usize, Option<i32>) {
        let marks = self.marks();
        for index in chunk.begin..chunk.end {
            if flags.load(Ordering::Relaxed) != 0 || self.stopped() {
                return (index, None);
            }
            let code = self.run_item(index - self.begin, marks);
            if code != 0 {
                return (index, Some(code));
            }
        }
        (chunk.end, None)
    }

    fn record(&self, index: usize, status: i32) {
        if let Some(place) = self.statuses().get(index - self.begin) {
            place.store(status, Ordering::Relaxed);
            self.marks().ended.store((index - self.begin) as u64 + 1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Shared {
        marks: Marks,
        statuses: [AtomicI32; 3],
    }

    impl Surface for Shared {
        fn at(&self, _block: u64, _offset: u64, _len: u64) -> Result<usize> {
            Ok(0)
        }

        fn marks(&self) -> Option<&Marks> {
            Some(&self.marks)
        }

        fn statuses(&self, _count: usize) -> Option<&[AtomicI32]> {
            Some(&self.statuses)
        }

        fn stopped(&self) -> bool {
            false
        }
    }

    extern "C-unwind" fn fail_in_1(
        _ctx: *mut c_void,
        index: usize,
        _input: *const c_void,
        _output: *mut c_void,
    ) -> i32 {
        if index == 1 { 7 } else { 0 }
    }

    fn three_items(collect_errors: bool) -> (Arc<Items>, Arc<Shared>) {
        let shared = Arc::new(Shared::default());
        let request = Request { end: 3, collect_errors, ..Request::default() };
        let buffers = [Buffer::NULL, Buffer::NULL, Buffer::NULL];
        let address = fail_in_1 as *const () as usize;
        (Arc::new(Items::new(address, &request, buffers, shared.clone()).unwrap()), shared)
    }

    /// Else, should the worker die then, it would count as one that succeeded.
    #[test]
    fn a_failed_item_has_not_ended_before_its_status_can_be_read() {
        let ended = |shared: &Shared| shared.marks.ended.load(Ordering::Acquire);
        let (items, shared) = three_items(false);
        assert_eq!([items.run(0), items.run(1)], [0, 7]);
        assert_eq!(ended(&shared), 1, "its code is nowhere but in the reply");
        let (items, shared) = three_items(true);
        for (index, code) in [0, 7, 0].into_iter().enumerate() {
            assert_eq!(items.run(index), code);
            assert_eq!(ended(&shared), index as u64);
            items.record(index, code);
            assert_eq!(ended(&shared), index as u64 + 1);
        }
    }
}
