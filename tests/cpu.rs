//! The environment's part in the CPU count. A file, so a process, of its own: it sets variables.

use parallel_backend::cpu;

/// Sets or unsets the variable and counts.
fn counts_with(value: Option<&str>) -> (i32, i32) {
    // SAFETY: this process has one test, and while that runs no other thread touches the environment.
    unsafe {
        match value {
            Some(value) => std::env::set_var("PB_MAX_CPU_COUNT", value),
            None => std::env::remove_var("PB_MAX_CPU_COUNT"),
        }
    }
    let report = cpu::report();
    assert_eq!((report.logical, report.physical), (cpu::count(), cpu::physical_count()));
    (report.logical, report.physical)
}

// joblib: LOKY_MAX_CPU_COUNT can only lower the count.
#[test]
fn pb_max_cpu_count_only_lowers_and_is_read_at_every_call() {
    let machine = counts_with(None);
    assert!(machine.1 <= machine.0);
    assert_eq!(counts_with(Some("1")), (1, 1));
    assert_eq!(counts_with(Some("1000000")), machine);
    for ignored in ["0", "-4", "many", ""] {
        assert_eq!(counts_with(Some(ignored)), machine, "{ignored:?}");
    }
}
