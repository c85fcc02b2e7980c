//! Says what parallel_backend sees on this machine and what a map would use here, as text or as JSON; and shows timelines.
//!
//! The output is documented in `docs/pb-info.md` and `docs/tracing.md`.

mod args;
mod json;
mod report;
mod table;
mod text;
mod trace;

use args::{Args, Command};
use parallel_backend::status;
use parallel_backend::{limits, registry};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// What the command line asks for cannot be understood.
const USAGE_ERROR: u8 = 2;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print(args::HELP),
        Ok(Command::Version) => print(&format!("pb-info {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(Command::Report(args)) => show(report(&args).map_err(|error| error.message.clone())),
        Ok(Command::Trace(args)) => show(trace::run(&args)),
        Err(wrong) => {
            eprint!("pb-info: {wrong}\n\n{}", args::USAGE);
            ExitCode::from(USAGE_ERROR)
        }
    }
}

fn show(text: Result<String, String>) -> ExitCode {
    text.map_or_else(
        |wrong| {
            eprintln!("pb-info: {wrong}");
            ExitCode::FAILURE
        },
        |text| print(&text),
    )
}

/// Loads what was asked for, in that order, and reports.
fn report(args: &Args) -> status::Result<String> {
    for library in &args.load {
        limits::load(library)?;
    }
    for plugin in &args.plugins {
        registry::load_plugin(plugin)?;
    }
    let report = report::gather();
    Ok(if args.json { json::of(&report) } else { text::of(&report) })
}

/// Writes to standard output. A reader that has gone, as `head` does, is no error.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("pb-info: cannot write: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
