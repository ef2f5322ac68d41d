//! To whoever does not know the listener's PeerID a knock is uniform bytes. What goes into it is the same in every run,
//! so this passes for ever or never.

use super::statistics::Counts;
use super::{Callee, Fresh, HEAD, Network, StaticKey, TAG, hello, noise, payload, seal};
use crate::identity::{Identity, Key, Local, SignError};
use crate::knock::{Mode, v2};
use crate::x25519;
use blake2::{Blake2s256, Digest};
use libp2p_identity::Keypair;
use std::sync::{Arc, OnceLock};

const KNOCKS: u64 = 100_000;

/// A fair test rejects uniform bytes this often.
const LEVEL: f64 = 0.01;

/// What is not uniform has to be far below.
const OBVIOUS: f64 = 1e-12;

fn local(seed: u8) -> Local {
    Local::new(&Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes")).expect("Ed25519")
}

/// Knocks at one and the same listener: remembers what comes of that, which is half of the work.
struct Remembering(Local, [u8; 32], OnceLock<[u8; 32]>);

impl Identity for Remembering {
    fn public_key(&self) -> [u8; 32] {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        self.0.sign(message)
    }

    fn agree(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        if *peer == self.1 {
            return Some(*self.2.get_or_init(|| self.0.agree(peer).expect("of full order")));
        }
        self.0.agree(peer)
    }
}

struct Pair {
    dialer: StaticKey,
    callee: Callee,
    listener: Key,
    listener_x25519: [u8; 32],
}

fn pair() -> Pair {
    let listener = Key::check(&local(2).public_key()).expect("a key");
    let listener_x25519 = x25519::of_ed25519(&listener).expect("on the curve");
    let identity = Remembering(local(1), listener_x25519, OnceLock::new());
    Pair {
        dialer: StaticKey::new(Arc::new(identity)).expect("agrees"),
        callee: Callee::new(listener).expect("on the curve"),
        listener,
        listener_x25519,
    }
}

fn fresh(number: u64) -> Fresh {
    let hash = |what: &[u8]| -> [u8; 32] {
        Blake2s256::new()
            .chain_update(what)
            .chain_update(number.to_be_bytes())
            .finalize()
            .into()
    };
    Fresh {
        nonce: *hash(b"nonce").first_chunk().expect("12 of 32"),
        ephemeral: hash(b"ephemeral"),
        flight_key: hash(b"flight"),
    }
}

/// One after the other in time, with one and the same flight: the least variety that there can be.
fn knock(pair: &Pair, number: u64, flight: &[u8]) -> Vec<u8> {
    let time_ms = 1_800_000_000_000 + number;
    let network = Network::open();
    seal(
        &pair.dialer,
        &pair.callee,
        &network,
        Mode::Yamux,
        time_ms,
        fresh(number),
        flight,
    )
    .expect("seals")
}

#[test]
fn a_hundred_thousand_sealed_knocks_are_uniform_in_every_byte_pair_and_bit() {
    let (pair, flight) = (pair(), hello::tests::minimal());
    let length = HEAD + flight.len() + TAG;
    let mut counts = Counts::new(length);
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().min(8)) as u64;
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|thread| {
                let (pair, flight) = (&pair, &flight);
                scope.spawn(move || {
                    let mut counts = Counts::new(length);
                    for number in (thread..KNOCKS).step_by(threads as usize) {
                        counts.add(&knock(pair, number, flight));
                    }
                    counts
                })
            })
            .collect();
        for part in parts {
            counts.merge(&part.join().expect("no panic"));
        }
    });
    let p = counts.p_value();
    assert!(p > LEVEL, "p = {p}");
}

/// The same tests see what is not uniform, in far fewer messages.
#[test]
fn bare_noise_messages_are_not_uniform() {
    let pair = pair();
    let mut counts = Counts::new(noise::SIZE);
    for number in 0..3_000 {
        let message = noise::write(
            &pair.dialer,
            &pair.listener,
            &pair.listener_x25519,
            &[0; 32],
            &fresh(number).ephemeral,
            &[0; payload::SIZE],
        );
        counts.add(&message.expect("writes"));
    }
    assert!(counts.p_value() < OBVIOUS);
}

#[test]
fn knocks_of_version_2_are_not_uniform() {
    let mut counts = Counts::new(v2::SIZE);
    let listener = local(2).public_key();
    for seed in 0..=255 {
        counts.add(&v2::seal(&local(seed), &listener).expect("signs"));
    }
    assert!(counts.p_value() < OBVIOUS);
}

/// A single bit that is set in 51 of 100 messages would be found.
#[test]
fn a_bias_of_one_bit_in_a_hundred_is_seen() {
    let mut counts = Counts::new(32);
    for number in 0..KNOCKS {
        let mut message = fresh(number).ephemeral;
        if number % 50 == 0 {
            message[7] |= 0x10;
        }
        counts.add(&message);
    }
    assert!(counts.p_value() < OBVIOUS.sqrt());
}
