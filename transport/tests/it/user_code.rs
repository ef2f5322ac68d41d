//! Faults in every closure and trait object of the user's that this crate calls: it panics, calls
//! back, or drops what it was given. The listener goes on, and the caller in question is denied.

use crate::common::*;
use libp2p_core::transport::{ListenerId, TransportEvent};
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr, Transport as _};
use libp2p_identity::PeerId;
use libp2p_knock::unanswered::Heard;
use libp2p_knock::{Authenticated, Config, Error, Failure, Identity, SignError, Stage};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

type Tcp = libp2p::tcp::tokio::Transport;

/// Panics where it stands while it is on.
#[derive(Clone, Default)]
struct Fault(Arc<AtomicBool>);

impl Fault {
    fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }

    fn strike(&self) {
        assert!(!self.0.load(Ordering::Relaxed), "the user's own fault");
    }
}

/// What is counted, where it is.
#[derive(Default)]
struct Counted {
    #[cfg(feature = "metrics")]
    registry: prometheus_client::registry::Registry,
}

impl Counted {
    fn count(&mut self, config: Config) -> Config {
        #[cfg(feature = "metrics")]
        return config.with_metrics(&mut self.registry).unwrap();
        #[cfg(not(feature = "metrics"))]
        return config;
    }

    #[track_caller]
    fn is(&self, name: &str, expected: usize) {
        #[cfg(feature = "metrics")]
        assert_eq!(
            crate::metrics::value(&self.registry, &format!("libp2p_knock_{name}")) as usize,
            expected,
            "{name} in\n{}",
            crate::metrics::rendered(&self.registry)
        );
        #[cfg(not(feature = "metrics"))]
        let _ = (name, expected);
    }

    #[track_caller]
    fn panics(&self, hook: &str, expected: usize) {
        self.is(&format!("hook_panics_total{{hook=\"{hook}\"}}"), expected);
    }
}

/// Polled by its user, or on a task of its own.
fn transport(config: Config, own_task: bool) -> Authenticated<Tcp> {
    let transport = authenticated(config);
    if own_task {
        transport.with_executor(|task| drop(tokio::spawn(task)))
    } else {
        transport
    }
}

async fn listening(config: Config, own_task: bool) -> Victim {
    let peer = config.local_peer_id();
    listen(transport(config, own_task), peer, "/ip4/127.0.0.1/tcp/0/tls").await
}

async fn dial(dialing: Config, listener: &Victim) -> Result<(PeerId, Stream), Failure> {
    let dial = authenticated(dialing).dial(listener.address.clone(), dialer());
    soon("the dial", dial.unwrap()).await
}

/// A dial that goes through, and is seen to.
async fn is_let_in(seed: u8, listener: &mut Victim) {
    let (found, _stream) = dial(config(seed), listener).await.expect("let in");
    assert_eq!(found, peer(2));
    loop {
        if let Ok((caller, _)) = listener.upgraded().await {
            assert_eq!(caller, peer(seed));
            return;
        }
    }
}

fn short(config: Config) -> Config {
    config.dangerous().with_close_time(Duration::from_millis(300))
}

#[tokio::test]
async fn an_admission_hook_that_panics_denies_the_caller_and_the_listener_goes_on() {
    for own_task in [false, true] {
        let mut counted = Counted::default();
        let config_of_two = counted.count(short(config(2)).with_admission(|caller: &PeerId, _| {
            assert_ne!(*caller, peer(3), "the user's own fault");
            Ok(())
        }));
        let mut listener = listening(config_of_two, own_task).await;
        for times in 1..=3 {
            let failure = dial(config(3), &listener).await.expect_err("denied");
            // As every refusal looks: the end of a socket, nothing before it.
            assert_eq!(*unanswered(&failure).heard(), Heard::Closed);
            counted.is("knocks_total{outcome=\"denied\"}", times);
            counted.panics("admission", times);
        }
        is_let_in(1, &mut listener).await;
        counted.is("knocks_total{outcome=\"accepted\"}", 1);
        counted.panics("admission", 3);
    }
}

/// A denial is the hook's own value, and may fail as it goes.
#[derive(Debug, thiserror::Error)]
#[error("no")]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the user's own fault");
    }
}

#[tokio::test]
async fn a_denial_that_panics_as_it_is_dropped_is_a_denial() {
    let mut counted = Counted::default();
    let hook = |caller: &PeerId, _: &ConnectedPoint| {
        if *caller == peer(3) { Err(Bomb.into()) } else { Ok(()) }
    };
    let mut listener = listening(counted.count(short(config(2)).with_admission(hook)), true).await;
    dial(config(3), &listener).await.expect_err("denied");
    counted.is("knocks_total{outcome=\"denied\"}", 1);
    counted.panics("admission", 1);
    is_let_in(1, &mut listener).await;
}

#[tokio::test]
async fn a_caller_that_a_panic_denies_gets_no_byte_and_the_usual_close_time() {
    let hook = |_: &PeerId, _: &ConnectedPoint| panic!("the user's own fault");
    let listener = listening(short(old(2)).with_admission(hook), true).await;
    let flight = [&knock(3, 2)[..], b"\x16\x03\x01 and so on"].concat();
    let (answer, after) = listener.probe(&flight).await;
    assert!(answer.is_empty());
    assert!(after >= Duration::from_millis(300), "{after:?}");
}

/// In the listening half of a hole punch our own dial fails, with a denial.
#[tokio::test]
async fn an_admission_hook_that_panics_in_a_hole_punch_fails_that_dial_as_a_denial() {
    let mut counted = Counted::default();
    let hook = |_: &PeerId, _: &ConnectedPoint| panic!("the user's own fault");
    let awaiting = counted.count(config(2).with_handshake_timeout(Duration::from_millis(500)));
    let awaiting = awaiting.with_admission(hook);
    let trap = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/{}/tcp/{}", "127.0.0.1", trap.local_addr().unwrap().port());
    let to_us: Multiaddr = format!("{address}/tls/p2p/{}", peer(1)).parse().unwrap();
    let punching = authenticated(awaiting).dial(to_us, opts(Endpoint::Listener)).unwrap();
    let punching = tokio::spawn(punching);
    let (mut there, _) = soon("the connect", trap.accept()).await.unwrap();
    // The other end knocks at us, by way of a second socket.
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at: Multiaddr = format!(
        "/ip4/127.0.0.1/tcp/{}/tls/p2p/{}",
        relay.local_addr().unwrap().port(),
        peer(2)
    )
    .parse()
    .unwrap();
    let knocking = tokio::spawn(authenticated(config(1)).dial(at, dialer()).unwrap());
    let (mut here, _) = soon("the knock", relay.accept()).await.unwrap();
    let joined = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut here, &mut there).await });
    let failure = soon("the dial", punching).await.unwrap().expect_err("denied");
    assert!(matches!(failure.error(), Error::Denied(_)), "{failure:?}");
    counted.panics("admission", 1);
    knocking.abort();
    joined.abort();
}

#[tokio::test]
async fn a_secured_hook_that_panics_denies_that_connection_on_either_side() {
    let mut counted = Counted::default();
    let hook = |_: &PeerId, _: &ConnectedPoint| panic!("the user's own fault");
    let mut listener = listening(counted.count(config(2).with_secured_hook(hook)), true).await;
    let dialled = dial(config(1), &listener).await;
    let error = listener.error().await;
    assert!(matches!(error, Error::Denied(_)), "{error:?}");
    counted.panics("secured", 1);
    counted.is(
        "handshakes_total{role=\"listener\",outcome=\"denied\",group=\"x25519mlkem768\"}",
        1,
    );
    drop(dialled);

    let mut counted = Counted::default();
    let mut listener = listening(config(2), true).await;
    let failure = dial(counted.count(config(1).with_secured_hook(hook)), &listener).await;
    let failure = failure.expect_err("denied");
    assert!(matches!(failure.error(), Error::Denied(_)), "{failure:?}");
    assert_eq!(failure.stage(), Stage::Secured);
    counted.panics("secured", 1);
    counted.is("dials_total{outcome=\"denied\"}", 1);
    let _ = listener.upgraded().await;
    is_let_in(3, &mut listener).await;
}

/// Until the other one is in, which is not to wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_secured_hook_delays_its_own_connection_alone() {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let (asked, is_asked) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let hook = move |caller: &PeerId, _: &ConnectedPoint| {
        if *caller == peer(3) {
            asked.send(())?;
            // Tokio does not let others steal what a blocked thread was about to run.
            tokio::task::block_in_place(|| wait.lock().unwrap().recv_timeout(PATIENCE))?;
        }
        Ok(())
    };
    let mut listener = listening(config(2).with_secured_hook(hook), true).await;
    let address = listener.address.clone();
    let slow = tokio::spawn(authenticated(config(3)).dial(address, dialer()).unwrap());
    tokio::task::spawn_blocking(move || is_asked.recv_timeout(PATIENCE).unwrap())
        .await
        .unwrap();
    is_let_in(1, &mut listener).await;
    go_on.send(()).unwrap();
    soon("the slow one", slow).await.unwrap().expect("let in");
    assert_eq!(listener.upgraded().await.unwrap().0, peer(3));
}

/// A clock that shows nothing refuses every knock, as one that is wrong does, and lets no knock of
/// ours be made.
#[tokio::test]
async fn a_clock_that_panics_refuses_what_it_should_have_judged_and_nothing_else() {
    let (fault, mut counted) = (Fault::default(), Counted::default());
    let clock = fault.clone();
    let config_of_two = short(config(2)).dangerous().with_clock(move || {
        clock.strike();
        SystemTime::now()
    });
    let config_of_two = counted.count(config_of_two.unwrap());
    let mut listener = listening(config_of_two.clone(), true).await;
    is_let_in(1, &mut listener).await;
    fault.set(true);
    dial(config(3), &listener).await.expect_err("refused");
    counted.is("knocks_total{outcome=\"refused_time\"}", 1);
    let other = listening(config(2), true).await;
    let mut dialling = authenticated(config_of_two.clone());
    let address = other
        .address
        .to_string()
        .replace(&peer(2).to_string(), &peer(4).to_string());
    let failure = soon("the dial", dialling.dial(address.parse().unwrap(), dialer()).unwrap()).await;
    let failure = failure.expect_err("no knock without a time");
    assert!(matches!(failure.error(), Error::Seal(_)), "{failure:?}");
    fault.set(false);
    is_let_in(3, &mut listener).await;
}

#[derive(Debug)]
struct PanickingLog(Arc<AtomicUsize>, bool);

impl rustls::KeyLog for PanickingLog {
    fn log(&self, _: &str, _: &[u8], _: &[u8]) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("the user's own fault");
    }

    fn will_log(&self, _: &str) -> bool {
        assert!(self.1, "the user's own fault");
        true
    }
}

#[tokio::test]
async fn a_key_log_that_panics_logs_nothing_and_the_connection_stands() {
    for will in [true, false] {
        let (asked, mut counted) = (Arc::<AtomicUsize>::default(), Counted::default());
        let log = |config: Config| {
            config
                .dangerous()
                .with_key_log(Arc::new(PanickingLog(asked.clone(), will)))
        };
        let mut listener = listening(counted.count(log(config(2))), true).await;
        let (found, _stream) = dial(log(config(1)), &listener).await.expect("a connection");
        assert_eq!(found, peer(2));
        assert_eq!(listener.upgraded().await.unwrap().0, peer(1));
        assert_eq!(asked.load(Ordering::Relaxed) > 0, will);
        #[cfg(feature = "metrics")]
        assert!(crate::metrics::value(&counted.registry, "libp2p_knock_hook_panics_total{hook=\"key_log\"}") > 0.0);
        let _ = &counted;
    }
}

/// An identity whose parts fail on demand.
struct Faulty {
    whole: Arc<dyn Identity>,
    sign: Fault,
    agree: Fault,
}

impl Identity for Faulty {
    fn public_key(&self) -> [u8; 32] {
        self.whole.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        self.sign.strike();
        self.whole.sign(message)
    }

    fn agree(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        self.agree.strike();
        self.whole.agree(peer)
    }
}

#[tokio::test]
async fn an_identity_that_panics_fails_the_connection_at_hand_and_nothing_else() {
    let (sign, agree, mut counted) = (Fault::default(), Fault::default(), Counted::default());
    let identity = Arc::new(Faulty {
        whole: config(2).identity().clone(),
        sign: sign.clone(),
        agree: agree.clone(),
    });
    let config_of_two = counted.count(short(Config::with_identity(identity).unwrap()));
    let mut listener = listening(config_of_two.clone(), true).await;
    let other = listening(config(4), true).await;
    let (old, sealed) = (
        config_of_two.clone().with_version(libp2p_knock::Version::V2).unwrap(),
        config_of_two,
    );
    is_let_in(1, &mut listener).await;

    // In the door, where a knock is opened: it is refused as one that does not open.
    agree.set(true);
    dial(config(3), &listener).await.expect_err("refused");
    counted.is("knocks_total{outcome=\"refused_noise\"}", 1);
    counted.panics("agree", 1);
    let failure = dial(sealed.clone(), &other).await.expect_err("no knock");
    assert!(matches!(failure.error(), Error::Seal(_)), "{failure:?}");
    counted.panics("agree", 2);
    agree.set(false);

    // In the handshake, on either side, and in a knock of version 2.
    sign.set(true);
    dial(config(3), &listener).await.expect_err("refused");
    let error = listener.error().await;
    assert!(matches!(error, Error::Tls(_)), "{error:?}");
    let failure = dial(sealed.clone(), &other).await.expect_err("no signature");
    assert!(matches!(failure.error(), Error::Tls(_)), "{failure:?}");
    let failure = dial(old, &other).await.expect_err("no knock");
    assert!(matches!(failure.error(), Error::Sign(_)), "{failure:?}");
    counted.panics("sign", 3);
    sign.set(false);
    is_let_in(3, &mut listener).await;
    dial(sealed, &other).await.expect("all is well again");
}

#[tokio::test]
async fn an_identity_that_panics_while_it_is_configured_reaches_its_caller() {
    let sign = Fault::default();
    sign.set(true);
    let identity = Arc::new(Faulty {
        whole: config(2).identity().clone(),
        sign: sign.clone(),
        agree: Fault::default(),
    });
    let make = || Config::with_identity(identity.clone());
    catch_unwind(AssertUnwindSafe(make)).expect_err("the user's own fault");
    sign.set(false);
    make().expect("nothing is left of it");
}

/// The executor is asked inside `listen_on`, so its panic reaches the caller of that, and nothing
/// is left listening.
#[tokio::test]
async fn an_executor_that_panics_reaches_the_caller_of_listen_on_and_leaves_nothing_behind() {
    let mut calls = 0;
    let mut transport = authenticated(config(2)).with_executor(move |task| {
        calls += 1;
        assert_ne!(calls, 1, "the user's own fault");
        drop(tokio::spawn(task));
    });
    let port = free_port();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}/tls").parse().unwrap();
    let first = catch_unwind(AssertUnwindSafe(|| {
        transport.listen_on(ListenerId::next(), address.clone())
    }));
    first.expect_err("the user's own fault");
    std::net::TcpListener::bind(("127.0.0.1", port)).expect("nobody listens");
    transport.listen_on(ListenerId::next(), address).expect("works now");
    let listener = running(transport).await;
    let dial = authenticated(config(1)).dial(listener, dialer()).unwrap();
    soon("the dial", dial).await.expect("let in");
}

fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    probe.local_addr().unwrap().port()
}

/// Polls it from now on, upgrades included. Its address.
async fn running(mut transport: Authenticated<Tcp>) -> Multiaddr {
    let event = soon("an address", next(&mut transport)).await;
    let address = event.into_new_address().expect("an address");
    tokio::spawn(async move {
        loop {
            if let TransportEvent::Incoming { upgrade, .. } = next(&mut transport).await {
                tokio::spawn(upgrade);
            }
        }
    });
    address.with_p2p(peer(2)).unwrap()
}

async fn next<T: libp2p_core::Transport + Unpin>(transport: &mut T) -> TransportEvent<T::ListenerUpgrade, T::Error> {
    futures::future::poll_fn(|cx| Pin::new(&mut *transport).poll(cx)).await
}

/// One that drops its task, as a runtime that is being shut down does.
#[tokio::test]
async fn an_executor_that_drops_the_task_is_told_as_a_closed_listener_and_the_next_one_works() {
    let mut calls = 0;
    let mut transport = authenticated(config(2)).with_executor(move |task| {
        calls += 1;
        if calls > 1 {
            drop(tokio::spawn(task));
        }
    });
    let (id, port) = (ListenerId::next(), free_port());
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}/tls").parse().unwrap();
    transport.listen_on(id, address.clone()).unwrap();
    let closed = soon("its end", next(&mut transport)).await;
    let TransportEvent::ListenerClosed { listener_id, reason } = closed else {
        panic!("{closed:?}");
    };
    assert_eq!(listener_id, id);
    let reason = reason.expect_err("not on demand");
    assert!(matches!(reason.error(), Error::ListenersEnded), "{reason:?}");
    std::net::TcpListener::bind(("127.0.0.1", port)).expect("nobody listens");
    transport.listen_on(ListenerId::next(), address).expect("works now");
    let listener = running(transport).await;
    let dial = authenticated(config(1)).dial(listener, dialer()).unwrap();
    soon("the dial", dial).await.expect("let in");
}

/// The hook calls back into all that it can reach.
#[tokio::test]
async fn a_hook_that_calls_back_returns() {
    let reached = Arc::<Mutex<Option<Config>>>::default();
    let calls = Arc::<AtomicUsize>::default();
    let (inside, count) = (reached.clone(), calls.clone());
    let back = move |_: &PeerId, _: &ConnectedPoint| {
        let Some(config) = inside.lock().unwrap().clone() else {
            return Ok(());
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut another = transport(config, true);
        let id = ListenerId::next();
        another.listen_on(id, "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap())?;
        let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/1/tls/p2p/{}", peer(9)).parse().unwrap();
        drop(another.dial(address, dialer())?);
        assert!(another.remove_listener(id));
        Ok(())
    };
    let config_of_two = config(2).with_admission(back.clone()).with_secured_hook(back);
    let mut listener = listening(config_of_two.clone(), true).await;
    *reached.lock().unwrap() = Some(config_of_two);
    is_let_in(1, &mut listener).await;
    assert_eq!(calls.load(Ordering::Relaxed), 2, "both hooks");
    *reached.lock().unwrap() = None;
}

/// A subscriber to the log is called by this crate too. What it does must not meet a lock of ours.
#[cfg(all(feature = "internals", feature = "metrics"))]
#[test]
fn a_listener_to_the_log_may_call_back() {
    use crate::attacks::{client_hello, sealed_at};
    use libp2p_knock::internals::{Doorkeeper, Verdict};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    struct CallsBack(Arc<Doorkeeper>, Vec<u8>, Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> Layer<S> for CallsBack {
        fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
            self.2.fetch_add(1, Ordering::Relaxed);
            let remote = "/ip4/192.0.2.7/tcp/1".parse().unwrap();
            let (verdict, _) = self.0.hear(&remote, [&self.1[..]]);
            assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
        }
    }

    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let doorkeeper = Arc::new(Doorkeeper::new(config(2)));
        std::thread::sleep(Duration::from_millis(5));
        let knock = sealed_at(1, 2, SystemTime::now(), &client_hello());
        let late = sealed_at(1, 2, SystemTime::now() - Duration::from_secs(500), &client_hello());
        let told = Arc::<AtomicUsize>::default();
        let calls_back = CallsBack(doorkeeper.clone(), knock.clone(), told.clone());
        let subscriber = tracing_subscriber::registry().with(calls_back);
        let remote = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let verdicts = tracing::subscriber::with_default(subscriber, || {
            [&knock, &knock, &late].map(|knock| doorkeeper.hear(&remote, [&knock[..]]).0)
        });
        assert!(
            matches!(
                verdicts,
                [Verdict::Answered(_), Verdict::Refused(_), Verdict::Refused(_)]
            ),
            "{verdicts:?}"
        );
        ended.send(told.load(Ordering::Relaxed)).unwrap();
    });
    let told = end.recv_timeout(PATIENCE).expect("it waits for itself");
    assert_eq!(told, 2, "a replay and a clock");
}

#[cfg(feature = "metrics")]
#[test]
fn every_hook_is_counted_from_the_start() {
    let mut counted = Counted::default();
    let _config = counted.count(config(2));
    let text = crate::metrics::rendered(&counted.registry);
    for hook in ["admission", "secured", "clock", "key_log", "sign", "agree", "inner"] {
        let line = format!("libp2p_knock_hook_panics_total{{hook=\"{hook}\"}} 0\n");
        assert!(text.contains(&line), "{line} in\n{text}");
    }
}
