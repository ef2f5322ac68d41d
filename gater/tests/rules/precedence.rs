//! What outranks what, as the documentation of `Rules` says.

use crate::asking::{Asking as _, Time, address, cidr};
use libp2p_core::Endpoint;
use libp2p_gater::{AddrDial, Admission, Caps, ConnectionGater as _, Direction, Link, Rate, Rule, Rules, Standing};
use libp2p_identity::PeerId;
use std::num::NonZeroU32;
use std::time::Duration;

const THERE: &str = "/ip4/192.0.2.7/tcp/1";

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

#[test]
fn the_allow_list_outranks_blocks_membership_rates_and_caps() {
    let (time, friend, stranger) = (Time::default(), PeerId::random(), PeerId::random());
    let rules = time.rules();
    rules
        .change(|change| {
            change.insert(Rule::allow().network(cidr("192.0.2.7/32")))?;
            change.insert(Rule::allow().peer(friend))?;
            change.block(cidr("192.0.2.0/24"))?;
            change.block(friend)?;
            change.insert(Rule::block())?;
            change.admit(Admission::Members);
            change.rates([Rate::accepts(Duration::from_secs(1), one())])?;
            change.caps(Caps::new().with_total(0).with_pending(Direction::Inbound, 0));
            Ok(())
        })
        .expect("changed");
    for _ in 0..3 {
        assert_eq!(rules.accept(THERE), "allow");
        assert_eq!(rules.secured_in(&stranger, THERE), "allow");
        assert_eq!(rules.secured_in(&friend, "/ip4/203.0.113.1/tcp/1"), "allow");
        assert_eq!(rules.dial(&friend), "allow");
    }
    assert_eq!(rules.accept("/ip4/192.0.2.8/tcp/1"), "block_network");
    assert_eq!(rules.dial(&stranger), "block");
}

/// Who is blocked is told so at once where nothing allows anybody, so it matters that what allows is never overlooked.
#[test]
fn a_blocked_peer_is_let_in_by_every_kind_of_allow_for_as_long_as_it_is_there() {
    let (time, peer, other) = (Time::default(), PeerId::random(), PeerId::random());
    let rules = time.rules();
    let range = cidr("192.0.2.0/24");
    let kinds = [
        Rule::allow().peer(peer),
        Rule::allow().network(range),
        Rule::allow().peer(peer).network(range),
        Rule::allow().direction(Direction::Inbound),
    ];
    let change = |rule: &Rule, insert: bool| {
        let changed = rules.change(|change| match insert {
            true => change.insert(rule.clone()),
            false => {
                change.remove(rule.clone());
                Ok(())
            }
        });
        changed.expect("changed");
    };
    change(&Rule::block().peer(peer), true);
    let set = |standing: Standing| {
        let members = [peer, other];
        rules
            .change(|change| change.set("friends", standing, members))
            .expect("changed");
    };
    for _ in 0..2 {
        for kind in &kinds {
            assert_eq!(rules.secured_in(&peer, THERE), "block_peer");
            // Once more, with a note, is the same rule.
            change(kind, true);
            change(&kind.clone().note("again"), true);
            assert_eq!(rules.secured_in(&peer, THERE), "allow", "{kind}");
            change(kind, false);
            // Of others there may be some.
            change(&Rule::allow().peer(other), true);
            assert_eq!(rules.secured_in(&peer, THERE), "block_peer", "{kind}");
        }
        set(Standing::Allowed);
        assert_eq!(rules.secured_in(&peer, THERE), "allow");
        set(Standing::Member);
        assert_eq!(rules.secured_in(&peer, THERE), "block_peer");
        // All at once, taken away one by one: the last one still lets the peer in.
        for kind in &kinds {
            change(kind, true);
        }
        for kind in &kinds {
            assert_eq!(rules.secured_in(&peer, THERE), "allow", "{kind}");
            change(kind, false);
        }
        change(&Rule::allow().peer(other), false);
        rules
            .change(|change| {
                change.remove_set("friends");
                Ok(())
            })
            .expect("changed");
    }
    // What has expired lets nobody in, and leaves no trace.
    change(&kinds[1].clone().until(time.now() + Duration::from_secs(5)), true);
    assert_eq!(rules.secured_in(&peer, THERE), "allow");
    time.pass(Duration::from_secs(6));
    assert_eq!(rules.secured_in(&peer, THERE), "block_peer");
    change(&kinds[0], true);
    assert_eq!(rules.secured_in(&peer, THERE), "allow");
    change(&kinds[0], false);
    assert_eq!(rules.secured_in(&peer, THERE), "block_peer");
}

#[test]
fn a_narrow_block_does_not_pierce_a_wide_allow_nor_the_other_way_round() {
    let rules = Rules::new();
    rules
        .change(|change| {
            change.insert(Rule::allow().network(cidr("10.0.0.0/8")))?;
            change.block(cidr("10.1.2.3/32"))?;
            change.block(cidr("0.0.0.0/0"))?;
            change.insert(Rule::allow().network(cidr("192.0.2.7/32")))
        })
        .expect("changed");
    assert_eq!(rules.accept("/ip4/10.1.2.3/tcp/1"), "allow");
    assert_eq!(rules.accept(THERE), "allow");
    assert_eq!(rules.accept("/ip4/192.0.2.8/tcp/1"), "block_network");
}

/// A trusted peer behind a blocked or crowded address: go-libp2p's users cannot have both (prysm 13659).
#[test]
fn a_peer_allowed_from_a_network_gets_to_where_it_is_known_and_nobody_else_past_that() {
    let (rules, friend, stranger) = (Rules::new(), PeerId::random(), PeerId::random());
    rules
        .change(|change| {
            change.insert(Rule::allow().peer(friend).network(cidr("192.0.2.0/24")))?;
            change.block(cidr("192.0.2.0/24"))?;
            change.caps(Caps::new().with_total(0));
            Ok(())
        })
        .expect("changed");
    assert_eq!(rules.accept(THERE), "pass");
    assert_eq!(rules.secured_in(&friend, THERE), "allow");
    assert_eq!(rules.secured_in(&stranger, THERE), "block_network");
    // From elsewhere the friend is a stranger.
    assert_eq!(rules.secured_in(&friend, "/ip4/203.0.113.1/tcp/1"), "cap_total");
    assert_eq!(rules.accept("/ip4/203.0.113.1/tcp/1"), "cap_total");
    assert_eq!(rules.dial(&friend), "pass", "an address may be in the network");
}

#[test]
fn whoever_may_turn_out_allowed_does_not_outrank_rates_and_pending_attempts() {
    let (time, friend) = (Time::default(), PeerId::random());
    let rules = time.rules();
    let allow = Rule::allow().peer(friend).network(cidr("192.0.2.0/24"));
    rules
        .change(|change| {
            change.insert(allow)?;
            change.rates([Rate::accepts(Duration::from_secs(1), one())])
        })
        .expect("changed");
    assert_eq!(rules.accept(THERE), "pass");
    assert_eq!(rules.accept(THERE), "rate");
    rules
        .change(|change| {
            change.rates([])?;
            change.caps(Caps::new().with_pending(Direction::Inbound, 0));
            Ok(())
        })
        .expect("changed");
    assert_eq!(rules.accept(THERE), "cap_pending_inbound");
}

#[test]
fn nothing_outranks_a_required_knock() {
    let (rules, friend) = (Rules::new(), PeerId::random());
    rules
        .change(|change| {
            change.insert(Rule::allow().peer(friend))?;
            change.insert(Rule::allow())?;
            change.require_knock(friend, true)
        })
        .expect("changed");
    assert_eq!(rules.secured_in(&friend, THERE), "require_knock");
    assert_eq!(rules.dial_at(Some(&friend), THERE), "require_knock");
    assert_eq!(rules.secured_in(&friend, "/ip4/192.0.2.7/tcp/1/tls"), "allow");
    assert_eq!(rules.dial(&friend), "allow", "no address is known yet");
    assert_eq!(rules.secured_in(&PeerId::random(), THERE), "allow");
    rules
        .change(|change| {
            change.require_knock_of_everybody(true);
            Ok(())
        })
        .expect("changed");
    for at in [
        THERE,
        "/ip4/192.0.2.7/udp/1/quic-v1",
        "/memory/1",
        "/ip4/192.0.2.7/tcp/1/tls/ws",
    ] {
        assert_eq!(rules.accept(at), "require_knock", "{at}");
        assert_eq!(rules.dial_at(None, at), "require_knock", "{at}");
    }
    assert_eq!(rules.accept("/ip4/192.0.2.7/tcp/1/tls"), "allow");
}

#[test]
fn what_a_relay_says_blocks_and_never_allows() {
    let (rules, friend, relay) = (Rules::new(), PeerId::random(), PeerId::random());
    rules
        .change(|change| {
            change.insert(Rule::allow().peer(friend))?;
            change.insert(Rule::allow().peer(relay))?;
            change.insert(Rule::allow().network(cidr("192.0.2.0/24")))?;
            change.insert(Rule::block())
        })
        .expect("changed");
    let local = format!("/ip4/192.0.2.7/tcp/1/p2p/{relay}/p2p-circuit");
    assert_eq!(rules.accept_on(&local, &format!("/p2p/{friend}")), "block");
    assert_eq!(rules.accept(THERE), "allow", "the relay itself");
}

#[test]
fn what_is_denied_anyway_takes_no_token() {
    let (time, peer) = (Time::default(), PeerId::random());
    let rules = time.rules();
    rules
        .change(|change| {
            change.block(peer)?;
            change.rates([Rate::dials(Duration::from_secs(10), one())])
        })
        .expect("changed");
    assert_eq!(rules.dial_at(Some(&peer), THERE), "block_peer");
    rules.explain(None, Some(&THERE.parse().expect("an address")));
    assert_eq!(rules.dial_at(None, THERE), "pass");
    assert_eq!(rules.dial_at(None, THERE), "rate");
    assert_eq!(rules.accept(THERE), "pass", "another direction");
    time.pass(Duration::from_secs(10));
    assert_eq!(rules.dial_at(None, THERE), "pass");
}

#[test]
fn an_explanation_names_the_rule_and_what_it_outranks() {
    let (rules, friend, other) = (Rules::new(), PeerId::random(), PeerId::random());
    rules
        .change(|change| {
            change.insert(Rule::allow().peer(friend).note("oracle"))?;
            change.block(cidr("192.0.2.0/24"))?;
            change.set("bad", Standing::Blocked, [other])
        })
        .expect("changed");
    let there = THERE.parse().expect("an address");
    let lines = |peer: &PeerId| -> Vec<String> {
        rules
            .explain(Some(peer), Some(&there))
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let network = "on the block list: block network 192.0.2.0/24";
    let allowed = format!("allow: on the allow list: allow peer {friend} note oracle");
    assert_eq!(
        lines(&friend),
        [
            format!("peer_dial, outbound: {allowed}"),
            format!("addr_dial, outbound: {allowed}; this outranks the block list: block network 192.0.2.0/24"),
            format!("secured, outbound: {allowed}; this outranks the block list: block network 192.0.2.0/24"),
            format!("accept, inbound: deny: {network}"),
            format!("secured, inbound: {allowed}; this outranks the block list: block network 192.0.2.0/24"),
        ]
    );
    assert_eq!(
        lines(&other)[0],
        "peer_dial, outbound: deny: on the block list: set bad blocked"
    );
    assert_eq!(rules.explain(None, None).len(), 0);
    let open = rules.explain(Some(&PeerId::random()), None);
    assert_eq!(open[0].to_string(), "peer_dial, outbound: pass: no rule objects");
}

/// Where nothing can outrank a block, the answer takes a shorter way. A rule about somebody else closes that way, and must
/// change no answer. All 1,024 subsets of the rules below.
#[test]
fn what_is_said_at_once_is_what_is_said_after_all_rules_were_asked() {
    let [peer, relay, other, friend] = [(); 4].map(|()| PeerId::random());
    let inserts = [
        Rule::block().peer(peer),
        Rule::block().peer(relay),
        Rule::block().network(cidr("192.0.2.0/24")),
        Rule::block().network(cidr("2001:db8::/32")),
        Rule::block().peer(peer).port(1),
        Rule::block().network(cidr("192.0.2.0/25")).port(1),
        Rule::block().direction(Direction::Inbound),
    ];
    let with = |subset: u32, friends: bool| {
        let rules = Rules::new();
        rules
            .change(|change| {
                let chosen = |at: usize| subset >> at & 1 == 1;
                for (_, rule) in inserts.iter().enumerate().filter(|(at, _)| chosen(*at)) {
                    change.insert(rule.clone())?;
                }
                change.require_knock_of_everybody(chosen(7));
                change.require_knock(peer, chosen(8))?;
                if chosen(9) {
                    change.set("banned", Standing::Blocked, [peer])?;
                }
                if friends {
                    change.insert(Rule::allow().peer(friend))?;
                }
                Ok(())
            })
            .expect("changed");
        rules
    };
    let remotes = [
        THERE.to_owned(),
        "/ip4/192.0.2.200/tcp/1/tls".to_owned(),
        "/ip4/203.0.113.1/udp/1/quic-v1".to_owned(),
        "/ip6/2001:db8::1/tcp/2".to_owned(),
        format!("/ip4/203.0.113.1/tcp/1/p2p/{relay}/p2p-circuit/ip4/192.0.2.1/tcp/1"),
        format!("/ip4/203.0.113.1/tcp/1/p2p/{other}/p2p-circuit"),
    ];
    let answers = |rules: &Rules| {
        let mut answers = vec![rules.dial(&peer), rules.dial(&other)];
        for remote in &remotes {
            answers.push(rules.accept(remote));
            // With the rule that is named, too.
            let remote_address = address(remote);
            let dial = AddrDial::new(None, Link::outbound(&remote_address, Endpoint::Dialer));
            answers.push(format!("{:?}", rules.intercept_addr_dial(&dial)));
            for who in [&peer, &other] {
                answers.push(rules.dial_at(Some(who), remote));
                answers.push(rules.secured_in(who, remote));
                answers.push(rules.secured_out(who, remote));
                answers.push(rules.live_in(who, remote));
            }
        }
        answers
    };
    for subset in 0..1 << 10 {
        assert_eq!(
            answers(&with(subset, false)),
            answers(&with(subset, true)),
            "{subset:010b}"
        );
    }
}
