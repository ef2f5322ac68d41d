//! The key-value store at every stage: what one node puts another finds, also through a third that both can reach.

use crate::process::{Dir, KV_BACK, KV_PREFER, KV_REMOVED, KV_REQUIRE, KV_STOCK, Node, Program, each, socket};
use crate::proxy;
use std::io::ErrorKind;
use std::net::TcpListener;

/// Two nodes join through `hub`, over a knock or not, and find each other's values. They never dial each other: the
/// kinds given here are such that they cannot, or would only repeat what the hub shows.
fn share(programs: [Program; 3], by_knock: [bool; 2]) {
    let [one, hub, other] = programs;
    let mut hub = Node::start(hub, &[]);
    let mut nodes = [
        join(Dir::new(), one, &mut hub, by_knock[0]),
        join(Dir::new(), other, &mut hub, by_knock[1]),
    ];
    for (from, to, key, value) in [(0, 1, "there", "1"), (1, 0, "back", "2")] {
        put(&mut nodes[from], key, value);
        find(&mut nodes[to], key, value);
    }
    find_nothing(&mut nodes[0]);
    // Kademlia and identify have told everybody every address by now.
    for node in nodes.iter().chain([&hub]).filter(|node| node.is_silent()) {
        for connected in node.said("connected ") {
            assert!(connected.contains("/tls"), "{connected}");
        }
    }
}

/// A node, started with the key in `dir`, joins another and nobody else. Each finds what only the other could give it.
fn meet(dir: Dir, program: Program, hub: Program, by_knock: bool) -> Node {
    let mut hub = Node::start(hub, &[]);
    // Nobody is there who could take a copy: who wants this value has to fetch it.
    hub.type_line("put early 1");
    hub.expect("put-failed early ");
    let mut node = join(dir, program, &mut hub, by_knock);
    find(&mut node, "early", "1");
    put(&mut node, "late", "2");
    find(&mut hub, "late", "2");
    node
}

/// Starts a node that joins through `hub`, over a knock or not, and waits until each knows the other.
fn join(dir: Dir, program: Program, hub: &mut Node, by_knock: bool) -> Node {
    let mut node = Node::start_in(dir, program, &each("--bootstrap", &hub.addresses()));
    let address = node.expect(&format!("connected {} ", hub.peer));
    assert_eq!(address.contains("/tls/"), by_knock, "{address}");
    node.expect(&format!("joined {}", hub.peer));
    hub.expect(&format!("joined {}", node.peer));
    node
}

/// Has another node store a value.
fn put(node: &mut Node, key: &str, value: &str) {
    node.type_line(&format!("put {key} {value}"));
    node.expect(&format!("stored {key}"));
}

fn find(node: &mut Node, key: &str, value: &str) {
    node.type_line(&format!("get {key}"));
    assert_eq!(node.expect(&format!("found {key} ")), value);
}

/// What is in no store. The answer comes when nobody is left to ask, and so after every dial there is to make.
fn find_nothing(node: &mut Node) {
    node.type_line("get nothing");
    node.expect("missing nothing");
}

#[test]
fn before() {
    share([KV_STOCK, KV_STOCK, KV_STOCK], [false, false]);
}

#[test]
fn the_first_node_prefers() {
    share([KV_STOCK, KV_PREFER, KV_STOCK], [false, false]);
    share([KV_STOCK, KV_STOCK, KV_PREFER], [false, false]);
}

#[test]
fn some_prefer() {
    share([KV_STOCK, KV_PREFER, KV_PREFER], [false, true]);
}

#[test]
fn a_node_of_both_worlds_joins_what_cannot_reach_each_other() {
    share([KV_STOCK, KV_PREFER, KV_REQUIRE], [false, true]);
    share([KV_STOCK, KV_PREFER, KV_REMOVED], [false, true]);
}

#[test]
fn all_prefer_and_some_require() {
    share([KV_PREFER, KV_PREFER, KV_REQUIRE], [true, true]);
    share([KV_PREFER, KV_REQUIRE, KV_REQUIRE], [true, true]);
}

#[test]
fn all_require() {
    share([KV_REQUIRE, KV_REQUIRE, KV_REQUIRE], [true, true]);
}

#[test]
fn all_require_and_some_are_removed() {
    share([KV_REMOVED, KV_REQUIRE, KV_REMOVED], [true, true]);
    share([KV_REQUIRE, KV_REMOVED, KV_REQUIRE], [true, true]);
}

#[test]
fn all_are_removed() {
    share([KV_REMOVED, KV_REMOVED, KV_REMOVED], [true, true]);
}

#[test]
fn and_back() {
    share([KV_STOCK, KV_PREFER, KV_BACK], [false, false]);
    share([KV_STOCK, KV_BACK, KV_BACK], [false, false]);
}

#[test]
fn require_and_removed_store_and_fetch_with_each_other() {
    meet(Dir::new(), KV_REMOVED, KV_REQUIRE, true);
    meet(Dir::new(), KV_REQUIRE, KV_REMOVED, true);
}

#[test]
fn stock_gets_no_byte_from_removed() {
    let mut removed = Node::start(KV_REMOVED, &[]);
    let (proxy, counts) = proxy::recording(socket(removed.knock()));
    let address = proxy::through(removed.knock(), proxy).replace("/tls", "");
    let mut stock = Node::start(KV_STOCK, &["--bootstrap", &address]);
    let (there, back) = counts.recv().unwrap();
    assert!(there > 0);
    assert_eq!(back, 0);
    for node in [&mut stock, &mut removed] {
        find_nothing(node);
        assert_eq!(node.said("connected ").count(), 0);
    }
}

#[test]
fn stock_leaves_the_address_of_a_knock_alone_and_removed_that_of_stock() {
    let watched = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = watched.local_addr().unwrap();
    let (stock, removed) = (Node::start(KV_STOCK, &[]), Node::start(KV_REMOVED, &[]));
    for (program, address) in [
        (KV_STOCK, removed.knock()),
        (KV_BACK, removed.knock()),
        (KV_REMOVED, stock.stock()),
    ] {
        let mut node = Node::start(program, &["--bootstrap", &proxy::through(address, here)]);
        find_nothing(&mut node);
    }
    watched.set_nonblocking(true).unwrap();
    let nobody = watched.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(nobody, Err(ErrorKind::WouldBlock));
}

/// One node goes all the way and back, as its operator takes it: the same key, and another word or another program.
#[test]
fn there_and_back_with_one_key() {
    let mut node = Node::start(KV_STOCK, &[]);
    for (program, friend, by_knock) in [
        (KV_STOCK, KV_STOCK, false),
        (KV_PREFER, KV_STOCK, false),
        (KV_PREFER, KV_PREFER, true),
        (KV_REQUIRE, KV_PREFER, true),
        (KV_REMOVED, KV_REQUIRE, true),
        (KV_REQUIRE, KV_REQUIRE, true),
        (KV_PREFER, KV_STOCK, false),
        (KV_BACK, KV_PREFER, false),
        (KV_STOCK, KV_PREFER, false),
    ] {
        let peer = node.peer.clone();
        node = meet(node.stop(), program, friend, by_knock);
        assert_eq!(node.peer, peer);
    }
}
