//! The loop over the items of a chunk: what each of them costs beside its function.

#[cfg(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    target_os = "linux",
    target_env = "gnu"
))]
use super::near::{self, Near};
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
        self.set(no_more);
    }

    pub(super) fn set(&self, call: Call) {
        self.0.store(call as *mut c_void, Ordering::Relaxed);
    }

    /// Runs an item, unless the loop is to end.
    ///
    /// # Safety
    /// The function may be called so.
    #[inline(always)]
    unsafe fn run(
        &self,
        ctx: *mut c_void,
        index: usize,
        input: *const u8,
        output: *mut u8,
    ) -> Result<(), Stopped> {
        // SAFETY: only functions of this type are ever stored.
        let call = unsafe { transmute::<*mut c_void, Call>(self.0.load(Ordering::Relaxed)) };
        // SAFETY: the caller promised that for the one function, and the other looks at nothing.
        let code = unsafe { call(ctx, index, input.cast(), output.cast()) };
        Stopped::unless_done(code, call as usize)
    }
}

/// An item that did not succeed: with its code, or because it was not run.
pub(super) struct Stopped(Option<i32>);

impl Stopped {
    /// What `called` returned.
    #[inline(always)]
    pub(super) fn unless_done(code: i32, called: usize) -> Result<(), Stopped> {
        match code {
            0 => Ok(()),
            _ if called == no_more as Call as usize => Err(Stopped(None)),
            code => Err(Stopped(Some(code))),
        }
    }
}

/// The items from `at` to `end`, and where the elements of the first of them lie.
#[repr(C)]
pub(super) struct Walk {
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
    /// `call` may be called for each of them, from this thread; `next` has it, or is to end the loop.
    pub(super) unsafe fn run(&mut self, call: Call, next: &Next) -> Option<i32> {
        // SAFETY: as the caller promised.
        unsafe { self.run_near(call, next).and_then(|()| self.run_here(next)) }
            .err()
            .and_then(|Stopped(code)| code)
    }

    /// Runs them where that is quicker, but for the last few.
    ///
    /// # Safety
    /// As above.
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64", target_os = "linux", target_env = "gnu"))]
    unsafe fn run_near(&mut self, call: Call, next: &Next) -> Result<(), Stopped> {
        let items = self.end - self.at.get();
        let Some(near) = (items >= near::WORTH).then(|| Near::to(call, items)).flatten() else {
            return Ok(());
        };
        let most = items - items % near::AT_ONCE;
        let end = std::mem::replace(&mut self.end, self.at.get() + most);
        // SAFETY: as the caller promised.
        let ran = unsafe { near.run(next, self) };
        self.end = end;
        self.input = self.input.wrapping_add(most * self.input_step);
        self.output = self.output.wrapping_add(most * self.output_step);
        ran
    }

    /// # Safety
    /// As above.
    #[cfg(not(all(
        target_arch = "x86_64",
        target_pointer_width = "64",
        target_os = "linux",
        target_env = "gnu"
    )))]
    unsafe fn run_near(&mut self, _call: Call, _next: &Next) -> Result<(), Stopped> {
        Ok(())
    }

    /// # Safety
    /// As above.
    unsafe fn run_here(&mut self, next: &Next) -> Result<(), Stopped> {
        // SAFETY: as the caller promised.
        unsafe {
            if self.input.is_null() && self.output.is_null() {
                self.run_bare(next)
            } else {
                self.run_elements(next)
            }
        }
    }

    /// Without arrays.
    ///
    /// # Safety
    /// As above.
    #[inline(never)]
    unsafe fn run_bare(&self, next: &Next) -> Result<(), Stopped> {
        let ctx = self.ctx;
        // SAFETY: as the caller promised.
        each(self.end, &self.at, |index| unsafe { next.run(ctx, index, null(), null_mut()) })
    }

    /// With one or two.
    ///
    /// # Safety
    /// As above.
    #[inline(never)]
    unsafe fn run_elements(&self, next: &Next) -> Result<(), Stopped> {
        let Walk { ctx, mut input, mut output, input_step, output_step, .. } = *self;
        each(self.end, &self.at, |index| {
            // SAFETY: as the caller promised.
            unsafe { next.run(ctx, index, input, output) }?;
            input = input.wrapping_add(input_step);
            output = output.wrapping_add(output_step);
            Ok(())
        })
    }
}

/// Runs the items from `at` to `end` until one does not succeed, where `at` is then.
#[inline(always)]
fn each(
    end: usize,
    at: &Cell<usize>,
    mut run: impl FnMut(usize) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    // So many share a jump back.
    const AT_ONCE: usize = 8;
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
