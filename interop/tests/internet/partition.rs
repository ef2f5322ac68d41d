//! A home that is cut off from the rest of the world without a word, and comes back.

use crate::netns::{ADA, BOB, Home, Internet, PUBLIC, PUBLIC_IP};
use anyhow::{Context as _, Result, ensure};
use interop::process::Process;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PORT: u16 = 4000;
/// Generous, for machines that do other things too.
const SOON: Duration = Duration::from_secs(45);
const MEBIBYTE: usize = 1 << 20;

struct Peer {
    process: Process,
    id: String,
}

impl Peer {
    fn start(net: &Internet, place: &str, name: &str, seed: u64, listen: &str) -> Result<Self> {
        let mut command = net.command(place, env!("CARGO_BIN_EXE_peer"));
        command.args(["--seed", &seed.to_string(), "--with", "request-response"]);
        let process = Process::spawn(name, command.args(["--knock", listen]))?;
        let started = process.wait_for(|event| event["event"] == "started", SOON)?;
        let id = started["peer"].as_str().context("a PeerId")?.to_owned();
        process.wait_for(|event| event["event"] == "listening", SOON)?;
        Ok(Self { process, id })
    }

    fn at_home(net: &Internet, home: Home, name: &str, seed: u64) -> Result<Self> {
        Self::start(net, home.name, name, seed, &format!("/ip4/{}/tcp/0/tls", home.ip))
    }

    fn dial(&mut self, target: &str) -> Result<()> {
        self.process.send(&json!({"do": "dial", "address": target}))
    }

    fn hear(&self, event: &str, peer: &Self) -> Result<Value> {
        let wanted = |heard: &Value| heard["event"] == event && heard["peer"] == peer.id.as_str();
        self.process.wait_for(wanted, SOON)
    }

    /// A mebibyte that must come back as it was.
    fn ask(&mut self, peer: &Self) -> Result<()> {
        self.process
            .send(&json!({"do": "request", "peer": peer.id, "bytes": MEBIBYTE}))
    }

    fn is_answered(&self, peer: &Self) -> Result<()> {
        let answer = self.hear("response", peer)?;
        ensure!(answer["bytes"] == MEBIBYTE && answer["intact"] == true, "{answer}");
        Ok(())
    }

    fn was_told(&self, event: &str) -> bool {
        self.process.events().iter().any(|heard| heard["event"] == event)
    }

    fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.process.id()))?.count())
    }
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !done()? {
        ensure!(begun.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn a_home_that_is_cut_off_goes_on_where_it_was_and_the_others_notice_nothing() -> Result<()> {
    let Some(net) = Internet::build()? else { return Ok(()) };
    let address = format!("/ip4/{PUBLIC_IP}/tcp/{PORT}/tls");
    let mut listener = Peer::start(&net, PUBLIC, "listener", 1, &address)?;
    let (mut ada, mut bob) = (Peer::at_home(&net, ADA, "ada", 2)?, Peer::at_home(&net, BOB, "bob", 3)?);
    let target = format!("{address}/p2p/{}", listener.id);
    for peer in [&mut ada, &mut bob] {
        peer.dial(&target)?;
        peer.hear("connected", &listener)?;
        listener.hear("connected", peer)?;
        peer.ask(&listener)?;
        peer.is_answered(&listener)?;
    }

    // In the middle of something, in both directions.
    net.cut(ADA)?;
    ada.ask(&listener)?;
    listener.ask(&ada)?;
    until("packets are swallowed", || Ok(net.swallowed(ADA)? >= 4))?;
    bob.ask(&listener)?;
    bob.is_answered(&listener)?;
    ensure!(!ada.was_told("request_failed"), "it was not even waited for");
    net.heal(ADA)?;
    ada.is_answered(&listener)?;
    listener.is_answered(&ada)?;

    // Whoever comes while it is cut off cannot, and can once it is healed.
    let mut cora = Peer::at_home(&net, ADA, "cora", 4)?;
    let before = listener.descriptors()?;
    net.cut(ADA)?;
    cora.dial(&target)?;
    let failed = cora.process.wait_for(|event| event["event"] == "dial_failed", SOON)?;
    ensure!(
        failed["error"].as_str().is_some_and(|error| error.contains("Timeout")),
        "{failed}"
    );
    net.heal(ADA)?;
    cora.dial(&target)?;
    cora.hear("connected", &listener)?;
    listener.hear("connected", &cora)?;
    cora.ask(&listener)?;
    cora.is_answered(&listener)?;
    drop(cora);
    until("its sockets are back", || Ok(listener.descriptors()? <= before))?;

    for peer in [&mut ada, &mut bob] {
        peer.ask(&listener)?;
        peer.is_answered(&listener)?;
    }
    let closed = |peer: &Peer| peer.was_told("closed");
    ensure!(!closed(&ada) && !closed(&bob), "a connection did not last");
    Ok(())
}
