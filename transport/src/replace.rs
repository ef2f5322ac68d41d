//! Replacing a file so that a reader finds the old one or the new one, whenever the writer was
//! killed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Puts `bytes` into the file at `path`, in place of what is there, readable by its owner alone. A
/// symbolic link is followed. Blocks for as long as the disk takes to make it durable.
///
/// # Errors
///
/// What was there is still there, unless its directory could not be made durable. A crash of the
/// machine may then bring the old file back.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = target(path);
    let beside = beside(&path)?;
    let written = write(&beside, bytes).and_then(|()| fs::rename(&beside, &path));
    if let Err(error) = written {
        // It may not even exist.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    sync(directory(&path))
}

/// Removes what a killed process has left of a file that it was writing. What cannot be removed is
/// in the way of nothing.
pub(crate) fn remove_leftovers(path: &Path) {
    let path = target(path);
    let (Some(start), Ok(entries)) = (start(&path), fs::read_dir(directory(&path))) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(start.as_encoded_bytes());
        let middle = rest.and_then(|rest| rest.strip_suffix(b".new"));
        if middle.is_some_and(|middle| middle.iter().all(|c| c.is_ascii_digit() || *c == b'-')) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    // As it comes into being: at no moment can anybody else open it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Where a symbolic link leads: it is the file that is to be replaced.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// `.<name>.<process>-<n>.new`: nothing else is written there.
fn beside(path: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = start(path).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    name.push(format!("{}-{next}.new", std::process::id()));
    Ok(path.with_file_name(name))
}

fn start(path: &Path) -> Option<OsString> {
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

/// Elsewhere than on Unix a directory is no file that could be opened.
#[cfg(unix)]
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("file");
        for text in ["one", "", "three"] {
            replace(&path, text.as_bytes()).expect("replaced");
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
            assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
        }
    }

    #[cfg(unix)]
    #[test]
    fn it_is_its_owners_alone_whatever_it_was_and_a_link_stays_a_link() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let folder = tempfile::tempdir().expect("a directory");
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        symlink("file", &link).expect("linked");
        replace(&link, b"new").expect("replaced");
        assert_eq!(fs::read_to_string(&path).expect("read"), "new");
        assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
        assert_eq!(
            fs::metadata(&path).expect("is there").permissions().mode() & 0o7777,
            0o600
        );
    }

    #[test]
    fn what_cannot_be_replaced_is_an_error_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("is-a-directory");
        fs::create_dir(&path).expect("made");
        replace(&path, b"new").expect_err("a directory");
        replace(&folder.path().join("nowhere/file"), b"new").expect_err("no directory");
        replace(Path::new("/"), b"new").expect_err("no name");
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("file");
        let names = [".file.17-3.new", ".file.x.new", ".file.17-3", ".other.17-3.new", "file"];
        for name in names {
            fs::write(folder.path().join(name), "").expect("written");
        }
        remove_leftovers(&path);
        let left = names.map(|name| folder.path().join(name).exists());
        assert_eq!(left, [false, true, true, true, true]);
    }
}
