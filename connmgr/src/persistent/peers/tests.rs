//! On a clock of our own: what is dialled and closed, and when.

mod duplicates;
mod failures;
mod simulation;
mod target;

use super::super::error::DialFailure;
use super::*;
use std::num::NonZeroUsize;

const SECOND: Duration = Duration::from_secs(1);

impl Peers {
    /// What is counted as it goes is what counting again finds: each wanted peer is connected,
    /// dialled or waiting.
    fn assert_counted(&self) {
        let wanted = || self.peers.values().filter(|peer| peer.wanted);
        let (connected, others): (Vec<_>, Vec<_>) = wanted().partition(|peer| !peer.connections.is_empty());
        let dialling = others.iter().filter(|peer| peer.dialling.is_some()).count();
        assert_eq!(self.wanted, wanted().count());
        assert_eq!(self.wanted_connected(), connected.len());
        assert_eq!(self.wanted_dialling(), dialling);
        assert_eq!(self.waiting(), others.len() - dialling);
    }
}

/// [`Peers`], the time, and what the Swarm would hand out.
struct Bench {
    peers: Peers,
    start: Instant,
    now: Instant,
    next_id: usize,
    events: Vec<Event>,
    closed: Vec<ConnectionId>,
    commands: Vec<(ConnectionId, Command)>,
}

impl Bench {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        Self {
            // Jitter is the pauses' test; here times are exact.
            peers: Peers::new(PeerId::random(), config.with_jitter(0.0)),
            start: now,
            now,
            next_id: 0,
            events: Vec::new(),
            closed: Vec::new(),
            commands: Vec::new(),
        }
    }

    fn id(&mut self) -> ConnectionId {
        self.next_id += 1;
        ConnectionId::new_unchecked(self.next_id)
    }

    /// Takes all actions; returns the dials, each with its id.
    fn dials(&mut self) -> Vec<(PeerId, ConnectionId, Vec<Multiaddr>)> {
        self.peers.assert_counted();
        let mut dials = Vec::new();
        while let Some(action) = self.peers.next_action() {
            match action {
                Action::Dial { peer, plan } => {
                    let id = self.id();
                    self.peers.dialling(peer, id);
                    dials.push((peer, id, plan.addresses));
                }
                Action::Close { connection, .. } => self.closed.push(connection),
                Action::Tell(event) => self.events.push(event),
                Action::Command {
                    connection, command, ..
                } => self.commands.push((connection, command)),
            }
        }
        dials
    }

    fn dialled(&mut self) -> Vec<PeerId> {
        self.dials().into_iter().map(|(peer, ..)| peer).collect()
    }

    /// The one dial there must be.
    fn one_dial(&mut self) -> (PeerId, ConnectionId) {
        let dials = self.dials();
        assert_eq!(dials.len(), 1, "{dials:?}");
        (dials[0].0, dials[0].1)
    }

    /// Lets the time pass, timers included, until something is dialled; that and when.
    fn until_dial(&mut self) -> Option<(PeerId, ConnectionId, Duration)> {
        loop {
            let dials = self.dials();
            if let Some((peer, id, _)) = dials.first() {
                assert_eq!(dials.len(), 1, "{dials:?}");
                return Some((*peer, *id, self.now - self.start));
            }
            self.now = self.peers.next_timeout()?.max(self.now);
            self.peers.timeout(self.now);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.peers.next_timeout()
            && next <= end
        {
            self.now = next.max(self.now);
            self.peers.timeout(self.now);
        }
        self.now = end;
    }

    fn established(&mut self, peer: PeerId, id: ConnectionId, dialled_by_us: bool) {
        self.arrived(peer, id, dialled_by_us, false, None);
    }

    fn arrived(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        dialled_by_us: bool,
        relayed: bool,
        dialled: Option<Multiaddr>,
    ) {
        let held = Held {
            id,
            dialled_by_us,
            relayed,
            since: self.now,
        };
        let arrival = Arrival {
            held,
            by_knock: dialled.as_ref().is_some_and(is_knock),
            kept: self.peers.is_kept(&peer),
            dialled,
        };
        self.peers.established(self.now, peer, arrival);
    }

    fn failed(&mut self, dial: ConnectionId) {
        self.failed_by(dial, Failure::Failed);
    }

    fn failed_by(&mut self, dial: ConnectionId, failure: Failure) {
        let error = DialFailure::NoAddresses;
        self.peers.dial_failed(self.now, dial, failure, error);
    }

    /// Wants a peer that can be found.
    fn want(&mut self) -> PeerId {
        let peer = PeerId::random();
        self.add(peer, vec![address(1)]);
        peer
    }

    fn add(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) -> bool {
        self.peers.add(self.now, peer, addresses, false)
    }

    /// A peer that is wanted and has one connection, which is as old as that.
    fn connected(&mut self, age: Duration) -> (PeerId, ConnectionId) {
        let peer = self.want();
        let (_, dial) = self.one_dial();
        self.established(peer, dial, true);
        self.dials();
        self.pass(age);
        self.commands.clear();
        (peer, dial)
    }

    /// A second connection that the peer has made.
    fn second(&mut self, peer: PeerId) -> ConnectionId {
        let id = self.id();
        self.established(peer, id, false);
        self.dials();
        id
    }

    fn commands(&mut self) -> Vec<(ConnectionId, Command)> {
        self.dials();
        std::mem::take(&mut self.commands)
    }
}

fn address(port: u16) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
}

fn of(peer: PeerId, port: u16) -> Multiaddr {
    address(port).with_p2p(peer).unwrap()
}

fn at_most(dials: usize) -> NonZeroUsize {
    NonZeroUsize::new(dials).unwrap()
}

#[test]
fn a_wanted_peer_is_dialled_at_once_at_all_its_addresses() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    assert!(bench.add(peer, vec![address(1), address(2)]));
    bench.peers.claimed(bench.now, &peer, address(3));
    let dials = bench.dials();
    assert_eq!(dials.len(), 1);
    // The one learned afterwards waits for the next dial.
    assert_eq!(dials[0].2, [of(peer, 1), of(peer, 2)]);
    bench.failed(dials[0].1);
    bench.until_dial();
    // Which comes first in it, as it has not failed.
    let known = bench.peers.addresses(bench.now, &peer);
    assert_eq!(known, [of(peer, 3), of(peer, 1), of(peer, 2)]);
}

#[test]
fn failures_are_answered_with_growing_pauses() {
    let mut bench = Bench::new(Config::new().with_max_interval(10 * SECOND));
    let peer = PeerId::random();
    bench.add(peer, vec![address(1)]);
    let mut times = Vec::new();
    for _ in 0..7 {
        let (_, dial, at) = bench.until_dial().unwrap();
        times.push(at.as_secs());
        bench.failed(dial);
    }
    assert_eq!(times, [0, 1, 3, 7, 15, 25, 35]);
    let failures = bench.events.iter().filter_map(|event| match event {
        Event::DialFailed { failures, retry_in, .. } => Some((*failures, retry_in.as_secs())),
        _ => None,
    });
    let expected = [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (6, 10)];
    assert_eq!(failures.collect::<Vec<_>>(), expected);
}

#[test]
fn a_connection_that_lasted_is_dialled_again_at_once() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    bench.add(peer, vec![address(1)]);
    for _ in 0..3 {
        let (_, dial, _) = bench.until_dial().unwrap();
        bench.failed(dial);
    }
    let (_, dial, _) = bench.until_dial().unwrap();
    bench.established(peer, dial, true);
    bench.pass(60 * SECOND);
    bench.peers.closed(bench.now, &peer, dial);
    assert_eq!(bench.one_dial().0, peer);
    let lost = Event::Disconnected {
        peer,
        retry_in: Duration::ZERO,
    };
    assert!(bench.events.contains(&lost));
}

#[test]
fn a_peer_that_accepts_and_hangs_up_is_not_dialled_without_pause() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    bench.add(peer, vec![address(1)]);
    let mut times = Vec::new();
    for _ in 0..5 {
        let (_, dial, at) = bench.until_dial().unwrap();
        times.push(at.as_secs());
        bench.established(peer, dial, true);
        bench.peers.closed(bench.now, &peer, dial);
    }
    assert_eq!(times, [0, 1, 3, 7, 15]);
}

#[test]
fn two_dials_of_a_peer_are_never_closer_than_the_minimum_interval() {
    let mut bench = Bench::new(Config::new().with_stable(Duration::ZERO));
    let peer = PeerId::random();
    bench.add(peer, vec![address(1)]);
    let mut last: Option<Duration> = None;
    for round in 0..50_u16 {
        let (_, dial, at) = bench.until_dial().unwrap();
        assert!(last.is_none_or(|last| at >= last + SECOND), "{last:?}, then {at:?}");
        last = Some(at);
        match round % 3 {
            0 => bench.failed(dial),
            1 => {
                bench.established(peer, dial, true);
                bench.peers.closed(bench.now, &peer, dial);
            }
            _ => {
                bench.failed_by(dial, Failure::NotNeeded);
                // An application that knows better and says so again and again changes nothing
                // about it.
                bench.add(peer, vec![address(round)]);
            }
        }
    }
}

#[test]
fn more_dials_than_allowed_at_a_time_wait_their_turn() {
    let mut bench = Bench::new(Config::new().with_max_dials(at_most(3)));
    for port in 1..=10 {
        bench.add(PeerId::random(), vec![address(port)]);
    }
    let mut under_way = bench.dials();
    assert_eq!(under_way.len(), 3);
    // Nothing to wake up for: only the end of a dial makes room.
    assert_eq!(bench.peers.next_timeout(), None);
    let mut seen = 0;
    while let Some((peer, id, _)) = under_way.pop() {
        seen += 1;
        bench.established(peer, id, true);
        under_way.extend(bench.dials());
        assert!(under_way.len() <= 3);
    }
    assert_eq!(seen, 10);
    assert_eq!(bench.peers.connected(), 10);
}

#[test]
fn new_addresses_do_not_wait_for_the_old_ones_pause() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    bench.add(peer, vec![address(1)]);
    for _ in 0..9 {
        let (_, dial, _) = bench.until_dial().unwrap();
        bench.failed(dial);
    }
    bench.pass(2 * SECOND);
    assert!(bench.dialled().is_empty());
    assert!(!bench.add(peer, vec![address(2)]));
    let dials = bench.dials();
    assert_eq!(dials[0].2, [of(peer, 2)]);
}

#[test]
fn a_dial_that_another_behaviour_made_is_no_failure() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    bench.add(peer, vec![address(1)]);
    let (_, dial) = bench.one_dial();
    bench.failed_by(dial, Failure::NotNeeded);
    let theirs = bench.id();
    bench.established(peer, theirs, false);
    bench.pass(600 * SECOND);
    assert!(bench.dialled().is_empty());
    assert_eq!(bench.events, [Event::Connected { peer }]);
}

#[test]
fn a_dial_of_another_behaviour_that_fails_changes_nothing() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    bench.add(peer, vec![address(1)]);
    let (_, dial) = bench.one_dial();
    let theirs = bench.id();
    bench.failed(theirs);
    bench.established(peer, dial, true);
    assert_eq!(bench.peers.next_timeout(), None);
    assert_eq!(bench.events.len(), 0);
    assert!(bench.dialled().is_empty());
    assert_eq!(bench.events, [Event::Connected { peer }]);
}

#[test]
fn a_peer_that_is_let_go_of_is_not_dialled_again() {
    let mut bench = Bench::new(Config::new());
    let (connected, failing) = (PeerId::random(), PeerId::random());
    bench.add(connected, vec![address(1)]);
    let (_, dial) = bench.one_dial();
    bench.established(connected, dial, true);
    bench.add(failing, vec![address(2)]);
    let (_, dial) = bench.one_dial();
    bench.failed(dial);
    for peer in [connected, failing] {
        assert!(bench.peers.remove(bench.now, &peer));
        assert!(!bench.peers.remove(bench.now, &peer));
    }
    bench
        .peers
        .closed(bench.now, &connected, ConnectionId::new_unchecked(1));
    bench.pass(3600 * SECOND);
    assert!(bench.dialled().is_empty());
    assert_eq!(bench.peers.peers.len(), 0, "nothing is remembered of them");
}

#[test]
fn a_peer_that_is_connected_already_is_not_dialled() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    let id = bench.id();
    bench.established(peer, id, false);
    bench.add(peer, vec![address(1)]);
    assert_eq!(bench.peers.wanted().collect::<Vec<_>>(), [(&peer, true)]);
    bench.pass(600 * SECOND);
    assert!(bench.dialled().is_empty());
    bench.peers.closed(bench.now, &peer, id);
    assert_eq!(bench.dialled(), [peer]);
}

#[test]
fn a_connection_that_does_not_answer_is_closed_once_and_then_replaced() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    bench.add(peer, vec![address(1)]);
    let (_, dial) = bench.one_dial();
    bench.established(peer, dial, true);
    bench.pass(30 * SECOND);
    for _ in 0..2 {
        bench.peers.unresponsive(peer, dial);
        assert!(bench.dialled().is_empty());
    }
    assert_eq!(bench.closed, [dial]);
    bench.peers.closed(bench.now, &peer, dial);
    assert_eq!(bench.dialled(), [peer]);
}

#[test]
fn without_anything_to_do_there_is_no_time_to_wake_up_for() {
    let mut bench = Bench::new(Config::new().with_target_connections(50));
    for port in 1..=100 {
        let peer = PeerId::random();
        bench.add(peer, vec![address(port)]);
        let (_, dial) = bench.one_dial();
        bench.established(peer, dial, true);
    }
    bench.dials();
    assert_eq!(bench.peers.next_timeout(), None);
}
