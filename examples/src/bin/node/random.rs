//! Numbers that look random, for test data and probes. Nothing secret is made of them.

use std::hash::{BuildHasher as _, RandomState};

/// Another number every time, from the seed that the standard library takes from the system for its hash maps.
pub(crate) fn seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// An endless row of bytes, the same for the same seed (SplitMix64).
#[derive(Debug)]
pub(crate) struct Bytes(pub(crate) u64);

impl Bytes {
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
        }
    }
}
