//! The knock as a whole: the vectors, every refusal, every bit.

use super::aead::Aead;
use super::noise;
use super::payload::{self, Payload};
use super::seal::seal_payload;
use super::vectors::{self, Vector};
use super::*;
use crate::identity::Local;
use crate::knock::{Mode, Refusal, Version};
use crate::x25519;
use curve25519_dalek::constants::EIGHT_TORSION;
use libp2p_identity::Keypair;
use std::sync::Arc;

mod keys;

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
        fresh(4),
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
        vector.fresh(),
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
        let knock = seal(&own(1), &callee(2), made, Mode::Yamux, NOW, fresh(4), &flight).expect("seals");
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
        fresh(5),
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
            fresh(4),
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
fn nothing_secret_is_shown() {
    let gate = gate(2);
    let boxed = gate.open_box(head(&knock_at(NOW))).expect("the box opens");
    let opened = boxed.open(&gate, NOW, 0).expect("opens");
    let shown = format!("{gate:?} {boxed:?} {opened:?}");
    assert!(shown.contains("12D3KooW"), "{shown}");
    let secret = format!("{:?}", fresh(4).flight_key);
    assert!(!shown.contains(&secret[..20]), "{shown}");
}
