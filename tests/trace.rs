//! A timeline from the map that is recorded to the picture that `pb-info trace` draws of it.

use parallel_backend::ffi::map::{pb_map_options, pb_parallel_map};
use parallel_backend::ffi::trace::{pb_trace_start, pb_trace_stop};
use parallel_backend::status;
use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::ptr::{null, null_mut};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const ITEMS: usize = 8;
const INNER: usize = 5;

fn work_for(duration: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < duration {}
}

fn map(
    task: unsafe extern "C-unwind" fn(*mut c_void, usize, *const c_void, *mut c_void) -> i32,
    ctx: *mut c_void,
    items: usize,
    n_jobs: i32,
) {
    let options = pb_map_options {
        struct_size: size_of::<pb_map_options>(),
        n_jobs,
        flags: 0,
        batch_size: 1,
        timeout: 0.0,
        ctx_size: 0,
        task: null(),
        statuses: null_mut(),
        progress: None,
        progress_user: null_mut(),
        retries: 0,
        reserved: 0,
        range: None,
    };
    // SAFETY: there are no arrays, and the tasks below take their ctx for what it is.
    let status = unsafe { pb_parallel_map(Some(task), ctx, items, null(), 0, null_mut(), 0, &options) };
    assert_eq!(status, 0, "{:?}", status::last());
}

#[unsafe(no_mangle)]
extern "C-unwind" fn quick_one(_: *mut c_void, _: usize, _: *const c_void, _: *mut c_void) -> i32 {
    work_for(Duration::from_micros(100));
    0
}

/// The first two items wait for each other, so that there are two threads; each item has a map of its own.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn nesting_one(
    both: *mut c_void,
    index: usize,
    _: *const c_void,
    _: *mut c_void,
) -> i32 {
    if index < 2 {
        // SAFETY: the caller below passes a barrier that outlives its map.
        unsafe { &*both.cast::<Barrier>() }.wait();
    }
    map(quick_one, null_mut(), INNER, 1);
    0
}

/// A timeline of a map with maps in it, in a file of that name.
fn record(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let c_path = CString::new(path.to_str().unwrap()).unwrap();
    let mut both = Barrier::new(2);
    // SAFETY: a text.
    assert_eq!(unsafe { pb_trace_start(c_path.as_ptr()) }, 0, "{:?}", status::last());
    map(nesting_one, (&raw mut both).cast(), ITEMS, 2);
    assert_eq!(pb_trace_stop(), 0, "{:?}", status::last());
    path
}

fn pb_info(args: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pb-info"));
    command.arg("trace").args(args).output().expect("pb-info runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The cells of the row below `title` that begins with `first`, which is no part of another row.
fn row(report: &str, title: &str, first: &str) -> Vec<String> {
    let rows = report.lines().skip_while(|line| *line != title);
    let found = rows.skip(2).find(|line| line.trim_start().starts_with(first));
    let cells = found.unwrap_or_else(|| panic!("no {first} below {title} in\n{report}")).split("  ");
    cells.map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
}

/// One test, since the process has one timeline at a time.
#[test]
fn pb_info_tells_and_draws_what_was_recorded() {
    let file = record("recorded.json");
    let picture = file.with_extension("svg");
    let output = pb_info(&[&file, Path::new("-o"), &picture]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    let report = text(&output.stdout);

    // function, backend, level, workers, maps, items, chunks, time, busy, imbalance. The test's functions are symbols of its
    // program only where the linker exports them: else they have a name of another kind.
    let maps: Vec<_> = report.lines().skip_while(|line| *line != "Maps").skip(2).collect();
    assert_eq!(maps.len(), 2, "{report}");
    let whole: Vec<Vec<_>> = maps.iter().map(|line| line.split_whitespace().collect()).collect();
    let outer = whole.iter().find(|cells| cells[4] == "1").unwrap_or_else(|| panic!("{report}"));
    let inner = whole.iter().find(|cells| cells[4] == "8").unwrap_or_else(|| panic!("{report}"));
    assert_eq!(outer[1..7], ["threading", "1", "2", "1", "8", "8"]);
    assert_eq!(inner[2..6], ["1", "1", "8", "40"]);
    let imbalance: f64 = outer.last().unwrap().parse().unwrap();
    assert!((1.0..=2.0).contains(&imbalance), "{report}");

    assert_eq!(row(&report, "Threads", "pb-0")[0], "pb-0");
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    for item in 0..ITEMS {
        assert!(svg.contains(&format!("items {item} to {} in ", item + 1)), "item {item} is not drawn");
    }
}

#[test]
fn a_file_that_is_no_timeline_is_told_on_standard_error() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (wrong, picture) = (folder.join("wrong.json"), folder.join("wrong.svg"));
    for (content, why) in
        [("", "is empty"), ("[1, 2", "is not a timeline"), ("{\"traceEvents\":[]}", "no map")]
    {
        std::fs::write(&wrong, content).unwrap();
        let output = pb_info(&[&wrong, Path::new("-o"), &picture]);
        assert_eq!(output.status.code(), Some(1));
        let told = text(&output.stderr);
        assert!(told.contains("wrong.json") && told.contains(why), "{told}");
        assert!(output.stdout.is_empty() && !picture.exists());
    }
    let output = pb_info(&[Path::new("no-such-file.json")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot read no-such-file.json"));
}
