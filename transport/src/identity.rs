//! Who we are: an Ed25519 key that may live elsewhere.

use crate::recent::recent;
use crate::user_code::{Hook, UserCode};
use crate::x25519::{self, Secret};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use libp2p_identity::{KeyType, Keypair, PeerId};
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The host's Ed25519 identity. The key behind it may live in this process, in an agent or in hardware.
///
/// **Synchronous.** rustls signs inside its state machine and gives a signer no way to wait, so
/// [`Identity::sign`] blocks the task that runs the handshake: one call for each knock sent and one
/// for each handshake. A signer behind a network should cache a local delegate or accept that a
/// slow answer holds a worker thread for that long. [`Identity::agree`] is asked on the task of the
/// listening side, where a slow answer delays every caller, and on those of dials.
///
/// **Panics.** One in [`Identity::sign`] or [`Identity::agree`] fails the connection at hand and
/// nothing else. While a [`Config`](crate::Config) is made it reaches the caller of that
/// constructor.
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
    /// never asks. `None` as well where the result is all zeros, which makes the knock at hand fail and nothing else.
    fn agree(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        let _ = peer;
        None
    }
}

/// The identity could not sign.
#[derive(Debug, thiserror::Error)]
#[error("the identity could not sign")]
pub struct SignError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// An [`Identity`] whose key is in this process. Signs with AWS-LC, which is in the tree for TLS and takes half the time
/// of the curve library behind libp2p's own key pair.
pub(crate) struct Local {
    signer: Ed25519KeyPair,
    secret: Secret,
    public: [u8; 32],
}

impl Local {
    /// # Errors
    ///
    /// The type of a key that is not Ed25519.
    pub(crate) fn new(keypair: &Keypair) -> Result<Self, KeyType> {
        let Ok(keypair) = keypair.clone().try_into_ed25519() else {
            return Err(keypair.key_type());
        };
        let public = keypair.public().to_bytes();
        let seed = keypair.secret();
        let seed: &[u8; 32] = seed.as_ref().try_into().expect("an Ed25519 seed has 32 bytes");
        let signer = Ed25519KeyPair::from_seed_and_public_key(seed, &public)
            .expect("the key pair's own public key belongs to its own secret");
        Ok(Self {
            signer,
            secret: Secret::of_ed25519_seed(seed),
            public,
        })
    }
}

impl Identity for Local {
    fn public_key(&self) -> [u8; 32] {
        self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let signature = self.signer.sign(message);
        signature
            .as_ref()
            .try_into()
            .map_err(|error| SignError(Box::new(error)))
    }

    /// With the scalar that signs, as RFC 8032 takes it from the seed. `None` for a `peer` of small order.
    fn agree(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        self.secret.agree(peer)
    }
}

/// An identity of the user's, for tasks of ours: a panic of its own is an error.
pub(crate) struct Caught {
    identity: Arc<dyn Identity>,
    key: Key,
    user_code: UserCode,
}

impl Caught {
    pub(crate) fn new(identity: Arc<dyn Identity>, key: Key, user_code: UserCode) -> Self {
        Self {
            identity,
            key,
            user_code,
        }
    }
}

impl Identity for Caught {
    fn public_key(&self) -> [u8; 32] {
        self.key.bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let signed = self.user_code.run(Hook::Sign, || self.identity.sign(message));
        signed.unwrap_or_else(|panicked| Err(SignError(panicked.into())))
    }

    fn agree(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        self.user_code.run(Hook::Agree, || self.identity.agree(peer)).ok()?
    }
}

/// What is worked out about peers' keys and always the same: what our static key and theirs agree on, a third of the work of
/// a knock, and the X25519 form of their identities. A peer that is forgotten costs that work again.
pub(crate) struct Agreed {
    shared: Mutex<LruCache<[u8; 32], [u8; 32]>>,
    forms: Mutex<LruCache<Key, [u8; 32]>>,
}

/// Peers remembered, at most: some 300 kB.
const AGREED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

impl Default for Agreed {
    fn default() -> Self {
        Self {
            shared: Mutex::new(recent(AGREED)),
            forms: Mutex::new(recent(AGREED)),
        }
    }
}

impl Agreed {
    pub(crate) fn get(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        lock(&self.shared).get(peer).copied()
    }

    pub(crate) fn put(&self, peer: [u8; 32], shared: [u8; 32]) {
        lock(&self.shared).put(peer, shared);
    }

    /// The X25519 form of an identity's key, as [`x25519::of_ed25519`] says.
    pub(crate) fn form_of(&self, key: &Key) -> Option<[u8; 32]> {
        if let Some(form) = lock(&self.forms).get(key) {
            return Some(*form);
        }
        let form = x25519::of_ed25519(key)?;
        lock(&self.forms).put(*key, form);
        Some(form)
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// The PeerId carries bytes that are no usable Ed25519 key: not a canonical encoding, or one of small order.
    #[error("an Ed25519 key that is not canonical or of small order")]
    Invalid,
    /// The PeerId carries bytes that are no point of the curve. Half of all 32 bytes are none, and nobody has a secret
    /// for them.
    #[error("an Ed25519 key that is no point of the curve")]
    OffCurve,
}

/// An Ed25519 public key in its one encoding and not of small order: a value that only [`Key::check`] makes, so whoever
/// holds one need not ask again. Whether it is a point of the curve shows at the first signature it is to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
    pub(crate) fn check(bytes: &[u8; 32]) -> Result<Self, UnsupportedKey> {
        if !is_canonical(bytes) || is_small_order(bytes) {
            return Err(UnsupportedKey::Invalid);
        }
        Ok(Self(*bytes))
    }

    /// The key inside an Ed25519 PeerId. Such a PeerId is an identity multihash of the key's protobuf form, so the
    /// way there and back loses nothing.
    pub(crate) fn of_peer(peer: &PeerId) -> Result<Self, UnsupportedKey> {
        const IDENTITY: u64 = 0;
        if peer.as_ref().code() != IDENTITY {
            return Err(UnsupportedKey::Hashed);
        }
        let bytes = peer.to_bytes();
        if let Some(key) = bytes.strip_prefix(&PEER_ID_HEAD)
            && let Ok(key) = key.try_into()
        {
            return Self::check(key);
        }
        match bytes.as_slice() {
            // Protobuf: field 1, the type of the key.
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
        self.0
    }

    /// Whether `signature` is this key's over `message` (RFC 8032, without cofactor).
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .is_ok()
    }

    /// Put together by hand: the library's way decodes the point once more.
    pub(crate) fn peer_id(&self) -> PeerId {
        let mut bytes = [0; PEER_ID_HEAD.len() + 32];
        bytes[..PEER_ID_HEAD.len()].copy_from_slice(&PEER_ID_HEAD);
        bytes[PEER_ID_HEAD.len()..].copy_from_slice(&self.0);
        PeerId::from_bytes(&bytes).expect("an identity multihash of 36 bytes is a PeerId")
    }
}

/// What stands in front of the key in the bytes of an Ed25519 PeerId: an identity multihash of 36 bytes, and in it the
/// protobuf fields "type, Ed25519" and "data, 32 bytes".
const PEER_ID_HEAD: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The y coordinates of the points of order 1, 2, 4 and 8, little-endian. Under such a key a signature that anybody can
/// make is valid for any message.
const SMALL_ORDER: [[u8; 32]; 5] = [
    hex32("0100000000000000000000000000000000000000000000000000000000000000"),
    hex32("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    hex32("0000000000000000000000000000000000000000000000000000000000000000"),
    hex32("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    hex32("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
];

const fn hex32(text: &str) -> [u8; 32] {
    const fn digit(c: u8) -> u8 {
        if c.is_ascii_digit() { c - b'0' } else { c - b'a' + 10 }
    }
    let text = text.as_bytes();
    let mut bytes = [0; 32];
    let mut i = 0;
    while i < 32 {
        bytes[i] = digit(text[2 * i]) << 4 | digit(text[2 * i + 1]);
        i += 1;
    }
    bytes
}

/// With either sign of x, which is the top bit.
fn is_small_order(bytes: &[u8; 32]) -> bool {
    let mut y = *bytes;
    y[31] &= 0x7f;
    SMALL_ORDER.contains(&y)
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
    fn every_point_of_small_order_is_refused() {
        for point in curve25519_dalek::constants::EIGHT_TORSION {
            let encoded = point.compress().to_bytes();
            assert_eq!(Key::check(&encoded), Err(UnsupportedKey::Invalid), "{encoded:02x?}");
        }
    }

    #[test]
    fn a_second_encoding_of_a_key_is_refused() {
        // y = p + 3 decodes to the same point as y = 3 would.
        let mut non_canonical = [0xff; 32];
        non_canonical[0] = 0xf0;
        non_canonical[31] = 0x7f;
        let lenient = curve25519_dalek::edwards::CompressedEdwardsY(non_canonical);
        assert!(lenient.decompress().is_some(), "the curve library lets it pass");
        assert_eq!(Key::check(&non_canonical), Err(UnsupportedKey::Invalid));
        // And the largest y there is, p - 2, is not taken for one.
        let mut largest = [0xff; 32];
        largest[0] = 0xeb;
        largest[31] = 0x7f;
        assert!(Key::check(&largest).is_ok());
    }
}
