//! Lending a call that lies on its caller's stack to pool threads, and getting it back.
//!
//! The caller makes an [`Errand`] and posts its address into the mailboxes of idle threads; for threads that become idle
//! later it leaves it on the board. It works itself, then takes back what nobody began and waits for those who did. Only
//! [`lend`] hands the address out, and it does not return before nobody has it: that is why threads may follow it.
//!
//! **A mailbox** is one word. Its owner alone moves it from BUSY to IDLE, and between IDLE and ASLEEP. A caller moves IDLE or
//! ASLEEP to its errand (Release: what the errand shows is written before), and takes it back by moving the errand to what was
//! there. The owner begins an errand by moving it to BUSY (Acquire). All but the first are compare-and-swap on the
//! same word, so of the caller who takes back and the owner who begins one wins, and both know who. The same address
//! posted again later is an errand in force: who finds it there may begin it, whenever he first looked.
//! Each loan posts once to a mailbox at most: whoever the errand cannot be taken back from has begun it once.
//!
//! **The join.** Each thread that began adds 1 to `left` when it is done with the errand (Release), and never touches it
//! after; the caller knows how many began and reads `left` until all have left (Acquire): their results are complete. Before
//! the caller parks it says so, by moving `left` on by `PARKED - began`: so the one who makes it PARKED is the last,
//! and unparks the caller by a handle that it took before. No wake-up is lost: either the last thread left before that
//! move, and the caller sees PARKED as its result, or it sees the move, and unparks.

use super::board::Board;
use super::slots::Slots;
use super::spin;
use crate::sync::{AtomicU32, AtomicUsize, Ordering, Thread, current, fence, park};
use crate::trace::{self, What};
use std::sync::OnceLock;
use std::sync::atomic::AtomicPtr;

/// The owner works, looks around, or is not there.
const BUSY: usize = 0;
/// The owner is awake and waits.
const IDLE: usize = 2;
/// The owner is parked, or about to park: who changes the word unparks it.
const ASLEEP: usize = 4;
/// There is something on the board.
const LOOK: usize = 6;
/// A bit beside an errand's address: the owner was asleep.
const SLEPT: usize = 1;

/// In `left`: the caller waits parked.
const PARKED: u32 = 1 << 31;

/// What a caller lends, without the work itself, which lies behind it.
#[repr(C)]
pub(super) struct Errand {
    /// Does the work of the loan that begins with this errand, as the thread of a slot.
    run: unsafe fn(*const Errand, usize),
    left: AtomicU32,
    /// The next slot to look at for one that was posted to while asleep.
    next_wake: AtomicUsize,
    asleep: AtomicUsize,
    caller: OnceLock<Thread>,
}

/// An errand with its work, in one line of the cache if the work's own things are few; aligned, so that an address is none of
/// the words above.
#[repr(C, align(64))]
struct Lent<W> {
    errand: Errand,
    work: W,
}

impl<W: Fn(usize) + Sync> Lent<W> {
    fn new(work: W) -> Self {
        let errand = Errand {
            run: Self::run,
            left: AtomicU32::new(0),
            next_wake: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            caller: OnceLock::new(),
        };
        Lent { errand, work }
    }

    /// # Safety
    /// `errand` is that of a `Lent<W>`, which stays as it is meanwhile.
    unsafe fn run(errand: *const Errand, number: usize) {
        // SAFETY: as the caller promised; the errand comes first.
        let lent = unsafe { &*errand.cast::<Self>() };
        (lent.work)(number);
    }
}

impl Errand {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// The thread that calls is done with the errand.
    fn leave(&self) {
        let mut seen = self.left.load(Ordering::Acquire);
        loop {
            // Taken before leaving: afterwards the errand may be gone.
            let last = seen == PARKED - 1;
            let caller = if last { self.caller.get().cloned() } else { None };
            match self.left.compare_exchange_weak(seen, seen + 1, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return caller.iter().for_each(Thread::unpark),
                Err(now) => seen = now,
            }
        }
    }

    /// Waits until as many have left as `began`; false if they never will, because this process is a fork.
    fn wait(&self, began: u32, abandoned: &dyn Fn() -> bool) -> bool {
        if spin::wait_for_a_chunk(|| self.left.load(Ordering::Acquire) == began) {
            return true;
        }
        if abandoned() {
            return false;
        }
        let _ = self.caller.set(current());
        // Release: who sees that the caller waits sees its handle.
        let all = self.left.fetch_add(PARKED - began, Ordering::AcqRel) == began;
        while !all && self.left.load(Ordering::Acquire) != PARKED {
            if abandoned() {
                return false;
            }
            park();
        }
        true
    }

    /// Wakes two of the threads that were posted to while they slept. The caller does, and each of them in turn: so many
    /// wake in the time of a few.
    fn wake_two(&self, slots: &Slots) {
        if self.asleep.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut woken = 0;
        while woken < 2 {
            let number = self.next_wake.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = slots.get(number) else { return };
            if slot.mail.word.load(Ordering::Relaxed) == self.address() | SLEPT {
                slot.unpark();
                woken += 1;
            }
        }
    }
}

/// An errand in the hands of a thread that has begun it. Dropping it leaves.
pub(super) struct Visit(*const Errand);

impl Visit {
    /// # Safety
    /// `address` is an errand's whose caller counts this visit among those that began.
    unsafe fn begin(address: usize) -> Visit {
        Visit(std::ptr::with_exposed_provenance(address))
    }

    fn errand(&self) -> &Errand {
        // SAFETY: the caller of `lend` waits until this visit has left, and until then the errand lies on its stack.
        unsafe { &*self.0 }
    }

    /// Does the work as the thread of slot `number`.
    pub(super) fn run(self, number: usize, slots: &Slots) {
        self.errand().wake_two(slots);
        // SAFETY: `lend` made the errand with its work, and keeps it until this visit has left.
        unsafe { (self.errand().run)(self.0, number) }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.errand().leave();
    }
}

/// What a thread found in its mailbox.
pub(super) enum Mail {
    /// It is still idle, and awake.
    Idle,
    /// It may park: who changes the word unparks it.
    Asleep,
    /// An errand, which it has begun.
    Visit(Visit),
    /// There is something on the board.
    Look,
}

/// Where a caller leaves an errand for one thread.
pub(super) struct Mailbox {
    word: AtomicUsize,
}

impl Mailbox {
    pub(super) fn new() -> Self {
        Mailbox { word: AtomicUsize::new(BUSY) }
    }

    /// The owner has nothing to do. It has to look at the board after this: who puts something there looks for idle
    /// threads after it (both fence in between), so one of the two sees the other.
    pub(super) fn become_idle(&self) {
        self.word.store(IDLE, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The owner, idle, will park, unless there is mail. As after [`Mailbox::become_idle`], it has to look at the board.
    pub(super) fn fall_asleep(&self) {
        let _ = self.word.compare_exchange(IDLE, ASLEEP, Ordering::Release, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The owner, asleep, will not park after all, unless there is mail. It has to look at the board, as before: who found
    /// the word between two states may have counted on nobody here.
    pub(super) fn wake_up(&self) {
        let _ = self.word.compare_exchange(ASLEEP, IDLE, Ordering::Release, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether the owner is parked, or about to park.
    pub(super) fn is_asleep(&self) -> bool {
        self.word.load(Ordering::Relaxed) == ASLEEP
    }

    /// The owner has something else to do; false if there is mail, which it has to take first.
    pub(super) fn become_busy(&self) -> bool {
        let busy =
            |from| self.word.compare_exchange(from, BUSY, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        busy(IDLE) || busy(ASLEEP)
    }

    /// Whether a caller could post here, without waking anybody.
    pub(super) fn is_idle(&self) -> bool {
        self.word.load(Ordering::Relaxed) == IDLE
    }

    /// The owner looks.
    pub(super) fn take(&self) -> Mail {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            match word {
                IDLE => return Mail::Idle,
                ASLEEP => return Mail::Asleep,
                // Nobody but the owner changes these two.
                BUSY | LOOK => {
                    self.word.store(BUSY, Ordering::Relaxed);
                    return Mail::Look;
                }
                errand => {
                    match self.word.compare_exchange(errand, BUSY, Ordering::Acquire, Ordering::Relaxed) {
                        // SAFETY: posted by `lend`, which counts a mailbox whose errand it cannot take back.
                        Ok(_) => return Mail::Visit(unsafe { Visit::begin(errand & !SLEPT) }),
                        Err(now) => word = now,
                    }
                }
            }
        }
    }

    /// Asks an idle owner to look at the board. None if it is not idle; else whether it has to be unparked.
    pub(super) fn ask_to_look(&self) -> Option<bool> {
        let ask = |from| self.word.compare_exchange(from, LOOK, Ordering::Release, Ordering::Relaxed).is_ok();
        if ask(IDLE) { Some(false) } else { ask(ASLEEP).then_some(true) }
    }

    fn post(&self, errand: &Errand, from: usize) -> bool {
        let word = errand.address() | if from == ASLEEP { SLEPT } else { 0 };
        self.word.load(Ordering::Relaxed) == from
            && self.word.compare_exchange(from, word, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Takes an errand back; false if the owner has begun it.
    fn take_back(&self, errand: &Errand) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        let before = if word & SLEPT == 0 { IDLE } else { ASLEEP };
        word & !SLEPT == errand.address()
            && self.word.compare_exchange(word, before, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// An errand on the board, for threads that become idle after it was lent.
pub(super) struct Late {
    address: usize,
    places: usize,
    began: u32,
}

impl Late {
    /// Begins a visit if a place is left. Under the board's lock, as is the caller's taking it down
    /// ([`Board::take_down`]): who began is counted.
    pub(super) fn begin(&mut self) -> Option<Visit> {
        self.places = self.places.checked_sub(1)?;
        self.began += 1;
        // SAFETY: `lend` takes this down before it counts who began.
        Some(unsafe { Visit::begin(self.address) })
    }

    pub(super) fn places(&self) -> usize {
        self.places
    }
}

/// Who took part in a call besides its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visits {
    /// Nobody: the caller did everything.
    None,
    /// Pool threads, and all have left.
    Some,
    /// Pool threads, who will not leave: this is a forked child.
    Abandoned,
}

/// What a loan needs of its pool.
pub(super) trait Lender {
    fn slots(&self) -> &Slots;
    fn board(&self) -> &Board;
    /// The slot to ask first; the others follow in the order of their numbers, and around.
    fn first_slot(&self) -> usize;
    /// As many threads more are wanted: they will look at the board.
    fn want_threads(&self, count: usize);
    /// Whether this process has been forked since the loan began.
    fn forks(&self) -> u32;
}

/// Lends `work` to up to `places` threads while `body` runs. Each thread runs it once, with its slot's number.
pub(super) fn lend<P: Lender>(
    pool: &P,
    places: usize,
    work: impl Fn(usize) + Sync,
    body: impl FnOnce(),
) -> Visits {
    let lent = Lent::new(work);
    // With the provenance of all of it.
    std::ptr::from_ref(&lent).expose_provenance();
    let mut loan = Loan {
        pool,
        errand: &lent.errand,
        posted: Default::default(),
        late: false,
        forks: pool.forks(),
        open: true,
    };
    loan.post(places);
    body();
    loan.close()
}

struct Loan<'a, P: Lender> {
    pool: &'a P,
    errand: &'a Errand,
    /// A bit for each slot that it was posted to.
    posted: [u64; Slots::MAX / 64],
    /// Whether it is on the board.
    late: bool,
    forks: u32,
    open: bool,
}

impl<P: Lender> Loan<'_, P> {
    fn post(&mut self, places: usize) {
        let mut missing = places;
        self.post_to(IDLE, &mut missing);
        if missing > 0 {
            let before = missing;
            self.post_to(ASLEEP, &mut missing);
            self.errand.asleep.store(before - missing, Ordering::Relaxed);
            self.errand.wake_two(self.pool.slots());
        }
        if missing > 0 {
            self.late = true;
            self.pool.board().put(Late { address: self.errand.address(), places: missing, began: 0 });
            self.pool.want_threads(missing);
        }
    }

    fn post_to(&mut self, from: usize, missing: &mut usize) {
        let slots = self.pool.slots();
        for number in slots.numbers_from(self.pool.first_slot()) {
            if *missing == 0 {
                return;
            }
            let (word, bit) = (number / 64, 1 << (number % 64));
            // Who has been there meanwhile, and is idle again, is not asked twice: a bit counts one visit.
            let is_new = self.posted[word] & bit == 0;
            if is_new && slots.get(number).is_some_and(|slot| slot.mail.post(self.errand, from)) {
                self.posted[word] |= bit;
                *missing -= 1;
            }
        }
    }

    fn close(&mut self) -> Visits {
        self.open = false;
        let abandoned = || self.pool.forks() != self.forks;
        if abandoned() {
            // The pool's locks may be held by threads that do not exist here.
            return Visits::Abandoned;
        }
        let mut began = 0;
        for (word, bits) in self.posted.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let number = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let slot = self.pool.slots().get(number);
                began += u32::from(slot.is_some_and(|slot| !slot.mail.take_back(self.errand)));
            }
        }
        if self.late {
            let address = self.errand.address();
            began += self.pool.board().take_down(|late| late.address == address).map_or(0, |late| late.began);
        }
        let _timeline = (began > 0).then(|| trace::span(|| What::Join));
        match began {
            0 => Visits::None,
            _ if self.errand.wait(began, &abandoned) => Visits::Some,
            _ => Visits::Abandoned,
        }
    }
}

/// Should the caller unwind, no thread may keep an errand whose stack is taken down.
impl<P: Lender> Drop for Loan<'_, P> {
    fn drop(&mut self) {
        if self.open {
            self.close();
        }
    }
}

/// One value for the whole process, made when first needed, never freed.
pub(super) struct Leaked<T>(AtomicPtr<T>);

impl<T: Sync + 'static> Leaked<T> {
    pub(super) const fn new() -> Self {
        Leaked(AtomicPtr::new(std::ptr::null_mut()))
    }

    pub(super) fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or from `Box::into_raw` below, and never freed. Acquire: what the maker wrote is visible.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    pub(super) fn get_or_make(&self, make: impl FnOnce() -> T) -> &'static T {
        if let Some(there) = self.get() {
            return there;
        }
        let made = Box::into_raw(Box::new(make()));
        match self.0.compare_exchange(std::ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: from `Box::into_raw`, and leaked.
            Ok(_) => unsafe { &*made },
            Err(others) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: as in `get`.
                unsafe { &*others }
            }
        }
    }

    /// In a forked child: the value belongs to threads that are not here.
    pub(super) fn forget(&self) {
        self.0.store(std::ptr::null_mut(), Ordering::Release);
    }
}
