//! A caller's reduction, as the job runs it: each item of the job is a block of the caller's items.
//!
//! Blocks are cut by `n_items` and `batch_size` alone. Each folds its items into a partial result that starts as a copy of
//! the identity; two neighbours are combined, the left with the right, in a binary tree over the blocks' numbers: blocks 0
//! and 1, 2 and 3, then their results, and so on, where a last one without neighbour goes up as it is. Who does what, and
//! when, changes neither the cuts nor the tree, so the result has the same bits for any number of workers on any backend.
//!
//! A worker combines what it has itself folded as soon as both halves are there, and leaves the rest where the tree meets
//! that of others: whoever comes second to a node takes what the first one left there, and goes on from it. So no more
//! partial results are alive than workers times the tree's height, each in cache lines of its own.

use super::task::{THREW, contain};
use crate::context;
use crate::job::{self, Chunk, Task};
use crate::status::{Error, Result, Status};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most blocks that are made where the caller does not say: enough to balance on dozens of workers, and few enough that
/// folding and combining them is cheap beside a loop that is worth while at all.
const MOST_BLOCKS: usize = 256;

pub(super) type Fold =
    unsafe extern "C-unwind" fn(*mut c_void, usize, usize, *const c_void, *mut c_void) -> i32;
pub(super) type Combine = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, *const c_void) -> i32;

/// How the items are cut: into `count` blocks of `size` items, one more in each of the first `longer` blocks, and fewer in
/// the last where the items run out.
#[derive(Clone, Copy)]
pub(super) struct Cuts {
    n_items: usize,
    count: usize,
    size: usize,
    longer: usize,
}

impl Cuts {
    pub(super) fn new(n_items: usize, batch_size: usize) -> Self {
        if batch_size > 0 {
            return Cuts { n_items, count: n_items.div_ceil(batch_size), size: batch_size, longer: 0 };
        }
        let count = n_items.min(MOST_BLOCKS);
        let divisor = count.max(1);
        Cuts { n_items, count, size: n_items / divisor, longer: n_items % divisor }
    }

    /// How many blocks there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Where a block begins; the number of blocks is where the last one ends.
    fn begin(&self, block: usize) -> usize {
        block.saturating_mul(self.size).saturating_add(block.min(self.longer)).min(self.n_items)
    }
}

/// A partial result lies on whole cache lines, and on whole pairs of them where the hardware fetches two.
#[derive(Clone, Copy)]
#[repr(C, align(128))]
struct Line([u8; 128]);

/// A partial result. As aligned as any type that is not larger than a line.
struct Partial(Vec<Line>);

impl Partial {
    fn with_room(lines: usize) -> Result<Vec<Line>> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(lines).map_err(|_| {
            let bytes = lines.saturating_mul(size_of::<Line>());
            Error::new(Status::ERR_OUT_OF_MEMORY, format!("no memory for a partial result of {bytes} bytes"))
        })?;
        Ok(memory)
    }

    /// # Safety
    /// `result` is readable over `size` bytes.
    unsafe fn copy_in(result: *const u8, size: usize) -> Result<Self> {
        let lines = size.div_ceil(size_of::<Line>());
        let mut memory = Partial::with_room(lines)?;
        memory.resize(lines, Line([0; 128]));
        // SAFETY: the caller promised `size` readable bytes, and the lines have as many.
        unsafe { std::ptr::copy_nonoverlapping(result, memory.as_mut_ptr().cast::<u8>(), size) };
        Ok(Partial(memory))
    }

    /// A copy, in the memory of another result of the same size if there is one.
    fn copy_to(&self, spare: Option<Partial>) -> Result<Self> {
        if let Some(mut spare) = spare {
            spare.0.copy_from_slice(&self.0);
            return Ok(spare);
        }
        let mut memory = Partial::with_room(self.0.len())?;
        memory.extend_from_slice(&self.0);
        Ok(Partial(memory))
    }

    fn address(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }
}

/// The result of a whole subtree: of the blocks `index << level` to `(index + 1) << level`, as far as there are such.
struct Subtree {
    level: u32,
    index: usize,
    partial: Partial,
}

/// What a worker has folded and combined of the chunk that it runs, from left to right.
#[derive(Default)]
struct Folded {
    subtrees: Vec<Subtree>,
    /// Memory of results that went into others.
    spare: Vec<Partial>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The caller's functions and arrays.
pub(super) struct Functions {
    pub(super) fold: Fold,
    pub(super) combine: Combine,
    pub(super) ctx: *mut c_void,
    pub(super) inputs: *const c_void,
    pub(super) input_size: usize,
}

/// A reduction in being.
pub(super) struct CReduce {
    functions: Functions,
    cuts: Cuts,
    /// Levels above the blocks.
    height: u32,
    identity: Partial,
    /// Results that wait for their neighbour, by the level and index of the node above both.
    waiting: Mutex<BTreeMap<(u32, usize), Partial>>,
    result: Mutex<Option<Partial>>,
}

// SAFETY: the header says that the functions run on any thread and on several at once, and that ctx and inputs live until
// the call is over. A partial result is in the hands of one thread at a time, handed over under a lock.
unsafe impl Send for CReduce {}
// SAFETY: as above.
unsafe impl Sync for CReduce {}

impl CReduce {
    /// # Safety
    /// The functions and arrays are what the header asks for; `identity` is readable over `size` bytes.
    pub(super) unsafe fn new(
        functions: Functions,
        cuts: Cuts,
        identity: *const u8,
        size: usize,
    ) -> Result<Self> {
        // SAFETY: the caller promised so many bytes.
        let identity = unsafe { Partial::copy_in(identity, size) }?;
        let height = usize::BITS - cuts.count().saturating_sub(1).leading_zeros();
        Ok(CReduce { functions, cuts, height, identity, waiting: Mutex::default(), result: Mutex::default() })
    }

    /// Moves the result out, if every block has run.
    ///
    /// # Safety
    /// `result` is writable over `size` bytes, as many as the identity had.
    pub(super) unsafe fn take(&self, result: *mut u8, size: usize) {
        if let Some(mut partial) = lock(&self.result).take() {
            // SAFETY: the caller promised `size` bytes, and a partial result has as many.
            unsafe { std::ptr::copy_nonoverlapping(partial.address().cast::<u8>(), result, size) };
        }
    }

    /// The items of a subtree.
    fn items(&self, level: u32, index: usize) -> Range<usize> {
        let blocks = self.cuts.count();
        self.cuts.begin(index << level)..self.cuts.begin(((index + 1) << level).min(blocks))
    }

    fn fold(&self, block: usize, spare: Option<Partial>) -> Result<Subtree, i32> {
        let mut partial = self.identity.copy_to(spare).map_err(|error| {
            if let Some((job, _)) = context::current_task() {
                job.fail(error);
            }
            THREW
        })?;
        let items = self.items(0, block);
        let Functions { fold, ctx, inputs, input_size, .. } = self.functions;
        let step = if inputs.is_null() { 0 } else { input_size };
        let inputs = inputs.wrapping_byte_add(items.start * step);
        let into = partial.address();
        // SAFETY: the caller promised that the function may be called so, from this thread too, for any of the items.
        match contain(|| unsafe { fold(ctx, items.start, items.end, inputs, into) }, THREW) {
            0 => Ok(Subtree { level: 0, index: block, partial }),
            code => Err(code),
        }
    }

    /// Combines two neighbours of which `left` is the left one. Returns their result, and the memory that is free now.
    fn combine(&self, mut left: Subtree, mut right: Partial) -> Result<(Subtree, Partial), i32> {
        let Functions { combine, ctx, .. } = self.functions;
        let (into, from) = (left.partial.address(), right.address().cast_const());
        // SAFETY: the caller promised that the function may be called so, from this thread too; both are partial results.
        let code = contain(|| unsafe { combine(ctx, into, from) }, THREW);
        if code == 0 {
            return Ok((Subtree { level: left.level + 1, index: left.index / 2, ..left }, right));
        }
        let (one, other) = (self.items(left.level, left.index), self.items(left.level, left.index + 1));
        let said = job::take_text().map_or_else(String::new, |text| format!(": {text}"));
        job::set_text(format!("when {} were combined with {}{said}", name(&one), name(&other)));
        Err(code)
    }

    /// Goes up as long as there is no neighbour to the right.
    fn rise(&self, mut subtree: Subtree) -> Subtree {
        let blocks = self.cuts.count();
        while subtree.level < self.height
            && subtree.index % 2 == 0
            && (subtree.index + 1) << subtree.level >= blocks
        {
            subtree.level += 1;
            subtree.index /= 2;
        }
        subtree
    }

    /// Folds a block and combines it with what this worker has to the left of it.
    fn add(&self, folded: &mut Folded, block: usize) -> Result<(), i32> {
        let mut subtree = self.rise(self.fold(block, folded.spare.pop())?);
        while subtree.index % 2 == 1 {
            let left = (subtree.level, subtree.index - 1);
            if folded.subtrees.last().is_none_or(|last| (last.level, last.index) != left) {
                break;
            }
            let Some(left) = folded.subtrees.pop() else { break };
            let (both, spare) = self.combine(left, subtree.partial)?;
            folded.spare.push(spare);
            subtree = self.rise(both);
        }
        folded.subtrees.push(subtree);
        Ok(())
    }

    /// Takes a result up the tree, to where its neighbour is missing yet.
    fn hand_over(&self, subtree: Subtree) -> Result<(), i32> {
        let mut subtree = self.rise(subtree);
        while subtree.level < self.height {
            let node = (subtree.level + 1, subtree.index / 2);
            let mut waiting = lock(&self.waiting);
            let Some(neighbour) = waiting.remove(&node) else {
                waiting.insert(node, subtree.partial);
                return Ok(());
            };
            drop(waiting);
            let Subtree { level, index, partial } = subtree;
            let (left, right) = if index % 2 == 0 { (partial, neighbour) } else { (neighbour, partial) };
            let (both, _) = self.combine(Subtree { level, index: index & !1, partial: left }, right)?;
            subtree = self.rise(both);
        }
        *lock(&self.result) = Some(subtree.partial);
        Ok(())
    }
}

/// What texts call some items.
fn name(items: &Range<usize>) -> String {
    match items.len() {
        1 => format!("item {}", items.start),
        _ => format!("items {} to {}", items.start, items.end.saturating_sub(1)),
    }
}

impl Task for Arc<CReduce> {
    fn site(&self) -> usize {
        // What a block takes depends on its length, too.
        self.functions.fold as usize ^ self.items(0, 0).len().checked_ilog2().unwrap_or(0) as usize
    }

    fn run(&self, index: usize) -> i32 {
        let chunk = Chunk { begin: index, end: index + 1 };
        self.run_range(chunk, &AtomicU32::new(0)).1.unwrap_or(0)
    }

    fn run_range(&self, chunk: Chunk, flags: &AtomicU32) -> (usize, Option<i32>) {
        let mut folded = Folded::default();
        let mut reached = chunk.begin;
        while reached < chunk.end && flags.load(Ordering::Relaxed) == 0 {
            if let Err(code) = self.add(&mut folded, reached) {
                return (reached, Some(code));
            }
            reached += 1;
        }
        for subtree in folded.subtrees {
            if let Err(code) = self.hand_over(subtree) {
                return (reached - 1, Some(code));
            }
        }
        (reached, None)
    }

    fn record(&self, _index: usize, _status: i32) {}

    fn name(&self, block: usize) -> (String, usize) {
        let items = self.items(0, block);
        (name(&items), items.start)
    }

    fn plural(&self) -> &'static str {
        "blocks of items"
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_item_once() {
        for n in [0, 1, 2, 255, 256, 257, 511, 1000, 1_000_003] {
            for batch in [0, 1, 7, 4096, usize::MAX] {
                let cuts = Cuts::new(n, batch);
                let mut at = 0;
                for block in 0..cuts.count() {
                    assert_eq!(cuts.begin(block), at);
                    at = cuts.begin(block + 1);
                    assert!(at > cuts.begin(block), "{n} items, batches of {batch}: block {block} is empty");
                }
                assert_eq!(at, n);
            }
        }
    }
}
