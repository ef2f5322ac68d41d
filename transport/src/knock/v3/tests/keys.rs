//! Whose key a knock names, and what becomes of a signer that does not do its part.

use super::*;
use crate::identity::{Identity, Key, SignError, UnsupportedKey};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};

#[test]
fn the_keys_of_the_vectors_agree() {
    for vector in vectors::all() {
        let secret = |name| x25519::Secret::new(&vector.bytes(name));
        let (dialer, listener) = (secret("dialer_x25519_secret"), secret("listener_x25519_secret"));
        let ephemeral = secret("ephemeral_secret");
        assert_eq!(dialer.public(), vector.bytes("dialer_x25519_public"));
        assert_eq!(listener.public(), vector.bytes("listener_x25519_public"));
        assert_eq!(ephemeral.public(), vector.bytes("ephemeral_public"));
        assert_eq!(ephemeral.agree(&listener.public()), Some(vector.bytes("dh_es")));
        assert_eq!(listener.agree(&ephemeral.public()), Some(vector.bytes("dh_es")));
        assert_eq!(dialer.agree(&listener.public()), Some(vector.bytes("dh_ss")));
        let seeded = x25519::Secret::of_ed25519_seed(&vector.bytes("dialer_seed"));
        assert_eq!(seeded.agree(&listener.public()), Some(vector.bytes("dh_ss")));
    }
}

#[test]
fn nobody_is_called_late_under_a_key_he_has_not_shown() {
    let bytes = Payload {
        key: own(3).key().bytes(),
        time_ms: 0,
        ..payload()
    };
    let gate = gate(2);
    let boxed = gate
        .open_box(head(&knock_saying(&bytes.encode())))
        .expect("the box opens");
    assert_eq!(
        boxed.open(&gate, NOW, 0).expect_err("late"),
        Refused::from(Refusal::Time)
    );
}

fn knock_under(key: [u8; 32]) -> Vec<u8> {
    knock_saying(&Payload { key, ..payload() }.encode())
}

fn point(seed: u8) -> EdwardsPoint {
    CompressedEdwardsY(own(seed).key().bytes())
        .decompress()
        .expect("on the curve")
}

#[test]
fn only_the_key_that_was_shown_can_be_claimed() {
    // Somebody else's.
    assert_eq!(refusal(&knock_under(own(3).key().bytes())), Refusal::Key);
    // Our own, or its negative, without having it.
    assert_eq!(refusal(&knock_under(own(2).key().bytes())), Refusal::Key);
    // The caller's own with a part of small order added: other points, other forms.
    for torsion in &EIGHT_TORSION[1..] {
        let shifted = (point(1) + torsion).compress().to_bytes();
        assert_eq!(refusal(&knock_under(shifted)), Refusal::Key);
    }
    // Of small order, not canonical, off the curve.
    for weak in EIGHT_TORSION {
        assert_eq!(refusal(&knock_under(weak.compress().to_bytes())), Refusal::Key);
    }
    let mut non_canonical = [0xff; 32];
    (non_canonical[0], non_canonical[31]) = (0xf0, 0x7f);
    assert_eq!(refusal(&knock_under(non_canonical)), Refusal::Key);
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    assert_eq!(refusal(&knock_under(off_curve)), Refusal::Key);
}

/// A key and its negative have one X25519 form, so a caller can name the negative of its own. It gains nothing: TLS
/// compares the bytes, and demands a signature of the key it was told. Whoever relies on more must read this first.
#[test]
fn the_negative_of_ones_own_key_passes_and_is_left_to_tls() {
    let negative = (-point(1)).compress().to_bytes();
    let gate = gate(2);
    let boxed = gate.open_box(head(&knock_under(negative))).expect("the box opens");
    let opened = boxed.open(&gate, NOW, 0).expect("opens");
    assert_eq!(opened.caller().key().bytes(), negative);
    assert_ne!(opened.caller().peer(), own(1).key().peer_id());
}

#[test]
fn our_own_knock_is_a_self_dial() {
    let flight = hello::tests::minimal();
    let knock = seal(
        &own(2),
        &callee(2),
        &Network::open(),
        Mode::Yamux,
        NOW,
        fresh(4),
        &flight,
    )
    .expect("seals");
    assert_eq!(refusal(&knock), Refusal::SelfDial);
}

#[test]
fn nobody_can_be_dialled_at_a_key_off_the_curve() {
    let mut off = [0; 32];
    off[0] = 2;
    let off = Key::check(&off).expect("canonical");
    assert_eq!(Callee::new(off), Err(UnsupportedKey::OffCurve));
    assert_eq!(Callee::of_peer(&off.peer_id()), Err(UnsupportedKey::OffCurve));
    assert_eq!(Callee::of_peer(&own(2).key().peer_id()), Ok(callee(2)));
}

/// A signer whose Diffie-Hellman is whatever the test wants.
struct Odd(Local, fn(&Local, &[u8; 32]) -> Option<[u8; 32]>);

impl Identity for Odd {
    fn public_key(&self) -> [u8; 32] {
        self.0.public_key()
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
        unreachable!("a sealed knock has no signature")
    }

    fn agree(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        (self.1)(&self.0, peer)
    }
}

#[test]
fn a_signer_that_cannot_agree_is_found_before_the_first_knock() {
    let made = |agree| StaticKey::new(Arc::new(Odd(local(1), agree))).err();
    assert_eq!(made(|_, _| None), Some(StaticKeyError::CannotAgree));
    assert_eq!(made(|_, _| Some([1; 32])), Some(StaticKeyError::Mismatch));
    assert_eq!(made(|own, peer| own.agree(peer)), None);
}

#[test]
fn a_signer_that_fails_later_makes_no_knock_and_opens_none() {
    for agree in [
        (|own, peer| own.agree(peer).filter(|_| *peer == x25519::BASE_POINT)) as fn(&Local, &[u8; 32]) -> _,
        |own, peer| {
            own.agree(peer)
                .map(|shared| if *peer == x25519::BASE_POINT { shared } else { [0; 32] })
        },
    ] {
        let odd = StaticKey::new(Arc::new(Odd(local(2), agree))).expect("good at first");
        let sealed = seal(&odd, &callee(1), &Network::open(), Mode::Yamux, NOW, fresh(4), b"hello");
        assert_eq!(sealed, Err(SealError::CannotAgree));
        let opened = open_with(&Gate::new(odd, &Network::open()), &knock_at(NOW), NOW);
        assert_eq!(opened.err(), Some(Refusal::Noise));
    }
}
