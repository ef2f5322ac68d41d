//! What a policy does wrong harms nothing but what it is asked about.

use crate::common::{PATIENCE, soon};
use crate::faulty::{Call, Fault, Faulty};
use crate::logs::logged;
use crate::nodes::{End, Node, Parts, Stack, connect, connected, next_of};
use crate::parts::{By, Driven, UNSAID};
use libp2p::PeerId;
use libp2p::swarm::SwarmEvent;
use libp2p_gater::{AllMustAllow, Caps, ConnectionGater, FirstWins, Gate, Rule, Rules};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime};
use tracing::Level;

/// The policy alone, and in every composition.
fn gates(faulty: &Faulty) -> Vec<Gate> {
    let one = || faulty.clone();
    let inside: Arc<dyn ConnectionGater> = Arc::new(one());
    vec![
        Gate::new(one()),
        Gate::new(inside),
        Gate::new(FirstWins::new().with(one()).with(Rules::new())),
        Gate::new(FirstWins::new().with(Rules::new()).with(one())),
        Gate::new(AllMustAllow::new().with(one()).with(Rules::new())),
        Gate::new(AllMustAllow::new().with(FirstWins::new().with(one()))),
    ]
}

#[test]
fn a_panic_of_a_policy_is_a_denial_whatever_part_asks_and_however_it_is_composed() {
    let faulty = Faulty::default();
    for (n, gate) in gates(&faulty).into_iter().enumerate() {
        for call in Call::ALL {
            for fault in [Fault::Panic, Fault::Bomb] {
                for by in By::of(call) {
                    let mut driven = Driven::new(&gate);
                    let hits = faulty.hits().len();
                    faulty.arm(call, fault.clone());
                    let denied = driven.ask(*by);
                    faulty.disarm();
                    assert!(faulty.hits().len() > hits, "{n}, {by:?}: it was asked");
                    let expected = match by {
                        By::Observed => None,
                        By::Accept => Some(UNSAID),
                        _ => Some("policy_panicked"),
                    };
                    assert_eq!(denied.as_deref(), expected, "{n}, {by:?}");
                    // It goes on, and lets in what it let in before.
                    assert_eq!(Driven::new(&gate).ask(*by), None, "{n}, {by:?}");
                }
            }
        }
    }
}

#[test]
fn a_hook_that_panics_is_an_error_in_the_log_once_and_once_for_each_hook() {
    let faulty = Faulty::default();
    for gate in gates(&faulty) {
        let panics = |call, times: usize| {
            faulty.arm(call, Fault::Panic);
            for by in std::iter::repeat_n(By::of(call), times).flatten() {
                Driven::new(&gate).ask(*by);
            }
            faulty.disarm();
        };
        let errors = logged(Level::ERROR, || {
            for call in Call::ALL {
                panics(call, 3);
            }
        });
        assert_eq!(errors.len(), Call::ALL.len(), "{errors:#?}");
        assert!(
            errors.iter().any(|line| line.contains("hook=\"judge_live\"")),
            "{errors:#?}"
        );
        let further = logged(Level::DEBUG, || panics(Call::Accept, 2));
        let further = further.iter().filter(|line| line.contains("user code panicked"));
        assert_eq!(further.count(), 2 * By::of(Call::Accept).len());
    }
}

#[cfg(feature = "metrics")]
#[test]
fn every_panic_is_counted_by_its_hook_and_every_hook_has_a_line_from_the_start() {
    use prometheus_client::{encoding::text::encode, registry::Registry};
    let faulty = Faulty::default();
    for gate in gates(&faulty) {
        let mut registry = Registry::default();
        let gate = gate.with_metrics(&mut registry).unwrap();
        let counts = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let lines = text.lines().filter_map(|line| {
                let rest = line.strip_prefix("libp2p_gater_hook_panics_total{hook=\"")?;
                let (hook, count) = rest.split_once("\"} ")?;
                Some((hook.to_owned(), count.parse().unwrap()))
            });
            lines.collect::<std::collections::BTreeMap<String, usize>>()
        };
        let hooks = [
            ("peer_dial", Some(Call::PeerDial)),
            ("addr_dial", Some(Call::AddrDial)),
            ("accept", Some(Call::Accept)),
            ("knock", Some(Call::Knock)),
            ("secured", Some(Call::Secured)),
            ("upgraded", Some(Call::Upgraded)),
            ("judge_live", Some(Call::Live)),
            ("judge_pending", Some(Call::Pending)),
            ("observe", Some(Call::Observe)),
            ("tick", None),
            ("timer", None),
            ("waker", None),
        ];
        let all = counts();
        assert_eq!(all.len(), hooks.len(), "{all:?}");
        assert!(all.values().all(|count| *count == 0), "{all:?}");
        for (hook, call) in hooks {
            let Some(call) = call else { continue };
            faulty.arm(call, Fault::Panic);
            let hits = faulty.hits().len();
            for by in By::of(call) {
                Driven::new(&gate).ask(*by);
            }
            faulty.disarm();
            assert_eq!(counts()[hook], faulty.hits().len() - hits, "{hook}");
        }
    }
}

/// All parts that a stack can have.
fn installed(stack: Stack) -> Parts {
    Parts {
        transport: true,
        hooks: true,
        beneath: stack == Stack::Knock,
    }
}

#[tokio::test]
async fn a_swarm_whose_policy_panics_at_any_stage_refuses_there_and_connects_afterwards() {
    for stack in [Stack::Knock, Stack::Tcp] {
        for (call, by_dialer) in [
            (Call::PeerDial, true),
            (Call::AddrDial, true),
            (Call::Secured, true),
            (Call::Upgraded, true),
            (Call::Accept, false),
            (Call::Knock, false),
            (Call::Secured, false),
            (Call::Upgraded, false),
        ] {
            if call == Call::Knock && stack != Stack::Knock {
                continue;
            }
            let parts = installed(stack);
            let (mut dialer, mut listener) = (Node::new(stack, parts), Node::new(stack, parts));
            let at = listener.listen().await;
            let faulty = if by_dialer { &dialer } else { &listener }.faulty.clone();
            faulty.arm(call, Fault::Panic);
            let dialled = dialer.dial(&at, listener.peer);
            assert_eq!(dialled.is_err(), call == Call::PeerDial, "{stack:?}, {call:?}");
            soon("a panic", async {
                while faulty.hits().is_empty() {
                    let (_, event) = next_of(&mut dialer, &mut listener).await;
                    // The other end may see it open for a moment; the one that refuses does not.
                    if let SwarmEvent::ConnectionEstablished { peer_id, .. } = event {
                        let own = if by_dialer { listener.peer } else { dialer.peer };
                        assert_ne!(peer_id, own, "{stack:?}, {call:?}");
                    }
                }
            })
            .await;
            faulty.disarm();
            dialer.dial(&at, listener.peer).unwrap();
            connected(&mut dialer, &mut listener).await;
        }
    }
}

#[tokio::test]
async fn a_policy_that_panics_while_it_judges_anew_closes_what_it_was_asked_about_and_no_more() {
    let stack = Stack::Tcp;
    let (mut dialer, mut listener) = (Node::new(stack, Parts::default()), Node::new(stack, Parts::default()));
    connect(&mut dialer, &mut listener).await;
    listener.faulty.arm(Call::Live, Fault::Panic);
    listener.gate.recheck();
    let (us, them) = (dialer.peer, listener.peer);
    soon("closed at both ends", async {
        while dialer.swarm.is_connected(&them) || listener.swarm.is_connected(&us) {
            next_of(&mut dialer, &mut listener).await;
        }
    })
    .await;
    listener.faulty.disarm();
    let at = listener.swarm.listeners().next().cloned().unwrap();
    dialer
        .swarm
        .behaviour_mut()
        .gate
        .as_mut()
        .unwrap()
        .goodbye_mut()
        .forgive(&them);
    dialer.dial(&at, them).unwrap();
    connected(&mut dialer, &mut listener).await;
}

/// The one that panics stands before the rules, which count.
#[tokio::test]
async fn a_policy_that_panics_while_it_is_told_keeps_no_other_from_counting() {
    let stack = Stack::Tcp;
    let (mut first, mut second, mut listener) = (
        Node::new(stack, Parts::default()),
        Node::new(stack, Parts::default()),
        Node::new(stack, Parts::default()),
    );
    listener.change(|change| {
        change.caps(Caps::new().with_total(1));
        Ok(())
    });
    listener.faulty.arm(Call::Observe, Fault::Panic);
    connect(&mut first, &mut listener).await;
    let (at, them) = (listener.swarm.listeners().next().cloned().unwrap(), listener.peer);
    second.dial(&at, them).unwrap();
    soon("a refusal", async {
        loop {
            match next_of(&mut second, &mut listener).await {
                (End::Listener, SwarmEvent::ConnectionEstablished { .. }) => panic!("above the cap"),
                (End::Listener, SwarmEvent::IncomingConnectionError { .. }) => return,
                _ => {}
            }
        }
    })
    .await;
    let _ = second.swarm.disconnect_peer_id(them);
    first.swarm.disconnect_peer_id(them).unwrap();
    soon("room", async {
        while listener.swarm.is_connected(&first.peer) || second.swarm.is_connected(&them) {
            tokio::select! {
                _ = next_of(&mut first, &mut listener) => {}
                _ = second.next() => {}
            }
        }
    })
    .await;
    second.dial(&at, them).unwrap();
    connected(&mut second, &mut listener).await;
    assert!(listener.faulty.hits().len() >= 5, "{:?}", listener.faulty.hits());
}

#[test]
fn a_swarm_that_goes_while_its_policy_panics_gives_its_places_back() {
    let (faulty, rules) = (Faulty::default(), Rules::new());
    let changed = rules.change(|change| {
        change.caps(Caps::new().with_total(1));
        Ok(())
    });
    changed.unwrap();
    let gate = Gate::new(FirstWins::new().with(faulty.clone()).with(rules));
    let mut driven = Driven::new(&gate);
    assert_eq!(driven.ask(By::Observed), None);
    assert_eq!(Driven::new(&gate).ask(By::UpgradedIn).as_deref(), Some("cap_total"));
    faulty.arm(Call::Observe, Fault::Panic);
    drop(driven);
    faulty.disarm();
    assert_eq!(Driven::new(&gate).ask(By::UpgradedIn), None);
}

#[test]
fn rules_whose_clock_panics_deny_what_a_gate_asks() {
    let broken = Arc::new(AtomicBool::new(false));
    let clock = broken.clone();
    let rules = Rules::with_clock(
        || Duration::ZERO,
        move || {
            assert!(!clock.load(Ordering::SeqCst), "no clock");
            SystemTime::now()
        },
    );
    let changed = rules.change(|change| {
        let rule = Rule::allow().direction(libp2p_gater::Direction::Inbound);
        change.insert(rule.until(SystemTime::now() + PATIENCE))
    });
    changed.unwrap();
    let gate = Gate::new(rules);
    assert_eq!(Driven::new(&gate).ask(By::Secured), None);
    broken.store(true, Ordering::SeqCst);
    for by in [By::Knock, By::Secured, By::UpgradedIn, By::Live] {
        assert_eq!(Driven::new(&gate).ask(by).as_deref(), Some("policy_panicked"), "{by:?}");
    }
    broken.store(false, Ordering::SeqCst);
    assert_eq!(Driven::new(&gate).ask(By::Secured), None);
}

#[test]
fn a_policy_that_calls_its_gate_and_its_rules_while_it_is_asked_is_no_deadlock() {
    for call in Call::ALL {
        for by in By::of(call) {
            let (done, over) = channel();
            std::thread::spawn(move || {
                let (faulty, rules) = (Faulty::default(), Rules::new());
                let gate = Gate::new(FirstWins::new().with(rules.clone()).with(faulty.clone()));
                let mut driven = Driven::new(&gate);
                let besides = Arc::new(move || {
                    rules.change(|change| change.block(PeerId::random())).unwrap();
                    assert_eq!(rules.list().len(), 1);
                });
                faulty.arm(call, Fault::Reenter(gate.clone(), besides));
                driven.ask(*by);
                assert_eq!(faulty.hits(), [call]);
                done.send(()).unwrap();
            });
            over.recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("{by:?} does not return"));
        }
    }
}

#[test]
fn a_slow_policy_delays_nothing_but_what_it_is_asked_about() {
    for call in Call::ALL {
        for by in By::of(call) {
            let (faulty, rules) = (Faulty::default(), Rules::new());
            let gate = Gate::new(FirstWins::new().with(rules.clone()).with(faulty.clone()));
            let (fault, told, go) = Fault::block();
            faulty.arm(call, fault);
            let (slow, by) = (gate.clone(), *by);
            let slow = std::thread::spawn(move || Driven::new(&slow).ask(by));
            told.recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("{by:?} is not asked"));
            faulty.disarm();
            let (done, over) = channel();
            std::thread::spawn(move || {
                // Every other question, a change, a wish: of this gate, beside the slow one.
                for call in Call::ALL {
                    for by in By::of(call) {
                        assert_eq!(Driven::new(&gate).ask(*by), None, "{by:?}");
                    }
                }
                rules.change(|change| change.block(PeerId::random())).unwrap();
                gate.recheck();
                gate.closer()(
                    PeerId::random(),
                    libp2p::swarm::ConnectionId::new_unchecked(7),
                    "watermark",
                );
                done.send(()).unwrap();
            });
            over.recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("{by:?} holds something up"));
            go.send(()).unwrap();
            slow.join().unwrap();
        }
    }
}
