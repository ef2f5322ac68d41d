//! What is a knock's address, here and in the transport.

use crate::asking::{Asking as _, address};
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_gater::{Direction, Parts, Rule, Rules, TransportKind};
use libp2p_identity::PeerId;
use proptest::prelude::*;

const ONE: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
const TWO: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

fn unix() -> Multiaddr {
    Multiaddr::empty().with(Protocol::Unix("/run/node.sock".into()))
}

#[test]
fn a_knock_over_a_unix_socket_is_a_knock() {
    let rules = Rules::new();
    let knocks = rules.change(|change| {
        change.require_knock_of_everybody(true);
        Ok(())
    });
    knocks.expect("changed");
    let peer: PeerId = ONE.parse().expect("a peer id");
    let marked = unix().with(Protocol::Tls);
    for at in [marked.clone(), marked.with(Protocol::P2p(peer))] {
        assert!(libp2p_knock::is_knock_address(&at));
        assert_eq!(Parts::of(&at).kind, TransportKind::Knock, "{at}");
        let dial = libp2p_gater::AddrDial::new(
            Some(&peer),
            libp2p_gater::Link::outbound(&at, libp2p_core::Endpoint::Dialer),
        );
        use libp2p_gater::ConnectionGater as _;
        assert!(!rules.intercept_addr_dial(&dial).is_deny(), "{at}");
    }
    assert_eq!(Parts::of(&unix()).kind, TransportKind::Other);
}

#[test]
fn what_the_transport_does_not_claim_is_no_knock() {
    let rules = Rules::new();
    let changed = rules.change(|change| {
        change.require_knock_of_everybody(true);
        Ok(())
    });
    changed.expect("changed");
    for at in [
        "/ip4/192.0.2.7/tcp/1/tls/sni/example.org".to_owned(),
        "/tls".to_owned(),
        format!("/tls/p2p/{ONE}"),
        format!("/ip4/192.0.2.7/tcp/1/tls/p2p/{ONE}/p2p/{TWO}"),
        format!("/ip4/192.0.2.7/tcp/1/tls/p2p/{ONE}/p2p-circuit/p2p/{TWO}"),
        "/ip4/192.0.2.7/udp/1/quic-v1/tls/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ".to_owned(),
        "/ip4/192.0.2.7/tcp/1/tls/ws".to_owned(),
        "/ip4/192.0.2.7/tcp/1/tls/http".to_owned(),
    ] {
        assert!(!libp2p_knock::is_knock_address(&address(&at)), "{at}");
        assert!(!Parts::of(&address(&at)).knocks, "{at}");
        assert_eq!(rules.dial_at(None, &at), "require_knock", "{at}");
        assert_eq!(rules.accept(&at), "require_knock", "{at}");
    }
}

#[test]
fn a_peer_that_is_named_twice_knocks_as_if_it_were_named_once() {
    let twice = format!("/ip4/192.0.2.7/tcp/1/tls/p2p/{ONE}/p2p/{ONE}");
    let parts = Parts::of(&address(&twice));
    assert_eq!((parts.kind, parts.knocks), (TransportKind::Knock, true));
    assert_eq!(parts.peer, ONE.parse().ok());
    let circuit = format!("/ip4/192.0.2.7/tcp/1/p2p/{TWO}/p2p-circuit");
    for end in [
        format!("/tls/p2p/{ONE}/p2p/{ONE}"),
        format!("/p2p/{ONE}/tls"),
        format!("/p2p/{ONE}/p2p/{ONE}/tls/p2p/{ONE}"),
    ] {
        assert!(Parts::of(&address(&format!("{circuit}{end}"))).knocks, "{end}");
    }
    // A circuit leads to one peer.
    for end in [
        format!("/p2p/{ONE}/tls/p2p/{TWO}"),
        format!("/p2p/{ONE}/p2p/{TWO}/tls"),
        format!("/tls/p2p/{ONE}/tls/p2p/{TWO}"),
    ] {
        assert!(!Parts::of(&address(&format!("{circuit}{end}"))).knocks, "{end}");
    }
    // In front of the mark of what is no circuit anything can stand.
    let before = format!("/ip4/192.0.2.7/tcp/1/p2p/{ONE}/tls/p2p/{TWO}");
    assert!(Parts::of(&address(&before)).knocks);
}

fn component() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "/ip4/192.0.2.7",
        "/ip6/2001:db8::1",
        "/dns4/example.org",
        "/memory/7",
        "/unix/node.sock",
        "/tcp/1",
        "/udp/1",
        "/tls",
        "/tls",
        "/ws",
        "/wss",
        "/sni/example.org",
        "/quic-v1",
        "/webtransport",
        "/http",
        "/p2p-circuit",
        "/ip6zone/eth0",
        "/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
        "/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_knock_here_is_what_the_transport_claims(parts in prop::collection::vec(component(), 0..7)) {
        let at: Multiaddr = parts.concat().parse().expect("components of addresses");
        let read = Parts::of(&at);
        prop_assert_eq!(read.knocks, libp2p_knock::is_knock_address(&at), "{}", at);
        if read.knocks && !read.is_relayed() {
            prop_assert_eq!(read.kind, TransportKind::Knock, "{}", at);
        }
        if !read.knocks {
            prop_assert_ne!(read.kind, TransportKind::Knock, "{}", at);
        }
    }
}

/// What a relay is told of the caller, and what the caller says: all of it is judged.
#[test]
fn an_inbound_circuit_is_judged_by_every_relay_and_every_address_that_either_end_names() {
    let (ours, theirs, caller) = (PeerId::random(), PeerId::random(), PeerId::random());
    let local = format!("/ip4/192.0.2.1/tcp/1/p2p/{ours}/p2p-circuit");
    let remotes = [
        format!("/ip4/198.51.100.2/tcp/2/p2p/{caller}"),
        format!("/ip4/203.0.113.3/tcp/3/p2p/{theirs}/p2p-circuit/ip4/198.51.100.2/tcp/2/p2p/{caller}"),
        format!("/p2p/{theirs}/p2p-circuit/ip4/198.51.100.2/tcp/2/p2p/{caller}"),
    ];
    for (at, remote) in remotes.iter().enumerate() {
        let (local, remote) = (local.as_str(), remote.as_str());
        let parts = Parts::of_inbound(&address(local), &address(remote));
        assert_eq!(parts.kind, TransportKind::Relayed, "{remote}");
        assert_eq!((parts.relay, parts.peer), (Some(ours), Some(caller)), "{remote}");
        let mut blocks = vec![
            Rule::block().peer(ours),
            Rule::block().peer(caller),
            Rule::block().network("192.0.2.1".parse::<std::net::IpAddr>().expect("an IP")),
            Rule::block().network("198.51.100.2".parse::<std::net::IpAddr>().expect("an IP")),
            Rule::block().transport(TransportKind::Relayed),
        ];
        if at > 0 {
            blocks.push(Rule::block().peer(theirs));
        }
        if at == 1 {
            blocks.push(Rule::block().network("203.0.113.3".parse::<std::net::IpAddr>().expect("an IP")));
        }
        for block in blocks {
            let rules = Rules::new();
            rules.change(|change| change.insert(block.clone())).expect("changed");
            assert_ne!(rules.accept_on(local, remote), "pass", "{block} of {remote}");
        }
        // What a relay says allows nothing.
        let rules = Rules::new();
        let changed = rules.change(|change| {
            change.insert(Rule::allow().network("198.51.100.2".parse::<std::net::IpAddr>().expect("an IP")))?;
            change.insert(Rule::block().direction(Direction::Inbound))
        });
        changed.expect("changed");
        assert_eq!(rules.accept_on(local, remote), "block", "{remote}");
    }
}

#[test]
fn a_second_relay_on_the_way_is_judged_and_a_third_is_too_many() {
    let [one, two, three] = [(); 3].map(|()| PeerId::random());
    let through = |relays: &[PeerId]| {
        let hops = relays.iter().zip(1..);
        let hops = hops.map(|(relay, n)| format!("/ip4/192.0.2.{n}/tcp/{n}/p2p/{relay}/p2p-circuit"));
        hops.collect::<String>() + "/ip4/198.51.100.2/tcp/2"
    };
    for block in [
        Rule::block().peer(one),
        Rule::block().peer(two),
        Rule::block().network("192.0.2.1".parse::<std::net::IpAddr>().expect("an IP")),
        Rule::block().network("192.0.2.2".parse::<std::net::IpAddr>().expect("an IP")),
        Rule::block().network("198.51.100.2".parse::<std::net::IpAddr>().expect("an IP")),
    ] {
        let rules = Rules::new();
        rules.change(|change| change.insert(block.clone())).expect("changed");
        assert_ne!(rules.dial_at(None, &through(&[one, two])), "pass", "{block}");
    }
    assert_eq!(Rules::new().dial_at(None, &through(&[one, two])), "pass");
    assert_eq!(
        Rules::new().dial_at(None, &through(&[one, two, three])),
        "malformed_address"
    );
}

#[test]
fn what_a_remote_says_behind_our_relay_does_not_make_it_a_knock() {
    let (relay, caller) = (PeerId::random(), PeerId::random());
    let local = format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit");
    let says = format!("/ip4/198.51.100.2/tcp/2/tls/p2p/{caller}");
    assert!(!Parts::of_inbound(&address(&local), &address(&says)).knocks);
    let marked = format!("{local}/tls");
    assert!(Parts::of_inbound(&address(&marked), &address(&format!("/p2p/{caller}/tls"))).knocks);
}
