//! A worker process of backend `loky`, for tasks in shared libraries. The library starts it; a person need not.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect();
    #[cfg(target_os = "linux")]
    {
        // Maps inside tasks may start this program again.
        parallel_backend::tasks::note_rerun();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        parallel_backend::worker::serve::live_if_asked(&arguments);
    }
    let version = env!("CARGO_PKG_VERSION");
    println!(
        "pb-worker {version}: a worker process of parallel_backend, started by the library's backend 'loky'"
    );
    ExitCode::from(if arguments.get(1).is_some_and(|text| text == "--version") { 0 } else { 2 })
}
