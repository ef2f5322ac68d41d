//! Every part of a gate by itself, called as a Swarm and its transports would call it.

use crate::faulty::Call;
use futures::task::noop_waker;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::{ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour as _, ToSwarm};
use libp2p::{Multiaddr, PeerId, Transport as _};
use libp2p_gater::{Behaviour, Denied, Error, Event, Gate, Transport};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

/// Which part asks what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The behaviour, of a dial.
    PeerDial,
    /// The transport, of an address.
    AddrDial,
    /// The behaviour, of a relayed address that a dial brings.
    Circuit,
    /// The behaviour, of an address that it hears of when it is connected.
    AddrDialLate,
    /// The transport.
    Accept,
    /// The behaviour.
    AcceptLate,
    /// The knock's hook.
    Knock,
    /// The knock's other hook.
    Secured,
    /// The behaviour, of a connection that nothing was asked about.
    SecuredLate,
    UpgradedIn,
    UpgradedOut,
    /// The behaviour, of what is established.
    Live,
    /// The behaviour, of a dial under way.
    PendingDial,
    /// The transport, of a dial under way.
    PendingOut,
    /// The transport, of what was accepted.
    PendingIn,
    /// The behaviour tells of a dial, and of an established connection.
    Observed,
}

impl By {
    /// All parts that make the call.
    pub(crate) const fn of(call: Call) -> &'static [Self] {
        match call {
            Call::PeerDial => &[Self::PeerDial],
            Call::AddrDial => &[Self::AddrDial, Self::Circuit, Self::AddrDialLate],
            Call::Accept => &[Self::Accept, Self::AcceptLate],
            Call::Knock => &[Self::Knock],
            Call::Secured => &[Self::Secured, Self::SecuredLate],
            Call::Upgraded => &[Self::UpgradedIn, Self::UpgradedOut],
            Call::Live => &[Self::Live],
            Call::Pending => &[Self::PendingDial, Self::PendingOut, Self::PendingIn],
            Call::Observe => &[Self::Observed],
        }
    }
}

/// What is refused at accept is dropped without a word.
pub(crate) const UNSAID: &str = "refused, and nothing is said";

/// Dials and accepts, and no handshake ever ends.
#[derive(Clone, Default)]
pub(crate) struct Endless {
    incoming: Arc<Mutex<VecDeque<(Multiaddr, Multiaddr)>>>,
}

impl Endless {
    pub(crate) fn comes_in(&self, local: &Multiaddr, remote: &Multiaddr) {
        self.incoming.lock().unwrap().push_back((local.clone(), remote.clone()));
    }
}

impl libp2p::Transport for Endless {
    type Output = ();
    type Error = io::Error;
    type ListenerUpgrade = std::future::Pending<io::Result<()>>;
    type Dial = std::future::Pending<io::Result<()>>;

    fn listen_on(&mut self, _: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, _: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        Ok(std::future::pending())
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let Some((local_addr, send_back_addr)) = self.incoming.lock().unwrap().pop_front() else {
            return Poll::Pending;
        };
        Poll::Ready(TransportEvent::Incoming {
            listener_id: ListenerId::next(),
            upgrade: std::future::pending(),
            local_addr,
            send_back_addr,
        })
    }
}

pub(crate) const fn opts() -> DialOpts {
    DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

pub(crate) struct Driven {
    gate: Gate,
    behaviour: Option<Behaviour>,
    transport: Transport<Endless>,
    inner: Endless,
    peer: PeerId,
    local: Multiaddr,
    remote: Multiaddr,
    id: ConnectionId,
}

impl Driven {
    pub(crate) fn new(gate: &Gate) -> Self {
        Self {
            behaviour: Some(gate.behaviour()),
            ..Self::without_behaviour(gate)
        }
    }

    fn behaviour(&mut self) -> &mut Behaviour {
        self.behaviour.as_mut().expect("one with a behaviour")
    }

    pub(crate) fn without_behaviour(gate: &Gate) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let (n, inner) = (NEXT.fetch_add(1, Ordering::Relaxed), Endless::default());
        Self {
            gate: gate.clone(),
            behaviour: None,
            transport: gate.transport(inner.clone()),
            inner,
            peer: PeerId::random(),
            local: "/ip4/192.0.2.1/tcp/4001".parse().unwrap(),
            remote: format!("/ip4/198.51.100.1/tcp/{}", 1 + n % 60_000).parse().unwrap(),
            id: ConnectionId::new_unchecked(n),
        }
    }

    fn point(&self) -> ConnectedPoint {
        ConnectedPoint::Listener {
            local_addr: self.local.clone(),
            send_back_addr: self.remote.clone(),
        }
    }

    /// Has the part ask, and says which rule denied, if one did.
    pub(crate) fn ask(&mut self, by: By) -> Option<String> {
        let rule = |denied: &Denied| denied.reason.rule().to_owned();
        let denied = |result: Result<(), ConnectionDenied>| {
            let denied = result.err()?.downcast::<Denied>().expect("denied by the policy");
            Some(rule(&denied))
        };
        let hook = |result: Result<(), Box<dyn std::error::Error + Send + Sync>>| {
            let denied = result.err()?.downcast::<Denied>().expect("denied by the policy");
            Some(rule(&denied))
        };
        let error = |error: Error<io::Error>| match error {
            Error::Denied(denied) => Some(rule(&denied)),
            other => panic!("{other:?}"),
        };
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let (id, peer) = (self.id, self.peer);
        match by {
            By::PeerDial => denied(self.pending_outbound(&[])),
            By::Circuit => {
                let relayed = format!("{}/p2p/{}/p2p-circuit", self.remote, PeerId::random());
                denied(self.pending_outbound(&[relayed.parse().unwrap()]))
            }
            By::AddrDial => match self.transport.dial(self.remote.clone(), opts()) {
                Ok(_) => None,
                Err(TransportError::Other(denied)) => error(denied),
                Err(other) => panic!("{other:?}"),
            },
            By::Accept => {
                self.comes_in();
                match Pin::new(&mut self.transport).poll(&mut cx) {
                    Poll::Ready(TransportEvent::Incoming { .. }) => None,
                    Poll::Ready(other) => panic!("{other:?}"),
                    Poll::Pending => Some(UNSAID.to_owned()),
                }
            }
            By::AcceptLate => {
                let (local, remote) = (self.local.clone(), self.remote.clone());
                denied(self.behaviour().handle_pending_inbound_connection(id, &local, &remote))
            }
            By::Knock => hook(self.gate.knock()(&peer, &self.point())),
            By::Secured => hook(self.gate.secured()(&peer, &self.point())),
            By::AddrDialLate | By::UpgradedOut => {
                let remote = self.remote.clone();
                let handled = self.behaviour().handle_established_outbound_connection(
                    id,
                    peer,
                    &remote,
                    Endpoint::Dialer,
                    PortUse::Reuse,
                );
                denied(handled.map(drop))
            }
            By::SecuredLate | By::UpgradedIn => {
                let handled = {
                    let (local, remote) = (self.local.clone(), self.remote.clone());
                    self.behaviour()
                        .handle_established_inbound_connection(id, peer, &local, &remote)
                };
                denied(handled.map(drop))
            }
            By::Observed => {
                let pending = denied(self.pending_outbound(&[]));
                self.established();
                pending
            }
            By::Live => {
                self.established();
                self.gate.recheck();
                let mut closing = None;
                while let Poll::Ready(action) = self.behaviour().poll(&mut cx) {
                    if let ToSwarm::GenerateEvent(Event::Closing { reason, .. }) = action {
                        closing = Some(reason.rule().to_owned());
                    }
                }
                closing
            }
            By::PendingDial => {
                assert_eq!(denied(self.pending_outbound(&[])), None);
                self.gate.recheck();
                let mut aborted = None;
                while let Poll::Ready(action) = self.behaviour().poll(&mut cx) {
                    if let ToSwarm::GenerateEvent(Event::DialsAborted { reason, .. }) = action {
                        aborted = Some(reason.rule().to_owned());
                    }
                }
                aborted
            }
            By::PendingOut => {
                let dial = self.transport.dial(self.remote.clone(), opts());
                let mut dial = std::pin::pin!(dial.map_err(|_| ()).expect("not denied yet"));
                assert!(dial.as_mut().poll(&mut cx).is_pending());
                self.gate.recheck();
                match dial.poll(&mut cx) {
                    Poll::Ready(Err(denied)) => error(denied),
                    Poll::Ready(Ok(())) => unreachable!("it never ends"),
                    Poll::Pending => None,
                }
            }
            By::PendingIn => {
                self.comes_in();
                let Poll::Ready(TransportEvent::Incoming { upgrade, .. }) = Pin::new(&mut self.transport).poll(&mut cx)
                else {
                    panic!("not let in");
                };
                let mut upgrade = std::pin::pin!(upgrade);
                assert!(upgrade.as_mut().poll(&mut cx).is_pending());
                self.gate.recheck();
                match upgrade.poll(&mut cx) {
                    Poll::Ready(Err(denied)) => error(denied),
                    Poll::Ready(Ok(())) => unreachable!("it never ends"),
                    Poll::Pending => None,
                }
            }
        }
    }

    fn comes_in(&mut self) {
        self.inner.comes_in(&self.local, &self.remote);
    }

    fn pending_outbound(&mut self, addresses: &[Multiaddr]) -> Result<(), ConnectionDenied> {
        let (id, peer) = (self.id, Some(self.peer));
        let handled = self
            .behaviour()
            .handle_pending_outbound_connection(id, peer, addresses, Endpoint::Dialer);
        handled.map(drop)
    }

    fn established(&mut self) {
        let (peer_id, connection_id, point) = (self.peer, self.id, self.point());
        self.behaviour()
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint: &point,
                failed_addresses: &[],
                other_established: 0,
            }));
    }
}
