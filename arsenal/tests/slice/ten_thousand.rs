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
use arsenal::target::{Kind, Settings, Target};
use libp2p_identity::Keypair;
use std::sync::Arc;
use std::time::Duration;

/// Flights of honest dialers at another listener: well-formed, and nothing to this one.
async fn captures(settings: Settings) -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let other = Target::start(Kind::Knock, &Keypair::generate_ed25519(), any, settings)
        .await
        .unwrap();
    let recorder = Arc::new(Recorder::new(directory.path()).unwrap());
    let mut path = InPath::start(any, other.address, Mode::Record(recorder)).await.unwrap();
    let dialers = Honest::new(Kind::Knock, path.address, other.peer, Sources::honest(4)).unwrap();
    dialers.authenticate().await.unwrap();
    for _ in 0..4 {
        path.ended().await.unwrap();
    }
    load(&[directory.path().to_owned()]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_probes_get_no_byte_and_cannot_be_told_apart() {
    let settings = Settings {
        close_time: Duration::from_secs(2),
        ..Settings::default()
    };
    let captures = captures(settings).await;
    let key = Keypair::generate_ed25519();
    let any = "127.0.0.1:0".parse().unwrap();
    let target = Target::start(Kind::Knock, &key, any, settings).await.unwrap();
    let gate = GateKey::of_peer(&target.peer).unwrap();
    let pantry = Pantry::new(captures, Some(gate)).unwrap();
    let contents = pantry.contents();
    assert!(contents.contains(&Content::FlippedCapture) && contents.contains(&Content::SealedNoise));

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
    assert_eq!(target.established(), 0);
}
