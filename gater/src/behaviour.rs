//! The part that sits in the Swarm: it asks what only it can, and what nobody has asked before.

mod alarm;
mod sweep;

use crate::address::Parts;
use crate::context::{Accept, AddrDial, Direction, Link, PeerDial, Secured, Upgraded};
use crate::event::Event;
use crate::gate::Gate;
use crate::gater::Observation;
use crate::goodbye::{self, Goodbye};
use crate::joins::Asker;
use crate::user_code::Hook;
use crate::verdict::{Denied, Reason, Stage};
use crate::wakers::Seat;
use alarm::Alarm;
use libp2p_core::transport::PortUse;
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::behaviour::{AddressChange, ConnectionClosed, ConnectionEstablished};
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::{Context, Poll};
use sweep::{Sweep, judge_live};

/// The gate's behaviour. Made by [`Gate::behaviour`].
///
/// If a connection is denied by it, [`DialError::Denied`](libp2p_swarm::DialError::Denied) or
/// [`ListenError::Denied`](libp2p_swarm::ListenError::Denied) can be downcast to [`Denied`], or to
/// [`BackedOff`](goodbye::BackedOff) where the peer had asked not to be dialled.
///
/// `poll` costs three atomic loads while nothing is to do. After a rule was tightened it judges 256
/// connections or attempts in a turn until all have been.
pub struct Behaviour {
    gate: Gate,
    /// What a tightened rule wakes.
    seat: Seat,
    pending: BTreeMap<ConnectionId, Pending>,
    live: BTreeMap<ConnectionId, Live>,
    /// Of the connections that are to be closed, how many have been looked at.
    wishes: u64,
    /// Connections of each peer.
    peers: HashMap<PeerId, usize>,
    /// Which state of the policy all that is live or pending was judged by.
    judged: u64,
    /// How far that has got for a newer one.
    sweep: Option<Sweep>,
    /// When the policy is called next, though nothing has happened.
    alarm: Alarm,
    actions: VecDeque<ToSwarm<Event, THandlerInEvent<Self>>>,
    goodbye: goodbye::Behaviour,
}

struct Pending {
    direction: Direction,
    role: Endpoint,
    peer: Option<PeerId>,
    /// What is known of the other end, once that is all there is to know.
    parts: Option<Parts>,
}

struct Live {
    peer: PeerId,
    point: ConnectedPoint,
    /// What its address says, a name in it resolved.
    parts: Parts,
    closing: bool,
}

impl Live {
    fn link(&self, id: ConnectionId) -> Link<'_> {
        Link {
            parts: self.parts,
            ..Link::of(&self.point).with_connection(id)
        }
    }
}

impl Behaviour {
    pub(crate) fn new(gate: Gate) -> Self {
        gate.0.behaviour_comes();
        Self {
            seat: gate.0.behaviours_wait.seat(),
            judged: gate.0.version(),
            goodbye: goodbye::Behaviour::counted(goodbye::Config::default(), gate.0.goodbyes()),
            gate,
            pending: BTreeMap::new(),
            live: BTreeMap::new(),
            wishes: 0,
            peers: HashMap::new(),
            sweep: None,
            alarm: Alarm::default(),
            actions: VecDeque::new(),
        }
    }

    /// Says goodbye, and heeds it, as `config` says. By default a peer that has said goodbye is not dialled for as long as it
    /// asked, at most an hour.
    pub fn with_goodbye(mut self, config: goodbye::Config) -> Self {
        self.goodbye = goodbye::Behaviour::counted(config, self.gate.0.goodbyes());
        self
    }

    /// What peers have said when they closed.
    pub fn goodbye_mut(&mut self) -> &mut goodbye::Behaviour {
        &mut self.goodbye
    }

    /// The gate it belongs to.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    fn begins(&mut self, id: ConnectionId, peer: Option<PeerId>, link: &Link<'_>) {
        let pending = Pending {
            direction: link.direction,
            role: link.role,
            peer,
            parts: None,
        };
        self.pending.insert(id, pending);
        self.gate.0.tell(&Observation::Pending {
            connection: id,
            peer: peer.as_ref(),
            link: *link,
        });
    }

    /// The attempt is over, one way or the other. What is known of it, if the policy knows of it.
    fn ends(&mut self, id: ConnectionId) -> Option<Pending> {
        self.gate.0.joins().forget(id);
        self.pending.remove(&id)
    }

    fn failed(&mut self, id: ConnectionId) {
        if let Some(pending) = self.ends(id) {
            self.gate.0.tell(&Observation::Failed {
                connection: id,
                direction: pending.direction,
            });
        }
    }

    /// Asks about the relayed addresses that a dial brings: where a relay's transport stands outside the gate's, as
    /// `SwarmBuilder` puts it, nobody else is asked before the circuit is opened. A dial with nothing but addresses that are
    /// denied is denied.
    fn ask_about_circuits(
        &self,
        id: ConnectionId,
        peer: Option<&PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<(), Denied> {
        let shared = &self.gate.0;
        let (mut first, mut denials, version) = (None, 0, shared.version());
        for address in addresses {
            let link = Link::outbound(address, role).with_connection(id);
            if !link.parts.is_relayed() {
                continue;
            }
            let target = peer.or(link.parts.peer.as_ref());
            let verdict = shared.ask(Hook::AddrDial, |policy| {
                policy.intercept_addr_dial(&AddrDial::new(target, link))
            });
            let denied = shared.settle(Stage::AddrDial, target, &link, verdict).err();
            if let Some(denied) = &denied {
                denials += 1;
                first.get_or_insert_with(|| denied.clone());
            }
            shared
                .joins()
                .judged_circuit(version, id, address, target.copied(), denied);
        }
        match first {
            Some(denied) if denials == addresses.len() => {
                shared.joins().forget(id);
                Err(denied)
            }
            _ => Ok(()),
        }
    }

    /// Asks about the address of a connection that has been made, if nobody has. The link is told what a name in it stood for.
    fn ask_about_address(&self, id: ConnectionId, peer: &PeerId, link: &mut Link<'_>) -> Result<(), Denied> {
        let (shared, Some(address)) = (&self.gate.0, link.remote) else {
            return Ok(());
        };
        let mut joins = shared.joins();
        match joins.circuit_of(shared.version(), id, address) {
            Some(Some(denied)) => return Err(denied),
            Some(None) => return Ok(()),
            None => {}
        }
        let dialled = joins.was_dialled(shared.version(), address, peer);
        drop(joins);
        if let Some(dialled) = dialled {
            if let Some(socket) = dialled.socket().filter(|_| link.parts.named) {
                *link = link.resolved(socket);
            }
            return Ok(());
        }
        let verdict = shared.ask(Hook::AddrDial, |policy| {
            policy.intercept_addr_dial(&AddrDial::new(Some(peer), *link))
        });
        shared.settle(Stage::AddrDial, Some(peer), link, verdict)
    }

    /// Asks about the proven peer, if nobody has, and then about the connection, of which nothing more can be learnt.
    fn ask_about_connection(&mut self, id: ConnectionId, peer: &PeerId, mut link: Link<'_>) -> Result<(), Denied> {
        let shared = &self.gate.0;
        let asked = shared.joins().was_proven(shared.version(), peer, &link);
        if link.parts.is_relayed() && link.direction == Direction::Outbound && asked != Some(Asker::Hook) {
            // A relay's transport takes whatever stands behind its circuit for a part of the target's address: that `/tls` is
            // there does not say that anybody knocked.
            link.parts.knocks = false;
        }
        if asked.is_none() {
            shared.ask_about(Stage::Secured, Hook::Secured, peer, &link, |policy| {
                policy.intercept_secured(&Secured::new(peer, link))
            })?;
        }
        shared.ask_about(Stage::Upgraded, Hook::Upgraded, peer, &link, |policy| {
            policy.intercept_upgraded(&Upgraded::new(peer, link))
        })?;
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.parts = Some(link.parts);
        }
        Ok(())
    }

    fn established(&mut self, established: &ConnectionEstablished<'_>) {
        let (id, peer) = (established.connection_id, established.peer_id);
        let known = self.ends(id).and_then(|pending| pending.parts);
        *self.peers.entry(peer).or_default() += 1;
        let live = Live {
            peer,
            point: established.endpoint.clone(),
            parts: known.unwrap_or_else(|| Link::of(established.endpoint).parts),
            closing: false,
        };
        self.gate.0.tell(&Observation::Established {
            connection: id,
            peer: &peer,
            link: live.link(id),
        });
        self.live.insert(id, live);
    }

    fn closed(&mut self, closed: &ConnectionClosed<'_>) {
        let (id, peer) = (closed.connection_id, closed.peer_id);
        let Some(live) = self.live.remove(&id) else { return };
        if let Some(connections) = self.peers.get_mut(&peer) {
            *connections -= 1;
            if *connections == 0 {
                self.peers.remove(&peer);
            }
        }
        self.gate.0.tell(&Observation::Closed {
            connection: id,
            peer: &peer,
            link: live.link(id),
        });
    }

    /// A connection goes on from another address, about which nobody has been asked.
    fn moved(&mut self, change: &AddressChange<'_>) {
        let id = change.connection_id;
        let Some(live) = self.live.get_mut(&id) else { return };
        live.point = change.new.clone();
        live.parts = Link::of(&live.point).parts;
        if !live.closing
            && let Err(denied) = judge_live(&self.gate, id, live)
        {
            self.close(id, denied.reason);
        }
    }

    /// Closes a connection that a rule does not let in any more, once.
    fn close(&mut self, id: ConnectionId, reason: Reason) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if std::mem::replace(&mut live.closing, true) {
            return;
        }
        let (peer, goodbye) = (live.peer, Goodbye::from(&reason));
        self.actions.push_back(ToSwarm::GenerateEvent(Event::Closing {
            peer,
            connection: id,
            reason,
        }));
        self.goodbye.close(peer, id, goodbye);
    }
}

impl Drop for Behaviour {
    fn drop(&mut self) {
        // The Swarm goes, and its connections with it: they would take up places for ever.
        while let Some((id, _)) = self.pending.first_key_value() {
            self.failed(*id);
        }
        for (id, live) in std::mem::take(&mut self.live) {
            self.gate.0.tell(&Observation::Closed {
                connection: id,
                peer: &live.peer,
                link: live.link(id),
            });
        }
        self.alarm.stop(&self.gate.0);
        self.gate.0.behaviours_wait.leave(&mut self.seat);
        self.gate.0.behaviour_goes();
    }
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour")
            .field("pending", &self.pending.len())
            .field("live", &self.live.len())
            .finish_non_exhaustive()
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = goodbye::Handler;
    type ToSwarm = Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let link = Link::inbound(local, remote).with_connection(id);
        let shared = &self.gate.0;
        let asked = shared.joins().was_accepted(shared.version(), local, remote);
        if !asked {
            let verdict = shared.ask(Hook::Accept, |policy| policy.intercept_accept(&Accept::new(link)));
            self.gate
                .0
                .settle(Stage::Accept, None, &link, verdict)
                .map_err(ConnectionDenied::new)?;
        }
        self.begins(id, None, &link);
        Ok(())
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let none = self
            .goodbye
            .handle_pending_outbound_connection(id, peer, addresses, role)?;
        let mut link = Link::unknown(role).with_connection(id);
        link.direction = Direction::Outbound;
        if let Some(peer) = &peer {
            let dial = PeerDial::new(peer)
                .with_addresses(addresses)
                .with_role(role)
                .with_connection(id);
            let verdict = self
                .gate
                .0
                .ask(Hook::PeerDial, |policy| policy.intercept_peer_dial(&dial));
            self.gate
                .0
                .settle(Stage::PeerDial, Some(peer), &link, verdict)
                .map_err(ConnectionDenied::new)?;
        }
        self.ask_about_circuits(id, peer.as_ref(), addresses, role)
            .map_err(ConnectionDenied::new)?;
        self.begins(id, peer, &link);
        Ok(none)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let link = Link::inbound(local, remote).with_connection(id);
        self.ask_about_connection(id, &peer, link)
            .map_err(ConnectionDenied::new)?;
        self.goodbye
            .handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let mut link = Link::outbound(address, role).with_connection(id);
        self.ask_about_address(id, &peer, &mut link)
            .and_then(|()| self.ask_about_connection(id, &peer, link))
            .map_err(ConnectionDenied::new)?;
        self.goodbye
            .handle_established_outbound_connection(id, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.goodbye.on_swarm_event(event);
        match event {
            FromSwarm::ConnectionEstablished(established) => self.established(&established),
            FromSwarm::ConnectionClosed(closed) => self.closed(&closed),
            FromSwarm::DialFailure(failure) => self.failed(failure.connection_id),
            FromSwarm::ListenFailure(failure) => {
                if !self.pending.contains_key(&failure.connection_id) {
                    // Another behaviour refused it before this one was asked, and the note about it is still there.
                    let (local, remote) = (failure.local_addr, failure.send_back_addr);
                    self.gate.0.joins().was_accepted(0, local, remote);
                }
                self.failed(failure.connection_id);
            }
            FromSwarm::AddressChange(change) => self.moved(&change),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.goodbye.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(action) = self.actions.pop_front() {
            return Poll::Ready(action);
        }
        // First this, or a change in between would be missed.
        self.gate.0.behaviours_wait.wait(&mut self.seat, cx.waker());
        self.alarm.poll(&self.gate.0, cx);
        let mine = |id: &ConnectionId| self.live.contains_key(id);
        for (peer, id, goodbye) in self.gate.0.take_wanted(&mut self.wishes, mine) {
            if self.live.get(&id).is_some_and(|live| live.peer == peer) {
                self.goodbye.close(peer, id, goodbye);
            }
        }
        let all = self.judge();
        if let Poll::Ready(action) = self.goodbye.poll(cx) {
            // What is left to judge waits for the next turn, which comes at once.
            return Poll::Ready(action.map_out(Event::Goodbye));
        }
        if let Some(action) = self.actions.pop_front() {
            return Poll::Ready(action);
        }
        if !all {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
