//! Closures of a user's, in calls of a user's.

use crate::asking::{Asking as _, cidr};
use libp2p_gater::{Cidr, FileError, Rule, RuleError, Rules, Subject};
use libp2p_identity::PeerId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

const SOON: Duration = Duration::from_secs(60);

/// `work` on a thread of its own, which is to be over soon.
fn returns<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || _ = tell.send(work()));
    told.recv_timeout(SOON)
        .unwrap_or_else(|_| panic!("{what} does not return"))
}

#[test]
fn a_change_that_panics_reaches_its_caller_and_changes_nothing() {
    let (rules, peer) = (Rules::new(), PeerId::random());
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    rules.save(&path).expect("saved");
    let bell = libp2p_gater::ConnectionGater::changes(&rules).pop().expect("a bell");
    let panics = |change: &mut libp2p_gater::Change| -> Result<(), RuleError> {
        change.block(peer)?;
        change.block(cidr("192.0.2.0/24"))?;
        panic!("in a change")
    };
    for save in [false, true] {
        let panicked = catch_unwind(AssertUnwindSafe(|| match save {
            true => rules.change_and_save(&path, panics).map_err(drop),
            false => rules.change(panics).map_err(drop),
        }));
        let payload = panicked.expect_err("it reaches the caller");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"in a change"));
        assert_eq!((rules.list(), bell.count()), (vec![], 0));
        assert_eq!(
            std::fs::read_to_string(&path).expect("text"),
            "libp2p-gater rules 1 until end\nend\n"
        );
    }
    rules.change(|change| change.block(peer)).expect("changed");
    assert_eq!(rules.dial(&peer), "block_peer");
}

/// None of these closures says of which type its error is.
#[test]
fn a_change_needs_no_type_annotations() -> Result<(), Box<dyn std::error::Error>> {
    let (rules, peer) = (Rules::new(), PeerId::random());
    rules.change(|c| c.block(peer))?;
    rules.change(|c| {
        c.unblock(peer);
        Ok(())
    })?;
    rules.change(|c| {
        c.block("192.0.2.0/24".parse::<Cidr>()?)?;
        c.refuse_names(true);
        Ok(())
    })?;
    let count = rules.change(|c| {
        c.block(peer)?;
        Ok(3)
    })?;
    assert_eq!((count, rules.list().len()), (3, 2));
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("rules");
    rules.change_and_save(&path, |c| {
        c.unblock(peer);
        Ok(())
    })?;
    let error = rules.change(|c| c.block("192.0.2.7/24".parse::<Cidr>()?));
    assert_eq!(
        error.expect_err("no range").to_string(),
        "invalid network: bits are set behind the prefix: expected 192.0.2.0/24"
    );
    Ok(())
}

#[test]
fn a_change_may_have_an_error_of_its_own() {
    #[derive(Debug, thiserror::Error)]
    enum Own {
        #[error("not today")]
        NotToday,
        #[error(transparent)]
        Rule(#[from] RuleError),
        #[error(transparent)]
        File(#[from] FileError),
    }
    let (rules, peer) = (Rules::new(), PeerId::random());
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let refused = rules.try_change(|change| {
        change.block(peer)?;
        Err::<(), _>(Own::NotToday)
    });
    assert!(matches!(refused, Err(Own::NotToday)));
    let refused = rules.try_change_and_save(&path, |change| {
        change.block(peer)?;
        Err::<(), _>(Own::NotToday)
    });
    assert!(matches!(refused, Err(Own::NotToday)) && !path.exists());
    assert_eq!(rules.dial(&peer), "pass");
    let saved: Result<(), Own> = rules.try_change_and_save(&path, |change| Ok(change.block(Subject::from(peer))?));
    saved.expect("saved");
    assert_eq!(rules.dial(&peer), "block_peer");
}

#[test]
fn a_change_inside_a_change_is_an_error_and_no_deadlock() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let rules = Rules::new();
    rules.save(&path).expect("saved");
    let (peer, other) = (PeerId::random(), PeerId::random());
    let inside = rules.clone();
    let at = path.clone();
    returns("a change inside a change", move || {
        inside.change(|change| {
            change.block(peer)?;
            inside.change(|change| change.block(other)).expect_err("inside");
            inside
                .change_and_save(&at, |change| change.block(other))
                .expect_err("inside");
            inside.save(&at).expect_err("inside");
            inside.reload(&at).expect_err("inside");
            // What only looks sees the rules as they were.
            assert_eq!((inside.dial(&peer), inside.list()), ("pass".into(), vec![]));
            // Other rules are other rules.
            Rules::new().change(|change| change.block(other))
        })
    })
    .expect("changed");
    assert_eq!(
        (rules.dial(&peer), rules.dial(&other)),
        ("block_peer".into(), "pass".into())
    );
    rules.change(|change| change.block(other)).expect("changed");
}

#[test]
fn a_slow_change_delays_other_changes_and_no_decision() {
    let (rules, peer) = (Rules::new(), PeerId::random());
    let (begin, begun) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let slow = rules.clone();
    let changing = std::thread::spawn(move || {
        slow.change(|change| {
            begin.send(()).expect("listened to");
            wait.recv().expect("told to go on");
            change.block(peer)
        })
    });
    begun.recv().expect("it begins");
    let asked = rules.clone();
    let answers = returns("a decision beside a slow change", move || {
        (
            asked.dial(&peer),
            asked.list().len(),
            asked.sets().len(),
            format!("{asked:?}").len(),
        )
    });
    assert_eq!((answers.0.as_str(), answers.1), ("pass", 0));
    let (other, second) = (rules.clone(), PeerId::random());
    let waiting = std::thread::spawn(move || other.change(|change| change.block(second)));
    go.send(()).expect("it waits");
    changing.join().expect("no panic").expect("changed");
    waiting.join().expect("no panic").expect("changed");
    assert_eq!(
        (rules.dial(&peer), rules.dial(&second)),
        ("block_peer".into(), "block_peer".into())
    );
}

#[test]
fn a_clock_that_panics_reaches_the_caller_of_a_change_and_harms_nothing() {
    let broken = Arc::new(AtomicBool::new(false));
    let clock = broken.clone();
    let rules = Rules::with_clock(
        || Duration::ZERO,
        move || {
            assert!(!clock.load(Ordering::SeqCst), "no clock");
            SystemTime::now()
        },
    );
    let peer = PeerId::random();
    rules
        .change(|change| change.insert(Rule::block().until(SystemTime::now() + SOON)))
        .expect("changed");
    broken.store(true, Ordering::SeqCst);
    let changed = catch_unwind(AssertUnwindSafe(|| rules.change(|change| change.block(peer))));
    changed.expect_err("it reaches the caller");
    catch_unwind(AssertUnwindSafe(|| rules.dial(&peer))).expect_err("it reaches the caller");
    broken.store(false, Ordering::SeqCst);
    assert_eq!((rules.dial(&peer), rules.list().len()), ("block".into(), 1));
    rules.change(|change| change.block(peer)).expect("changed");
    assert_eq!(rules.dial(&peer), "block_peer");
}

#[test]
fn a_clock_that_changes_the_rules_is_no_deadlock() {
    type Inner = Arc<std::sync::OnceLock<Rules>>;
    let inner: Inner = Arc::default();
    let asked = inner.clone();
    let within = Arc::new(AtomicBool::new(false));
    let rules = Rules::with_clock(
        || Duration::ZERO,
        move || {
            if let Some(rules) = asked.get()
                && !within.swap(true, Ordering::SeqCst)
            {
                let _ = rules.change(|change| change.block(PeerId::random()));
                let _ = rules.list();
                within.store(false, Ordering::SeqCst);
            }
            SystemTime::now()
        },
    );
    let _ = inner.set(rules.clone());
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    returns("a change with such a clock", move || {
        rules.change(|change| change.insert(Rule::block().until(SystemTime::now() + SOON)))?;
        rules.dial(&PeerId::random());
        rules.save(&path).expect("saved");
        rules.reload(&path).expect("loaded");
        Ok::<_, RuleError>(())
    })
    .expect("changed");
}

#[test]
fn a_listener_that_panics_keeps_no_other_from_being_told() {
    let (rules, peer) = (Rules::new(), PeerId::random());
    let bell = libp2p_gater::ConnectionGater::changes(&rules).pop().expect("a bell");
    let told = Arc::new(AtomicBool::new(false));
    let tell = told.clone();
    let listeners: [Arc<dyn Fn() + Send + Sync>; 2] = [
        Arc::new(|| panic!("in a listener")),
        Arc::new(move || tell.store(true, Ordering::SeqCst)),
    ];
    for listener in &listeners {
        bell.listen(listener);
    }
    rules.change(|change| change.block(peer)).expect("changed");
    assert!(told.load(Ordering::SeqCst));
    assert_eq!(rules.dial(&peer), "block_peer");
}

#[test]
fn a_listener_may_change_the_rules_and_listen_anew() {
    let rules = Rules::new();
    let bell = libp2p_gater::ConnectionGater::changes(&rules).pop().expect("a bell");
    let (own, again) = (rules.clone(), bell.clone());
    let once = AtomicBool::new(false);
    let listener: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        if !once.swap(true, Ordering::SeqCst) {
            let nothing: Arc<dyn Fn() + Send + Sync> = Arc::new(|| {});
            again.listen(&nothing);
            own.change(|change| change.block(cidr("192.0.2.0/24")))
                .expect("changed");
        }
    });
    bell.listen(&listener);
    let changed = rules.clone();
    returns("a change with such a listener", move || {
        changed.change(|change| change.block(cidr("203.0.113.0/24")))
    })
    .expect("changed");
    assert_eq!((rules.list().len(), bell.count()), (2, 2));
}
