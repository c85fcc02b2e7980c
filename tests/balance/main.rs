//! How well the scheduler balances on machines larger than those it is tested on: a simulation in virtual time.
//!
//! The claims are the library's own (`src/job/claims.rs`); what is simulated are the workers, each with a clock of its own. The
//! one whose clock is furthest behind claims next and moves its clock by the cost of the claim and of the chunk's items, as
//! if every worker had a CPU to itself. `cargo test --test balance -- --nocapture` prints the table.

// Made for the library, which uses more of them.
#[allow(dead_code)]
#[path = "../../src/job/claims.rs"]
mod claims;
mod loads;
#[allow(unused_imports)]
#[path = "../../src/sync.rs"]
mod sync;

use claims::{Chunk, Claims};
use loads::Load;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What a claim costs a worker, with the reading of the clock after it. The library measures it with the chunk.
const CLAIM_NS: u64 = 100;
const WORKERS: [usize; 6] = [2, 8, 16, 64, 128, 256];

/// What a run came to.
struct Outcome {
    /// When the last worker was through, in nanoseconds.
    makespan: u64,
    chunks: usize,
}

/// Runs a load on workers that begin at `begins`.
fn simulate(load: &Load, workers: usize, begins: impl Fn(usize) -> u64) -> Outcome {
    let claims = Claims::new(load.items(), workers, 0);
    claims.spread();
    let mut running: Vec<Option<Chunk>> = vec![None; workers];
    let mut clocks: BinaryHeap<_> = (0..workers).map(|worker| Reverse((begins(worker), worker))).collect();
    let mut outcome = Outcome { makespan: 0, chunks: 0 };
    let mut done = 0;
    while let Some(Reverse((now, worker))) = clocks.pop() {
        if let Some(chunk) = running[worker].take() {
            claims.took(chunk.end - chunk.begin, CLAIM_NS + load.cost(chunk.begin, chunk.end));
            done += chunk.end - chunk.begin;
        }
        outcome.makespan = outcome.makespan.max(now);
        let Some(chunk) = claims.next(worker, |_| {}) else { continue };
        running[worker] = Some(chunk);
        outcome.chunks += 1;
        clocks.push(Reverse((now + CLAIM_NS + load.cost(chunk.begin, chunk.end), worker)));
    }
    assert_eq!(done, load.items());
    outcome
}

/// Simulates a load on every machine: a row of the table, makespans relative to the lower bound. Adds what is too slow.
fn row(make: fn(usize) -> Load, begins: fn(usize) -> u64, too_slow: &mut Vec<String>) -> String {
    let mut row = String::new();
    for workers in WORKERS {
        let load = make(workers);
        let outcome = simulate(&load, workers, begins);
        let share = load.total() as f64 / workers as f64;
        let longest = load.longest() as f64;
        let makespan = outcome.makespan as f64;
        let ratio = makespan / share.max(longest);
        if row.is_empty() {
            row = format!("{:<26}", load.name);
        }
        row += &format!("{ratio:>8.3}");
        if ratio > load.bound {
            let (name, bound, chunks) = (load.name, load.bound, outcome.chunks);
            too_slow.push(format!("{name} on {workers} workers: {ratio:.3} > {bound}, in {chunks} chunks"));
        }
    }
    row
}

fn check_all(title: &str, begins: fn(usize) -> u64) {
    let heads = WORKERS.map(|workers| format!("{workers:>8}"));
    let mut too_slow = Vec::new();
    let rows: Vec<_> = loads::ALL.iter().map(|make| row(*make, begins, &mut too_slow)).collect();
    // One line at a time would mix with the other test's.
    println!("\n{title:<26}{}\n{}", heads.concat(), rows.join("\n"));
    assert!(too_slow.is_empty(), "too slow:\n{}", too_slow.join("\n"));
}

#[test]
fn no_worker_is_idle_for_long_while_others_work() {
    check_all("all there at once", |_| 0);
}

/// A wake goes from thread to thread: each that is awake wakes two.
#[test]
fn workers_that_come_late_find_work() {
    check_all("woken in a chain", |worker| 25_000 * u64::from((worker + 1).ilog2()));
}
