//! Where each CPU sits: in which core, behind which last-level cache, in which NUMA node.
//!
//! Read from the kernel's own files. What they do not say is taken in the way that does least harm: a CPU is a core of
//! its own, and all CPUs share one cache and one node.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

const CPUS: &str = "sys/devices/system/cpu";
const NODES: &str = "sys/devices/system/node";
/// A list that names higher numbers is not one of CPUs.
const MOST_CPUS: usize = 1 << 20;

/// Where a CPU sits. Cores, caches and nodes are numbered from 0, in the order of their first CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The kernel's number of the CPU.
    pub cpu: usize,
    /// Its core: hardware threads of one core share it.
    pub core: usize,
    /// The last-level cache behind it. One that belongs to a single core is no neighbourhood: then it is the node.
    pub cache: usize,
    /// Its NUMA node.
    pub node: usize,
}

/// The places of some CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// By node, then by cache, core and CPU, so that neighbours stand together.
    pub places: Vec<Place>,
}

impl Topology {
    /// Looks up the CPUs, given in ascending order, in the files below `root`.
    pub(super) fn read(root: &Path, cpus: &[usize]) -> Topology {
        let nodes = node_lists(root);
        let node = |cpu| nodes.iter().find(|list| list.contains(&cpu)).cloned();
        let cores = groups(cpus, |cpu| threads_of_core(root, cpu).and_then(|list| cpu_list(&list)));
        let caches = groups(cpus, |cpu| last_level_cache(root, cpu).or_else(|| around(node(cpu), cpus)));
        let nodes = groups(cpus, |cpu| around(node(cpu), cpus));
        let mut places: Vec<_> = (0..cpus.len())
            .map(|i| Place { cpu: cpus[i], core: cores[i], cache: caches[i], node: nodes[i] })
            .collect();
        places.sort_unstable_by_key(|place| (place.node, place.cache, place.core, place.cpu));
        Topology { places }
    }

    /// How many different cores, caches or nodes there are.
    pub fn count(&self, which: impl Fn(&Place) -> usize) -> usize {
        self.places.iter().map(which).collect::<HashSet<_>>().len()
    }
}

/// The CPUs of the node, or all of them where no node is known.
fn around(node: Option<Vec<usize>>, all: &[usize]) -> Option<Vec<usize>> {
    node.or_else(|| Some(all.to_vec()))
}

/// A number for each CPU, the same for those that are in one list. A CPU without a list is alone.
///
/// Only the first CPU of a group is asked for its list, so that a machine with hundreds of CPUs is not hundreds of files.
fn groups(cpus: &[usize], list: impl Fn(usize) -> Option<Vec<usize>>) -> Vec<usize> {
    let mut group = vec![usize::MAX; cpus.len()];
    let mut count = 0;
    for first in 0..cpus.len() {
        if group[first] != usize::MAX {
            continue;
        }
        group[first] = count;
        for cpu in list(cpus[first]).unwrap_or_default() {
            if let Ok(member) = cpus.binary_search(&cpu) {
                if group[member] == usize::MAX {
                    group[member] = count;
                }
            }
        }
        count += 1;
    }
    group
}

/// The CPUs that share this one's last-level cache; none if unknown, or if only its own core has it.
fn last_level_cache(root: &Path, cpu: usize) -> Option<Vec<usize>> {
    let folder = root.join(format!("{CPUS}/cpu{cpu}/cache"));
    let read =
        |index: usize, file: &str| fs::read_to_string(folder.join(format!("index{index}/{file}"))).ok();
    let data = |index: &usize| read(*index, "type").is_none_or(|kind| kind.trim() != "Instruction");
    let level = |index: usize| Some((read(index, "level")?.trim().parse::<u32>().ok()?, index));
    let (_, last) = (0..).map_while(level).filter(|(_, index)| data(index)).max()?;
    let shared = read(last, "shared_cpu_list")?;
    let private = threads_of_core(root, cpu).is_some_and(|core| core == shared.trim());
    cpu_list(&shared).filter(|_| !private)
}

/// The CPUs of each NUMA node.
fn node_lists(root: &Path) -> Vec<Vec<usize>> {
    let Ok(folder) = fs::read_dir(root.join(NODES)) else { return Vec::new() };
    let nodes = folder.flatten().filter(|entry| {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node"));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    });
    nodes.filter_map(|node| cpu_list(&fs::read_to_string(node.path().join("cpulist")).ok()?)).collect()
}

/// The numbers of a list such as `0-3,8,10-11`; none if it is malformed or empty.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last > MOST_CPUS {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// How many physical cores the given CPUs belong to, by the files below `root`; none if the kernel does not
/// say it of each of them.
///
/// A core is told by the list of its hardware threads, as in lscpu and hwloc: a `core_id` need not be
/// different in two dies or clusters of one package.
pub(super) fn cores(root: &Path, cpus: impl Iterator<Item = usize>) -> Option<i32> {
    let cores: HashSet<String> = cpus.map(|cpu| threads_of_core(root, cpu)).collect::<Option<_>>()?;
    i32::try_from(cores.len()).ok().filter(|cores| *cores >= 1)
}

/// The hardware threads of the CPU's core, in the kernel's own words, e.g. `"0,64"`.
fn threads_of_core(root: &Path, cpu: usize) -> Option<String> {
    let folder = root.join(format!("{CPUS}/cpu{cpu}/topology"));
    // The second is the name before Linux 5.3.
    ["core_cpus_list", "thread_siblings_list"]
        .iter()
        .find_map(|name| fs::read_to_string(folder.join(name)).ok())
        .map(|list| list.trim().to_owned())
        .filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::machines::{self, Machine};
    use super::super::tree::Tree;
    use super::*;

    /// Two cores of two threads each: 0 and 2, 1 and 3.
    fn two_cores(file: &str) -> Tree {
        let tree = Tree::new();
        for (cpu, threads) in ["0,2\n", "1,3\n", "0,2\n", "1,3\n"].iter().enumerate() {
            tree.write(&format!("sys/devices/system/cpu/cpu{cpu}/topology/{file}"), threads);
        }
        tree
    }

    #[test]
    fn threads_of_one_core_count_once() {
        let tree = two_cores("core_cpus_list");
        let cores = |cpus: &[usize]| cores(tree.root(), cpus.iter().copied());
        assert_eq!(cores(&[0, 1, 2, 3]), Some(2));
        assert_eq!(cores(&[0, 2]), Some(1));
        assert_eq!(cores(&[0, 1]), Some(2));
    }

    #[test]
    fn older_kernels_have_another_name() {
        assert_eq!(cores(two_cores("thread_siblings_list").root(), 0..4), Some(2));
    }

    #[test]
    fn cores_are_unknown_if_one_cpu_has_no_topology() {
        let tree = two_cores("core_cpus_list");
        assert_eq!(cores(tree.root(), 0..5), None);
        tree.write("sys/devices/system/cpu/cpu4/topology/core_cpus_list", "\n");
        assert_eq!(cores(tree.root(), 0..5), None);
        assert_eq!(cores(tree.root(), 0..0), None);
    }

    /// Cores, caches and nodes of a machine's allowed CPUs.
    fn shape(machine: &Machine) -> (usize, usize, usize) {
        let topology = machine.topology();
        assert_eq!(topology.places.len(), machine.allowed.len());
        (topology.count(|p| p.core), topology.count(|p| p.cache), topology.count(|p| p.node))
    }

    #[test]
    fn machines_have_the_shape_that_their_files_tell() {
        assert_eq!(shape(&machines::two_cores()), (2, 1, 1));
        assert_eq!(shape(&machines::two_sockets()), (16, 4, 2));
        assert_eq!(shape(&machines::eight_caches()), (32, 8, 1));
        assert_eq!(shape(&machines::hybrid()), (6, 1, 1));
    }

    // Linux on two sockets: the second threads of all cores have the upper half of the numbers.
    #[test]
    fn neighbours_stand_together_whatever_their_numbers() {
        let topology = machines::two_sockets().topology();
        let cpus: Vec<_> = topology.places.iter().map(|place| place.cpu).collect();
        assert_eq!(cpus[..10], [0, 16, 1, 17, 2, 18, 3, 19, 4, 20]);
        let place = |cpu| *topology.places.iter().find(|place| place.cpu == cpu).unwrap();
        assert_eq!(place(9), Place { cpu: 9, core: 9, cache: 2, node: 1 });
        assert_eq!(place(25), Place { cpu: 25, ..place(9) });
    }

    #[test]
    fn numbers_may_have_gaps_and_cpus_may_be_offline() {
        let sparse = Machine::new(&[8, 9, 40, 41], &["8,40", "9,41"], &["8-9,40-41"], &[(3, "8-9,40-41")]);
        assert_eq!(shape(&sparse), (2, 1, 1));
        // CPU 2 is offline: it has a folder, and nothing in it, and no list names it.
        let offline = Machine::new(&[0, 1, 3], &["0-1", "3"], &["0-1,3"], &[(0, "0-1,3")]);
        offline.tree.write("sys/devices/system/cpu/cpu2/online", "0\n");
        assert_eq!(shape(&offline), (2, 1, 1));
        // In the mask all the same.
        assert_eq!(Topology::read(offline.tree.root(), &[0, 1, 2, 3]).places.len(), 4);
    }

    #[test]
    fn a_mask_may_cut_domains() {
        let mut machine = machines::two_sockets();
        machine.allowed = vec![3, 4, 5, 19, 24];
        assert_eq!(shape(&machine), (4, 3, 2));
        machine.allowed = vec![16];
        assert_eq!(shape(&machine), (1, 1, 1));
    }

    #[test]
    fn what_no_file_tells_is_one_cache_and_one_node_of_single_cores() {
        let bare = Tree::new();
        let topology = Topology::read(bare.root(), &[0, 1, 5]);
        assert_eq!(topology.places[2], Place { cpu: 5, core: 2, cache: 0, node: 0 });
        assert_eq!(Topology::read(bare.root(), &[]).places, []);
        // Nodes alone are told, as on machines whose firmware names no cache.
        let nodes = Machine::new(&[0, 1, 2, 3], &[], &[], &[(0, "0-1"), (1, "2-3")]);
        assert_eq!(shape(&nodes), (4, 2, 2));
    }

    // ARM servers whose kernels know no level 3: the second level is each core's own.
    #[test]
    fn a_cache_of_one_core_is_no_neighbourhood() {
        let private = Machine::new(&[0, 1, 2, 3], &["0-1", "2-3"], &["0-1", "2-3"], &[(0, "0-3")]);
        assert_eq!(shape(&private), (2, 1, 1));
    }

    #[test]
    fn lists_are_the_kernels() {
        assert_eq!(cpu_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        for malformed in ["", "\n", "x", "1-", "0-99999999999", "0-9999999"] {
            assert_eq!(cpu_list(malformed), None, "{malformed:?}");
        }
    }
}
