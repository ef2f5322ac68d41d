//! Replacing a file so that a reader finds the old one or the new one, whenever the writer was
//! killed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Links that lead to links, at most: as many as Linux follows.
const LINKS: usize = 40;

/// Puts `bytes` into the file at `path`, in place of what is there, readable by its owner alone. A
/// symbolic link is followed, also to where there is no file yet. Nothing but a regular file is
/// replaced. Blocks for as long as the disk takes to make it durable.
///
/// # Errors
///
/// What was there is still there, unless its directory could not be made durable. A crash of the
/// machine may then bring the old file back.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = target(path)?;
    is_replaceable(&path)?;
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
    let Ok(path) = target(path) else { return };
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

/// Where symbolic links lead, whether there is a file or not: that is what is to be replaced.
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
    Err(io::Error::other("too many symbolic links: expected 40 at most"))
}

fn is_replaceable(target: &Path) -> io::Result<()> {
    match fs::symlink_metadata(target) {
        Ok(old) if old.is_file() => Ok(()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
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

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_yet_stays_a_link() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a directory");
        let [link, next] = ["link", "next"].map(|name| folder.path().join(name));
        fs::create_dir(folder.path().join("elsewhere")).expect("made");
        symlink("next", &link).expect("linked");
        symlink("elsewhere/file", &next).expect("linked");
        for text in ["first", "second"] {
            replace(&link, text.as_bytes()).expect("replaced");
            assert_eq!(
                fs::read_to_string(folder.path().join("elsewhere/file")).expect("read"),
                text
            );
            for link in [&link, &next] {
                assert!(fs::symlink_metadata(link).expect("is there").is_symlink());
            }
        }
        symlink("round", folder.path().join("round")).expect("linked");
        replace(&folder.path().join("round"), b"new").expect_err("it leads nowhere");
    }

    #[cfg(unix)]
    #[test]
    fn nothing_but_a_regular_file_is_replaced() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        replace(&path, b"new").expect_err("a socket");
        assert!(!fs::symlink_metadata(&path).expect("is there").is_file());
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
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
