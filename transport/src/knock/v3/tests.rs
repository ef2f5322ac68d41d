//! The knock as a whole: the vectors, every refusal, every bit.

use super::aead::Aead;
use super::noise;
use super::payload::{self, Payload};
use super::seal::seal_payload;
use super::vectors::{self, Vector};
use super::*;
use crate::identity::{Identity, Key, Local, SignError, UnsupportedKey};
use crate::knock::{Mode, Refusal, Version};
use crate::x25519;
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use libp2p_identity::Keypair;
use std::sync::Arc;

const NOW: u64 = 1_800_000_000_000;
const X25519: u16 = 0x001d;

fn local(seed: u8) -> Local {
    Local::new(&Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes")).expect("Ed25519")
}

fn own(seed: u8) -> StaticKey {
    StaticKey::new(Arc::new(local(seed))).expect("an identity that agrees")
}

fn callee(seed: u8) -> Callee {
    Callee::new(own(seed).key()).expect("on the curve")
}

fn gate(seed: u8) -> Gate {
    Gate::new(own(seed), &Network::open())
}

fn fresh(seed: u8) -> Fresh {
    Fresh {
        nonce: [seed; 12],
        ephemeral: [seed; 32],
        flight_key: [seed ^ 0xff; 32],
    }
}

fn knock_at(time_ms: u64) -> Vec<u8> {
    let flight = hello::tests::minimal();
    seal(
        &own(1),
        &callee(2),
        &Network::open(),
        Mode::Yamux,
        time_ms,
        &fresh(4),
        &flight,
    )
    .expect("seals")
}

fn payload() -> Payload {
    Payload {
        key: own(1).key().bytes(),
        time_ms: NOW,
        mode: Mode::Yamux,
        flight_len: 5,
        flight_key: fresh(4).flight_key,
    }
}

/// A knock of seed 1 at seed 2 that says something else.
fn knock_saying(payload: &[u8; payload::SIZE]) -> Vec<u8> {
    seal_payload(&own(1), &callee(2), &Network::open(), &fresh(4), payload, b"hello").expect("seals")
}

fn head(knock: &[u8]) -> &[u8; HEAD] {
    knock.first_chunk().expect("a head")
}

/// All the steps of a listener, none left out.
fn open_with(gate: &Gate, knock: &[u8], now_ms: u64) -> Result<Opened, Refusal> {
    let opened = gate
        .open_box(head(knock))?
        .open(gate, now_ms, 0)
        .map_err(|refused| refused.refusal)?;
    opened.open_flight(&knock[HEAD..], &[X25519])?;
    Ok(opened)
}

fn open(knock: &[u8]) -> Result<Opened, Refusal> {
    open_with(&gate(2), knock, NOW)
}

fn refusal(knock: &[u8]) -> Refusal {
    open(knock).expect_err("a knock to be refused")
}

fn sealed_by(vector: &Vector) -> Vec<u8> {
    seal(
        &own(1),
        &callee(2),
        &vector.network(),
        Mode::Yamux,
        vector.time_ms(),
        &vector.fresh(),
        &vector.hex("flight"),
    )
    .expect("seals")
}

#[test]
fn the_vectors_are_sealed_byte_for_byte() {
    for vector in vectors::all() {
        let knock = sealed_by(&vector);
        assert_eq!(knock[12..HEAD], vector.hex("box"));
        assert_eq!(knock[HEAD..], vector.hex("sealed_flight"));
        assert_eq!(knock, vector.hex("knock"));
    }
}

#[test]
fn the_vectors_open_with_every_value_in_between() {
    for vector in vectors::all() {
        let (knock, listener) = (vector.hex("knock"), own(2));
        let gate = Gate::new(listener.clone(), &vector.network());
        let boxed = gate.open_box(head(&knock)).expect("the box opens");
        assert_eq!(boxed.ephemeral(), vector.bytes("ephemeral_public"));

        let message: [u8; noise::SIZE] = vector.bytes("noise_message");
        let (payload, shown) = noise::read(&listener, vector.network().psk(), &message).expect("Noise opens");
        assert_eq!(payload, vector.bytes("payload"));
        assert_eq!(shown, vector.bytes("dialer_x25519_public"));

        for now in [NOW - MAX_SKEW_MS, NOW, NOW + MAX_SKEW_MS] {
            let opened = boxed.open(&gate, now, NOW - 1).expect("opens");
            assert_eq!(opened.caller().key().bytes(), vector.bytes("dialer_ed25519_public"));
            assert_eq!(opened.caller().version(), Version::V3);
            assert_eq!(opened.ephemeral(), boxed.ephemeral());
            assert_eq!((opened.time_ms(), opened.mode()), (vector.time_ms(), Mode::Yamux));
            assert_eq!((opened.flight_len(), opened.sealed_len()), (5, 21));
            assert_eq!(opened.decrypt_flight(&knock[HEAD..]), Ok(vector.hex("flight")));
        }
    }
}

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
fn every_single_bit_counts() {
    let knock = knock_at(NOW);
    assert!(open(&knock).is_ok());
    for bit in 0..knock.len() * 8 {
        let mut flipped = knock.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit / 8 < HEAD { Refusal::Box } else { Refusal::Flight };
        assert_eq!(refusal(&flipped), expected, "bit {bit}");
    }
}

#[test]
fn every_single_bit_of_the_noise_message_counts() {
    let vector = &vectors::all()[0];
    let message: [u8; noise::SIZE] = vector.bytes("noise_message");
    for bit in 0..noise::SIZE * 8 {
        let mut flipped = message;
        flipped[bit / 8] ^= 1 << (bit % 8);
        let knock = wrap(&callee(2), &Network::open(), &fresh(4), &flipped, b"hello");
        assert_eq!(refusal(&knock), Refusal::Noise, "bit {bit}");
    }
}

#[test]
fn a_knock_for_another_listener_or_network_stays_shut() {
    let private = |name: &[u8], secret| Network::private(name, &[secret; 32]).expect("a network");
    let networks = [Network::open(), private(b"a", 1), private(b"b", 1), private(b"a", 2)];
    for (i, made) in networks.iter().enumerate() {
        let flight = hello::tests::minimal();
        let knock = seal(&own(1), &callee(2), made, Mode::Yamux, NOW, &fresh(4), &flight).expect("seals");
        for (j, understood) in networks.iter().enumerate() {
            let opened = open_with(&Gate::new(own(2), understood), &knock, NOW);
            assert_eq!(opened.err(), (i != j).then_some(Refusal::Box));
        }
        let other = open_with(&Gate::new(own(3), made), &knock, NOW);
        assert_eq!(other.err(), Some(Refusal::Box));
    }
}

/// Somebody who knows the PeerID makes a box that opens, and holds nothing that belongs inside.
#[test]
fn what_a_box_holds_must_be_for_us_and_for_our_network() {
    let network = Network::private(b"a", &[1; 32]).expect("a network");
    let bytes = payload().encode();
    // Made for seed 3, put into a box at seed 2.
    let (key, form) = (own(3).key(), x25519::of_ed25519(&own(3).key()).expect("on the curve"));
    let message = noise::write(&own(1), &key, &form, &[0; 32], &[4; 32], &bytes).expect("writes");
    let knock = wrap(&callee(2), &Network::open(), &fresh(4), &message, b"hello");
    assert_eq!(refusal(&knock), Refusal::Noise);
    // The right listener and the network's box, but not its secret: two Diffie-Hellman go well, then no more.
    let (key, form) = (own(2).key(), x25519::of_ed25519(&own(2).key()).expect("on the curve"));
    let message = noise::write(&own(1), &key, &form, &[0; 32], &[4; 32], &bytes).expect("writes");
    let knock = wrap(&callee(2), &network, &fresh(4), &message, b"hello");
    let opened = open_with(&Gate::new(own(2), &network), &knock, NOW);
    assert_eq!(opened.err(), Some(Refusal::Noise));
}

#[test]
fn an_ephemeral_key_of_small_order_is_refused() {
    for point in EIGHT_TORSION {
        let mut message = [0; noise::SIZE];
        message[..32].copy_from_slice(&point.to_montgomery().to_bytes());
        let knock = wrap(&callee(2), &Network::open(), &fresh(4), &message, b"hello");
        assert_eq!(refusal(&knock), Refusal::Noise);
    }
}

#[test]
fn a_clock_may_differ_by_120_seconds_and_not_by_a_millisecond_more() {
    for (now, expected) in [
        (NOW - MAX_SKEW_MS - 1, Some(Refusal::Time)),
        (NOW - MAX_SKEW_MS, None),
        (NOW + MAX_SKEW_MS, None),
        (NOW + MAX_SKEW_MS + 1, Some(Refusal::Time)),
    ] {
        assert_eq!(open_with(&gate(2), &knock_at(NOW), now).err(), expected, "at {now}");
        assert_eq!(check_time(NOW, now).err(), expected, "at {now}");
    }
    assert_eq!(check_time(u64::MAX, 0), Err(Refusal::Time));
    assert_eq!(check_time(0, u64::MAX), Err(Refusal::Time));
    assert_eq!(check_time(0, MAX_SKEW_MS), Ok(()));
}

#[test]
fn a_late_knock_says_whose_clock_it_is_and_by_how_much() {
    let gate = gate(2);
    let late = |time_ms, now_ms, floor| {
        let boxed = gate.open_box(head(&knock_at(time_ms))).expect("the box opens");
        boxed.open(&gate, now_ms, floor).expect_err("late")
    };
    let peer = own(1).key().peer_id();
    let of = |refusal, skew_ms| Refused {
        refusal,
        late: Some(Late { peer, skew_ms }),
    };
    assert_eq!(late(NOW, NOW + 300_000, 0), of(Refusal::Time, -300_000));
    assert_eq!(late(NOW, NOW - 300_000, 0), of(Refusal::Time, 300_000));
    assert_eq!(late(u64::MAX, 0, 0), of(Refusal::Time, i64::MAX));
    // The floor itself is too low: strictly above is the rule.
    assert_eq!(late(NOW, NOW + 5, NOW), of(Refusal::Floor, -5));
    assert_eq!(late(NOW, NOW + 300_000, NOW), of(Refusal::Time, -300_000));
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
        &fresh(4),
        &flight,
    )
    .expect("seals");
    assert_eq!(refusal(&knock), Refusal::SelfDial);
}

#[test]
fn the_checks_come_in_their_order() {
    // Everything is wrong at first, and one thing after the other is set right.
    let mut bytes = Payload {
        key: own(3).key().bytes(),
        time_ms: 0,
        ..payload()
    }
    .encode();
    (bytes[40], bytes[41], bytes[42]) = (9, 1, 0xff);
    assert_eq!(refusal(&knock_saying(&bytes)), Refusal::Reserved);
    bytes[41] = 0;
    assert_eq!(refusal(&knock_saying(&bytes)), Refusal::Mode(9));
    bytes[40] = 2;
    assert_eq!(refusal(&knock_saying(&bytes)), Refusal::FlightLength(0xff05));
    bytes[42] = 0;
    assert_eq!(refusal(&knock_saying(&bytes)), Refusal::Time);
    bytes[32..40].copy_from_slice(&NOW.to_be_bytes());
    assert_eq!(refusal(&knock_saying(&bytes)), Refusal::Key);
    bytes[..32].copy_from_slice(&own(1).key().bytes());
    let mut knock = knock_saying(&bytes);
    knock[HEAD] ^= 1;
    assert_eq!(refusal(&knock), Refusal::Flight);
    knock[HEAD] ^= 1;
    assert_eq!(refusal(&knock), Refusal::Hello);
}

#[test]
fn a_flight_is_bound_to_its_knock_and_to_its_length() {
    let flight = hello::tests::minimal();
    let other = seal(
        &own(1),
        &callee(2),
        &Network::open(),
        Mode::Yamux,
        NOW,
        &fresh(5),
        &flight,
    )
    .expect("seals");
    let knock = knock_at(NOW);
    let mut swapped = knock[..HEAD].to_vec();
    swapped.extend_from_slice(&other[HEAD..]);
    assert_eq!(refusal(&swapped), Refusal::Flight);
    for length in HEAD..knock.len() {
        assert_eq!(refusal(&knock[..length]), Refusal::Flight);
    }
    let mut longer = knock;
    longer.push(0);
    assert_eq!(refusal(&longer), Refusal::Flight);
    // Sealed under the right key by the right peer, and not of the length that the knock says.
    let mut sealed = vec![0; 4 + TAG];
    Aead::new(&fresh(4).flight_key).seal([0; 12], b"", b"hell", &mut sealed);
    let gate = gate(2);
    let boxed = gate
        .open_box(head(&knock_saying(&payload().encode())))
        .expect("the box opens");
    assert_eq!(
        boxed.open(&gate, NOW, 0).expect("opens").decrypt_flight(&sealed),
        Err(Refusal::Flight)
    );
}

#[test]
fn flights_have_1_to_4096_bytes() {
    let sealed = |length| {
        let flight = vec![7; length];
        seal(
            &own(1),
            &callee(2),
            &Network::open(),
            Mode::Frames,
            NOW,
            &fresh(4),
            &flight,
        )
    };
    for length in [0, MAX_FLIGHT + 1, 1 << 16] {
        assert_eq!(sealed(length), Err(SealError::FlightLength(length)));
    }
    for length in [1, MAX_FLIGHT] {
        let knock = sealed(length).expect("seals");
        assert_eq!(knock.len(), HEAD + length + TAG);
        let gate = gate(2);
        let boxed = gate.open_box(head(&knock)).expect("the box opens");
        let opened = boxed.open(&gate, NOW, 0).expect("opens");
        assert_eq!((opened.mode(), opened.flight_len()), (Mode::Frames, length));
        assert_eq!(opened.decrypt_flight(&knock[HEAD..]), Ok(vec![7; length]));
    }
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
        let sealed = seal(
            &odd,
            &callee(1),
            &Network::open(),
            Mode::Yamux,
            NOW,
            &fresh(4),
            b"hello",
        );
        assert_eq!(sealed, Err(SealError::CannotAgree));
        let opened = open_with(&Gate::new(odd, &Network::open()), &knock_at(NOW), NOW);
        assert_eq!(opened.err(), Some(Refusal::Noise));
    }
}

#[test]
fn nothing_secret_is_shown() {
    let gate = gate(2);
    let boxed = gate.open_box(head(&knock_at(NOW))).expect("the box opens");
    let opened = boxed.open(&gate, NOW, 0).expect("opens");
    let shown = format!("{gate:?} {boxed:?} {opened:?}");
    assert!(shown.contains("12D3KooW"), "{shown}");
    let secret = format!("{:?}", fresh(4).flight_key);
    assert!(!shown.contains(&secret[..20]), "{shown}");
}
