//! Two Go nodes and two of ours.

use futures::FutureExt as _;
use interop::process::Process;
use knock_host::discovery::ragedisco::{Config, Ragedisco};
use knock_host::{Host, HostConfig, Limits, Stream};
use libp2p::Multiaddr;
use libp2p::identity::{Keypair, PeerId};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const STREAM: &str = "x";
const INTERVAL: Duration = Duration::from_millis(200);
const GO: [(u8, &str); 2] = [(2, "v1"), (4, "new")];
const OURS: [u8; 2] = [1, 3];
const ALL: [u8; 4] = [1, 2, 3, 4];

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn peer(seed: u8) -> PeerId {
    keypair(seed).public().to_peer_id()
}

/// Where the group begins.
#[derive(Clone)]
struct Bootstrapper {
    peer: PeerId,
    /// `127.0.0.1:N`
    address: String,
}

impl Bootstrapper {
    fn multiaddr(&self) -> Multiaddr {
        let port = self.address.rsplit(':').next().unwrap();
        format!("/ip4/127.0.0.1/tcp/{port}/tls").parse().unwrap()
    }
}

struct Go {
    seed: u8,
    process: Process,
    listen: String,
}

fn start_go(program: &Path, (seed, stack): (u8, &str), bootstrapper: Option<&Bootstrapper>) -> Go {
    let mut command = Command::new(program);
    command.args(["-seed", &hex::encode([seed; 32]), "-stream", STREAM, "-stack", stack]);
    command.args(["-send", &format!("from {seed}"), "-delta", "200ms"]);
    for seed in ALL {
        command.args(["-oracle", &peer(seed).to_string()]);
    }
    if let Some(Bootstrapper { peer, address }) = bootstrapper {
        command.args(["-bootstrapper", &format!("{peer}={address}")]);
    }
    let process = Process::spawn(format!("go {stack}"), &mut command).unwrap();
    let ready = process.wait_for(|event| event["event"] == "ready", PATIENCE).unwrap();
    Go {
        seed,
        listen: ready["listen"].as_str().unwrap().to_owned(),
        process,
    }
}

struct Ours {
    seed: u8,
    host: Host,
    ragedisco: Ragedisco,
    streams: Vec<Stream>,
}

async fn start_ours(seed: u8, bootstrapper: Option<&Bootstrapper>) -> Ours {
    let ragedisco = Ragedisco::new(Config::default().with_interval(INTERVAL));
    let knock = libp2p_knock::Config::new(&keypair(seed)).unwrap().ragep2p_compatible();
    let config = HostConfig::new(knock)
        .with_listen_address("/ip4/127.0.0.1/tcp/0/tls".parse().unwrap())
        .with_dial_interval(INTERVAL);
    let host = Host::start(config, ragedisco.clone()).await.unwrap();
    let known = bootstrapper.map(|bootstrapper| (bootstrapper.peer, vec![bootstrapper.multiaddr()]));
    ragedisco.add_group([7; 32], ALL.map(peer), known).unwrap();
    let others = ALL.into_iter().filter(|other| *other != seed);
    let streams = others
        .map(|other| host.open_stream(peer(other), STREAM, Limits::default()).unwrap())
        .collect();
    Ours {
        seed,
        host,
        ragedisco,
        streams,
    }
}

impl Ours {
    /// Sends to everybody until everybody was heard.
    async fn hear_all(&self) {
        let mut silent: BTreeSet<PeerId> = self.streams.iter().map(Stream::peer).collect();
        while !silent.is_empty() {
            for stream in &self.streams {
                stream.send(format!("from {}", self.seed));
                while let Some(message) = stream.recv().now_or_never() {
                    let message = message.expect("an open stream");
                    let from = ALL.into_iter().find(|seed| peer(*seed) == stream.peer()).unwrap();
                    assert_eq!(message, format!("from {from}"));
                    silent.remove(&stream.peer());
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Keeps sending for those who have not heard us yet.
    async fn keep_sending(&self) {
        loop {
            self.streams
                .iter()
                .for_each(|stream| stream.send(format!("from {}", self.seed)));
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Go {
    fn hears_all(&self) {
        for other in ALL.into_iter().filter(|other| *other != self.seed) {
            let text = hex::encode(format!("from {other}"));
            let wanted = peer(other).to_string();
            let heard = |event: &serde_json::Value| {
                event["event"] == "message" && event["peer_id"] == wanted && event["payload_hex"] == text
            };
            self.process.wait_for(heard, PATIENCE).unwrap();
        }
    }
}

/// Everybody but `bootstrapper` is told of it alone, and it of nobody.
async fn everybody_finds_everybody(program: &Path, bootstrapper: u8) {
    let (mut go, mut ours) = (Vec::new(), Vec::new());
    let first = if let Some(which) = GO.iter().find(|(seed, _)| *seed == bootstrapper) {
        let node = start_go(program, *which, None);
        let address = node.listen.clone();
        go.push(node);
        address
    } else {
        let node = start_ours(bootstrapper, None).await;
        let port = node.host.listen_addresses()[0].to_string();
        let port = port.split('/').nth(4).unwrap().to_owned();
        ours.push(node);
        format!("127.0.0.1:{port}")
    };
    let first = Bootstrapper {
        peer: peer(bootstrapper),
        address: first,
    };
    for which in GO.into_iter().filter(|(seed, _)| *seed != bootstrapper) {
        go.push(start_go(program, which, Some(&first)));
    }
    for seed in OURS.into_iter().filter(|seed| *seed != bootstrapper) {
        ours.push(start_ours(seed, Some(&first)).await);
    }

    let heard = futures::future::join_all(ours.iter().map(Ours::hear_all));
    tokio::time::timeout(PATIENCE, heard)
        .await
        .expect("ours hear everybody in time");
    for node in &ours {
        let status = node.ragedisco.status();
        assert_eq!(
            (status.registered_peers, status.discovered_peers),
            (4, 4),
            "{:?}",
            status.missing
        );
    }
    let sending = futures::future::join_all(ours.iter().map(Ours::keep_sending));
    let hearing = tokio::task::spawn_blocking(move || {
        go.iter().for_each(Go::hears_all);
        go
    });
    tokio::select! {
        _ = sending => unreachable!("it never ends"),
        go = hearing => drop(go.unwrap()),
    }
    for node in ours {
        node.host.close().await;
    }
}

fn run(bootstrapper: u8) {
    let Some(program) = interop::go::peer(Path::new(env!("CARGO_TARGET_TMPDIR"))) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(everybody_finds_everybody(program, bootstrapper));
}

#[test]
fn a_group_of_go_and_ours_finds_itself_beginning_with_one_of_ours() {
    run(1);
}

#[test]
fn a_group_of_go_and_ours_finds_itself_beginning_with_go() {
    run(2);
}
