//! A change is one step, whoever looks.

use crate::asking::{Asking as _, cidr};
use libp2p_gater::{ConnectionGater as _, Member, Rule, RuleError, Rules, Standing};
use libp2p_identity::PeerId;
use std::sync::atomic::{AtomicBool, Ordering};

/// Two peers change places 2,000 times: one is blocked by a set, the other by the list. At no time is either of them not
/// blocked, though the change takes one off the list before it puts the other on it.
#[test]
fn nobody_sees_half_of_a_change() {
    let rules = Rules::new();
    let (a, b) = (PeerId::random(), PeerId::random());
    let swap = |in_set: PeerId, on_list: PeerId| {
        let swapped = rules.change(|change| {
            change.unblock(in_set);
            change.set("epoch", Standing::Blocked, [in_set])?;
            change.block(on_list)
        });
        swapped.expect("changed");
    };
    swap(a, b);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    assert_ne!(rules.dial(&a), "pass");
                    assert_ne!(rules.dial(&b), "pass");
                }
            });
        }
        for _ in 0..1000 {
            swap(b, a);
            swap(a, b);
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn a_change_that_fails_changes_nothing_and_rings_no_bell() {
    let (rules, peer) = (Rules::new(), PeerId::random());
    let bell = rules.changes().pop().expect("a bell");
    let failed: Result<(), RuleError> = rules.change(|change| {
        change.block(peer)?;
        change.block(cidr("192.0.2.0/24"))?;
        change.set("us", Standing::Member, [Member::from(peer)])?;
        change.clear();
        Err(RuleError::Name("no".into()))
    });
    failed.expect_err("it says so");
    assert_eq!(rules.dial(&peer), "pass");
    assert_eq!((rules.list(), rules.sets()), (vec![], vec![]));
    assert_eq!(bell.count(), 0);
}

#[test]
fn the_bell_rings_for_what_tightens_and_not_for_what_loosens() {
    let (rules, peer) = (Rules::new(), PeerId::random());
    let bell = rules.changes().pop().expect("a bell");
    rules.change(|change| change.block(peer)).expect("changed");
    assert_eq!(bell.count(), 1);
    assert_eq!(rules.live_in(&peer, "/memory/1"), "block_peer");
    rules
        .change(|change| {
            change.unblock(peer);
            Ok(())
        })
        .expect("changed");
    rules
        .change(|change| change.insert(Rule::allow().peer(peer)))
        .expect("changed");
    assert_eq!(bell.count(), 1);
    rules
        .change(|change| {
            change.remove(Rule::allow().peer(peer));
            Ok(())
        })
        .expect("changed");
    assert_eq!(bell.count(), 2, "who was allowed may be so no more");
    rules
        .change(|change| change.require_knock(peer, true))
        .expect("changed");
    assert_eq!(bell.count(), 3);
}
