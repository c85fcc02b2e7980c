//! The quota on CPU time of this process's control group and of every group around it.
//!
//! A quota on an outer group (a systemd slice, a pod) holds for all groups inside, and need not be repeated
//! there: so every level counts, from the process's own group up to the root of the mount. cgroup v1 and v2 may
//! both be mounted (hybrid); the one that has no cpu controller then has no quota files.

use super::Quota;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// The lowest quota that holds for this process, by the files below `root`; none if there is no limit.
///
/// What is missing or makes no sense is no limit: a process must be able to count its CPUs anywhere.
pub(super) fn quota(root: &Path) -> Option<Quota> {
    let groups = read(&root.join("proc/self/cgroup"))?;
    let mounts = read(&root.join("proc/self/mountinfo"))?;
    mounts
        .lines()
        .filter_map(Mount::parse)
        .flat_map(|mount| {
            let folders = mount.folders_around(own_group(&groups, mount.version));
            folders.into_iter().filter_map(move |folder| quota_in(mount.version, &root.join(folder)))
        })
        .min_by(|one, other| one.cpus.total_cmp(&other.cpus))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    V1,
    V2,
}

/// A mounted hierarchy that may have quotas.
#[derive(Debug)]
struct Mount {
    version: Version,
    /// The group that is seen at the mount point. In a container it need not be the hierarchy's root.
    group: PathBuf,
    /// The mount point, relative to the root of the file system.
    point: PathBuf,
}

impl Mount {
    /// Reads a line of mountinfo: `36 35 98:0 /group /mount/point rw master:1 - cgroup source rw,cpu,cpuacct`.
    fn parse(line: &str) -> Option<Mount> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut kind = kind.split(' ');
        let (file_system, options) = (kind.next()?, kind.nth(1)?);
        let version = match file_system {
            "cgroup2" => Version::V2,
            "cgroup" if has_cpu(options) => Version::V1,
            _ => return None,
        };
        let group = PathBuf::from(unescape(place.next()?));
        let point = PathBuf::from(unescape(place.next()?).trim_start_matches('/'));
        Some(Mount { version, group, point })
    }

    /// The folders of the process's own group and of the groups around it, innermost first.
    fn folders_around(&self, own: Option<&str>) -> Vec<PathBuf> {
        let Some(below) = own.and_then(|own| path_below(Path::new(own), &self.group)) else {
            return Vec::new();
        };
        let own = self.point.join(below);
        own.ancestors().take_while(|folder| folder.starts_with(&self.point)).map(Path::to_owned).collect()
    }
}

/// The path from the group that a mount shows to the process's own group; none if it is not inside.
///
/// Both are relative to the cgroup namespace's root. What lies outside the namespace begins with `/..`.
fn path_below(own: &Path, mounted: &Path) -> Option<PathBuf> {
    let up = |part: Component| part == Component::ParentDir;
    match own.strip_prefix(mounted) {
        Ok(below) if below.components().any(up) => None,
        Ok(below) => Some(below.to_owned()),
        // `/../..`: the mount shows a group around the namespace. The groups between have no name in here, but
        // the quota of the mounted one holds.
        Err(_) if mounted.components().skip(1).all(up) => Some(PathBuf::new()),
        Err(_) => None,
    }
}

/// This process's group in a hierarchy, from lines like `4:cpu,cpuacct:/group` (v1) and `0::/group` (v2).
fn own_group(groups: &str, version: Version) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let wanted = match version {
            Version::V1 => has_cpu(controllers),
            Version::V2 => hierarchy == "0" && controllers.is_empty(),
        };
        wanted.then_some(path)
    })
}

fn has_cpu(list: &str) -> bool {
    list.split(',').any(|word| word == "cpu")
}

/// The quota in the files of one group.
fn quota_in(version: Version, folder: &Path) -> Option<Quota> {
    let (file, text) = match version {
        Version::V2 => {
            let file = folder.join("cpu.max");
            let text = read(&file)?;
            (file, text)
        }
        Version::V1 => {
            let file = folder.join("cpu.cfs_quota_us");
            let quota = read(&file)?;
            if quota.starts_with('-') {
                return None;
            }
            let text = format!("{quota} {}", read(&folder.join("cpu.cfs_period_us"))?);
            (file, text)
        }
    };
    Some(Quota { cpus: parse_quota(&text)?, file })
}

/// CPUs from `quota period`, both in microseconds. `max` and `-1` are no limit, and so is anything malformed.
fn parse_quota(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().ok().filter(|n| *n > 0));
    let (quota, period) = (numbers.next()??, numbers.next()??);
    Some(quota as f64 / period as f64)
}

/// Undoes the kernel's escapes of blanks and backslashes in mountinfo. The backslash comes last.
fn unescape(path: &str) -> String {
    path.replace(r"\040", " ").replace(r"\011", "\t").replace(r"\012", "\n").replace(r"\134", r"\")
}

/// The file's text. A line that is not UTF-8, such as some other mount's, must not hide the rest.
fn read(file: &Path) -> Option<String> {
    // These files do not know their size: with room from the start, and without asking for it (`take`), most are read at once.
    let mut bytes = Vec::with_capacity(8 << 10);
    File::open(file).ok()?.take(u64::MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tree::Tree;
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1_CPU: &str = "33 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";

    fn tree(own_groups: &str, mounts: &str, files: &[(&str, &str)]) -> Tree {
        let tree = Tree::new();
        tree.write("proc/self/cgroup", own_groups);
        // Lines of other file systems stand around them, as everywhere.
        tree.write(
            "proc/self/mountinfo",
            &format!("22 27 0:21 / /proc rw - proc proc rw\n{mounts}31 23 0:28 / /tmp rw - tmpfs tmpfs rw\n"),
        );
        for (file, text) in files {
            tree.write(&format!("sys/fs/cgroup/{file}"), text);
        }
        tree
    }

    /// Whole CPUs and the file that says so, relative to `/sys/fs/cgroup`.
    fn limit(tree: &Tree) -> Option<(i32, String)> {
        let quota = quota(tree.root())?;
        let file = quota.file.strip_prefix(tree.root().join("sys/fs/cgroup")).unwrap();
        Some((quota.whole_cpus(), file.to_str().unwrap().to_owned()))
    }

    fn found(cpus: i32, file: &str) -> Option<(i32, String)> {
        Some((cpus, file.to_owned()))
    }

    // loky reads the root of the mount only (loky#634: quotas of systemd slices are missed).
    #[test]
    fn the_lowest_quota_of_all_ancestors_holds() {
        let slices = "user.slice/user-7.slice/run-1.scope";
        let files = [
            ("user.slice/cpu.max", "800000 100000\n"),
            ("user.slice/user-7.slice/cpu.max", "150000 100000\n"),
            ("user.slice/user-7.slice/run-1.scope/cpu.max", "max 100000\n"),
            ("other.slice/cpu.max", "100000 100000\n"),
        ];
        let tree = tree(&format!("0::/{slices}\n"), V2, &files);
        assert_eq!(limit(&tree), found(2, "user.slice/user-7.slice/cpu.max"));
        tree.write(&format!("sys/fs/cgroup/{slices}/cpu.max"), "50000 100000\n");
        assert_eq!(limit(&tree), found(1, &format!("{slices}/cpu.max")));
    }

    #[test]
    fn in_a_namespace_the_mount_itself_is_the_own_group() {
        let tree = tree("0::/\n", V2, &[("cpu.max", "250000 100000\n")]);
        assert_eq!(limit(&tree), found(3, "cpu.max"));
    }

    #[test]
    fn a_quota_is_rounded_up() {
        let whole = |text| Quota { cpus: parse_quota(text).unwrap(), file: PathBuf::new() }.whole_cpus();
        assert_eq!(whole("50000 100000"), 1);
        assert_eq!(whole("1000 100000"), 1);
        assert_eq!(whole("100000 100000"), 1);
        assert_eq!(whole("150000 100000\n"), 2);
        assert_eq!(whole("300000 100000"), 3);
        assert_eq!(whole("18446744073709551615 1"), i32::MAX);
    }

    // loky#478: an empty cpu.max crashed it.
    #[test]
    fn what_is_empty_or_malformed_is_no_limit() {
        for text in [
            "",
            "\n",
            "max 100000",
            "-1 100000",
            "0 100000",
            "100000",
            "100000 0",
            "x 100000",
            "100000 x",
            "1e5 1e5",
        ] {
            let tree = tree("0::/a\n", V2, &[("a/cpu.max", text)]);
            assert_eq!(limit(&tree), None, "{text:?}");
        }
    }

    #[test]
    fn version_1_has_two_files_and_minus_one_for_no_limit() {
        let files = [
            ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("cpu,cpuacct/batch/cpu.cfs_quota_us", "75000\n"),
            ("cpu,cpuacct/batch/cpu.cfs_period_us", "50000\n"),
            ("cpu,cpuacct/batch/job/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/batch/job/cpu.cfs_period_us", "100000\n"),
        ];
        let tree = tree("9:name=systemd:/\n4:cpu,cpuacct:/batch/job\n3:cpuset:/elsewhere\n", V1_CPU, &files);
        assert_eq!(limit(&tree), found(2, "cpu,cpuacct/batch/cpu.cfs_quota_us"));
    }

    #[test]
    fn the_accounting_controller_alone_is_not_the_cpu_controller() {
        let mount = "33 32 0:29 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n";
        let files = [("cpuacct/cpu.cfs_quota_us", "100000"), ("cpuacct/cpu.cfs_period_us", "100000")];
        assert_eq!(limit(&tree("4:cpuacct:/\n", mount, &files)), None);
    }

    #[test]
    fn hybrid_systems_have_the_quota_in_either_version() {
        let unified = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified");
        let files = [
            ("unified/user.slice/cgroup.procs", ""),
            ("cpu,cpuacct/user.slice/cpu.cfs_quota_us", "400000"),
            ("cpu,cpuacct/user.slice/cpu.cfs_period_us", "100000"),
        ];
        let tree = tree("4:cpu,cpuacct:/user.slice\n0::/user.slice\n", &format!("{V1_CPU}{unified}"), &files);
        assert_eq!(limit(&tree), found(4, "cpu,cpuacct/user.slice/cpu.cfs_quota_us"));
        tree.write("sys/fs/cgroup/unified/user.slice/cpu.max", "300000 100000");
        assert_eq!(limit(&tree), found(3, "unified/user.slice/cpu.max"));
    }

    // Docker without a cgroup namespace: the paths are the host's, the mount shows the container's group.
    #[test]
    fn a_container_sees_its_group_at_the_mount_point() {
        let mount = V1_CPU.replace(" / /sys", " /docker/4f /sys");
        let files = [
            ("cpu,cpuacct/cpu.cfs_quota_us", "200000"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000"),
            ("cpu,cpuacct/inner/cpu.cfs_quota_us", "-1"),
            ("cpu,cpuacct/inner/cpu.cfs_period_us", "100000"),
        ];
        let in_group = |own: &str| tree(&format!("4:cpu,cpuacct:{own}\n"), &mount, &files);
        assert_eq!(limit(&in_group("/docker/4f")), found(2, "cpu,cpuacct/cpu.cfs_quota_us"));
        assert_eq!(limit(&in_group("/docker/4f/inner")), found(2, "cpu,cpuacct/cpu.cfs_quota_us"));
        assert_eq!(limit(&in_group("/docker/4f0")), None, "another container's mount says nothing about us");
    }

    #[test]
    fn groups_outside_the_namespace_are_followed_as_far_as_they_have_names() {
        let below = |own: &str, mounted: &str| path_below(Path::new(own), Path::new(mounted));
        assert_eq!(below("/../sibling/a", "/.."), Some("sibling/a".into()));
        assert_eq!(below("/", "/../.."), Some("".into()), "the mount is around us");
        assert_eq!(below("/a", "/.."), Some("".into()));
        assert_eq!(below("/../sibling", "/"), None, "the mount is beside us");
        assert_eq!(below("/../a", "/../b"), None);
    }

    #[test]
    fn mount_points_may_have_blanks() {
        let mount = V2.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/a\040b\134040");
        let tree = tree("0::/\n", &mount, &[("a b\\040/cpu.max", "100000 100000")]);
        assert_eq!(limit(&tree), found(1, "a b\\040/cpu.max"));
    }

    #[test]
    fn a_colon_in_a_group_name_is_part_of_the_name() {
        let tree = tree("0::/cri:pod:7\n", V2, &[("cri:pod:7/cpu.max", "100000 100000")]);
        assert_eq!(limit(&tree), found(1, "cri:pod:7/cpu.max"));
    }

    #[test]
    fn missing_files_are_no_limit() {
        assert_eq!(quota(Tree::new().root()), None);
        assert_eq!(limit(&tree("0::/gone\n", V2, &[])), None);
        assert_eq!(limit(&tree("", V2, &[("cpu.max", "100000 100000")])), None);
        assert_eq!(limit(&tree("0::/\n", "", &[("cpu.max", "100000 100000")])), None);
    }
}
