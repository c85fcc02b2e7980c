//! The program pb-info, as a user runs it.

use serde_json::Value;
use std::process::{Command, Output};

/// pb-info in an environment without variables of this library.
fn pb_info(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pb-info"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PB_")) {
        command.env_remove(name);
    }
    command.args(args);
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("pb-info runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// The report of a run that must succeed and say nothing on standard error.
fn report(command: &mut Command) -> Value {
    let output = run(command.arg("--json"));
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).expect("JSON")
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().filter_map(Value::as_str).collect()
}

/// What is wrong with a variable, as the report says it.
fn problem<'a>(report: &'a Value, variable: &str) -> Option<&'a str> {
    let set = report["environment"].as_array().expect("a list");
    let found = set.iter().find(|entry| entry["name"] == variable);
    found.unwrap_or_else(|| panic!("{variable} is not in {set:?}"))["problem"].as_str()
}

/// The pool of the OpenMP runtime that gcc brings.
fn libgomp(report: &Value) -> Option<&Value> {
    let pools = report["thread_pools"].as_array().expect("a list");
    pools.iter().find(|pool| pool["filepath"].as_str().is_some_and(|file| file.contains("libgomp")))
}

#[test]
fn the_json_has_what_its_document_names() {
    let report = report(&mut pb_info(&[]));
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["abi_version"], 1);
    let cpus = report["cpus"]["logical"].as_i64().unwrap();
    assert!(cpus >= 1 && report["cpus"]["physical"].as_i64().unwrap() <= cpus);
    assert!(texts(&report["cpus"]["reasons"]).iter().any(|reason| reason.ends_with("online")));
    assert_eq!(
        texts(&report["backends"]["available"]),
        ["dask", "loky", "multiprocessing", "ray", "sequential", "threading"]
    );
    let domains = |kind: &str| report["cpus"][kind].as_i64().unwrap();
    assert!(1 <= domains("caches") && domains("caches") <= domains("cores"));
    assert!(1 <= domains("nodes") && domains("nodes") <= domains("cores"));
    for missing in report["backends"]["unavailable"].as_array().unwrap() {
        assert!(missing["name"].is_string() && missing["reason"].is_string());
    }
    assert_eq!(report["call"]["backend"], "threading");
    assert_eq!(report["call"]["workers"], cpus);
    assert_eq!(report["environment"], Value::Array(vec![]));
}

// threadpoolctl: test_command_line_empty_or_system_openmp
#[test]
fn a_program_without_native_libraries_has_no_pools() {
    assert_eq!(report(&mut pb_info(&[]))["thread_pools"], Value::Array(vec![]));
    assert!(stdout(&run(&mut pb_info(&[]))).contains("none is loaded"));
}

// threadpoolctl: test_command_line_import_flag
#[test]
fn a_library_that_is_loaded_first_shows_its_pool() {
    let report = report(pb_info(&["--load", "libgomp.so.1"]).env("OMP_NUM_THREADS", "3"));
    let pool = libgomp(&report).expect("libgomp's pool");
    assert_eq!(
        (&pool["user_api"], &pool["internal_api"], &pool["prefix"]),
        (&Value::from("openmp"), &Value::from("openmp"), &Value::from("libgomp"))
    );
    assert_eq!((pool["num_threads"].as_i64(), pool["controllable"].as_bool()), (Some(3), Some(true)));
    let text = stdout(&run(pb_info(&["--load", "libgomp.so.1"]).env("OMP_NUM_THREADS", "3")));
    let row = text.lines().find(|line| line.contains("libgomp")).expect("a row");
    assert!(row.split_whitespace().any(|cell| cell == "3"), "{row}");
}

// threadpoolctl: test_command_line_import_flag, with a module that is not there
#[test]
fn a_library_that_cannot_be_loaded_is_named_on_standard_error() {
    for option in ["--load", "--plugin"] {
        let output = run(&mut pb_info(&["--json", option, "libno_such_thing.so"]));
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("libno_such_thing.so"), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_library_without_the_entry_point_is_no_plugin() {
    let output = run(&mut pb_info(&["--plugin", "libgomp.so.1"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("pb_plugin_init"), "{}", stderr(&output));
}

// threadpoolctl: test_command_line_command_flag, with arguments that are none
#[test]
fn a_wrong_command_line_prints_the_usage_on_standard_error() {
    for (args, what) in [(&["--josn"][..], "--josn"), (&["--load"], "--load needs a library")] {
        let output = run(&mut pb_info(args));
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(what) && stderr(&output).contains("usage: pb-info"));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for help in ["--help", "-h"] {
        let output = run(&mut pb_info(&[help]));
        assert!(output.status.success() && stdout(&output).contains("--load"));
    }
    let output = run(&mut pb_info(&["--version"]));
    assert!(output.status.success());
    assert_eq!(stdout(&output), concat!("pb-info ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_malformed_variable_is_named_with_the_error_that_a_map_would_end_with() {
    let report = report(pb_info(&[]).env("PB_N_JOBS", "0"));
    let message = problem(&report, "PB_N_JOBS").expect("a problem");
    assert!(message.contains("PB_N_JOBS is '0'"), "{message}");
    assert_eq!(report["call"]["error"]["status"], "PB_ERR_INVALID_ARGUMENT");
    assert_eq!(report["call"]["error"]["message"], message);
    let text = stdout(&run(pb_info(&[]).env("PB_N_JOBS", "0")));
    assert!(text.lines().any(|line| line.contains("PB_N_JOBS=0") && line.contains("not 0")), "{text}");
}

#[test]
fn the_variables_of_threading_are_read_and_checked() {
    let fine = [("PB_PIN", "cores"), ("PB_SPIN_US", "50"), ("PB_STACK_SIZE", "1M")];
    let report_of = |variables: &[(&str, &str)]| report(pb_info(&[]).envs(variables.iter().copied()));
    let with_all = report_of(&fine);
    assert!(fine.iter().all(|(name, _)| problem(&with_all, name).is_none()));
    assert_eq!(with_all["call"]["backend"], "threading");
    let malformed = report_of(&[("PB_PIN", "socket")]);
    let message = problem(&malformed, "PB_PIN").expect("a problem");
    assert!(message.contains("PB_PIN is 'socket': it must be cores, llc, numa or none"), "{message}");
    assert_eq!(malformed["call"]["error"]["message"], message);
}

#[test]
fn an_unknown_backend_in_the_environment_is_the_call_s_error() {
    let report = report(pb_info(&[]).env("PB_BACKEND", "threads"));
    assert_eq!(report["call"]["error"]["status"], "PB_ERR_UNKNOWN_BACKEND");
    let message = problem(&report, "PB_BACKEND").expect("a problem");
    assert!(message.contains("PB_BACKEND") && message.contains("sequential, threading"), "{message}");
    assert_eq!(report["call"]["error"]["message"], message);
}

#[test]
fn a_variable_that_nothing_reads_is_told() {
    let report = report(pb_info(&[]).env("PB_JOBS", "4").env("PB_BACKEND", "sequential"));
    assert!(problem(&report, "PB_JOBS").unwrap().contains("not read"));
    assert_eq!(problem(&report, "PB_BACKEND"), None);
    assert_eq!(report["call"]["backend"], "sequential");
}

#[test]
fn a_timeline_that_cannot_be_written_is_named_and_one_that_can_is_not_made() {
    let wrong = report(pb_info(&[]).env("PB_TRACE", "/no/such/folder/trace.json"));
    let message = problem(&wrong, "PB_TRACE").expect("a problem");
    assert!(
        message.contains("PB_TRACE: cannot write the timeline '/no/such/folder/trace.json'"),
        "{message}"
    );
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("only-looked-at.json");
    let right = report(pb_info(&[]).env("PB_TRACE", &path));
    assert_eq!(problem(&right, "PB_TRACE"), None);
    assert!(!path.exists());
    std::fs::write(&path, "older").unwrap();
    assert_eq!(problem(&report(pb_info(&[]).env("PB_TRACE", &path)), "PB_TRACE"), None);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "older");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_lowered_cpu_count_gives_its_reason() {
    let report = report(pb_info(&[]).env("PB_MAX_CPU_COUNT", "1"));
    assert_eq!(report["cpus"]["logical"], 1);
    assert!(texts(&report["cpus"]["reasons"]).contains(&"at most 1 CPU by PB_MAX_CPU_COUNT=1"));
    assert_eq!(report["call"]["workers"], 1);
    // A map with one worker is a plain loop: it limits nothing.
    assert_eq!(report["call"]["inner_limits"], Value::Array(vec![]));
}

#[test]
fn the_inner_limits_are_those_of_the_workers() {
    let limits = |n_jobs: &str, inner: &str| {
        let report = report(pb_info(&[]).env("PB_N_JOBS", n_jobs).env("PB_INNER_MAX_NUM_THREADS", inner));
        report["call"]["inner_limits"].clone()
    };
    let named = limits("4", "3");
    assert_eq!(named, serde_json::json!([{ "threads": 3, "workers": 4 }]));
    // More workers than any machine has CPUs: a share is never below one thread.
    let shares = limits("1000", "");
    assert_eq!(shares, serde_json::json!([{ "threads": 1, "workers": 1000 }]));
}
