//! How many CPUs this process may really use, and why.
//!
//! The count is the smallest of what is online, what the calling thread may run on, the cgroup quotas of this
//! process's group and of every group around it, and `PB_MAX_CPU_COUNT`. All of it is read from the kernel's
//! files, without a subprocess. std's `available_parallelism` comes close, but rounds quotas down (1.5 CPUs
//! give 1) and has neither the reasons nor the cores.

mod affinity;
mod cgroup;
mod environ;
mod float;
#[cfg(test)]
mod machines;
mod pin;
mod signals;
mod ticks;
mod timer;
mod topology;
#[cfg(test)]
mod tree;

pub use environ::Environment;
pub use float::FloatMode;
pub use pin::{Birth, Pins, Unit, leave as leave_pins};
pub use signals::SignalsBlocked;
pub use ticks::{nanoseconds, ticks};
pub use timer::fine_timer;
pub use topology::{Place, Topology};

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The environment variable that can lower every count of this room.
const MAX_CPU_COUNT: &str = "PB_MAX_CPU_COUNT";

/// How many CPUs the calling thread may use, hardware threads counted one by one; at least 1.
///
/// Affinity and environment are read at every call. What changes for a process as a whole, the online CPUs and
/// the cgroup quota, is read again after a second at the latest.
pub fn count() -> i32 {
    static MACHINE: PerSecond = PerSecond::new();
    let machine = MACHINE.get(unix_seconds(), || {
        lowest([Some(affinity::online()), cgroup::quota(Path::new("/")).map(|quota| quota.whole_cpus())])
    });
    lowest([Some(machine), affinity::of_this_thread().map(|cpus| cpus.len()), MaxCpuCount::read().limit()])
}

/// How many physical cores the calling thread may use; at least 1, at most [`count`].
///
/// Hardware threads of one core count once. A quota and `PB_MAX_CPU_COUNT` cap this number as they cap
/// [`count`]. Where the cores are unknown (no topology from the kernel, as in some sandboxes) it is [`count`].
pub fn physical_count() -> i32 {
    lowest([Some(count()), allowed_cores()])
}

/// Distinct cores among the CPUs that the calling thread may run on.
fn allowed_cores() -> Option<i32> {
    topology::cores(Path::new("/"), affinity::of_this_thread()?.iter())
}

/// A quota on CPU time, in CPUs, and the file that sets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Quota {
    /// CPU time allowed in each period, divided by the period; above 0.
    pub cpus: f64,
    /// Where the kernel says so, e.g. `/sys/fs/cgroup/user.slice/cpu.max`.
    pub file: PathBuf,
}

impl Quota {
    /// The smallest number of CPUs that can use the quota up: 0.5 gives 1, 1.5 gives 2.
    pub fn whole_cpus(&self) -> i32 {
        // A float-to-integer cast saturates, and the cap on tiny quotas keeps a count at 1.
        (self.cpus.ceil() as i32).max(1)
    }
}

/// What `PB_MAX_CPU_COUNT` says.
#[derive(Clone, Debug, PartialEq)]
pub enum MaxCpuCount {
    /// Not in the environment, or empty.
    Unset,
    /// No count is above this number, which is at least 1.
    AtMost(i32),
    /// Not a whole number of at least 1: ignored. The text as it stands in the environment.
    Malformed(String),
}

impl MaxCpuCount {
    fn read() -> Self {
        std::env::var_os(MAX_CPU_COUNT).map_or(MaxCpuCount::Unset, |value| MaxCpuCount::parse(&value))
    }

    fn parse(value: &OsStr) -> Self {
        let text = value.to_string_lossy();
        if text.trim().is_empty() {
            return MaxCpuCount::Unset;
        }
        match text.trim().parse::<u64>() {
            Ok(limit) if limit >= 1 => MaxCpuCount::AtMost(i32::try_from(limit).unwrap_or(i32::MAX)),
            _ => MaxCpuCount::Malformed(text.into_owned()),
        }
    }

    fn limit(&self) -> Option<i32> {
        match self {
            MaxCpuCount::AtMost(limit) => Some(*limit),
            MaxCpuCount::Unset | MaxCpuCount::Malformed(_) => None,
        }
    }
}

/// Every limit with its source, as seen by the thread that asked, at the time it asked.
#[derive(Clone, Debug)]
pub struct Report {
    /// CPUs that the system has switched on.
    pub online: i32,
    /// CPUs that the calling thread may run on; none where the system has no such thing.
    pub affinity: Option<i32>,
    /// The lowest quota on this process's group and the groups around it.
    pub cgroup: Option<Quota>,
    /// `PB_MAX_CPU_COUNT`.
    pub max_cpu_count: MaxCpuCount,
    /// Physical cores among the CPUs of the affinity, before any other limit; none where unknown.
    pub cores: Option<i32>,
    /// Where those CPUs sit.
    pub topology: Topology,
    /// The result: [`count`].
    pub logical: i32,
    /// The result: [`physical_count`].
    pub physical: i32,
}

/// Reads every limit now, from nothing cached.
pub fn report() -> Report {
    let online = affinity::online();
    let allowed = affinity::of_this_thread();
    let affinity = allowed.as_ref().map(|cpus| cpus.len());
    let allowed: Vec<_> = allowed.iter().flat_map(|cpus| cpus.iter()).collect();
    let topology = Topology::read(Path::new("/"), &allowed);
    let cgroup = cgroup::quota(Path::new("/"));
    let max_cpu_count = MaxCpuCount::read();
    let cores = allowed_cores();
    let quota = cgroup.as_ref().map(Quota::whole_cpus);
    let logical = lowest([Some(online), affinity, quota, max_cpu_count.limit()]);
    let physical = lowest([Some(logical), cores]);
    Report { online, affinity, cgroup, max_cpu_count, cores, topology, logical, physical }
}

impl Report {
    /// A line for each limit: its value and where it comes from.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = vec![format!("{} online", Cpus(self.online))];
        reasons.push(match self.affinity {
            Some(cpus) => format!("{} in the affinity mask of this thread", Cpus(cpus)),
            None => "no affinity mask on this system".to_owned(),
        });
        reasons.push(match &self.cgroup {
            Some(quota) => format!(
                "{} by a cgroup quota of {} (rounded up) in {}",
                Cpus(quota.whole_cpus()),
                quota.cpus,
                quota.file.display()
            ),
            None => "no cgroup quota".to_owned(),
        });
        if let MaxCpuCount::AtMost(limit) = self.max_cpu_count {
            reasons.push(format!("at most {} by {MAX_CPU_COUNT}={limit}", Cpus(limit)));
        }
        reasons.push(match self.cores {
            Some(cores) => format!("{cores} physical core(s) behind the affinity mask"),
            None => "physical cores unknown: counted as CPUs".to_owned(),
        });
        reasons
    }

    /// What somebody set that has no effect, and why.
    pub fn warnings(&self) -> Vec<String> {
        let without = lowest([Some(self.online), self.affinity, self.cgroup.as_ref().map(Quota::whole_cpus)]);
        match &self.max_cpu_count {
            MaxCpuCount::Malformed(text) => {
                vec![format!("{MAX_CPU_COUNT}={text:?} is ignored: it must be a whole number of at least 1")]
            }
            MaxCpuCount::AtMost(limit) if *limit > without => {
                vec![format!(
                    "{MAX_CPU_COUNT}={limit} changes nothing: it can only lower the count of {without}"
                )]
            }
            MaxCpuCount::AtMost(_) | MaxCpuCount::Unset => Vec::new(),
        }
    }
}

/// A number of CPUs as people write it.
struct Cpus(i32);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} CPU{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// The lowest of the limits that there are; at least 1.
fn lowest<const N: usize>(limits: [Option<i32>; N]) -> i32 {
    limits.into_iter().flatten().min().unwrap_or(1).max(1)
}

fn unix_seconds() -> u32 {
    // Only compared for equality, so a wrong clock costs a reading and nothing else.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32)
}

/// A number that is read at most once in each second of the clock.
///
/// The second and the number share one atomic word: no lock, so nothing that a forked child could find taken.
struct PerSecond(AtomicU64);

impl PerSecond {
    const fn new() -> Self {
        PerSecond(AtomicU64::new(0))
    }

    /// The number of this second, read by `read` if no other call has. It must be at least 1.
    fn get(&self, second: u32, read: impl FnOnce() -> i32) -> i32 {
        let word = self.0.load(Ordering::Relaxed);
        let (stamp, number) = ((word >> 32) as u32, word as u32 as i32);
        if stamp == second && number > 0 {
            return number;
        }
        let number = read();
        self.0.store(u64::from(second) << 32 | u64::from(number as u32), Ordering::Relaxed);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_at_most_cpus() {
        assert!(count() >= 1);
        assert!((1..=count()).contains(&physical_count()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_pinned_to_one_cpu_sees_one() {
        std::thread::spawn(|| {
            affinity::tests::pin_to_first_cpu();
            assert_eq!((count(), physical_count()), (1, 1));
            let report = report();
            assert_eq!((report.logical, report.affinity), (1, Some(1)));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_lowest_limit_wins_and_the_count_is_at_least_one() {
        assert_eq!(lowest([Some(8), None, Some(3)]), 3);
        assert_eq!(lowest([Some(8), Some(0)]), 1);
    }

    #[test]
    fn max_cpu_count_is_a_whole_number_of_at_least_one() {
        let parse = |text: &str| MaxCpuCount::parse(OsStr::new(text));
        assert_eq!(parse("2"), MaxCpuCount::AtMost(2));
        assert_eq!(parse(" 2 "), MaxCpuCount::AtMost(2));
        assert_eq!(parse("99999999999"), MaxCpuCount::AtMost(i32::MAX));
        assert_eq!(parse(""), MaxCpuCount::Unset);
        for malformed in ["0", "-1", "two", "1.5", "2 3"] {
            assert_eq!(parse(malformed), MaxCpuCount::Malformed(malformed.into()));
        }
    }

    fn eight_cpus_with(max_cpu_count: MaxCpuCount) -> Report {
        let cgroup = Some(Quota { cpus: 1.5, file: "/sys/fs/cgroup/a/cpu.max".into() });
        Report {
            online: 8,
            affinity: Some(4),
            cgroup,
            max_cpu_count,
            cores: Some(1),
            topology: Topology { places: Vec::new() },
            logical: 2,
            physical: 1,
        }
    }

    #[test]
    fn a_report_gives_each_limit_and_its_source() {
        let report = eight_cpus_with(MaxCpuCount::AtMost(2));
        assert_eq!(
            report.reasons(),
            [
                "8 CPUs online",
                "4 CPUs in the affinity mask of this thread",
                "2 CPUs by a cgroup quota of 1.5 (rounded up) in /sys/fs/cgroup/a/cpu.max",
                "at most 2 CPUs by PB_MAX_CPU_COUNT=2",
                "1 physical core(s) behind the affinity mask",
            ]
        );
        assert!(report.warnings().is_empty());
    }

    #[test]
    fn a_setting_without_effect_is_a_warning() {
        let warning = |setting| eight_cpus_with(setting).warnings().concat();
        assert!(
            warning(MaxCpuCount::Malformed("two".into())).contains(r#"PB_MAX_CPU_COUNT="two" is ignored"#)
        );
        assert!(warning(MaxCpuCount::AtMost(64)).contains("can only lower the count of 2"));
    }

    #[test]
    fn a_number_is_read_once_a_second() {
        let number = PerSecond::new();
        assert_eq!(number.get(7, || 3), 3);
        assert_eq!(number.get(7, || unreachable!("still the same second")), 3);
        assert_eq!(number.get(8, || 5), 5);
        assert_eq!(number.get(7, || 4), 4, "a clock that was set back costs a reading, no more");
    }
}
