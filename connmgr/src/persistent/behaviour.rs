//! The Swarm's side of it.

use super::choice::Held;
use super::config::Config;
use super::event::Event;
use super::handler::{Command, Handler, Reply};
use super::peers::{Action, Failure, Peers};
use crate::conn_manager::ConnManager;
use futures::future::FutureExt as _;
use futures_timer::Delay;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::PortUse;
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p_swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p_swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use std::fmt;
use std::sync::Arc;
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
}

/// Called with `true` when a peer becomes wanted, with `false` when it is no longer.
type Protection = Box<dyn FnMut(&PeerId, bool) + Send>;

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour")
            .field("connected", &self.peers.connected())
            .field("wanted", &self.peers.wanted().count())
            .finish_non_exhaustive()
    }
}

/// Why a peer cannot be wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// It is the local peer.
    #[error("a node cannot connect to itself")]
    LocalPeer,
    /// An address ends in the id of somebody else.
    #[error("{address} is another peer's address")]
    AnotherPeer {
        /// That address.
        address: Multiaddr,
    },
    /// More addresses than [`Behaviour::MAX_ADDRESSES`].
    #[error("{given} addresses for one peer, more than {}", Behaviour::MAX_ADDRESSES)]
    TooManyAddresses {
        /// How many.
        given: usize,
    },
}

impl Behaviour {
    /// Addresses that may be given for one peer.
    pub const MAX_ADDRESSES: usize = 16;

    /// Wants nobody yet. `local` is this Swarm's peer: the choice between connections needs to know it.
    pub fn new(local: PeerId, config: Config) -> Self {
        Self {
            peers: Peers::new(local, config),
            protection: None,
            timer: None,
            waker: None,
        }
    }

    /// `hook(peer, true)` is called when a peer becomes wanted and `hook(peer, false)` when it is no longer: for whoever
    /// must not close its connections meanwhile.
    ///
    /// Called on the caller's thread, from within the methods below. Dropping the behaviour calls nothing.
    pub fn with_protection(mut self, hook: impl FnMut(&PeerId, bool) + Send + 'static) -> Self {
        self.protection = Some(Box::new(hook));
        self
    }

    /// Protects wanted peers with `manager`, under the tag `"persistent"`, for as long as they are wanted.
    pub fn with_manager(self, manager: Arc<dyn ConnManager>) -> Self {
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
        let new = self.peers.add(Instant::now(), peer, addresses);
        if new && let Some(hook) = &mut self.protection {
            hook(&peer, true);
        }
        self.wake();
        Ok(new)
    }

    /// Lets go of `peer`: it is no longer dialled nor kept alive. Its connections stay until something closes them. False
    /// if it was not wanted.
    pub fn remove_peer(&mut self, peer: &PeerId) -> bool {
        let was = self.peers.remove(Instant::now(), peer);
        if was && let Some(hook) = &mut self.protection {
            hook(peer, false);
        }
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

    fn handler(&self, peer: &PeerId) -> Handler {
        Handler::new(self.peers.is_kept(peer), self.peers.config().probes)
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
        // Another address has worked: the network is there, and these are wrong.
        for address in failed_addresses {
            self.peers.unlearned(&peer_id, address);
        }
        let (dialled_by_us, dialled) = match endpoint {
            ConnectedPoint::Dialer {
                address, role_override, ..
            } => (*role_override == Endpoint::Dialer, Some(address.clone())),
            ConnectedPoint::Listener { .. } => (false, None),
        };
        let now = Instant::now();
        let held = Held {
            id: connection_id,
            dialled_by_us,
            relayed: endpoint.is_relayed(),
            since: now,
        };
        self.peers.established(now, peer_id, held, dialled);
    }

    fn on_dial_failure(&mut self, failure: DialFailure<'_>) {
        let DialFailure {
            peer_id,
            error,
            connection_id,
        } = failure;
        if let (Some(peer), DialError::WrongPeerId { address, .. }) = (peer_id, error) {
            self.peers.unlearned(&peer, address);
        }
        let failure = match error {
            DialError::DialPeerConditionFalse(_) | DialError::Aborted => Failure::NotNeeded,
            _ => Failure::Failed,
        };
        self.peers.dial_failed(Instant::now(), connection_id, failure);
    }

    fn next_action(&mut self) -> Option<ToSwarm<Event, Command>> {
        Some(match self.peers.next_action()? {
            Action::Dial { peer, addresses } => {
                let opts = DialOpts::peer_id(peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(addresses)
                    .extend_addresses_through_behaviour()
                    .build();
                self.peers.dialling(peer, opts.connection_id());
                ToSwarm::Dial { opts }
            }
            // Not all of them, even where it comes to the same: that would end a hole punch with this peer as well.
            Action::Close { peer, connection } => ToSwarm::CloseConnection {
                peer_id: peer,
                connection: CloseConnection::One(connection),
            },
            Action::Keep { peer, connection, keep } => ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(connection),
                event: Command::Keep(keep),
            },
            Action::Tell(event) => ToSwarm::GenerateEvent(event),
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
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    /// What is known of `peer`, for dials of others that ask for it.
    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer.map(|peer| self.peers.addresses(&peer)).unwrap_or_default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => self.on_established(established),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id, connection_id, ..
            }) => self.peers.closed(Instant::now(), &peer_id, connection_id),
            FromSwarm::DialFailure(failure) => self.on_dial_failure(failure),
            FromSwarm::NewExternalAddrOfPeer(new) => {
                self.peers.learned(Instant::now(), &new.peer_id, new.addr.clone());
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        Reply::Unresponsive: THandlerOutEvent<Self>,
    ) {
        self.peers.unresponsive(Instant::now(), peer, connection);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        loop {
            if let Some(action) = self.next_action() {
                return Poll::Ready(action);
            }
            if self.poll_timer(cx).is_pending() {
                break;
            }
            self.peers.timeout(Instant::now());
        }
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
