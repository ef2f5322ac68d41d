//! Which of several connections stays, and what has to happen before another goes.

use super::*;

#[test]
fn a_second_connection_has_the_first_asked_and_both_are_kept_until_it_answers() {
    for age in [1, 60] {
        let mut bench = Bench::new(Config::new().with_simultaneous(Duration::ZERO));
        let (peer, old) = bench.connected(age * SECOND);
        let new = bench.second(peer);
        assert_eq!(
            bench.commands(),
            [(old, Command::Ask)],
            "its handler keeps the new one already"
        );
        bench.peers.answered(&peer, old);
        let [(spare, Command::Spare { .. })] = bench.commands()[..] else {
            panic!("not one that is too many");
        };
        assert_eq!(spare, new);
        assert!(bench.closed.is_empty(), "it may be in use");
        bench.peers.unused(peer, new);
        bench.dials();
        assert_eq!(bench.closed, [new]);
        let event = Event::DuplicateClosed {
            peer,
            closed: new,
            kept: old,
        };
        assert_eq!(bench.events.last(), Some(&event));
    }
}

#[test]
fn a_first_connection_that_does_not_answer_gives_way_to_the_second() {
    let mut bench = Bench::new(Config::new());
    let (peer, old) = bench.connected(60 * SECOND);
    let new = bench.second(peer);
    bench.commands();
    bench.peers.unresponsive(peer, old);
    assert_eq!(bench.commands(), [], "the second is kept as it was");
    assert_eq!(bench.closed, [old]);
    bench.peers.closed(bench.now, &peer, old);
    bench.peers.unused(peer, new);
    assert!(bench.dialled().is_empty());
    assert_eq!(bench.closed, [old], "what is kept is never one too many");
}

#[test]
fn each_further_connection_has_the_first_asked_anew_and_once() {
    let mut bench = Bench::new(Config::new());
    let (peer, old) = bench.connected(60 * SECOND);
    let second = bench.second(peer);
    bench.peers.answered(&peer, old);
    bench.commands();
    let third = bench.second(peer);
    let mut commands = bench.commands();
    commands.sort_by_key(|(id, _)| *id);
    // It may be that the peer has lost all of them.
    assert_eq!(commands, [(old, Command::Ask), (second, Command::Keep)]);
    let fourth = bench.second(peer);
    assert_eq!(bench.commands(), [(old, Command::Ask)]);
    bench.peers.answered(&peer, old);
    let spare = bench.commands().into_iter().map(|(id, _)| id);
    assert_eq!(spare.collect::<BTreeSet<_>>(), BTreeSet::from([second, third, fourth]));
}

#[test]
fn an_answer_from_before_does_not_count() {
    let mut bench = Bench::new(Config::new());
    let (peer, old) = bench.connected(60 * SECOND);
    bench.peers.answered(&peer, old);
    let new = bench.second(peer);
    assert_eq!(bench.commands(), [(old, Command::Ask)]);
    bench.peers.unused(peer, new);
    assert!(bench.dialled().is_empty() && bench.closed.is_empty());
}

#[test]
fn a_direct_connection_takes_the_place_of_a_relayed_one_which_goes_when_it_is_not_used() {
    let mut bench = Bench::new(Config::new());
    let peer = bench.want();
    let (_, dial) = bench.one_dial();
    bench.arrived(peer, dial, true, true, None);
    bench.pass(60 * SECOND);
    bench.commands();
    let direct = bench.second(peer);
    let [(spare, Command::Spare { .. })] = bench.commands()[..] else {
        panic!("not one that is too many");
    };
    assert_eq!(spare, dial);
    assert!(bench.closed.is_empty());
    // And is kept again when the direct one is lost.
    bench.peers.closed(bench.now, &peer, direct);
    assert_eq!(bench.commands(), [(dial, Command::Keep)]);
    bench.peers.unused(peer, dial);
    bench.dials();
    assert!(bench.closed.is_empty());
}

#[test]
fn the_end_with_the_smaller_id_waits_less() {
    let mut waits = BTreeSet::new();
    for _ in 0..50 {
        let mut bench = Bench::new(Config::new());
        let (peer, old) = bench.connected(60 * SECOND);
        bench.second(peer);
        bench.peers.answered(&peer, old);
        let smaller = bench.peers.local().to_bytes() < peer.to_bytes();
        for (_, command) in bench.commands() {
            if let Command::Spare { unused } = command {
                waits.insert((smaller, unused.as_millis()));
            }
        }
    }
    assert_eq!(waits, BTreeSet::from([(true, 3_000), (false, 4_500)]));
}

#[test]
fn a_spare_connection_that_could_not_go_is_told_again_when_another_is_kept() {
    let mut bench = Bench::new(Config::new());
    let (peer, old) = bench.connected(60 * SECOND);
    let [second, third] = [bench.second(peer), bench.second(peer)];
    bench.peers.answered(&peer, old);
    bench.commands();
    // The first dies, and before the Swarm has closed it, the third has been of no use for long
    // enough.
    bench.peers.unresponsive(peer, old);
    bench.commands();
    bench.peers.closed(bench.now, &peer, old);
    bench.peers.answered(&peer, second);
    let told = bench.commands();
    assert!(
        told.iter()
            .any(|(id, command)| *id == third && matches!(command, Command::Spare { .. })),
        "{told:?}"
    );
    bench.peers.unused(peer, third);
    bench.dials();
    assert_eq!(bench.closed, [old, third]);
}

#[test]
fn where_second_connections_are_not_given_up_all_are_kept() {
    let mut bench = Bench::new(Config::new().with_one_connection(false));
    let (peer, _) = bench.connected(60 * SECOND);
    bench.second(peer);
    assert_eq!(bench.commands(), []);
}

#[test]
fn connections_of_a_peer_that_becomes_wanted_are_kept_and_let_go_of_with_it() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    let [one, other] = [bench.second(peer), bench.second(peer)];
    assert_eq!(bench.commands(), []);
    bench.add(peer, vec![]);
    let commands = bench.commands();
    for id in [one, other] {
        assert!(commands.contains(&(id, Command::Keep)), "{commands:?}");
    }
    assert!(bench.peers.remove(bench.now, &peer));
    let commands = bench.commands();
    for id in [one, other] {
        assert!(commands.contains(&(id, Command::LetGo)), "{commands:?}");
    }
}

#[test]
fn a_peer_that_is_no_longer_wanted_when_its_connection_is_announced_is_let_go_of() {
    let mut bench = Bench::new(Config::new());
    let peer = bench.want();
    let (_, dial) = bench.one_dial();
    let held = Held {
        id: dial,
        dialled_by_us: true,
        relayed: false,
        since: bench.now,
    };
    bench.peers.remove(bench.now, &peer);
    // Its handler was made before.
    let arrival = Arrival {
        held,
        by_knock: false,
        kept: true,
        dialled: None,
    };
    bench.peers.established(bench.now, peer, arrival);
    assert_eq!(bench.commands(), [(dial, Command::LetGo)]);
}

#[test]
fn by_knock_only_closes_what_is_there_otherwise_and_refuses_what_comes() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    let (stock, knock) = (address(1), "/ip4/192.0.2.1/tcp/1/tls".parse::<Multiaddr>().unwrap());
    let ids = [bench.id(), bench.id()];
    bench.arrived(peer, ids[0], true, false, Some(stock.clone()));
    bench.arrived(peer, ids[1], true, false, Some(knock.clone()));
    assert!(!bench.peers.is_refused(&peer, [&stock, &stock]));
    bench.peers.add(bench.now, peer, vec![knock.clone()], true);
    bench.dials();
    assert_eq!(bench.closed, [ids[0]]);
    assert!(bench.peers.is_refused(&peer, [&stock, &stock]));
    assert!(!bench.peers.is_refused(&peer, [&stock, &knock]));
    assert!(!bench.peers.is_refused(&PeerId::random(), [&stock, &stock]));
    bench.peers.remove(bench.now, &peer);
    assert!(!bench.peers.is_refused(&peer, [&stock, &stock]));
}
