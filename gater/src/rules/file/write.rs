//! Replacing a file so that whoever reads finds the old one or the new one.

use super::super::print::{Hashing, Print};
use super::super::rule::Rule;
use super::super::sets::Admission;
use super::super::snapshot::Snapshot;
use super::statement::base;
use super::{FileError, HEADER, UNTIL_END};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A member that is known at more has more lines: none may be longer than [`LONGEST_LINE`](crate::rules::line::LONGEST_LINE).
const IPS_IN_A_LINE: usize = 64;

/// The same of a list.
const NETWORKS_IN_A_LINE: usize = 64;

/// What expired comes last, and is read as any other rule.
const EXPIRED: &str = "# expired by the clock of this machine; kept in case it is wrong";

/// Puts `now` into the file at `path`, which is `target` where that is a link, if `check` lets it.
/// What was written.
pub(super) fn replace(
    path: &Path,
    target: &Path,
    now: &Snapshot,
    time: u64,
    check: impl FnOnce() -> Result<(), FileError>,
) -> Result<Print, FileError> {
    let failed = |what| {
        move |source| FileError::Io {
            path: path.to_owned(),
            what,
            source,
        }
    };
    // Now, for after the file has been replaced it is too late to say no.
    let directory = Directory::open(target).map_err(failed("open its directory"))?;
    let beside = beside(target).map_err(failed("write it"))?;
    let written = write(&beside, target, now, time, &base(path)).map_err(|(what, error)| failed(what)(error));
    // At the last moment: writing takes its time.
    let checked = written.and_then(|print| check().map(|()| print));
    let renamed = checked.and_then(|print| {
        let renamed = fs::rename(&beside, target).map_err(failed("replace it"));
        renamed.map(|()| print)
    });
    let print = match renamed {
        Ok(print) => print,
        Err(error) => {
            // It may not even exist.
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
    };
    if let Err(error) = directory.sync() {
        tracing::warn!(path = %path.display(), %error, "the directory of a file of rules could not be made durable");
    }
    Ok(print)
}

/// Where a symbolic link leads: it is the file that is to be replaced. One that leads nowhere is
/// followed to where its file is to be.
pub(super) fn target(path: &Path) -> PathBuf {
    /// As many as Linux follows.
    const LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..LINKS {
        if let Ok(found) = fs::canonicalize(&target) {
            return found;
        }
        let Ok(next) = fs::read_link(&target) else { break };
        target = directory(&target).join(next);
    }
    target
}

fn write(
    beside: &Path,
    path: &Path,
    now: &Snapshot,
    time: u64,
    base: &Path,
) -> Result<Print, (&'static str, io::Error)> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .open(beside)
        .map_err(|error| ("create a file beside it", error))?;
    // Those who could read it before, and no others, can read it afterwards.
    if let Ok(old) = fs::metadata(path) {
        if old.is_dir() {
            return Err(("replace it", io::ErrorKind::IsADirectory.into()));
        }
        let permissions = owned_as_before(&file, &old);
        file.set_permissions(permissions)
            .map_err(|error| ("give it the old permissions", error))?;
    }
    let mut to = BufWriter::with_capacity(1 << 16, Hashing::new(file));
    lines(&mut to, now, time, base).map_err(|error| ("write it", error))?;
    let written = to.into_inner().map_err(|error| ("write it", error.into_error()))?;
    written.inner().sync_all().map_err(|error| ("make it durable", error))?;
    Ok(written.print())
}

/// Gives the file the owner and the group of the old one, as far as this process may. What
/// permissions it can have then: to another group than before it gives none.
#[cfg(unix)]
fn owned_as_before(file: &File, old: &fs::Metadata) -> fs::Permissions {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
    let mut permissions = old.permissions();
    let Ok(own) = file.metadata() else { return permissions };
    if (own.uid(), own.gid()) == (old.uid(), old.gid()) {
        return permissions;
    }
    if fchown(file, Some(old.uid()), Some(old.gid())).is_err()
        && own.gid() != old.gid()
        && fchown(file, None, Some(old.gid())).is_err()
    {
        permissions.set_mode(permissions.mode() & !0o070);
    }
    permissions
}

#[cfg(not(unix))]
fn owned_as_before(_: &File, old: &fs::Metadata) -> fs::Permissions {
    old.permissions()
}

/// Sorted, so that two files of the same rules are the same, and those of two days can be compared.
/// Paths of lists are relative to `base`, where they were.
pub(super) fn lines(to: &mut impl io::Write, now: &Snapshot, time: u64, base: &Path) -> io::Result<()> {
    writeln!(to, "{HEADER} {UNTIL_END}")?;
    if now.knock_everybody {
        writeln!(to, "require-knock everybody")?;
    }
    let mut knocking: Vec<_> = now.knock_peers.iter().map(|(key, ())| *key).collect();
    knocking.sort_unstable();
    for key in knocking {
        writeln!(to, "require-knock peer {}", key.peer())?;
    }
    if now.refuse_names {
        writeln!(to, "refuse-names")?;
    }
    if now.admission != Admission::Everyone {
        writeln!(to, "admit {}", now.admission.name())?;
    }
    if let Some(caps) = &now.caps {
        write!(to, "{caps}")?;
    }
    for rate in now.rates.iter() {
        writeln!(to, "{rate}")?;
    }
    for (name, set) in now.sets.iter() {
        writeln!(to, "set {name} {}", set.standing.name())?;
        let mut members: Vec<_> = set.peers.iter().collect();
        members.sort_unstable();
        for (key, ips) in members {
            // A line of no IPs as well, for who has none.
            let (first, more) = ips.split_at(ips.len().min(IPS_IN_A_LINE));
            for ips in std::iter::once(first).chain(more.chunks(IPS_IN_A_LINE)) {
                write!(to, "member {name} {}", key.peer())?;
                for ip in ips {
                    write!(to, " {ip}")?;
                }
                writeln!(to)?;
            }
        }
    }
    for named in now.lists.values() {
        writeln!(to, "{}", named.line_in(base))?;
        if named.list.source().is_some() {
            continue;
        }
        let mut networks: Vec<_> = named.list.iter().collect();
        networks.sort_unstable();
        for networks in networks.chunks(NETWORKS_IN_A_LINE) {
            write!(to, "range {}", named.name)?;
            for network in networks {
                write!(to, " {network}")?;
            }
            writeln!(to)?;
        }
    }
    let live = |rule: &Rule| rule.until.is_none_or(|until| until > time);
    let expired = now
        .with_conditions()
        .filter(|rule| !live(rule))
        .chain(now.expired.iter());
    let mut expired: Vec<String> = expired.map(ToString::to_string).collect();
    expired.sort_unstable();
    expired.dedup();
    for rule in now.general.iter().filter(|rule| live(rule)) {
        writeln!(to, "{rule}")?;
    }
    let mut peers: Vec<_> = now.peers.iter().collect();
    peers.sort_unstable_by_key(|(key, _)| **key);
    for rule in peers
        .into_iter()
        .flat_map(|(_, rules)| rules.iter())
        .filter(|rule| live(rule))
    {
        writeln!(to, "{rule}")?;
    }
    let mut networks: Vec<_> = now.networks.iter().collect();
    networks.sort_unstable_by_key(|(range, _)| *range);
    for (range, entry) in networks {
        if entry.blocked {
            writeln!(to, "{}", Rule::block().network(range))?;
        }
        // Those that name a peer as well have been written.
        let rules = entry.rules.iter().flat_map(|rules| rules.iter());
        for rule in rules.filter(|rule| rule.peer.is_none() && live(rule)) {
            writeln!(to, "{rule}")?;
        }
    }
    let mut blocked: Vec<_> = now.blocked.iter().copied().collect();
    blocked.sort_unstable();
    for key in blocked {
        writeln!(to, "{}", Rule::block().peer(key.peer()))?;
    }
    if !expired.is_empty() {
        writeln!(to, "{EXPIRED}")?;
    }
    for rule in expired {
        writeln!(to, "{rule}")?;
    }
    writeln!(to, "end")
}

/// `.<name>.<process>-<n>.new`: nobody else writes there, and what is left can be told from what is not ours.
fn beside(path: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = prefix(path).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    name.push(format!("{}-{}.new", process(), NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(name))
}

fn process() -> u32 {
    // Where there are no processes, there are no files either, and this would panic.
    if cfg!(target_family = "wasm") {
        0
    } else {
        std::process::id()
    }
}

fn prefix(path: &Path) -> Option<OsString> {
    let mut name = OsString::from(".");
    name.push(path.file_name()?);
    name.push(".");
    Some(name)
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Of processes that were killed while they wrote. What cannot be removed is in nobody's way.
pub(super) fn remove_leftovers(path: &Path) {
    let path = target(path);
    let (Some(prefix), Ok(entries)) = (prefix(&path), fs::read_dir(directory(&path))) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let middle = name
            .as_encoded_bytes()
            .strip_prefix(prefix.as_encoded_bytes())
            .and_then(|rest| rest.strip_suffix(b".new"));
        if middle.is_some_and(|middle| middle.iter().all(|c| c.is_ascii_digit() || *c == b'-')) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Where names of files are kept. Elsewhere than on Unix it is no file that could be opened.
struct Directory {
    #[cfg(unix)]
    file: File,
}

impl Directory {
    #[cfg(unix)]
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(directory(path))?;
        Ok(Self { file })
    }

    #[cfg(unix)]
    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    #[cfg(not(unix))]
    fn open(_: &Path) -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
