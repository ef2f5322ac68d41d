//! No byte comes back, and no probe ends otherwise than the next.

use arsenal::capture::{Recorder, load};
use arsenal::classes::{classes, worst};
use arsenal::content::{Content, Pantry};
use arsenal::gate::GateKey;
use arsenal::grid::{Ending, probe};
use arsenal::honest::Honest;
use arsenal::inpath::{InPath, Mode};
use arsenal::source::Sources;
use arsenal::sweep::Sweep;
use arsenal::target::{Close, Kind, Settings, Target};
use libp2p_identity::Keypair;
use std::sync::Arc;
use std::time::Duration;

/// Flights of honest dialers that `target` has answered, once each.
async fn captures(kind: Kind, target: &Target) -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path()).unwrap());
    let mut path = InPath::start(any, target.address, Mode::Record(recorder))
        .await
        .unwrap();
    let dialers = Honest::new(kind, path.address, target.peer, Sources::honest(4)).unwrap();
    dialers.authenticate().await.unwrap();
    for _ in 0..4 {
        path.ended().await.unwrap();
    }
    load(&[directory.path().to_owned()]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_probes_get_no_byte_and_cannot_be_told_apart() {
    let settings = Settings {
        close: Close::After(Duration::from_secs(2)),
        ..Settings::default()
    };
    let key = Keypair::generate_ed25519();
    let any = "127.0.0.1:0".parse().unwrap();
    let target = Target::start(Kind::Knock, &key, &[any], settings).await.unwrap();
    let mut flights = captures(Kind::Knock, &target).await;
    // Version 2 is not spoken here; the same identity does so elsewhere.
    let elsewhere = Target::start(Kind::KnockV2, &key, &[any], settings).await.unwrap();
    flights.extend(captures(Kind::KnockV2, &elsewhere).await);
    drop(elsewhere);
    let gate = GateKey::of_peer(&target.peer).unwrap();
    let pantry = Pantry::new(flights, Some(gate)).unwrap();
    let contents = pantry.contents();
    for content in [Content::SealedNoise, Content::FlippedCapture, Content::RewrappedCapture] {
        assert!(contents.contains(&content), "{content}");
    }

    let mut sweep = Sweep::new(target.address);
    (sweep.rate, sweep.in_flight, sweep.limits.hold) = (1500.0, 2000, Duration::from_secs(8));
    let seed = 1;
    let plan = (0..10_000).map(|index| probe(seed, index, &contents, &Ending::ALL));
    let swept = sweep.run(Arc::new(pantry), plan, |_| {}).await;

    assert_eq!(
        (swept.records.len(), swept.unsent()),
        (10_000, 0),
        "{:?}",
        swept.not_connected
    );
    assert_eq!(swept.bytes_answered(), 0);
    // A close at once and one at the deadline are two seconds apart; a busy machine may be half of that late.
    let classes = classes(&swept.records, Duration::from_secs(1));
    assert_eq!(worst(&classes), 1, "{classes:#?}");
    assert_eq!(target.established(), 4);
}
