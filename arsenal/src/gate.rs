//! The outer box of a sealed knock, as far as whoever knows the listener's PeerId can make and open it.
//!
//! Written from the wire format, not with the code under attack: nonce 12 ‖ box 192, where the box is
//! ChaCha20-Poly1305 under a key that follows from the listener's public key. Inside is a Noise message, which an
//! attacker cannot make for somebody else, but whose opening costs the listener a Diffie-Hellman.

use crate::rng::Rng;
use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use libp2p_identity::PeerId;

/// Nonce and box: what a listener reads before it decides anything.
pub const HEAD: usize = NONCE + BOX;
const NONCE: usize = 12;
const BOX: usize = 192;
const NOISE: usize = 176;

/// The key of the outer box of one listener.
pub struct GateKey(LessSafeKey);

impl std::fmt::Debug for GateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GateKey").finish_non_exhaustive()
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(listener: &[u8; 32]) -> Result<[u8; 32]> {
    // The second half is the network key, all zero in an open network.
    let mut ikm = [0; 64];
    ikm[..32].copy_from_slice(listener);
    let mut key = [0; 32];
    Salt::new(HKDF_SHA256, b"libp2p-knock/3 gate")
        .extract(&ikm)
        .expand(&[b""], Length(32))
        .and_then(|okm| okm.fill(&mut key))
        .map_err(|_| anyhow!("HKDF refused 32 bytes"))?;
    Ok(key)
}

impl GateKey {
    /// From the listener's Ed25519 key.
    ///
    /// # Errors
    ///
    /// Only if the cryptographic library fails.
    pub fn new(listener: &[u8; 32]) -> Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &derive(listener)?).map_err(|_| anyhow!("a key of 32 bytes"))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// From the listener's PeerId, which holds its key.
    ///
    /// # Errors
    ///
    /// For the PeerId of any other kind of key.
    pub fn of_peer(listener: &PeerId) -> Result<Self> {
        // identity multihash (00), 36 bytes, protobuf: type (08) Ed25519 (01), data (12) of 32 bytes (20)
        let bytes = listener.to_bytes();
        let key = bytes
            .strip_prefix(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
            .and_then(|key| key.try_into().ok())
            .with_context(|| format!("{listener} holds no Ed25519 key"))?;
        Self::new(key)
    }

    /// The same knock in other bytes: its box opened, and sealed again under another nonce. `None` when `flight` holds
    /// no box of this listener.
    pub fn rewrap(&self, flight: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
        let (head, rest) = flight.split_at_checked(HEAD)?;
        let (nonce, sealed) = head.split_at(NONCE);
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let noise = self.0.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
        let mut again = self.seal(noise, rng)?;
        again.extend_from_slice(rest);
        Some(again)
    }

    /// A box that opens, with noise inside and `extra` random bytes behind it: what an insider who knows the PeerId can
    /// make the listener work on.
    pub fn seal_noise(&self, extra: usize, rng: &mut Rng) -> Option<Vec<u8>> {
        let mut noise = [0; NOISE];
        rng.fill(&mut noise);
        // Top bit clear, as in every X25519 key that an honest dialer sends.
        noise[31] &= 0x7f;
        let mut flight = self.seal(&noise, rng)?;
        flight.extend(rng.bytes(extra));
        Some(flight)
    }

    fn seal(&self, noise: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
        let nonce = rng.bytes(NONCE);
        let mut sealed = noise.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::try_assume_unique_for_key(&nonce).ok()?,
                Aad::empty(),
                &mut sealed,
            )
            .ok()?;
        Some([nonce, sealed].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The public key of seed 02×32.
    const LISTENER: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";

    fn listener() -> [u8; 32] {
        hex::decode(LISTENER).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_key_of_the_box_follows_from_the_listeners_key() {
        let expected = "5b192ae8e625e2adcf08b4477f658749ca7c4622b1c4315e5a4c55e31bacf46a";
        assert_eq!(hex::encode(derive(&listener()).unwrap()), expected);
    }

    #[test]
    fn a_rewrapped_flight_differs_in_its_head_alone_and_opens_again() {
        let key = GateKey::new(&listener()).unwrap();
        let mut rng = Rng::new(5);
        let flight = key.seal_noise(100, &mut rng).unwrap();
        assert_eq!(flight.len(), HEAD + 100);
        let again = key.rewrap(&flight, &mut rng).unwrap();
        assert_ne!(flight[..HEAD], again[..HEAD]);
        assert_eq!(flight[HEAD..], again[HEAD..]);
        assert!(key.rewrap(&again, &mut rng).is_some());
    }

    #[test]
    fn a_box_of_another_listener_and_a_short_flight_are_refused() {
        let mut rng = Rng::new(5);
        let key = GateKey::new(&listener()).unwrap();
        let other = GateKey::new(&[9; 32]).unwrap();
        let flight = other.seal_noise(0, &mut rng).unwrap();
        assert!(key.rewrap(&flight, &mut rng).is_none());
        assert!(other.rewrap(&flight[..HEAD - 1], &mut rng).is_none());
    }

    #[test]
    fn a_peer_id_holds_the_key() {
        let seed = libp2p_identity::Keypair::ed25519_from_bytes([2; 32]).unwrap();
        let mut rng = Rng::new(1);
        let flight = GateKey::of_peer(&seed.public().to_peer_id())
            .unwrap()
            .seal_noise(0, &mut rng);
        assert!(
            GateKey::new(&listener())
                .unwrap()
                .rewrap(&flight.unwrap(), &mut rng)
                .is_some()
        );
    }
}
