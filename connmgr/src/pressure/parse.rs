//! The kernel's texts. Pure, and the same on every platform, so that its tests are too.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

/// A hierarchy of control groups that accounts for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

impl Version {
    /// The files that hold the limit and what is in use.
    pub(crate) fn files(self) -> (&'static str, &'static str) {
        match self {
            Self::One => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            Self::Two => ("memory.max", "memory.current"),
        }
    }

    /// The line of `memory.stat` that counts page cache nobody has touched lately, of all groups below too.
    pub(crate) fn droppable(self) -> &'static str {
        match self {
            Self::One => "total_inactive_file",
            Self::Two => "inactive_file",
        }
    }
}

/// Where a hierarchy is mounted, and which of its groups is at the top there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) version: Version,
    pub(crate) root: String,
    pub(crate) point: String,
}

/// The hierarchies in `/proc/self/mountinfo` that may account for memory.
pub(crate) fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).collect()
}

/// `31 23 0:28 ROOT POINT options [tags] - TYPE source superoptions`
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let version = match (after.next()?, after.nth(1)) {
        ("cgroup2", _) => Version::Two,
        ("cgroup", Some(options)) if options.split(',').any(|option| option == "memory") => Version::One,
        _ => return None,
    };
    Some(Mount {
        version,
        root: unescaped(root),
        point: unescaped(point),
    })
}

/// mountinfo writes blanks as `\040`.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

/// The group of this process in a hierarchy, from `/proc/self/cgroup`: `4:memory:/path`, or `0::/path` in version 2.
pub(crate) fn group(version: Version, cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = match version {
            Version::One => controllers.split(',').any(|controller| controller == "memory"),
            Version::Two => controllers.is_empty(),
        };
        ours.then_some(path)
    })
}

/// The folders of a process's group and of all above it, the innermost first, as far as the mount shows them.
pub(crate) fn folders(mount: &Mount, group: &str) -> Vec<String> {
    // In a container the mount may begin further down than the path does.
    let below = match mount.root.as_str() {
        "/" => Some(group),
        root => group
            .strip_prefix(root)
            .filter(|rest| rest.is_empty() || rest.starts_with('/')),
    };
    let mut below = below.unwrap_or_default().trim_end_matches('/');
    // A path out of what is visible.
    if below.split('/').any(|part| part == "..") {
        below = "";
    }
    let point = mount.point.trim_end_matches('/');
    let mut folders = vec![format!("{point}{below}")];
    while let Some((above, _)) = below.rsplit_once('/') {
        below = above;
        folders.push(format!("{point}{below}"));
    }
    folders
}

/// A limit; `None` if there is none, which version 1 writes as a number that no machine has.
pub(crate) fn limit(text: &str) -> Option<u64> {
    const NONE: u64 = 1 << 60;
    number(text).filter(|limit| *limit < NONE)
}

pub(crate) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A line `name value` of `memory.stat`.
pub(crate) fn stat(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        if key == name { number(value) } else { None }
    })
}

/// Used and all bytes of the machine, from `/proc/meminfo`.
pub(crate) fn meminfo(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        number(value.trim().strip_suffix("kB")?)?.checked_mul(1024)
    };
    let total = field("MemTotal")?;
    Some((total.saturating_sub(field("MemAvailable")?), total))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime shared:9 - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:10 master:2 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn the_hierarchies_that_account_for_memory_are_found() {
        let expected = |version, point: &str| Mount {
            version,
            root: "/".to_owned(),
            point: point.to_owned(),
        };
        assert_eq!(
            mounts(HYBRID),
            [
                expected(Version::One, "/sys/fs/cgroup/memory"),
                expected(Version::Two, "/sys/fs/cgroup/unified"),
            ]
        );
        let with_blank = "30 23 0:26 /a\\040b /sys/fs/c\\040g rw - cgroup2 cgroup2 rw";
        let mount = &mounts(with_blank)[0];
        assert_eq!((mount.root.as_str(), mount.point.as_str()), ("/a b", "/sys/fs/c g"));
        for torn in [
            "",
            "31",
            "31 23 0:28",
            "31 23 0:28 / /x rw - ",
            "a b c d e f - cgroup x",
        ] {
            assert_eq!(mounts(torn), []);
        }
    }

    #[test]
    fn the_group_of_the_process_is_found_in_either_version() {
        let cgroups = "9:name=systemd:/x\n4:cpu,memory:/pod/one\n1:cpu:/other\n0::/unified:with:colons\n";
        assert_eq!(group(Version::One, cgroups), Some("/pod/one"));
        assert_eq!(group(Version::Two, cgroups), Some("/unified:with:colons"));
        assert_eq!(group(Version::Two, "4:memory:/\n"), None);
        assert_eq!(group(Version::One, "0::/\ntorn"), None);
    }

    #[test]
    fn limits_above_the_process_count_too() {
        let mount = |root: &str| Mount {
            version: Version::Two,
            root: root.to_owned(),
            point: "/sys/fs/cgroup".to_owned(),
        };
        assert_eq!(
            folders(&mount("/"), "/system.slice/node.service"),
            [
                "/sys/fs/cgroup/system.slice/node.service",
                "/sys/fs/cgroup/system.slice",
                "/sys/fs/cgroup",
            ]
        );
        assert_eq!(folders(&mount("/"), "/"), ["/sys/fs/cgroup"]);
        let docker = "/docker/abc";
        assert_eq!(folders(&mount(docker), "/docker/abc"), ["/sys/fs/cgroup"]);
        assert_eq!(
            folders(&mount(docker), "/docker/abc/inner"),
            ["/sys/fs/cgroup/inner", "/sys/fs/cgroup"]
        );
        // Not ours to see: what is mounted is the best there is.
        assert_eq!(folders(&mount(docker), "/docker/abcdef"), ["/sys/fs/cgroup"]);
        assert_eq!(folders(&mount("/"), "/../../other"), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn a_limit_that_no_machine_has_is_none() {
        assert_eq!(limit("536870912\n"), Some(536_870_912));
        for none in [
            "max\n",
            "9223372036854771712\n",
            "",
            "-1\n",
            "99999999999999999999999\n",
        ] {
            assert_eq!(limit(none), None, "{none:?}");
        }
    }

    #[test]
    fn page_cache_is_found_by_its_whole_name() {
        let text = "inactive_file 7\ntotal_inactive_file 9\nfile 3\ntorn\n";
        assert_eq!(stat(text, Version::Two.droppable()), Some(7));
        assert_eq!(stat(text, Version::One.droppable()), Some(9));
        assert_eq!(stat("active_file 1\n", Version::Two.droppable()), None);
    }

    #[test]
    fn the_machine_is_read_in_kibibytes() {
        let text = "MemTotal:       24684084 kB\nMemFree:          313636 kB\nMemAvailable:   24080868 kB\n";
        let total = 24_684_084 * 1024;
        assert_eq!(meminfo(text), Some((total - 24_080_868 * 1024, total)));
        for bad in [
            "",
            "MemTotal: 5 kB\n",
            "MemTotal: x kB\nMemAvailable: 1 kB\n",
            "MemTotal: 5\nMemAvailable: 1\n",
        ] {
            assert_eq!(meminfo(bad), None, "{bad:?}");
        }
    }
}
