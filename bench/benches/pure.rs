//! The pure parts of the transport: what each knock costs before any TLS, and what a wrong one costs.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use libp2p_identity::{Keypair, ed25519};
use libp2p_knock::knock::{Reader, v2};
use libp2p_knock::{Identity, Refusal, SignError};
use std::hint::black_box;

struct Local(ed25519::Keypair);

impl Local {
    fn new() -> Self {
        Self(ed25519::Keypair::generate())
    }
}

impl Identity for Local {
    fn public_key(&self) -> [u8; 32] {
        self.0.public().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let signature = self.0.sign(message);
        signature
            .try_into()
            .map_err(|_| SignError("a signature of another length".into()))
    }
}

fn seal_and_open(criterion: &mut Criterion) {
    let (dialer, listener) = (Local::new(), Local::new());
    let own = listener.public_key();
    let knock = v2::seal(&dialer, &own).expect("a local key signs");
    let mut group = criterion.benchmark_group("knock v2");
    group.bench_function("seal", |b| b.iter(|| v2::seal(black_box(&dialer), black_box(&own))));
    group.bench_function("open", |b| b.iter(|| v2::open(black_box(&knock), black_box(&own))));
    group.finish();
}

/// In the order of the checks, so each is dearer than the one before.
fn refuse(criterion: &mut Criterion) {
    let (dialer, listener) = (Local::new(), Local::new());
    let own = listener.public_key();
    let good = v2::seal(&dialer, &own).expect("a local key signs");

    let mut version = good;
    version[0] = 0x16;
    let self_dial = v2::seal(&listener, &own).expect("a local key signs");
    let mut weak = good;
    weak[1..33].fill(0);
    weak[1] = 1;
    let mut signature = good;
    signature[40] ^= 1;

    let mut group = criterion.benchmark_group("knock v2 refused");
    let cases = [
        ("version", version, Refusal::Version(0x16)),
        ("self dial", self_dial, Refusal::SelfDial),
        ("key", weak, Refusal::Key),
        ("signature", signature, Refusal::Signature),
    ];
    for (name, knock, refusal) in cases {
        assert_eq!(v2::open(&knock, &own), Err(refusal), "{name}");
        group.bench_function(name, |b| b.iter(|| v2::open(black_box(&knock), black_box(&own))));
    }
    group.finish();
}

/// Gathering alone; opening is measured above.
fn read_in_pieces(criterion: &mut Criterion) {
    let (dialer, listener) = (Local::new(), Local::new());
    let knock = v2::seal(&dialer, &listener.public_key()).expect("a local key signs");
    let mut group = criterion.benchmark_group("reader");
    for size in [1, 16, v2::SIZE] {
        group.bench_function(format!("pieces of {size}"), |b| {
            b.iter_batched(
                Reader::new,
                |mut reader| {
                    for piece in black_box(&knock).chunks(size) {
                        reader.space()[..piece.len()].copy_from_slice(piece);
                        reader.advance(piece.len());
                    }
                    assert!(reader.is_complete());
                    reader
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// What a node pays once, when it starts.
fn configure(criterion: &mut Criterion) {
    let key = Keypair::generate_ed25519();
    criterion.bench_function("Config::new", |b| b.iter(|| libp2p_knock::Config::new(black_box(&key))));
}

criterion_group!(pure, seal_and_open, refuse, read_in_pieces, configure);
criterion_main!(pure);
