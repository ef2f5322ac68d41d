//! The key-value store at every stage: what one node puts another finds, through a third that both can reach.

use crate::process::{KV_BACK, KV_PREFER, KV_REQUIRE, KV_STOCK, Node, Program, each};

/// Two nodes join through `hub`, over a knock or not, and find each other's values. They never dial each other: the
/// kinds given here are such that they cannot, or would only repeat what the hub shows.
fn share(programs: [Program; 3], by_knock: [bool; 2]) {
    let [one, hub, other] = programs;
    let mut hub = Node::start(hub, &[]);
    let join = |program, by_knock| {
        let mut node = Node::start(program, &each("--bootstrap", &hub.addresses()));
        let address = node.expect(&format!("connected {} ", hub.peer));
        assert_eq!(address.contains("/tls/"), by_knock, "{address}");
        node.expect(&format!("joined {}", hub.peer));
        node
    };
    let mut nodes = [join(one, by_knock[0]), join(other, by_knock[1])];
    for node in &nodes {
        hub.expect(&format!("joined {}", node.peer));
    }
    for (from, to, key, value) in [(0, 1, "there", "1"), (1, 0, "back", "2")] {
        nodes[from].type_line(&format!("put {key} {value}"));
        nodes[from].expect(&format!("stored {key}"));
        nodes[to].type_line(&format!("get {key}"));
        assert_eq!(nodes[to].expect(&format!("found {key} ")), value);
    }
    nodes[0].type_line("get nothing");
    nodes[0].expect("missing nothing");
    // Kademlia and identify have told everybody every address by now.
    for node in nodes.iter().chain([&hub]).filter(|node| node.is_silent()) {
        for connected in node.said("connected ") {
            assert!(connected.contains("/tls"), "{connected}");
        }
    }
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
fn and_back() {
    share([KV_STOCK, KV_PREFER, KV_BACK], [false, false]);
    share([KV_STOCK, KV_BACK, KV_BACK], [false, false]);
}
