//! The prober and the replayer against what one would use instead: they find there what they are to find nowhere in ours.

use arsenal::capture::{Recorder, load};
use arsenal::classes::{classes, worst};
use arsenal::content::{Content, Pantry};
use arsenal::grid::{Ending, probe};
use arsenal::inpath::{InPath, Mode};
use arsenal::replay::{Replay, Way};
use arsenal::source::BoundTcp;
use arsenal::sweep::{Sweep, Swept};
use arsenal::target::{Kind, Settings, Target};
use interop::process::Process;
use libp2p_core::transport::{DialOpts, PortUse};
use libp2p_core::{Endpoint, Multiaddr, Transport as _};
use libp2p_identity::Keypair;
use libp2p_knock::{Authenticated, Config};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

async fn sweep(target: SocketAddr, probes: u64, endings: &'static [Ending], hold: f64) -> Swept {
    let mut sweep = Sweep::new(target);
    (sweep.rate, sweep.limits.hold) = (300.0, Duration::from_secs_f64(hold));
    let plan = (0..probes).map(|index| probe(2, index, &Content::PLAIN, endings));
    sweep
        .run(Arc::new(Pantry::new(Vec::new(), None).unwrap()), plan, |_| {})
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_libp2p_answers_probes() {
    let key = Keypair::generate_ed25519();
    let any = "127.0.0.1:0".parse().unwrap();
    let target = Target::start(Kind::Noise, &key, &[any], Settings::default())
        .await
        .unwrap();
    let swept = sweep(target.address, 300, &Ending::ALL, 1.0).await;
    assert!(swept.bytes_answered() > 0);
    assert!(worst(&classes(&swept.records, Duration::from_millis(250))) > 1);
}

const GO_SEED: [u8; 32] = [2; 32];
const OUR_SEED: [u8; 32] = [1; 32];

fn keypair(mut seed: [u8; 32]) -> Keypair {
    Keypair::ed25519_from_bytes(&mut seed).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_original_is_told_by_its_close_times_and_answers_a_replay() {
    let Some(program) = interop::go::peer(Path::new(env!("CARGO_TARGET_TMPDIR"))) else {
        return;
    };
    let mut command = Command::new(program);
    command.args(["-seed", &hex::encode(GO_SEED)]);
    command.args(["-peer", &keypair(OUR_SEED).public().to_peer_id().to_string()]);
    let go = Process::spawn("go", &mut command).unwrap();
    let ready = go
        .wait_for(|event| event["event"] == "ready", Duration::from_secs(20))
        .unwrap();
    let address: SocketAddr = ready["listen"].as_str().unwrap().parse().unwrap();

    let swept = sweep(address, 400, &[Ending::Hold], 6.5).await;
    let classes = classes(&swept.records, Duration::from_millis(1000));
    assert!(worst(&classes) > 1, "{classes:#?}");
    assert_eq!(swept.bytes_answered(), 0);

    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(directory.path()).unwrap());
    let any = "127.0.0.1:0".parse().unwrap();
    let mut path = InPath::start(any, address, Mode::Record(recorder)).await.unwrap();
    knock_at_go(path.address).await;
    let dial = path.ended().await.unwrap();
    assert!(dial.down > 0);

    let flights = load(&[directory.path().to_owned()]).unwrap();
    assert_eq!((flights.len(), flights[0][0]), (1, 2));
    let replay = Replay {
        times: 3,
        copies: 8,
        ..Replay::new(address)
    };
    for replayed in replay
        .run(&flights, &[Way::SameSource, Way::OtherSource, Way::AtOnce], None, 1)
        .await
    {
        assert_eq!(replayed.answered, replayed.sent, "{replayed:?}");
        assert!(replayed.sent > 0);
    }
}

/// One dial of a peer that Go knows, and its end.
async fn knock_at_go(address: SocketAddr) {
    let config = Config::new(&keypair(OUR_SEED)).unwrap().ragep2p_compatible();
    let mut transport = Authenticated::new(BoundTcp([127, 0, 0, 1].into()), config);
    let to: Multiaddr = format!(
        "/ip4/127.0.0.1/tcp/{}/tls/p2p/{}",
        address.port(),
        keypair(GO_SEED).public().to_peer_id()
    )
    .parse()
    .unwrap();
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    transport.dial(to, opts).unwrap().await.unwrap();
}
