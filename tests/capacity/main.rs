//! The plan for large clusters, by simulation: how long chunks get, how busy the scheduler is, how much is on its way, and what
//! part of the slots' time goes into items. `cargo test --test capacity -- --nocapture` prints the table of docs/clusters.md.
#![cfg(target_os = "linux")]

mod simulation;

use simulation::{Outcome, Plan, run};

/// Ten minutes of work for all slots, in items of 0.1 s and 64 bytes, on an engine with these costs.
fn ten_minutes(slots: usize, slot_cost: f64, least: f64) -> Plan {
    let (item, item_bytes) = (0.1, 64);
    Plan { slots, slot_cost, least, credit: 1 << 30, item, item_bytes, n_items: slots * 6000 }
}

/// With the costs that `dask_engine.py` and `ray_engine.py` report.
fn dask(slots: usize) -> Plan {
    ten_minutes(slots, 0.001, 0.5)
}

fn ray(slots: usize) -> Plan {
    ten_minutes(slots, 0.0002, 0.5)
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
            let outcome = print(name, &plan(slots));
            assert!(outcome.slots > if slots > 1_000 { 0.85 } else { 0.95 }, "{outcome:?}");
            assert!(outcome.scheduler < 0.35, "{outcome:?}");
        }
    }
}

#[test]
fn what_is_on_its_way_stays_within_the_credit() {
    for slots in SIZES {
        // Two items for each of 10,000 slots would be 2 GiB.
        let plan = Plan { item: 10.0, item_bytes: 100 << 10, n_items: slots * 20, ..dask(slots) };
        let outcome = run(&plan);
        assert!(outcome.bytes <= plan.credit, "{outcome:?}");
        assert!(slots < 10_000 || outcome.bytes > plan.credit / 10 * 9, "it does not bind: {outcome:?}");
        assert!(slots < 10_000 || outcome.slots > 0.85, "{outcome:?}");
    }
}

#[test]
fn items_of_any_length_keep_slots_busy() {
    for item in [0.001, 0.01, 1.0, 10.0] {
        let n_items = (600.0 * 100.0 / item) as usize;
        let outcome = print("dask", &Plan { item, n_items, ..dask(100) });
        assert!(outcome.slots > 0.9, "{outcome:?}");
    }
}
