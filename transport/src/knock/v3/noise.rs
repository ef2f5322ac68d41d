//! `Noise_IKpsk1_25519_ChaChaPoly_BLAKE2s`, its first message only: `snow` with primitives of AWS-LC, whose
//! Diffie-Hellman takes half the time of a portable one, and a static key that may live elsewhere.

use super::aead::{Aead, TAG};
use super::{SealError, payload};
use crate::identity::{Agreed, Identity, Key, UnsupportedKey};
use crate::x25519::{self, Secret};
use blake2::{Blake2s256, Digest};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error};
use std::fmt;
use std::sync::{Arc, LazyLock};

/// An ephemeral key, a sealed static key, a sealed payload.
pub(super) const SIZE: usize = 32 + 32 + TAG + payload::SIZE + TAG;

const PROLOGUE: &[u8; 14] = b"libp2p-knock/3";

static PARAMS: LazyLock<NoiseParams> = LazyLock::new(|| {
    "Noise_IKpsk1_25519_ChaChaPoly_BLAKE2s"
        .parse()
        .expect("a name that snow knows")
});

/// Our identity as Noise's static key. Cheap to clone.
#[derive(Clone)]
pub struct StaticKey {
    identity: Arc<dyn Identity>,
    key: Key,
    x25519: [u8; 32],
    agreed: Arc<Agreed>,
}

/// An identity that cannot make or open sealed knocks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StaticKeyError {
    /// The public key is no usable Ed25519 key.
    #[error("the identity's public key is no usable Ed25519 key")]
    Key(#[source] UnsupportedKey),
    /// The signer signs and does nothing else: [`Identity::agree`] says `None`.
    #[error("the identity can sign only, a sealed knock needs a Diffie-Hellman")]
    CannotAgree,
    /// [`Identity::agree`] uses another key than the identity's own.
    #[error("the identity agrees with another key than its own")]
    Mismatch,
}

impl StaticKey {
    /// Asks `identity` for one Diffie-Hellman, with the base point, to see that it can and with which key.
    ///
    /// # Errors
    ///
    /// An identity that cannot work is found here and not at the first knock.
    pub fn new(identity: Arc<dyn Identity>) -> Result<Self, StaticKeyError> {
        let key = Key::check(&identity.public_key()).map_err(StaticKeyError::Key)?;
        let x25519 = x25519::of_ed25519(&key).ok_or(StaticKeyError::Key(UnsupportedKey::OffCurve))?;
        match identity.agree(&x25519::BASE_POINT) {
            None => Err(StaticKeyError::CannotAgree),
            Some(agreed) if agreed != x25519 => Err(StaticKeyError::Mismatch),
            Some(_) => Ok(Self {
                identity,
                key,
                x25519,
                agreed: Arc::default(),
            }),
        }
    }

    /// The same key, asked by way of `identity` from now on.
    pub(crate) fn working_with(self, identity: Arc<dyn Identity>) -> Self {
        Self { identity, ..self }
    }

    /// The X25519 form of a peer's key. `None` if it is no point of the curve.
    pub(super) fn form_of(&self, peer: &Key) -> Option<[u8; 32]> {
        self.agreed.form_of(peer)
    }

    /// The Ed25519 key.
    pub(crate) fn key(&self) -> Key {
        self.key
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StaticKey").field(&self.key.peer_id()).finish()
    }
}

/// The first message of `own` at `listener`, both in Ed25519 and X25519 form.
pub(super) fn write(
    own: &StaticKey,
    listener: &Key,
    listener_x25519: &[u8; 32],
    psk: &[u8; 32],
    ephemeral: &[u8; 32],
    payload: &[u8; payload::SIZE],
) -> Result<[u8; SIZE], SealError> {
    let prologue = prologue(listener);
    let mut message = [0; SIZE];
    let written = builder(own, Some(*ephemeral), None, psk, &prologue)
        .and_then(|builder| builder.remote_public_key(listener_x25519)?.build_initiator())
        .and_then(|mut noise| noise.write_message(payload, &mut message))
        // All else is of the right form and size by construction.
        .map_err(|_| SealError::CannotAgree)?;
    debug_assert_eq!(written, SIZE);
    Ok(message)
}

/// Opens a first message at `own`: the payload, and the X25519 form of the key that its author has shown to hold.
pub(super) fn read(
    own: &StaticKey,
    psk: &[u8; 32],
    message: &[u8; SIZE],
) -> Result<([u8; payload::SIZE], [u8; 32]), Error> {
    let prologue = prologue(&own.key);
    let mut noise = builder(own, None, message.first_chunk().copied(), psk, &prologue)?.build_responder()?;
    let mut payload = [0; payload::SIZE];
    noise.read_message(message, &mut payload)?;
    let remote = noise.get_remote_static().and_then(|key| key.try_into().ok());
    Ok((payload, remote.ok_or(Error::Input)?))
}

fn prologue(listener: &Key) -> [u8; PROLOGUE.len() + 32] {
    let mut prologue = [0; PROLOGUE.len() + 32];
    prologue[..PROLOGUE.len()].copy_from_slice(PROLOGUE);
    prologue[PROLOGUE.len()..].copy_from_slice(&listener.bytes());
    prologue
}

fn builder<'a>(
    own: &StaticKey,
    ephemeral: Option<[u8; 32]>,
    once: Option<[u8; 32]>,
    psk: &'a [u8; 32],
    prologue: &'a [u8],
) -> Result<Builder<'a>, Error> {
    let primitives = Primitives {
        own: own.clone(),
        ephemeral,
        once,
    };
    Builder::with_resolver(PARAMS.clone(), Box::new(primitives))
        .prologue(prologue)?
        .psk(1, psk)?
        // Only says which of the two key pairs is the static one: see `Pair::set`.
        .local_private_key(&[])
}

struct Primitives {
    own: StaticKey,
    ephemeral: Option<[u8; 32]>,
    /// The ephemeral key of a message that is read.
    once: Option<[u8; 32]>,
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Given(self.ephemeral)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let pair = Pair {
            own: self.own.clone(),
            ephemeral: None,
            public: [0; 32],
            once: self.once,
        };
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(pair) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::Blake2s).then(|| Box::new(Blake2s(Blake2s256::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly(None)) as Box<dyn Cipher>)
    }
}

/// Randomness that somebody else drew, good for one ephemeral key.
struct Given(Option<[u8; 32]>);

impl Random for Given {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        let given = self.0.take().ok_or(Error::Rng)?;
        out.copy_from_slice(given.get(..out.len()).ok_or(Error::Rng)?);
        Ok(())
    }
}

/// Either our static key pair, whose secret we may not have, or the ephemeral one.
struct Pair {
    own: StaticKey,
    ephemeral: Option<Secret>,
    public: [u8; 32],
    /// A key of the peer's that will never be seen again.
    once: Option<[u8; 32]>,
}

impl Pair {
    /// With our static key. Only what is the same every time is remembered.
    fn agree_static(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        if self.once == Some(*peer) {
            return self.own.identity.agree(peer);
        }
        if let Some(shared) = self.own.agreed.get(peer) {
            return Some(shared);
        }
        let shared = self
            .own
            .identity
            .agree(peer)
            .filter(|shared| !x25519::is_zero(shared))?;
        self.own.agreed.put(*peer, shared);
        Some(shared)
    }
}

impl Dh for Pair {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    /// snow sets the static pair and generates the ephemeral one.
    fn set(&mut self, _: &[u8]) {
        self.ephemeral = None;
        self.public = self.own.x25519;
    }

    fn generate(&mut self, source: &mut dyn Random) -> Result<(), Error> {
        let mut bytes = [0; 32];
        source.try_fill_bytes(&mut bytes)?;
        let secret = Secret::new(&bytes);
        self.public = secret.public();
        self.ephemeral = Some(secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    /// Nobody asks for it.
    fn privkey(&self) -> &[u8] {
        &[]
    }

    /// An all-zero result, which anybody could know, is an error: Noise leaves that to the implementation.
    fn dh(&self, peer: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let peer = peer.first_chunk::<32>().ok_or(Error::Dh)?;
        let shared = match &self.ephemeral {
            Some(secret) => secret.agree(peer),
            None => self.agree_static(peer),
        };
        let shared = shared.filter(|shared| !x25519::is_zero(shared)).ok_or(Error::Dh)?;
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(&shared);
        Ok(())
    }
}

struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&std::mem::take(&mut self.0).finalize());
    }
}

struct ChaChaPoly(Option<Aead>);

impl ChaChaPoly {
    /// Noise's: 32 zero bits, then the counter, little-endian.
    fn nonce(counter: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        nonce
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = Some(Aead::new(key));
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let aead = self.0.as_ref().expect("snow sets the key first");
        aead.seal(Self::nonce(nonce), authtext, plaintext, out)
    }

    fn decrypt(&self, nonce: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let aead = self.0.as_ref().ok_or(Error::Decrypt)?;
        aead.open(Self::nonce(nonce), authtext, ciphertext, out)
            .ok_or(Error::Decrypt)
    }
}

#[cfg(test)]
mod tests;
