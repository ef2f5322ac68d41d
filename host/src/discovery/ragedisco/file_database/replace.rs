//! Replacing a file, so that a reader finds the old one or the new one, whole, whatever happens in
//! between.
//!
//! A symbolic link stays: what it leads to is replaced. The new file has the mode and the owner of
//! the old one; where there was none, it is its owner's alone. Only a regular file is replaced.

use super::FileDatabaseError;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Links that lead to links, at most: as many as Linux follows.
const LINKS: usize = 40;

/// Puts a file with this content where `path` is, or where it leads to.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), FileDatabaseError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| FileDatabaseError::Io { action, path, source }
    };
    let target = target(path).map_err(failed("cannot follow", path))?;
    let old = replaceable(&target).map_err(failed("cannot replace", &target))?;
    // Now, for after the file has been replaced it is too late to say no.
    let directory = Directory::open(&target).map_err(failed("cannot open the directory of", &target))?;
    let beside = beside(&target).map_err(failed("cannot replace", &target))?;
    let file = create(&beside).map_err(failed("cannot create", &beside))?;
    let written = write(file, old.as_ref(), content).map_err(failed("cannot write", &beside));
    let replaced = written.and_then(|()| fs::rename(&beside, &target).map_err(failed("cannot replace", &target)));
    if replaced.is_err() {
        let _ = fs::remove_file(&beside);
        return replaced;
    }
    // It has been replaced, and is as durable as the system makes it.
    if let Err(error) = directory.sync() {
        tracing::warn!(path = %target.display(), %error, "the directory of a file of announcements could not be synced");
    }
    Ok(())
}

/// Removes what processes have left that were killed while they replaced `path`. What cannot be
/// removed does no harm.
pub(super) fn remove_leftovers(path: &Path) {
    let Ok(path) = target(path) else { return };
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

/// Where symbolic links lead, whether there is a file or not.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let leads = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => fs::read_link(&path)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => return Ok(path),
        };
        path = directory(&path).join(leads);
    }
    Err(io::Error::other("too many symbolic links"))
}

/// What is known of the old file; nothing if there is none.
fn replaceable(target: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(target) {
        Ok(old) if old.is_file() => Ok(Some(old)),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn create(beside: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    // No other user reads it before it has its final mode.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(beside)
}

fn write(mut file: File, old: Option<&Metadata>, content: &[u8]) -> io::Result<()> {
    if let Some(old) = old {
        become_as(&file, old)?;
    }
    file.write_all(content)?;
    file.sync_all()
}

/// Gives the new file to the users that could read and write the old one, and to no others.
#[cfg(unix)]
fn become_as(file: &File, old: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
    let ours = file.metadata()?;
    let mut mode = old.mode() & 0o777;
    let same = (ours.uid(), ours.gid()) == (old.uid(), old.gid());
    // Only root may give a file away: where the owner cannot stay, its group may.
    if !same && fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
        let kept = ours.gid() == old.gid() || fchown(file, None, Some(old.gid())).is_ok();
        if !kept {
            // Another group may do what everybody may.
            let group = mode >> 3 & mode & 0o007;
            mode = mode & 0o707 | group << 3;
        }
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn become_as(file: &File, old: &Metadata) -> io::Result<()> {
    file.set_permissions(old.permissions())
}

/// `.<name>.<process>-<n>.new`: no other process writes there, and what is left can be told from
/// what is not ours.
fn beside(path: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = prefix(path).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let (process, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    name.push(format!("{process}-{n}.new"));
    Ok(path.with_file_name(name))
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
