//! Keys as other libp2p programs keep them.

use crate::secret_file::{SecretFileError, read_secret_file};
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use libp2p_identity::{Keypair, ed25519};
use std::path::{Path, PathBuf};

/// A file of a key that cannot be used. It is left as it is, and the key is in no error's text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It cannot be read, or others can read it too.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// What is in it is no key that can knock.
    #[error("{}: {source}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
}

impl KeyFileError {
    /// Whether there is no such file, so that one can be made.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::File(error) if error.is_not_found())
    }
}

/// Bytes that are no key that can knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There are none.
    #[error("empty: expected an Ed25519 private key")]
    Empty,
    /// A key of another type.
    #[error("a key of type {0}: expected Ed25519, which alone can knock")]
    Type(&'static str),
    /// All its bytes are zero, or all characters: it was not made at random.
    #[error("a key of {0}: expected 32 random bytes")]
    NotRandom(&'static str),
    /// It is something else.
    #[error("{0}: expected the key alone")]
    NotAlone(&'static str),
    /// It is damaged, or no key.
    #[error(
        "damaged, or no key: expected libp2p's private key (protobuf, or that in base64), 64 hexadecimal digits, or 32 or \
         64 bytes"
    )]
    Damaged,
}

/// The Ed25519 key in the file at `path`, in the forms of [`keypair_from_bytes`]. The file's mode is that of
/// [`read_secret_file`].
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = libp2p_knock::keypair_from_file("node.key")?;
/// let config = libp2p_knock::Config::new(&key)?;
/// # let _ = config; Ok(()) }
/// ```
///
/// # Errors
///
/// [`KeyFileError`], naming the file and what was expected. The file is left as it is.
pub fn keypair_from_file(path: impl AsRef<Path>) -> Result<Keypair, KeyFileError> {
    let path = path.as_ref();
    keypair_from_bytes(&read_secret_file(path)?).map_err(|source| KeyFileError::Key {
        path: path.to_owned(),
        source,
    })
}

/// The Ed25519 key that `bytes` are:
///
/// | form | who writes it |
/// | --- | --- |
/// | the protobuf `PrivateKey`, 68 bytes | rust-libp2p's `to_protobuf_encoding`, go-libp2p's `MarshalPrivateKey` |
/// | that in base64 | Kubo, as `Identity.PrivKey` of its configuration |
/// | secret and public key, 64 bytes | go-libp2p's `Raw`, rust-libp2p's `ed25519::Keypair::to_bytes` |
/// | the secret, 32 bytes | substrate, `--node-key-file` |
/// | that in 64 hexadecimal digits, `0x` before them or not | substrate, `key generate-node-key` |
///
/// Spaces and line breaks around a text do no harm.
///
/// # Errors
///
/// [`KeyError`]. A key of another type is one, and so are 32 zeros, and 32 bytes that are all letters: a password is no key.
pub fn keypair_from_bytes(bytes: &[u8]) -> Result<Keypair, KeyError> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    // A key in bytes may begin and end so too.
    if text.starts_with(b"{") && text.ends_with(b"}") && std::str::from_utf8(text).is_ok() {
        return Err(KeyError::NotAlone("a JSON document, such as Kubo's configuration"));
    }
    if text.starts_with(b"-----BEGIN") {
        return Err(KeyError::NotAlone("a PEM file"));
    }
    let digits = text.strip_prefix(b"0x").unwrap_or(text);
    if digits.len() == 64
        && let Ok(secret) = HEXLOWER_PERMISSIVE.decode(digits)
    {
        return of_secret(&secret);
    }
    if let Ok(decoded) = BASE64.decode(text)
        && decoded.first() == Some(&0x08)
    {
        return of_protobuf(&decoded);
    }
    match bytes.len() {
        // In their one encoding libp2p's keys begin so: what is left of one is none of 32 bytes.
        32 if !bytes.starts_with(b"\x08\x01\x12\x40") => of_secret(bytes),
        64 => {
            let key = ed25519::Keypair::try_from_bytes(&mut bytes.to_vec());
            key.map(Keypair::from).map_err(|_| KeyError::Damaged)
        }
        _ => of_protobuf(bytes),
    }
}

fn of_secret(secret: &[u8]) -> Result<Keypair, KeyError> {
    if secret.iter().all(|byte| *byte == 0) {
        return Err(KeyError::NotRandom("zeros"));
    }
    if secret
        .iter()
        .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
    {
        return Err(KeyError::NotRandom("32 characters"));
    }
    Keypair::ed25519_from_bytes(secret.to_vec()).map_err(|_| KeyError::Damaged)
}

/// The type by hand, because libp2p cannot name the types that it was built without: the first field, in the one encoding
/// that libp2p writes.
fn of_protobuf(bytes: &[u8]) -> Result<Keypair, KeyError> {
    match bytes {
        [0x08, 0, ..] => Err(KeyError::Type("RSA")),
        [0x08, 2, ..] => Err(KeyError::Type("secp256k1")),
        [0x08, 3, ..] => Err(KeyError::Type("ECDSA")),
        _ => Keypair::from_protobuf_encoding(bytes).map_err(|_| KeyError::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_file::tests::written;

    /// Of no node: the secret counts up. The others are encoded by hand.
    const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    /// As `ipfs config show` of a node with this secret has it.
    const KUBO: &str = "CAESQAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
    const PEER: &str = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB";

    fn secret() -> Vec<u8> {
        (0..32).collect()
    }

    fn key() -> Keypair {
        Keypair::ed25519_from_bytes(secret()).expect("32 bytes")
    }

    #[test]
    fn a_key_is_read_in_every_form_that_other_programs_write() {
        let protobuf = key().to_protobuf_encoding().expect("encoded");
        assert_eq!(BASE64.encode(&protobuf), KUBO);
        let both = key().try_into_ed25519().expect("Ed25519").to_bytes();
        let forms = [
            protobuf.clone(),
            KUBO.into(),
            format!("{KUBO}\n").into(),
            format!("\u{feff}{KUBO}\r\n").into(),
            secret(),
            both.to_vec(),
            SECRET.into(),
            format!("{SECRET}\n").into(),
            format!("0x{}\n", SECRET.to_uppercase()).into(),
        ];
        for form in forms {
            let read = keypair_from_bytes(&form).expect("a key");
            assert_eq!(read.public().to_peer_id().to_string(), PEER);
            let file = written(&form, 0o600);
            assert_eq!(
                keypair_from_file(file.path())
                    .expect("a key")
                    .to_protobuf_encoding()
                    .expect("encoded"),
                protobuf
            );
        }
    }

    #[test]
    fn a_raw_key_that_begins_and_ends_as_a_document_does_is_a_key() {
        let mut secret = [0x80; 32];
        (secret[0], secret[31]) = (b'{', b'}');
        let key = Keypair::ed25519_from_bytes(secret).expect("32 bytes");
        assert_eq!(keypair_from_bytes(&secret).expect("a key").public(), key.public());
        // The last byte of the public key is not ours to choose.
        let both = (0..=u8::MAX)
            .flat_map(|n| (0..=u8::MAX).map(move |m| (n, m)))
            .find_map(|(n, m)| {
                (secret[1], secret[2]) = (n, m);
                let key = Keypair::ed25519_from_bytes(secret).ok()?.try_into_ed25519().ok()?;
                Some(key.to_bytes()).filter(|both| both[63] == b'}')
            });
        let both = both.expect("one in 256");
        let read = keypair_from_bytes(&both).expect("a key");
        assert_eq!(read.try_into_ed25519().expect("Ed25519").to_bytes(), both);
    }

    #[test]
    fn what_is_no_key_is_said_to_be_what_it_is() {
        let protobuf = key().to_protobuf_encoding().expect("encoded");
        let mut other = key().try_into_ed25519().expect("Ed25519").to_bytes();
        other[40] ^= 1;
        let config = format!("{{\"Identity\":{{\"PrivKey\":\"{KUBO}\"}}}}\n");
        for (bytes, error) in [
            (&b""[..], KeyError::Empty),
            (b"\n", KeyError::Empty),
            (b"not a key", KeyError::Damaged),
            (&[8, 2, 18, 1, 7], KeyError::Type("secp256k1")),
            (&[8, 0, 18, 1, 7], KeyError::Type("RSA")),
            (&[0; 32], KeyError::NotRandom("zeros")),
            (&[b'0'; 64], KeyError::NotRandom("zeros")),
            (
                b"correct horse battery staple !!\n",
                KeyError::NotRandom("32 characters"),
            ),
            (
                b"0123456789abcdef0123456789abcdef",
                KeyError::NotRandom("32 characters"),
            ),
            (
                config.as_bytes(),
                KeyError::NotAlone("a JSON document, such as Kubo's configuration"),
            ),
            (b"-----BEGIN PRIVATE KEY-----\n", KeyError::NotAlone("a PEM file")),
            (&other, KeyError::Damaged),
            (&SECRET.as_bytes()[..63], KeyError::Damaged),
            (&KUBO.as_bytes()[..91], KeyError::Damaged),
        ] {
            assert_eq!(keypair_from_bytes(bytes).err(), Some(error), "{}", bytes.escape_ascii());
        }
        // Wherever a key is cut, what is left is no other key.
        for length in 0..protobuf.len() {
            keypair_from_bytes(&protobuf[..length]).expect_err("half a key");
        }
        for length in 0..KUBO.len() {
            keypair_from_bytes(&KUBO.as_bytes()[..length]).expect_err("half a key");
        }
    }

    #[test]
    fn a_key_of_each_other_type_is_named() {
        let ecdsa = Keypair::generate_ecdsa().to_protobuf_encoding().expect("encoded");
        let secp256k1 = Keypair::generate_secp256k1().to_protobuf_encoding().expect("encoded");
        for (bytes, kind) in [(ecdsa, "ECDSA"), (secp256k1, "secp256k1")] {
            for form in [bytes.clone(), BASE64.encode(&bytes).into_bytes()] {
                assert_eq!(keypair_from_bytes(&form).err(), Some(KeyError::Type(kind)));
            }
        }
    }

    #[test]
    fn an_error_names_the_file_and_holds_no_secret() {
        let broken = format!("{}!", &KUBO[..80]);
        let file = written(broken.as_bytes(), 0o600);
        let error = keypair_from_file(file.path()).expect_err("damaged");
        let said = format!("{error} {error:?}");
        assert!(
            said.starts_with(&format!("{}: damaged", file.path().display())),
            "{said}"
        );
        assert!(!said.contains("CAES") && !said.contains("0102"), "{said}");
        let missing = keypair_from_file("/nowhere/at/all").expect_err("not there");
        assert!(missing.is_not_found() && missing.to_string().starts_with("/nowhere/at/all: cannot be read: "));
    }
}
