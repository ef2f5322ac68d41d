//! A dialer of sealed knocks that says whatever it likes: the first message of `Noise_IKpsk1_25519_ChaChaPoly_BLAKE2s` and
//! what goes round it, written down once more from the specification. Whether it makes what the transport makes is
//! checked by [`super::World`] when it is built.
//!
//! Diffie-Hellman results are remembered, by which a knock takes microseconds.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::digest::{SHA512, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use blake2::{Blake2s256, Digest as _};
use std::collections::HashMap;

type Bytes32 = [u8; 32];

/// An X25519 key pair.
pub struct Pair {
    secret: PrivateKey,
    pub public: Bytes32,
}

impl Pair {
    pub fn new(secret: &Bytes32) -> Self {
        let secret = PrivateKey::from_private_key(&X25519, secret).expect("32 bytes");
        let public = secret.compute_public_key().expect("has one");
        let public = public.as_ref().try_into().expect("32 bytes");
        Self { secret, public }
    }

    /// Of the Ed25519 key that has this seed.
    pub fn of_seed(seed: &Bytes32) -> Self {
        Self::new(digest(&SHA512, seed).as_ref()[..32].try_into().expect("32 of 64"))
    }

    /// All zeros where nothing of the secret went into the result.
    pub fn agree(&self, peer: &Bytes32) -> Bytes32 {
        let shared = agree(&self.secret, UnparsedPublicKey::new(&X25519, peer), (), |shared| {
            Bytes32::try_from(shared).map_err(|_| ())
        });
        shared.unwrap_or_default()
    }
}

/// Results of Diffie-Hellman, by both public keys.
#[derive(Default)]
pub struct Agreed(HashMap<(Bytes32, Bytes32), Bytes32>);

impl Agreed {
    fn get(&mut self, own: &Pair, peer: &Bytes32) -> Bytes32 {
        *self.0.entry((own.public, *peer)).or_insert_with(|| own.agree(peer))
    }
}

/// The keys of a network.
#[derive(Clone, Copy)]
pub struct Network {
    key: Bytes32,
    psk: Bytes32,
}

impl Network {
    pub const OPEN: Self = Self {
        key: [0; 32],
        psk: [0; 32],
    };

    pub fn private(name: &[u8], secret: &Bytes32) -> Self {
        let key = hkdf(b"libp2p-knock/3 network", secret, name);
        let psk = hkdf(b"", &key, b"psk");
        Self { key, psk }
    }

    fn gate(&self, listener: &Bytes32) -> Bytes32 {
        hkdf(b"libp2p-knock/3 gate", &[*listener, self.key].concat(), b"")
    }
}

fn hkdf(salt: &[u8], material: &[u8], info: &[u8]) -> Bytes32 {
    let mut out = [0; 32];
    let extracted = Salt::new(HKDF_SHA256, salt).extract(material);
    let filled = extracted
        .expand(&[info], HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out));
    filled.expect("one block");
    out
}

/// Whom a knock is for: Ed25519 key and its X25519 form.
#[derive(Clone, Copy)]
pub struct Addressee {
    pub ed25519: Bytes32,
    pub x25519: Bytes32,
}

/// The Noise message, 176 bytes with a payload of 80.
pub fn noise(
    agreed: &mut Agreed,
    own: &Pair,
    ephemeral: &Pair,
    to: &Addressee,
    network: &Network,
    payload: &[u8],
) -> Vec<u8> {
    let prologue = [&b"libp2p-knock/3"[..], &to.ed25519].concat();
    let mut state = Symmetric::new(&prologue, &to.x25519);
    let mut message = ephemeral.public.to_vec();
    state.mix_hash(&ephemeral.public);
    state.mix_key(&ephemeral.public);
    state.mix_key(&agreed.get(ephemeral, &to.x25519));
    message.extend(state.seal(&own.public));
    state.mix_key(&agreed.get(own, &to.x25519));
    state.mix_key_and_hash(&network.psk);
    message.extend(state.seal(payload));
    message
}

/// The box round a Noise message.
pub fn enclose(network: &Network, listener: &Bytes32, nonce: [u8; 12], message: &[u8]) -> Vec<u8> {
    [&nonce[..], &seal(&network.gate(listener), nonce, b"", message)].concat()
}

pub fn seal_flight(key: &Bytes32, flight: &[u8]) -> Vec<u8> {
    seal(key, [0; 12], b"", flight)
}

fn seal(key: &Bytes32, nonce: [u8; 12], authenticated: &[u8], plain: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes"));
    let mut sealed = plain.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(authenticated), &mut sealed)
        .expect("is short");
    sealed
}

/// Noise's `SymmetricState`, section 5.2.
struct Symmetric {
    chaining: Bytes32,
    hash: Bytes32,
    key: Bytes32,
}

impl Symmetric {
    fn new(prologue: &[u8], remote: &Bytes32) -> Self {
        let name = blake2s(&[b"Noise_IKpsk1_25519_ChaChaPoly_BLAKE2s"]);
        let mut this = Self {
            chaining: name,
            hash: name,
            key: [0; 32],
        };
        this.mix_hash(prologue);
        this.mix_hash(remote);
        this
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = blake2s(&[&self.hash, data]);
    }

    fn mix_key(&mut self, material: &Bytes32) {
        [self.chaining, self.key, _] = self.derive(material);
    }

    fn mix_key_and_hash(&mut self, material: &Bytes32) {
        let [chaining, hash, key] = self.derive(material);
        (self.chaining, self.key) = (chaining, key);
        self.mix_hash(&hash);
    }

    /// Every key seals once here, so the counter is always 0.
    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let sealed = seal(&self.key, [0; 12], &self.hash, plain);
        self.mix_hash(&sealed);
        sealed
    }

    fn derive(&self, material: &Bytes32) -> [Bytes32; 3] {
        let secret = hmac(&self.chaining, &[material]);
        let one = hmac(&secret, &[&[1]]);
        let two = hmac(&secret, &[&one, &[2]]);
        [one, two, hmac(&secret, &[&two, &[3]])]
    }
}

fn hmac(key: &Bytes32, data: &[&[u8]]) -> Bytes32 {
    let mut pads = [[0x36; 64], [0x5c; 64]];
    for pad in &mut pads {
        pad.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
    }
    let inner = blake2s(&[&[&pads[0][..]], data].concat());
    blake2s(&[&pads[1], &inner])
}

fn blake2s(parts: &[&[u8]]) -> Bytes32 {
    let mut hash = Blake2s256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}
