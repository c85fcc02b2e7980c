//! Pool threads on CPUs of their own, where a scope asked for it.
//!
//! A pool thread serves many maps. It is bound when it enters one that asks for it, and freed when it enters one that does
//! not: not before, so that maps of one kind in a row cost no system call. What belongs to the program is left alone:
//! - a thread that is not the pool's is never bound, be it the caller of a map;
//! - a mask that somebody else has given a pool thread since is what it goes back to;
//! - a thread that a bound pool thread starts for the pool begins free, and counts its CPUs as if nobody were bound.

use super::affinity::{self, CpuSet};
use super::topology::{Place, Topology};
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a worker has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A core, with its hardware threads.
    Core,
    /// The CPUs behind a last-level cache.
    Cache,
    /// The CPUs of a NUMA node.
    Node,
}

/// Where the workers of a map go: the allowed CPUs, divided into cores, caches or nodes.
#[derive(Debug)]
pub struct Pins {
    unit: Unit,
    /// The CPUs of each core, cache or node; neighbours stand together.
    sets: Vec<Arc<CpuSet>>,
    /// For each CPU, in the same order, which of the sets it is in.
    set_of_cpu: Vec<usize>,
}

impl Pins {
    /// Divides the CPUs that the calling thread may run on. None where the system has no affinity.
    pub fn of_this_thread(unit: Unit) -> Option<Pins> {
        let cpus: Vec<_> = affinity::of_this_thread()?.iter().collect();
        Some(Pins::divide(&Topology::read(Path::new("/"), &cpus), unit))
    }

    fn divide(topology: &Topology, unit: Unit) -> Pins {
        let key = |place: &Place| match unit {
            Unit::Core => place.core,
            Unit::Cache => place.cache,
            Unit::Node => place.node,
        };
        let mut sets = Vec::new();
        let mut set_of_cpu = Vec::new();
        for group in topology.places.chunk_by(|one, other| key(one) == key(other)) {
            set_of_cpu.extend(group.iter().map(|_| sets.len()));
            sets.push(Arc::new(group.iter().map(|place| place.cpu).collect()));
        }
        Pins { unit, sets, set_of_cpu }
    }

    /// The CPUs of worker `seat` of `seats`: the core of that number, beginning anew when there are more workers than cores;
    /// or a cache or node, of which each has as many workers in a row as befits its share of the CPUs.
    fn of(&self, seat: usize, seats: usize) -> Option<&Arc<CpuSet>> {
        let set = match self.unit {
            Unit::Core => seat.checked_rem(self.sets.len())?,
            Unit::Cache | Unit::Node => {
                *self.set_of_cpu.get((seat * self.set_of_cpu.len()).checked_div(seats)?)?
            }
        };
        self.sets.get(set)
    }

    /// Binds the calling thread to what worker `seat` of `seats` has, if it is a pool thread and not so bound already.
    pub fn enter(&self, seat: usize, seats: usize) {
        if IS_OF_POOL.get() {
            EVER.store(true, Ordering::Relaxed);
            settle(self.of(seat, seats));
        }
    }
}

/// Frees the calling thread if it is a pool thread that a map before has bound.
pub fn leave() {
    if EVER.load(Ordering::Relaxed) && IS_OF_POOL.get() {
        settle(None);
    }
}

/// Whether a thread has ever been bound here: until then nobody looks further.
static EVER: AtomicBool = AtomicBool::new(false);

thread_local! {
    static IS_OF_POOL: Cell<bool> = const { Cell::new(false) };
    static BOUND: RefCell<Option<Bound>> = const { RefCell::new(None) };
}

struct Bound {
    to: Arc<CpuSet>,
    /// The thread's mask before.
    home: CpuSet,
}

/// The mask that the calling thread has but for us; none if it is not bound.
pub(super) fn home() -> Option<CpuSet> {
    if !EVER.load(Ordering::Relaxed) {
        return None;
    }
    let home = BOUND.try_with(|bound| bound.borrow().as_ref().map(|bound| bound.home.clone()));
    home.ok().flatten()
}

/// Binds the calling thread to `wanted`, or frees it. A system that refuses is asked again only for something else.
fn settle(wanted: Option<&Arc<CpuSet>>) {
    let _ = BOUND.try_with(|bound| {
        let mut bound = bound.borrow_mut();
        let is_so = match (&*bound, wanted) {
            (None, None) => true,
            (Some(bound), Some(wanted)) => bound.to == *wanted,
            _ => false,
        };
        if is_so {
            return;
        }
        let Some(now) = affinity::in_force() else { return };
        let home = match bound.take() {
            Some(was) if *was.to == now => was.home,
            // Not bound, or somebody else has given it another mask since.
            _ => now.clone(),
        };
        match wanted {
            Some(to) => {
                to.bind_this_thread();
                *bound = Some(Bound { to: to.clone(), home });
            }
            None if home != now => drop(home.bind_this_thread()),
            None => {}
        }
    });
}

/// What a pool thread takes along from the thread that starts it.
pub struct Birth(Option<CpuSet>);

impl Birth {
    /// On the thread that starts it.
    pub fn prepare() -> Birth {
        Birth(home())
    }

    /// On the new thread: it is of the pool from now on, and free.
    pub fn begin(self) {
        IS_OF_POOL.set(true);
        if let Some(home) = self.0 {
            home.bind_this_thread();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::machines;
    use super::*;

    fn cpus(pins: &Pins, seat: usize, seats: usize) -> Vec<usize> {
        pins.of(seat, seats).unwrap().iter().collect()
    }

    #[test]
    fn workers_have_cores_one_after_the_other() {
        let pins = Pins::divide(&machines::two_sockets().topology(), Unit::Core);
        assert_eq!(cpus(&pins, 0, 20), [0, 16]);
        assert_eq!(cpus(&pins, 9, 20), [9, 25]);
        assert_eq!(cpus(&pins, 16, 20), [0, 16], "a second worker for each core only when all have one");
        let pins = Pins::divide(&machines::hybrid().topology(), Unit::Core);
        assert_eq!((0..6).map(|seat| cpus(&pins, seat, 6).len()).collect::<Vec<_>>(), [2, 2, 1, 1, 1, 1]);
    }

    #[test]
    fn workers_in_a_row_share_a_cache_or_a_node() {
        let topology = machines::two_sockets().topology();
        let first = |unit, seats| {
            let pins = Pins::divide(&topology, unit);
            (0..seats).map(|seat| cpus(&pins, seat, seats)[0]).collect::<Vec<_>>()
        };
        assert_eq!(first(Unit::Cache, 8), [0, 0, 4, 4, 8, 8, 12, 12]);
        assert_eq!(first(Unit::Cache, 2), [0, 8]);
        assert_eq!(first(Unit::Node, 5), [0, 0, 0, 8, 8]);
        assert_eq!(first(Unit::Node, 1), [0]);
        assert_eq!(first(Unit::Node, 64)[31..33], [0, 8]);
    }

    #[test]
    fn a_domain_that_the_mask_cuts_has_fewer_workers() {
        let mut machine = machines::eight_caches();
        machine.allowed = vec![3, 4, 5, 6, 7];
        let pins = Pins::divide(&machine.topology(), Unit::Cache);
        assert_eq!(cpus(&pins, 0, 5), [3]);
        assert!((1..5).all(|seat| cpus(&pins, seat, 5) == [4, 5, 6, 7]));
    }

    #[test]
    fn no_cpus_are_no_place() {
        let pins = |unit| Pins::divide(&Topology { places: Vec::new() }, unit);
        assert!(pins(Unit::Core).of(0, 1).is_none());
        assert!(pins(Unit::Node).of(0, 1).is_none());
    }

    #[cfg(target_os = "linux")]
    mod on_threads {
        use super::*;

        /// A core for the first allowed CPU alone, whatever the machine.
        fn first_cpu() -> Pins {
            let cpu = affinity::in_force().unwrap().iter().next().unwrap();
            Pins::divide(&Topology { places: vec![Place { cpu, core: 0, cache: 0, node: 0 }] }, Unit::Core)
        }

        fn on_a_pool_thread(work: impl FnOnce() + Send + 'static) {
            let birth = Birth::prepare();
            std::thread::spawn(move || {
                birth.begin();
                work();
            })
            .join()
            .unwrap();
        }

        #[test]
        fn a_pool_thread_is_bound_until_it_enters_a_map_that_does_not_ask() {
            on_a_pool_thread(|| {
                let before = affinity::in_force().unwrap();
                first_cpu().enter(3, 4);
                assert_eq!(affinity::in_force().unwrap().len(), 1);
                assert_eq!(affinity::of_this_thread().unwrap(), before, "the pin is nobody else's limit");
                leave();
                assert_eq!(affinity::in_force().unwrap(), before);
            });
        }

        #[test]
        fn a_caller_is_not_bound() {
            std::thread::spawn(|| {
                let before = affinity::in_force().unwrap();
                first_cpu().enter(0, 1);
                assert_eq!(affinity::in_force().unwrap(), before);
            })
            .join()
            .unwrap();
        }

        #[test]
        fn who_is_started_by_a_bound_thread_begins_free() {
            on_a_pool_thread(|| {
                let before = affinity::in_force().unwrap();
                first_cpu().enter(0, 1);
                on_a_pool_thread(move || assert_eq!(affinity::in_force().unwrap(), before));
            });
        }

        // taskset -a on a running program.
        #[test]
        fn a_mask_that_somebody_else_gave_meanwhile_stays() {
            on_a_pool_thread(|| {
                let all = affinity::in_force().unwrap();
                let last: CpuSet = all.iter().last().into_iter().collect();
                first_cpu().enter(0, 1);
                assert!(last.bind_this_thread());
                leave();
                assert_eq!(affinity::in_force().unwrap(), if all.len() > 1 { last } else { all });
            });
        }
    }
}
