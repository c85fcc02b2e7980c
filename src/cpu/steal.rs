//! From whom to steal: from near before far, since what lies in a shared cache need not travel.

use super::topology::{self, Place};
use std::path::Path;
use std::sync::OnceLock;

/// How far two CPUs are from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// Threads of one core, or the same CPU.
    Core,
    /// Behind one last-level cache.
    Cache,
    /// In one NUMA node.
    Node,
    /// In different nodes.
    Remote,
}

impl Place {
    /// How far the other place is.
    pub fn distance(&self, other: &Place) -> Distance {
        if self.core == other.core {
            Distance::Core
        } else if self.cache == other.cache {
            Distance::Cache
        } else if self.node == other.node {
            Distance::Node
        } else {
            Distance::Remote
        }
    }
}

/// For each worker the others, nearest first, where worker `w` is at `places[w]`.
///
/// Workers that are equally far from a group begin at different members of it: as many of them as there are, so that a
/// group is not stormed at one point.
pub fn steal_order(places: &[Place]) -> Vec<Vec<usize>> {
    (0..places.len()).map(|worker| victims(places, worker)).collect()
}

fn victims(places: &[Place], me: usize) -> Vec<usize> {
    let n = places.len();
    let distance = |other: usize| places[me].distance(&places[other]);
    let mut order = Vec::with_capacity(n.saturating_sub(1));
    for class in [Distance::Core, Distance::Cache, Distance::Node, Distance::Remote] {
        let begin = order.len();
        order.extend((1..n).map(|step| (me + step) % n).filter(|other| distance(*other) == class));
        // Those nearer than this class see it at the same distance: their ranks tell them apart.
        let rank = (0..me).filter(|other| distance(*other) < class).count();
        let members = order.len() - begin;
        if members > 0 {
            order[begin..].rotate_left(rank % members);
        }
    }
    order
}

/// The number of the last-level cache behind the CPU that this thread runs on now: to be compared with that of other threads,
/// and out of date at once unless the thread is pinned. Always 0 on a machine with one such cache.
///
/// Costs a load there, and about 10 ns elsewhere. The first call in a process reads some of the kernel's files, about ten for
/// each cache: it is for a thread with nothing better to do.
pub fn cache_here() -> u16 {
    static CACHES: OnceLock<Option<Box<[u16]>>> = OnceLock::new();
    match CACHES.get_or_init(|| topology::caches(Path::new("/"))) {
        None => 0,
        Some(caches) => super::affinity::this_cpu().and_then(|cpu| caches.get(cpu).copied()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::machines::{self, Machine};
    use super::*;

    /// The order on a machine with a worker on each CPU, and the places.
    fn order(machine: &Machine) -> (Vec<Place>, Vec<Vec<usize>>) {
        let places = machine.topology().places;
        let order = steal_order(&places);
        (places, order)
    }

    #[test]
    fn everybody_else_is_tried_once_and_nobody_before_a_nearer_one() {
        for machine in
            [machines::two_cores(), machines::two_sockets(), machines::eight_caches(), machines::hybrid()]
        {
            let (places, order) = order(&machine);
            for (me, victims) in order.iter().enumerate() {
                let mut all = victims.clone();
                all.push(me);
                all.sort_unstable();
                assert_eq!(all, (0..places.len()).collect::<Vec<_>>());
                assert!(victims.is_sorted_by_key(|other| places[me].distance(&places[*other])));
            }
        }
    }

    #[test]
    fn first_the_other_thread_of_the_core_and_last_the_other_socket() {
        let (places, order) = order(&machines::two_sockets());
        let distances: Vec<_> = order[5].iter().map(|other| places[5].distance(&places[*other])).collect();
        let count = |distance| distances.iter().filter(|other| **other == distance).count();
        assert_eq!([count(Distance::Core), count(Distance::Cache)], [1, 6]);
        assert_eq!([count(Distance::Node), count(Distance::Remote)], [8, 16]);
        assert_eq!(order[5][0], 4);
    }

    /// How many workers try the same one first among those at a distance.
    fn crowd(machine: &Machine, class: Distance) -> usize {
        let (places, order) = order(machine);
        let firsts = order.iter().enumerate().filter_map(|(me, victims)| {
            victims.iter().find(|other| places[me].distance(&places[**other]) == class)
        });
        let mut crowds = vec![0; places.len()];
        firsts.for_each(|first| crowds[*first] += 1);
        crowds.into_iter().max().unwrap()
    }

    #[test]
    fn no_two_workers_try_the_same_victim_first() {
        for class in [Distance::Core, Distance::Cache, Distance::Node, Distance::Remote] {
            assert_eq!(crowd(&machines::two_sockets(), class), 1, "{class:?}");
        }
        assert_eq!(crowd(&machines::eight_caches(), Distance::Cache), 1);
        assert_eq!(crowd(&machines::eight_caches(), Distance::Node), 1);
    }

    #[test]
    fn the_order_of_few_is_short() {
        assert_eq!(steal_order(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(order(&machines::two_cores()).1, [[1], [0]]);
    }

    #[test]
    fn a_thread_is_behind_a_cache_of_its_machine() {
        let caches = topology::caches(Path::new("/"));
        assert!(caches.map_or(cache_here() == 0, |caches| caches.contains(&cache_here())));
    }
}
