//! Version 2, byte for byte that of ragep2p (libocr, `ragep2p/internal/knock`).
//!
//! | offset | length | content |
//! | --- | --- | --- |
//! | 0 | 1 | `0x02` |
//! | 1 | 32 | the dialer's Ed25519 key |
//! | 33 | 64 | the dialer's signature over `ragep2p 1.0.0 knock knock` and the listener's key |
//!
//! The signed text holds neither a time nor a nonce, so one pair sends the same 97 bytes for ever: whoever has seen
//! a knock can send it again and is then answered by a TLS flight, and whoever sees it can tell who calls whom.

use super::{Caller, Refusal, Version};
use crate::identity::{Identity, Key, SignError};

/// The size of a knock in bytes.
pub const SIZE: usize = 97;

pub(crate) const VERSION: u8 = 0x02;
const CONTEXT: &[u8; 25] = b"ragep2p 1.0.0 knock knock";

/// Makes the knock of `dialer` at the owner of the key `listener`.
///
/// # Errors
///
/// What the identity's signer says.
pub fn seal(dialer: &dyn Identity, listener: &[u8; 32]) -> Result<[u8; SIZE], SignError> {
    let mut knock = [0; SIZE];
    knock[0] = VERSION;
    knock[1..33].copy_from_slice(&dialer.public_key());
    knock[33..].copy_from_slice(&dialer.sign(&signed_text(listener))?);
    Ok(knock)
}

/// Opens a knock as the owner of the key `own`. Cheapest check first; one signature is verified at most.
///
/// # Errors
///
/// The first check that failed.
pub fn open(knock: &[u8; SIZE], own: &[u8; 32]) -> Result<Caller, Refusal> {
    let key = claimed(knock, own)?;
    verify(knock, key, own)
}

/// Whom the knock claims to be from. No signature is verified.
pub(crate) fn claimed(knock: &[u8; SIZE], own: &[u8; 32]) -> Result<Key, Refusal> {
    let [version, rest @ ..] = knock;
    if *version != VERSION {
        return Err(Refusal::Version(*version));
    }
    let mut caller = [0; 32];
    caller.copy_from_slice(&rest[..32]);
    if caller == *own {
        return Err(Refusal::SelfDial);
    }
    Key::check(&caller).map_err(|_| Refusal::Key)
}

/// Verifies the signature by `key` over the key `own`.
pub(crate) fn verify(knock: &[u8; SIZE], key: Key, own: &[u8; 32]) -> Result<Caller, Refusal> {
    let mut signature = [0; 64];
    signature.copy_from_slice(&knock[33..]);
    if !key.verifies(&signed_text(own), &signature) {
        return Err(Refusal::Signature);
    }
    Ok(known(key))
}

/// The caller of a knock that has been verified before.
pub(crate) fn known(key: Key) -> Caller {
    Caller {
        key,
        version: Version::V2,
    }
}

fn signed_text(listener: &[u8; 32]) -> [u8; CONTEXT.len() + 32] {
    let mut text = [0; CONTEXT.len() + 32];
    text[..CONTEXT.len()].copy_from_slice(CONTEXT);
    text[CONTEXT.len()..].copy_from_slice(listener);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Local;
    use libp2p_identity::Keypair;

    fn local(seed: u8) -> Local {
        Local::new(&Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes")).expect("Ed25519")
    }

    fn knock() -> [u8; SIZE] {
        seal(&local(1), &local(2).public_key()).expect("signs")
    }

    #[test]
    fn the_knock_of_seed_01_at_seed_02_is_the_vector() {
        let expected =
            include_str!("../../tests/vectors/knock-v2-seed01-to-seed02.hex").replace(char::is_whitespace, "");
        assert_eq!(hex::encode(knock()), expected);
        let caller = open(&knock(), &local(2).public_key()).expect("valid");
        assert_eq!(caller.key().bytes(), local(1).public_key());
        assert_eq!(
            caller.peer().to_string(),
            "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
        );
    }

    #[test]
    fn every_single_bit_counts() {
        let own = local(2).public_key();
        for bit in 0..SIZE * 8 {
            let mut flipped = knock();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refusal = open(&flipped, &own).expect_err("a flipped bit");
            match bit / 8 {
                0 => assert_eq!(refusal, Refusal::Version(flipped[0])),
                1..33 => assert!(
                    matches!(refusal, Refusal::Key | Refusal::Signature),
                    "bit {bit}: {refusal}"
                ),
                _ => assert_eq!(refusal, Refusal::Signature),
            }
        }
    }

    #[test]
    fn a_knock_for_somebody_else_is_refused() {
        assert_eq!(open(&knock(), &local(3).public_key()), Err(Refusal::Signature));
    }

    #[test]
    fn our_own_knock_is_a_self_dial_whatever_its_signature() {
        let own = local(1).public_key();
        assert_eq!(open(&knock(), &own), Err(Refusal::SelfDial));
        assert_eq!(
            open(&seal(&local(1), &own).expect("signs"), &own),
            Err(Refusal::SelfDial)
        );
    }

    #[test]
    fn a_small_order_key_cannot_knock() {
        // Under the neutral element every signature with R = [s]B verifies if verification is not strict.
        let mut forged = [0; SIZE];
        forged[0] = VERSION;
        forged[1] = 1;
        forged[33] = 1;
        assert_eq!(open(&forged, &local(2).public_key()), Err(Refusal::Key));
    }
}
