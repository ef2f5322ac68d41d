//! What is remembered, and what of it is dialled.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    peer: PeerId,
    addresses: Addresses,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self {
            peer: PeerId::random(),
            addresses: Addresses::default(),
            now: Instant::now(),
        }
    }

    fn give(&mut self, ports: impl IntoIterator<Item = u16>) {
        self.addresses.give(self.peer, ports.into_iter().map(tcp).collect());
    }

    fn claim(&mut self, ports: impl IntoIterator<Item = u16>) {
        for port in ports {
            self.addresses.claimed(self.peer, tcp(port));
        }
    }

    fn worked(&mut self, port: u16) {
        self.addresses.worked(self.peer, tcp(port));
    }

    fn wrong(&mut self, port: u16) {
        self.addresses.wrong(self.peer, &tcp(port), self.now);
    }

    /// The ports of the next dial; it is in vain.
    fn dial(&mut self, limits: Limits<'_>) -> Vec<u16> {
        let plan = self.addresses.plan(limits, self.now);
        for address in &plan.addresses {
            self.addresses.failed(self.peer, address);
        }
        plan.addresses.iter().map(port).collect()
    }

    fn best(&self) -> Vec<u16> {
        self.addresses.best(false, &[], self.now).iter().map(port).collect()
    }
}

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn tcp(port: u16) -> Multiaddr {
    address(&format!("/ip4/192.0.2.1/tcp/{port}"))
}

fn port(address: &Multiaddr) -> u16 {
    let port = address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    port.unwrap()
}

#[test]
fn every_address_ends_in_the_peer_whatever_it_came_with() {
    let mut bench = Bench::new();
    let full = tcp(1).with_p2p(bench.peer).unwrap();
    bench.addresses.give(bench.peer, vec![tcp(1), full.clone()]);
    bench.addresses.claimed(bench.peer, full.clone());
    bench.worked(1);
    assert_eq!(bench.addresses.best(false, &[], bench.now), [full]);
}

#[test]
fn what_is_another_peers_leads_nowhere_or_through_a_relay_is_not_learned() {
    let mut bench = Bench::new();
    let (peer, other) = (bench.peer, PeerId::random());
    for claim in [
        tcp(1).with_p2p(other).unwrap(),
        address(&format!("/ip4/192.0.2.1/tcp/1/p2p/{other}/p2p-circuit/p2p/{peer}")),
        address(&format!("/p2p/{peer}")),
        Multiaddr::empty(),
    ] {
        bench.addresses.claimed(peer, claim.clone());
        bench.addresses.worked(peer, claim);
    }
    assert!(bench.addresses.is_empty());
}

#[test]
fn what_has_worked_comes_first_then_what_was_given_then_the_newest_claim() {
    let mut bench = Bench::new();
    bench.give([1, 2]);
    bench.claim([3, 4]);
    assert_eq!(bench.best(), [1, 2, 4, 3]);
    bench.worked(2);
    bench.worked(3);
    assert_eq!(bench.best(), [3, 2, 1, 4]);
}

#[test]
fn an_address_that_worked_has_a_place_that_claims_cannot_take() {
    for claims in [15, 30, 1000] {
        let mut bench = Bench::new();
        bench.claim([1]);
        bench.worked(1);
        bench.claim(2..2 + claims);
        assert_eq!(bench.best()[0], 1, "{claims} claims");
        assert_eq!(bench.addresses.entries.len(), 1 + MAX_CLAIMED);
        // Nor do the dials that fail while the peer is away push it out.
        for _ in 0..20 {
            assert!(bench.dial(Limits::default()).contains(&1));
            bench.claim(2000..2010);
        }
    }
}

#[test]
fn only_so_many_are_remembered_that_worked_and_the_latest_are() {
    let mut bench = Bench::new();
    bench.give([1]);
    for port in 1..=20 {
        bench.worked(port);
    }
    assert_eq!(bench.best()[..2], [20, 19]);
    assert!(bench.best().contains(&1), "it was given");
    assert_eq!(bench.addresses.entries.len(), 1 + MAX_PROVEN + MAX_CLAIMED);
}

#[test]
fn the_newest_claims_are_kept() {
    let mut bench = Bench::new();
    bench.claim(1..=20);
    assert_eq!(bench.best(), (13..=20).rev().collect::<Vec<_>>());
    bench.claim([13]);
    assert_eq!(bench.best()[0], 13);
}

#[test]
fn a_ninth_address_is_dialled_next_and_all_have_their_turn() {
    let mut bench = Bench::new();
    bench.give(1..=16);
    assert_eq!(bench.dial(Limits::default()), (1..=8).collect::<Vec<_>>());
    assert_eq!(bench.dial(Limits::default()), (9..=16).collect::<Vec<_>>());
    assert_eq!(bench.dial(Limits::default()), (1..=8).collect::<Vec<_>>());
    // What works is a part of all of them.
    bench.worked(11);
    assert!((0..10).all(|_| bench.dial(Limits::default())[0] == 11));
}

#[test]
fn room_is_left_for_what_others_know_where_they_are_asked() {
    let mut bench = Bench::new();
    bench.give(1..=16);
    let leave_room = Limits {
        leave_room: true,
        ..Limits::default()
    };
    assert_eq!(bench.dial(leave_room).len(), AT_A_TIME / 2);
    let alone = Limits {
        trusted_only: true,
        ..leave_room
    };
    assert_eq!(bench.dial(alone).len(), AT_A_TIME);
}

#[test]
fn an_address_at_which_another_peer_answers_is_left_out_and_comes_back_later() {
    let mut bench = Bench::new();
    bench.give([1, 2]);
    bench.worked(1);
    for (times, pause) in [(1, 60), (2, 120), (3, 240)] {
        bench.wrong(1);
        // Not even if it is claimed again.
        bench.claim([1]);
        assert_eq!(bench.best(), [2], "{times}");
        bench.now += (pause - 1) * SECOND;
        assert_eq!(bench.best(), [2], "{times}");
        bench.now += SECOND;
        assert!(bench.best().contains(&1), "{times}");
    }
    for _ in 0..20 {
        bench.wrong(1);
    }
    bench.now += WRONG_AT_MOST;
    assert!(bench.best().contains(&1), "never for longer than that");
    bench.wrong(1);
    bench.worked(1);
    assert_eq!(bench.best(), [1, 2]);
}

#[test]
fn after_another_peer_answered_only_what_was_given_or_has_worked_is_tried() {
    let mut bench = Bench::new();
    let trusted = Limits {
        trusted_only: true,
        ..Limits::default()
    };
    // There is nothing but what others know.
    let plan = bench.addresses.plan(trusted, bench.now);
    assert!(plan.extend && plan.addresses.is_empty());
    // There is nothing better.
    bench.claim([1, 2]);
    let plan = bench.addresses.plan(trusted, bench.now);
    assert!(!plan.extend && plan.addresses.len() == 2);
    bench.give([3]);
    let plan = bench.addresses.plan(trusted, bench.now);
    assert_eq!(
        (plan.extend, plan.addresses.iter().map(port).collect()),
        (false, vec![3])
    );
    assert_eq!(bench.dial(Limits::default()), [3, 2, 1]);
}

#[test]
fn where_this_swarm_listens_itself_no_other_peer_is_looked_for() {
    let mut bench = Bench::new();
    let relay = format!("/ip4/192.0.2.9/tcp/1/p2p/{}/p2p-circuit", PeerId::random());
    let own = [tcp(1), tcp(2), address(&relay)];
    let limits = Limits {
        own: &own,
        ..Limits::default()
    };
    // Another protocol on the same port is another listener's, and the relay has room for both.
    let others = [address("/ip4/192.0.2.1/tcp/1/tls"), address(&relay)];
    bench
        .addresses
        .give(bench.peer, [&[tcp(1)], &others[..], &[tcp(3)]].concat());
    bench.claim([2]);
    let dialled = bench.addresses.plan(limits, bench.now).addresses;
    let expected = [&others[..], &[tcp(3)]].concat().into_iter();
    let expected: Vec<_> = expected.map(|address| address.with_p2p(bench.peer).unwrap()).collect();
    assert_eq!(dialled, expected);
    assert_eq!(bench.addresses.best(false, &own, bench.now), expected);
    // Nor where nothing else is left.
    bench.addresses.give(bench.peer, vec![tcp(1)]);
    bench.wrong(1);
    let limits = Limits {
        own: &own[..2],
        ..limits
    };
    assert_eq!(bench.dial(limits), []);
}

#[test]
fn where_all_are_left_out_the_one_that_comes_back_first_is_tried_alone() {
    let mut bench = Bench::new();
    bench.give([1, 2]);
    for port in [1, 1, 2] {
        bench.wrong(port);
    }
    let plan = bench.addresses.plan(Limits::default(), bench.now);
    assert_eq!((plan.extend, bench.dial(Limits::default())), (false, vec![2]));
    // Others' addresses have every other dial.
    let others = Limits {
        leave_room: true,
        ..Limits::default()
    };
    let plan = bench.addresses.plan(others, bench.now);
    assert!(plan.extend && plan.addresses.is_empty());
    // There are none of others' where only knocks are dialled.
    bench
        .addresses
        .give(bench.peer, vec![address("/ip4/192.0.2.1/tcp/9/tls")]);
    bench
        .addresses
        .wrong(bench.peer, &address("/ip4/192.0.2.1/tcp/9/tls"), bench.now);
    let knock_only = Limits {
        knock_only: true,
        ..others
    };
    assert_eq!(bench.dial(knock_only), [9]);
    assert!(bench.best().is_empty(), "not in dials of others");
}

#[test]
fn by_knock_only_knocks_are_dialled_and_no_other_behaviour_is_asked() {
    let mut bench = Bench::new();
    let knock = address("/ip4/192.0.2.1/tcp/9/tls");
    bench.addresses.give(bench.peer, vec![tcp(1), knock.clone()]);
    bench.claim([2]);
    let limits = Limits {
        knock_only: true,
        leave_room: true,
        ..Limits::default()
    };
    let plan = bench.addresses.plan(limits, bench.now);
    let knock = knock.with_p2p(bench.peer).unwrap();
    assert_eq!((plan.extend, plan.addresses), (false, vec![knock.clone()]));
    assert_eq!(bench.addresses.best(true, &[], bench.now), [knock]);
}

#[test]
fn what_is_given_replaces_what_was_given_but_not_what_is_known() {
    let mut bench = Bench::new();
    bench.give([1, 2, 1]);
    bench.claim([3]);
    bench.worked(2);
    bench.give([4, 1]);
    assert_eq!(bench.best(), [2, 4, 1, 3]);
    bench.dial(Limits::default());
    bench.give([4, 1]);
    assert_eq!(bench.best(), [2, 4, 1, 3], "a new beginning");
    bench.give([]);
    assert_eq!(bench.best(), [2, 3], "what has worked stays");
}
