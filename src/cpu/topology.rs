//! Which CPUs are hardware threads of the same core.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

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
    let folder = root.join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
    // The second is the name before Linux 5.3.
    ["core_cpus_list", "thread_siblings_list"]
        .iter()
        .find_map(|name| fs::read_to_string(folder.join(name)).ok())
        .map(|list| list.trim().to_owned())
        .filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
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
}
