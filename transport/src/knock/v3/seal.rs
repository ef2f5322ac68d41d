//! The dialer's side: one write, head and flight.

use super::aead::{Aead, TAG};
use super::payload::Payload;
use super::{HEAD, MAX_FLIGHT, Network, StaticKey, noise};
use crate::identity::{Key, UnsupportedKey};
use crate::knock::Mode;
use crate::x25519;
#[cfg(any(test, feature = "internals"))]
use libp2p_identity::PeerId;

/// Whom a knock is addressed to: a key that is a point of the curve, in both of its forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callee {
    key: Key,
    x25519: [u8; 32],
}

impl Callee {
    /// # Errors
    ///
    /// If the PeerId carries no key that a knock can be addressed to.
    #[cfg(any(test, feature = "internals"))]
    pub fn of_peer(peer: &PeerId) -> Result<Self, UnsupportedKey> {
        Self::new(Key::of_peer(peer)?)
    }

    /// # Errors
    ///
    /// [`UnsupportedKey::OffCurve`], which nobody can have a secret for.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn new(key: Key) -> Result<Self, UnsupportedKey> {
        Self::in_form(key, x25519::of_ed25519(&key))
    }

    /// The same, for a dialer that may have dialled it before.
    ///
    /// # Errors
    ///
    /// As above.
    pub(crate) fn of(own: &StaticKey, key: Key) -> Result<Self, UnsupportedKey> {
        Self::in_form(key, own.form_of(&key))
    }

    fn in_form(key: Key, form: Option<[u8; 32]>) -> Result<Self, UnsupportedKey> {
        let x25519 = form.ok_or(UnsupportedKey::OffCurve)?;
        Ok(Self { key, x25519 })
    }
}

/// The random parts of one knock. To be used once: a second knock with the same ones lets an observer compare the two,
/// and is refused as a replay.
pub struct Fresh {
    /// Of the box.
    pub nonce: [u8; 12],
    /// The secret of Noise's ephemeral key.
    pub ephemeral: [u8; 32],
    /// The key under which the flight is sealed.
    pub flight_key: [u8; 32],
}

/// Why no knock could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// [`Identity::agree`](crate::Identity::agree) said `None`, or all zeros.
    #[error("the identity could not do the Diffie-Hellman of a sealed knock")]
    CannotAgree,
    /// The first flight is empty, or longer than [`MAX_FLIGHT`] bytes.
    #[error("a first flight has 1 to {MAX_FLIGHT} bytes, this one has {0}")]
    FlightLength(usize),
}

/// Makes the knock of `own` at `listener` with the dialer's whole first TLS flight in it: all that a dialer writes
/// before it has heard anything, [`HEAD`] + `flight.len()` + [`TAG`] bytes.
///
/// `time_ms` is the dialer's clock, Unix time in milliseconds.
///
/// # Errors
///
/// If the identity does not do its part, or the flight has no possible length.
pub fn seal(
    own: &StaticKey,
    listener: &Callee,
    network: &Network,
    mode: Mode,
    time_ms: u64,
    fresh: Fresh,
    flight: &[u8],
) -> Result<Vec<u8>, SealError> {
    let flight_len = match u16::try_from(flight.len()) {
        Ok(n) if n > 0 && usize::from(n) <= MAX_FLIGHT => n,
        _ => return Err(SealError::FlightLength(flight.len())),
    };
    let payload = Payload {
        key: own.key().bytes(),
        time_ms,
        mode,
        flight_len,
        flight_key: fresh.flight_key,
    };
    seal_payload(own, listener, network, &fresh, &payload.encode(), flight)
}

/// As [`seal`], and says whatever one wants it to say.
///
/// # Errors
///
/// If the identity does not do its part.
pub fn seal_payload(
    own: &StaticKey,
    listener: &Callee,
    network: &Network,
    fresh: &Fresh,
    payload: &[u8; super::payload::SIZE],
    flight: &[u8],
) -> Result<Vec<u8>, SealError> {
    let noise = noise::write(
        own,
        &listener.key,
        &listener.x25519,
        network.psk(),
        &fresh.ephemeral,
        payload,
    )?;
    Ok(wrap(listener, network, fresh, &noise, flight))
}

/// Puts the box round a Noise message and the sealed flight behind it.
pub fn wrap(listener: &Callee, network: &Network, fresh: &Fresh, noise: &[u8; noise::SIZE], flight: &[u8]) -> Vec<u8> {
    let gate = Aead::new(&network.gate_key(&listener.key.bytes()));
    let mut knock = vec![0; HEAD + flight.len() + TAG];
    knock[..12].copy_from_slice(&fresh.nonce);
    gate.seal(fresh.nonce, b"", noise, &mut knock[12..HEAD]);
    // A key that seals once may always take the same nonce.
    Aead::new(&fresh.flight_key).seal([0; 12], b"", flight, &mut knock[HEAD..]);
    knock
}

/// What anybody who knows the listener's PeerID can do to a knock that he has seen: take the Noise message out of its
/// box and put it into another, under a nonce of his own. `None` for what is no knock at this listener.
#[cfg(feature = "internals")]
pub fn rewrap(listener: &Callee, network: &Network, nonce: [u8; 12], knock: &[u8]) -> Option<Vec<u8>> {
    let gate = Aead::new(&network.gate_key(&listener.key.bytes()));
    let (head, flight) = knock.split_first_chunk::<HEAD>()?;
    let (old, sealed) = head.split_first_chunk::<12>()?;
    let mut noise = [0; noise::SIZE];
    gate.open(*old, b"", sealed, &mut noise)?;
    let mut knock = vec![0; HEAD];
    knock[..12].copy_from_slice(&nonce);
    gate.seal(nonce, b"", &noise, &mut knock[12..]);
    knock.extend_from_slice(flight);
    Some(knock)
}

#[cfg(all(test, feature = "internals"))]
mod tests {
    use super::*;
    use crate::knock::v3::vectors;

    #[test]
    fn a_knock_in_another_box_is_the_same_knock() {
        for vector in vectors::all() {
            let network = vector.network();
            let listener = Key::check(&vector.bytes("listener_ed25519_public")).expect("a key");
            let listener = Callee::new(listener).expect("usable");
            let knock = vector.hex("knock");
            let nonce: [u8; 12] = knock[..12].try_into().expect("twelve");
            assert_eq!(rewrap(&listener, &network, nonce, &knock).as_ref(), Some(&knock));
            let other = rewrap(&listener, &network, [9; 12], &knock).expect("a knock at this listener");
            assert_eq!(other[..12], [9; 12]);
            assert_ne!(other[12..HEAD], knock[12..HEAD]);
            assert_eq!(other[HEAD..], knock[HEAD..]);
            assert_eq!(rewrap(&listener, &network, nonce, &other), Some(knock.clone()));
            assert_eq!(rewrap(&listener, &network, nonce, &knock[1..]), None);
        }
    }
}
