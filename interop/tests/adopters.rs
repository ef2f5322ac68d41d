//! Ten programs that have adopted both worlds, as processes that all dial each other, at every stage and back.

use anyhow::{Context as _, Result, ensure};
use interop::peer::{PATIENCE, is_marked};
use interop::process::Process;
use libp2p::Multiaddr;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

const STOCK: &str = "/ip4/0.0.0.0/tcp/0";
const KNOCK: &str = "/ip4/0.0.0.0/tcp/0/tls";

struct Adopter {
    process: Process,
    stage: &'static str,
    peer: String,
    /// Stock addresses first.
    addresses: Vec<Multiaddr>,
}

impl Adopter {
    /// The seed names it at every stage. It listens at `stock` stock addresses, and at one of the knock.
    fn start(seed: u8, stage: &'static str, stock: usize) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adopter"));
        command.args(["--seed", &seed.to_string(), "--stage", stage]);
        for address in std::iter::repeat_n(STOCK, stock).chain([KNOCK]) {
            command.args(["--listen", address]);
        }
        let process = Process::spawn(format!("adopter {seed}"), &mut command)?;
        let peer = process.wait_for(|event| event["event"] == "peer", PATIENCE)?;
        let peer = peer["peer"].as_str().context("a peer")?.to_owned();
        let (stock, knock) = match stage {
            "stock" => (stock, 0),
            "require" => (0, 1),
            _ => (stock, 1),
        };
        let mut addresses = Vec::new();
        // Of every listener the address on the loopback: what else there is depends on the machine.
        while addresses.len() < stock + knock {
            let told = process.wait_for(|event| event["event"] == "listening", PATIENCE)?;
            let address: Multiaddr = told["address"].as_str().context("an address")?.parse()?;
            if address.to_string().starts_with("/ip4/127.0.0.1/") {
                addresses.push(address);
            }
        }
        addresses.sort_by_key(is_marked);
        Ok(Self {
            process,
            stage,
            peer,
            addresses,
        })
    }

    /// Every sample of a scrape.
    fn metrics(&mut self) -> Result<BTreeMap<String, f64>> {
        self.process.send(&json!({"command": "metrics"}))?;
        let told = self.process.wait_for(|event| event["event"] == "metrics", PATIENCE)?;
        let text = told["text"].as_str().context("a text")?;
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').context("a sample")?;
            Ok((name.to_owned(), value.parse()?))
        });
        samples.collect()
    }

    /// Waits until no handshake is under way and the gauge shows what the Swarm has told. None has failed then.
    fn settles(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            let metrics = self.metrics()?;
            let sum = |name: &str, label: &str| -> f64 {
                let of_it = metrics
                    .iter()
                    .filter(|(full, _)| full.starts_with(name) && full.contains(label));
                of_it.map(|(_, value)| value).sum()
            };
            let events = self.process.events();
            let told = |what: &str, knock: bool| {
                let of_it = events
                    .iter()
                    .filter(|event| event["event"] == what && event["knock"] == knock);
                of_it.count() as f64
            };
            let open = [("stock", false), ("knock", true)].map(|(world, knock)| {
                let gauge = sum("libp2p_knock_migration_connections{", &format!("world=\"{world}\""));
                gauge == told("connected", knock) - told("closed", knock)
            });
            let handshakes = sum("libp2p_knock_handshakes_total{", "role=\"listener\"");
            if open == [true; 2] && sum("libp2p_knock_knocks_total{", "outcome=\"accepted\"") == handshakes {
                // Two ends that dial each other at the same moment may share a connection, and dial once more.
                let crossed = |name: &str| name.contains("role=\"dialer\",outcome=\"unanswered\"");
                let fine = |name: &str| name.contains("outcome=\"ok\"") || crossed(name);
                let mut handshakes = metrics
                    .iter()
                    .filter(|(name, _)| name.starts_with("libp2p_knock_handshakes_total{"));
                let fault = handshakes.find(|(name, value)| **value > 0.0 && !fine(name));
                // Of two stock dials one is dropped half way, as everywhere.
                let ours = |event: &Value| event["error"].to_string().contains("Knock(");
                let failed = |event: &Value| match event["event"].as_str() {
                    Some("incoming_failed") => ours(event),
                    what => what == Some("dial_failed"),
                };
                let name = self.process.name();
                let told = self.process.transcript();
                ensure!(fault.is_none(), "{name}: {fault:?}\n{told}");
                ensure!(!events.iter().any(failed), "{name}:\n{told}");
                return Ok(());
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "{metrics:#?}\n{}",
                self.process.transcript()
            );
        }
    }

    fn has_knock(&self) -> bool {
        self.stage != "stock"
    }

    fn has_stock(&self) -> bool {
        self.stage != "require"
    }
}

/// What a mesh has made.
#[derive(Debug, Default)]
struct Made {
    /// Ends of connections between adopters, who both can knock.
    stock: f64,
    knock: f64,
}

/// Lets everybody dial everybody who can be reached, both ends at once, and waits until all are connected. No handshake of
/// ours may fail, and connections of stock peers are stock.
fn mesh(adopters: &mut [Adopter]) -> Result<Made> {
    let all: Vec<_> = adopters
        .iter()
        .map(|adopter| {
            (
                adopter.peer.clone(),
                adopter.addresses.clone(),
                adopter.has_stock(),
                adopter.has_knock(),
            )
        })
        .collect();
    let can_meet = |one: &Adopter, stock: bool, knock: bool| one.has_stock() && stock || one.has_knock() && knock;
    for adopter in &mut *adopters {
        for (peer, addresses, stock, knock) in &all {
            if *peer != adopter.peer && can_meet(adopter, *stock, *knock) {
                let command = json!({"command": "dial", "peer": peer, "addresses": addresses});
                adopter.process.send(&command)?;
            }
        }
    }
    let mut made = Made::default();
    for adopter in &mut *adopters {
        for (peer, _, stock, knock) in &all {
            if *peer == adopter.peer || !can_meet(adopter, *stock, *knock) {
                continue;
            }
            let of_it = |event: &Value| event["event"] == "connected" && event["peer"] == *peer;
            adopter.process.wait_for(of_it, PATIENCE)?;
        }
    }
    for at in 0..adopters.len() {
        if let Err(error) = adopters[at].settles() {
            // What the other end has counted says more.
            let mut all = format!("{error:#}");
            for adopter in adopters {
                let counted = adopter
                    .metrics()?
                    .into_iter()
                    .filter(|(name, value)| name.contains("_total") && *value > 0.0);
                all += &format!("\n{}: {:#?}", adopter.peer, counted.collect::<Vec<_>>());
            }
            anyhow::bail!(all);
        }
        let adopter = &adopters[at];
        for event in adopter.process.events() {
            let other = all.iter().find(|(peer, ..)| event["peer"] == **peer);
            let Some((.., knock)) = other.filter(|_| event["event"] == "connected") else {
                continue;
            };
            match event["knock"].as_bool() {
                Some(true) => made.knock += 1.0,
                _ if *knock && adopter.has_knock() => made.stock += 1.0,
                _ => {}
            }
        }
    }
    Ok(made)
}

/// Ten processes, of which the first `some` are at another stage.
fn ten(stage: &'static str, some: (u8, &'static str), stock: usize) -> Result<Made> {
    let adopters = (0..10).map(|n| Adopter::start(n + 1, if n < some.0 { some.1 } else { stage }, stock));
    mesh(&mut adopters.collect::<Result<Vec<_>>>()?)
}

fn knocks(made: &Made) -> bool {
    made.knock >= 0.95 * (made.knock + made.stock)
}

#[test]
fn ten_adopters_meet_by_knock_and_no_handshake_fails() -> Result<()> {
    let made = ten("prefer", (0, "prefer"), 1)?;
    ensure!(knocks(&made) && made.knock >= 90.0, "{made:?}");
    Ok(())
}

#[test]
fn ten_adopters_meet_by_knock_behind_eight_stock_addresses() -> Result<()> {
    let made = ten("prefer", (0, "prefer"), 8)?;
    ensure!(knocks(&made) && made.knock >= 90.0, "{made:?}");
    Ok(())
}

#[test]
fn ten_peers_meet_at_every_stage_and_back() -> Result<()> {
    for (stage, some) in [
        ("stock", (3, "prefer")),
        ("prefer", (3, "stock")),
        ("prefer", (5, "require")),
        ("require", (0, "require")),
        ("prefer", (3, "require")),
        ("stock", (5, "prefer")),
        ("stock", (0, "stock")),
    ] {
        // One stock address: libp2p lets two race, as it does without us.
        let made = ten(stage, some, 1)?;
        ensure!(knocks(&made), "{stage} and {some:?}: {made:?}");
        ensure!(
            (made.knock > 0.0) == ([stage, some.1] != ["stock"; 2]),
            "{stage} and {some:?}: {made:?}"
        );
    }
    Ok(())
}

#[test]
fn the_programs_transport_is_that_of_the_readme() -> Result<()> {
    let block = |text: &str, from: &str| {
        let lines = text
            .lines()
            .map(str::trim)
            .skip_while(|line| !line.ends_with(from))
            .skip(1);
        // What is counted is not shown.
        let lines = lines.map(|line| {
            line.replace(".with_metrics(registry)?", "")
                .replace(".build())", ".build();")
        });
        let mut lines: Vec<_> = lines.take(15).collect();
        let end = lines.iter().position(|line| line == ".build();");
        lines.truncate(end.unwrap_or(0));
        lines
    };
    let readme = include_str!("../../transport/README.md");
    let readme = readme.split_once("Both worlds at once").context("the section")?.1;
    let shown = block(readme, "with_existing_identity(keypair)");
    let run = block(include_str!("../src/bin/adopter.rs"), "with_existing_identity(keypair)");
    ensure!(shown.len() > 10 && shown == run, "{shown:#?}\n{run:#?}");
    Ok(())
}
