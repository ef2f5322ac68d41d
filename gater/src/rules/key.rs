//! A peer's id in half the space, for tables of a million.

use libp2p_identity::PeerId;
use std::fmt;
use std::hash::{Hash, Hasher};

/// A code, a length, and at most 42 bytes: an inline key, or its hash.
const SIZE: usize = 44;
/// Bytes of an inline Ed25519 key, as most are.
const ED25519: usize = 36;

/// Of a [`PeerKey`].
pub(crate) const WORDS: usize = 6;

/// A [`PeerKey`] for those who compute with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) [u64; WORDS]);

impl Words {
    /// Those of the key of this peer. Without making it first: what was just written in bytes and is read in words
    /// keeps a processor waiting.
    #[inline]
    pub(crate) fn of(peer: &PeerId) -> Option<Self> {
        let hash = peer.as_ref();
        match <&[u8; ED25519]>::try_from(hash.digest()) {
            Ok(digest) => {
                let head = u64::from(u8::try_from(hash.code()).ok()?) | (ED25519 as u64) << 8;
                Some(Self([
                    head | word(digest, 0) << 16,
                    word(digest, 6),
                    word(digest, 14),
                    word(digest, 22),
                    word(digest, ED25519 - 8) >> 16,
                    0,
                ]))
            }
            Err(_) => PeerKey::of(peer).map(|key| key.words()),
        }
    }
}

#[inline]
fn word(bytes: &[u8], from: usize) -> u64 {
    bytes[from..]
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// [`PeerId`] takes 80 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PeerKey([u8; SIZE]);

// Sixteen bytes of what every kind of id has there: a key, or a hash. Nobody finds many keys that agree in all of them.
impl Hash for PeerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let half = |from: usize| {
            self.0[from..]
                .first_chunk()
                .map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        state.write_u64(half(12));
        state.write_u64(half(20));
    }
}

impl PeerKey {
    /// `None` for an id that no key has: one that says it is a SHA-256 hash, and is longer than 42 bytes.
    #[inline]
    pub(crate) fn of(peer: &PeerId) -> Option<Self> {
        let hash = peer.as_ref();
        let digest = hash.digest();
        let mut bytes = [0; SIZE];
        // Both codes there are, 0 and 0x12, and every length up to 42 take one byte.
        bytes[0] = u8::try_from(hash.code()).ok()?;
        bytes[1] = u8::try_from(digest.len()).ok()?;
        match <&[u8; ED25519]>::try_from(digest) {
            // A copy of known length is a handful of instructions.
            Ok(ed25519) => bytes[2..2 + ED25519].copy_from_slice(ed25519),
            Err(_) => bytes.get_mut(2..2 + digest.len())?.copy_from_slice(digest),
        }
        Some(Self(bytes))
    }

    /// All of it, with zeros behind.
    #[inline]
    pub(crate) fn words(&self) -> Words {
        let mut bytes = [0; 8 * WORDS];
        bytes[..SIZE].copy_from_slice(&self.0);
        Words(std::array::from_fn(|at| word(&bytes, 8 * at)))
    }

    pub(crate) fn peer(&self) -> PeerId {
        let length = 2 + usize::from(self.0[1]);
        PeerId::from_bytes(&self.0[..length]).expect("it was made of one")
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.peer(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_id_comes_back() {
        let ed25519 = PeerId::random().to_bytes();
        let secp256k1 = [&[0, 37, 8, 2, 18, 33][..], &[7; 33]].concat();
        let hashed = [&[0x12, 32][..], &[9; 32]].concat();
        for bytes in [ed25519, secp256k1, hashed] {
            let peer = PeerId::from_bytes(&bytes).expect("an id");
            let key = PeerKey::of(&peer).expect("a key");
            assert_eq!(key.peer(), peer);
            assert_eq!(Words::of(&peer), Some(key.words()));
        }
    }

    #[test]
    fn an_id_that_no_key_can_have_is_none() {
        let mut bytes = vec![0x12, 50];
        bytes.extend([7; 50]);
        let peer = PeerId::from_bytes(&bytes).expect("it parses");
        assert_eq!(PeerKey::of(&peer), None);
        assert_eq!(Words::of(&peer), None);
    }
}
