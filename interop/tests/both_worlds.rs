//! One swarm with libp2p's own TCP + Noise on one port and the knock on another, beside peers that have only one of
//! the two. The mark `/tls` alone keeps the worlds apart.

use anyhow::{Context as _, Result, ensure};
use interop::peer::{PATIENCE, Peer, Transports, address, addresses, all_addresses, is_marked, port};
use libp2p::Multiaddr;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

const BEHAVIOURS: &str = "ping,identify,kad";

fn peer(transports: Transports, name: &str, seed: u64) -> Result<Peer> {
    Peer::spawn(env!("CARGO_BIN_EXE_peer"), transports, name, seed, BEHAVIOURS)
}

/// Lets `dialer` dial `target`, and waits until `listener` answers pings and they know of each other what there is.
fn connect(dialer: &mut Peer, listener: &Peer, target: &str) -> Result<()> {
    dialer.tell(&json!({"do": "dial", "address": target}))?;
    for (here, there) in [(&*dialer, listener), (listener, &*dialer)] {
        here.hear_with("connected", "peer", there.id)?;
        here.hear_with("identified", "peer", there.id)?;
        ensure!(here.hear_with("ping", "peer", there.id)?["ok"] == true);
    }
    Ok(())
}

fn disconnect(one: &mut Peer, other: &Peer) -> Result<()> {
    one.tell(&json!({"do": "disconnect", "peer": other.id.to_string()}))?;
    one.hear_with("closed", "peer", other.id)?;
    other.hear_with("closed", "peer", one.id)?;
    Ok(())
}

#[test]
fn a_peer_of_both_worlds_talks_to_each_and_every_address_says_which_it_is_of() -> Result<()> {
    let both = &mut peer(Transports::Both, "both", 1)?;
    // Two of each, since a pair that met before could not meet again from the same two ports at once.
    let stock = &mut peer(Transports::Stock, "stock", 2)?;
    let stock_caller = &mut peer(Transports::Stock, "stock caller", 3)?;
    let knock = &mut peer(Transports::Knock, "knock", 4)?;
    let knock_caller = &mut peer(Transports::Knock, "knock caller", 5)?;
    connect(both, stock, &stock.stock_dial()?)?;
    connect(both, knock, &knock.knock_dial()?)?;
    connect(stock_caller, both, &both.stock_dial()?)?;
    connect(knock_caller, both, &both.knock_dial()?)?;

    let marked = [both.knock()?, knock.knock()?, knock_caller.knock()?].map(port);
    let plain = [both.stock()?, stock.stock()?, stock_caller.stock()?].map(port);
    let peers = [both, stock, stock_caller, knock, knock_caller];
    // Everything that anybody tells, of whomever: dials come from the listener's port, so that these are the observed
    // addresses and the inbound connections' too.
    let mut seen = BTreeSet::new();
    for peer in peers {
        peer.tell(&json!({"do": "kad_table"}))?;
        peer.hear("kad_table")?;
        for event in peer.told() {
            for (field, address) in fields_with_addresses(&event) {
                let at = port(&address);
                // Peers that kad brings together in both directions at once take a port of the system's.
                if marked.contains(&at) || plain.contains(&at) {
                    assert_eq!(is_marked(&address), marked.contains(&at), "{address} of {event}");
                    seen.insert((field, is_marked(&address)));
                }
            }
        }
    }
    for field in [
        "listening.address",
        "identified.listen",
        "identified.observed",
        "connected.local",
        "connected.address",
        "kad_table.peers",
    ] {
        for mark in [true, false] {
            assert!(seen.contains(&(field.to_owned(), mark)), "{field}, marked: {mark}");
        }
    }
    Ok(())
}

/// The addresses in an event, each with the names of the event and of the field it is in.
fn fields_with_addresses(event: &Value) -> Vec<(String, Multiaddr)> {
    let fields = event.as_object().into_iter().flatten();
    let named = fields.flat_map(|(field, value)| {
        let name = format!("{}.{field}", event["event"].as_str().unwrap_or_default());
        all_addresses(value)
            .into_iter()
            .map(move |address| (name.clone(), address))
    });
    named.collect()
}

#[test]
fn a_stock_peer_leaves_knock_addresses_alone() -> Result<()> {
    dials_by_its_own_address_only(Transports::Stock)
}

#[test]
fn a_knock_peer_leaves_stock_addresses_alone() -> Result<()> {
    dials_by_its_own_address_only(Transports::Knock)
}

/// A peer with one transport learns all addresses of a peer with two, and one more of the other world, behind which
/// somebody watches for connections. Then it dials by the peer's id alone, while the peer is there and once it is gone.
fn dials_by_its_own_address_only(transports: Transports) -> Result<()> {
    let mut both = peer(Transports::Both, "both", 1)?;
    let mut single = peer(transports, "single", 2)?;
    let watched = TcpListener::bind("127.0.0.1:0")?;
    let (own, foreign, mark) = match transports {
        Transports::Stock => (both.stock()?.clone(), both.knock()?.clone(), "/tls"),
        _ => (both.knock()?.clone(), both.stock()?.clone(), ""),
    };
    let trap: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}{mark}", watched.local_addr()?.port()).parse()?;
    let qualified = |address: &Multiaddr| address.clone().with_p2p(both.id).ok().context("another peer's");
    let (own, foreign, trap) = (qualified(&own)?, qualified(&foreign)?, qualified(&trap)?);

    both.tell(&json!({"do": "external", "address": trap}))?;
    connect(&mut single, &both, &own.to_string())?;
    // Each end's kad looks around once it knows somebody; it must not reconnect them later.
    single.hear("kad_joined")?;
    both.hear("kad_joined")?;
    disconnect(&mut single, &both)?;
    single.tell(&json!({"do": "kad_table"}))?;
    let table = single.hear("kad_table")?;
    let known = addresses(&table["peers"][both.id.to_string()])?;
    for address in [&own, &foreign, &trap] {
        assert!(known.contains(address), "{address}: {known:?}");
    }

    single.tell(&json!({"do": "dial_peer", "peer": both.id.to_string()}))?;
    let connected = single.hear_with("connected", "peer", both.id)?;
    assert_eq!(address(&connected["address"])?, own);
    // Those that failed before the one that did not, which may have been quicker than all others.
    let failed = connected["failed"].as_array().context("a list")?;
    assert!(
        failed.iter().all(|attempt| attempt["unsupported"] == true),
        "{connected}"
    );
    assert!(addresses(&connected["known"])?.contains(&own), "{connected}");

    // Once nothing answers any more, every address gets its turn.
    single.hear_with("identified", "peer", both.id)?;
    let gone = both.id;
    drop(both);
    single.hear_with("closed", "peer", gone)?;
    single.tell(&json!({"do": "dial_peer", "peer": gone.to_string()}))?;
    let failed = single.hear_with("dial_failed", "peer", gone)?;
    for (address, unsupported) in [(&own, false), (&foreign, true), (&trap, true)] {
        let mut attempts = failed["attempts"].as_array().context("a list")?.iter();
        let attempt = attempts.find(|attempt| attempt["address"] == address.to_string());
        let attempt = attempt.with_context(|| format!("{address} was not tried: {failed}"))?;
        assert_eq!(attempt["unsupported"], unsupported, "{attempt}");
    }

    watched.set_nonblocking(true)?;
    let nobody = watched.accept().map(|(_, from)| from).map_err(|error| error.kind());
    assert_eq!(nobody, Err(ErrorKind::WouldBlock));
    Ok(())
}

#[test]
fn a_peer_of_both_worlds_dials_each_address_by_its_own_transport() -> Result<()> {
    const STOCK_SPEAKS_FIRST: &[u8] = b"\x13/multistream/1.0.0\n";
    let mut both = peer(Transports::Both, "both", 1)?;
    let somebody = libp2p::identity::Keypair::generate_ed25519().public().to_peer_id();
    for (mark, is_stock) in [("", true), ("/tls", false)] {
        let (watched, first) = accept_one(|mut socket| {
            let mut first = [0; STOCK_SPEAKS_FIRST.len()];
            socket.read_exact(&mut first)?;
            Ok(first)
        })?;
        let target = format!("{}{mark}/p2p/{somebody}", multiaddr(watched));
        both.tell(&json!({"do": "dial", "address": target}))?;
        let first = first.recv_timeout(PATIENCE)??;
        assert_eq!(first == STOCK_SPEAKS_FIRST, is_stock, "{target}: {first:02x?}");
        both.hear_with("dial_failed", "peer", somebody)?;
    }
    Ok(())
}

#[test]
fn a_stock_dial_at_the_knock_port_gets_no_byte() -> Result<()> {
    let both = peer(Transports::Both, "both", 1)?;
    let mut stock = peer(Transports::Stock, "stock", 2)?;
    let target = SocketAddr::from(([127, 0, 0, 1], port(both.knock()?).context("a port")?));
    let (proxy, counted) = accept_one(move |near| {
        let far = TcpStream::connect(target)?;
        let back = std::thread::spawn({
            let (far, near) = (far.try_clone()?, near.try_clone()?);
            move || pass_on(far, near)
        });
        let there = pass_on(near, far);
        Ok((there, back.join().ok().context("the way back")?))
    })?;

    stock.tell(&json!({"do": "dial", "address": format!("{}/p2p/{}", multiaddr(proxy), both.id)}))?;
    let failed = stock.hear_with("dial_failed", "peer", both.id)?;
    assert_eq!(failed["attempts"][0]["unsupported"], false, "{failed}");
    let (asked, answered) = counted.recv_timeout(PATIENCE)??;
    assert!(asked > 0);
    assert_eq!(answered, 0);
    assert!(!both.has_met(stock.id));
    Ok(())
}

/// Listens for one connection; what `then` makes of it comes out of the receiver, which can be awaited with a limit.
fn accept_one<T: Send + 'static>(
    then: impl FnOnce(TcpStream) -> Result<T> + Send + 'static,
) -> Result<(SocketAddr, Receiver<Result<T>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let made = listener
            .accept()
            .map_err(Into::into)
            .and_then(|(socket, _)| then(socket));
        // Nobody receives when the test has failed elsewhere.
        let _ = sender.send(made);
    });
    Ok((address, receiver))
}

/// Counts what it passes on until either side breaks or ends, which is how both of these connections are meant to.
fn pass_on(mut from: TcpStream, mut to: TcpStream) -> u64 {
    let (mut passed, mut buffer) = (0, [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        passed += n as u64;
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    passed
}

fn multiaddr(address: SocketAddr) -> String {
    format!("/ip4/{}/tcp/{}", address.ip(), address.port())
}

/// The other way round there is something to read for whoever answers, but no connection either.
#[test]
fn a_knock_at_a_stock_port_fails() -> Result<()> {
    let stock = peer(Transports::Stock, "stock", 1)?;
    let mut knock = peer(Transports::Knock, "knock", 2)?;
    let target = format!("{}/tls/p2p/{}", stock.stock()?, stock.id);
    knock.tell(&json!({"do": "dial", "address": target}))?;
    let failed = knock.hear_with("dial_failed", "peer", stock.id)?;
    assert!(failed["attempts"][0]["knock"].is_string(), "{failed}");
    stock.hear("inbound_failed")?;
    assert!(!stock.has_met(knock.id));
    Ok(())
}

#[test]
fn the_knock_refuses_a_port_on_which_stock_listens() -> Result<()> {
    let mut both = peer(Transports::Both, "both", 1)?;
    let taken = format!("{}/tls", both.stock()?);
    both.tell(&json!({"do": "listen", "address": taken}))?;
    let refused = both.hear("listen_failed")?;
    assert_eq!(refused["address"], taken);
    assert_eq!(refused["knock"], "PortInUse", "{refused}");
    Ok(())
}
