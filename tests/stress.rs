//! Many threads, random maps: every item of every map runs exactly once, or the map says why not.
//!
//! What a map does follows from its seed alone; only the order in which threads meet is left to chance. A fault names
//! the seed of its map.

use parallel_backend::ffi::context::{pb_cancelled, pb_pop_backend, pb_push_backend, pb_worker_index};
use parallel_backend::ffi::errors::*;
use parallel_backend::ffi::job::{pb_job_cancel, pb_job_free, pb_job_next, pb_job_wait};
use parallel_backend::ffi::life::pb_shutdown;
use parallel_backend::ffi::map::*;
use parallel_backend::job::Job;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const THREADS: u64 = 8;
const MAPS_PER_THREAD: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(3);
const DEPTH: u32 = 3;
const MOST_JOBS: u64 = 6;
/// What a failing item returns.
const CODE: i32 = 1000;

static FAULTS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// How many maps succeeded, failed and were cancelled.
static OUTCOMES: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// Tasks run inside the library, where a failed assertion would be caught: faults are kept for the end.
fn check(holds: bool, seed: u64, what: impl FnOnce() -> String) {
    if !holds {
        FAULTS.lock().unwrap().push(format!("map {seed:#018x}: {}", what()));
    }
}

/// splitmix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Blocking,
    Waited,
    Drained,
    Dropped,
}

/// A map with what it is to do and what it has seen.
struct Map {
    seed: u64,
    depth: u32,
    way: Way,
    n_jobs: i32,
    batch_size: usize,
    flags: u32,
    timeout: f64,
    /// This item fails.
    bad: Option<usize>,
    /// This item cancels the job.
    cancels: Option<usize>,
    calls: Vec<AtomicU32>,
    statuses: Vec<AtomicI32>,
    running: AtomicI32,
    seats: [AtomicBool; MOST_JOBS as usize],
    job: AtomicPtr<Job>,
    /// Whether a map around this one had stopped when this one ended.
    around: bool,
}

impl Map {
    fn new(seed: u64, depth: u32) -> Self {
        let mut random = Random(seed);
        let n = match depth {
            DEPTH => random.of(&[0, 1, 2, 3, 10, 64, 517, 2000]),
            _ => random.of(&[1, 2, 5, 17]),
        };
        let way = random.of(&[Way::Blocking, Way::Blocking, Way::Waited, Way::Drained, Way::Dropped]);
        let mut flag = |flag| if random.one_in(3) { flag } else { 0 };
        let flags = flag(PB_COLLECT_ERRORS) | flag(PB_UNORDERED) | flag(PB_PREFER_THREADS);
        let item = |random: &mut Random| (n > 0 && random.one_in(4)).then(|| random.below(n as u64) as usize);
        Map {
            seed,
            depth,
            way,
            n_jobs: 1 + random.below(MOST_JOBS) as i32,
            batch_size: random.of(&[0, 0, 1, 3, 50]),
            flags,
            timeout: random.of(&[0.0, 0.0, 1000.0]),
            bad: item(&mut random),
            cancels: item(&mut random).filter(|_| way != Way::Blocking),
            calls: (0..n).map(|_| AtomicU32::new(0)).collect(),
            statuses: (0..n).map(|_| AtomicI32::new(77)).collect(),
            running: AtomicI32::new(0),
            seats: Default::default(),
            job: AtomicPtr::new(null_mut()),
            around: false,
        }
    }

    fn collects(&self) -> bool {
        self.flags & PB_COLLECT_ERRORS != 0
    }

    /// The item's own part; the library runs nothing else of this map.
    fn item(&self, index: usize) -> i32 {
        let seed = self.seed;
        let earlier = self.calls[index].fetch_add(1, SeqCst);
        check(earlier == 0, seed, || format!("item {index} ran again"));
        let running = self.running.fetch_add(1, SeqCst) + 1;
        check(running <= self.n_jobs, seed, || format!("{running} items run on {} workers", self.n_jobs));
        let me = pb_worker_index();
        let seat = usize::try_from(me).ok().and_then(|me| self.seats.get(me));
        check(seat.is_some_and(|seat| !seat.swap(true, SeqCst)), seed, || format!("worker {me} is not free"));

        let mut random = Random(self.seed ^ (index as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
        if self.cancels == Some(index) {
            let mut job = self.job.load(SeqCst);
            while job.is_null() {
                std::thread::yield_now();
                job = self.job.load(SeqCst);
            }
            // SAFETY: the job is freed by the thread that submitted it, which then waits for this item.
            unsafe { pb_job_cancel(job) };
        }
        if self.depth > 0 && random.one_in(if self.depth == DEPTH { 40 } else { 4 }) {
            run(random.next(), self.depth - 1);
        }

        if let Some(seat) = seat {
            seat.store(false, SeqCst);
        }
        self.running.fetch_sub(1, SeqCst);
        if self.bad == Some(index) { CODE } else { 0 }
    }

    fn options(&self) -> pb_map_options {
        pb_map_options {
            struct_size: size_of::<pb_map_options>(),
            n_jobs: self.n_jobs,
            flags: self.flags,
            batch_size: self.batch_size,
            timeout: self.timeout,
            ctx_size: 0,
            task: null(),
            statuses: self.statuses.as_ptr().cast_mut().cast(),
            progress: None,
            progress_user: null_mut(),
            retries: 0,
            reserved: 0,
            range: None,
        }
    }

    fn ctx(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    fn run_blocking(&self) -> i32 {
        let n = self.calls.len();
        // SAFETY: `task` takes a Map, this one lives until the call returns, and its statuses have an entry for each item.
        unsafe { pb_parallel_map(Some(task), self.ctx(), n, null(), 0, null_mut(), 0, &self.options()) }
    }

    fn run_submitted(&self) -> i32 {
        let n = self.calls.len();
        let mut job = null_mut();
        let options = self.options();
        // SAFETY: as above; `pb_job_free` below waits until the job is over.
        let submitted =
            unsafe { pb_submit_map(Some(task), self.ctx(), n, null(), 0, null_mut(), 0, &options, &mut job) };
        check(submitted == PB_OK, self.seed, || format!("it was not submitted: {submitted}"));
        self.job.store(job, SeqCst);
        let most = if self.way == Way::Dropped { n / 2 } else { n };
        if self.way != Way::Waited {
            self.take(job, most);
        }
        // SAFETY: the job is freed below.
        let wait = || unsafe { pb_job_wait(job, -1.0) };
        let status = if self.way == Way::Dropped { PB_ERR_CANCELLED } else { wait() };
        // SAFETY: the job is not used any more after this.
        unsafe { pb_job_free(job) };
        status
    }

    /// Takes up to `most` items: each once, and finished.
    fn take(&self, job: *mut Job, most: usize) {
        let mut given = vec![false; self.calls.len()];
        for turn in 0..most {
            let mut index = usize::MAX;
            // SAFETY: the job is freed by the caller, later.
            if unsafe { pb_job_next(job, -1.0, &mut index) } != PB_OK {
                return;
            }
            let in_turn = self.flags & PB_UNORDERED != 0 || index == turn;
            check(in_turn, self.seed, || format!("item {index} came in turn {turn}"));
            let again = std::mem::replace(&mut given[index], true);
            check(!again, self.seed, || format!("item {index} came twice"));
            let ran = self.calls[index].load(SeqCst) == 1;
            check(ran, self.seed, || format!("item {index} came before it ran"));
        }
    }

    /// Every item ran once, or `status` says why not.
    fn check_end(&self, status: i32) {
        let seed = self.seed;
        let count = self.calls.iter().filter(|calls| calls.load(SeqCst) == 1).count();
        let all = count == self.calls.len();
        check(self.running.load(SeqCst) == 0, seed, || "it ended before its items".into());
        match status {
            PB_OK => check(all && self.bad.is_none(), seed, || format!("success with {count} items")),
            PB_ERR_TASK_FAILED => {
                check(self.bad.is_some(), seed, || "no item failed".into());
                check(all || !self.collects(), seed, || format!("it collected errors of {count} items only"));
            }
            PB_ERR_CANCELLED => {
                let asked = self.cancels.is_some() || self.way == Way::Dropped || self.around;
                check(asked, seed, || "nobody cancelled it".into());
            }
            other => check(false, seed, || format!("it ended with {other}")),
        }
        for (index, (calls, status)) in self.calls.iter().zip(&self.statuses).enumerate() {
            let expected = match calls.load(SeqCst) {
                0 => PB_ERR_CANCELLED,
                _ if self.bad == Some(index) => CODE,
                _ => 0,
            };
            let found = status.load(SeqCst);
            check(found == expected, seed, || format!("status {index} is {found}, not {expected}"));
        }
        let outcome = [PB_OK, PB_ERR_TASK_FAILED, PB_ERR_CANCELLED].iter().position(|s| *s == status);
        OUTCOMES[outcome.unwrap_or(0)].fetch_add(1, SeqCst);
    }
}

unsafe extern "C-unwind" fn task(ctx: *mut c_void, index: usize, _: *const c_void, _: *mut c_void) -> i32 {
    // SAFETY: every map here passes itself, and outlives its items.
    unsafe { &*ctx.cast::<Map>() }.item(index)
}

/// Runs the map of this seed, perhaps in a scope of its own, and checks how it ended.
fn run(seed: u64, depth: u32) {
    let mut random = Random(!seed);
    let backend = random.of(&[None, None, Some(c"threading"), Some(c"sequential")]);
    let mut scope = 0;
    if let Some(name) = backend {
        // SAFETY: the name is nul-terminated and `scope` writable.
        let pushed = unsafe { pb_push_backend(name.as_ptr(), 2, 0, null(), &mut scope) };
        check(pushed == PB_OK, seed, || format!("no scope: {pushed}"));
    }
    let mut map = Map::new(seed, depth);
    let status = if map.way == Way::Blocking { map.run_blocking() } else { map.run_submitted() };
    map.around = pb_cancelled() == 1;
    map.check_end(status);
    if backend.is_some() {
        let popped = pb_pop_backend(scope);
        check(popped == PB_OK, seed, || format!("the scope did not end: {popped}"));
    }
}

#[test]
fn every_item_of_every_map_runs_exactly_once_or_the_map_says_why_not() {
    let end = Instant::now() + PATIENCE;
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            threads.spawn(move || {
                let mut random = Random(thread);
                for _ in 0..MAPS_PER_THREAD {
                    if random.one_in(50) {
                        let status = pb_shutdown();
                        check(status == PB_OK, thread, || format!("no shutdown: {status}"));
                    }
                    run(random.next(), DEPTH);
                    if Instant::now() > end {
                        break;
                    }
                }
            });
        }
    });
    let faults = FAULTS.lock().unwrap();
    assert!(faults.is_empty(), "{} faults, the first: {:#?}", faults.len(), &faults[..faults.len().min(10)]);
    for outcome in &OUTCOMES {
        assert!(outcome.load(SeqCst) >= 10, "each way to end was met: {OUTCOMES:?}");
    }
}
