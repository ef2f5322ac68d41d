//! The pure parts of the transport: what each knock costs before any TLS, what a wrong one costs, and what TLS records and
//! the muxer cost for what is sent afterwards.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use libp2p_identity::{Keypair, ed25519};
use libp2p_knock::internals::{self, Boxed, Callee, End, Fresh, Gate, HEAD, Heard, Hedged, Line, Reader, StaticKey};
use libp2p_knock::knock::v2;
use libp2p_knock::{Config, Identity, Mode, Network, Refusal, SignError};
use std::cell::RefCell;
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

const NOW: u64 = 1_800_000_000_000;

fn sealing_key(keypair: &Keypair) -> StaticKey {
    StaticKey::new(internals::local(keypair).expect("Ed25519")).expect("agrees")
}

fn fresh() -> Fresh {
    Fresh {
        nonce: [1; 12],
        ephemeral: [2; 32],
        flight_key: [3; 32],
    }
}

/// Flights of the lengths that rustls sends with X25519MLKEM768 and with X25519. What stands in them does not matter
/// here: reading it takes a fraction of a microsecond.
fn sealed(criterion: &mut Criterion) {
    let (dialer, listener) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let callee = Callee::of_peer(&listener.public().to_peer_id()).expect("Ed25519");
    let (own, network) = (sealing_key(&dialer), Network::open());
    let gate = Gate::new(sealing_key(&listener), &network);
    let seal = |flight: &[u8]| {
        internals::seal(&own, black_box(&callee), &network, Mode::Yamux, NOW, fresh(), flight).expect("seals")
    };
    let open = |knock: &[u8]| {
        let boxed: Boxed = gate.open_box(knock.first_chunk::<HEAD>().expect("a head"))?;
        let opened = boxed.open(&gate, NOW, 0).map_err(|refused| refused.refusal)?;
        opened.open_flight(&knock[HEAD..], &[0x11ec, 0x001d])
    };
    let mut group = criterion.benchmark_group("knock v3");
    for length in [176, 1398] {
        let flight = vec![0; length];
        let knock = seal(&flight);
        // All that a good knock goes through, but for the last look at the ClientHello.
        assert_eq!(open(&knock), Err(Refusal::Hello));
        group.bench_function(format!("seal {length}"), |b| b.iter(|| seal(black_box(&flight))));
        group.bench_function(format!("open {length}"), |b| b.iter(|| open(black_box(&knock))));
    }
    let hedged = Hedged::new(&*internals::local(&dialer).expect("Ed25519")).expect("signs");
    group.bench_function("randomness", |b| b.iter(|| hedged.fresh()));
    group.bench_function("Callee::of_peer", |b| {
        let peer = listener.public().to_peer_id();
        b.iter(|| Callee::of_peer(black_box(&peer)));
    });
    group.finish();

    let mut group = criterion.benchmark_group("knock v3 refused");
    let mut other_box = seal(&[0; 176]);
    other_box[HEAD - 1] ^= 1;
    // From somebody who knows the PeerID, with an ephemeral key and nothing behind it that opens.
    let other_noise = internals::wrap(&callee, &network, &fresh(), &[9; 176], &[0; 176]);
    for (name, knock, refusal) in [("box", other_box, Refusal::Box), ("Noise", other_noise, Refusal::Noise)] {
        assert_eq!(open(&knock), Err(refusal), "{name}");
        group.bench_function(name, |b| b.iter(|| open(black_box(&knock))));
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
                || Reader::new(true),
                |mut reader| {
                    let mut rest = &black_box(&knock)[..];
                    while !rest.is_empty() {
                        let space = reader.space();
                        let n = size.min(rest.len()).min(space.len());
                        space[..n].copy_from_slice(&rest[..n]);
                        reader.advance(n, |_| true);
                        rest = &rest[n..];
                    }
                    assert!(reader.gathered().is_some());
                    reader
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// One direction of a connection through its handshake.
fn line() -> Line {
    let config = || Config::new(&Keypair::generate_ed25519()).expect("Ed25519");
    let [line, _] = Line::both(&config(), &config());
    line
}

/// The largest record, and one that holds little.
fn records(criterion: &mut Criterion) {
    const DATA: u8 = 23;
    let mut group = criterion.benchmark_group("record");
    for size in [16, 16 * 1024] {
        let payload = vec![7; size];
        let mut speaking = line();
        group.bench_function(format!("seal {size}"), |b| {
            b.iter(|| speaking.say(DATA, black_box(&payload)))
        });
        // What is opened has to be sealed in its turn, and that is not timed.
        let line = RefCell::new(line());
        group.bench_function(format!("open {size}"), |b| {
            b.iter_batched_ref(
                || line.borrow_mut().say(DATA, &payload),
                |record| {
                    let heard = line.borrow_mut().hear(record);
                    assert!(matches!(heard, Ok(Heard::Data(_, data)) if data.len() == size));
                },
                BatchSize::NumIterations(64),
            );
        });
    }
    group.finish();
}

/// A data frame as it goes on the wire.
fn frame(flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short");
    let header = [[0, 0, 0, flags], stream.to_be_bytes(), length.to_be_bytes()];
    [&header.concat(), body].concat()
}

const SYN: u8 = 1;
const ACK: u8 = 2;

/// The muxer without records and sockets.
fn muxer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("yamux");
    for size in [16, 16 * 1024] {
        let (mut sender, mut receiver) = (End::new(true), End::new(false));
        let id = sender.open().expect("the first");
        let body = vec![7; size];
        let give = |flags, sender: &mut End, receiver: &mut End| {
            assert_eq!(sender.send(id, size), Some(size), "the window is granted anew");
            receiver.hear(&frame(flags, id, &body)).expect("as it should be");
            assert_eq!(receiver.read(id), Some(size));
            sender.hear(&receiver.talk()).expect("as it should be");
        };
        give(SYN, &mut sender, &mut receiver);
        assert_eq!(receiver.accept(), Some(id));
        // What a window takes of it is heard as well.
        group.bench_function(format!("send and receive {size}"), |b| {
            b.iter(|| give(0, &mut sender, &mut receiver));
        });
    }
    let (mut dialer, mut listener) = (End::new(true), End::new(false));
    group.bench_function("a stream from its opening to its end", |b| {
        b.iter(|| {
            let id = dialer.open().expect("the one before is gone");
            assert_eq!(dialer.send(id, 1), Some(1));
            listener.hear(&frame(SYN, id, b"q")).expect("as it should be");
            assert_eq!(listener.accept(), Some(id));
            assert_eq!(listener.read(id), Some(1));
            assert_eq!(listener.send(id, 1), Some(1));
            dialer.hear(&frame(ACK, id, b"a")).expect("as it should be");
            assert_eq!(dialer.read(id), Some(1));
            dialer.finish(id);
            listener.hear(&dialer.talk()).expect("as it should be");
            listener.finish(id);
            dialer.hear(&listener.talk()).expect("as it should be");
            dialer.forget(id);
            listener.forget(id);
        });
    });
    group.finish();
}

/// What a node pays once, when it starts.
fn configure(criterion: &mut Criterion) {
    let key = Keypair::generate_ed25519();
    criterion.bench_function("Config::new", |b| b.iter(|| Config::new(black_box(&key))));
}

criterion_group!(
    pure,
    seal_and_open,
    refuse,
    sealed,
    read_in_pieces,
    records,
    muxer,
    configure
);
criterion_main!(pure);
