//! A private network's name and secret in a file that only its owner can read.

use crate::knock::v3::{Network, NetworkError};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A network file that cannot be used. Says where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkFileError {
    /// It cannot be read.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner can read or write it, so its secret may be known.
    #[error("{}: mode {mode:04o} lets others in, want 0600 (chmod 600, and a new secret if it was ever shared)", path.display())]
    Permissions {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line is not what belongs there.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Name and secret can be read and are no network.
    #[error("{}: no network", path.display())]
    Network {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: NetworkError,
    },
}

impl Network {
    /// Reads a private network from a file of two lines, `name: <text>` and `secret: <64 hexadecimal digits>`, and any
    /// number of empty ones and of comments (`#`). On Unix nobody but its owner may have any access to it.
    ///
    /// ```text
    /// # testnet, secret of 2026
    /// name: testnet-7
    /// secret: 8f1c…
    /// ```
    ///
    /// # Errors
    ///
    /// [`NetworkFileError`], naming the file and the line. The secret is in none of them.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, NetworkFileError> {
        let path = path.as_ref();
        let failed = |source| NetworkFileError::Io {
            path: path.to_owned(),
            source,
        };
        // Of the open file, so that what is checked is what is read.
        let file = fs::File::open(path).map_err(failed)?;
        if let Some(mode) = open_to_others(&file).map_err(failed)? {
            return Err(NetworkFileError::Permissions {
                path: path.to_owned(),
                mode,
            });
        }
        let text = io::read_to_string(file).map_err(failed)?;
        let (name, secret) = parse(&text).map_err(|(line, problem)| NetworkFileError::Line {
            path: path.to_owned(),
            line,
            problem,
        })?;
        Self::private(name.as_bytes(), &secret).map_err(|source| NetworkFileError::Network {
            path: path.to_owned(),
            source,
        })
    }
}

#[cfg(unix)]
fn open_to_others(file: &fs::File) -> io::Result<Option<u32>> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = file.metadata()?.mode() & 0o7777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

#[cfg(not(unix))]
fn open_to_others(_: &fs::File) -> io::Result<Option<u32>> {
    Ok(None)
}

fn parse(text: &str) -> Result<(&str, [u8; 32]), (usize, &'static str)> {
    let (mut name, mut secret) = (None, None);
    let mut last = 1;
    for (at, line) in text.lines().enumerate() {
        last = at + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |problem| (at + 1, problem);
        let (key, value) = line
            .split_once(':')
            .ok_or_else(|| wrong("want `name: …` or `secret: …`"))?;
        match key.trim() {
            "name" if name.is_none() => name = Some(value.trim()),
            "secret" if secret.is_none() => {
                secret = Some(hex(value.trim()).ok_or_else(|| wrong("a secret is 64 hexadecimal digits"))?);
            }
            "name" | "secret" => return Err(wrong("said before")),
            _ => return Err(wrong("want `name: …` or `secret: …`")),
        }
    }
    match (name, secret) {
        (Some(name), Some(secret)) => Ok((name, secret)),
        (None, _) => Err((last, "no `name: …` up to the end")),
        (_, None) => Err((last, "no `secret: …` up to the end")),
    }
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn written(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let permissions = fs::Permissions::from_mode(mode);
            file.as_file().set_permissions(permissions).expect("set");
        }
        file
    }

    fn good() -> String {
        format!("# ours\n\nname: testnet-7\nsecret: {}\n", "Ab".repeat(32))
    }

    #[test]
    fn a_name_and_a_secret_make_a_network() {
        let file = written(&good(), 0o600);
        let network = Network::from_file(file.path()).expect("in order");
        assert_eq!(network.name(), Some(&b"testnet-7"[..]));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        for mode in [0o640, 0o604, 0o622, 0o666] {
            let file = written(&good(), mode);
            match Network::from_file(file.path()) {
                Err(NetworkFileError::Permissions { mode: found, .. }) => assert_eq!(found, mode),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_the_secret() {
        let secret = "cd".repeat(32);
        for (text, at) in [
            (format!("name: a\nsecret: {secret}0\n"), 2),
            (format!("name: a\nsecret: g{}\n", &secret[1..]), 2),
            (format!("name: a\nname: b\nsecret: {secret}\n"), 2),
            (format!("secret: {secret}\nname a\n"), 2),
            (format!("# no name\nsecret: {secret}\n"), 2),
            ("name: a\n".to_owned(), 1),
            (String::new(), 1),
        ] {
            let file = written(&text, 0o600);
            let error = Network::from_file(file.path()).expect_err("wrong");
            let NetworkFileError::Line { line, .. } = &error else {
                panic!("{error:?}");
            };
            assert_eq!(*line, at, "{error}");
            assert!(!format!("{error}{error:?}").contains("cdcd"), "{error:?}");
        }
        let zeros = written(&format!("name: a\nsecret: {}\n", "00".repeat(32)), 0o600);
        assert!(matches!(
            Network::from_file(zeros.path()),
            Err(NetworkFileError::Network {
                source: NetworkError::Secret,
                ..
            })
        ));
        assert!(matches!(
            Network::from_file("/nowhere/at/all"),
            Err(NetworkFileError::Io { .. })
        ));
    }
}
