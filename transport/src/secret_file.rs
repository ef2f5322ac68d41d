//! Files of secrets: who else may read them is looked at in one place.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// No file of a secret is larger.
const LARGEST: u64 = 64 * 1024;

/// A file of a secret that is not read. Its text names the file and says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFileError {
    /// The system says no: there is no such file, or this process may not read it.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Other users than its owner can read or write it, so the secret may be known.
    #[error(
        "{}: mode {mode:04o} of group {group} lets others in: expected 0600, or 0640 or 0440 of a group of this process, \
         and a new secret if others could read it. To mend the mode: chmod 600 {}",
        path.display(),
        for_a_shell(path)
    )]
    Permissions {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The id of its group.
        group: u32,
    },
    /// It is a directory, a pipe or a device.
    #[error("{}: not a file", path.display())]
    NotAFile {
        /// What.
        path: PathBuf,
    },
    /// It has more than 65,536 bytes.
    #[error("{}: expected a secret of at most {LARGEST} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
}

impl SecretFileError {
    /// Whether there is no such file, so that one can be made.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What is in the file at `path`, which is a secret: a key, a network's secret, a seed.
/// [`Network::from_file`](crate::Network::from_file) and [`keypair_from_file`](crate::keypair_from_file) read this way too.
///
/// On Unix the file must be closed to others, as ssh and PostgreSQL want it:
///
/// | mode | is read |
/// | --- | --- |
/// | 0600, 0400 | always |
/// | 0640, 0440 | if the file's group is the process's own: its effective group, or one of its supplementary groups, as Kubernetes' `fsGroup` is |
/// | any other with a bit for group or others | never |
///
/// A symbolic link is followed. The open file is looked at, so what is checked is what is read. On other systems nothing is checked.
/// At most 65,536 bytes; blocks for as long as the disk takes.
///
/// # Errors
///
/// [`SecretFileError`], naming the file. The secret is in none of them.
pub fn read_secret_file(path: impl AsRef<Path>) -> Result<Vec<u8>, SecretFileError> {
    let path = path.as_ref();
    let at = || path.to_owned();
    let failed = |source| SecretFileError::Io { path: at(), source };
    // First, as to open a pipe is to wait for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretFileError::NotAFile { path: at() });
    }
    let file = File::open(path).map_err(failed)?;
    if let Some((mode, group)) = open_to_others(&file).map_err(failed)? {
        return Err(SecretFileError::Permissions {
            path: at(),
            mode,
            group,
        });
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(SecretFileError::TooLarge { path: at() }),
        false => Ok(bytes),
    }
}

/// The path as a shell takes it: what mends the mode can be pasted as it is.
fn for_a_shell(path: &Path) -> String {
    let path = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if path.chars().all(is_plain) {
        return path.into_owned();
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// Its mode and its group, if others than its owner and this process's group have access.
#[cfg(unix)]
fn open_to_others(file: &File) -> io::Result<Option<(u32, u32)>> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = file.metadata()?;
    let (mode, group) = (metadata.mode() & 0o7777, metadata.gid());
    Ok((!is_closed(mode, || is_own(group))).then_some((mode, group)))
}

#[cfg(not(unix))]
fn open_to_others(_: &File) -> io::Result<Option<(u32, u32)>> {
    Ok(None)
}

#[cfg(unix)]
fn is_closed(mode: u32, is_own: impl FnOnce() -> bool) -> bool {
    match mode & 0o077 {
        0 => true,
        0o040 => matches!(mode & 0o700, 0o600 | 0o400) && is_own(),
        _ => false,
    }
}

#[cfg(unix)]
fn is_own(group: u32) -> bool {
    let own = rustix::process::getegid().as_raw() == group;
    own || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|other| other.as_raw() == group))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write as _;

    /// A file of `bytes`, with that mode where there are modes.
    pub(crate) fn written(bytes: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("written");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            file.as_file()
                .set_permissions(fs::Permissions::from_mode(mode))
                .expect("set");
        }
        let _ = mode;
        file
    }

    #[cfg(unix)]
    #[test]
    fn a_mode_is_closed_to_others_or_open_to_a_group_of_the_process_alone() {
        for mode in 0..=0o7777 {
            let for_own = is_closed(mode, || true);
            let for_others = is_closed(mode, || false);
            assert_eq!(for_others, mode & 0o077 == 0, "{mode:04o}");
            let readable = matches!(mode & 0o777, 0o640 | 0o440);
            assert_eq!(for_own, for_others || readable, "{mode:04o}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_of_the_process_s_own_group_is_read_and_one_that_others_can_read_is_not() {
        for mode in [0o600, 0o400, 0o640, 0o440] {
            let file = written(b"secret", mode);
            assert_eq!(
                read_secret_file(file.path()).expect("closed to others"),
                b"secret",
                "{mode:04o}"
            );
        }
        for mode in [0o644, 0o604, 0o660, 0o620, 0o622, 0o750, 0o666] {
            let file = written(b"secret", mode);
            let error = read_secret_file(file.path()).expect_err("open to others");
            assert!(matches!(error, SecretFileError::Permissions { mode: found, .. } if found == mode));
            let (said, path) = (error.to_string(), file.path().display());
            assert!(
                said.starts_with(&format!("{path}: mode {mode:04o} of group ")),
                "{said}"
            );
            assert!(said.contains(&format!("chmod 600 {path}")), "{said}");
        }
    }

    /// Root can give a file to a group that is not its own; others cannot, and then nothing is shown.
    #[cfg(unix)]
    #[test]
    fn a_secret_of_another_group_is_refused() {
        const OTHER: u32 = 65_533;
        let file = written(b"secret", 0o640);
        if std::os::unix::fs::chown(file.path(), None, Some(OTHER)).is_err() {
            return;
        }
        let error = read_secret_file(file.path()).expect_err("another group's");
        assert!(
            matches!(
                error,
                SecretFileError::Permissions {
                    mode: 0o640,
                    group: OTHER,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_file_and_what_is_too_large_is_refused_and_nothing_waits() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = read_secret_file(directory.path()).expect_err("a directory");
        assert!(matches!(error, SecretFileError::NotAFile { .. }), "{error}");
        #[cfg(unix)]
        {
            let error = read_secret_file("/dev/null").expect_err("a device");
            assert!(matches!(error, SecretFileError::NotAFile { .. }), "{error}");
        }
        let missing = read_secret_file(directory.path().join("none")).expect_err("not there");
        assert!(missing.is_not_found(), "{missing}");
        let large = written(&vec![0; 65_537], 0o600);
        let error = read_secret_file(large.path()).expect_err("too large");
        assert!(matches!(error, SecretFileError::TooLarge { .. }), "{error}");
        assert_eq!(
            read_secret_file(written(&[1; 65_536], 0o600).path())
                .expect("fits")
                .len(),
            65_536
        );
    }
}
