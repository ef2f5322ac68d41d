//! The small program at every stage, against itself at every other.

use crate::process::{BACK, Node, PREFER, Program, REMOVED, REQUIRE, STOCK, each, socket};
use crate::proxy;
use std::io::ErrorKind;
use std::net::TcpListener;

/// Lets a new node of one kind dial one of another kind at all of its addresses. Returns both, when they have pinged
/// and identified each other over one connection, which is a knock's or is not.
fn meet(dialer: Program, listener: Program, by_knock: bool) -> (Node, Node) {
    let mut listener = Node::start(listener, &[]);
    let mut dialer = Node::start(dialer, &each("--dial", &listener.addresses()));
    know_each_other(&mut dialer, &mut listener, by_knock);
    (dialer, listener)
}

fn know_each_other(one: &mut Node, other: &mut Node, by_knock: bool) {
    let (first, second) = (one.peer.clone(), other.peer.clone());
    for (here, there) in [(one, second), (other, first)] {
        let address = here.expect(&format!("connected {there} "));
        assert_eq!(is_knock(&address), by_knock, "{address}");
        here.expect(&format!("ping {there}"));
        here.expect(&format!("identified {there} "));
    }
}

fn is_knock(address: &str) -> bool {
    address.split("/p2p/").next().is_some_and(|base| base.ends_with("/tls"))
}

/// The addresses that `there` has told `here`.
fn announced(here: &mut Node, there: &Node) -> Vec<String> {
    let addresses = here.expect(&format!("identified {} ", there.peer));
    let addresses = addresses.trim_matches(['[', ']']).split(", ");
    addresses.map(str::to_owned).collect()
}

#[test]
fn before() {
    meet(STOCK, STOCK, false);
}

#[test]
fn prefer_and_stock_meet_by_stock_and_both_addresses_are_announced() {
    let (mut stock, prefer) = meet(STOCK, PREFER, false);
    let told = announced(&mut stock, &prefer);
    let knocks = told.iter().filter(|address| is_knock(address)).count();
    assert_eq!((told.len(), knocks), (2, 1), "{told:?}");
    meet(PREFER, STOCK, false);
}

#[test]
fn prefer_and_prefer_meet_by_knock() {
    meet(PREFER, PREFER, true);
}

#[test]
fn prefer_and_require_meet_by_knock() {
    meet(PREFER, REQUIRE, true);
    meet(REQUIRE, PREFER, true);
}

#[test]
fn require_and_require_meet_by_knock_and_announce_nothing_else() {
    let (mut one, mut other) = meet(REQUIRE, REQUIRE, true);
    for told in [announced(&mut one, &other), announced(&mut other, &one)] {
        assert!(told.len() == 1 && is_knock(&told[0]), "{told:?}");
    }
}

#[test]
fn require_and_removed_meet_by_knock() {
    meet(REQUIRE, REMOVED, true);
    meet(REMOVED, REQUIRE, true);
    meet(REMOVED, PREFER, true);
}

#[test]
fn stock_gets_no_byte_from_require() {
    let require = Node::start(REQUIRE, &[]);
    let (proxy, counts) = proxy::recording(socket(require.knock()));
    let address = proxy::through(require.knock(), proxy).replace("/tls", "");
    let mut stock = Node::start(STOCK, &["--dial", &address]);
    stock.expect("dial-failed ");
    let (there, back) = counts.recv().unwrap();
    assert!(there > 0);
    assert_eq!(back, 0);
}

#[test]
fn stock_leaves_the_address_of_a_knock_alone_and_require_that_of_stock() {
    let watched = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = watched.local_addr().unwrap();
    let (stock, require) = (Node::start(STOCK, &[]), Node::start(REQUIRE, &[]));
    for (program, address) in [
        (STOCK, require.knock()),
        (BACK, require.knock()),
        (REQUIRE, stock.stock()),
    ] {
        let mut dialer = Node::start(program, &["--dial", &proxy::through(address, here)]);
        let why = dialer.expect("dial-failed ");
        assert!(why.contains("Multiaddr is not supported"), "{why}");
    }
    watched.set_nonblocking(true).unwrap();
    let nobody = watched.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(nobody, Err(ErrorKind::WouldBlock));
}

#[test]
fn who_drops_knocks_forces_prefer_back_to_stock() {
    let mut listener = Node::start(PREFER, &[]);
    let knock = proxy::through(listener.knock(), proxy::swallowing());
    let mut dialer = Node::start(PREFER, &each("--dial", &[&knock, listener.stock()]));
    know_each_other(&mut dialer, &mut listener, false);
}

#[test]
fn who_drops_knocks_gets_nothing_else_from_require() {
    let listener = Node::start(PREFER, &[]);
    let knock = proxy::through(listener.knock(), proxy::closing());
    let mut dialer = Node::start(REQUIRE, &each("--dial", &[&knock, listener.stock()]));
    let why = dialer.expect("dial-failed ");
    assert!(why.contains("Multiaddr is not supported"), "{why}");
}

/// One node goes all the way and back, as its operator takes it: the same key, and another word or another program.
#[test]
fn there_and_back_with_one_key() {
    let mut node = Node::start(STOCK, &[]);
    for (program, friend, by_knock) in [
        (STOCK, STOCK, false),
        (PREFER, STOCK, false),
        (PREFER, PREFER, true),
        (REQUIRE, PREFER, true),
        (REMOVED, REQUIRE, true),
        (REQUIRE, REQUIRE, true),
        (PREFER, STOCK, false),
        (BACK, PREFER, false),
        (STOCK, PREFER, false),
    ] {
        let mut friend = Node::start(friend, &[]);
        let peer = node.peer.clone();
        node = Node::start_in(node.stop(), program, &each("--dial", &friend.addresses()));
        assert_eq!(node.peer, peer);
        know_each_other(&mut node, &mut friend, by_knock);
    }
}

#[test]
fn one_port_is_not_for_both() {
    let stock = Node::start(STOCK, &[]);
    let address = format!("{}/tls", stock.stock().split("/p2p/").next().unwrap());
    let why = PREFER.refusal(&["--listen", &address]);
    assert!(why.contains(&format!("cannot listen on {address}")), "{why}");
}
