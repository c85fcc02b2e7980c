//! The loop over the items of a chunk: what each of them costs beside its function.

use super::near::{AT_ONCE, Near};
use std::cell::Cell;
use std::ffi::c_void;
use std::mem::transmute;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

/// A caller's function.
pub(super) type Call = unsafe extern "C-unwind" fn(*mut c_void, usize, *const c_void, *mut c_void) -> i32;

/// What a loop calls in place of the function once it is to end.
extern "C-unwind" fn no_more(_: *mut c_void, _: usize, _: *const c_void, _: *mut c_void) -> i32 {
    1
}

/// What the next item of a loop calls: the function, or [`no_more`]. To read what to call costs a loop less than to ask before each
/// item whether it is to end.
///
/// Any thread may end the loops, also while items run; a loop that reads too early what to call runs one item more, as if that had
/// begun before. Who lets loops run again has the job alone. Nothing else is told by this word, so it is Relaxed: why a loop
/// has ended is in the job's flags, and a worker that does not see them yet goes on one item at a time.
#[repr(transparent)]
pub(super) struct Next(AtomicPtr<c_void>);

impl Next {
    pub(super) fn new(call: Call) -> Self {
        Next(AtomicPtr::new(call as *mut c_void))
    }

    /// Loops end before their next item.
    pub(super) fn halt(&self) {
        // All workers read this line for each item: it is written once.
        if self.0.load(Ordering::Relaxed) != no_more as Call as *mut c_void {
            self.set(no_more);
        }
    }

    pub(super) fn set(&self, call: Call) {
        self.0.store(call as *mut c_void, Ordering::Relaxed);
    }

    /// Runs an item of `call`, unless the loop is to end.
    ///
    /// # Safety
    /// The function, which is what this was made of, may be called so.
    #[inline(always)]
    unsafe fn run(
        &self,
        call: Call,
        ctx: *mut c_void,
        index: usize,
        input: *const u8,
        output: *mut u8,
    ) -> Result<(), Stopped> {
        // SAFETY: only functions of this type are ever stored.
        let next = unsafe { transmute::<*mut c_void, Call>(self.0.load(Ordering::Relaxed)) };
        // SAFETY: the caller promised that for the one function, and the other looks at nothing.
        let code = unsafe { next(ctx, index, input.cast(), output.cast()) };
        Stopped::unless_done(code, next as usize, call)
    }
}

/// An item that did not succeed: with its code, or because it was not run.
pub(super) struct Stopped(Option<i32>);

impl Stopped {
    /// What `called` returned, in place of `call` or not. (The other function may have several addresses.)
    #[inline(always)]
    pub(super) fn unless_done(code: i32, called: usize, call: Call) -> Result<(), Stopped> {
        match code {
            0 => Ok(()),
            code => Err(Stopped((called == call as usize).then_some(code))),
        }
    }
}

/// The items from `at` to `end`, and where the elements of the first of them lie.
#[repr(C)]
pub(super) struct Walk {
    pub next: *const Next,
    /// The item that runs, or the one that did not succeed.
    pub at: Cell<usize>,
    pub ctx: *mut c_void,
    pub end: usize,
    /// NULL, with steps of 0, where there is no array.
    pub input: *const u8,
    pub output: *mut u8,
    pub input_step: usize,
    pub output_step: usize,
}

impl Walk {
    /// Runs items until one does not succeed: its code, if it has one.
    ///
    /// # Safety
    /// `call` may be called for each of them, from this thread; `next`, which is made of it, outlives the walk.
    pub(super) unsafe fn run(&mut self, call: Call) -> Option<i32> {
        // SAFETY: as the caller promised.
        let ran = unsafe { self.run_near(call).and_then(|()| self.run_here(call)) };
        ran.err().and_then(|Stopped(code)| code)
    }

    /// Runs them where that is quicker, but for the last few.
    ///
    /// # Safety
    /// As above.
    unsafe fn run_near(&mut self, call: Call) -> Result<(), Stopped> {
        let items = self.end - self.at.get();
        let Some(near) = Near::to(call, items) else { return Ok(()) };
        let most = items - items % AT_ONCE;
        let end = std::mem::replace(&mut self.end, self.at.get() + most);
        // SAFETY: as the caller promised.
        let ran = unsafe { near.run(self, call) };
        self.end = end;
        self.input = self.input.wrapping_add(most * self.input_step);
        self.output = self.output.wrapping_add(most * self.output_step);
        ran
    }

    /// # Safety
    /// As above.
    unsafe fn run_here(&mut self, call: Call) -> Result<(), Stopped> {
        // SAFETY: as the caller promised.
        unsafe {
            if self.input.is_null() && self.output.is_null() {
                self.run_bare(call)
            } else {
                self.run_elements(call)
            }
        }
    }

    /// Without arrays.
    ///
    /// # Safety
    /// As above.
    #[inline(never)]
    unsafe fn run_bare(&self, call: Call) -> Result<(), Stopped> {
        // SAFETY: as the caller promised.
        let (next, ctx) = (unsafe { &*self.next }, self.ctx);
        // SAFETY: as the caller promised.
        each(self.end, &self.at, |index| unsafe { next.run(call, ctx, index, null(), null_mut()) })
    }

    /// With one or two.
    ///
    /// # Safety
    /// As above.
    #[inline(never)]
    unsafe fn run_elements(&self, call: Call) -> Result<(), Stopped> {
        // SAFETY: as the caller promised.
        let next = unsafe { &*self.next };
        let Walk { ctx, mut input, mut output, input_step, output_step, .. } = *self;
        each(self.end, &self.at, |index| {
            // SAFETY: as the caller promised.
            unsafe { next.run(call, ctx, index, input, output) }?;
            input = input.wrapping_add(input_step);
            output = output.wrapping_add(output_step);
            Ok(())
        })
    }
}

/// Runs the items from `at` to `end` until one does not succeed, where `at` is then. [`AT_ONCE`] share a jump back.
#[inline(always)]
fn each(
    end: usize,
    at: &Cell<usize>,
    mut run: impl FnMut(usize) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let mut index = at.get();
    let mut one = |index| {
        at.set(index);
        run(index)
    };
    while end - index >= AT_ONCE {
        for ahead in 0..AT_ONCE {
            one(index + ahead)?;
        }
        index += AT_ONCE;
    }
    (index..end).try_for_each(one)?;
    at.set(end);
    Ok(())
}
