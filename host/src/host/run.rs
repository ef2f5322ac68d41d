//! The host's task: what comes in, whom to dial, and the end of all of it.

use super::address;
use super::tcp::{Io, Listening, Tcp};
use crate::config::{Admission, HostConfig};
use crate::counters::HostCounters;
use crate::discovery::Discoverer;
use crate::engine::dial::DialPlan;
use crate::error::StartError;
use crate::limits::MAX_PEERS_PER_HOST;
use crate::link::Link;
use crate::peers::{Need, Registry, chance};
use crate::unreached::{NO_ADDRESS, Reason, Unreached};
use crate::user_code::Hook;
use libp2p_core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p_core::{Endpoint, Multiaddr, Transport as _};
use libp2p_identity::PeerId;
use libp2p_knock::{Authenticated, Error, Failure, TlsStream};
use rand::rngs::StdRng;
use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

type Transport = Authenticated<Tcp>;
type Upgrade = <Transport as libp2p_core::Transport>::ListenerUpgrade;
type Event = TransportEvent<Upgrade, Failure>;
type Secured = (PeerId, TlsStream<Io>);

/// For the discoverer to close.
const TO_CLOSE: Duration = Duration::from_secs(5);

/// There is no stream to the peer that knocks.
#[derive(Debug, thiserror::Error)]
#[error("there is no stream to this peer")]
struct NoStream;

/// An admission hook panicked.
#[derive(Debug, thiserror::Error)]
#[error("the admission hook panicked")]
struct Panicked;

/// What a task of the host has come to.
enum Done {
    /// What the discoverer knows of a peer.
    Found(PeerId, Vec<Multiaddr>),
    /// Where a peer can be dialled, its names looked up.
    Resolved(PeerId, Vec<Multiaddr>),
    /// A round of dials: where one was successful, or why none was.
    Dialled(PeerId, Result<(Multiaddr, Secured), Reason>),
    /// An inbound handshake.
    Secured(Secured),
    /// A connection, or an inbound handshake that failed: nothing is left to do.
    Ended,
}

pub(super) struct Driver {
    registry: Arc<Registry>,
    discoverer: Arc<dyn Discoverer>,
    transport: Transport,
    listening: Listening,
    /// Where it can be reached, by the listener.
    reached: Vec<(ListenerId, Multiaddr)>,
    listen: Vec<Multiaddr>,
    dial_timeout: Duration,
    plan: DialPlan,
    unreached: Unreached,
    /// The peers that the discoverer is being asked about.
    asking: HashSet<PeerId>,
    rng: StdRng,
    tasks: JoinSet<Done>,
}

impl Driver {
    pub(super) fn new(
        config: HostConfig,
        registry: Arc<Registry>,
        discoverer: Arc<dyn Discoverer>,
        listening: Listening,
    ) -> Self {
        let tcp = Tcp::new(listening.clone(), registry.counters.clone());
        let dial_timeout = config.dial_timeout();
        let admission = admission(registry.clone(), config.admission);
        // In addition to the hooks that the configuration has, which are asked first.
        let knock = config.knock.with_admission(move |peer, point| admission(peer, point));
        Self {
            unreached: Unreached::new(registry.clone()),
            transport: Authenticated::new(tcp, knock).with_executor(|task| drop(tokio::spawn(task))),
            registry,
            discoverer,
            listening,
            reached: Vec::new(),
            listen: config.listen,
            dial_timeout,
            plan: DialPlan::new(config.dial_interval),
            asking: HashSet::new(),
            rng: chance(),
            tasks: JoinSet::new(),
        }
    }

    /// Returns when every address is listened on.
    pub(super) async fn listen(&mut self) -> Result<(), StartError> {
        let local = self.registry.local();
        let mut waiting = HashMap::new();
        for address in &self.listen {
            let id = ListenerId::next();
            let listening = self.transport.listen_on(id, address::listening(address, &local));
            listening.map_err(|error| not_listening(address.clone(), error))?;
            waiting.insert(id, address.clone());
        }
        while !waiting.is_empty() {
            match poll_fn(|cx| Pin::new(&mut self.transport).poll(cx)).await {
                TransportEvent::NewAddress {
                    listener_id,
                    listen_addr,
                } => {
                    if let Some(configured) = waiting.remove(&listener_id) {
                        let bound = address::bound(&configured, &listen_addr, &local);
                        self.registry.bound().push(bound);
                    }
                    self.reached.push((listener_id, listen_addr));
                    self.show_reached();
                }
                TransportEvent::ListenerClosed {
                    listener_id,
                    reason: Err(error),
                } if waiting.contains_key(&listener_id) => {
                    let address = waiting.remove(&listener_id).unwrap_or_else(Multiaddr::empty);
                    return Err(not_listening(address, TransportError::Other(error)));
                }
                event => self.event(event),
            }
        }
        Ok(())
    }

    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            let next = self.plan.next();
            let timer = async move {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let Self {
                transport,
                registry,
                tasks,
                ..
            } = &mut self;
            tokio::select! {
                // Also when the host was dropped.
                _ = stopped.wait_for(|stop| *stop) => break,
                event = poll_fn(|cx| Pin::new(&mut *transport).poll(cx)) => self.event(event),
                (peer, need) = poll_fn(|cx: &mut Context<'_>| registry.poll_changed(cx)) => self.see_to(peer, need),
                Some(done) = tasks.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(error) => tracing::error!(%error, "a connection's task ended badly"),
                },
                () = timer => self.dial(),
            }
        }
        self.shut_down().await;
    }

    fn event(&mut self, event: Event) {
        match event {
            TransportEvent::Incoming { upgrade, .. } => {
                let counters = self.registry.counters.clone();
                self.tasks.spawn(async move {
                    match counters.hook_panics.poll(Hook::Handshake, upgrade).await {
                        Some(Ok(secured)) => Done::Secured(secured),
                        Some(Err(failure)) => {
                            tracing::debug!(error = failure.error() as &dyn std::error::Error, "inbound handshake");
                            Done::Ended
                        }
                        None => Done::Ended,
                    }
                });
            }
            TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            } => {
                self.reached.push((listener_id, listen_addr));
                self.show_reached();
            }
            TransportEvent::AddressExpired {
                listener_id,
                listen_addr,
            } => {
                let expired = (listener_id, listen_addr);
                self.reached.retain(|known| *known != expired);
                self.show_reached();
            }
            TransportEvent::ListenerClosed { listener_id, reason } => {
                self.reached.retain(|(listener, _)| *listener != listener_id);
                self.show_reached();
                tracing::error!(?reason, "a listener ended");
            }
            TransportEvent::ListenerError { error, .. } => {
                self.registry.counters.inbound_dials.one();
                tracing::warn!(%error, "accepting");
            }
        }
    }

    fn show_reached(&self) {
        let addresses = self.reached.iter().map(|(_, address)| address.clone());
        *self.registry.listening() = addresses.collect();
    }

    fn see_to(&mut self, peer: PeerId, need: Need) {
        match need {
            Need::Connection => self.plan.want(peer, Instant::now(), &mut self.rng),
            Need::Nothing => self.plan.satisfied(&peer),
            Need::Forget => {
                self.plan.forget(&peer);
                self.unreached.forget(&peer);
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Found(peer, found) => {
                self.asking.remove(&peer);
                self.found(peer, found);
            }
            Done::Resolved(peer, found) => self.dial_one_of(peer, found),
            Done::Dialled(peer, secured) => {
                match secured {
                    Ok((address, secured)) => {
                        self.plan.worked(&peer, address);
                        self.connected(secured, true);
                    }
                    Err(reason) => self.unreached.warn(peer, || Some(reason)),
                }
                // Now, or the next round may begin before it is seen that none is needed.
                self.see_to(peer, self.registry.need(&peer));
                self.plan.finished(peer);
            }
            Done::Secured(secured) => self.connected(secured, false),
            Done::Ended => {}
        }
    }

    fn connected(&mut self, (peer, stream): Secured, outbound: bool) {
        let Some(lease) = self.registry.arrived(&peer, outbound) else {
            tracing::debug!(%peer, outbound, "refused a connection");
            return;
        };
        let meter = stream.get_ref().meter().clone();
        meter.bind(lease.shared().clone());
        let link = Link::new(stream, lease, Some(meter));
        self.tasks.spawn(async move {
            let end = link.await;
            tracing::debug!(%peer, outbound, error = &end as &dyn std::error::Error, "a connection ended");
            Done::Ended
        });
    }

    /// Begins a round of dials to each peer that is due.
    fn dial(&mut self) {
        let now = Instant::now();
        while let Some(peer) = self.plan.due(now, &mut self.rng) {
            // The peer may have dialled us a moment ago. A discoverer that does not answer is not
            // asked about the same peer again, and takes so many threads at most.
            let needed = self.registry.need(&peer) == Need::Connection;
            if !needed || self.asking.len() >= MAX_PEERS_PER_HOST || !self.asking.insert(peer) {
                self.plan.finished(peer);
                continue;
            }
            let (discoverer, counters) = (self.discoverer.clone(), self.registry.counters.clone());
            self.tasks.spawn(async move {
                let asked = counters
                    .hook_panics
                    .poll(Hook::FindPeer, ask(discoverer, peer, counters.clone()));
                let found = asked.await;
                Done::Found(peer, found.unwrap_or_default())
            });
        }
    }

    /// What the discoverer has answered. Names are looked up first.
    fn found(&mut self, peer: PeerId, found: Vec<Multiaddr>) {
        let known = found.iter().filter_map(|address| address::dialling(address, &peer));
        let known: Vec<Multiaddr> = known.collect();
        if !known.iter().any(address::is_name) {
            return self.dial_one_of(peer, known);
        }
        let timeout = self.dial_timeout;
        self.tasks.spawn(async move {
            let found = known.into_iter().map(|address| async move {
                let found = tokio::time::timeout(timeout, address::resolved(address)).await;
                found.unwrap_or_default()
            });
            Done::Resolved(peer, futures::future::join_all(found).await.concat())
        });
    }

    /// One after the other, until one answers.
    fn dial_one_of(&mut self, peer: PeerId, found: Vec<Multiaddr>) {
        // Where nothing is known no address is made up.
        if found.is_empty() {
            self.unreached.warn(peer, || Some(Reason::new(NO_ADDRESS)));
        }
        // The peer may have been forgotten while the discoverer was asked.
        if !self.plan.is_busy(&peer) || found.is_empty() {
            return self.plan.finished(peer);
        }
        let addresses = self.plan.order(&peer, found);
        // None of them does anything before it is polled.
        let dials = addresses.into_iter().filter_map(|address| {
            let opts = DialOpts {
                role: Endpoint::Dialer,
                port_use: PortUse::New,
            };
            match self.transport.dial(address.clone(), opts) {
                Ok(dial) => Some((address, dial)),
                Err(error) => {
                    tracing::debug!(%address, %error, "cannot be dialled");
                    None
                }
            }
        });
        let dials: Vec<_> = dials.collect();
        let (timeout, counters) = (self.dial_timeout, self.registry.counters.clone());
        self.tasks.spawn(async move {
            let panics = &counters.hook_panics;
            let mut why = Reason::new("no address of the peer can be dialled");
            for (address, dial) in dials {
                let reason = match tokio::time::timeout(timeout, panics.poll(Hook::Handshake, dial)).await {
                    Ok(Some(Ok(secured))) => return Done::Dialled(peer, Ok((address, secured))),
                    Ok(Some(Err(failure))) => panics.call(Hook::Handshake, || Reason::of(&failure)),
                    Ok(None) => None,
                    Err(_) => Some(Reason::new(format!("no answer within {timeout:?}"))),
                };
                let reason = reason.unwrap_or_else(|| Reason::new("code of the application's panicked"));
                let reason = reason.at(&address);
                tracing::debug!(%peer, reason = reason.text(), "dial");
                why = why.or(reason);
            }
            Done::Dialled(peer, Err(why))
        });
    }

    /// The discoverer first, which may have streams of its own; then streams, which ends connections.
    async fn shut_down(self) {
        let Self {
            registry,
            discoverer,
            transport,
            listening,
            mut tasks,
            ..
        } = self;
        let panics = &registry.counters.hook_panics;
        let closing = panics.poll(Hook::CloseDiscoverer, async { discoverer.close().await });
        if tokio::time::timeout(TO_CLOSE, closing).await.is_err() {
            tracing::warn!("the discoverer did not close within {TO_CLOSE:?}");
        }
        registry.close_all();
        listening.close();
        drop(transport);
        let end = tokio::time::Instant::now() + TO_CLOSE;
        while let Ok(Some(_)) = tokio::time::timeout_at(end, tasks.join_next()).await {}
        panics.call(Hook::CloseDiscoverer, || drop(discoverer));
    }
}

/// What `discoverer` knows of `peer`, asked on a thread where it may take its time.
async fn ask(discoverer: Arc<dyn Discoverer>, peer: PeerId, counters: Arc<HostCounters>) -> Vec<Multiaddr> {
    let asked = tokio::task::spawn_blocking(move || {
        let found = counters
            .hook_panics
            .call(Hook::FindPeer, || discoverer.find_peer(&peer));
        // It may be the last to have it.
        counters.hook_panics.call(Hook::CloseDiscoverer, || drop(discoverer));
        found.unwrap_or_default()
    });
    asked.await.unwrap_or_default()
}

fn not_listening(address: Multiaddr, error: TransportError<Failure>) -> StartError {
    let taken = match &error {
        TransportError::Other(failure) => match failure.error() {
            Error::PortInUse { .. } => true,
            Error::Inner(source) => {
                let system = source.downcast_ref::<io::Error>();
                system.is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
            }
            _ => false,
        },
        TransportError::MultiaddrNotSupported(_) => false,
    };
    if taken {
        return StartError::PortInUse { address };
    }
    let source = Box::new(error);
    StartError::Listen { address, source }
}

/// Whether there is a stream to the caller, and `further` allows it.
fn admission(registry: Arc<Registry>, further: Option<Admission>) -> Admission {
    Arc::new(move |peer, point| {
        if registry.get(peer).is_none() {
            return Err(NoStream.into());
        }
        let Some(rule) = &further else { return Ok(()) };
        let panics = &registry.counters.hook_panics;
        let asked = panics.call(Hook::Admission, || rule(peer, point));
        asked.unwrap_or_else(|| Err(Panicked.into()))
    })
}
