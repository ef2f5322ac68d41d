//! libp2p's own behaviours between processes that have no transport but the knock: what they exchange, and that every
//! address they hand on still leads back here.

use anyhow::{Context as _, Result};
use interop::peer::{Peer, Transports, address, addresses, is_marked};
use libp2p::kad::KBucketKey;
use libp2p::{Multiaddr, PeerId};
use serde_json::{Value, json};

fn peer(name: &str, seed: u64, with: &str) -> Result<Peer> {
    Peer::spawn(env!("CARGO_BIN_EXE_peer"), Transports::Knock, name, seed, with)
}

/// Lets `dialer` dial `listener` by knock and waits until both say that they are connected.
fn connect(dialer: &mut Peer, listener: &Peer) -> Result<()> {
    dialer.tell(&json!({"do": "dial", "address": listener.knock_dial()?}))?;
    dialer.hear_with("connected", "peer", listener.id)?;
    listener.hear_with("connected", "peer", dialer.id)?;
    Ok(())
}

/// Whether a list of addresses has something in it and the knock's mark on all of it.
fn are_marked(list: &[Multiaddr]) -> bool {
    !list.is_empty() && list.iter().all(is_marked)
}

#[test]
fn ping_goes_round_in_both_directions_over_one_knock() -> Result<()> {
    let mut dialer = peer("dialer", 1, "ping")?;
    let listener = peer("listener", 2, "ping")?;
    connect(&mut dialer, &listener)?;
    assert_eq!(dialer.hear_with("ping", "peer", listener.id)?["ok"], true);
    assert_eq!(listener.hear_with("ping", "peer", dialer.id)?["ok"], true);
    Ok(())
}

#[test]
fn identify_hands_out_addresses_that_end_in_tls() -> Result<()> {
    let mut dialer = peer("dialer", 1, "identify")?;
    let listener = peer("listener", 2, "identify")?;
    connect(&mut dialer, &listener)?;
    for (here, there) in [(&dialer, &listener), (&listener, &dialer)] {
        let told = here.hear_with("identified", "peer", there.id)?;
        let listen = addresses(&told["listen"])?;
        assert!(are_marked(&listen), "{told}");
        assert!(listen.contains(there.knock()?), "{told}");
        // What `there` calls the address at which it sees `here`.
        assert!(is_marked(&address(&told["observed"])?), "{told}");
    }
    // The dialer came from the port on which it listens, so what is observed of it can be dialled.
    let candidate = address(&dialer.hear("external_candidate")?["address"])?;
    assert_eq!(&candidate, dialer.knock()?);
    Ok(())
}

/// The eight that are there first know each other. The ninth stores a record at the three of them that are closest to
/// its key. The tenth has never met it, nor any of these: it knows one of the eight, from which it has to learn where
/// the others are.
#[test]
fn kad_finds_a_record_among_ten_processes_that_only_knock() -> Result<()> {
    let bin = env!("CARGO_BIN_EXE_peer");
    let mut crowd = (0..8)
        .map(|n| peer(&format!("member {n}"), 10 + n, "identify,kad"))
        .collect::<Result<Vec<_>>>()?;
    let mut author = Peer::spawn_with(
        bin,
        Transports::Knock,
        "author",
        18,
        "identify,kad",
        &["--kad-replication", "3"],
    )?;
    let mut reader = peer("reader", 19, "identify,kad")?;

    let (first, others) = crowd.split_first_mut().context("eight")?;
    for member in others.iter_mut() {
        join(member, first)?;
        first.hear_with("kad_routing", "peer", member.id)?;
    }
    join(&mut author, first)?;

    let others: Vec<_> = others.iter().map(|member| member.id).collect();
    let key = key_farthest_from(first.id, &others).context("no such key")?;
    author.tell(&json!({"do": "kad_put", "key": key, "value": "found you"}))?;
    let put = author.hear("kad_put")?;
    assert_eq!(put["error"], Value::Null, "{put}");
    assert!(!author.has_met(reader.id) && !reader.has_met(author.id));

    join(&mut reader, first)?;
    reader.tell(&json!({"do": "kad_get", "key": key}))?;
    let found = reader.hear("kad_found")?;
    assert_eq!(found["value"], "found you");
    // Not from itself, nor from the one it knew, which was not given the record.
    assert!(found["at"].is_string(), "{found}");
    assert_ne!(found["at"], first.id.to_string());
    assert!(first.told().iter().all(|event| event["event"] != "kad_stored"));

    reader.tell(&json!({"do": "kad_table"}))?;
    let table = reader.hear("kad_table")?;
    for (peer, known) in table["peers"].as_object().context("a table")? {
        assert!(are_marked(&addresses(known)?), "{peer}: {known}");
    }
    Ok(())
}

fn join(newcomer: &mut Peer, member: &Peer) -> Result<()> {
    newcomer.tell(&json!({"do": "kad_join", "peer": member.id.to_string(), "address": member.knock()?}))?;
    let joined = newcomer.hear("kad_joined")?;
    assert_eq!(joined["error"], Value::Null, "{joined}");
    Ok(())
}

/// A key to which all of `others` are closer than `far`.
fn key_farthest_from(far: PeerId, others: &[PeerId]) -> Option<String> {
    (0..10_000).map(|n| format!("key {n}")).find(|key| {
        let target = KBucketKey::new(key.as_bytes().to_vec());
        let distance = |peer: &PeerId| KBucketKey::from(*peer).distance(&target);
        others.iter().all(|other| distance(other) < distance(&far))
    })
}

#[test]
fn gossipsub_carries_a_message_through_the_peer_in_the_middle() -> Result<()> {
    let mut author = peer("author", 1, "gossipsub")?;
    let mut middle = peer("middle", 2, "gossipsub")?;
    let mut reader = peer("reader", 3, "gossipsub")?;
    for peer in [&mut author, &mut middle, &mut reader] {
        peer.tell(&json!({"do": "subscribe", "topic": "news"}))?;
    }
    connect(&mut author, &middle)?;
    connect(&mut reader, &middle)?;
    author.hear_with("subscribed", "peer", middle.id)?;
    middle.hear_with("subscribed", "peer", reader.id)?;

    author.tell(&json!({"do": "publish", "topic": "news", "text": "it rains"}))?;
    let message = reader.hear("message")?;
    assert_eq!(message["text"], "it rains");
    assert_eq!(message["author"], author.id.to_string());
    assert_eq!(message["through"], middle.id.to_string());
    assert!(!reader.has_met(author.id) && !author.has_met(reader.id));
    Ok(())
}

#[test]
fn request_response_echoes_a_mebibyte_in_both_directions() -> Result<()> {
    const BYTES: usize = 1 << 20;
    let mut dialer = peer("dialer", 1, "request-response")?;
    let mut listener = peer("listener", 2, "request-response")?;
    connect(&mut dialer, &listener)?;
    dialer.tell(&json!({"do": "request", "peer": listener.id.to_string(), "bytes": BYTES}))?;
    listener.tell(&json!({"do": "request", "peer": dialer.id.to_string(), "bytes": BYTES}))?;
    for (here, there) in [(&dialer, &listener), (&listener, &dialer)] {
        for what in ["request", "response"] {
            let told = here.hear_with(what, "peer", there.id)?;
            assert_eq!(told["bytes"], BYTES, "{told}");
            assert_eq!(told["intact"], true, "{told}");
        }
    }
    Ok(())
}

#[test]
fn rendezvous_leads_to_a_peer_that_can_be_knocked_at() -> Result<()> {
    let point = peer("point", 1, "identify,rendezvous-server")?;
    let mut host = peer("host", 2, "identify,ping,rendezvous-client")?;
    let mut guest = peer("guest", 3, "identify,ping,rendezvous-client")?;
    host.tell(&json!({"do": "external", "address": host.knock()?}))?;
    host.hear("external_added")?;
    connect(&mut host, &point)?;
    host.tell(&json!({"do": "register", "at": point.id.to_string(), "namespace": "club"}))?;
    host.hear_with("registered", "at", point.id)?;
    point.hear_with("registration", "peer", host.id)?;

    connect(&mut guest, &point)?;
    guest.tell(&json!({"do": "discover", "at": point.id.to_string(), "namespace": "club"}))?;
    let discovered = guest.hear("discovered")?;
    let found = &discovered["registrations"][0];
    assert_eq!(found["peer"], host.id.to_string(), "{discovered}");
    let found = addresses(&found["addresses"])?;
    assert!(are_marked(&found), "{discovered}");

    let target = found[0].clone().with_p2p(host.id).ok().context("another peer's")?;
    guest.tell(&json!({"do": "dial", "address": target}))?;
    guest.hear_with("connected", "peer", host.id)?;
    assert_eq!(guest.hear_with("ping", "peer", host.id)?["ok"], true);
    Ok(())
}

/// AutoNAT v2: the client asks about the address at which the server sees it, the server dials that from a fresh port
/// and sends the client's nonce back.
#[test]
fn autonat_is_told_that_an_address_can_be_knocked_at() -> Result<()> {
    let server = peer("server", 1, "identify,autonat-server")?;
    let mut client = peer("client", 2, "identify,autonat-client")?;
    connect(&mut client, &server)?;

    let verdict = client.hear("reachability")?;
    assert_eq!(verdict["error"], Value::Null, "{verdict}");
    assert_eq!(verdict["by"], server.id.to_string());
    assert_eq!(&address(&verdict["address"])?, client.knock()?);
    assert_eq!(
        &address(&client.hear("external_confirmed")?["address"])?,
        client.knock()?
    );

    // The dial-back, at either end: the server has no other transport, and the address says the same.
    let there = server.hear_that("connected", |event| event["as"] == "dialer")?;
    assert_eq!(there["address"], client.knock_dial()?, "{there}");
    let here = client.hear_that("connected", |event| event["as"] == "listener")?;
    assert_eq!(&address(&here["local"])?, client.knock()?, "{here}");
    let tested = server.hear("dialled_back")?;
    assert_eq!(tested["error"], Value::Null, "{tested}");
    assert_eq!(&address(&tested["address"])?, client.knock()?);
    Ok(())
}

#[test]
fn a_circuit_leads_through_a_relay_that_only_knocks() -> Result<()> {
    let mut relay = peer("relay", 1, "identify,relay")?;
    let mut listener = peer("listener", 2, "identify,ping")?;
    let mut dialer = peer("dialer", 3, "identify,ping")?;
    // A relay offers its external addresses in a reservation, and refuses one when it has none.
    relay.tell(&json!({"do": "external", "address": relay.knock()?}))?;
    relay.hear("external_added")?;

    let circuit = format!("{}/p2p-circuit", relay.knock_dial()?);
    listener.tell(&json!({"do": "listen", "address": circuit}))?;
    listener.hear_with("reserved", "relay", relay.id)?;
    let leg = listener.hear_with("connected", "peer", relay.id)?;
    assert!(is_marked(&address(&leg["address"])?), "{leg}");
    let offered = listener.hear_with("listening", "by", "later")?;
    let offered = address(&offered["address"])?;
    assert!(offered.to_string().starts_with(&circuit), "{offered}");

    let target = offered.with_p2p(listener.id).ok().context("another peer's")?;
    dialer.tell(&json!({"do": "dial", "address": target}))?;
    let end = dialer.hear_with("connected", "peer", listener.id)?;
    assert_eq!(end["relayed"], true, "{end}");
    relay.hear_with("circuit", "to", listener.id)?;
    let leg = dialer.hear_with("connected", "peer", relay.id)?;
    assert!(is_marked(&address(&leg["address"])?), "{leg}");
    assert_eq!(dialer.hear_with("ping", "peer", listener.id)?["ok"], true);
    assert_eq!(listener.hear_with("ping", "peer", dialer.id)?["ok"], true);
    Ok(())
}
