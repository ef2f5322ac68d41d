//! A clock that is wrong loses nothing that is on disk; and what time does without any change.

use crate::asking::{Asking as _, Time, cidr};
use libp2p_gater::{ConnectionGater as _, Rule, Rules};
use libp2p_identity::PeerId;
use std::sync::mpsc;
use std::time::Duration;

const YEARS: Duration = Duration::from_secs(20 * 365 * 86_400);

/// Rules on a clock that is ahead by `ahead`.
fn with_clock(ahead: Duration) -> Rules {
    let time = Time::default();
    time.pass(ahead);
    time.rules()
}

#[test]
fn a_start_with_the_clock_ahead_and_a_save_lose_no_rule() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let (foe, friend, other) = (PeerId::random(), PeerId::random(), PeerId::random());
    let text = format!(
        "libp2p-gater rules 1\nblock peer {foe} until 2035-01-01T00:00:00Z note spam\nallow peer {friend} until 2035-01-01T00:00:00Z\nblock network 192.0.2.0/24 until 2035-01-01T00:00:00Z\nblock port 25 until 2035-01-01T00:00:00Z\nend\n"
    );
    std::fs::write(&path, text).expect("written");

    let wrong = with_clock(YEARS);
    wrong.reload(&path).expect("loaded");
    assert_eq!(wrong.list(), [], "all has expired, as far as it can know");
    assert_eq!(wrong.dial(&foe), "pass");
    for _ in 0..3 {
        let saved = wrong.change_and_save(&path, |change| change.block(other));
        saved.expect("saved");
        wrong.save(&path).expect("saved");
    }

    let right = with_clock(Duration::ZERO);
    right.reload(&path).expect("loaded");
    assert_eq!(right.list().len(), 5, "{:?}", right.list());
    assert_eq!(
        (right.dial(&foe), right.dial(&friend)),
        ("block_peer".into(), "allow".into())
    );
    assert_eq!(right.accept("/ip4/192.0.2.7/tcp/1"), "block_network");
    assert_eq!(right.dial_at(None, "/ip4/203.0.113.1/tcp/25"), "block");
}

#[test]
fn a_clock_that_goes_ahead_and_is_put_right_under_a_running_node_loses_no_rule() {
    for by_tick in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rules");
        let (foe, other) = (PeerId::random(), PeerId::random());
        let time = Time::default();
        let rules = time.rules();
        let bell = rules.changes().pop().expect("a bell");
        let block = Rule::block().peer(foe).until(time.now() + YEARS / 2);
        let allow = Rule::allow()
            .network(cidr("192.0.2.0/24"))
            .until(time.now() + YEARS / 2);
        let port = Rule::block().port(25).until(time.now() + YEARS / 2);
        let insert = |change: &mut libp2p_gater::Change| {
            [&block, &allow, &port]
                .into_iter()
                .try_for_each(|rule| change.insert(rule.clone()))
        };
        rules.change(insert).expect("changed");
        time.pass(YEARS);
        rules.change(|change| change.block(other)).expect("changed");
        rules.save(&path).expect("saved");
        assert_eq!(
            (rules.dial(&foe), rules.list().len(), rules.expired().len()),
            ("pass".into(), 1, 3)
        );
        time.back(YEARS);
        let rung = bell.count();
        match by_tick {
            true => _ = rules.tick(),
            false => rules
                .change(|change| change.block(cidr("203.0.113.0/24")))
                .expect("changed"),
        }
        assert_eq!(rules.dial(&foe), "block_peer", "it is in force again");
        assert_eq!(rules.accept("/ip4/192.0.2.7/tcp/1"), "allow");
        assert_eq!(bell.count(), rung + 1, "who is blocked again is closed");
        assert_eq!(rules.expired(), []);
        for rule in [block, allow, port] {
            assert!(rules.list().contains(&rule), "{rule}");
        }
    }
}

#[test]
fn a_rule_that_was_taken_back_does_not_return_with_the_clock() {
    let (time, foe) = (Time::default(), PeerId::random());
    let rules = time.rules();
    let until = time.now() + Duration::from_secs(100);
    let changed = rules.change(|change| {
        change.insert(Rule::block().peer(foe).until(until))?;
        change.insert(Rule::block().network(cidr("192.0.2.0/24")).until(until))?;
        change.insert(Rule::block().port(25).until(until))?;
        change.insert(Rule::block().port(26).until(until))
    });
    changed.expect("changed");
    time.pass(Duration::from_secs(200));
    let changed = rules.change(|change| {
        change.unblock(foe);
        change.unblock(cidr("192.0.2.0/24"));
        change.remove(Rule::block().port(25));
        // In place of the one that has expired.
        change.insert(Rule::block().port(26))
    });
    changed.expect("changed");
    time.back(Duration::from_secs(150));
    rules.tick();
    assert_eq!((rules.list(), rules.expired()), (vec![Rule::block().port(26)], vec![]));
    // And for good.
    let changed = rules.change(|change| change.insert(Rule::block().peer(foe).until(time.now())));
    changed.expect("changed");
    assert_eq!(rules.expired().len(), 1);
    let forgotten = rules.change(|change| {
        change.forget_expired();
        Ok(())
    });
    forgotten.expect("changed");
    assert_eq!(rules.expired(), []);
}

#[test]
fn an_expired_line_takes_no_rule_out_of_force() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let lines = [
        "block ip 203.0.113.9",
        "block ip 203.0.113.9 until 2001-01-01T00:00:00Z",
    ];
    for lines in [lines, [lines[1], lines[0]]] {
        std::fs::write(
            &path,
            format!("libp2p-gater rules 1\n{}\n{}\nend\n", lines[0], lines[1]),
        )
        .expect("written");
        let rules = Time::default().rules();
        rules.reload(&path).expect("loaded");
        assert_eq!(rules.accept("/ip4/203.0.113.9/tcp/1"), "block_network");
        rules.save(&path).expect("saved");
        rules.reload(&path).expect("loaded");
        assert_eq!(rules.accept("/ip4/203.0.113.9/tcp/1"), "block_network");
    }
}

#[test]
fn rules_that_come_into_force_again_take_no_more_places_than_there_are() {
    let time = Time::default();
    let rules = time.rules();
    let (until, peer) = (time.now() + Duration::from_secs(100), PeerId::random());
    let many = |until: Option<std::time::SystemTime>, ports: std::ops::Range<u16>| {
        for port in ports {
            let rule = match until {
                Some(until) => Rule::block().port(port).until(until),
                None => Rule::block().port(port),
            };
            let inserted = rules.change(|change| {
                change.insert(rule.clone().peer(peer))?;
                change.insert(rule.clone().network(cidr("192.0.2.0/24")))
            });
            inserted.expect("changed");
        }
    };
    many(Some(until), 0..40);
    time.pass(Duration::from_secs(200));
    many(None, 100..150);
    time.back(Duration::from_secs(150));
    rules.tick();
    rules
        .change(|change| change.block(cidr("203.0.113.0/24")))
        .expect("there is room for the rest");
    assert_eq!((rules.list().len(), rules.expired().len()), (2 * 64 + 1, 2 * 26));
}

/// Never while a file is read, and then those first that expired first.
#[test]
fn what_has_expired_is_kept_up_to_a_bound() {
    const MOST: usize = 65_536;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let mut text = "libp2p-gater rules 1\n".to_owned();
    for n in 0..MOST + 100 {
        let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(n).expect("few"));
        let day = 1 + n % 28;
        text += &format!("block ip {ip} until 2001-01-{day:02}T00:00:00Z\n");
    }
    text += "block ip 203.0.113.9 until 2026-01-01T00:00:00Z\nend\n";
    std::fs::write(&path, &text).expect("written");
    let rules = Time::default().rules();
    rules.reload(&path).expect("loaded");
    assert_eq!(rules.expired().len(), MOST + 101);
    rules
        .change_and_save(&path, |change| change.block(PeerId::random()))
        .expect("saved");
    let left = rules.expired();
    assert!((MOST / 2..=MOST).contains(&left.len()), "{}", left.len());
    assert!(left.iter().any(|rule| rule.to_string().contains("203.0.113.9")));
    assert!(!left.iter().any(|rule| rule.to_string().contains("2001-01-01")));
}

const LOOK: Option<Duration> = Some(Duration::from_secs(60));

#[test]
fn the_earliest_allow_that_expires_says_when_rules_are_to_be_called() {
    let time = Time::default();
    let rules = time.rules();
    let bell = rules.changes().pop().expect("a bell");
    let seconds = Duration::from_secs;
    let insert = |rule: Rule, after: u64| {
        let rule = rule.until(time.now() + seconds(after));
        rules.change(|change| change.insert(rule)).expect("changed");
    };
    assert_eq!(rules.tick(), None, "nothing expires");
    insert(Rule::block().port(1), 10);
    assert_eq!(rules.tick(), None, "what a block that expires lets in comes by itself");
    for after in [300, 100, 200] {
        insert(Rule::allow().port(u16::try_from(after).expect("small")), after);
    }
    let rung = bell.count();
    assert_eq!(rules.tick(), LOOK, "the clock may be set meanwhile");
    time.pass(seconds(70));
    assert_eq!(rules.tick(), Some(seconds(30)));
    time.pass(Duration::from_millis(29_500));
    assert_eq!(rules.tick(), Some(Duration::from_millis(500)));
    assert_eq!(bell.count(), rung);
    time.pass(Duration::from_millis(500));
    assert_eq!(rules.tick(), LOOK);
    assert_eq!(bell.count(), rung + 1, "what the first has let in is judged");
    time.pass(seconds(90));
    assert_eq!(rules.tick(), Some(seconds(10)));
    let removed = rules.change(|change| {
        change.remove(Rule::allow().port(200));
        Ok(())
    });
    removed.expect("changed");
    time.pass(seconds(500));
    rules.tick();
    assert_eq!(rules.list(), []);
    assert_eq!(
        rules.tick(),
        LOOK,
        "what has expired is looked at, in case the clock goes back"
    );
    rules
        .change(|change| {
            change.forget_expired();
            Ok(())
        })
        .expect("changed");
    assert_eq!(rules.tick(), None);
}

#[test]
fn rules_that_are_called_beside_a_slow_change_wait_for_nothing() {
    let time = Time::default();
    let rules = time.rules();
    let until = time.now() + Duration::from_secs(1);
    let peer = PeerId::random();
    rules
        .change(|change| change.insert(Rule::allow().peer(peer).until(until)))
        .expect("changed");
    time.pass(Duration::from_secs(1));
    let ((begin, begun), (go, wait)) = (mpsc::channel(), mpsc::channel::<()>());
    let slow = rules.clone();
    let changing = std::thread::spawn(move || {
        slow.change(|_| {
            begin.send(()).expect("listened to");
            wait.recv().expect("told to go on");
            Ok(())
        })
    });
    begun.recv().expect("it begins");
    assert_eq!(rules.tick(), Some(Duration::from_secs(1)));
    go.send(()).expect("it waits");
    changing.join().expect("no panic").expect("changed");
    assert_eq!(rules.tick(), LOOK);
}
