//! For tests: machines of all shapes, as the kernel would tell of them.

use super::topology::Topology;
use super::tree::Tree;

/// A machine, as a tree of the kernel's files.
pub(super) struct Machine {
    pub(super) tree: Tree,
    /// The CPUs of the affinity mask, in ascending order.
    pub(super) allowed: Vec<usize>,
}

impl Machine {
    /// A machine with these CPUs online. The lists are those of its cores, last-level caches and nodes.
    pub(super) fn new(online: &[usize], cores: &[&str], caches: &[&str], nodes: &[(u32, &str)]) -> Machine {
        let tree = Tree::new();
        let list = online.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        tree.write("sys/devices/system/cpu/online", &format!("{list}\n"));
        for cpu in online {
            let folder = format!("sys/devices/system/cpu/cpu{cpu}");
            let write =
                |file: &str, text: &str| tree.write(&format!("{folder}/{file}"), &format!("{text}\n"));
            if let Some(core) = list_with(cores, *cpu) {
                write("topology/core_cpus_list", core);
            }
            if let Some(shared) = list_with(caches, *cpu) {
                // The last level need not come last, and instruction caches are none.
                let levels = [("1", "Data"), ("3", "Unified"), ("2", "Unified"), ("4", "Instruction")];
                for (index, (level, kind)) in levels.into_iter().enumerate() {
                    write(&format!("cache/index{index}/level"), level);
                    write(&format!("cache/index{index}/type"), kind);
                    let own = cpu.to_string();
                    let sharers = if level == "3" { shared } else { &own };
                    write(&format!("cache/index{index}/shared_cpu_list"), sharers);
                }
            }
        }
        for (node, list) in nodes {
            tree.write(&format!("sys/devices/system/node/node{node}/cpulist"), &format!("{list}\n"));
        }
        tree.write("sys/devices/system/node/possible", "0-1\n");
        Machine { tree, allowed: online.to_vec() }
    }

    /// What is read of the allowed CPUs.
    pub(super) fn topology(&self) -> Topology {
        Topology::read(self.tree.root(), &self.allowed)
    }
}

fn list_with<'a>(lists: &[&'a str], cpu: usize) -> Option<&'a str> {
    lists.iter().copied().find(|list| {
        list.split(',').any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse().unwrap()..=last.parse().unwrap()).contains(&cpu)
        })
    })
}

fn texts(lists: &[String]) -> Vec<&str> {
    lists.iter().map(String::as_str).collect()
}

/// Two cores behind one cache.
pub(super) fn two_cores() -> Machine {
    Machine::new(&[0, 1], &["0", "1"], &["0-1"], &[(0, "0-1")])
}

/// Two sockets with two caches each, four cores behind each, two threads in each core: CPU c and c + 16.
pub(super) fn two_sockets() -> Machine {
    let cores: Vec<_> = (0..16).map(|core| format!("{core},{}", core + 16)).collect();
    let caches: Vec<_> = (0..16).step_by(4).map(|c| format!("{c}-{},{}-{}", c + 3, c + 16, c + 19)).collect();
    let nodes = [(0, "0-7,16-23"), (1, "8-15,24-31")];
    Machine::new(&(0..32).collect::<Vec<_>>(), &texts(&cores), &texts(&caches), &nodes)
}

/// AMD's way: eight caches with four cores behind each, in one node.
pub(super) fn eight_caches() -> Machine {
    let cores: Vec<_> = (0..32).map(|core| core.to_string()).collect();
    let caches: Vec<_> = (0..32).step_by(4).map(|cpu| format!("{cpu}-{}", cpu + 3)).collect();
    Machine::new(&(0..32).collect::<Vec<_>>(), &texts(&cores), &texts(&caches), &[(0, "0-31")])
}

/// Two fast cores of two threads, four slow ones of one, behind one cache.
pub(super) fn hybrid() -> Machine {
    let cores = ["0-1", "2-3", "4", "5", "6", "7"];
    Machine::new(&(0..8).collect::<Vec<_>>(), &cores, &["0-7"], &[(0, "0-7")])
}
