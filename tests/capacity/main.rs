//! The plan for large clusters, by simulation: how long chunks get, how busy the scheduler is, how much is on its way, and what
//! part of the slots' time goes into items.
//! `PB_CAPACITY_SECONDS=600 cargo test --release --test capacity -- --nocapture` is what docs/clusters.md quotes.
#![cfg(target_os = "linux")]

mod simulation;

use simulation::{Outcome, Plan, run};

/// Seconds of work for all slots: three minutes, or PB_CAPACITY_SECONDS.
fn work() -> usize {
    std::env::var("PB_CAPACITY_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(180)
}

/// That work in items of 0.1 s and 1 KiB, on an engine with these costs.
fn for_a_while(slots: usize, slot_cost: f64, least: f64) -> Plan {
    let (item, item_bytes) = (0.1, 1024);
    Plan { slots, slot_cost, least, credit: 64 << 20, item, item_bytes, n_items: slots * work() * 10 }
}

fn dask(slots: usize) -> Plan {
    for_a_while(slots, 0.0005, 0.2)
}

fn ray(slots: usize) -> Plan {
    for_a_while(slots, 0.00012, 0.05)
}

fn print(name: &str, plan: &Plan) -> Outcome {
    let outcome = run(plan);
    println!(
        "| {name} | {} | {:.3} s | {:.1} s | {} | {:.0} % | {:.0} MiB | {:.0} % |",
        plan.slots,
        plan.item,
        outcome.median,
        outcome.chunks,
        100.0 * outcome.scheduler,
        outcome.bytes as f64 / f64::from(1 << 20),
        100.0 * outcome.slots
    );
    outcome
}

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

#[test]
fn slots_are_busy_from_ten_to_ten_thousand() {
    println!("| engine | slots | item | chunk | chunks | scheduler busy | on their way | slots busy |");
    println!("|---|---|---|---|---|---|---|---|");
    for (name, plan) in [("dask", dask as fn(usize) -> Plan), ("ray", ray)] {
        for slots in SIZES {
            // Ten thousand slots need more credit for two chunks each.
            let plan = Plan { credit: 1 << 33, ..plan(slots) };
            let outcome = print(name, &plan);
            assert!(outcome.slots > if slots > 1_000 { 0.85 } else { 0.95 }, "{outcome:?}");
            // A fifth, and the first and the last chunks, which are shorter.
            assert!(outcome.scheduler < 0.45, "{outcome:?}");
        }
    }
}

#[test]
fn what_is_on_its_way_stays_within_the_credit() {
    for slots in SIZES {
        let plan = dask(slots);
        let outcome = run(&plan);
        assert!(outcome.bytes <= plan.credit, "{outcome:?}");
    }
}

#[test]
fn items_of_any_length_keep_slots_busy() {
    for item in [0.001, 0.01, 1.0, 10.0] {
        let n_items = (work() as f64 * 100.0 / item) as usize;
        let outcome = print("dask", &Plan { item, n_items, ..dask(100) });
        assert!(outcome.slots > 0.9, "{outcome:?}");
    }
}
