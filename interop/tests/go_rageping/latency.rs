//! Both ends send, and both are answered.

use interop::process::Process;
use knock_host::discovery::StaticList;
use knock_host::metrics::rageping::{Config, Rageping};
use knock_host::{Host, HostConfig};
use libp2p::identity::{Keypair, PeerId};
use prometheus_client::registry::Registry;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// The smallest there is, and one that takes many records of TLS.
const SIZES: [usize; 2] = [20, 200 << 10];
const ENOUGH: u64 = 5;
const LATENCY: &str = "rageping_round_trip_latency_seconds";

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn peer(seed: u8) -> PeerId {
    keypair(seed).public().to_peer_id()
}

/// As `go/ragep2p-peer` has it.
fn config(size: usize) -> Config {
    let milliseconds = Duration::from_millis;
    Config::new(size, milliseconds(100), milliseconds(150), milliseconds(5000))
        .unwrap()
        .with_startup_delay(Duration::ZERO)
}

/// How many round trips of each size there were so far.
fn measured(registry: &Registry) -> [u64; 2] {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    SIZES.map(|size| {
        let size = format!("ping_size=\"{size}\"");
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{LATENCY}_count")) && line.contains(&size));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    })
}

async fn both_measure(program: &Path, stack: &str) {
    let mut command = Command::new(program);
    command.args([
        "-seed",
        &hex::encode([2; 32]),
        "-stack",
        stack,
        "-peer",
        &peer(1).to_string(),
    ]);
    for size in SIZES {
        command.args(["-ping", &size.to_string()]);
    }
    let go = Process::spawn(format!("go {stack}"), &mut command).unwrap();
    let ready = go.wait_for(|event| event["event"] == "ready", PATIENCE).unwrap();
    let port = ready["listen"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();

    let list = StaticList::from_iter([(peer(2), format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap())]);
    let knock = libp2p_knock::Config::new(&keypair(1)).unwrap().ragep2p_compatible();
    let config_of_host = HostConfig::new(knock)
        .with_listen_address("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .with_dial_interval(Duration::from_millis(200));
    let host = Host::start(config_of_host, list).await.unwrap();
    let pings = Rageping::new(&host, SIZES.map(config));
    let mut registry = Registry::default();
    pings.register(&mut registry).unwrap();
    pings.add_peers([peer(2)]);

    let ours = async {
        while measured(&registry).into_iter().any(|count| count < ENOUGH) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, ours).await;
    assert!(
        in_time.is_ok(),
        "{:?} round trips; go wrote:\n{}",
        measured(&registry),
        go.transcript()
    );
    let theirs = tokio::task::spawn_blocking(move || {
        for size in SIZES {
            let enough = |event: &serde_json::Value| {
                event["event"] == "pings"
                    && event["ping_size"] == size.to_string().as_str()
                    && event["counts"][LATENCY].as_u64() >= Some(ENOUGH)
                    && event["counts"]["rageping_received_requests_total"].as_u64() >= Some(ENOUGH)
            };
            go.wait_for(enough, PATIENCE).unwrap();
        }
    });
    theirs.await.unwrap();
    host.close().await;
}

fn run(stack: &str) {
    let Some(program) = interop::go::peer(Path::new(env!("CARGO_TARGET_TMPDIR"))) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(both_measure(program, stack));
}

#[test]
fn go_and_ours_measure_the_way_to_each_other() {
    run("v1");
}

#[test]
fn the_newer_go_stack_and_ours_measure_the_way_to_each_other() {
    run("new");
}
