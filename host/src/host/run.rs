//! The host's task: what comes in, whom to dial, and the end of all of it.

use super::address;
use crate::config::{Hook, HostConfig};
use crate::discovery::Discoverer;
use crate::engine::dial::DialPlan;
use crate::error::StartError;
use crate::link::Link;
use crate::meter::Metered;
use crate::peers::{Need, Registry, chance};
use libp2p_core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p_core::{Endpoint, Multiaddr, Transport as _};
use libp2p_identity::PeerId;
use libp2p_knock::{Authenticated, Denial, TlsStream};
use libp2p_tcp::tokio::TcpStream;
use rand::rngs::StdRng;
use socket2::{SockRef, TcpKeepalive};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

type Io = Metered<TcpStream>;
type Transport = Authenticated<Boxed<Io>>;
type Upgrade = <Transport as libp2p_core::Transport>::ListenerUpgrade;
type Event = TransportEvent<Upgrade, libp2p_knock::Failure>;
type Secured = (PeerId, TlsStream<Io>);

/// A dead peer shows within a minute and a half, even to somebody who never writes: the original waits for the system's
/// two hours (W12).
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 5;

/// For the discoverer to close.
const TO_CLOSE: Duration = Duration::from_secs(5);

/// There is no stream to the peer that knocks.
#[derive(Debug, thiserror::Error)]
#[error("there is no stream to this peer")]
struct NoStream;

/// What a task of the host has come to.
enum Done {
    /// Where a peer can be dialled, its names looked up.
    Resolved(PeerId, Vec<Multiaddr>),
    /// A round of dials, successful or not.
    Dialled(PeerId, Option<Secured>),
    /// An inbound handshake.
    Secured(Secured),
    /// A connection, or an inbound handshake that failed: nothing is left to do.
    Ended,
}

pub(super) struct Driver {
    registry: Arc<Registry>,
    discoverer: Arc<dyn Discoverer>,
    transport: Transport,
    listen: Vec<Multiaddr>,
    dial_timeout: Duration,
    plan: DialPlan,
    rng: StdRng,
    tasks: JoinSet<Done>,
}

impl Driver {
    pub(super) fn new(config: HostConfig, registry: Arc<Registry>, discoverer: Arc<dyn Discoverer>) -> Self {
        let counters = registry.counters.clone();
        let tcp = libp2p_tcp::tokio::Transport::new(libp2p_tcp::Config::default().listen_backlog(1024))
            .map(move |io, point| {
                if point.is_listener() {
                    counters.inbound_dials.one();
                }
                keep_alive(&io);
                Metered::new(io)
            })
            .boxed();
        let admission = admission(registry.clone(), config.admission);
        // In addition to the hooks that the configuration has: every one that was set has to allow,
        // those first.
        let knock = config.knock.with_admission(move |peer, point| admission(peer, point));
        Self {
            transport: Authenticated::new(tcp, knock).with_executor(|task| drop(tokio::spawn(task))),
            registry,
            discoverer,
            listen: config.listen,
            dial_timeout: config.dial_timeout,
            plan: DialPlan::new(config.dial_interval),
            rng: chance(),
            tasks: JoinSet::new(),
        }
    }

    /// Returns when every address is listened on.
    pub(super) async fn listen(&mut self) -> Result<(), StartError> {
        let mut waiting = HashMap::new();
        let failed = |address: &Multiaddr, error: Denial| StartError::Listen {
            address: address.clone(),
            source: error,
        };
        for address in &self.listen {
            let id = ListenerId::next();
            self.transport
                .listen_on(id, address::listening(address))
                .map_err(|error| failed(address, Box::new(error)))?;
            waiting.insert(id, address.clone());
        }
        while !waiting.is_empty() {
            match poll_fn(|cx| Pin::new(&mut self.transport).poll(cx)).await {
                TransportEvent::NewAddress {
                    listener_id,
                    listen_addr,
                } => {
                    if let Some(configured) = waiting.remove(&listener_id) {
                        self.registry.bound().push(address::bound(&configured, &listen_addr));
                    }
                    self.registry.listening().push(listen_addr);
                }
                TransportEvent::ListenerClosed { reason: Err(error), .. } => {
                    let address = self.listen.first().cloned().unwrap_or_else(Multiaddr::empty);
                    return Err(failed(&address, Box::new(error)));
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
                self.tasks.spawn(async move {
                    match upgrade.await {
                        Ok(secured) => Done::Secured(secured),
                        Err(failure) => {
                            tracing::debug!(error = failure.error() as &dyn std::error::Error, "inbound handshake");
                            Done::Ended
                        }
                    }
                });
            }
            TransportEvent::NewAddress { listen_addr, .. } => self.registry.listening().push(listen_addr),
            TransportEvent::AddressExpired { listen_addr, .. } => {
                self.registry.listening().retain(|address| *address != listen_addr);
            }
            TransportEvent::ListenerClosed { reason, .. } => tracing::error!(?reason, "a listener ended"),
            TransportEvent::ListenerError { error, .. } => {
                self.registry.counters.inbound_dials.one();
                tracing::warn!(%error, "accepting");
            }
        }
    }

    fn see_to(&mut self, peer: PeerId, need: Need) {
        match need {
            Need::Connection => self.plan.want(peer, Instant::now(), &mut self.rng),
            Need::Nothing => self.plan.satisfied(&peer),
            Need::Forget => self.plan.forget(&peer),
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Resolved(peer, addresses) => self.dial_one_of(peer, addresses),
            Done::Dialled(peer, secured) => {
                if let Some(secured) = secured {
                    self.connected(secured, true);
                }
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

    /// A round of dials to each peer that is due.
    fn dial(&mut self) {
        let now = Instant::now();
        while let Some(peer) = self.plan.due(now, &mut self.rng) {
            let known = self.discoverer.find_peer(&peer);
            let known: Vec<Multiaddr> = known
                .iter()
                .filter_map(|address| address::dialling(address, &peer))
                .collect();
            let order = self.plan.order(&peer, known.len());
            let addresses: Vec<Multiaddr> = order.map(|at| known[at].clone()).collect();
            if !addresses.iter().any(address::is_name) {
                self.dial_one_of(peer, addresses);
                continue;
            }
            let timeout = self.dial_timeout;
            self.tasks.spawn(async move {
                let found = addresses.into_iter().map(|address| async move {
                    let found = tokio::time::timeout(timeout, address::resolved(address)).await;
                    found.unwrap_or_default()
                });
                Done::Resolved(peer, futures::future::join_all(found).await.concat())
            });
        }
    }

    /// One after the other, until one answers.
    fn dial_one_of(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
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
        let timeout = self.dial_timeout;
        self.tasks.spawn(async move {
            for (address, dial) in dials {
                match tokio::time::timeout(timeout, dial).await {
                    Ok(Ok(secured)) => return Done::Dialled(peer, Some(secured)),
                    Ok(Err(failure)) => {
                        let error = failure.error() as &dyn std::error::Error;
                        tracing::debug!(%address, error, "dial");
                    }
                    Err(_) => tracing::debug!(%address, "dial: no answer within {timeout:?}"),
                }
            }
            Done::Dialled(peer, None)
        });
    }

    /// The discoverer first, which may have streams of its own; then streams, which ends connections.
    async fn shut_down(mut self) {
        if tokio::time::timeout(TO_CLOSE, self.discoverer.close()).await.is_err() {
            tracing::warn!("the discoverer did not close within {TO_CLOSE:?}");
        }
        self.registry.close_all();
        drop(self.transport);
        let end = tokio::time::Instant::now() + TO_CLOSE;
        while let Ok(Some(_)) = tokio::time::timeout_at(end, self.tasks.join_next()).await {}
    }
}

fn admission(registry: Arc<Registry>, further: Option<Hook>) -> Hook {
    Arc::new(move |peer, point| {
        if registry.get(peer).is_none() {
            return Err(NoStream.into());
        }
        further.as_ref().map_or(Ok(()), |hook| hook(peer, point))
    })
}

fn keep_alive(io: &TcpStream) {
    let probes = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    #[cfg(not(target_os = "windows"))]
    let probes = probes.with_retries(KEEPALIVE_PROBES);
    if let Err(error) = SockRef::from(&io.0).set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "no keep-alive on this connection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream as Socket};

    #[tokio::test]
    async fn a_connection_asks_whether_its_other_end_is_still_there() {
        // W12: without it a peer that is gone without a word is never missed by somebody who only listens.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = Socket::connect(listener.local_addr().unwrap()).await.unwrap();
        let io = TcpStream(socket);
        assert!(!SockRef::from(&io.0).keepalive().unwrap());
        keep_alive(&io);
        let socket = SockRef::from(&io.0);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        }
    }
}
