//! The listener's side, in steps, so that look-ups and budgets can stand between them.
//!
//! Each step costs more than the one before: [`Gate::open_box`] is symmetric, [`Boxed::open`] takes two
//! Diffie-Hellman, [`Opened::open_flight`] needs the flight to have arrived.

use super::aead::{Aead, TAG};
use super::payload::Payload;
use super::{HEAD, MAX_SKEW_MS, Network, StaticKey, hello, noise};
use crate::identity::Key;
use crate::knock::{Caller, Mode, Refusal, Version};
use libp2p_identity::PeerId;
use std::fmt;
use std::sync::Arc;

/// What one identity opens knocks with in one network. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    own: StaticKey,
    psk: [u8; 32],
    aead: Arc<Aead>,
}

impl Gate {
    /// Derives the keys once.
    pub fn new(own: StaticKey, network: &Network) -> Self {
        let aead = Arc::new(Aead::new(&network.gate_key(&own.key().bytes())));
        let psk = *network.psk();
        Self { own, psk, aead }
    }

    /// Opens the box: what a scanner fails at.
    ///
    /// # Errors
    ///
    /// [`Refusal::Box`].
    pub fn open_box(&self, head: &[u8; HEAD]) -> Result<Boxed, Refusal> {
        let (mut nonce, mut noise) = ([0; 12], [0; noise::SIZE]);
        nonce.copy_from_slice(&head[..12]);
        self.aead
            .open(nonce, b"", &head[12..], &mut noise)
            .ok_or(Refusal::Box)?;
        Ok(Boxed { noise })
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.own).finish()
    }
}

/// What was in the box: from somebody who knows our PeerID and the network, and perhaps a copy.
#[derive(Clone, Copy)]
pub struct Boxed {
    noise: [u8; noise::SIZE],
}

impl Boxed {
    /// What tells a knock from its copies, and what a replay set goes by: the box round it anybody who knows the PeerID
    /// can make anew.
    pub fn ephemeral(&self) -> [u8; 32] {
        let mut ephemeral = [0; 32];
        ephemeral.copy_from_slice(&self.noise[..32]);
        ephemeral
    }

    /// Opens the Noise message and checks what it says: form, then time, then keys. `now_ms` is our clock, Unix time in
    /// milliseconds; the knock's time has to be above `not_before_ms`.
    ///
    /// # Errors
    ///
    /// The first check that failed.
    pub fn open(&self, gate: &Gate, now_ms: u64, not_before_ms: u64) -> Result<Opened, Refused> {
        let own = &gate.own;
        let (payload, shown) = noise::read(own, &gate.psk, &self.noise).map_err(|_| Refusal::Noise)?;
        let payload = Payload::decode(&payload)?;

        let in_time = match check_time(payload.time_ms, now_ms) {
            Ok(()) if payload.time_ms <= not_before_ms => Err(Refusal::Floor),
            checked => checked,
        };
        // Asked for its key also when late, so that an operator can be told whose clock is wrong.
        let key = check_key(&payload.key, &shown, own);
        if let Err(refusal) = in_time {
            let late = key.ok().map(|key| Late {
                peer: key.peer_id(),
                skew_ms: skew(payload.time_ms, now_ms),
            });
            return Err(Refused { refusal, late });
        }

        Ok(Opened {
            key: key?,
            ephemeral: self.ephemeral(),
            payload,
        })
    }
}

impl fmt::Debug for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Boxed")
    }
}

/// Whether a knock's time is within [`MAX_SKEW_MS`] of our clock, both in milliseconds of Unix time.
///
/// # Errors
///
/// [`Refusal::Time`].
pub fn check_time(time_ms: u64, now_ms: u64) -> Result<(), Refusal> {
    if time_ms.abs_diff(now_ms) > MAX_SKEW_MS {
        return Err(Refusal::Time);
    }
    Ok(())
}

/// How far `time_ms` is ahead of `now_ms`.
fn skew(time_ms: u64, now_ms: u64) -> i64 {
    let distance = i64::try_from(time_ms.abs_diff(now_ms)).unwrap_or(i64::MAX);
    if time_ms < now_ms { -distance } else { distance }
}

/// `shown` is the key that the caller has shown to hold, `claimed` says which of the two Ed25519 keys of that form it
/// is. Noise cannot tell them apart; TLS compares the Ed25519 bytes.
fn check_key(claimed: &[u8; 32], shown: &[u8; 32], own: &StaticKey) -> Result<Key, Refusal> {
    let key = Key::check(claimed).map_err(|_| Refusal::Key)?;
    if own.form_of(&key).as_ref() != Some(shown) {
        return Err(Refusal::Key);
    }
    if key == own.key() {
        return Err(Refusal::SelfDial);
    }
    Ok(key)
}

/// A refusal, and who is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// For [`Refusal::Time`] and [`Refusal::Floor`], if nothing else was wrong with the keys.
    pub late: Option<Late>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, late: None }
    }
}

/// Whose clock differs from ours, and by how much, if it was this peer who sent the knock just now. It made the knock,
/// that much is sure; but anybody can send an old one again, so nothing may be held against the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// Who made the knock.
    pub peer: PeerId,
    /// How far the knock's time is ahead of ours in milliseconds; negative for behind.
    pub skew_ms: i64,
}

/// A knock that opened: made by the holder of the key it names (or of its negative), for us, in time; perhaps a copy.
#[derive(Clone, Copy)]
pub struct Opened {
    key: Key,
    ephemeral: [u8; 32],
    payload: Payload,
}

impl Opened {
    /// Who knocked.
    pub fn caller(&self) -> Caller {
        Caller {
            key: self.key,
            version: Version::V3,
        }
    }

    /// See [`Boxed::ephemeral`].
    pub fn ephemeral(&self) -> [u8; 32] {
        self.ephemeral
    }

    /// The caller's clock when it knocked, Unix time in milliseconds.
    pub fn time_ms(&self) -> u64 {
        self.payload.time_ms
    }

    /// How far the caller's clock was ahead of `now_ms`, less what the way took; negative for
    /// behind.
    pub fn skew_ms(&self, now_ms: u64) -> i64 {
        skew(self.payload.time_ms, now_ms)
    }

    /// What the caller wants to speak inside TLS.
    pub fn mode(&self) -> Mode {
        self.payload.mode
    }

    /// The length of the flight in bytes, 1 to [`MAX_FLIGHT`](super::MAX_FLIGHT).
    pub fn flight_len(&self) -> usize {
        self.payload.flight_len.into()
    }

    /// How many bytes to read after the head, and not one more: what follows belongs to TLS.
    pub fn sealed_len(&self) -> usize {
        self.flight_len() + TAG
    }

    /// Opens the flight, which is then one ClientHello that a server with these key-exchange `groups` (code points of
    /// TLS) answers without asking again.
    ///
    /// # Errors
    ///
    /// [`Refusal::Flight`], [`Refusal::Hello`], [`Refusal::TlsVersion`], [`Refusal::KeyShare`], in this order.
    pub fn open_flight(&self, sealed: &[u8], groups: &[u16]) -> Result<Vec<u8>, Refusal> {
        let flight = self.decrypt_flight(sealed)?;
        hello::check(&flight, groups)?;
        Ok(flight)
    }

    pub(super) fn decrypt_flight(&self, sealed: &[u8]) -> Result<Vec<u8>, Refusal> {
        if sealed.len() != self.sealed_len() {
            return Err(Refusal::Flight);
        }
        let mut flight = vec![0; self.flight_len()];
        Aead::new(&self.payload.flight_key)
            .open([0; 12], b"", sealed, &mut flight)
            .ok_or(Refusal::Flight)?;
        Ok(flight)
    }
}

/// Without the flight's key.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("peer", &self.key.peer_id())
            .field("time_ms", &self.time_ms())
            .field("mode", &self.mode())
            .field("flight_len", &self.flight_len())
            .finish()
    }
}
