//! Where in the book a peer stands.

use libp2p_identity::PeerId;
use std::hash::{BuildHasher as _, RandomState};

/// Words of a peer's id: a digest of up to 42 bytes, its length and its code.
const WORDS: usize = 6;
const BYTES: usize = WORDS * size_of::<u64>();
const SHORT: usize = 42;

/// A hash of peers, under keys that are secret and drawn anew for each book: peers choose their ids.
///
/// Multilinear (Lemire and Kaser, *Strongly universal string hashing is fast*): the upper half of a sum, modulo 2^128, of each word times a
/// random number. Whatever two ids somebody chooses who does not know the keys, they have the same hash with a chance of 2^-64.
#[derive(Debug)]
pub(crate) struct Hasher {
    start: u128,
    keys: [u128; WORDS],
    /// For ids of a length that no key's has.
    long: RandomState,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        let random = RandomState::new();
        Self::with(|number| random.hash_one(number))
    }

    fn with(random: impl Fn(usize) -> u64) -> Self {
        let key = |at: usize| u128::from(random(2 * at)) << 64 | u128::from(random(2 * at + 1));
        Self {
            start: key(WORDS),
            keys: std::array::from_fn(key),
            long: RandomState::new(),
        }
    }

    pub(crate) fn hash(&self, peer: &PeerId) -> u64 {
        let hash = peer.as_ref();
        let digest = hash.digest();
        let mut bytes = [0; BYTES];
        // A copy of known length is a handful of instructions: Ed25519 keys, as most are, and SHA-256.
        if let Ok(ed25519) = <&[u8; 36]>::try_from(digest) {
            bytes[..36].copy_from_slice(ed25519);
        } else if let Ok(sha256) = <&[u8; 32]>::try_from(digest) {
            bytes[..32].copy_from_slice(sha256);
        } else if digest.len() <= SHORT {
            bytes[..digest.len()].copy_from_slice(digest);
        } else {
            return self.long.hash_one(peer);
        }
        // One of two codes, and the length: ids of which one is another with zeros behind are two.
        bytes[SHORT] = u8::from(hash.code() != 0);
        bytes[SHORT + 1] = hash.size();
        let words = bytes.chunks_exact(8).zip(&self.keys);
        let sum = words.fold(self.start, |sum, (word, key)| {
            let word = word.try_into().map_or(0, u64::from_ne_bytes);
            sum.wrapping_add(key.wrapping_mul(u128::from(word)))
        });
        // The upper half.
        (sum >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p_core::multihash::Multihash;
    use std::collections::HashSet;

    #[test]
    fn peers_that_differ_anywhere_differ_in_their_hashes() {
        let hasher = Hasher::new();
        let mut peers = HashSet::new();
        for (code, length) in [(0, 0), (0, 36), (0, 37), (0, 42), (0x12, 32), (0x12, 36), (0x12, 50)] {
            let mut digest = vec![0; length];
            peers.insert(PeerId::from_multihash(Multihash::wrap(code, &digest).expect("short")).expect("an id"));
            for at in 0..length {
                for value in 1..=255 {
                    digest[at] = value;
                    peers
                        .insert(PeerId::from_multihash(Multihash::wrap(code, &digest).expect("short")).expect("an id"));
                }
                digest[at] = 0;
            }
        }
        let hashes: HashSet<u64> = peers.iter().map(|peer| hasher.hash(peer)).collect();
        assert_eq!(hashes.len(), peers.len());
        assert_eq!(peers.len(), 7 + 255 * (36 + 37 + 42 + 32 + 36 + 50));
        let again = Hasher::new();
        assert!(
            peers.iter().all(|peer| again.hash(peer) != hasher.hash(peer)),
            "another book, other hashes"
        );
    }

    #[test]
    fn the_parts_and_the_slots_are_filled_evenly() {
        // Always the same numbers, or the test would fail once in a long while.
        let hasher = Hasher::with(|number| {
            0x9e37_79b9_7f4a_7c15_u64
                .wrapping_mul(2 * number as u64 + 1)
                .rotate_left(29)
        });
        let mut parts = [0_u32; 256];
        let mut low = [0_u32; 256];
        for n in 0..65_536_u32 {
            // As regular as can be.
            let mut digest = [0; 36];
            digest[32..].copy_from_slice(&n.to_be_bytes());
            let hash =
                hasher.hash(&PeerId::from_multihash(Multihash::wrap(0, &digest).expect("short")).expect("an id"));
            parts[crate::core::Book::shard_of(hash)] += 1;
            low[(hash & 0xff) as usize] += 1;
        }
        // 256 on average. Regular ids may lie more evenly than chance would have it, and never much less.
        assert!(
            parts.iter().chain(&low).all(|&count| count < 1_024),
            "{parts:?} {low:?}"
        );
    }
}
