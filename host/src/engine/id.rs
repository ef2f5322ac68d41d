//! Who the two ends are, and what a stream between them is called on the wire.

use libp2p_identity::PeerId;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// What stands for a peer in the id of a stream: its raw Ed25519 key. Peers with other keys, which only a Swarm can have, are
/// stood for by the SHA-256 of their PeerId.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(crate) [u8; 32]);

/// The identity multihash of an Ed25519 key in libp2p's protobuf, but for the key.
const ED25519_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

impl Key {
    pub(crate) fn of_peer(peer: &PeerId) -> Self {
        Self::ed25519(peer).unwrap_or_else(|| Self(Sha256::digest(peer.to_bytes()).into()))
    }

    /// Only if that is what it is.
    pub(crate) fn ed25519(peer: &PeerId) -> Option<Self> {
        let bytes = peer.to_bytes();
        let key = bytes.strip_prefix(&ED25519_PREFIX)?;
        Some(Self(key.try_into().ok()?))
    }
}

/// SHA-256 of both keys, the larger first, and the name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StreamId(pub(crate) [u8; 32]);

impl StreamId {
    pub(crate) fn new(a: &Key, b: &Key, name: &[u8]) -> Self {
        let (larger, smaller) = if a > b { (a, b) } else { (b, a) };
        let mut hash = Sha256::new();
        hash.update(larger.0);
        hash.update(smaller.0);
        hash.update(name);
        Self(hash.finalize().into())
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..6] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use libp2p_identity::Keypair;

    pub(crate) fn key(seed: u8) -> Key {
        let keypair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        Key::of_peer(&keypair.public().to_peer_id())
    }

    #[test]
    fn ids_are_those_of_the_original_whoever_computes_them() {
        let (a, b) = (key(1), key(2));
        assert_eq!(
            hex::encode(a.0),
            "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
        );
        for (name, id) in [
            (
                "ragedisco/v1",
                "0f6e8d6b40660c83764f740f513fe2bd795c46c45b4cbb17439b1f6d2c524fd4",
            ),
            (
                "ping-pong-(20|10s|20s|10s)",
                "41bb250c77fdee2117d323c830b4ab21f18fb759a071dc77d8a96b0fb4faa091",
            ),
            ("x", "f8141c992d72d01caa652a76e369f14777eb6d0852998755baf3742a9252f2cf"),
        ] {
            for (one, other) in [(&a, &b), (&b, &a)] {
                assert_eq!(hex::encode(StreamId::new(one, other, name.as_bytes()).0), id, "{name}");
            }
        }
    }

    #[test]
    fn a_peer_without_an_ed25519_key_has_a_key_in_ids_all_the_same() {
        let peer = PeerId::random();
        assert_eq!(Key::ed25519(&peer), None);
        assert_eq!(Key::of_peer(&peer), Key::of_peer(&peer));
        assert_ne!(Key::of_peer(&peer), Key::of_peer(&PeerId::random()));
    }
}
