//! Both lists. GT-01 to GT-08 are the phases of go-libp2p's test of its BasicConnectionGater.

use crate::asking::{Asking as _, Time, address, cidr};
use libp2p_gater::{ConnectionGater as _, Direction, Rule, RuleError, Rules, TransportKind};
use libp2p_identity::PeerId;
use std::net::IpAddr;
use std::time::Duration;

const IPS: [&str; 3] = ["1.2.3.4", "1.2.3.5", "2.3.4.5"];

struct Basic {
    a: PeerId,
    b: PeerId,
}

impl Basic {
    fn new() -> Self {
        Self {
            a: PeerId::random(),
            b: PeerId::random(),
        }
    }

    fn peers(&self, rules: &Rules) -> [String; 4] {
        // Go asks the secured stage without an address.
        let nowhere = "/memory/1";
        [
            rules.dial(&self.a),
            rules.dial(&self.b),
            rules.secured_in(&self.a, nowhere),
            rules.secured_in(&self.b, nowhere),
        ]
    }

    /// Each IP, dialled and accepted.
    fn addresses(&self, rules: &Rules) -> [(String, String); 3] {
        IPS.map(|ip| {
            let at = format!("/ip4/{ip}/tcp/1234");
            (rules.dial_at(Some(&self.b), &at), rules.accept(&at))
        })
    }
}

const BLOCKED_A: [&str; 4] = ["block_peer", "pass", "block_peer", "pass"];

fn both(answers: [&str; 3]) -> [(String, String); 3] {
    answers.map(|answer| (answer.to_owned(), answer.to_owned()))
}

fn block_everything_of_go(rules: &Rules, basic: &Basic) -> Result<(), RuleError> {
    rules.change(|change| {
        change.block(basic.a)?;
        change.block(IPS[0].parse::<IpAddr>().expect("an IP"))?;
        change.block(cidr("1.2.3.0/24"))
    })
}

/// GT-01.
#[test]
fn fresh_rules_let_every_peer_pass() {
    let basic = Basic::new();
    assert_eq!(basic.peers(&Rules::new()), ["pass"; 4]);
}

/// GT-02.
#[test]
fn a_blocked_peer_is_neither_dialled_nor_let_in_and_others_are() {
    let (basic, rules) = (Basic::new(), Rules::new());
    rules.change(|change| change.block(basic.a)).expect("changed");
    assert_eq!(basic.peers(&rules), BLOCKED_A);
}

/// GT-03.
#[test]
fn fresh_rules_let_every_address_pass_both_ways() {
    assert_eq!(Basic::new().addresses(&Rules::new()), both(["pass"; 3]));
}

/// GT-04.
#[test]
fn a_blocked_ip_is_denied_both_ways_and_its_neighbours_are_not() {
    let (basic, rules) = (Basic::new(), Rules::new());
    let ip: IpAddr = IPS[0].parse().expect("an IP");
    rules.change(|change| change.block(ip)).expect("changed");
    assert_eq!(basic.addresses(&rules), both(["block_network", "pass", "pass"]));
}

/// GT-05.
#[test]
fn a_blocked_network_is_denied_both_ways_and_addresses_beyond_it_are_not() {
    let (basic, rules) = (Basic::new(), Rules::new());
    rules
        .change(|change| change.block(cidr("1.2.3.0/24")))
        .expect("changed");
    assert_eq!(
        basic.addresses(&rules),
        both(["block_network", "block_network", "pass"])
    );
}

/// GT-06, GT-07 and GT-08: the store is a file here.
#[test]
fn blocks_and_their_removal_outlive_the_process_in_a_file() {
    let (basic, rules) = (Basic::new(), Rules::new());
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    block_everything_of_go(&rules, &basic).expect("changed");
    rules.save(&path).expect("saved");

    let second = Rules::load(&path).expect("loaded");
    assert_eq!(second.list().len(), 3);
    assert_eq!(basic.peers(&second), BLOCKED_A);
    assert_eq!(
        basic.addresses(&second),
        both(["block_network", "block_network", "pass"])
    );

    let unblocked = second.change_and_save(&path, |change| {
        change.unblock(basic.a);
        change.unblock(IPS[0].parse::<IpAddr>().expect("an IP"));
        change.unblock(cidr("1.2.3.0/24"));
        Ok(())
    });
    unblocked.expect("changed and saved");
    for rules in [second, Rules::load(&path).expect("loaded")] {
        assert_eq!(rules.list(), []);
        assert_eq!(basic.peers(&rules), ["pass"; 4]);
        assert_eq!(basic.addresses(&rules), both(["pass"; 3]));
    }
}

/// NT-20: what go-libp2p lets through with a warning, or at the wrong stage.
#[test]
fn an_ip_rule_is_not_dodged_by_another_way_of_writing_the_address() {
    let rules = Rules::new();
    let relay = PeerId::random();
    rules
        .change(|change| {
            change.block(cidr("192.0.2.0/24"))?;
            change.block(cidr("2001:db8::/32"))
        })
        .expect("changed");
    for at in [
        "/ip4/192.0.2.7/tcp/1".to_owned(),
        "/ip6/::ffff:192.0.2.7/tcp/1".to_owned(),
        "/ip6/2001:db8::7/udp/1/quic-v1".to_owned(),
        "/ip6zone/eth0/ip6/2001:db8::7/tcp/1".to_owned(),
        "/ip4/192.0.2.7/tcp/1/ws".to_owned(),
        format!("/ip4/192.0.2.7/tcp/1/p2p/{relay}/p2p-circuit"),
        format!("/ip4/198.51.100.7/tcp/1/p2p/{relay}/p2p-circuit/ip4/192.0.2.7/tcp/1"),
    ] {
        assert_eq!(rules.dial_at(None, &at), "block_network", "dial {at}");
        assert_eq!(rules.accept(&at), "block_network", "accept {at}");
    }
    for at in [
        "/ip4/192.0.3.7/tcp/1",
        "/memory/7",
        "/ip6/2001:db9::1/tcp/1",
        "/dns4/example.org/tcp/1",
    ] {
        assert_eq!(rules.dial_at(None, at), "pass", "dial {at}");
        assert_eq!(rules.accept(at), "pass", "accept {at}");
    }
}

/// NT-20: a relay is checked, and so is who is behind it.
#[test]
fn a_blocked_peer_is_not_reached_as_a_relay_nor_behind_one() {
    let (rules, relay, target) = (Rules::new(), PeerId::random(), PeerId::random());
    let circuit = format!("/ip4/192.0.2.7/tcp/1/p2p/{relay}/p2p-circuit/p2p/{target}");
    let source = format!("/p2p/{target}");
    let local = format!("/ip4/192.0.2.7/tcp/1/p2p/{relay}/p2p-circuit");
    for blocked in [relay, target] {
        rules.change(|change| change.block(blocked)).expect("changed");
        assert_eq!(rules.dial_at(Some(&target), &circuit), "block_peer");
        assert_eq!(rules.accept_on(&local, &source), "block_peer");
        rules
            .change(|change| {
                change.unblock(blocked);
                Ok(())
            })
            .expect("changed");
        assert_eq!(rules.dial_at(Some(&target), &circuit), "pass");
        assert_eq!(rules.accept_on(&local, &source), "pass");
    }
}

/// NT-20.
#[test]
fn a_blocked_peer_is_refused_after_an_outbound_handshake_too() {
    let (rules, peer) = (Rules::new(), PeerId::random());
    rules.change(|change| change.block(peer)).expect("changed");
    assert_eq!(rules.secured_out(&peer, "/ip4/192.0.2.7/tcp/1"), "block_peer");
}

#[test]
fn names_are_refused_where_that_is_asked_for() {
    let rules = Rules::new();
    rules
        .change(|change| {
            change.refuse_names(true);
            Ok(())
        })
        .expect("changed");
    assert_eq!(rules.dial_at(None, "/dns4/example.org/tcp/1"), "refuse_names");
    assert_eq!(rules.dial_at(None, "/ip4/192.0.2.7/tcp/1"), "pass");
}

#[test]
fn a_rule_with_conditions_is_about_what_satisfies_them_all() {
    let rules = Rules::new();
    let peer = PeerId::random();
    let set = |rule: Rule| {
        let changed = rules.change(|change| {
            change.clear();
            change.insert(rule)
        });
        changed.expect("changed");
    };

    set(Rule::block().network(cidr("192.0.2.0/24")).ports(4000..=4010));
    assert_eq!(rules.dial_at(None, "/ip4/192.0.2.7/tcp/4010"), "block_network");
    assert_eq!(rules.dial_at(None, "/ip4/192.0.2.7/tcp/4011"), "pass");
    assert_eq!(rules.dial_at(None, "/ip4/192.0.3.7/tcp/4010"), "pass");
    // Accepted, the port is the listener's: 4001.
    assert_eq!(rules.accept("/ip4/192.0.2.7/tcp/1"), "block_network");
    assert_eq!(
        rules.accept_on("/ip4/198.51.100.1/tcp/80", "/ip4/192.0.2.7/tcp/4001"),
        "pass"
    );

    set(Rule::block()
        .network(cidr("192.0.2.0/24"))
        .direction(Direction::Inbound));
    assert_eq!(rules.accept("/ip4/192.0.2.7/tcp/1"), "block_network");
    assert_eq!(rules.dial_at(None, "/ip4/192.0.2.7/tcp/1"), "pass");

    set(Rule::block().transport(TransportKind::Quic));
    assert_eq!(rules.dial_at(None, "/ip4/192.0.2.7/udp/1/quic-v1"), "block");
    assert_eq!(rules.dial_at(None, "/ip4/192.0.2.7/tcp/1/tls"), "pass");

    set(Rule::block().transport(TransportKind::Knock));
    assert_eq!(rules.dial_at(None, "/ip4/192.0.2.7/tcp/1/tls"), "block");
    assert_eq!(rules.dial_at(None, "/ip4/192.0.2.7/tcp/1"), "pass");
    assert_eq!(
        rules.dial_at(None, &format!("/p2p/{peer}/p2p-circuit/tls/p2p/{peer}")),
        "block"
    );

    set(Rule::block().listener(address("/ip4/0.0.0.0/tcp/4001")));
    assert_eq!(rules.accept("/ip4/192.0.2.7/tcp/1"), "block");
    assert_eq!(
        rules.accept_on("/ip4/127.0.0.1/tcp/4002", "/ip4/192.0.2.7/tcp/1"),
        "pass"
    );
    assert_eq!(rules.dial_at(None, "/ip4/192.0.2.7/tcp/4001"), "pass");

    set(Rule::block().peer(peer).network(cidr("192.0.2.0/24")));
    assert_eq!(rules.dial(&peer), "pass", "the address is not known yet");
    assert_eq!(
        rules.accept("/ip4/192.0.2.7/tcp/1"),
        "pass",
        "the peer is not known yet"
    );
    assert_eq!(rules.secured_in(&peer, "/ip4/192.0.2.7/tcp/1"), "block_peer");
    assert_eq!(rules.secured_in(&peer, "/ip4/192.0.3.7/tcp/1"), "pass");
    assert_eq!(rules.secured_in(&PeerId::random(), "/ip4/192.0.2.7/tcp/1"), "pass");

    set(Rule::block());
    assert_eq!(rules.dial(&peer), "block");
}

#[test]
fn a_rule_holds_until_it_expires_and_is_put_aside_at_the_next_change() {
    let (time, peer) = (Time::default(), PeerId::random());
    let rules = time.rules();
    let soon = time.now() + Duration::from_secs(10);
    rules
        .change(|change| {
            change.insert(Rule::block().peer(peer).until(soon))?;
            change.insert(Rule::block().network(cidr("192.0.2.0/24")).until(soon))?;
            change.insert(Rule::block().transport(TransportKind::Quic).until(soon))
        })
        .expect("changed");
    let at = "/ip4/192.0.2.7/udp/1/quic-v1";
    time.pass(Duration::from_millis(9_999));
    assert_eq!(rules.list().len(), 3);
    assert_eq!(
        (rules.dial(&peer), rules.accept(at)),
        ("block_peer".into(), "block_network".into())
    );
    time.pass(Duration::from_millis(1));
    assert_eq!((rules.dial(&peer), rules.accept(at)), ("pass".into(), "pass".into()));
    assert_eq!(rules.list(), []);
    rules
        .change(|change| change.block(cidr("192.0.2.9/32")))
        .expect("changed");
    assert_eq!(
        format!("{rules:?}"),
        "Rules { blocked_peers: 0, networks: 1, sets: 0, .. }"
    );
}

#[test]
fn a_longer_expiry_replaces_a_shorter_one_and_none_replaces_both() {
    let (time, peer) = (Time::default(), PeerId::random());
    let rules = time.rules();
    let network = cidr("192.0.2.0/24");
    let until = |seconds| {
        let until = time.now() + Duration::from_secs(seconds);
        let inserted = rules.change(|change| {
            change.insert(Rule::block().peer(peer).until(until))?;
            change.insert(Rule::block().network(network).until(until))
        });
        inserted.expect("changed");
    };
    until(10);
    until(20);
    time.pass(Duration::from_secs(15));
    rules
        .change(|change| change.block(cidr("10.0.0.0/8")))
        .expect("changed");
    assert_eq!(rules.list().len(), 3, "{:?}", rules.list());
    assert_eq!(rules.dial(&peer), "block_peer");
    rules
        .change(|change| {
            change.block(peer)?;
            change.block(network)
        })
        .expect("changed");
    time.pass(Duration::from_secs(1000));
    rules
        .change(|change| change.block(cidr("10.0.0.0/8")))
        .expect("changed");
    assert_eq!(rules.list().len(), 3, "{:?}", rules.list());
    assert_eq!(rules.dial(&peer), "block_peer");
    assert_eq!(rules.accept("/ip4/192.0.2.7/tcp/1"), "block_network");
    // And the other way round: what is blocked for good is blocked for a while from now on.
    until(5);
    time.pass(Duration::from_secs(6));
    assert_eq!(
        (rules.dial(&peer), rules.accept("/ip4/192.0.2.7/tcp/1")),
        ("pass".into(), "pass".into())
    );
}

#[test]
fn what_can_be_no_rule_is_refused() {
    let rules = Rules::new();
    let mut long = vec![0x12, 50];
    long.extend([7; 50]);
    let nobody = PeerId::from_bytes(&long).expect("it parses");
    assert_eq!(
        rules.change(|change| change.block(nobody)),
        Err(RuleError::NoSuchPeer(nobody))
    );
    let backwards = Rule::block().ports(std::ops::RangeInclusive::new(5, 4));
    assert_eq!(
        rules.change(|change| change.insert(backwards)),
        Err(RuleError::Ports { first: 5, last: 4 })
    );
    for (what, rule) in [
        ("rules about everybody", Rule::block()),
        ("rules about one peer", Rule::block().peer(PeerId::random())),
        ("rules about one network", Rule::block().network(cidr("192.0.2.0/24"))),
    ] {
        let many = rules.change(|change| (0..1000).try_for_each(|port| change.insert(rule.clone().port(port))));
        assert!(
            matches!(many, Err(RuleError::TooMany { what: found, .. }) if found == what),
            "{many:?}"
        );
    }
    assert_eq!(rules.list(), [], "all or nothing");
}

#[test]
fn an_address_that_can_be_read_in_two_ways_is_denied_whatever_the_rules_say() {
    let (rules, peer) = (Rules::new(), PeerId::random());
    rules
        .change(|change| {
            change.insert(Rule::allow())?;
            change.insert(Rule::allow().peer(peer))
        })
        .expect("changed");
    for at in [
        // libp2p's TCP would dial the second of them.
        "/ip4/198.51.100.7/ip4/192.0.2.7/tcp/1",
        // It would dial this one without a knock.
        "/tls/ip4/192.0.2.7/tcp/1",
    ] {
        assert_eq!(rules.dial_at(Some(&peer), at), "malformed_address", "{at}");
        assert_eq!(rules.secured_out(&peer, at), "malformed_address", "{at}");
        let explained = rules.explain(Some(&peer), Some(&address(at)));
        let why: Vec<String> = explained.iter().map(ToString::to_string).collect();
        assert!(
            why.iter()
                .any(|line| line.contains("addr_dial") && line.contains("read in two ways")),
            "{why:?}"
        );
    }
    assert_eq!(rules.dial_at(Some(&peer), "/ip4/192.0.2.7/tcp/1"), "allow");
}

#[test]
fn what_has_expired_takes_no_place_from_what_comes() {
    let (time, peer) = (Time::default(), PeerId::random());
    let rules = time.rules();
    // More than there may be at once: about the peer, about the network and about everybody.
    for port in 1..400 {
        let until = time.now() + Duration::from_secs(60);
        let rule = || Rule::block().port(port).until(until);
        let inserted = rules.change(|change| {
            change.insert(rule().peer(peer))?;
            change.insert(rule().network(cidr("192.0.2.0/24")))?;
            change.insert(rule())
        });
        inserted.unwrap_or_else(|error| panic!("port {port}: {error}"));
        time.pass(Duration::from_secs(if port % 60 == 0 { 61 } else { 0 }));
    }
    time.pass(Duration::from_secs(61));
    rules.change(|change| change.block(peer)).expect("changed");
    assert_eq!(
        format!("{rules:?}"),
        "Rules { blocked_peers: 1, networks: 0, sets: 0, .. }"
    );
}

#[test]
fn an_allow_that_cannot_be_told_when_all_is_known_is_none() {
    let (rules, peer) = (Rules::new(), PeerId::random());
    rules
        .change(|change| {
            change.insert(Rule::allow().peer(peer).network(cidr("192.0.2.0/24")))?;
            change.block(peer)
        })
        .expect("changed");
    // Where it is nobody has found out.
    let named = "/dns4/example.org/tcp/1";
    assert_eq!(rules.dial_at(Some(&peer), named), "pass", "it may be resolved yet");
    assert_eq!(rules.upgraded_in(&peer, named), "block_peer");
    assert_eq!(rules.live_in(&peer, named), "block_peer");
    assert_eq!(rules.upgraded_in(&peer, "/ip4/192.0.2.7/tcp/1"), "allow");
}
