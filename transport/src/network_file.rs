//! A private network's name and secret in a file that only its owner can read; or a `swarm.key`.

use crate::knock::v3::{Network, NetworkError};
use crate::secret_file::{SecretFileError, read_secret_file};
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use std::path::{Path, PathBuf};

/// A network file that cannot be used. Says where, and what to do about it. The secret is in none of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkFileError {
    /// It cannot be read, or others can read it too.
    #[error(transparent)]
    File(#[from] SecretFileError),
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
    #[error("{}: {source}", path.display())]
    Network {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: NetworkError,
    },
}

impl Network {
    /// The name of a network out of a `swarm.key`, which has none. All nodes with that key have this name as well.
    pub const SWARM_KEY: &str = "swarm.key";

    /// Reads a private network from a file of either form. [`read_secret_file`] says which modes it may have.
    ///
    /// Ours has two lines, `name: <text>` and `secret: <64 hexadecimal digits>`, and any number of empty ones and of
    /// comments (`#`):
    ///
    /// ```text
    /// # testnet, secret of 2026
    /// name: testnet-7
    /// secret: 8f1c…
    /// ```
    ///
    /// The other is go-libp2p's and Kubo's `swarm.key`, in base16, base64 or binary. The network is then named
    /// [`Network::SWARM_KEY`]. It is [`Network::private`] of that name and that key: nodes with the same key are in one
    /// network, and none of them is in the network that libp2p's own pnet makes of the key.
    ///
    /// ```text
    /// /key/swarm/psk/1.0.0/
    /// /base16/
    /// 8f1c…
    /// ```
    ///
    /// # Errors
    ///
    /// [`NetworkFileError`], naming the file and the line. The secret is in none of them.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, NetworkFileError> {
        Self::read(path.as_ref(), None)
    }

    /// The same, and the network has this name whatever the file says: a network of its own beside others with that
    /// `swarm.key`. All its nodes must give the same name.
    ///
    /// # Errors
    ///
    /// As [`Network::from_file`], and for a name that [`Network::private`] refuses.
    pub fn from_file_as(path: impl AsRef<Path>, name: &str) -> Result<Self, NetworkFileError> {
        Self::read(path.as_ref(), Some(name))
    }

    fn read(path: &Path, name: Option<&str>) -> Result<Self, NetworkFileError> {
        let bytes = read_secret_file(path)?;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let parsed = match bytes.trim_ascii_start().starts_with(b"/key/") {
            true => swarm_key(bytes).map(|secret| (Self::SWARM_KEY, secret)),
            false => own(bytes),
        };
        let (named, secret) = parsed.map_err(|(line, problem)| NetworkFileError::Line {
            path: path.to_owned(),
            line,
            problem,
        })?;
        let network = Self::private(name.unwrap_or(named).as_bytes(), &secret);
        network.map_err(|source| NetworkFileError::Network {
            path: path.to_owned(),
            source,
        })
    }
}

/// In which line something is wrong, and what.
type Problem = (usize, &'static str);

/// The key in a `swarm.key`: two lines of header, then the key in the encoding that the second names.
fn swarm_key(bytes: &[u8]) -> Result<[u8; 32], Problem> {
    let mut rest = bytes;
    // As Go reads them.
    let mut header = || {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = rest[..end].trim_ascii();
        rest = rest.get(end + 1..).unwrap_or_default();
        line
    };
    if header() != b"/key/swarm/psk/1.0.0/" {
        return Err((1, "expected `/key/swarm/psk/1.0.0/`"));
    }
    let encoding = header();
    let text = rest.trim_ascii();
    let (decoded, expected) = match encoding {
        b"/base16/" => (
            HEXLOWER_PERMISSIVE.decode(text).ok(),
            "expected a key of 64 hexadecimal digits",
        ),
        b"/base64/" => (
            BASE64.decode(text).ok(),
            "expected a key of 32 bytes in base64, 44 characters",
        ),
        // Behind it stands a line break at most.
        b"/bin/" => {
            let more = rest.get(32..).unwrap_or_default();
            let key = more.trim_ascii().is_empty().then(|| rest.get(..32)).flatten();
            (key.map(<[u8]>::to_vec), "expected a key of 32 bytes")
        }
        _ => return Err((2, "expected `/base16/`, `/base64/` or `/bin/`")),
    };
    decoded.and_then(|key| key.try_into().ok()).ok_or((3, expected))
}

/// Name and secret, as we write them.
fn own(bytes: &[u8]) -> Result<(&str, [u8; 32]), Problem> {
    const LINE: &str = "expected `name: …` or `secret: …`";
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        (line, "expected text, in UTF-8")
    })?;
    let (mut name, mut secret) = (None, None);
    let mut last = 1;
    for (at, line) in text.lines().enumerate() {
        last = at + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(':').ok_or((at + 1, LINE))?;
        match key.trim() {
            "name" if name.is_none() => name = Some(value.trim()),
            "secret" if secret.is_none() => {
                let decoded = HEXLOWER_PERMISSIVE.decode(value.trim().as_bytes()).ok();
                let decoded = decoded.and_then(|secret| secret.try_into().ok());
                secret = Some(decoded.ok_or((at + 1, "expected a secret of 64 hexadecimal digits"))?);
            }
            "name" | "secret" => return Err((at + 1, "said twice: expected it once")),
            _ => return Err((at + 1, LINE)),
        }
    }
    match (name, secret) {
        (Some(name), Some(secret)) => Ok((name, secret)),
        (None, _) => Err((last, "expected `name: …` before the end")),
        (_, None) => Err((last, "expected `secret: …` before the end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_file::tests::written;

    fn good() -> String {
        format!("# ours\n\nname: testnet-7\nsecret: {}\n", "Ab".repeat(32))
    }

    #[test]
    fn a_name_and_a_secret_make_a_network() {
        let file = written(good().as_bytes(), 0o600);
        let network = Network::from_file(file.path()).expect("in order");
        assert_eq!(network.name(), Some(&b"testnet-7"[..]));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        for mode in [0o660, 0o604, 0o622, 0o666] {
            let file = written(good().as_bytes(), mode);
            match Network::from_file(file.path()) {
                Err(NetworkFileError::File(SecretFileError::Permissions { mode: found, .. })) => {
                    assert_eq!(found, mode)
                }
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
            let file = written(text.as_bytes(), 0o600);
            let error = Network::from_file(file.path()).expect_err("wrong");
            let NetworkFileError::Line { line, .. } = &error else {
                panic!("{error:?}");
            };
            assert_eq!(*line, at, "{error}");
            assert!(!format!("{error}{error:?}").contains("cdcd"), "{error:?}");
        }
        let zeros = written(format!("name: a\nsecret: {}\n", "00".repeat(32)).as_bytes(), 0o600);
        assert!(matches!(
            Network::from_file(zeros.path()),
            Err(NetworkFileError::Network {
                source: NetworkError::Secret,
                ..
            })
        ));
        assert!(matches!(
            Network::from_file("/nowhere/at/all"),
            Err(NetworkFileError::File(SecretFileError::Io { .. }))
        ));
    }

    /// From no network that is.
    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee0f";

    fn swarm_keys() -> Vec<Vec<u8>> {
        let key = HEXLOWER_PERMISSIVE.decode(KEY.as_bytes()).expect("digits");
        let bin = [b"/key/swarm/psk/1.0.0/\n/bin/\n", &key[..]].concat();
        vec![
            format!("/key/swarm/psk/1.0.0/\n/base16/\n{KEY}\n").into(),
            format!("/key/swarm/psk/1.0.0/\n/base16/\n{}", KEY.to_uppercase()).into(),
            format!("\u{feff}/key/swarm/psk/1.0.0/\r\n/base16/\r\n{KEY}\r\n").into(),
            format!("/key/swarm/psk/1.0.0/\n/base64/\n{}\n", BASE64.encode(&key)).into(),
            [&bin[..], b"\n"].concat(),
            bin,
        ]
    }

    #[test]
    fn a_swarm_key_is_the_same_network_in_each_of_its_encodings() {
        let secret = HEXLOWER_PERMISSIVE.decode(KEY.as_bytes()).expect("digits");
        let secret: [u8; 32] = secret.try_into().expect("32 bytes");
        let same = |network: &Network, name: &str| {
            let other = Network::private(name.as_bytes(), &secret).expect("a network");
            assert_eq!(network.name(), Some(name.as_bytes()));
            assert_eq!(network.psk(), other.psk());
            assert_eq!(network.gate_key(&[9; 32]), other.gate_key(&[9; 32]));
        };
        for bytes in swarm_keys() {
            let file = written(&bytes, 0o600);
            same(&Network::from_file(file.path()).expect("a swarm.key"), "swarm.key");
            same(
                &Network::from_file_as(file.path(), "testnet-7").expect("a swarm.key"),
                "testnet-7",
            );
        }
        let file = written(good().as_bytes(), 0o600);
        let renamed = Network::from_file_as(file.path(), "other").expect("in order");
        assert_eq!(renamed.name(), Some(&b"other"[..]));
        let error = Network::from_file_as(file.path(), "").expect_err("no name");
        assert!(
            matches!(
                error,
                NetworkFileError::Network {
                    source: NetworkError::Name(0),
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_swarm_key_that_is_none_is_said_to_be_wrong_with_its_line_and_without_the_key() {
        for (text, at, said) in [
            (
                format!("/key/swarm/psk/2.0.0/\n/base16/\n{KEY}\n"),
                1,
                "expected `/key/swarm/psk/1.0.0/`",
            ),
            (
                format!("/key/swarm/psk/1.0.0/\n/base58/\n{KEY}\n"),
                2,
                "expected `/base16/`, `/base64/` or `/bin/`",
            ),
            (
                "/key/swarm/psk/1.0.0/".to_owned(),
                2,
                "expected `/base16/`, `/base64/` or `/bin/`",
            ),
            (
                format!("/key/swarm/psk/1.0.0/\n/base16/\n{KEY}0\n"),
                3,
                "expected a key of 64 hexadecimal digits",
            ),
            (
                format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", &KEY[2..]),
                3,
                "expected a key of 64 hexadecimal digits",
            ),
            (
                format!("/key/swarm/psk/1.0.0/\n/base64/\n{KEY}\n"),
                3,
                "expected a key of 32 bytes in base64, 44 characters",
            ),
            (
                format!("/key/swarm/psk/1.0.0/\n/bin/\n{KEY}\n"),
                3,
                "expected a key of 32 bytes",
            ),
            (
                "/key/swarm/psk/1.0.0/\n/bin/\nshort".to_owned(),
                3,
                "expected a key of 32 bytes",
            ),
        ] {
            let file = written(text.as_bytes(), 0o600);
            let error = Network::from_file(file.path()).expect_err(&text);
            assert_eq!(
                error.to_string(),
                format!("{}, line {at}: {said}", file.path().display())
            );
            assert!(!format!("{error:?}").contains("2233"), "{error:?}");
        }
        let zeros = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "0".repeat(64));
        let error = Network::from_file(written(zeros.as_bytes(), 0o600).path()).expect_err("zeros");
        assert!(
            matches!(
                error,
                NetworkFileError::Network {
                    source: NetworkError::Secret,
                    ..
                }
            ),
            "{error}"
        );
        let not_text = written(b"name: a\n\xff\n", 0o600);
        let error = Network::from_file(not_text.path()).expect_err("no text");
        assert!(matches!(error, NetworkFileError::Line { line: 2, .. }), "{error}");
    }
}
