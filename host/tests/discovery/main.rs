//! Hosts that find each other.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#[cfg(test)]
mod ragedisco;
#[cfg(test)]
mod swarm;
#[cfg(test)]
mod user_code;

#[cfg(test)]
mod common {
    use libp2p_identity::{Keypair, PeerId};
    use std::time::Duration;

    pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
    pub(crate) const INTERVAL: Duration = Duration::from_millis(100);

    pub(crate) fn keypair(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).unwrap()
    }

    pub(crate) fn peer(seed: u8) -> PeerId {
        keypair(seed).public().to_peer_id()
    }

    /// Waits for something that no event tells of.
    pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("in {PATIENCE:?} not: {what}"));
    }
}
