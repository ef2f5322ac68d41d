//! The Swarm's side of it.

mod failures;

use super::choice::Held;
use super::config::{Config, DeniedFor};
use super::error::{AddError, NotByKnock};
use super::event::Event;
use super::handler::{Command, Handler, Reply};
use super::knock::is_knock;
use super::metrics::{Dialled, Metrics};
use super::peers::{Action, Arrival, Peers, Plan};
use crate::conn_manager::ConnManager;
use crate::user_code::{Hook, HookPanics};
use futures::future::FutureExt as _;
use futures_timer::Delay;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::PortUse;
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p_swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p_swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use std::collections::HashSet;
use std::fmt;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use web_time::Instant;

/// Keeps wanted peers connected. See the [module](super).
///
/// Its `poll` costs a look at a queue and at a timer while there is nothing to do, and there is one timer in all, set
/// for the earliest dial or check. The addresses that other behaviours contribute to a dial are used too.
pub struct Behaviour {
    peers: Peers,
    protection: Option<Protection>,
    timer: Option<(Instant, Delay)>,
    waker: Option<Waker>,
    /// Dials that the Swarm was asked for since the last poll: nothing was sent for them yet.
    early: HashSet<ConnectionId>,
    /// Connections that were given a handler that keeps them, and are not established yet.
    keeping: HashSet<ConnectionId>,
    panics: HookPanics,
    metrics: Metrics,
}

/// Called with `true` when a peer becomes wanted, with `false` when it is no longer.
type Protection = Box<dyn FnMut(&PeerId, bool) + Send>;

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour")
            .field("connected", &self.peers.connected())
            .field("wanted_connected", &self.peers.wanted_connected())
            .field("wanted_dialling", &self.peers.wanted_dialling())
            .field("wanted_waiting", &self.peers.waiting())
            .finish_non_exhaustive()
    }
}

impl Behaviour {
    /// Addresses that may be given for one peer.
    pub const MAX_ADDRESSES: usize = 16;

    /// Wants no peer yet. `local` is this Swarm's peer: the choice between connections needs to
    /// know it.
    pub fn new(local: PeerId, config: Config) -> Self {
        Self {
            peers: Peers::new(local, config),
            protection: None,
            timer: None,
            waker: None,
            early: HashSet::new(),
            keeping: HashSet::new(),
            panics: HookPanics::default(),
            metrics: Metrics::none(),
        }
    }

    /// Counts into `registry`, under `libp2p_connmgr_persistent`. Each label that there can be is
    /// there from here on, at zero. A registry takes one behaviour at a time: two in one process
    /// have a registry each, or a sub-registry with a prefix of its own each. When the behaviour is
    /// dropped its metrics leave the scrape, and the registry takes the next one.
    ///
    /// # Errors
    ///
    /// [`AlreadyRegistered`](crate::AlreadyRegistered) if the registry has one of the names. To
    /// find that out it is rendered once, which calls its collectors. A collector that describes
    /// nothing stays in it, also after an error.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn with_metrics(
        mut self,
        registry: &mut prometheus_client::registry::Registry,
    ) -> Result<Self, crate::AlreadyRegistered> {
        self.metrics = Metrics::register(registry, &self.peers)?;
        Ok(self)
    }

    /// `hook(peer, true)` is called when a peer becomes wanted and `hook(peer, false)` when it is
    /// no longer: for a component that must not close its connections meanwhile.
    ///
    /// Called on the caller's thread, from within [`add_peer`](Self::add_peer),
    /// [`add_peer_by_knock`](Self::add_peer_by_knock) and [`remove_peer`](Self::remove_peer),
    /// before anything has changed: a panic reaches the caller of these, and then the peer is
    /// wanted as before. Dropping the behaviour calls nothing.
    pub fn with_protection(mut self, hook: impl FnMut(&PeerId, bool) + Send + 'static) -> Self {
        self.protection = Some(Box::new(hook));
        self
    }

    /// Protects wanted peers with `manager`, under the tag `"persistent"`, for as long as they are wanted.
    pub fn with_manager(self, manager: impl ConnManager + 'static) -> Self {
        const TAG: &str = "persistent";
        self.with_protection(move |peer, wanted| {
            if wanted {
                manager.protect(peer, TAG);
            } else {
                manager.unprotect(peer, TAG);
            }
        })
    }

    /// Connects to `peer` and stays connected. Without an address, those that other behaviours know have to do.
    ///
    /// True if it was not wanted before. For one that was, the addresses replace those given before, and one that waits
    /// for its next dial is dialled anew, at the earliest when the minimum interval since the last dial is over.
    ///
    /// # Errors
    ///
    /// [`AddError`]; nothing has changed then.
    pub fn add_peer(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> Result<bool, AddError> {
        let addresses = self.checked(&peer, addresses)?;
        Ok(self.add(peer, addresses, false))
    }

    /// Connects to `peer` by knock only, and stays connected.
    ///
    /// As [`add_peer`](Self::add_peer), but addresses that others claim or know are of use only if
    /// they are a knock's: `/tls` at the end, before `/p2p`. This behaviour's own dials then leave
    /// out what other behaviours would contribute, as no single address can be left out of that. A
    /// connection that another behaviour's dial makes at another address, or that the peer makes to
    /// a listener that is not a knock's, is refused with [`NotByKnock`] when it is established. One
    /// that there is already is closed.
    ///
    /// # Errors
    ///
    /// [`AddError`]; nothing has changed then. [`AddError::NotByKnock`] for an address that is not
    /// a knock's.
    pub fn add_peer_by_knock(
        &mut self,
        peer: PeerId,
        addresses: impl IntoIterator<Item = Multiaddr>,
    ) -> Result<bool, AddError> {
        let addresses = self.checked(&peer, addresses)?;
        match addresses.iter().find(|address| !is_knock(address)).cloned() {
            Some(address) => Err(AddError::NotByKnock { address }),
            None => Ok(self.add(peer, addresses, true)),
        }
    }

    fn add(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, knock_only: bool) -> bool {
        // The hook first: should it panic, nothing has changed.
        if !self.peers.is_wanted(&peer)
            && let Some(hook) = &mut self.protection
        {
            hook(&peer, true);
        }
        let new = self.peers.add(Instant::now(), peer, addresses, knock_only);
        self.wake();
        new
    }

    /// Lets go of `peer`: it is no longer dialled nor kept alive. Its connections stay until something closes them. False
    /// if it was not wanted.
    pub fn remove_peer(&mut self, peer: &PeerId) -> bool {
        if self.peers.is_wanted(peer)
            && let Some(hook) = &mut self.protection
        {
            hook(peer, false);
        }
        let was = self.peers.remove(Instant::now(), peer);
        self.metrics.removed(peer);
        self.wake();
        was
    }

    /// A peer that may be dialled for the target: see [`Config::with_target_connections`].
    ///
    /// # Errors
    ///
    /// [`AddError`]; nothing has changed then.
    pub fn add_known(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> Result<(), AddError> {
        let addresses = self.checked(&peer, addresses)?;
        self.peers.add_known(Instant::now(), peer, addresses);
        self.wake();
        Ok(())
    }

    /// Changes [`Config::with_target_connections`].
    pub fn set_target_connections(&mut self, peers: usize) {
        self.peers.set_target(Instant::now(), peers);
        self.wake();
    }

    /// Whether `peer` is wanted.
    pub fn is_wanted(&self, peer: &PeerId) -> bool {
        self.peers.is_wanted(peer)
    }

    /// The wanted peers, and whether each is connected; in no order.
    pub fn wanted(&self) -> impl Iterator<Item = (&PeerId, bool)> {
        self.peers.wanted()
    }

    /// How many peers are connected, wanted or not.
    pub fn connected(&self) -> usize {
        self.peers.connected()
    }

    fn checked(
        &self,
        peer: &PeerId,
        addresses: impl IntoIterator<Item = Multiaddr>,
    ) -> Result<Vec<Multiaddr>, AddError> {
        if peer == self.peers.local() {
            return Err(AddError::LocalPeer);
        }
        let addresses: Vec<Multiaddr> = addresses.into_iter().collect();
        if addresses.len() > Self::MAX_ADDRESSES {
            let given = addresses.len();
            return Err(AddError::TooManyAddresses { given });
        }
        let of_another =
            |address: &&Multiaddr| matches!(address.iter().last(), Some(Protocol::P2p(other)) if other != *peer);
        match addresses.iter().find(of_another).cloned() {
            Some(address) => Err(AddError::AnotherPeer { address }),
            None => Ok(addresses),
        }
    }

    fn handler(
        &mut self,
        connection: ConnectionId,
        peer: &PeerId,
        addresses: [&Multiaddr; 2],
    ) -> Result<Handler, ConnectionDenied> {
        if self.peers.is_refused(peer, addresses) {
            let (peer, address) = (*peer, addresses[0].clone());
            return Err(ConnectionDenied::new(NotByKnock { peer, address }));
        }
        let config = self.peers.config();
        let keep = self.peers.is_kept(peer);
        if keep {
            self.keeping.insert(connection);
        }
        Ok(Handler::new(
            connection,
            keep,
            config.keep_alive_interval,
            config.probes,
        ))
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn on_established(&mut self, established: ConnectionEstablished<'_>) {
        let ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint,
            failed_addresses,
            ..
        } = established;
        // Another address has worked: the network is there.
        for address in failed_addresses {
            self.peers.failed(&peer_id, address);
        }
        let relayed = endpoint.is_relayed();
        let (dialled_by_us, dialled, by_knock) = match endpoint {
            ConnectedPoint::Dialer {
                address, role_override, ..
            } => {
                let dialled_by_us = *role_override == Endpoint::Dialer;
                // A hole that was punched is closed again when the next dial comes.
                let again = dialled_by_us && !relayed;
                (dialled_by_us, again.then(|| address.clone()), is_knock(address))
            }
            ConnectedPoint::Listener {
                local_addr,
                send_back_addr,
            } => (false, None, is_knock(local_addr) || is_knock(send_back_addr)),
        };
        if self.peers.is_ours(connection_id) {
            self.metrics.dialled(Dialled::Connected);
        }
        let now = Instant::now();
        let held = Held {
            id: connection_id,
            dialled_by_us,
            relayed,
            since: now,
        };
        let arrival = Arrival {
            held,
            by_knock,
            kept: self.keeping.remove(&connection_id),
            dialled,
        };
        self.peers.established(now, peer_id, arrival);
    }

    /// What the application knows of a denial.
    fn denied_for(&self, cause: &ConnectionDenied) -> Option<Duration> {
        let DeniedFor(wait) = self.peers.config().denied_for.as_ref()?;
        let told = self.panics.call(Hook::DeniedFor, || wait(cause));
        if told.is_none() {
            self.metrics.panicked();
        }
        told.flatten()
    }

    fn next_action(&mut self) -> Option<ToSwarm<Event, Command>> {
        Some(match self.peers.next_action()? {
            Action::Dial {
                peer,
                plan: Plan { addresses, extend },
            } => {
                let opts = DialOpts::peer_id(peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(addresses);
                let opts = if extend {
                    opts.extend_addresses_through_behaviour()
                } else {
                    opts
                };
                let opts = opts.build();
                self.peers.dialling(peer, opts.connection_id());
                self.early.insert(opts.connection_id());
                ToSwarm::Dial { opts }
            }
            // Not all of them, even where it comes to the same: that would end a hole punch with this peer as well.
            Action::Close { peer, connection } => ToSwarm::CloseConnection {
                peer_id: peer,
                connection: CloseConnection::One(connection),
            },
            Action::Command {
                peer,
                connection,
                command,
            } => ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(connection),
                event: command,
            },
            Action::Tell(event) => {
                self.metrics.event(&event, &self.peers);
                ToSwarm::GenerateEvent(event)
            }
        })
    }

    /// Ready when the timer has run out, and then rid of it.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(next) = self.peers.next_timeout() else {
            self.timer = None;
            return Poll::Pending;
        };
        let (_, delay) = match &mut self.timer {
            Some(timer) if timer.0 == next => timer,
            other => {
                /// What a timer takes for granted; it is simply set again.
                const LONGEST: Duration = Duration::from_secs(86_400);
                let wait = next.saturating_duration_since(Instant::now()).min(LONGEST);
                other.insert((next, Delay::new(wait)))
            }
        };
        futures::ready!(delay.poll_unpin(cx));
        self.timer = None;
        Poll::Ready(())
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(connection, &peer, [local, remote])
    }

    /// What is known of `peer`, for dials of others that ask for it. Those of this behaviour know
    /// already.
    fn handle_pending_outbound_connection(
        &mut self,
        dial: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let peer = peer.filter(|_| !self.peers.is_ours(dial));
        let known = peer.map(|peer| self.peers.addresses(Instant::now(), &peer));
        Ok(known.unwrap_or_default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(connection, &peer, [address, address])
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => self.on_established(established),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id, connection_id, ..
            }) => self.peers.closed(Instant::now(), &peer_id, connection_id),
            FromSwarm::DialFailure(failure) => self.on_dial_failure(failure),
            FromSwarm::ListenFailure(failure) => {
                self.keeping.remove(&failure.connection_id);
            }
            FromSwarm::NewListenAddr(new) => self.peers.listens(new.addr.clone()),
            FromSwarm::ExpiredListenAddr(expired) => self.peers.listens_no_more(expired.addr),
            FromSwarm::NewExternalAddrOfPeer(new) => {
                self.peers.claimed(Instant::now(), &new.peer_id, new.addr.clone());
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, reply: THandlerOutEvent<Self>) {
        match reply {
            Reply::Answered => self.peers.answered(&peer, connection),
            Reply::Unresponsive => self.peers.unresponsive(peer, connection),
            Reply::Unused => self.peers.unused(peer, connection),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        // The Swarm has begun with the dials that it was asked for.
        self.early.clear();
        loop {
            if let Some(action) = self.next_action() {
                return Poll::Ready(action);
            }
            if self.poll_timer(cx).is_pending() {
                break;
            }
            self.peers.timeout(Instant::now());
        }
        self.metrics.show(&self.peers);
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
