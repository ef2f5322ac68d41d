//! Who we are: an Ed25519 key that may live elsewhere.

use ed25519_dalek::VerifyingKey;
use libp2p_identity::{KeyType, Keypair, PeerId, PublicKey, ed25519};

/// The host's Ed25519 identity. The key behind it may live in this process, in an agent or in hardware.
///
/// **Synchronous.** rustls signs inside its state machine and gives a signer no way to wait, so [`Identity::sign`]
/// blocks the task that runs the handshake: one call for each knock sent and one for each handshake. A signer behind
/// a network should cache a local delegate or accept that a slow answer holds a worker thread for that long.
///
/// A [`Keypair`] is turned into an identity by [`Config::new`](crate::Config::new).
pub trait Identity: Send + Sync + 'static {
    /// The raw 32 bytes of the public key.
    fn public_key(&self) -> [u8; 32];

    /// Signs `message` as RFC 8032 describes (Ed25519, no pre-hash, no context).
    ///
    /// # Errors
    ///
    /// Whatever keeps the key from being used. The connection at hand fails with it, nothing else does.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError>;

    /// X25519 between the Montgomery form of this identity and the Montgomery u-coordinate `peer`, for knocks that
    /// are sealed. `None`, the default, for a signer that can only sign: knock [`Version::V2`](crate::Version::V2)
    /// never asks.
    fn agree(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        let _ = peer;
        None
    }
}

/// The identity could not sign.
#[derive(Debug, thiserror::Error)]
#[error("the identity could not sign")]
pub struct SignError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// An [`Identity`] whose key is in this process.
pub(crate) struct Local(ed25519::Keypair);

impl Local {
    /// # Errors
    ///
    /// The type of a key that is not Ed25519.
    pub(crate) fn new(keypair: &Keypair) -> Result<Self, KeyType> {
        keypair
            .clone()
            .try_into_ed25519()
            .map(Self)
            .map_err(|_| keypair.key_type())
    }
}

impl Identity for Local {
    fn public_key(&self) -> [u8; 32] {
        self.0.public().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let signature = self.0.sign(message);
        signature
            .as_slice()
            .try_into()
            .map_err(|error| SignError(Box::new(error)))
    }
}

/// A peer whose identity this transport cannot speak to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnsupportedKey {
    /// The PeerId is a hash of its key (RSA and ECDSA are), so the key a knock is addressed to cannot be known.
    #[error("a hashed key (RSA or ECDSA): only Ed25519 peers can be knocked at")]
    Hashed,
    /// The PeerId carries a key of another type (secp256k1, say).
    #[error("a {0} key: only Ed25519 peers can be knocked at")]
    Type(KeyType),
    /// The PeerId carries bytes that are no usable Ed25519 key: not a canonical point, or one of small order.
    #[error("an Ed25519 key that is not a canonical point of full order")]
    Invalid,
}

/// An Ed25519 public key that decodes canonically and is not of small order: a value that only [`Key::check`] makes,
/// so whoever holds one need not ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(VerifyingKey);

impl Key {
    pub(crate) fn check(bytes: &[u8; 32]) -> Result<Self, UnsupportedKey> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| UnsupportedKey::Invalid)?;
        if !is_canonical(bytes) || key.is_weak() {
            return Err(UnsupportedKey::Invalid);
        }
        Ok(Self(key))
    }

    /// The key inside an Ed25519 PeerId. Such a PeerId is an identity multihash of the key's protobuf form, so the
    /// way there and back loses nothing.
    pub(crate) fn of_peer(peer: &PeerId) -> Result<Self, UnsupportedKey> {
        const IDENTITY: u64 = 0;
        if peer.as_ref().code() != IDENTITY {
            return Err(UnsupportedKey::Hashed);
        }
        // `00 24` (multihash), `08 01 12 20` (protobuf: type Ed25519, 32 bytes), then the key.
        let bytes = peer.to_bytes();
        match bytes.as_slice() {
            [0x00, 0x24, 0x08, 0x01, 0x12, 0x20, key @ ..] if key.len() == 32 => {
                let mut raw = [0; 32];
                raw.copy_from_slice(key);
                Self::check(&raw)
            }
            [_, _, 0x08, kind, ..] => Err(match kind {
                0 => UnsupportedKey::Type(KeyType::RSA),
                2 => UnsupportedKey::Type(KeyType::Secp256k1),
                3 => UnsupportedKey::Type(KeyType::Ecdsa),
                _ => UnsupportedKey::Invalid,
            }),
            _ => Err(UnsupportedKey::Invalid),
        }
    }

    pub(crate) fn bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    pub(crate) fn verifying(&self) -> &VerifyingKey {
        &self.0
    }

    pub(crate) fn peer_id(&self) -> PeerId {
        let key = ed25519::PublicKey::try_from_bytes(self.0.as_bytes())
            .expect("the bytes of a checked Ed25519 key are an Ed25519 key");
        PublicKey::from(key).to_peer_id()
    }
}

/// Whether y is below p = 2^255 − 19. The curve library reduces instead of refusing, which would give one key two
/// encodings and so one peer two PeerIds.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    bytes[31] & 0x7f != 0x7f || bytes[1..31].iter().any(|b| *b != 0xff) || bytes[0] < 0xed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ed25519_peer_id_gives_its_key_and_back() {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        let key = Key::of_peer(&peer).expect("Ed25519");
        assert_eq!(key.peer_id(), peer);
        assert_eq!(key.bytes(), Local::new(&keypair).expect("Ed25519").public_key());
    }

    #[test]
    fn peers_of_other_key_types_are_refused_by_name() {
        let secp = Keypair::generate_secp256k1().public().to_peer_id();
        let ecdsa = Keypair::generate_ecdsa().public().to_peer_id();
        assert_eq!(Key::of_peer(&secp), Err(UnsupportedKey::Type(KeyType::Secp256k1)));
        assert_eq!(Key::of_peer(&ecdsa), Err(UnsupportedKey::Hashed));
    }

    #[test]
    fn small_order_and_non_canonical_keys_are_refused() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        assert_eq!(Key::check(&identity_point), Err(UnsupportedKey::Invalid));

        // y = p + 3 decodes to the same point as y = 3 would.
        let mut non_canonical = [0xff; 32];
        non_canonical[0] = 0xf0;
        non_canonical[31] = 0x7f;
        assert!(
            VerifyingKey::from_bytes(&non_canonical).is_ok(),
            "the curve library lets it pass"
        );
        assert_eq!(Key::check(&non_canonical), Err(UnsupportedKey::Invalid));
    }
}
