//! What an attacker in the path can do to a dial at our listener.
//!
//! The knock here is of version 2, which cannot be bound to the flight that follows it: that a copy is answered, and a
//! ClientHello put behind somebody else's knock, is what enabling it means. A sealed knock must turn both to silence.

use arsenal::capture::{Recorder, load};
use arsenal::content::client_hello;
use arsenal::honest::Honest;
use arsenal::inpath::{Dial, InPath, Mode};
use arsenal::replay::{Replay, Way};
use arsenal::source::Sources;
use arsenal::target::{Kind, Settings, Target};
use libp2p_identity::Keypair;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Scene {
    target: Target,
    path: InPath,
    dialers: Honest,
}

impl Scene {
    /// A listener, the attacker before it, and so many dialers that take him for the listener.
    async fn new(mode: Mode, dialers: u16) -> Self {
        let settings = Settings {
            close_time: Duration::from_millis(700),
            ..Settings::default()
        };
        let any = "127.0.0.1:0".parse().unwrap();
        let key = Keypair::generate_ed25519();
        let target = Target::start(Kind::Knock, &key, any, settings).await.unwrap();
        let path = InPath::start(any, target.address, mode).await.unwrap();
        let dialers = Honest::new(Kind::Knock, path.address, target.peer, Sources::honest(dialers)).unwrap();
        Self { target, path, dialers }
    }

    /// One dial: whether it got through, and what the attacker saw.
    async fn dial(&mut self) -> (bool, Dial) {
        let through = self.dialers.authenticate().await.is_ok();
        (through, self.path.ended().await.unwrap())
    }
}

#[tokio::test]
async fn a_recorded_flight_is_a_knock_and_a_client_hello() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path()).unwrap());
    let mut scene = Scene::new(Mode::Record(recorder), 1).await;
    let (through, dial) = scene.dial().await;
    assert!(through && dial.down > 0);
    let flights = load(&[directory.path().to_owned()]).unwrap();
    assert_eq!(flights, [dial.flight]);
    // A knock of version 2, then a TLS record that holds a handshake message, the ClientHello.
    assert!(flights[0].len() > 97);
    assert_eq!((flights[0][0], flights[0][97], flights[0][97 + 5]), (2, 22, 1));

    // What this version cannot cure: whoever has it gets a server's flight.
    let replay = Replay {
        times: 2,
        copies: 4,
        ..Replay::new(scene.target.address)
    };
    let replayed = replay
        .run(&flights, &[Way::OtherSource, Way::AtOnce, Way::OtherAddress], None, 1)
        .await;
    let figures: Vec<_> = replayed.iter().map(|one| (one.sent, one.answered)).collect();
    assert_eq!(figures, [(2, 2), (4, 4), (0, 0)]);
}

#[tokio::test]
async fn a_flight_that_is_withheld_brings_no_byte_out_of_the_listener() {
    let mut scene = Scene::new(Mode::Withhold, 1).await;
    let (through, dial) = scene.dial().await;
    assert!(!through && dial.flight.len() > 97);
    assert_eq!((dial.up, dial.down, scene.target.established()), (0, 0, 0));
}

#[tokio::test]
async fn a_flight_that_is_cut_anywhere_in_its_knock_brings_no_byte_out_of_the_listener() {
    for keep in [1, 33, 96] {
        let mut scene = Scene::new(Mode::Cut(keep), 1).await;
        let (through, dial) = scene.dial().await;
        assert!(!through, "{keep}");
        assert_eq!((dial.up, dial.down), (keep as u64, 0));
    }
}

#[tokio::test]
async fn a_copy_that_goes_first_is_answered_under_version_2_and_the_original_gets_through() {
    let mut scene = Scene::new(Mode::ReplayFirst, 1).await;
    let (through, dial) = scene.dial().await;
    assert!(through);
    assert!(dial.copy_answered > 0);
}

#[tokio::test]
async fn a_flight_that_is_delayed_gets_through_later() {
    let wait = Duration::from_millis(300);
    let mut scene = Scene::new(Mode::Delay(wait), 1).await;
    let started = Instant::now();
    assert!(scene.dial().await.0);
    assert!(started.elapsed() >= wait);
}

#[tokio::test]
async fn a_dial_that_is_dropped_fails() {
    let mut scene = Scene::new(Mode::Drop, 1).await;
    let (through, dial) = scene.dial().await;
    assert!(!through);
    assert_eq!((dial.up, dial.down), (0, 0));
}

#[tokio::test]
async fn of_two_dials_whose_flights_are_swapped_neither_gets_through() {
    let mut scene = Scene::new(Mode::Swap, 2).await;
    let served = scene.dialers.run(2, 0.0).await;
    assert_eq!((served.dials, served.within_three), (2, 0), "{served:?}");
    assert_eq!(scene.target.established(), 0);
    let (a, b) = (scene.path.ended().await.unwrap(), scene.path.ended().await.unwrap());
    assert_ne!(a.flight, b.flight);
}

#[tokio::test]
async fn a_client_hello_behind_a_captured_knock_is_answered_under_version_2_and_gets_nobody_in() {
    let replace = Mode::Replace {
        keep: 97,
        with: client_hello().unwrap(),
    };
    let mut scene = Scene::new(replace, 1).await;
    let (through, dial) = scene.dial().await;
    assert!(!through && dial.down > 0);
    assert_eq!(scene.target.established(), 0);
}
