//! Which network a knock belongs to, and the keys that follow from it.

use crate::x25519::is_zero;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use std::fmt;

const GATE: &[u8] = b"libp2p-knock/3 gate";
const NETWORK: &[u8] = b"libp2p-knock/3 network";

/// The network whose sealed knocks are made and understood.
///
/// In the open network, the default, whoever knows a listener's PeerID can knock there, and can recognise knocks made
/// there. In a private one he needs the network's secret as well. Knocks of one network are noise in any other, also
/// between private networks that share a secret and differ in name.
#[derive(Clone)]
pub struct Network {
    name: Option<Box<[u8]>>,
    key: [u8; 32],
    psk: [u8; 32],
}

/// A private network that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The name has no bytes, or more than [`Network::MAX_NAME`].
    #[error("a network's name has 1 to {max} bytes, this one has {0}", max = Network::MAX_NAME)]
    Name(usize),
    /// The secret is 32 zero bytes: somebody forgot to fill it in.
    #[error("the network's secret is all zeros")]
    Secret,
}

impl Network {
    /// The longest name in bytes.
    pub const MAX_NAME: usize = 64;

    /// The network of everybody.
    pub const fn open() -> Self {
        Self {
            name: None,
            key: [0; 32],
            psk: [0; 32],
        }
    }

    /// The network of those who know `secret`, which should be 32 random bytes and not a password: nothing slows
    /// guesses down. The name is compared byte for byte.
    ///
    /// # Errors
    ///
    /// For a name that is empty or longer than [`Network::MAX_NAME`] bytes, and for an all-zero secret.
    pub fn private(name: &[u8], secret: &[u8; 32]) -> Result<Self, NetworkError> {
        if name.is_empty() || name.len() > Self::MAX_NAME {
            return Err(NetworkError::Name(name.len()));
        }
        if is_zero(secret) {
            return Err(NetworkError::Secret);
        }
        let key = hkdf(NETWORK, secret, name);
        Ok(Self {
            name: Some(name.into()),
            key,
            psk: hkdf(b"", &key, b"psk"),
        })
    }

    /// The name of a private network.
    pub fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// What Noise mixes in beside the Diffie-Hellman results: against whoever comes to compute those one day.
    pub(crate) fn psk(&self) -> &[u8; 32] {
        &self.psk
    }

    /// The key of the box round every knock at `listener`. Who has it tells a knock from noise, and no more.
    pub(crate) fn gate_key(&self, listener: &[u8; 32]) -> [u8; 32] {
        let mut material = [0; 64];
        material[..32].copy_from_slice(listener);
        material[32..].copy_from_slice(&self.key);
        hkdf(GATE, &material, b"")
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::open()
    }
}

/// The name and never the secret.
impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            None => f.write_str("Network::open"),
            Some(name) => write!(f, "Network::private(\"{}\", ..)", name.escape_ascii()),
        }
    }
}

/// HKDF-SHA256 (RFC 5869), 32 bytes of it.
fn hkdf(salt: &[u8], material: &[u8], info: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    Salt::new(HKDF_SHA256, salt)
        .extract(material)
        .expand(&[info], HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .expect("one block of HKDF can always be had");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knock::v3::vectors;

    #[test]
    fn the_keys_are_those_of_the_vectors() {
        for vector in vectors::all() {
            let network = vector.network();
            assert_eq!(network.key, vector.bytes("network_key"));
            assert_eq!(*network.psk(), vector.bytes("psk"));
            let listener = vector.bytes("listener_ed25519_public");
            assert_eq!(network.gate_key(&listener), vector.bytes("k_gate"));
        }
    }

    #[test]
    fn names_of_1_to_64_bytes_and_no_empty_secret() {
        assert_eq!(Network::private(b"", &[1; 32]).err(), Some(NetworkError::Name(0)));
        assert_eq!(
            Network::private(&[b'n'; 65], &[1; 32]).err(),
            Some(NetworkError::Name(65))
        );
        assert_eq!(Network::private(b"n", &[0; 32]).err(), Some(NetworkError::Secret));
        for length in [1, 64] {
            assert!(Network::private(&vec![0xff; length], &[1; 32]).is_ok());
        }
    }

    #[test]
    fn only_a_private_network_has_a_name() {
        let network = Network::private(b"net", &[3; 32]).expect("a network");
        assert_eq!(network.name(), Some(&b"net"[..]));
        assert_eq!(Network::open().name(), None);
    }

    #[test]
    fn name_and_secret_both_make_the_network() {
        let keys = [(b"a", 1), (b"b", 1), (b"a", 2)].map(|(name, secret)| {
            let network = Network::private(name, &[secret; 32]).expect("a network");
            (network.gate_key(&[5; 32]), *network.psk())
        });
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }

    #[test]
    fn debug_shows_the_name_and_nothing_secret() {
        let network = Network::private(b"net\xff", &[3; 32]).expect("a network");
        assert_eq!(format!("{network:?}"), r#"Network::private("net\xff", ..)"#);
        assert_eq!(format!("{:?}", Network::open()), "Network::open");
    }
}
