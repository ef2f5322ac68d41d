//! The part that sits in the Swarm: says goodbye and closes, is told goodbye and does not dial.

use super::back_off::{BackOffs, BackedOff};
use super::handler::{FromHandler, Handler, Said};
use super::message::Goodbye;
use super::metrics::Metrics;
use crate::gate::lock;
use libp2p_core::transport::PortUse;
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::behaviour::ConnectionClosed;
use libp2p_swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use web_time::Instant;

/// How a [`Behaviour`] treats what it is told.
#[derive(Debug, Clone)]
pub struct Config {
    usual: Duration,
    longest: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            usual: Duration::from_secs(30),
            longest: Duration::from_secs(3600),
        }
    }
}

impl Config {
    /// For how long a peer is not dialled that said goodbye and not for how long. Default 30 s.
    pub const fn with_usual_back_off(mut self, time: Duration) -> Self {
        self.usual = time;
        self
    }

    /// For how long a peer is not dialled at the most, whatever it asks for. Default one hour; zero dials at will.
    pub const fn with_longest_back_off(mut self, time: Duration) -> Self {
        self.longest = time;
        self
    }
}

/// What a [`Behaviour`] tells its Swarm.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The other side closes the connection, and says why. Followed by the Swarm's `ConnectionClosed`. It can say what it
    /// likes; that it is this peer is proven.
    Heard {
        /// Who.
        peer: PeerId,
        /// Over which connection.
        connection: ConnectionId,
        /// What it said.
        goodbye: Goodbye,
    },
    /// A connection is being closed by [`Behaviour::close`]. Followed by the Swarm's `ConnectionClosed`, unless that has
    /// come before.
    Said {
        /// To whom.
        peer: PeerId,
        /// Over which connection.
        connection: ConnectionId,
        /// What was to be said.
        goodbye: Goodbye,
        /// Whether it was heard.
        said: Said,
    },
}

/// Says goodbye before it closes a connection, and does not dial who has said so.
///
/// `poll` costs nothing while nothing is to do. At most 4,096 peers are kept from being dialled, those told last; a
/// peer that dials us itself is forgiven.
#[derive(Debug)]
pub struct Behaviour {
    live: HashSet<ConnectionId>,
    saying: HashMap<ConnectionId, (PeerId, Goodbye)>,
    /// Shared with what counts them.
    back_offs: Arc<Mutex<BackOffs>>,
    start: Instant,
    actions: VecDeque<ToSwarm<Event, Goodbye>>,
    waker: Option<Waker>,
    metrics: Metrics,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Behaviour {
    /// One that treats what it is told as `config` says.
    pub fn new(config: Config) -> Self {
        Self::counted(config, Metrics::none())
    }

    /// One that counts into `metrics`, perhaps beside others.
    pub(crate) fn counted(config: Config, metrics: Metrics) -> Self {
        let back_offs = Arc::new(Mutex::new(BackOffs::new(config.usual, config.longest)));
        let start = Instant::now();
        metrics.watch(&back_offs, start);
        Self {
            live: HashSet::new(),
            saying: HashMap::new(),
            back_offs,
            start,
            actions: VecDeque::new(),
            waker: None,
            metrics,
        }
    }

    /// Counts into `registry`, under `libp2p_gater_goodbye`. Each label that there can be is there
    /// from here on, at zero. What is counted goes on being counted into every registry that it was
    /// in before. A gate's behaviour counts into [`Gate::with_metrics`](crate::Gate::with_metrics).
    /// When the behaviour is dropped its metrics leave the scrape, and the registry takes the next
    /// one.
    ///
    /// # Errors
    ///
    /// [`AlreadyRegistered`](crate::AlreadyRegistered) if the registry has one of the names. To
    /// find that out it is rendered once, which calls its collectors. A collector that describes
    /// nothing stays in it, also after an error.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn with_metrics(
        self,
        registry: &mut prometheus_client::registry::Registry,
    ) -> Result<Self, crate::AlreadyRegistered> {
        self.metrics.register(registry)?;
        Ok(self)
    }

    /// Says `goodbye` over `connection`, which is one with `peer`, and closes it: within a second, whether or not the
    /// other side listens. A second goodbye over the same connection is not said. A connection that is gone is no error.
    pub fn close(&mut self, peer: PeerId, connection: ConnectionId, goodbye: Goodbye) {
        if !self.live.contains(&connection) || self.saying.contains_key(&connection) {
            return;
        }
        self.saying.insert(connection, (peer, goodbye.clone()));
        self.actions.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: goodbye,
        });
        self.wake();
    }

    /// Whether `peer` is not dialled for now, and why.
    pub fn back_off(&mut self, peer: &PeerId) -> Option<BackedOff> {
        let now = self.start.elapsed();
        lock(&self.back_offs).of(peer, now)
    }

    /// Dials `peer` again, whatever it asked for.
    pub fn forgive(&mut self, peer: &PeerId) {
        lock(&self.back_offs).forgive(peer);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn said(&mut self, connection: ConnectionId, said: Said) -> Option<PeerId> {
        let (peer, goodbye) = self.saying.remove(&connection)?;
        self.metrics.said(goodbye.code(), said);
        self.actions.push_back(ToSwarm::GenerateEvent(Event::Said {
            peer,
            connection,
            goodbye,
            said,
        }));
        Some(peer)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        match peer.and_then(|peer| self.back_off(&peer)) {
            Some(backed_off) => {
                self.metrics.denied();
                Err(ConnectionDenied::new(backed_off))
            }
            None => Ok(Vec::new()),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                self.live.insert(established.connection_id);
                if established.endpoint.is_listener() {
                    lock(&self.back_offs).forgive(&established.peer_id);
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.live.remove(&connection_id);
                self.said(connection_id, Said::Unheard);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            FromHandler::Said(said) => {
                if let Some(peer_id) = self.said(connection, said) {
                    self.actions.push_back(ToSwarm::CloseConnection {
                        peer_id,
                        connection: CloseConnection::One(connection),
                    });
                }
            }
            FromHandler::Heard(goodbye) => {
                let now = self.start.elapsed();
                lock(&self.back_offs).heard(peer, goodbye.clone(), now);
                self.metrics.heard(goodbye.code());
                self.actions.push_back(ToSwarm::GenerateEvent(Event::Heard {
                    peer,
                    connection,
                    goodbye,
                }));
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(action) = self.actions.pop_front() {
            return Poll::Ready(action);
        }
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goodbye::Code;

    #[test]
    fn nothing_is_said_over_a_connection_that_is_not_there() {
        let mut goodbye = Behaviour::default();
        goodbye.close(
            PeerId::random(),
            ConnectionId::new_unchecked(7),
            Goodbye::new(Code::Trimmed),
        );
        assert!(goodbye.saying.is_empty() && goodbye.actions.is_empty());
    }
}
