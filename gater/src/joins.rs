//! What the parts of a gate tell each other, so that no stage is asked twice for one connection.
//!
//! A transport knows addresses and no ids, a security upgrade knows neither, and the Swarm's behaviour is asked last
//! and knows both. So whoever asks a stage early leaves a note, and the behaviour, before it asks the same stage as a
//! fallback, looks for the note that belongs to the connection. Notes are left only while a behaviour is there to take
//! them, and the oldest go when there are too many. A lost note means that a stage is asked again; a note can be taken
//! by another connection only if all that the question was about is the same, so none is spared its question. A note from
//! before the policy was last tightened is worth nothing.

use crate::address::{Parts, TransportKind};
use crate::context::{Direction, Link};
use crate::verdict::Denied;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// Notes of one sort that are kept, at most. Those of an accept are taken at once, the others when a handshake is over.
const MOST: usize = 1024;

/// One end of a link, as every layer of transports writes it: what stands behind the port differs between them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Socket { ip: IpAddr, port: u16, udp: bool },
    Address(Multiaddr),
}

impl End {
    fn of(address: &Multiaddr) -> Self {
        let parts = Parts::of(address);
        let udp = matches!(
            parts.kind,
            TransportKind::Quic | TransportKind::WebTransport | TransportKind::WebRtc
        );
        match (parts.ip, parts.port) {
            (Some(ip), Some(port)) if !parts.is_relayed() => Self::Socket { ip, port, udp },
            _ => Self::Address(base(address)),
        }
    }
}

/// Without the `/p2p` at its end, which some layers add and others take away, and without the `/tls` before it.
fn base(address: &Multiaddr) -> Multiaddr {
    let mut base = address.clone();
    while matches!(base.iter().last(), Some(Protocol::P2p(_) | Protocol::Tls)) {
        base.pop();
    }
    base
}

/// An address was judged, and the dial of it has come through.
#[derive(Debug)]
pub(crate) struct Dialled {
    end: End,
    kind: TransportKind,
    peer: Option<PeerId>,
    /// What the address says behind its host, for one that had a name.
    tail: Multiaddr,
}

impl Dialled {
    /// Where packets go.
    pub(crate) fn socket(&self) -> Option<(IpAddr, u16)> {
        match self.end {
            End::Socket { ip, port, .. } => Some((ip, port)),
            End::Address(_) => None,
        }
    }
}

/// A proven peer was judged.
#[derive(Debug)]
struct Proven {
    peer: PeerId,
    direction: Direction,
    role: Endpoint,
    kind: TransportKind,
    /// Absent where a security upgrade asked, which sees none.
    remote: Option<End>,
}

/// Who has asked about a proven peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The knock's hook, which knows both ends.
    Hook,
    /// A security upgrade of libp2p's.
    Upgrade,
}

/// A relayed address was judged for a dial.
#[derive(Debug)]
struct Circuit {
    version: u64,
    id: ConnectionId,
    base: Multiaddr,
    /// Who is dialled through the relay, if that was said.
    target: Option<PeerId>,
    denied: Option<Denied>,
}

/// The notes, each with the state of the policy that it is of.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    accepted: VecDeque<(u64, (End, End))>,
    dialled: VecDeque<(u64, Dialled)>,
    proven: VecDeque<(u64, Proven)>,
    /// Relayed addresses that a dial brought, judged before it began.
    circuits: Vec<Circuit>,
    /// Where transports listen that ask before another transport has its say, and how many of them.
    beneath: HashMap<(IpAddr, u16, TransportKind), usize>,
}

impl Joins {
    /// The accept stage was asked about an inbound link, which the Swarm hears of next.
    pub(crate) fn accepted(&mut self, version: u64, local: &Multiaddr, remote: &Multiaddr) {
        if !self.is_beneath(local) {
            push(&mut self.accepted, version, (End::of(local), End::of(remote)));
        }
    }

    /// Whether it was. Takes the note.
    pub(crate) fn was_accepted(&mut self, now: u64, local: &Multiaddr, remote: &Multiaddr) -> bool {
        if self.is_beneath(local) {
            return true;
        }
        if self.accepted.is_empty() {
            return false;
        }
        let wanted = (End::of(local), End::of(remote));
        take(&mut self.accepted, now, |note| *note == wanted).is_some()
    }

    fn is_beneath(&self, local: &Multiaddr) -> bool {
        !self.beneath.is_empty() && key(local, Parts::of(local).kind).is_some_and(|key| self.beneath.contains_key(&key))
    }

    /// Somebody beneath a transport of that kind listens at `local`, and asks the accept stage for all that comes there.
    pub(crate) fn listens_beneath(&mut self, local: &Multiaddr, kind: TransportKind) {
        if let Some(key) = key(local, kind) {
            *self.beneath.entry(key).or_default() += 1;
        }
    }

    /// And no more.
    pub(crate) fn listens_no_more(&mut self, local: &Multiaddr, kind: TransportKind) {
        let Some(key) = key(local, kind) else { return };
        if let Some(listeners) = self.beneath.get_mut(&key) {
            *listeners -= 1;
            if *listeners == 0 {
                self.beneath.remove(&key);
            }
        }
    }

    /// The dial of an address that was judged has come through.
    pub(crate) fn dialled(&mut self, version: u64, address: &Multiaddr, kind: TransportKind, peer: Option<PeerId>) {
        let (end, tail) = (End::of(address), tail(address));
        push(&mut self.dialled, version, Dialled { end, kind, peer, tail });
    }

    /// What was dialled, if the address that a connection to `peer` has was judged: where it has a name, what that stood for.
    /// Takes the note.
    pub(crate) fn was_dialled(&mut self, now: u64, address: &Multiaddr, peer: &PeerId) -> Option<Dialled> {
        if self.dialled.is_empty() {
            return None;
        }
        let (end, parts) = (End::of(address), Parts::of(address));
        let by_name = || tail(address);
        let of_peer = |note: &Dialled| note.peer.is_none_or(|named| named == *peer);
        let as_written = take(&mut self.dialled, now, |note| {
            note.kind == parts.kind && note.end == end && of_peer(note)
        });
        if as_written.is_some() || !parts.named {
            return as_written;
        }
        // It was resolved in between. A name in `/dnsaddr` may have stood for a whole other address.
        let tail = by_name();
        let whole = address.iter().any(|protocol| matches!(protocol, Protocol::Dnsaddr(_)));
        take(&mut self.dialled, now, |note| {
            of_peer(note) && (note.tail == tail && note.kind == parts.kind || whole && note.peer.is_some())
        })
    }

    /// The secured stage was asked about `peer`.
    pub(crate) fn proven(&mut self, version: u64, peer: &PeerId, link: &Link<'_>) {
        let note = Proven {
            peer: *peer,
            direction: link.direction,
            role: link.role,
            kind: link.parts.kind,
            remote: link.remote.map(End::of),
        };
        push(&mut self.proven, version, note);
    }

    /// Who asked, for a connection with these ends, if it was. Takes the note.
    pub(crate) fn was_proven(&mut self, now: u64, peer: &PeerId, link: &Link<'_>) -> Option<Asker> {
        if self.proven.is_empty() {
            return None;
        }
        let remote = link.remote.map(End::of);
        let note = take(&mut self.proven, now, |note| {
            note.peer == *peer
                && note.role == link.role
                && note.kind == link.parts.kind
                // An upgrade does not know who dialled, only who speaks first.
                && (note.remote.is_none() || note.direction == link.direction && note.remote == remote)
        })?;
        Some(match note.remote {
            Some(_) => Asker::Hook,
            None => Asker::Upgrade,
        })
    }

    /// A relayed address that a dial brings was judged before the dial began.
    pub(crate) fn judged_circuit(
        &mut self,
        version: u64,
        id: ConnectionId,
        address: &Multiaddr,
        target: Option<PeerId>,
        denied: Option<Denied>,
    ) {
        let base = base(address);
        self.circuits.push(Circuit {
            version,
            id,
            base,
            target,
            denied,
        });
    }

    /// What was said of it, by whoever is asked next: the newest, which belongs to the dial that is being made.
    pub(crate) fn circuit(&self, now: u64, address: &Multiaddr) -> Option<Option<Denied>> {
        self.find_circuit(address, |note| note.version >= now)
    }

    /// What was said of it, for one connection.
    pub(crate) fn circuit_of(&self, now: u64, id: ConnectionId, address: &Multiaddr) -> Option<Option<Denied>> {
        self.find_circuit(address, |note| note.version >= now && note.id == id)
    }

    fn find_circuit(&self, address: &Multiaddr, fits: impl Fn(&Circuit) -> bool) -> Option<Option<Denied>> {
        if self.circuits.is_empty() {
            return None;
        }
        let (base, target) = (base(address), Parts::of(address).peer);
        // Two who are behind the same relay are two questions.
        let of_target = |note: &Circuit| note.target.is_none() || target.is_none() || note.target == target;
        let mut notes = self.circuits.iter().rev();
        let found = notes.find(|note| note.base == base && of_target(note) && fits(note))?;
        Some(found.denied.clone())
    }

    /// The attempt is over.
    pub(crate) fn forget(&mut self, id: ConnectionId) {
        if !self.circuits.is_empty() {
            self.circuits.retain(|note| note.id != id);
        }
    }

    /// Nobody is there to take notes any more.
    pub(crate) fn clear(&mut self) {
        self.accepted.clear();
        self.dialled.clear();
        self.proven.clear();
        self.circuits.clear();
    }
}

fn key(local: &Multiaddr, kind: TransportKind) -> Option<(IpAddr, u16, TransportKind)> {
    let parts = Parts::of(local);
    Some((parts.ip?, parts.port?, kind))
}

/// What stands behind the host.
fn tail(address: &Multiaddr) -> Multiaddr {
    let host = |protocol: &Protocol<'_>| {
        matches!(
            protocol,
            Protocol::Ip4(_)
                | Protocol::Ip6(_)
                | Protocol::Ip6zone(_)
                | Protocol::Dns(_)
                | Protocol::Dns4(_)
                | Protocol::Dns6(_)
                | Protocol::Dnsaddr(_)
        )
    };
    base(&address.iter().skip_while(host).collect())
}

fn push<T>(notes: &mut VecDeque<(u64, T)>, version: u64, note: T) {
    if notes.len() == MOST {
        notes.pop_front();
    }
    notes.push_back((version, note));
}

/// Takes the newest that fits, if that is still worth something: an older one like it belongs to a connection that has come
/// to nothing.
fn take<T>(notes: &mut VecDeque<(u64, T)>, now: u64, fits: impl Fn(&T) -> bool) -> Option<T> {
    let at = notes.iter().rposition(|(_, note)| fits(note))?;
    let (version, note) = notes.remove(at)?;
    (version >= now).then_some(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect(text)
    }

    #[test]
    fn a_note_about_an_accept_is_taken_once_and_whatever_the_layers_above_write() {
        let mut joins = Joins::default();
        let (local, remote) = (address("/ip4/192.0.2.1/tcp/1"), address("/ip4/192.0.2.2/tcp/2"));
        joins.accepted(0, &local, &remote);
        assert!(!joins.was_accepted(0, &local, &address("/ip4/192.0.2.2/tcp/3")));
        let (local, remote) = (address("/ip4/192.0.2.1/tcp/1/ws"), address("/ip4/192.0.2.2/tcp/2/ws"));
        assert!(joins.was_accepted(0, &local, &remote));
        assert!(!joins.was_accepted(0, &local, &remote));
    }

    #[test]
    fn a_note_from_before_a_tightening_is_worth_nothing() {
        let mut joins = Joins::default();
        let (local, remote) = (address("/ip4/192.0.2.1/tcp/1"), address("/ip4/192.0.2.2/tcp/2"));
        joins.accepted(1, &local, &remote);
        assert!(!joins.was_accepted(2, &local, &remote));
        assert!(!joins.was_accepted(1, &local, &remote), "it is gone");
        let peer = PeerId::random();
        joins.dialled(1, &remote, TransportKind::Tcp, Some(peer));
        assert!(joins.was_dialled(2, &remote, &peer).is_none());
        joins.proven(1, &peer, &Link::inbound(&local, &remote));
        assert!(joins.was_proven(2, &peer, &Link::inbound(&local, &remote)).is_none());
    }

    #[test]
    fn tcp_and_udp_of_the_same_number_are_two_things() {
        let mut joins = Joins::default();
        let (local, remote) = (address("/ip4/192.0.2.1/tcp/1"), address("/ip4/192.0.2.2/tcp/2"));
        joins.accepted(0, &local, &remote);
        let udp = |n| address(&format!("/ip4/192.0.2.{n}/udp/{n}/quic-v1"));
        assert!(!joins.was_accepted(0, &udp(1), &udp(2)));
    }

    #[test]
    fn a_dial_is_known_by_its_address_its_transport_and_its_peer() {
        let mut joins = Joins::default();
        let (one, two) = (PeerId::random(), PeerId::random());
        let at = address("/ip4/192.0.2.1/tcp/1/tls");
        joins.dialled(0, &at, TransportKind::Knock, Some(one));
        assert!(joins.was_dialled(0, &at, &two).is_none());
        assert!(
            joins.was_dialled(0, &address("/ip4/192.0.2.1/tcp/1"), &one).is_none(),
            "another transport"
        );
        assert!(
            joins
                .was_dialled(0, &at.clone().with(Protocol::P2p(one)), &one)
                .is_some()
        );
        assert!(joins.was_dialled(0, &at, &one).is_none());
    }

    #[test]
    fn a_name_is_known_by_what_stands_behind_it() {
        let mut joins = Joins::default();
        let peer = PeerId::random();
        joins.dialled(
            0,
            &address("/ip4/192.0.2.1/tcp/1/tls"),
            TransportKind::Knock,
            Some(peer),
        );
        assert!(
            joins
                .was_dialled(0, &address("/dns4/example.org/tcp/2/tls"), &peer)
                .is_none()
        );
        let found = joins.was_dialled(0, &address("/dns4/example.org/tcp/1/tls"), &peer);
        let socket = found.and_then(|found| found.socket());
        assert_eq!(socket, Some(([192, 0, 2, 1].into(), 1)), "and says what it stood for");
        joins.dialled(
            0,
            &address("/ip4/192.0.2.1/tcp/1/tls"),
            TransportKind::Knock,
            Some(peer),
        );
        assert!(joins.was_dialled(0, &address("/dnsaddr/example.org"), &peer).is_some());
    }

    #[test]
    fn a_proven_peer_is_known_by_its_part_in_the_handshake_and_its_transport() {
        let mut joins = Joins::default();
        let peer = PeerId::random();
        joins.proven(
            0,
            &peer,
            &Link::unknown(Endpoint::Listener).with_kind(TransportKind::Tcp),
        );
        let (tcp, quic) = (address("/ip4/192.0.2.2/tcp/2"), address("/ip4/192.0.2.2/udp/2/quic-v1"));
        let local = address("/ip4/192.0.2.1/tcp/1");
        assert!(
            joins
                .was_proven(0, &peer, &Link::outbound(&tcp, Endpoint::Dialer))
                .is_none()
        );
        assert!(joins.was_proven(0, &peer, &Link::inbound(&local, &quic)).is_none());
        // One end of a hole punch has dialled, and listens in the handshake all the same.
        assert!(
            joins
                .was_proven(0, &peer, &Link::outbound(&tcp, Endpoint::Listener))
                .is_some()
        );
        assert!(joins.was_proven(0, &peer, &Link::inbound(&local, &tcp)).is_none());
    }

    #[test]
    fn a_hook_that_knows_both_ends_vouches_for_no_other_connection() {
        let mut joins = Joins::default();
        let peer = PeerId::random();
        let (local, remote) = (address("/ip4/192.0.2.1/tcp/1/tls"), address("/ip4/192.0.2.2/tcp/2/tls"));
        joins.proven(0, &peer, &Link::inbound(&local, &remote));
        assert!(
            joins
                .was_proven(0, &peer, &Link::inbound(&local, &address("/ip4/192.0.2.2/tcp/3/tls")))
                .is_none()
        );
        assert!(joins.was_proven(0, &peer, &Link::inbound(&local, &remote)).is_some());
    }

    #[test]
    fn the_oldest_notes_go_when_there_are_too_many() {
        let mut joins = Joins::default();
        let local = address("/ip4/192.0.2.1/tcp/1");
        let remote = |n: usize| address(&format!("/ip4/192.0.2.2/tcp/{}", n + 1));
        for n in 0..=MOST {
            joins.accepted(0, &local, &remote(n));
        }
        assert!(!joins.was_accepted(0, &local, &remote(0)));
        assert!(joins.was_accepted(0, &local, &remote(1)) && joins.was_accepted(0, &local, &remote(MOST)));
    }

    #[test]
    fn whoever_listens_beneath_has_asked_about_all_that_comes_there_while_it_listens() {
        let mut joins = Joins::default();
        let (raw, local) = (address("/ip4/192.0.2.1/tcp/1"), address("/ip4/192.0.2.1/tcp/1/tls"));
        let remote = address("/ip4/192.0.2.2/tcp/2/tls");
        joins.listens_beneath(&raw, TransportKind::Knock);
        assert!(joins.was_accepted(0, &local, &remote) && joins.was_accepted(0, &local, &remote));
        assert!(
            !joins.was_accepted(0, &raw, &remote),
            "stock TCP at the same port is another's"
        );
        joins.listens_no_more(&raw, TransportKind::Knock);
        assert!(!joins.was_accepted(0, &local, &remote));
    }

    #[test]
    fn a_circuit_that_was_judged_is_known_until_its_attempt_is_over() {
        let mut joins = Joins::default();
        let (id, relay, target) = (ConnectionId::new_unchecked(1), PeerId::random(), PeerId::random());
        let circuit = address(&format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit"));
        joins.judged_circuit(1, id, &circuit, Some(target), None);
        let dialled = circuit.clone().with(Protocol::P2p(target));
        let other = circuit.clone().with(Protocol::P2p(PeerId::random()));
        assert!(
            joins.circuit(1, &other).is_none(),
            "somebody else behind the same relay"
        );
        assert!(matches!(joins.circuit(1, &dialled), Some(None)));
        assert!(joins.circuit_of(1, ConnectionId::new_unchecked(2), &dialled).is_none());
        assert!(joins.circuit_of(1, id, &dialled).is_some());
        assert!(joins.circuit_of(2, id, &dialled).is_none(), "tightened since");
        joins.forget(id);
        assert!(joins.circuit(1, &dialled).is_none());
    }
}
