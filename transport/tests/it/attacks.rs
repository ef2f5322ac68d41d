//! Attacks on a listener, of each of which one can say beforehand who has to know what to try it. What is common to them
//! is here: a target that counts, dials that are caught on their way, and knocks made by hand.

mod after_the_knock;
mod clocks;
mod floods;
mod forgeries;
mod on_the_way;
mod replays;
mod restarts;
mod slow;

use crate::common::*;
use crate::metrics::value;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use libp2p_core::Transport as _;
use libp2p_knock::internals::{Callee, Fresh, Gate, HEAD, Hedged, StaticKey, local, seal};
use libp2p_knock::{Config, Failure, Identity, Mode, Network};
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How long the targets below leave a stranger alone, in place of minutes.
pub(crate) const CLOSE: Duration = Duration::from_millis(700);
/// The same where something is to be answered before, on a machine that may be busy.
pub(crate) const LATE: Duration = Duration::from_secs(2);

/// The type of every TLS record of a server's first flight.
pub(crate) const HANDSHAKE: u8 = 22;
/// That of an alert.
pub(crate) const ALERT: u8 = 21;

/// A listener that counts what becomes of whoever comes.
pub(crate) struct Target {
    pub(crate) listener: Victim,
    pub(crate) config: Config,
    pub(crate) close: Duration,
    registry: Registry,
}

impl Target {
    /// One that closes after [`CLOSE`].
    pub(crate) async fn new(config: Config) -> Self {
        Self::closing_after(CLOSE, config).await
    }

    pub(crate) async fn closing_after(time: Duration, config: Config) -> Self {
        let mut registry = Registry::default();
        // A knock has to be younger than the process that it is for, by a millisecond or two.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let config = config
            .dangerous()
            .with_close_time(time)
            .with_metrics(&mut registry)
            .unwrap();
        Self {
            listener: victim(config.clone()).await,
            config,
            close: time,
            registry,
        }
    }

    /// How many knocks, or sockets without one, ended so.
    pub(crate) fn knocks(&self, outcome: &str) -> usize {
        self.value(&format!("knocks_total{{outcome=\"{outcome}\"}}"))
    }

    /// All of it, for a message.
    pub(crate) fn all(&self) -> String {
        let text = crate::metrics::rendered(&self.registry);
        let knocks = text.lines().filter(|line| line.contains("knocks_total{"));
        knocks.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn value(&self, name: &str) -> usize {
        value(&self.registry, &format!("libp2p_knock_{name}")) as usize
    }

    /// Sends `bytes` and sees nothing of the listener before its close time, and then an ordinary end. Within a moment of
    /// that the listener says that it was `outcome`, once more than before.
    pub(crate) async fn is_silent_to(&self, bytes: &[u8], outcome: &str) {
        self.is_silent_to_all(&[bytes], outcome).await;
    }

    /// The same for many at once.
    pub(crate) async fn is_silent_to_all(&self, all: &[impl AsRef<[u8]>], outcome: &str) {
        let before = self.knocks(outcome);
        let probes = all.iter().map(|bytes| self.listener.probe(bytes.as_ref()));
        for (n, (answer, after)) in futures::future::join_all(probes).await.into_iter().enumerate() {
            assert!(answer.is_empty(), "{outcome}, {n}: {} bytes back", answer.len());
            assert!(after >= self.close, "{outcome}, {n}: closed after {after:?}");
        }
        assert_eq!(self.knocks(outcome), before + all.len(), "{outcome}: {}", self.all());
    }

    /// An honest dial goes through.
    pub(crate) async fn lets_in(&mut self, dialer: Config) {
        let _ = self.answers(dialer).await;
    }

    /// An honest dial goes through. What was answered is returned.
    ///
    /// The close times here are so short that a machine that does something else for a while may miss one, so it is tried
    /// a few times.
    pub(crate) async fn answers(&mut self, dialer: Config) -> Vec<u8> {
        let who = dialer.local_peer_id();
        let mut failures = Vec::new();
        while failures.len() < 3 {
            let caught = catch(dialer.clone(), 2).await;
            let flight = caught.flight.clone();
            match caught.let_go(self.listener.socket.expect("TCP")).await {
                Ok((found, _theirs)) => {
                    assert_eq!(found, self.config.local_peer_id());
                    assert_eq!(self.next_in().await, who);
                    return flight;
                }
                Err(failure) => failures.push(failure),
            }
        }
        panic!("an honest dial: {failures:?}");
    }

    /// Who came in next; whoever failed before does not matter here.
    pub(crate) async fn next_in(&mut self) -> libp2p_core::PeerId {
        loop {
            if let Ok((caller, _ours)) = self.listener.upgraded().await {
                return caller;
            }
        }
    }
}

/// Dials `listener` as `config` says. Its patience is the listener's, or refusals would take seconds.
pub(crate) fn dial(
    config: Config,
    listener: &Victim,
) -> BoxFuture<'static, Result<(libp2p_core::PeerId, Stream), Failure>> {
    authenticated(config)
        .dial(listener.address.clone(), dialer())
        .expect("an address to dial")
        .boxed()
}

/// Waits until `done`, which something that runs is about to make true.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    soon(what, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A dial of an honest peer's that got no further than the attacker.
pub(crate) struct Caught {
    /// All that the dialer wrote: head and sealed flight.
    pub(crate) flight: Vec<u8>,
    /// The attacker's end of the dialer's socket.
    pub(crate) socket: TcpStream,
    pub(crate) dial: tokio::task::JoinHandle<Result<(libp2p_core::PeerId, Stream), Failure>>,
}

/// Has `dialer` dial `target`, and stands in between.
pub(crate) async fn catch(dialer: Config, target: u8) -> Caught {
    catch_in(dialer, target, &Network::open()).await
}

pub(crate) async fn catch_in(dialer: Config, target: u8, network: &Network) -> Caught {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!(
        "/ip4/127.0.0.1/tcp/{}/tls/p2p/{}",
        trap.local_addr().unwrap().port(),
        peer(target)
    );
    // It may be held for a while.
    let dial = authenticated(dialer.with_handshake_timeout(PATIENCE))
        .dial(address.parse().unwrap(), crate::common::dialer())
        .unwrap();
    let dial = tokio::spawn(dial);
    let (mut socket, _) = soon("the dial", trap.accept()).await.unwrap();
    // How long the flight is says the head, to whoever has the target's key, and the test has.
    let mut flight = vec![0; HEAD];
    soon("the head", socket.read_exact(&mut flight)).await.unwrap();
    let gate = Gate::new(own(target), network);
    let boxed = gate
        .open_box(flight.first_chunk().unwrap())
        .expect("a knock at the target");
    // Some dialers here have a clock that is an hour off.
    let now = millis(SystemTime::now());
    let clocks = [now, now - 3_600_000, now + 3_600_000];
    let opened = clocks.iter().find_map(|now| boxed.open(&gate, *now, 0).ok());
    flight.resize(HEAD + opened.expect("by one of these clocks").sealed_len(), 0);
    soon("the flight", socket.read_exact(&mut flight[HEAD..]))
        .await
        .unwrap();
    Caught { flight, socket, dial }
}

impl Caught {
    /// Lets the dial go on to `listener`, flight and all, and says how it ended for the dialer.
    pub(crate) async fn let_go(mut self, listener: SocketAddr) -> Result<(libp2p_core::PeerId, Stream), Failure> {
        let mut onward = TcpStream::connect(listener).await.unwrap();
        onward.write_all(&self.flight).await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut self.socket, &mut onward).await });
        soon("the dial", self.dial).await.expect("no panic")
    }
}

pub(crate) fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

pub(crate) fn own(seed: u8) -> StaticKey {
    StaticKey::new(local(&keypair(seed)).expect("Ed25519")).expect("agrees")
}

pub(crate) fn callee(seed: u8) -> Callee {
    Callee::of_peer(&peer(seed)).expect("Ed25519")
}

pub(crate) fn fresh() -> Fresh {
    let identity: Arc<dyn Identity> = local(&keypair(77)).expect("Ed25519");
    Hedged::new(&*identity).expect("signs").fresh().expect("random bytes")
}

/// What an insider's knock says when nothing else is asked for.
pub(crate) fn sealed_at(from: u8, to: u8, time: SystemTime, flight: &[u8]) -> Vec<u8> {
    let (network, mode) = (Network::open(), Mode::Yamux);
    seal(&own(from), &callee(to), &network, mode, millis(time), fresh(), flight).expect("seals")
}

/// A ClientHello that any of our listeners would answer.
pub(crate) fn client_hello() -> Vec<u8> {
    let mut hello = Vec::new();
    let mut client = gullible_client(&rustls::version::TLS13, Some((1, 1)));
    client.write_tls(&mut hello).unwrap();
    hello
}

/// The types of the TLS records in `bytes`, the last of which may be cut.
pub(crate) fn record_types(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [kind, 3, _, high, low, rest @ ..] = bytes {
        types.push(*kind);
        bytes = rest
            .get(usize::from(u16::from_be_bytes([*high, *low]))..)
            .unwrap_or_default();
    }
    types
}

/// Probes with each of `all` at once, at most so many at a time. Says what came back.
pub(crate) async fn probe_all(listener: &Victim, all: Vec<Vec<u8>>, at_once: usize) -> Vec<Vec<u8>> {
    let probes = all
        .into_iter()
        .map(|bytes| async move { listener.probe(&bytes).await.0 });
    futures::stream::iter(probes).buffered(at_once).collect().await
}
