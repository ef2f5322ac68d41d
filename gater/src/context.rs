//! What is known at each stage. The structs will gain fields; make them with their constructors.

use crate::address::{Parts, TransportKind};
use libp2p_core::transport::{ListenerId, PortUse};
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::net::IpAddr;

/// Who made the connection on the level of the transport.
///
/// In a hole punch both ends dial, and one of them acts as listener all the same: [`Link::role`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// They.
    Inbound,
    /// We.
    Outbound,
}

impl Direction {
    /// In lower case, for labels and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A connection, or an attempt at one, as a transport sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Link<'a> {
    /// Who made it.
    pub direction: Direction,
    /// What we are in the handshake: the opposite of what the direction suggests for one end of a hole punch.
    pub role: Endpoint,
    /// Our address, where the transport says it: for inbound connections.
    pub local: Option<&'a Multiaddr>,
    /// Theirs. Unknown only at [`Stage::Secured`](crate::Stage::Secured) in a wrapped security upgrade, which sees bytes and
    /// no addresses.
    pub remote: Option<&'a Multiaddr>,
    /// What the remote address says, and for an inbound relayed connection where the relay is.
    pub parts: Parts,
    /// The listener it came in by, where that is known: at the accept stage of a wrapped transport.
    pub listener: Option<ListenerId>,
    /// Its id in the Swarm, where it has one already: in the behaviour's stages.
    pub connection: Option<ConnectionId>,
}

impl<'a> Link<'a> {
    /// An inbound one.
    pub fn inbound(local: &'a Multiaddr, remote: &'a Multiaddr) -> Self {
        Self {
            direction: Direction::Inbound,
            role: Endpoint::Listener,
            local: Some(local),
            remote: Some(remote),
            parts: Parts::of_inbound(local, remote),
            listener: None,
            connection: None,
        }
    }

    /// An outbound one.
    pub fn outbound(remote: &'a Multiaddr, role: Endpoint) -> Self {
        Self {
            direction: Direction::Outbound,
            role,
            local: None,
            remote: Some(remote),
            parts: Parts::of(remote),
            listener: None,
            connection: None,
        }
    }

    /// As `point` says.
    pub fn of(point: &'a ConnectedPoint) -> Self {
        match point {
            ConnectedPoint::Dialer {
                address, role_override, ..
            } => Self::outbound(address, *role_override),
            ConnectedPoint::Listener {
                local_addr,
                send_back_addr,
            } => Self::inbound(local_addr, send_back_addr),
        }
    }

    /// The same as libp2p has it, where the addresses that takes are known. Which port a dial was to use is not.
    pub(crate) fn point(&self) -> Option<ConnectedPoint> {
        let remote = self.remote?.clone();
        Some(match self.direction {
            Direction::Inbound => ConnectedPoint::Listener {
                local_addr: self.local?.clone(),
                send_back_addr: remote,
            },
            Direction::Outbound => ConnectedPoint::Dialer {
                address: remote,
                role_override: self.role,
                port_use: PortUse::Reuse,
            },
        })
    }

    /// One of which nothing is known but who speaks first.
    pub fn unknown(role: Endpoint) -> Self {
        Self {
            direction: match role {
                Endpoint::Dialer => Direction::Outbound,
                Endpoint::Listener => Direction::Inbound,
            },
            role,
            local: None,
            remote: None,
            parts: Parts::EMPTY,
            listener: None,
            connection: None,
        }
    }

    /// With the id it has in the Swarm.
    pub fn with_connection(mut self, connection: ConnectionId) -> Self {
        self.connection = Some(connection);
        self
    }

    /// With the listener it came in by.
    pub fn with_listener(mut self, listener: ListenerId) -> Self {
        self.listener = Some(listener);
        self
    }

    /// With a transport that the addresses do not show.
    pub fn with_kind(mut self, kind: TransportKind) -> Self {
        self.parts.kind = kind;
        self.parts.knocks = kind == TransportKind::Knock;
        self
    }

    /// With what a name in the remote address stood for when it was dialled.
    pub(crate) const fn resolved(mut self, (ip, port): (IpAddr, u16)) -> Self {
        self.parts.ip = Some(ip);
        self.parts.port = Some(port);
        self.parts.named = false;
        self
    }

    /// What the local address says.
    pub fn local_parts(&self) -> Parts {
        self.local.map_or(Parts::EMPTY, Parts::of)
    }
}

/// A peer is about to be dialled.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PeerDial<'a> {
    /// Whom.
    pub peer: &'a PeerId,
    /// The addresses that the dial itself brings. Others may come from behaviours, and names are not resolved.
    pub addresses: &'a [Multiaddr],
    /// What we are to be in the handshake.
    pub role: Endpoint,
    /// The id the connection will have.
    pub connection: Option<ConnectionId>,
}

impl<'a> PeerDial<'a> {
    /// An ordinary dial of `peer`.
    pub fn new(peer: &'a PeerId) -> Self {
        Self {
            peer,
            addresses: &[],
            role: Endpoint::Dialer,
            connection: None,
        }
    }

    /// With the addresses that the dial brings.
    pub fn with_addresses(mut self, addresses: &'a [Multiaddr]) -> Self {
        self.addresses = addresses;
        self
    }

    /// With our part in the handshake.
    pub fn with_role(mut self, role: Endpoint) -> Self {
        self.role = role;
        self
    }

    /// With the id the connection will have.
    pub fn with_connection(mut self, connection: ConnectionId) -> Self {
        self.connection = Some(connection);
        self
    }
}

/// One address is about to be dialled.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AddrDial<'a> {
    /// Whom, if the dial says so.
    pub peer: Option<&'a PeerId>,
    /// Where.
    pub link: Link<'a>,
}

impl<'a> AddrDial<'a> {
    /// Of `link`, for `peer`.
    pub fn new(peer: Option<&'a PeerId>, link: Link<'a>) -> Self {
        Self { peer, link }
    }
}

/// A transport has accepted something. Nobody has said who it is, but a relay may claim it: `link.parts.peer`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Accept<'a> {
    /// From where.
    pub link: Link<'a>,
}

impl<'a> Accept<'a> {
    /// Of `link`.
    pub fn new(link: Link<'a>) -> Self {
        Self { link }
    }
}

macro_rules! with_peer {
    ($(#[$doc:meta])* $name:ident, $(#[$peer:meta])*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        #[non_exhaustive]
        pub struct $name<'a> {
            $(#[$peer])*
            pub peer: &'a PeerId,
            /// Between which ends.
            pub link: Link<'a>,
        }

        impl<'a> $name<'a> {
            /// Of `peer`, over `link`.
            pub fn new(peer: &'a PeerId, link: Link<'a>) -> Self {
                Self { peer, link }
            }
        }
    };
}

with_peer! {
    /// A valid knock has come.
    Knock,
    /// Who knocked. A knock can be a replay: deny by this, but change nothing by it.
}

with_peer! {
    /// The peer is proven, and nothing else has happened.
    Secured,
    /// Who it is.
}

with_peer! {
    /// The connection is ready for use. `link.connection` is always set.
    Upgraded,
    /// Who it is.
}

with_peer! {
    /// A connection that is established, and that a rule tightened since may not want. `link.connection` is always set.
    LiveConnection,
    /// Who it is.
}

/// An attempt that has not become a connection yet, and that a rule tightened since may not want.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PendingConnection<'a> {
    /// Whom it is for, if it says so; nobody has proven it.
    pub peer: Option<&'a PeerId>,
    /// Between which ends, as far as that is known.
    pub link: Link<'a>,
}

impl<'a> PendingConnection<'a> {
    /// Of `link`, for `peer`.
    pub fn new(peer: Option<&'a PeerId>, link: Link<'a>) -> Self {
        Self { peer, link }
    }
}
