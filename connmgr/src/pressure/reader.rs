//! Reads what `parse` understands.

use super::gauge::Usage;
use super::parse;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the files are, found once; what they say is read each time, for limits change too.
#[derive(Debug)]
pub(crate) struct Reader {
    groups: Vec<Group>,
    meminfo: PathBuf,
}

#[derive(Debug)]
struct Group {
    version: parse::Version,
    folder: PathBuf,
}

impl Reader {
    /// `root` is `/`, but for tests.
    pub(crate) fn new(root: &Path) -> Self {
        let proc = root.join("proc");
        let text = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
        let cgroups = text("self/cgroup");
        let mut groups = Vec::new();
        for mount in parse::mounts(&text("self/mountinfo")) {
            let Some(group) = parse::group(mount.version, &cgroups) else {
                continue;
            };
            groups.extend(parse::folders(&mount, group).into_iter().map(|folder| Group {
                version: mount.version,
                folder: root.join(folder.trim_start_matches('/')),
            }));
        }
        Self {
            groups,
            meminfo: proc.join("meminfo"),
        }
    }

    /// The fullest of all. An error if not even the machine's memory can be read.
    pub(crate) fn read(&self) -> io::Result<Usage> {
        let text = fs::read_to_string(&self.meminfo)?;
        let (used, total) = parse::meminfo(&text).ok_or(io::ErrorKind::InvalidData)?;
        let machine = Usage::new(used, total);
        let groups = self.groups.iter().filter_map(Group::read);
        // A limit above what the machine has is none.
        Ok(groups
            .filter(|usage| usage.limit < total)
            .fold(machine, |fullest, usage| {
                if usage.fraction() > fullest.fraction() {
                    usage
                } else {
                    fullest
                }
            }))
    }
}

impl Group {
    /// `None` without a limit, or if the group is gone.
    fn read(&self) -> Option<Usage> {
        let text = |name: &str| fs::read_to_string(self.folder.join(name)).ok();
        let (limit, current) = self.version.files();
        let limit = parse::limit(&text(limit)?)?;
        let current = parse::number(&text(current)?)?;
        let droppable = text("memory.stat").and_then(|text| parse::stat(&text, self.version.droppable()));
        Some(Usage::new(current.saturating_sub(droppable.unwrap_or(0)), limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const MIB: u64 = 1 << 20;

    /// A folder with files as the kernel lays them out. Removed in the end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let tree = Self(std::env::temp_dir().join(format!("connmgr-pressure-{}-{number}", std::process::id())));
            tree.write("proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 943718 kB\n");
            for (path, text) in files {
                tree.write(path, text);
            }
            tree
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn read(&self) -> Usage {
            Reader::new(&self.0).read().unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const VERSION_2: &[(&str, &str)] = &[
        (
            "proc/self/mountinfo",
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        ),
        ("proc/self/cgroup", "0::/slice/node\n"),
        ("sys/fs/cgroup/slice/node/memory.max", "536870912\n"),
        ("sys/fs/cgroup/slice/node/memory.current", "418381824\n"),
        (
            "sys/fs/cgroup/slice/node/memory.stat",
            "anon 1\ninactive_file 104857600\n",
        ),
        ("sys/fs/cgroup/slice/memory.max", "max\n"),
        ("sys/fs/cgroup/slice/memory.current", "418381824\n"),
    ];

    #[test]
    fn a_group_of_version_2_is_read_without_the_cache_that_can_be_dropped() {
        let tree = Tree::new(VERSION_2);
        assert_eq!(tree.read(), Usage::new(299 * MIB, 512 * MIB));
    }

    #[test]
    fn a_tighter_group_further_up_counts() {
        let tree = Tree::new(VERSION_2);
        tree.write("sys/fs/cgroup/slice/memory.max", "419430400\n");
        assert_eq!(tree.read(), Usage::new(399 * MIB, 400 * MIB));
    }

    #[test]
    fn a_group_of_version_1_is_read_beside_a_hierarchy_of_version_2_without_memory() {
        let mountinfo = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                         41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let tree = Tree::new(&[
            ("proc/self/mountinfo", mountinfo),
            ("proc/self/cgroup", "4:memory:/node\n0::/\n"),
            ("sys/fs/cgroup/memory/node/memory.limit_in_bytes", "104857600\n"),
            ("sys/fs/cgroup/memory/node/memory.usage_in_bytes", "94371840\n"),
            (
                "sys/fs/cgroup/memory/node/memory.stat",
                "inactive_file 1\ntotal_inactive_file 10485760\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "999999999999\n"),
        ]);
        assert_eq!(tree.read(), Usage::new(80 * MIB, 100 * MIB));
    }

    #[test]
    fn without_a_group_or_with_a_roomier_one_the_machine_counts() {
        let machine = Usage::new((1_048_576 - 943_718) * 1024, 1024 * MIB);
        assert_eq!(Tree::new(&[]).read(), machine);
        let tree = Tree::new(VERSION_2);
        // More than the machine has, so that this is no limit, however full.
        tree.write("sys/fs/cgroup/slice/node/memory.max", "2147483648\n");
        tree.write("sys/fs/cgroup/slice/node/memory.current", "2147483648\n");
        assert_eq!(tree.read(), machine);
    }

    #[test]
    fn a_machine_that_shows_nothing_is_an_error() {
        let tree = Tree::new(&[]);
        tree.write("proc/meminfo", "nothing\n");
        assert_eq!(
            Reader::new(&tree.0).read().unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(
            Reader::new(Path::new("/nowhere")).read().unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn this_machine_can_be_read() {
        let usage = Reader::new(Path::new("/")).read().unwrap();
        assert!(usage.limit > 0);
        // This very process takes some.
        assert!(usage.used > MIB, "{usage:?}");
    }
}
