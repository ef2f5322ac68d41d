//! A Go host as a process, ours beside it, and messages that both can make up.

use bytes::Bytes;
use interop::process::Process;
use knock_host::discovery::StaticList;
use knock_host::{Host, HostConfig, Limits};
use libp2p::identity::{Keypair, PeerId};
use libp2p::multiaddr::Protocol;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Longer than anything takes, however slow the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    V1,
    New,
}

pub(crate) const STACKS: [Stack; 2] = [Stack::V1, Stack::New];

pub(crate) fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

pub(crate) fn peer(seed: u8) -> PeerId {
    keypair(seed).public().to_peer_id()
}

pub(crate) fn program() -> Option<&'static Path> {
    interop::go::host(Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// A running Go host.
pub(crate) struct Go {
    pub(crate) process: Process,
    pub(crate) listen: String,
}

impl Go {
    pub(crate) fn start(program: &Path, seed: u8, stack: Stack) -> Self {
        Self::start_with(program, seed, stack, &[], &[])
    }

    pub(crate) fn start_with(program: &Path, seed: u8, stack: Stack, args: &[&str], env: &[(&str, &str)]) -> Self {
        let stack = if stack == Stack::V1 { "v1" } else { "new" };
        let mut command = Command::new(program);
        command.args(["-seed", &hex::encode([seed; 32]), "-stack", stack]);
        command.args(args).envs(env.iter().copied());
        let process = Process::spawn("go", &mut command).unwrap();
        let ready = process.wait_for(|event| event["event"] == "ready", PATIENCE).unwrap();
        assert_eq!(ready["peer_id"], peer(seed).to_string(), "one text for one peer");
        let listen = ready["listen"].as_str().unwrap().to_owned();
        Self { process, listen }
    }

    pub(crate) fn tell(&mut self, command: &Value) {
        self.process.send(command).unwrap();
    }

    pub(crate) fn wait(&self, event: &str, name: &str) -> Value {
        self.process
            .wait_for(
                |e| e["event"] == event && (name.is_empty() || e["name"] == name),
                PATIENCE,
            )
            .unwrap()
    }

    /// Tells it where `host` is.
    pub(crate) fn know(&mut self, host: &Host) {
        let address = socket_address(host);
        self.tell(&json!({"cmd": "know", "peer": host.local_peer_id().to_string(), "addr": address}));
    }

    /// Opens a stream with limits that are wide enough for everything, but for what `limits` changes.
    pub(crate) fn open(&mut self, seed: u8, name: &str, limits: &Value) {
        self.tell(&self.opening("open", seed, name, limits));
        self.wait("done", name);
    }

    pub(crate) fn open2(&mut self, seed: u8, name: &str, limits: &Value) {
        self.tell(&self.opening("open2", seed, name, limits));
        self.wait("done", name);
    }

    pub(crate) fn opening(&self, cmd: &str, seed: u8, name: &str, limits: &Value) -> Value {
        let mut command = json!({
            "cmd": cmd, "peer": peer(seed).to_string(), "name": name,
            "out": 1000, "in": 1000, "max": 1 << 20,
            "msg_rate": 1e6, "msg_cap": 1_000_000, "bytes_rate": 2e9, "bytes_cap": 2_000_000_000,
        });
        for (key, value) in limits.as_object().into_iter().flatten() {
            command[key] = value.clone();
        }
        command
    }

    pub(crate) fn send(&mut self, name: &str, from: u64, count: u64, bits: u64) {
        self.tell(&json!({"cmd": "send", "name": name, "from": from, "count": count, "bits": bits}));
    }

    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.tell(&json!({"cmd": "text", "name": name, "text": text}));
    }

    /// What has arrived on a stream once it is so many messages.
    pub(crate) fn state(&mut self, name: &str, until: u64) -> Value {
        self.tell(&json!({"cmd": "state", "name": name, "until": until}));
        self.wait("state", name)
    }

    pub(crate) fn metric(&mut self, name: &str) -> f64 {
        self.tell(&json!({"cmd": "metrics"}));
        let metrics = self.wait("metrics", "");
        metrics["metrics"][name].as_f64().unwrap_or_default()
    }
}

fn socket_address(host: &Host) -> String {
    let address = host.listen_addresses().pop().unwrap();
    let port = address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    format!("127.0.0.1:{}", port.unwrap())
}

/// Ours, as Go hosts know it, and what it knows of addresses.
pub(crate) async fn ours(seed: u8) -> (Host, StaticList) {
    let list = StaticList::new();
    (ours_with(config(seed), &list).await, list)
}

pub(crate) fn config(seed: u8) -> HostConfig {
    let knock = libp2p_knock::Config::new(&keypair(seed)).unwrap();
    HostConfig::new(knock.ragep2p_compatible())
        .with_listen_address("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .with_dial_interval(Duration::from_millis(200))
        .with_memory_budget(4 << 30)
}

pub(crate) async fn ours_with(config: HostConfig, list: &StaticList) -> Host {
    Host::start(config, list.clone()).await.unwrap()
}

pub(crate) fn know(list: &StaticList, seed: u8, go: &Go) {
    let port = go.listen.rsplit(':').next().unwrap();
    list.remove(&peer(seed));
    list.add(peer(seed), format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap());
}

/// Wide enough for everything that a test sends.
pub(crate) fn wide() -> Limits {
    Limits::default()
        .with_outgoing_buffer(1000)
        .with_incoming_buffer(1000)
        .with_max_message(1 << 20)
        .with_messages(1e6, 1_000_000)
        .with_bytes(2e9, 2_000_000_000)
}

/// Message number `at` of a stream: a length of 1 to 2^bits bytes, each power of two as likely as the next, and a content
/// that follows from both.
pub(crate) fn made_up(name: &str, at: u64, bits: u64) -> Bytes {
    let mut x = at
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
        .wrapping_add(name.len() as u64);
    for byte in name.bytes() {
        x = (x ^ u64::from(byte)).wrapping_mul(1_099_511_628_211);
    }
    x ^= x >> 29;
    let most = 1_u64 << ((x >> 8) % (bits + 1));
    let length = 1 + (x >> 20) % most;
    (0..length).map(|i| i.wrapping_mul(7).wrapping_add(x) as u8).collect()
}

/// The length and the content of every message, in order.
#[derive(Clone, Default)]
pub(crate) struct Sum(Sha256);

impl Sum {
    pub(crate) fn add(&mut self, message: &[u8]) {
        self.0.update(u32::try_from(message.len()).unwrap().to_be_bytes());
        self.0.update(message);
    }

    pub(crate) fn hex(&self) -> String {
        hex::encode(self.0.clone().finalize())
    }
}

pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}

/// Runs `work` on a runtime with two threads: waiting for Go blocks one of them.
pub(crate) fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work);
}
