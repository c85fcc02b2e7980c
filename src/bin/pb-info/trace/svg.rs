//! The timeline as a picture: a lane a thread, the chunks in the colours of their functions, those of maps inside a chunk
//! drawn into it; below, what the colours mean with the figures of the maps.

use super::figures::Figures;
use super::file::{Interval, Lane, Trace};
use super::scale::{marks, percent, time};
use super::text::{COLUMNS, cells, summary};
use std::fmt::Write;

const WIDTH: f64 = 1200.0;
/// The lanes lie between these, the threads' names left of them and their share of busy time on the right.
const LEFT: f64 = 112.0;
const RIGHT: f64 = 1080.0;
const TOP: f64 = 92.0;
const GAP: f64 = 10.0;
const ROW: f64 = 22.0;
/// So many kinds of maps have a colour and a line below; the others are few and short.
const KINDS: usize = 8;
/// Apart even for those who see few colours (Okabe and Ito 2008).
const COLOURS: [&str; KINDS] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a7f2a", "#7a5195"];
const OTHER: &str = "#888888";
const STYLE: &str = "text{font-family:'Helvetica Neue',Helvetica,Arial,'Liberation Sans',sans-serif;font-size:13px;fill:#222}\
.dim{fill:#666}.small{font-size:12px}.end{text-anchor:end}.mid{text-anchor:middle}";

pub fn of(title: &str, trace: &Trace, figures: &Figures) -> String {
    let height = (900.0 / trace.lanes.len() as f64 - GAP).clamp(12.0, 46.0);
    let plot = Plot { trace, figures, height, out: String::new() };
    plot.draw(title)
}

struct Plot<'a> {
    trace: &'a Trace,
    figures: &'a Figures,
    /// Of a lane.
    height: f64,
    out: String,
}

/// Writes to a string, which cannot fail.
macro_rules! put {
    ($self:ident, $($text:tt)*) => {{ let _ = writeln!($self.out, $($text)*); }};
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The text, or its beginning where it is too long for its place.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return escaped(text);
    }
    escaped(&text.chars().take(most - 1).chain(['…']).collect::<String>())
}

/// What is drawn in one go: an interval in pixels.
struct Bar {
    left: f64,
    right: f64,
    colour: usize,
    depth: usize,
    /// What it is; none for several that are too narrow to tell apart.
    says: Option<String>,
}

impl Plot<'_> {
    fn draw(mut self, title: &str) -> String {
        let lanes = TOP + self.trace.lanes.len() as f64 * (self.height + GAP);
        let kinds = self.figures.groups.len().min(KINDS);
        let whole = lanes + 72.0 + ROW * (kinds as f64 + 2.0);
        put!(
            self,
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{whole}" viewBox="0 0 {WIDTH} {whole}">"#
        );
        put!(self, "<style>{STYLE}</style>");
        put!(
            self,
            r##"<defs><pattern id="wait" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/><rect width="2" height="6" fill="#b5b5b5"/></pattern></defs>"##
        );
        put!(self, r##"<rect width="100%" height="100%" fill="#fff"/>"##);
        put!(
            self,
            r#"<text x="16" y="32" style="font-size:19px;font-weight:600">{}</text>"#,
            shortened(title, 80)
        );
        put!(self, r#"<text x="16" y="56" class="dim">{}</text>"#, summary(self.trace, self.figures));
        if self.trace.dropped > 0 {
            put!(
                self,
                r##"<text x="1184" y="32" class="end" style="fill:#b00020">{} later events are missing</text>"##,
                self.trace.dropped
            );
        }
        put!(self, r#"<text x="1184" y="{}" class="end dim small">busy</text>"#, TOP - 10.0);
        for (at, lane) in self.trace.lanes.iter().enumerate() {
            self.lane(TOP + at as f64 * (self.height + GAP), lane, at);
        }
        self.axis(lanes);
        self.legend(lanes + 52.0, kinds);
        put!(self, "</svg>");
        self.out
    }

    fn x(&self, micros: f64) -> f64 {
        let part = (micros - self.trace.begin) / (self.trace.end - self.trace.begin).max(1e-9);
        LEFT + part.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn lane(&mut self, top: f64, lane: &Lane, at: usize) {
        let (height, middle) = (self.height, top + self.height / 2.0 + 4.5);
        put!(
            self,
            r#"<text x="{}" y="{middle}" class="end">{}</text>"#,
            LEFT - 10.0,
            shortened(&lane.name, 14)
        );
        put!(
            self,
            r##"<rect x="{LEFT}" y="{top}" width="{}" height="{height}" fill="#fafafa" stroke="#e2e2e2"/>"##,
            RIGHT - LEFT
        );
        for park in self.merged(&lane.parks) {
            self.rect(park, top, height, "#e6ebf2");
        }
        for bar in self.bars(lane) {
            // One inside another leaves the outer one's upper edge in sight.
            let inset = (bar.depth as f64 * height / 5.0).min(height * 0.6);
            let colour = COLOURS.get(bar.colour).unwrap_or(&OTHER);
            // Hairlines between bars, unless there is little else of them.
            let edge = if bar.right - bar.left > 4.0 { r##" stroke="#fff" stroke-width=".7""## } else { "" };
            let (x, width) = (bar.left, (bar.right - bar.left).max(0.3));
            let (y, height) = (top + inset, height - inset);
            let says = bar.says.map(|says| format!("<title>{}</title>", escaped(&says))).unwrap_or_default();
            put!(
                self,
                r#"<rect x="{x:.2}" y="{y:.1}" width="{width:.2}" height="{height:.1}" fill="{colour}"{edge}>{says}</rect>"#
            );
            if bar.depth > 0 {
                // Shaded, so that a function inside itself is told apart too.
                let shade = (0.14 * bar.depth as f64).min(0.5);
                put!(
                    self,
                    r##"<rect x="{x:.2}" y="{y:.1}" width="{width:.2}" height="{height:.1}" fill-opacity="{shade:.2}"/>"##
                );
            }
        }
        for join in self.merged(&lane.joins) {
            self.rect(join, top, height, "url(#wait)");
        }
        let share = self.figures.threads[at].share;
        put!(
            self,
            r##"<rect x="{}" y="{}" width="52" height="8" fill="#ececec"/>"##,
            RIGHT + 10.0,
            middle - 8.0
        );
        put!(
            self,
            r##"<rect x="{}" y="{}" width="{:.1}" height="8" fill="#5b6b7b"/>"##,
            RIGHT + 10.0,
            middle - 8.0,
            52.0 * share
        );
        put!(self, r#"<text x="1184" y="{middle}" class="end">{}</text>"#, percent(share));
    }

    fn rect(&mut self, (left, right): (f64, f64), top: f64, height: f64, fill: &str) {
        put!(
            self,
            r#"<rect x="{left:.2}" y="{top}" width="{:.2}" height="{height}" fill="{fill}"/>"#,
            right - left
        );
    }

    /// Intervals in pixels, those that nearly touch as one, without those that nobody could see.
    fn merged(&self, intervals: &[Interval]) -> Vec<(f64, f64)> {
        let mut found: Vec<(f64, f64)> = Vec::new();
        for interval in intervals {
            let (left, right) = (self.x(interval.begin), self.x(interval.end));
            match found.last_mut() {
                Some(last) if left - last.1 < 0.5 => last.1 = right.max(last.1),
                _ => found.push((left, right)),
            }
        }
        found.retain(|(left, right)| right - left >= 0.2);
        found
    }

    /// The chunks of a lane, outer ones first; neighbours too narrow to tell apart as one.
    fn bars(&self, lane: &Lane) -> Vec<Bar> {
        let mut found: Vec<Bar> = Vec::new();
        // The last bar of each depth.
        let mut last: Vec<usize> = Vec::new();
        for chunk in &lane.chunks {
            let colour = self.figures.group_of.get(&chunk.map).copied().unwrap_or(KINDS);
            let (left, right) = (self.x(chunk.time.begin), self.x(chunk.time.end));
            last.truncate(chunk.depth + 1);
            if let Some(bar) = last.get(chunk.depth).map(|at| &mut found[*at]) {
                let narrow = right - left < 1.5 || bar.right - bar.left < 1.5 || bar.says.is_none();
                if bar.colour == colour && left - bar.right < 0.5 && narrow {
                    bar.right = right;
                    bar.says = None;
                    continue;
                }
            }
            last.truncate(chunk.depth);
            last.push(found.len());
            let function =
                self.trace.maps.get(&chunk.map).map_or("a map that was not over", |map| &map.function);
            let (first, end) = (chunk.first, chunk.first + chunk.count);
            let says = Some(format!("{function}: items {first} to {end} in {}", time(chunk.time.length())));
            found.push(Bar { left, right, colour, depth: chunk.depth, says });
        }
        found.sort_by_key(|bar| bar.depth);
        found
    }

    fn axis(&mut self, bottom: f64) {
        put!(self, r##"<path d="M{LEFT} {bottom}H{RIGHT}" stroke="#666" fill="none"/>"##);
        for (place, label) in marks(self.trace.end - self.trace.begin, 10) {
            let x = self.x(self.trace.begin + place);
            put!(self, r##"<path d="M{x:.1} {bottom}v5" stroke="#666"/>"##);
            put!(self, r#"<text x="{x:.1}" y="{}" class="mid small dim">{label}</text>"#, bottom + 19.0);
        }
    }

    fn legend(&mut self, top: f64, kinds: usize) {
        // The right edges of the columns, but for the first two, which have left ones.
        const EDGES: [f64; 10] =
            [LEFT + 22.0, 420.0, 590.0, 660.0, 720.0, 800.0, 870.0, 960.0, 1040.0, 1140.0];
        let line = |plot: &mut Self, y: f64, cells: &[String; 10], class: &str| {
            for (column, (cell, x)) in cells.iter().zip(EDGES).enumerate() {
                let (end, most) = if column < 2 { ("", [40, 16][column]) } else { ("end ", 16) };
                put!(plot, r#"<text x="{x}" y="{y}" class="{end}{class}">{}</text>"#, shortened(cell, most));
            }
        };
        line(self, top, &COLUMNS.map(str::to_owned), "small dim");
        for (at, group) in self.figures.groups.iter().take(kinds).enumerate() {
            let y = top + ROW * (at as f64 + 1.0);
            put!(
                self,
                r#"<rect x="{LEFT}" y="{}" width="14" height="12" fill="{}"/>"#,
                y - 11.0,
                COLOURS[at]
            );
            line(self, y, &cells(group), "");
        }
        let y = top + ROW * (kinds as f64 + 1.0);
        let more = self.figures.groups.len() - kinds;
        let more = (more > 0).then(|| (OTHER, format!("{more} more kinds of maps")));
        let keys = [("url(#wait)", "waits for helpers".to_owned()), ("#e6ebf2", "sleeps".to_owned())];
        let mut x = LEFT;
        for (fill, what) in keys.into_iter().chain(more) {
            put!(
                self,
                r##"<rect x="{x}" y="{}" width="14" height="12" fill="{fill}" stroke="#ccc" stroke-width=".5"/>"##,
                y - 11.0
            );
            put!(self, r#"<text x="{}" y="{y}">{what}</text>"#, x + 22.0);
            x += 160.0;
        }
        put!(
            self,
            r#"<text x="{x}" y="{y}" class="dim">smaller and darker: maps inside a task. imbalance: busiest worker to mean</text>"#
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::file::{self, tests::FILE};

    fn picture(text: &str) -> String {
        let trace = file::parse(text).unwrap();
        of("a<b>.json", &trace, &Figures::of(&trace))
    }

    #[test]
    fn each_chunk_is_drawn_where_it_ran() {
        let svg = picture(FILE);
        assert!(svg.contains("a&lt;b&gt;.json") && !svg.contains("a<b>"));
        for says in ["f: items 0 to 3 in 30.0 µs", "f: items 3 to 4 in 90.0 µs", "g: items 0 to 8 in 40.0 µs"]
        {
            assert!(svg.contains(says), "{says}");
        }
        // From 1 µs after the begin of 91 µs in all.
        assert!(svg.contains(&format!("x=\"{:.2}\"", LEFT + (RIGHT - LEFT) / 91.0)));
        assert!(svg.contains("2 later events are missing"));
    }

    #[test]
    fn what_is_too_narrow_to_be_seen_is_drawn_as_one() {
        let chunk = |n: usize| {
            format!(
                r#"{{"ph":"X","pid":1,"tid":1,"ts":{n},"dur":0.9,"cat":"chunk","name":"f","args":{{"map":1,"begin":{n},"count":1,"seat":0}}}}"#
            )
        };
        let chunks: Vec<_> = (0..10_000).map(chunk).collect();
        let svg = picture(&format!(r#"{{"traceEvents":[{}]}}"#, chunks.join(",")));
        assert!(svg.len() < 10_000, "{} bytes", svg.len());
    }
}
