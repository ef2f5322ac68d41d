//! Hard caps, as far as they can be counted without a Swarm.

use crate::asking::{Asking as _, LOCAL, address};
use libp2p_gater::{Caps, ConnectionGater as _, Direction, Link, Observation, Prefixes, Rule, Rules, TransportKind};
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;

fn capped(caps: Caps) -> Rules {
    let rules = Rules::new();
    rules
        .change(|change| {
            change.caps(caps);
            Ok(())
        })
        .expect("changed");
    rules
}

#[test]
fn a_full_node_refuses_at_every_stage_and_has_room_again_when_one_leaves() {
    let rules = capped(Caps::new().with_total(2));
    let (a, b) = (PeerId::random(), PeerId::random());
    let there = "/ip4/192.0.2.7/tcp/1";
    rules.established(1, &a, Direction::Inbound, there);
    assert_eq!(rules.accept(there), "pass");
    rules.established(2, &a, Direction::Outbound, there);
    assert_eq!(rules.accept(there), "cap_total");
    assert_eq!(rules.dial(&b), "cap_total");
    assert_eq!(rules.dial_at(Some(&b), there), "cap_total");
    assert_eq!(rules.secured_in(&b, there), "cap_total");
    assert_eq!(rules.upgraded_in(&b, there), "cap_total");
    // Who is in stays in.
    assert_eq!(rules.live_in(&a, there), "pass");
    rules.closed(1, &a, Direction::Inbound, there);
    assert_eq!(rules.upgraded_in(&b, there), "pass");
}

#[test]
fn each_cap_counts_what_its_name_says() {
    let there = "/ip4/192.0.2.7/tcp/1";
    let near = "/ip4/192.0.2.8/udp/1/quic-v1";
    let far = "/ip4/203.0.113.8/udp/1/quic-v1";
    let peer = PeerId::random();
    for (caps, name, refused, fine) in [
        (
            Caps::new().with_direction(Direction::Inbound, 1),
            "cap_inbound",
            far,
            "",
        ),
        (Caps::new().with_per_ip(1), "cap_per_ip", there, near),
        (
            Caps::new().with_per_prefix(1, Prefixes::default()),
            "cap_per_prefix",
            near,
            far,
        ),
        (
            Caps::new().with_per_prefix(1, Prefixes::new(0, 0)),
            "cap_per_prefix",
            far,
            "/ip6/2001:db8::1/tcp/1",
        ),
        (
            Caps::new().with_transport(TransportKind::Tcp, 1),
            "cap_transport",
            "/ip4/203.0.113.8/tcp/1",
            near,
        ),
    ] {
        let rules = capped(caps);
        rules.established(1, &peer, Direction::Inbound, there);
        assert_eq!(rules.accept(refused), name);
        if !fine.is_empty() {
            assert_eq!(rules.accept(fine), "pass", "{name}");
        }
    }
    let rules = capped(Caps::new().with_per_peer(1).with_direction(Direction::Outbound, 1));
    rules.established(1, &peer, Direction::Inbound, there);
    assert_eq!(rules.dial(&peer), "cap_per_peer");
    assert_eq!(rules.secured_in(&peer, far), "cap_per_peer");
    assert_eq!(rules.dial(&PeerId::random()), "pass");
    rules.established(2, &PeerId::random(), Direction::Outbound, far);
    assert_eq!(rules.dial(&PeerId::random()), "cap_outbound");
    assert_eq!(rules.accept(far), "pass");
}

#[test]
fn a_cap_per_prefix_counts_those_who_came_before_it_was_set() {
    let rules = Rules::new();
    rules.established(1, &PeerId::random(), Direction::Inbound, "/ip4/192.0.2.7/tcp/1");
    rules
        .change(|change| {
            change.caps(Caps::new().with_per_prefix(1, Prefixes::new(16, 48)));
            Ok(())
        })
        .expect("changed");
    assert_eq!(rules.accept("/ip4/192.0.99.7/tcp/1"), "cap_per_prefix");
    assert_eq!(rules.accept("/ip4/192.1.99.7/tcp/1"), "pass");
}

#[test]
fn those_behind_one_relay_do_not_share_its_ip() {
    let rules = capped(Caps::new().with_per_ip(1).with_per_prefix(1, Prefixes::default()));
    let relay = PeerId::random();
    let circuit = format!("/ip4/192.0.2.7/tcp/1/p2p/{relay}/p2p-circuit");
    rules.established(1, &PeerId::random(), Direction::Outbound, &circuit);
    assert_eq!(rules.dial_at(None, &circuit), "pass");
    assert_eq!(rules.accept("/ip4/192.0.2.7/tcp/1"), "pass");
}

#[test]
fn attempts_are_counted_until_they_come_to_something_or_nothing() {
    let rules = capped(
        Caps::new()
            .with_pending(Direction::Inbound, 1)
            .with_pending(Direction::Outbound, 1),
    );
    let (local, remote, peer) = (address(LOCAL), address("/ip4/192.0.2.7/tcp/1"), PeerId::random());
    let pending = |id, link: Link<'_>| {
        rules.observe(&Observation::Pending {
            connection: ConnectionId::new_unchecked(id),
            peer: None,
            link,
        });
    };
    pending(1, Link::inbound(&local, &remote));
    assert_eq!(rules.accept("/ip4/203.0.113.1/tcp/1"), "cap_pending_inbound");
    assert_eq!(rules.dial(&peer), "pass");
    pending(2, Link::outbound(&remote, libp2p_core::Endpoint::Dialer));
    assert_eq!(rules.dial(&peer), "cap_pending_outbound");
    // A dial that names nobody is first asked about here, and is among them by then.
    assert_eq!(rules.dial_at(None, "/ip4/203.0.113.1/tcp/1"), "pass");
    assert_eq!(rules.dial_at(Some(&peer), "/ip4/203.0.113.1/tcp/1"), "pass");
    pending(3, Link::outbound(&remote, libp2p_core::Endpoint::Dialer));
    assert_eq!(rules.dial_at(None, "/ip4/203.0.113.1/tcp/1"), "cap_pending_outbound");
    rules.observe(&Observation::Failed {
        connection: ConnectionId::new_unchecked(3),
        direction: Direction::Outbound,
    });
    rules.established(1, &peer, Direction::Inbound, "/ip4/192.0.2.7/tcp/1");
    assert_eq!(rules.accept("/ip4/203.0.113.1/tcp/1"), "pass");
    rules.observe(&Observation::Failed {
        connection: ConnectionId::new_unchecked(2),
        direction: Direction::Outbound,
    });
    assert_eq!(rules.dial(&peer), "pass");
}

#[test]
fn whom_the_allow_list_lets_in_is_counted_and_not_refused() {
    let (rules, friend) = (capped(Caps::new().with_total(1)), PeerId::random());
    rules
        .change(|change| change.insert(Rule::allow().peer(friend)))
        .expect("changed");
    rules.established(1, &friend, Direction::Inbound, "/ip4/192.0.2.7/tcp/1");
    assert_eq!(rules.secured_in(&friend, "/ip4/192.0.2.7/tcp/1"), "allow");
    assert_eq!(rules.secured_in(&PeerId::random(), "/ip4/192.0.2.7/tcp/1"), "cap_total");
}
