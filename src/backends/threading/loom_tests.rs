//! Models of the protocols of `cell`, `board.rs` and `slots.rs` together: a pool of few threads, without what starts them.
//! Loom runs all schedules up to a number of preemptions and reports a deadlock if a wake-up is lost.

use super::board::{Board, Order};
use super::cell::{self, Deal, Handed, Lender, Mail, Parcel, Visits};
use super::phases::Phases;
use super::slots::{Slots, Wakeup};
use super::spin::Spin;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::Arc;

struct Pool {
    slots: Slots,
    board: Board,
    phases: Phases,
    over: AtomicBool,
}

impl Lender for Arc<Pool> {
    fn slots(&self) -> &Slots {
        &self.slots
    }

    fn board(&self) -> &Board {
        &self.board
    }

    fn first_slot(&self) -> usize {
        0
    }

    fn want_threads(&self, count: usize) {
        self.slots.ask_idle(count);
    }

    fn forks(&self) -> u32 {
        0
    }
}

fn pool(threads: usize) -> (Arc<Pool>, Vec<loom::thread::JoinHandle<()>>) {
    let pool = Arc::new(Pool {
        slots: Slots::new(),
        board: Board::new(),
        phases: Phases::new(),
        over: AtomicBool::new(false),
    });
    (0..threads).for_each(|number| assert!(pool.slots.make(number).is_some()));
    let live = |number| {
        let pool = pool.clone();
        loom::thread::spawn(move || live(&pool, number))
    };
    let threads = (0..threads).map(live).collect();
    (pool, threads)
}

/// A pool thread.
fn live(pool: &Pool, number: usize) {
    let slot = pool.slots.get(number).unwrap();
    slot.occupy();
    let mut spin = Spin::new();
    loop {
        while let Some(order) = pool.board.take() {
            match order {
                Order::Visit(visit) => visit.run(number),
                Order::Run(run) => run(),
            }
        }
        let more = || pool.board.wants() || pool.over.load(Ordering::Acquire);
        match slot.wait(&mut spin, more, || pool.phases.keep_awake(number), || None) {
            Wakeup::Mail(Mail::Visit(visit)) => visit.run(number),
            _ if pool.over.load(Ordering::Acquire) && !pool.board.wants() => return,
            _ => {}
        }
    }
}

fn end(pool: &Arc<Pool>, threads: Vec<loom::thread::JoinHandle<()>>) {
    pool.over.store(true, Ordering::Release);
    crate::sync::fence(Ordering::SeqCst);
    pool.slots.ask_idle(threads.len());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Lends work to one thread: what that has done is seen, and nothing if it has not come.
fn lend_once(pool: &Arc<Pool>) {
    let work = AtomicUsize::new(0);
    let help = |_| work.store(work.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    let visits = cell::lend(pool, 1, &help, || {});
    assert_eq!(work.load(Ordering::Relaxed), usize::from(visits == Visits::Some));
}

/// Whoever began is waited for, and what it wrote is seen; whoever did not never begins.
#[test]
fn loom_a_loan_is_back_when_lend_returns() {
    check(3, || {
        let (pool, threads) = pool(1);
        for _ in 0..2 {
            lend_once(&pool);
        }
        end(&pool, threads);
    });
}

/// Two callers and one thread: one of the two may have to leave its errand on the board.
#[test]
fn loom_callers_share_a_thread() {
    check(2, || {
        let (pool, threads) = pool(1);
        let other = pool.clone();
        let caller = loom::thread::spawn(move || lend_once(&other));
        lend_once(&pool);
        caller.join().unwrap();
        end(&pool, threads);
    });
}

/// A thread that has been there and sleeps again gets no second errand of the same loan: who began is counted by slots.
#[test]
fn loom_more_places_than_threads() {
    check(3, || {
        let (pool, threads) = pool(1);
        let work = AtomicUsize::new(0);
        let help = |_| work.store(work.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let visits = cell::lend(&pool, 2, &help, || {});
        assert_eq!(work.load(Ordering::Relaxed) > 0, visits == Visits::Some);
        end(&pool, threads);
    });
}

/// Something that is handed over: it counts how often its part has been run, says yes in its second turn, and is given back then.
struct Part {
    turn: usize,
    ran: AtomicUsize,
}

impl Part {
    fn new(turn: usize) -> std::sync::Arc<Part> {
        std::sync::Arc::new(Part { turn, ran: AtomicUsize::new(0) })
    }
}

impl Deal for Part {
    fn run_part(&self, number: usize, own: std::sync::Arc<Part>) -> (bool, Option<std::sync::Arc<Part>>) {
        assert_eq!((number, own.turn), (self.turn + 7, self.turn));
        self.ran.store(self.ran.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        (self.turn == 1, (self.turn == 1).then_some(own))
    }
}

/// Work that is handed over is done once, by the thread or not at all, and its result is seen: twice, in the same parcel.
#[test]
fn loom_what_is_handed_over_comes_back() {
    check(3, || {
        let (pool, threads) = pool(1);
        let parcel = Parcel::new();
        for turn in 0..2 {
            let own = Part::new(turn);
            let handed = cell::hand(&pool, &parcel, own.clone(), turn + 7, || {});
            let done = matches!(handed, Handed::Done(yes) if yes == (turn == 1));
            assert!(done || matches!(handed, Handed::Nobody | Handed::Back(_)));
            drop(handed);
            assert_eq!(std::sync::Arc::strong_count(&own), 1);
            assert_eq!(own.ran.load(Ordering::Relaxed), usize::from(done));
        }
        end(&pool, threads);
    });
}

/// What nobody is awake for is lent, while another caller hands something to the same thread.
#[test]
fn loom_one_hands_over_what_another_lends() {
    check(2, || {
        let (pool, threads) = pool(1);
        let others = pool.clone();
        let caller = loom::thread::spawn(move || lend_once(&others));
        let (parcel, own) = (Parcel::new(), Part::new(1));
        let handed = cell::hand(&pool, &parcel, own.clone(), 8, || {});
        assert_eq!(own.ran.load(Ordering::Relaxed) == 1, matches!(handed, Handed::Done(true)));
        drop(handed);
        caller.join().unwrap();
        end(&pool, threads);
    });
}

/// A submitted job is begun by somebody, though the thread may fall asleep at any moment.
#[test]
fn loom_a_submitted_job_is_found() {
    check(3, || {
        let (pool, threads) = pool(1);
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let ran = ran.clone();
            pool.board.queue(Box::new(move || assert!(ran.fetch_add(1, Ordering::Relaxed) < 2)));
            pool.slots.ask_idle(1);
        }
        end(&pool, threads);
        assert_eq!(ran.load(Ordering::Relaxed), 2);
    });
}

/// A phase may begin while a thread falls asleep: it is awake then, or soon.
#[test]
fn loom_no_thread_sleeps_through_a_phase() {
    check(2, || {
        let (pool, threads) = pool(1);
        pool.phases.begin(1, 1);
        pool.slots.wake(1);
        while !pool.slots.iter().all(|slot| slot.mail.is_idle()) {
            loom::thread::yield_now();
        }
        assert!(pool.phases.end(1));
        end(&pool, threads);
    });
}

/// Calls during a phase, whose end may be seen at any moment.
#[test]
fn loom_a_loan_in_a_phase_is_back_when_lend_returns() {
    check(2, || {
        let (pool, threads) = pool(1);
        pool.phases.begin(1, 1);
        pool.slots.wake(1);
        let work = AtomicUsize::new(0);
        let help = |_| work.store(work.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let visits = cell::lend(&pool, 1, &help, || assert!(pool.phases.end(1)));
        assert_eq!(work.load(Ordering::Relaxed), usize::from(visits == Visits::Some));
        end(&pool, threads);
    });
}

/// Who has put a job on the board and can start no thread relies on one that is alive (`pool.rs`, `spawn` and `end`): it does not end
/// without it.
#[test]
fn loom_a_thread_that_is_alive_does_not_end_without_what_is_on_the_board() {
    check(3, || {
        let shared = Arc::new((Board::new(), loom::sync::Mutex::new(true), AtomicBool::new(false)));
        let thread = {
            let shared = shared.clone();
            loom::thread::spawn(move || {
                let (board, alive, _) = &*shared;
                loop {
                    while let Some(Order::Run(run)) = board.take() {
                        run();
                    }
                    let mut alive = alive.lock().unwrap();
                    if !board.wants() {
                        *alive = false;
                        return;
                    }
                }
            })
        };
        let (board, alive, ran) = &*shared;
        let own = shared.clone();
        let number = board.queue(Box::new(move || own.2.store(true, Ordering::Relaxed)));
        let relies = *alive.lock().unwrap() || board.take_back(number).is_none();
        thread.join().unwrap();
        assert_eq!(ran.load(Ordering::Relaxed), relies);
    });
}
