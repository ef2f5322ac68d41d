//! Two peers, each behind a router that lets nothing in unasked, meet through a relay and end up with a direct
//! connection over the knock transport: network namespaces, kernel NAT, stock relay and DCUtR behaviours.
//!
//! **Why it converges, whoever is first.** Each peer's SYN makes an entry in its own router before it travels to the
//! other's. So of the two SYNs, the one that leaves its router last finds the other router's entry made and comes
//! through; the other one may be too early, and is dropped without a trace. (If they cross, both come through.) One is
//! enough: it meets a socket that is connecting to exactly where it comes from, which TCP calls a simultaneous open.
//! Nothing depends on latency, on the scheduler or on a retransmission, as long as the two dials overlap, and each
//! lasts ten seconds. The listening socket is never involved: nothing comes through before our own dial has begun.

use crate::netns::{ADA, BOB, Home, Internet, PUBLIC, PUBLIC_IP};
use anyhow::{Context as _, Result, ensure};
use interop::process::Process;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where both peers listen, and where the port reuse must make them be seen.
const PORT: u16 = 4001;
const RELAY_PORT: u16 = 4000;
/// Generous, for machines that do other things too: what is awaited comes within milliseconds.
const SOON: Duration = Duration::from_secs(25);

#[test]
fn two_routers_and_a_relay_make_one_direct_connection() -> Result<()> {
    let Some(net) = Internet::build()? else { return Ok(()) };
    let started = Instant::now();
    let (mut ada, mut bob) = (Peer::start(&net, ADA, &[])?, Peer::start(&net, BOB, &[])?);
    let (relay, relay_address) = meet_at_a_relay(&net, &mut ada, &mut bob)?;
    let before = (ada.metrics()?, bob.metrics()?);

    let asked = Instant::now();
    ada.tell("dial", &format!("{relay_address}/p2p-circuit/p2p/{}", bob.id))?;
    let relayed = (ada.connected(&bob, true)?, bob.connected(&ada, true)?);
    let direct = (ada.connected(&bob, false)?, bob.connected(&ada, false)?);
    let punched = asked.elapsed();
    for (peer, direct) in [(&ada, &direct.0), (&bob, &direct.1)] {
        assert_eq!(peer.event("upgraded")?["connection"], direct["connection"]);
    }

    // The roles: both dialled, and the one that was called through the relay takes the listener's part.
    for (direct, role, remote) in [(&direct.0, "dialer", &bob), (&direct.1, "listener", &ada)] {
        let expected = json!({
            "kind": "dialer",
            "role": role,
            "port": "reuse",
            "address": format!("/ip4/{}/tcp/{PORT}/tls/p2p/{}", remote.home.wan, remote.id),
        });
        assert_eq!(direct["point"], expected);
    }

    // The ports: the kernel of each host has one connection to the other's router, from the port its peer listens at
    // to the port the other listens at.
    for (from, to) in [(ADA, BOB), (BOB, ADA)] {
        let table = net.established(from.name)?;
        let remote = format!("{}:{PORT}", to.wan).parse()?;
        let local: Vec<_> = table
            .iter()
            .filter(|socket| socket.1 == remote)
            .map(|socket| socket.0)
            .collect();
        assert_eq!(local, [format!("{}:{PORT}", from.ip).parse()?], "{table:?}");
    }

    // The knock: Ada sent it and Bob accepted it, and neither on a socket that a listener had accepted.
    let after = (ada.metrics()?, bob.metrics()?);
    let rise = |of| {
        (
            count(&after.0, of) - count(&before.0, of),
            count(&after.1, of) - count(&before.1, of),
        )
    };
    assert_eq!(rise("knocks_total{outcome=\"accepted\""), (0.0, 1.0));
    assert_eq!(rise("handshakes_total{role=\"dialer\",outcome=\"ok\""), (1.0, 0.0));
    assert_eq!(rise("handshakes_total{role=\"listener\",outcome=\"ok\""), (0.0, 1.0));
    assert_eq!(
        (count(&after.0, "accepts_total"), count(&after.1, "accepts_total")),
        (0.0, 0.0)
    );

    // It carries when there is nothing else left.
    drop(relay);
    let ada_rtt = ada.ping_without(&relayed.0, &direct.0)?;
    let bob_rtt = bob.ping_without(&relayed.1, &direct.1)?;
    println!(
        "direct {punched:?} after the call through the relay; dials that failed: {} and {}; packets that came too early: \
         {} and {}; round trips without the relay: {ada_rtt} and {bob_rtt} µs; all in {:?}",
        ada.failed_dials(),
        bob.failed_dials(),
        net.dropped(ADA)?,
        net.dropped(BOB)?,
        started.elapsed(),
    );
    Ok(())
}

/// The connection manager keeps one connection, gives no grace, and trims when the dial begins and every 2 ms until it ends. Of
/// what Ada has, all can go but one: six neighbours, the relay, and Bob through the relay, who came last and would be the
/// first.
#[test]
fn a_hole_is_punched_while_the_connection_manager_trims_over_and_over() -> Result<()> {
    let Some(net) = Internet::build()? else { return Ok(()) };
    let (mut ada, mut bob) = (
        Peer::start(&net, ADA, &["--trim"])?,
        Peer::start(&net, BOB, &["--trim"])?,
    );
    let (_relay, relay_address) = meet_at_a_relay(&net, &mut ada, &mut bob)?;
    let mut neighbours = Vec::new();
    for _ in 0..6 {
        let mut neighbour = Process::spawn("neighbour", &mut puncher(&net, ADA.router))?;
        tell(
            &mut neighbour,
            "dial",
            &format!("/ip4/{}/tcp/{PORT}/tls/p2p/{}", ADA.ip, ada.id),
        )?;
        let id = id_of(&neighbour)?;
        ada.process
            .wait_for(|event| event["event"] == "connected" && event["peer"] == id, SOON)?;
        neighbours.push((id, neighbour));
    }

    ada.tell("dial", &format!("{relay_address}/p2p-circuit/p2p/{}", bob.id))?;
    for (peer, other) in [(&ada, &bob), (&bob, &ada)] {
        peer.connected(other, true)?;
        let direct = peer.connected(other, false)?;
        assert_eq!(peer.event("upgraded")?["connection"], direct["connection"]);
    }
    // Those who could go have gone.
    for (id, _) in &neighbours {
        ada.process
            .wait_for(|event| event["event"] == "trimmed" && event["peer"] == *id, SOON)?;
    }
    for (peer, other) in [(&ada, &bob), (&bob, &ada)] {
        let events = peer.process.events();
        let punched =
            |event: &Value| event["event"] == "connected" && event["peer"] == other.id && event["relayed"] == false;
        let until = events.iter().position(punched).context("it is connected")?;
        let of = |name: &str| events[..until].iter().filter(|event| event["event"] == name).count();
        println!(
            "{}: {} trims asked for meanwhile, {} peers closed",
            peer.home.name,
            of("trim"),
            of("trimmed")
        );
        ensure!(of("trim") > 0, "{}: nothing was trimmed meanwhile", peer.home.name);
        let trimmed = |event: &Value| event["event"] == "trimmed" && event["peer"] == other.id;
        ensure!(
            !events[..until].iter().any(trimmed),
            "{}: the other end was trimmed",
            peer.home.name
        );
    }
    Ok(())
}

/// The control: without a relay, and with all else the same, whoever calls from outside hears nothing at all.
#[test]
fn without_a_relay_nothing_comes_through() -> Result<()> {
    let Some(net) = Internet::build()? else { return Ok(()) };
    // Long enough for three SYNs at least: at 0, 1 and, as the kernel is configured, 2 or 3 seconds.
    let patience = ["--dial-timeout-secs", "4"];
    let (mut ada, mut bob) = (Peer::start(&net, ADA, &patience)?, Peer::start(&net, BOB, &[])?);
    let mut stranger = Process::spawn("stranger", puncher(&net, PUBLIC).args(patience))?;
    let address = |peer: &Peer, ip| format!("/ip4/{ip}/tcp/{PORT}/tls/p2p/{}", peer.id);

    // Bob is there: from inside, the same dial succeeds.
    let mut neighbour = Process::spawn("neighbour", &mut puncher(&net, BOB.router))?;
    tell(&mut neighbour, "dial", &address(&bob, BOB.ip))?;
    neighbour.wait_for(|event| event["event"] == "connected", SOON)?;

    let before = bob.metrics()?;
    ada.tell("dial", &address(&bob, BOB.wan))?;
    tell(&mut stranger, "dial", &address(&bob, BOB.wan))?;
    tell(&mut stranger, "dial", &address(&ada, ADA.wan))?;
    for caller in [&ada.process, &stranger, &stranger] {
        let failed = caller.wait_for(|event| event["event"] == "dial_failed", SOON)?;
        let error = failed["error"].as_str().context("an error")?;
        ensure!(error.contains("Timeout"), "{}: {error}", caller.name());
    }
    let dropped = (net.dropped(ADA)?, net.dropped(BOB)?);
    println!("SYNs that the routers dropped: {} and {}", dropped.0, dropped.1);
    // One caller at Ada's, two at Bob's: each tried again, and each try arrived.
    ensure!(dropped.0 >= 2 && dropped.1 >= 4, "dropped {dropped:?}");
    assert_eq!(count(&bob.metrics()?, "accepts_total"), count(&before, "accepts_total"));
    assert_eq!(count(&ada.metrics()?, "accepts_total"), 0.0);
    Ok(())
}

/// A relay, and its address. Bob has a reservation, and both know how the outside sees them.
fn meet_at_a_relay(net: &Internet, ada: &mut Peer, bob: &mut Peer) -> Result<(Process, String)> {
    let listens = format!("/ip4/{PUBLIC_IP}/tcp/{RELAY_PORT}/tls");
    let relay = Process::spawn("relay", puncher(net, PUBLIC).args(["--relay", "--listen", &listens]))?;
    relay.wait_for(|event| event["event"] == "listening", SOON)?;
    let address = format!("{listens}/p2p/{}", id_of(&relay)?);
    ada.tell("dial", &address)?;
    bob.tell("listen", &format!("{address}/p2p-circuit"))?;
    bob.event("reserved")?;
    for peer in [ada, bob] {
        // With the port it listens at, as the dial reused that one.
        assert_eq!(
            peer.event("candidate")?["address"],
            format!("/ip4/{}/tcp/{PORT}/tls", peer.home.wan)
        );
    }
    Ok((relay, address))
}

/// One of the two: a process, and where it is at home.
struct Peer {
    home: Home,
    id: String,
    process: Process,
}

impl Peer {
    fn start(net: &Internet, home: Home, more: &[&str]) -> Result<Self> {
        let listen = format!("/ip4/0.0.0.0/tcp/{PORT}/tls");
        let process = Process::spawn(
            home.name,
            puncher(net, home.name).args(["--listen", &listen]).args(more),
        )?;
        let id = id_of(&process)?;
        let address = format!("/ip4/{}/tcp/{PORT}/tls", home.ip);
        process.wait_for(
            |event| event["event"] == "listening" && event["address"] == address,
            SOON,
        )?;
        Ok(Self { home, id, process })
    }

    fn tell(&mut self, command: &str, address: &str) -> Result<()> {
        tell(&mut self.process, command, address)
    }

    fn event(&self, name: &str) -> Result<Value> {
        self.process.wait_for(|event| event["event"] == name, SOON)
    }

    fn connected(&self, other: &Self, relayed: bool) -> Result<Value> {
        let wanted =
            |event: &Value| event["event"] == "connected" && event["peer"] == other.id && event["relayed"] == relayed;
        self.process.wait_for(wanted, SOON)
    }

    fn metrics(&mut self) -> Result<Value> {
        self.process.send(&json!({ "command": "metrics" }))?;
        Ok(self.event("metrics")?["samples"].take())
    }

    /// The round trip, in microseconds, of a ping on `direct` at a time when it is the only connection of all.
    fn ping_without(&self, relayed: &Value, direct: &Value) -> Result<u64> {
        let (relayed, direct) = (&relayed["connection"], &direct["connection"]);
        self.process.wait_for(
            |event| event["event"] == "closed" && event["connection"] == *relayed,
            SOON,
        )?;
        let wanted = |event: &Value| {
            event["event"] == "ping" && event["connection"] == *direct && event["open"] == json!([direct])
        };
        let ping = self.process.wait_for(wanted, SOON)?;
        ping["micros"]
            .as_u64()
            .with_context(|| format!("{}: the ping failed", self.home.name))
    }

    fn failed_dials(&self) -> usize {
        let events = self.process.events();
        events.iter().filter(|event| event["event"] == "dial_failed").count()
    }
}

fn puncher(net: &Internet, place: &str) -> Command {
    net.command(place, env!("CARGO_BIN_EXE_puncher"))
}

fn id_of(process: &Process) -> Result<String> {
    let started = process.wait_for(|event| event["event"] == "started", SOON)?;
    Ok(started["peer"].as_str().context("a PeerId")?.to_owned())
}

fn tell(process: &mut Process, command: &str, address: &str) -> Result<()> {
    process.send(&json!({ "command": command, "address": address }))
}

/// The sum of the samples whose name, behind the crate's own prefix, begins with `name`.
fn count(samples: &Value, name: &str) -> f64 {
    let name = format!("libp2p_knock_{name}");
    let samples = samples.as_object().into_iter().flatten();
    samples
        .filter(|(sample, _)| sample.starts_with(&name))
        .filter_map(|(_, value)| value.as_f64())
        .sum()
}
