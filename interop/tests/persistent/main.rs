//! Wanted peers come back: after a death without a word, at another address, and after a cut between two networks. Every
//! peer is a process of its own.

#![cfg(target_os = "linux")]

mod cable;

use anyhow::{Context as _, Result, ensure};
use cable::Cable;
use interop::process::Process;
use libp2p::identity::Keypair;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

/// Generous, for machines that do other things too: most of what is awaited comes within a second.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_peer_that_was_killed_is_connected_again_when_it_is_back() -> Result<()> {
    let place = loopback(1);
    let mut ada = Peer::start(&mut keeper(1, &place))?;
    let bob = Peer::start(&mut keeper(2, &place))?;
    let address = bob.address.clone();
    ada.want(2, &[&address])?;
    ada.event("connected")?;
    ensure!(ada.connections()? == [json!({ "peer": id(2), "dialled": true, "protected": true })]);

    // SIGKILL: it says good-bye to nobody.
    drop(bob);
    ada.event("closed")?;
    // It is gone, and was looked for.
    ada.event("dial_failed")?;
    let _bob = Peer::start(&mut keeper(2, &address))?;
    ada.event("connected")?;
    ensure!(ada.connections()?.len() == 1);
    Ok(())
}

#[test]
fn a_peer_that_comes_back_at_another_of_its_addresses_is_found() -> Result<()> {
    let (first, second) = (loopback(2), loopback(3));
    let mut ada = Peer::start(&mut keeper(1, &first))?;
    // What is free now; nobody else uses these addresses.
    let bob = Peer::start(&mut keeper(2, &second))?;
    let later = bob.address.clone();
    drop(bob);
    let bob = Peer::start(&mut keeper(2, &first))?;
    ada.want(2, &[&later, &bob.address])?;
    let connected = ada.event("connected")?;
    ensure!(
        connected["address"] == format!("{}/p2p/{}", bob.address, id(2)),
        "{connected}"
    );

    drop(bob);
    ada.event("closed")?;
    let _bob = Peer::start(&mut keeper(2, &later))?;
    let connected = ada.event("connected")?;
    ensure!(connected["address"] == format!("{later}/p2p/{}", id(2)), "{connected}");
    Ok(())
}

#[test]
fn a_peer_that_comes_back_where_it_said_it_would_be_is_found() -> Result<()> {
    let (first, second) = (loopback(4), loopback(5));
    let mut ada = Peer::start(&mut keeper(1, &first))?;
    let mut bob = Peer::start(&mut keeper(2, &first))?;
    ada.want(2, &[&bob.address])?;
    ada.event("connected")?;
    bob.tell(&json!({ "command": "listen", "address": second }))?;
    let later = bob.event("listening")?["address"].clone();
    ada.process.wait_for(
        |event| {
            let addresses = event["addresses"].as_array();
            event["event"] == "identified" && addresses.is_some_and(|all| all.contains(&later))
        },
        SOON,
    )?;

    drop(bob);
    ada.event("closed")?;
    let later = later.as_str().context("an address")?;
    let _bob = Peer::start(&mut keeper(2, later))?;
    let connected = ada.event("connected")?;
    ensure!(connected["address"] == format!("{later}/p2p/{}", id(2)), "{connected}");
    Ok(())
}

#[test]
fn two_networks_that_are_cut_apart_and_joined_again_heal() -> Result<()> {
    let Some(cable) = Cable::lay()? else { return Ok(()) };
    let start = |seed, end: cable::End| -> Result<Peer> {
        let mut command = cable.command(end, env!("CARGO_BIN_EXE_keeper"));
        Peer::start(command.args(arguments(seed, &format!("/ip4/{}/tcp/4001/tls", end.ip()))))
    };
    let (mut ada, mut bob) = (start(1, cable::End::Left)?, start(2, cable::End::Right)?);
    // Both want each other, so that after the cut both dial.
    ada.want(2, &[&bob.address.clone()])?;
    bob.want(1, &[&ada.address.clone()])?;
    settle(&mut ada, &mut bob)?;

    // From here on nothing gets through, and nobody is told: TCP would go on believing for a quarter of an hour.
    cable.cut()?;
    for peer in [&ada, &bob] {
        peer.event("unresponsive")?;
        peer.process
            .wait_for(|event| event["event"] == "closed" && event["left"] == 0, SOON)?;
        peer.event("dial_failed")?;
    }
    ensure!(ada.connections()?.is_empty() && bob.connections()?.is_empty());

    cable.mend()?;
    ada.event("connected")?;
    bob.event("connected")?;
    settle(&mut ada, &mut bob)?;
    Ok(())
}

/// Waits until both have one connection, the two ends of one.
fn settle(ada: &mut Peer, bob: &mut Peer) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let (left, right) = (ada.connections()?, bob.connections()?);
        if let ([left], [right]) = (left.as_slice(), right.as_slice())
            && left["dialled"] != right["dialled"]
        {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not settled: {left:?} and {right:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A keeper, its address known.
struct Peer {
    process: Process,
    address: String,
}

impl Peer {
    fn start(command: &mut Command) -> Result<Self> {
        let process = Process::spawn("keeper", command)?;
        let listening = process.wait_for(|event| event["event"] == "listening", SOON)?;
        let address = listening["address"].as_str().context("an address")?.to_owned();
        Ok(Self { process, address })
    }

    fn tell(&mut self, command: &Value) -> Result<()> {
        self.process.send(command)
    }

    fn want(&mut self, seed: u8, addresses: &[&str]) -> Result<()> {
        self.tell(&json!({ "command": "want", "peer": id(seed), "addresses": addresses }))
    }

    fn event(&self, name: &str) -> Result<Value> {
        self.process.wait_for(|event| event["event"] == name, SOON)
    }

    /// What is open now.
    fn connections(&mut self) -> Result<Vec<Value>> {
        self.tell(&json!({ "command": "state" }))?;
        let state = self.event("state")?;
        state["connections"].as_array().cloned().context("connections")
    }
}

fn keeper(seed: u8, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keeper"));
    command.args(arguments(seed, listen));
    command
}

fn arguments(seed: u8, listen: &str) -> [String; 4] {
    [
        "--seed".to_owned(),
        seed.to_string(),
        "--listen".to_owned(),
        listen.to_owned(),
    ]
}

fn id(seed: u8) -> String {
    let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
    key.public().to_peer_id().to_string()
}

/// An address of the loopback network that is this process's own, so that a port that was given up stays free.
fn loopback(number: u8) -> String {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 16 + number, high, low | 1);
    format!("/ip4/{ip}/tcp/0/tls")
}
