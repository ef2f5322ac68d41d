//! A refusal names the line of the file that says no.

use crate::asking::{Asking as _, LOCAL, address, cidr};
use libp2p_gater::{
    Accept, Admission, Caps, Change, ConnectionGater as _, Direction, Link, Member, NetworkList, PeerDial, Prefixes,
    Rate, Reason, Rule, RuleError, Rules, Secured, Standing, TransportKind, Verdict,
};
use libp2p_identity::{Keypair, PeerId};
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

const REMOTE: &str = "/ip4/192.0.2.7/tcp/1";

fn peer() -> PeerId {
    Keypair::ed25519_from_bytes([7; 32])
        .expect("32 bytes")
        .public()
        .to_peer_id()
}

/// How each is refused that stands in the way of a connection, and what it says besides its line.
type Case = (&'static str, fn(&mut Change) -> Result<(), RuleError>, &'static str);

fn caps(change: &mut Change, caps: Caps) -> Result<(), RuleError> {
    change.caps(caps);
    Ok(())
}

const CASES: &[Case] = &[
    ("block_peer", |c| c.block(peer()), ""),
    ("block_network", |c| c.block(cidr("192.0.2.0/24")), ""),
    ("block_network", |c| c.block(cidr("192.0.2.7/32")), ""),
    (
        "block_network",
        |c| c.insert(Rule::block().network(cidr("192.0.2.0/24")).port(4001).note("the lab")),
        "",
    ),
    (
        "block_peer",
        |c| {
            c.insert(
                Rule::block()
                    .peer(peer())
                    .until(SystemTime::now() + Duration::from_secs(600))
                    .note("spam"),
            )
        },
        "",
    ),
    ("block", |c| c.insert(Rule::block().transport(TransportKind::Tcp)), ""),
    (
        "block_set",
        |c| c.set("bad", Standing::Blocked, [peer()]),
        "the peer is in a blocked set: ",
    ),
    (
        "block_list",
        |c| {
            let list: NetworkList = [cidr("192.0.2.0/24"), cidr("203.0.113.0/24")].into_iter().collect();
            c.list("theirs", Standing::Blocked, list)
        },
        "network 192.0.2.0/24 of ",
    ),
    (
        "require_knock",
        |c| {
            c.require_knock_of_everybody(true);
            Ok(())
        },
        "no knock: ",
    ),
    ("require_knock", |c| c.require_knock(peer(), true), "no knock: "),
    (
        "admit_members",
        |c| {
            c.admit(Admission::Members);
            Ok(())
        },
        "the peer is in no set: ",
    ),
    (
        "admit_known_addresses",
        |c| {
            c.admit(Admission::KnownAddresses);
            c.set("us", Standing::Member, [Member::at(peer(), [[203, 0, 113, 9].into()])])
        },
        "no member is known at the IP: ",
    ),
    (
        "rate",
        |c| {
            let rate = Rate::accepts(Duration::from_secs(5), NonZeroU32::MIN);
            c.rates([rate.per_prefix(Prefixes::new(20, 40))])
        },
        "too often from the IP's neighbourhood: ",
    ),
    (
        "cap_total",
        |c| caps(c, Caps::new().with_total(0)),
        "as many connections as may be: ",
    ),
    (
        "cap_inbound",
        |c| caps(c, Caps::new().with_direction(Direction::Inbound, 0)),
        "as many inbound connections as may be: ",
    ),
    (
        "cap_pending_inbound",
        |c| caps(c, Caps::new().with_pending(Direction::Inbound, 0)),
        "as many inbound attempts as may be: ",
    ),
    (
        "cap_per_peer",
        |c| caps(c, Caps::new().with_per_peer(0)),
        "as many connections with the peer as may be: ",
    ),
    (
        "cap_per_ip",
        |c| caps(c, Caps::new().with_per_ip(0)),
        "as many connections with the IP as may be: ",
    ),
    (
        "cap_per_prefix",
        |c| caps(c, Caps::new().with_per_prefix(0, Prefixes::new(20, 40))),
        "as many connections with the IP's neighbourhood as may be: ",
    ),
    (
        "cap_transport",
        |c| caps(c, Caps::new().with_transport(TransportKind::Tcp, 0)),
        "as many connections over the transport as may be: ",
    ),
];

/// The first refusal of an inbound connection of the peer, at whichever stage.
fn refusal(rules: &Rules) -> Reason {
    let (peer, local, remote) = (peer(), address(LOCAL), address(REMOTE));
    let link = || Link::inbound(&local, &remote);
    for _ in 0..2 {
        for verdict in [
            rules.intercept_accept(&Accept::new(link())),
            rules.intercept_secured(&Secured::new(&peer, link())),
        ] {
            if let Verdict::Deny(reason) = verdict {
                return reason;
            }
        }
    }
    panic!("nothing is refused")
}

#[test]
fn a_refusal_names_the_line_of_the_file_that_says_no() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    for (rule, change, said) in CASES {
        let rules = Rules::new();
        rules.change(change).expect(rule);
        let reason = refusal(&rules);
        assert_eq!(reason.rule(), *rule, "{reason}");
        rules.overwrite(&path).expect("saved");
        let detail = reason.detail().unwrap_or_else(|| panic!("{rule}: nothing is said"));
        let line = detail.strip_prefix(said).unwrap_or_else(|| panic!("{detail}"));
        let file = std::fs::read_to_string(&path).expect("text");
        assert!(file.lines().any(|other| other == line), "{line}: {file}");
        assert_eq!(reason.to_string(), format!("{rule}: {detail}"));
        // And the file that has the line alone refuses the same.
        if !line.starts_with("set ") && !line.starts_with("list ") && *rule != "admit_known_addresses" {
            std::fs::write(&path, format!("libp2p-gater rules 1\n{line}\n")).expect("written");
            let again = Rules::load(&path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(refusal(&again).to_string(), reason.to_string());
        }
    }
}

#[test]
fn the_narrowest_network_that_blocks_is_named() {
    let rules = Rules::new();
    rules
        .change(|change| {
            change.block(cidr("192.0.0.0/16"))?;
            change.block(cidr("192.0.2.0/24"))?;
            change.block(cidr("0.0.0.0/0"))
        })
        .expect("changed");
    assert_eq!(refusal(&rules).detail().as_deref(), Some("block network 192.0.2.0/24"));
    // Behind NAT64, and where an allow could outrank it.
    let (local, remote) = (address(LOCAL), address("/ip6/64:ff9b::192.0.2.7/tcp/1"));
    for _ in 0..2 {
        let verdict = rules.intercept_accept(&Accept::new(Link::inbound(&local, &remote)));
        let Verdict::Deny(reason) = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!(reason.detail().as_deref(), Some("block network 192.0.2.0/24"));
        rules
            .change(|change| change.insert(Rule::allow().peer(peer()).port(9)))
            .expect("changed");
    }
}

#[test]
fn a_dial_that_is_refused_names_its_line_too() {
    let rules = Rules::new();
    rules
        .change(|change| {
            change.caps(Caps::new().with_direction(Direction::Outbound, 0));
            Ok(())
        })
        .expect("changed");
    let peer = peer();
    let Verdict::Deny(reason) = rules.intercept_peer_dial(&PeerDial::new(&peer)) else {
        panic!("a cap")
    };
    assert_eq!(
        reason.to_string(),
        "cap_outbound: as many outbound connections as may be: cap outbound 0"
    );
    rules
        .change(|change| {
            change.caps(Caps::new());
            change.refuse_names(true);
            change.block(peer)
        })
        .expect("changed");
    let Verdict::Deny(reason) = rules.intercept_peer_dial(&PeerDial::new(&peer)) else {
        panic!("a block")
    };
    assert_eq!(reason.to_string(), format!("block_peer: block peer {peer}"));
    assert_eq!(rules.dial_at(None, "/dns4/example.org/tcp/1"), "refuse_names");
}
