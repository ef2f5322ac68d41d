//! Randomness for knocks that does not rest on one source alone.
//!
//! A virtual machine that was cloned or restored may draw the very bytes it drew before, and a system that has just
//! started may have few good ones. So what the system gives is hashed together with a secret of our own, the time and a
//! counter: it takes the failure of all of them for two knocks to be alike.

use crate::identity::{Identity, SignError};
use crate::knock::v3::Fresh;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use blake2::{Blake2s256, Digest};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use web_time::{SystemTime, UNIX_EPOCH};

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

/// Where [`Fresh`] parts of knocks come from. One for each identity, shared by all that dial with it.
pub struct Hedged {
    secret: [u8; 32],
    counter: AtomicU64,
    system: SystemRandom,
}

impl Hedged {
    /// Takes its secret from `identity`: the hash of one signature, which never leaves this process (the idea of
    /// RFC 8937).
    ///
    /// # Errors
    ///
    /// If the identity cannot sign.
    pub fn new(identity: &dyn Identity) -> Result<Self, SignError> {
        let signature = identity.sign(b"libp2p-knock/3 randomness, never to be shown to anybody")?;
        Ok(Self {
            secret: blake2s(&[&signature]),
            counter: AtomicU64::new(0),
            system: SystemRandom::new(),
        })
    }

    /// The random parts of one knock.
    ///
    /// # Errors
    ///
    /// If the operating system has no randomness.
    pub fn fresh(&self) -> Result<Fresh, NoRandomness> {
        let mut system = [0; 32];
        self.system.fill(&mut system).map_err(|_| NoRandomness)?;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        Ok(hedge(&self.secret, &system, time.as_nanos(), counter))
    }
}

impl fmt::Debug for Hedged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hedged")
    }
}

/// The mixing itself, pure. `time` in nanoseconds.
fn hedge(secret: &[u8; 32], system: &[u8; 32], time: u128, counter: u64) -> Fresh {
    let seed = blake2s(&[secret, system, &time.to_be_bytes(), &counter.to_be_bytes()]);
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&blake2s(&[&seed, b"nonce"])[..12]);
    Fresh {
        nonce,
        ephemeral: blake2s(&[&seed, b"ephemeral"]),
        flight_key: blake2s(&[&seed, b"flight"]),
    }
}

fn blake2s(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Local;
    use libp2p_identity::Keypair;
    use std::collections::HashSet;

    fn parts(fresh: &Fresh) -> [Vec<u8>; 3] {
        [
            fresh.nonce.to_vec(),
            fresh.ephemeral.to_vec(),
            fresh.flight_key.to_vec(),
        ]
    }

    #[test]
    fn equal_system_randomness_repeats_nothing_while_time_or_counter_or_secret_differs() {
        let mut seen = HashSet::new();
        let system = [7; 32];
        for secret in [[1; 32], [2; 32]] {
            for time in 0..20 {
                for counter in 0..20 {
                    for part in parts(&hedge(&secret, &system, time, counter)) {
                        assert!(seen.insert(part), "time {time}, counter {counter}");
                    }
                }
            }
        }
        assert_eq!(seen.len(), 2 * 20 * 20 * 3);
    }

    #[test]
    fn nobody_who_knows_all_but_the_systems_bytes_can_tell_the_rest() {
        let one = parts(&hedge(&[1; 32], &[7; 32], 5, 5));
        let other = parts(&hedge(&[1; 32], &[8; 32], 5, 5));
        assert!(one.iter().zip(&other).all(|(one, other)| one != other));
    }

    #[test]
    fn each_draw_counts() {
        let identity = Local::new(&Keypair::generate_ed25519()).expect("Ed25519");
        let hedged = Hedged::new(&identity).expect("signs");
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            for part in parts(&hedged.fresh().expect("random bytes")) {
                assert!(seen.insert(part));
            }
        }
        assert_eq!(hedged.counter.load(Ordering::Relaxed), 1000);
        assert_eq!(format!("{hedged:?}"), "Hedged");
    }
}
