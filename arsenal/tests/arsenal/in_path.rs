//! What an attacker in the path can do to a dial at our listener.
//!
//! A sealed knock is answered once, to whoever delivers it first, and is bound to the flight behind it. One of version 2
//! can be neither: that every copy is answered, and a ClientHello put behind somebody else's knock, is what enabling it
//! means.

use arsenal::capture::{Recorder, load};
use arsenal::content::client_hello;
use arsenal::gate::{GateKey, HEAD};
use arsenal::honest::Honest;
use arsenal::inpath::{Dial, InPath, Mode};
use arsenal::replay::{Replay, Way};
use arsenal::source::Sources;
use arsenal::target::{Close, Kind, Settings, Target};
use libp2p_identity::Keypair;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A knock of version 2: 02, key, signature.
const V2: usize = 97;

/// The ClientHello of our dialer, one record, with a share for X25519MLKEM768.
const HELLO: usize = 1400;

/// The sealed flight is longer than what it holds.
const TAG: usize = 16;

struct Scene {
    target: Target,
    path: InPath,
    dialers: Honest,
}

impl Scene {
    /// A listener, the attacker before it, and so many dialers that take him for the listener.
    async fn new(kind: Kind, mode: Mode, dialers: u16) -> Self {
        let settings = Settings {
            close: Close::After(Duration::from_millis(700)),
            ..Settings::default()
        };
        let any = "127.0.0.1:0".parse().unwrap();
        let key = Keypair::generate_ed25519();
        let target = Target::start(kind, &key, &[any], settings).await.unwrap();
        let path = InPath::start(any, target.address, mode).await.unwrap();
        let dialers = Honest::new(kind, path.address, target.peer, Sources::honest(dialers)).unwrap();
        Self { target, path, dialers }
    }

    async fn recording(kind: Kind, directory: &Path) -> Self {
        let recorder = Arc::new(Recorder::new(directory).unwrap());
        Self::new(kind, Mode::Record(recorder), 1).await
    }

    /// One dial: whether it got through, and what the attacker saw.
    async fn dial(&mut self) -> (bool, Dial) {
        let through = self.dialers.authenticate().await.is_ok();
        (through, self.path.ended().await.unwrap())
    }

    /// Flights sent and flights answered, in each way.
    async fn replay(&self, flights: &[Vec<u8>]) -> Vec<(u64, u64)> {
        let replay = Replay {
            times: 2,
            copies: 4,
            also: vec![self.target.address],
            ..Replay::new(self.target.address)
        };
        let gate = GateKey::of_peer(&self.target.peer).unwrap();
        let replayed = replay.run(flights, &Way::ALL, Some(&gate), 1).await;
        replayed.iter().map(|one| (one.sent, one.answered)).collect()
    }
}

#[tokio::test]
async fn a_sealed_flight_is_a_head_and_a_sealed_client_hello_and_is_answered_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut scene = Scene::recording(Kind::Knock, directory.path()).await;
    let (through, dial) = scene.dial().await;
    assert!(through && dial.down > 0);
    let flights = load(&[directory.path().to_owned()]).unwrap();
    assert_eq!(flights, [dial.flight]);
    assert_eq!(flights[0].len(), HEAD + HELLO + TAG);
    assert_eq!(scene.replay(&flights).await, [(2, 0), (2, 0), (2, 0), (4, 0), (2, 0)]);
    assert_eq!(scene.target.established(), 1);
}

#[tokio::test]
async fn a_flight_of_version_2_is_a_knock_and_a_client_hello_and_every_copy_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let mut scene = Scene::recording(Kind::KnockV2, directory.path()).await;
    let (through, dial) = scene.dial().await;
    assert!(through && dial.down > 0);
    let flights = load(&[directory.path().to_owned()]).unwrap();
    assert_eq!(flights, [dial.flight]);
    // Behind the knock a TLS record that holds a handshake message, the ClientHello.
    assert!(flights[0].len() > V2);
    assert_eq!((flights[0][0], flights[0][V2], flights[0][V2 + 5]), (2, 22, 1));
    // Whoever has it gets a server's flight, but for the limit of four at once, and two a second, for each peer and
    // network. It has no box to rewrap.
    let figures = scene.replay(&flights).await;
    let [same, other, ..] = figures[..] else {
        panic!("{figures:?}")
    };
    assert!(same.1 > 0, "{figures:?}");
    assert_eq!(other, (2, 2));
    assert_eq!(figures[4], (0, 0));
    assert_eq!(scene.target.established(), 1);
}

#[tokio::test]
async fn a_flight_that_is_withheld_brings_no_byte_out_of_the_listener() {
    for kind in [Kind::Knock, Kind::KnockV2] {
        let mut scene = Scene::new(kind, Mode::Withhold, 1).await;
        let (through, dial) = scene.dial().await;
        assert!(!through && dial.flight.len() > V2);
        assert_eq!((dial.up, dial.down, scene.target.established()), (0, 0, 0));
    }
}

#[tokio::test]
async fn a_flight_that_is_cut_anywhere_brings_no_byte_out_of_the_listener() {
    // Of a sealed one the last byte may be all that is missing; one of version 2 is a knock by itself.
    let cuts = [1, 33, 96].map(|keep| (Kind::KnockV2, keep));
    let sealed = [1, HEAD - 1, HEAD, HEAD + HELLO + TAG - 1].map(|keep| (Kind::Knock, keep));
    for (kind, keep) in cuts.into_iter().chain(sealed) {
        let mut scene = Scene::new(kind, Mode::Cut(keep), 1).await;
        let (through, dial) = scene.dial().await;
        assert!(!through, "{kind:?} {keep}");
        assert_eq!((dial.up, dial.down), (keep as u64, 0), "{kind:?}");
    }
}

#[tokio::test]
async fn a_copy_that_goes_first_is_answered_and_the_sealed_original_meets_silence() {
    let mut scene = Scene::new(Kind::Knock, Mode::ReplayFirst, 1).await;
    let (through, dial) = scene.dial().await;
    assert!(!through && dial.copy_answered > 0);
    assert_eq!((dial.down, scene.target.established()), (0, 0));
}

#[tokio::test]
async fn a_copy_that_goes_first_is_answered_under_version_2_and_so_is_the_original() {
    let mut scene = Scene::new(Kind::KnockV2, Mode::ReplayFirst, 1).await;
    let (through, dial) = scene.dial().await;
    assert!(through && dial.copy_answered > 0);
}

#[tokio::test]
async fn a_flight_that_is_delayed_gets_through_later() {
    let wait = Duration::from_millis(300);
    for kind in [Kind::Knock, Kind::KnockV2] {
        let mut scene = Scene::new(kind, Mode::Delay(wait), 1).await;
        let started = Instant::now();
        assert!(scene.dial().await.0);
        assert!(started.elapsed() >= wait);
    }
}

#[tokio::test]
async fn a_dial_that_is_dropped_fails() {
    let mut scene = Scene::new(Kind::Knock, Mode::Drop, 1).await;
    let (through, dial) = scene.dial().await;
    assert!(!through);
    assert_eq!((dial.up, dial.down), (0, 0));
}

#[tokio::test]
async fn of_two_dials_whose_flights_are_swapped_neither_gets_through() {
    // A whole flight is a good knock wherever it comes from, once.
    for (kind, keep) in [(Kind::Knock, 0), (Kind::Knock, HEAD), (Kind::KnockV2, V2)] {
        let mut scene = Scene::new(kind, Mode::Swap { keep }, 2).await;
        let served = scene.dialers.run(2, 0.0).await;
        assert_eq!((served.dials, served.within_three), (2, 0), "{served:?}");
        assert_eq!(scene.target.established(), 0);
        let (a, b) = (scene.path.ended().await.unwrap(), scene.path.ended().await.unwrap());
        assert_ne!(a.flight, b.flight);
        if keep == HEAD {
            assert_eq!((a.down, b.down), (0, 0), "a head is bound to its flight");
        }
    }
}

#[tokio::test]
async fn behind_a_captured_head_a_client_hello_of_ones_own_meets_silence() {
    let replace = Mode::Replace {
        keep: HEAD,
        with: client_hello().unwrap(),
    };
    let mut scene = Scene::new(Kind::Knock, replace, 1).await;
    let (through, dial) = scene.dial().await;
    assert!(!through && dial.up > HEAD as u64);
    assert_eq!((dial.down, scene.target.established()), (0, 0));
}

#[tokio::test]
async fn behind_a_captured_knock_of_version_2_it_is_answered_and_gets_nobody_in() {
    let replace = Mode::Replace {
        keep: V2,
        with: client_hello().unwrap(),
    };
    let mut scene = Scene::new(Kind::KnockV2, replace, 1).await;
    let (through, dial) = scene.dial().await;
    assert!(!through && dial.down > 0);
    assert_eq!(scene.target.established(), 0);
}
