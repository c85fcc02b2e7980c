//! A worker process of backend `loky`, for tasks in shared libraries. The library starts it; a person need not.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect();
    #[cfg(target_os = "linux")]
    if let [_, mark, rest @ ..] = &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        if *mark == parallel_backend::link::WORKER_ARGUMENT && rest.len() == 2 {
            parallel_backend::tasks::note_rerun();
            parallel_backend::worker::serve::live(rest);
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    eprintln!(
        "pb-worker {version}: a worker process of parallel_backend, started by the library's backend 'loky'"
    );
    ExitCode::from(if arguments.get(1).is_some_and(|text| text == "--version") { 0 } else { 2 })
}
