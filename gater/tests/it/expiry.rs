//! What only an allow let in is closed when that expires, though nothing has changed.

use crate::common::{PATIENCE, soon};
use crate::faulty::Faulty;
use crate::nodes::{BehaviourEvent, Node, Parts, Stack, connect, next_of};
use futures::FutureExt as _;
use futures::task::noop_waker;
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::{ConnectionId, FromSwarm, NetworkBehaviour as _, SwarmEvent, ToSwarm};
use libp2p_gater::{Behaviour, Changes, Cidr, ConnectionGater, Event, FirstWins, Gate, Rule, Rules};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock, and timers on it.
#[derive(Clone, Default)]
struct Clock(Arc<Mutex<Time>>);

#[derive(Default)]
struct Time {
    now: Duration,
    /// Which timers were set, and who waits.
    set: Vec<Duration>,
    timers: usize,
    waiting: Vec<Waker>,
}

impl Clock {
    fn rules(&self) -> Rules {
        let (steady, wall) = (self.clone(), self.clone());
        Rules::with_clock(move || steady.elapsed(), move || wall.now())
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap().now
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.elapsed()
    }

    fn timer(&self) -> impl Fn(Duration) -> Timer + Send + Sync + 'static {
        let clock = self.clone();
        move |time| {
            let mut own = clock.0.lock().unwrap();
            own.set.push(time);
            own.timers += 1;
            let until = own.now + time;
            drop(own);
            Timer(clock.clone(), until)
        }
    }

    /// And wakes those who wait.
    fn pass(&self, time: Duration) {
        let mut own = self.0.lock().unwrap();
        own.now += time;
        let waiting = std::mem::take(&mut own.waiting);
        drop(own);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The last timer that was set since the last look.
    fn set(&self) -> Option<Duration> {
        std::mem::take(&mut self.0.lock().unwrap().set).pop()
    }

    /// How many timers there are.
    fn timers(&self) -> usize {
        self.0.lock().unwrap().timers
    }
}

struct Timer(Clock, Duration);

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().timers -= 1;
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut own = self.0.0.lock().unwrap();
        if own.now >= self.1 {
            return Poll::Ready(());
        }
        own.waiting.push(cx.waker().clone());
        Poll::Pending
    }
}

/// Who is being closed by the behaviour by now, and by which rule.
fn closing(behaviour: &mut Behaviour) -> Vec<(PeerId, String)> {
    let waker = noop_waker();
    let mut closing = Vec::new();
    while let Poll::Ready(action) = behaviour.poll(&mut Context::from_waker(&waker)) {
        if let ToSwarm::GenerateEvent(Event::Closing { peer, reason, .. }) = action {
            closing.push((peer, reason.rule().to_owned()));
        }
    }
    closing
}

fn establish(behaviour: &mut Behaviour, id: usize) -> PeerId {
    let peer_id = PeerId::random();
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id,
        connection_id: ConnectionId::new_unchecked(id),
        endpoint: &ConnectedPoint::Dialer {
            address: format!("/ip4/192.0.2.1/tcp/{id}").parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        },
        failed_addresses: &[],
        other_established: 0,
    }));
    peer_id
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn one_timer_waits_for_the_earliest_expiry_and_what_that_let_in_is_closed_at_its_second() {
    let clock = Clock::default();
    let rules = clock.rules();
    let gate = Gate::new(FirstWins::new().with(Faulty::default()).with(rules.clone())).with_timer(clock.timer());
    let mut behaviour = gate.behaviour();
    let peers = [1, 2, 3].map(|id| establish(&mut behaviour, id));
    assert_eq!(
        (closing(&mut behaviour), clock.set()),
        (vec![], None),
        "nothing expires"
    );

    let inserted = rules.change(|change| {
        for (peer, after) in peers.iter().zip([90, 30, 50]) {
            change.insert(Rule::allow().peer(*peer).until(clock.now() + seconds(after)))?;
        }
        change.insert(Rule::block().port(9).until(clock.now() + seconds(10)))?;
        change.insert(Rule::block())
    });
    inserted.unwrap();
    assert_eq!((closing(&mut behaviour), clock.set()), (vec![], Some(seconds(30))));
    clock.pass(Duration::from_millis(29_999));
    assert_eq!((closing(&mut behaviour), clock.set()), (vec![], None));
    clock.pass(Duration::from_millis(1));
    let closed = |at: usize| vec![(peers[at], "block".to_owned())];
    assert_eq!((closing(&mut behaviour), clock.set()), (closed(1), Some(seconds(20))));
    // Sooner than was thought.
    let inserted = rules.change(|change| change.insert(Rule::allow().peer(peers[0]).until(clock.now() + seconds(5))));
    inserted.unwrap();
    assert_eq!((closing(&mut behaviour), clock.set()), (vec![], Some(seconds(5))));
    clock.pass(seconds(5));
    assert_eq!((closing(&mut behaviour), clock.set()), (closed(0), Some(seconds(15))));
    assert_eq!(clock.timers(), 1);
    clock.pass(seconds(15));
    assert_eq!(closing(&mut behaviour), closed(2));
    let forgotten = rules.change(|change| {
        change.forget_expired();
        Ok(())
    });
    forgotten.unwrap();
    closing(&mut behaviour);
    clock.set();
    clock.pass(seconds(3600));
    assert_eq!(
        (closing(&mut behaviour), clock.set()),
        (vec![], None),
        "nothing is left to wait for"
    );
}

#[test]
fn a_clock_that_is_set_is_noticed_within_a_minute() {
    let clock = Clock::default();
    let ahead = Arc::new(Mutex::new(Duration::ZERO));
    let (wall, set) = (clock.clone(), ahead.clone());
    let rules = Rules::with_clock(|| Duration::ZERO, move || wall.now() + *set.lock().unwrap());
    let gate = Gate::new(rules.clone()).with_timer(clock.timer());
    let mut behaviour = gate.behaviour();
    let peers = [1, 2].map(|id| establish(&mut behaviour, id));
    let inserted = rules.change(|change| {
        change.insert(Rule::allow().peer(peers[0]).until(clock.now() + seconds(100_000)))?;
        change.block(peers[0])
    });
    inserted.unwrap();
    assert_eq!((closing(&mut behaviour), clock.set()), (vec![], Some(seconds(60))));
    *ahead.lock().unwrap() = seconds(200_000);
    clock.pass(seconds(60));
    assert_eq!(closing(&mut behaviour), [(peers[0], "block_peer".to_owned())]);
    // Back: a block that had expired by it holds again, and closes what came in meanwhile.
    let block = Rule::block().peer(peers[1]).until(clock.now() + seconds(100_000));
    rules.change(|change| change.insert(block)).unwrap();
    assert_eq!((closing(&mut behaviour), rules.expired().len()), (vec![], 2));
    *ahead.lock().unwrap() = Duration::ZERO;
    clock.pass(seconds(60));
    assert_eq!(closing(&mut behaviour), [(peers[1], "block_peer".to_owned())]);
    assert_eq!(rules.expired(), []);
}

/// In real Swarms, with the clock of the test.
#[tokio::test]
async fn a_swarm_closes_what_an_allow_let_in_when_that_expires() {
    let clock = Clock::default();
    let stack = Stack::Tcp;
    let mut dialer = Node::new(stack, Parts::default());
    let mut listener = Node::timed(stack, Parts::default(), clock.rules(), clock.timer());
    let (us, them) = (dialer.peer, listener.peer);
    listener.change(|change| {
        change.insert(Rule::allow().peer(us).until(clock.now() + seconds(3600)))?;
        change.block("127.0.0.0/8".parse::<Cidr>().unwrap())?;
        // So that it is let in as far as its peer is known.
        change.insert(
            Rule::allow()
                .peer(us)
                .network("127.0.0.0/8".parse::<Cidr>().unwrap())
                .until(clock.now() + seconds(3600)),
        )
    });
    connect(&mut dialer, &mut listener).await;
    for _ in 0..60 {
        clock.pass(seconds(60));
        // Whatever there is to do.
        while listener.next().now_or_never().is_some() {}
    }
    let mut reason = None;
    soon("closed at both ends", async {
        while dialer.swarm.is_connected(&them) || listener.swarm.is_connected(&us) {
            let event = next_of(&mut dialer, &mut listener).await.1;
            if let SwarmEvent::Behaviour(BehaviourEvent::Gate(Event::Closing { reason: why, .. })) = event {
                reason = Some(why.rule().to_owned());
            }
        }
    })
    .await;
    assert!(reason.is_none_or(|reason| reason == "block_network"));
}

/// With the system's clock and the crate's own timer.
#[tokio::test]
async fn an_allow_that_expires_ends_its_connections_without_any_change() {
    let stack = Stack::Tcp;
    let (mut dialer, mut listener) = (Node::new(stack, Parts::default()), Node::new(stack, Parts::default()));
    let (us, them) = (dialer.peer, listener.peer);
    listener.change(|change| {
        let until = SystemTime::now() + seconds(2);
        change.insert(
            Rule::allow()
                .network("127.0.0.0/8".parse::<Cidr>().unwrap())
                .until(until),
        )?;
        change.insert(Rule::block())
    });
    connect(&mut dialer, &mut listener).await;
    soon("closed at both ends", async {
        while dialer.swarm.is_connected(&them) || listener.swarm.is_connected(&us) {
            next_of(&mut dialer, &mut listener).await;
        }
    })
    .await;
}

/// Wants to be called every millisecond, and counts that.
#[derive(Clone, Default)]
struct Restless {
    calls: Arc<AtomicUsize>,
    panics: bool,
    changes: Changes,
}

impl ConnectionGater for Restless {
    fn tick(&self) -> Option<Duration> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics, "in a tick");
        Some(Duration::ZERO)
    }
    fn changes(&self) -> Vec<Changes> {
        vec![self.changes.clone()]
    }
}

struct Broken(bool);

impl Future for Broken {
    type Output = ();
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        panic!("a timer is polled");
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        assert!(!self.0, "a timer is dropped");
    }
}

#[tokio::test]
async fn a_timer_that_panics_is_replaced_by_the_crates_own() {
    for fault in 0..3 {
        let policy = Restless::default();
        let gate = Gate::new(policy.clone()).with_timer(move |_| {
            assert!(fault > 0, "no timer is made");
            Broken(fault == 2)
        });
        let mut behaviour = gate.behaviour();
        soon("many calls", async {
            let polled = |cx: &mut Context<'_>| match behaviour.poll(cx) {
                _ if policy.calls.load(Ordering::SeqCst) >= 5 => Poll::Ready(()),
                _ => Poll::Pending,
            };
            std::future::poll_fn(polled).await;
        })
        .await;
    }
}

#[test]
fn a_policy_that_panics_when_it_is_called_is_called_again_in_a_minute_and_at_its_wish() {
    let clock = Clock::default();
    let policy = Restless {
        panics: true,
        ..Restless::default()
    };
    for gate in [
        Gate::new(policy.clone()),
        Gate::new(FirstWins::new().with(policy.clone())),
    ] {
        let gate = gate.with_timer(clock.timer());
        let mut behaviour = gate.behaviour();
        let before = policy.calls.load(Ordering::SeqCst);
        let mut calls = || {
            assert_eq!(closing(&mut behaviour), []);
            policy.calls.load(Ordering::SeqCst) - before
        };
        assert_eq!((calls(), clock.set()), (1, Some(seconds(60))));
        clock.pass(seconds(59));
        assert_eq!(calls(), 1);
        clock.pass(seconds(1));
        assert_eq!((calls(), clock.set()), (2, Some(seconds(60))));
        policy.changes.rescheduled();
        assert_eq!((calls(), clock.set()), (3, Some(seconds(60))));
    }
}

#[test]
fn a_policy_that_wants_to_be_called_at_once_does_not_keep_its_swarm_from_other_work() {
    let policy = Restless::default();
    let mut behaviour = Gate::new(policy.clone()).behaviour();
    let started = std::time::Instant::now();
    while policy.calls.load(Ordering::SeqCst) < 5 {
        let before = policy.calls.load(Ordering::SeqCst);
        closing(&mut behaviour);
        assert!(
            policy.calls.load(Ordering::SeqCst) - before <= 1,
            "once in a turn at most"
        );
        assert!(started.elapsed() < PATIENCE, "it is not called again");
    }
}
