//! `pb-info trace`: what a timeline says, in figures and as a picture. The output is documented in `docs/tracing.md`.

mod figures;
mod file;
mod scale;
mod svg;
mod text;

use crate::args::Trace as Args;
use figures::Figures;
use std::fs;

/// Reads the timeline, draws it if that is asked for, and returns the figures as text; or says what went wrong.
pub fn run(args: &Args) -> Result<String, String> {
    let name = args.file.display();
    let text = fs::read_to_string(&args.file).map_err(|error| format!("cannot read {name}: {error}"))?;
    let trace = file::parse(&text).map_err(|wrong| format!("{name} {wrong}"))?;
    let figures = Figures::of(&trace);
    let title = args.file.file_name().unwrap_or_default().to_string_lossy();
    if let Some(out) = &args.out {
        let picture = svg::of(&title, &trace, &figures);
        fs::write(out, picture).map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    }
    Ok(text::of(&title, &trace, &figures))
}
