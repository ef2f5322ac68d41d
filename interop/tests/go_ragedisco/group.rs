//! Two Go nodes and two of ours.

use futures::FutureExt as _;
use interop::process::Process;
use knock_host::discovery::ragedisco::{Config, Ragedisco};
use knock_host::{Host, HostConfig, Limits, Stream};
use libp2p::Multiaddr;
use libp2p::identity::{Keypair, PeerId};
use std::collections::{BTreeMap, BTreeSet};
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
    /// What it says to everybody, all the time.
    text: String,
    process: Process,
    listen: String,
}

fn start_go(program: &Path, (seed, stack): (u8, &str), text: &str, bootstrapper: Option<&Bootstrapper>) -> Go {
    let mut command = Command::new(program);
    command.args(["-seed", &hex::encode([seed; 32]), "-stream", STREAM, "-stack", stack]);
    command.args(["-send", text, "-delta", "200ms"]);
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
        text: text.to_owned(),
        listen: ready["listen"].as_str().unwrap().to_owned(),
        process,
    }
}

struct Ours {
    seed: u8,
    /// What it says to everybody, all the time.
    text: String,
    host: Host,
    ragedisco: Ragedisco,
    streams: Vec<Stream>,
}

async fn start_ours(seed: u8, text: &str, bootstrapper: Option<&Bootstrapper>) -> Ours {
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
        text: text.to_owned(),
        host,
        ragedisco,
        streams,
    }
}

impl Ours {
    /// Says its text to everybody until everybody else was heard to say his.
    async fn hears(&self, texts: &BTreeMap<u8, String>) {
        let mut silent: BTreeSet<u8> = texts.keys().copied().filter(|seed| *seed != self.seed).collect();
        while !silent.is_empty() {
            for stream in &self.streams {
                stream.send(self.text.clone());
                let from = ALL.into_iter().find(|seed| peer(*seed) == stream.peer()).unwrap();
                while let Some(message) = stream.recv().now_or_never() {
                    // Something else is from an earlier life.
                    if message.expect("an open stream") == texts[&from] {
                        silent.remove(&from);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Keeps saying it for those who have not heard it yet.
    async fn speaks(&self) {
        loop {
            self.streams
                .iter()
                .for_each(|stream| _ = stream.send(self.text.clone()));
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Go {
    /// Waits until it has a connection with the other Go node, and has heard ours say their texts.
    fn meets(&self, texts: &BTreeMap<u8, String>) {
        for (other, text) in texts.iter().filter(|(other, _)| **other != self.seed) {
            let (wanted, text) = (peer(*other).to_string(), hex::encode(text));
            if GO.iter().any(|(seed, _)| seed == other) {
                // A connection is what it was found for. Between two of them the original may lose the opening of a stream, which
                // then stays silent as long as the connection lasts.
                let met = |event: &serde_json::Value| event["event"] == "established" && event["peer_id"] == wanted;
                if !self.process.events().iter().any(met) {
                    self.process.wait_for(met, PATIENCE).unwrap();
                }
                continue;
            }
            let heard = |event: &serde_json::Value| {
                event["event"] == "message" && event["peer_id"] == wanted && event["payload_hex"] == text
            };
            self.process.wait_for(heard, PATIENCE).unwrap();
        }
    }
}

#[derive(Default)]
struct Group {
    go: Vec<Go>,
    ours: Vec<Ours>,
}

impl Group {
    /// Every text of ours arrives everywhere, every one of Go with us.
    async fn everybody_meets_everybody(&mut self) {
        let go = self.go.iter().map(|node| (node.seed, node.text.clone()));
        let texts: BTreeMap<u8, String> = go
            .chain(self.ours.iter().map(|node| (node.seed, node.text.clone())))
            .collect();
        assert_eq!(texts.len(), ALL.len());
        let heard = futures::future::join_all(self.ours.iter().map(|node| node.hears(&texts)));
        tokio::time::timeout(PATIENCE, heard)
            .await
            .expect("ours hear everybody in time");
        let speaking = futures::future::join_all(self.ours.iter().map(Ours::speaks));
        let go = std::mem::take(&mut self.go);
        let hearing = tokio::task::spawn_blocking(move || {
            go.iter().for_each(|node| node.meets(&texts));
            go
        });
        tokio::select! {
            _ = speaking => unreachable!("it never ends"),
            go = hearing => self.go = go.unwrap(),
        }
    }

    fn all_is_discovered(&self) {
        for node in &self.ours {
            let status = node.ragedisco.status();
            assert_eq!(
                (status.registered_peers, status.discovered_peers),
                (4, 4),
                "{:?}",
                status.missing
            );
        }
    }
}

/// Everybody but `bootstrapper` is told of it alone, and it of nobody. Then one of ours goes, and comes back elsewhere without any memory
/// of its former life: Go takes its new announcement for the better one.
async fn everybody_finds_everybody(program: &Path, bootstrapper: u8) {
    let mut group = Group::default();
    let first = if let Some(which) = GO.iter().find(|(seed, _)| *seed == bootstrapper) {
        group.go.push(start_go(program, *which, "the first", None));
        group.go[0].listen.clone()
    } else {
        group.ours.push(start_ours(bootstrapper, "the first", None).await);
        let address = group.ours[0].host.listen_addresses()[0].to_string();
        format!("127.0.0.1:{}", address.split('/').nth(4).unwrap())
    };
    let first = Bootstrapper {
        peer: peer(bootstrapper),
        address: first,
    };
    for which in GO.into_iter().filter(|(seed, _)| *seed != bootstrapper) {
        group
            .go
            .push(start_go(program, which, &format!("from {}", which.0), Some(&first)));
    }
    for seed in OURS.into_iter().filter(|seed| *seed != bootstrapper) {
        group
            .ours
            .push(start_ours(seed, &format!("from {seed}"), Some(&first)).await);
    }
    group.everybody_meets_everybody().await;
    group.all_is_discovered();

    let gone = group.ours.pop().unwrap();
    assert_ne!(gone.seed, bootstrapper);
    gone.host.close().await;
    group
        .ours
        .push(start_ours(gone.seed, "again from ours", Some(&first)).await);
    group.everybody_meets_everybody().await;
    group.all_is_discovered();
    for node in group.ours {
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
