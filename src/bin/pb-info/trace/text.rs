//! The figures for a terminal.

use super::figures::Figures;
use super::file::Trace;
use super::scale::{percent, time};
use crate::table;

pub fn of(title: &str, trace: &Trace, figures: &Figures) -> String {
    let mut out = format!("{title}: {}\n", summary(trace, figures));
    if trace.dropped > 0 {
        out.push_str(&format!(
            "{} later events are missing: the timeline's memory was full\n",
            trace.dropped
        ));
    }
    out.push_str("\nThreads\n");
    table::write(&mut out, &threads(trace, figures));
    out.push_str("\nMaps\n");
    table::write(&mut out, &maps(figures));
    out
}

/// A line that says it all.
pub fn summary(trace: &Trace, figures: &Figures) -> String {
    let chunks: usize = trace.lanes.iter().map(|lane| lane.chunks.len()).sum();
    format!(
        "{}, {} maps, {chunks} chunks; {:.2} of {} threads busy on average, {} of the workers' time while a map ran",
        time(trace.end - trace.begin),
        trace.maps.len(),
        figures.busy_threads,
        trace.lanes.len(),
        percent(figures.utilisation),
    )
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn threads(trace: &Trace, figures: &Figures) -> Vec<Vec<String>> {
    let title = row(["thread", "busy", "", "waiting", "asleep", "chunks", "steals"]);
    let lines = trace.lanes.iter().zip(&figures.threads).map(|(lane, thread)| {
        row([
            &lane.name,
            &time(thread.busy),
            &percent(thread.share),
            &time(thread.waiting),
            &time(thread.asleep),
            &lane.chunks.len().to_string(),
            &lane.steals.to_string(),
        ])
    });
    [title].into_iter().chain(lines).collect()
}

/// What a group of maps has in each column; the picture shows the same ones.
pub const COLUMNS: [&str; 10] =
    ["function", "backend", "level", "workers", "maps", "items", "chunks", "time", "busy", "imbalance"];

/// The cells of the columns.
pub fn cells(group: &super::figures::Group) -> [String; 10] {
    [
        group.function.clone(),
        group.backend.clone(),
        group.level.to_string(),
        group.workers.to_string(),
        group.maps.to_string(),
        group.items.to_string(),
        group.chunks.to_string(),
        time(group.time),
        percent(group.utilisation),
        format!("{:.2}", group.imbalance),
    ]
}

fn maps(figures: &Figures) -> Vec<Vec<String>> {
    let lines = figures.groups.iter().map(|group| cells(group).to_vec());
    [row(COLUMNS)].into_iter().chain(lines).collect()
}
