//! Times as people read them, and where an axis has its marks.

/// Microseconds in the unit that suits them, with three figures.
pub fn time(micros: f64) -> String {
    let (unit, size) = unit(micros);
    let value = micros / size;
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}

pub fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

fn unit(micros: f64) -> (&'static str, f64) {
    match micros {
        micros if micros >= 1e6 => ("s", 1e6),
        micros if micros >= 1e3 => ("ms", 1e3),
        _ => ("µs", 1.0),
    }
}

/// Marks of an axis from 0 to `length` microseconds: at most `most`, at round places, all in one unit.
pub fn marks(length: f64, most: usize) -> Vec<(f64, String)> {
    if length <= 0.0 {
        return Vec::new();
    }
    let smallest = length / most.max(1) as f64;
    let power = 10f64.powf(smallest.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|round| round * power).into_iter().find(|step| *step >= smallest);
    let step = step.unwrap_or(10.0 * power);
    let (unit, size) = unit(length);
    let digits = (-(step / size).log10().floor()).max(0.0) as usize;
    let places = (0..=most as u32).map(|count| f64::from(count) * step);
    places
        .take_while(|place| *place <= length)
        .map(|place| (place, format!("{:.digits$} {unit}", place / size)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_figures() {
        let shown = [0.0, 1.2345, 99.96, 999.9, 12_345.0, 2e6].map(time);
        assert_eq!(shown, ["0.00 µs", "1.23 µs", "100 µs", "1000 µs", "12.3 ms", "2.00 s"]);
    }

    #[test]
    fn marks_are_round_and_few() {
        let labels = |length| marks(length, 8).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels(7.0), ["0 µs", "1 µs", "2 µs", "3 µs", "4 µs", "5 µs", "6 µs", "7 µs"]);
        assert_eq!(labels(1300.0), ["0.0 ms", "0.2 ms", "0.4 ms", "0.6 ms", "0.8 ms", "1.0 ms", "1.2 ms"]);
        assert_eq!(labels(0.0), Vec::<String>::new());
    }
}
