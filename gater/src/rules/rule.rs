//! One entry of the allow list or of the block list.

use super::cidr::Cidr;
use super::facts::Facts;
use super::key::PeerKey;
use crate::address::TransportKind;
use crate::context::Direction;
use crate::shown::is_obeyed;
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_identity::PeerId;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An entry of the allow list or of the block list: what it is about, until when it holds, and a note for people.
///
/// What a rule names must all be true of a connection for the rule to be about it; a rule that names nothing is about
/// everything. Two rules that name the same and do the same are the same rule: inserting the second replaces the first's
/// expiry and note, and removing takes no notice of them.
///
/// As text it is a line of the rules' file, and the other way round:
///
/// ```
/// use libp2p_gater::{Direction, Rule};
///
/// let rule = Rule::block().network("192.0.2.0/24".parse::<libp2p_gater::Cidr>()?).direction(Direction::Inbound);
/// assert_eq!(rule.to_string(), "block network 192.0.2.0/24 direction inbound");
/// assert_eq!("block network 192.0.2.0/24 direction inbound".parse::<Rule>()?, rule);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(super) allow: bool,
    pub(super) peer: Option<PeerId>,
    pub(super) network: Option<Cidr>,
    pub(super) ports: Option<(u16, u16)>,
    pub(super) direction: Option<Direction>,
    pub(super) transport: Option<TransportKind>,
    pub(super) listener: Option<Multiaddr>,
    /// Seconds since 1970: what a file says to the second, memory should not say more finely.
    pub(super) until: Option<u64>,
    pub(super) note: Option<Box<str>>,
}

/// Whether what a rule names is true of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holds {
    No,
    /// It cannot be said at this stage.
    Unknown,
    Yes,
}

impl Rule {
    /// One of the allow list. It outranks blocks, membership, rates and caps for what it is about.
    pub const fn allow() -> Self {
        Self::new(true)
    }

    /// One of the block list.
    pub const fn block() -> Self {
        Self::new(false)
    }

    const fn new(allow: bool) -> Self {
        Self {
            allow,
            peer: None,
            network: None,
            ports: None,
            direction: None,
            transport: None,
            listener: None,
            until: None,
            note: None,
        }
    }

    /// About this peer. Blocked, it may be the relay of a circuit as little as its end.
    pub const fn peer(mut self, peer: PeerId) -> Self {
        self.peer = Some(peer);
        self
    }

    /// About addresses in this range; a bare address is a range of one. Blocked, neither a relay's
    /// address may be in it nor the address that is said to be behind the relay, nor an IPv4
    /// address that either leads to ([`embedded_ipv4`](crate::embedded_ipv4)). Allowed, it is no
    /// help to what comes through a relay, nor to an IPv6 address that leads to IPv4.
    pub fn network(mut self, network: impl Into<Cidr>) -> Self {
        self.network = Some(network.into());
        self
    }

    /// About these ports: the remote's of a dial, our listener's of what is accepted. The remote port of what is accepted
    /// is any, so no rule looks at it.
    pub const fn ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.ports = Some((*ports.start(), *ports.end()));
        self
    }

    /// About this port alone. See [`Self::ports`].
    pub const fn port(self, port: u16) -> Self {
        self.ports(port..=port)
    }

    /// About connections in this direction.
    pub const fn direction(mut self, direction: Direction) -> Self {
        self.direction = Some(direction);
        self
    }

    /// About connections over this transport.
    pub const fn transport(mut self, transport: TransportKind) -> Self {
        self.transport = Some(transport);
        self
    }

    /// About what is accepted at this listen address, in which `0.0.0.0` and `::` are any IP.
    pub fn listener(mut self, address: Multiaddr) -> Self {
        self.listener = Some(address);
        self
    }

    /// Holds until then, to the second, by the wall clock of the moment. Then it is out of force,
    /// and what an allow let in is judged anew: where the gate's behaviour runs in that second,
    /// otherwise at the next change.
    ///
    /// A rule that has expired is kept, for the clock may be wrong: at most 65,536 such, then those
    /// that expired first are dropped at a change. It is in
    /// [`Rules::expired`](crate::Rules::expired) and in the file, takes no place from others, and
    /// is in force again when the clock has gone back. [`Change::remove`](crate::Change::remove)
    /// takes it away, and [`Change::forget_expired`](crate::Change::forget_expired) all of them.
    pub fn until(mut self, until: SystemTime) -> Self {
        self.until = Some(seconds(until).min(super::text::LAST_SECOND));
        self
    }

    /// A note for people: who asked for it, and why. One line: line breaks, other control characters and what
    /// sets the direction of a text become spaces. An empty one is none. The rule as a line may have
    /// 4096 bytes.
    pub fn note(mut self, note: impl AsRef<str>) -> Self {
        let note = note.as_ref().replace(is_obeyed, " ");
        let note = note.trim();
        self.note = (!note.is_empty()).then(|| note.into());
        self
    }

    /// Whether it allows. Otherwise it blocks.
    pub const fn is_allow(&self) -> bool {
        self.allow
    }

    /// When it expires, if it does.
    pub fn expires(&self) -> Option<SystemTime> {
        self.until.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// Whether both are entries for the same, whatever their expiries and notes.
    pub(super) fn same(&self, other: &Self) -> bool {
        let named = |rule: &Self| (rule.allow, rule.ports, rule.direction, rule.transport, rule.network);
        named(self) == named(other) && self.peer == other.peer && self.listener == other.listener
    }

    /// Whether it is a block of its peer or of its network and says nothing else.
    pub(super) fn is_plain(&self) -> bool {
        !self.allow
            && (self.peer.is_some() != self.network.is_some())
            && self.ports.is_none()
            && self.direction.is_none()
            && self.transport.is_none()
            && self.listener.is_none()
            && self.until.is_none()
            && self.note.is_none()
    }

    /// Whether what the rule names is true, its expiry apart. An allow that cannot be told yet is taken to hold until it
    /// can, a block is not: that is the caller's to do.
    pub(super) fn holds(&self, facts: &Facts<'_>) -> Holds {
        let of = |known: Option<bool>| match known {
            Some(true) => Holds::Yes,
            Some(false) => Holds::No,
            None => Holds::Unknown,
        };
        let peer = self.peer.map_or(Holds::Yes, |peer| match self.allow {
            true => of(facts.peer.map(|other| *other == peer)),
            false => of(facts.is_for(&peer)),
        });
        let network = self.network.map_or(Holds::Yes, |network| match self.allow {
            true => of(facts.comes_from(network)),
            false => of(facts.touches(network)),
        });
        let direction = self.direction.is_none_or(|direction| direction == facts.direction);
        let ports = self.ports.map_or(Holds::Yes, |(first, last)| {
            of(facts
                .port()
                .map(|port| port.is_some_and(|port| (first..=last).contains(&port))))
        });
        let transport = self
            .transport
            .map_or(Holds::Yes, |transport| of(facts.is_over(transport)));
        let listener = self.listener.as_ref().map_or(Holds::Yes, |pattern| {
            of(facts
                .listener()
                .map(|local| local.is_some_and(|local| is_at(local, pattern))))
        });
        let direction = of(Some(direction));
        peer.min(network).min(direction).min(ports).min(transport).min(listener)
    }

    pub(super) fn has_expired(&self, now: impl FnOnce() -> SystemTime) -> bool {
        self.until.is_some_and(|until| until <= seconds(now()))
    }

    pub(super) fn peer_key(&self) -> Option<PeerKey> {
        self.peer.as_ref().and_then(PeerKey::of)
    }
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether `local` is an address of the listener `pattern`. A trailing `/p2p` of either does not count.
fn is_at(local: &Multiaddr, pattern: &Multiaddr) -> bool {
    let parts = |address: &Multiaddr| -> Vec<Protocol<'static>> {
        let own = address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
        own.map(|part| match part {
            Protocol::Ip6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => Protocol::Ip4(ip),
                None => Protocol::Ip6(ip),
            },
            part => part.acquire(),
        })
        .collect()
    };
    let (local, pattern) = (parts(local), parts(pattern));
    local.len() == pattern.len()
        && local.iter().zip(&pattern).all(|(local, pattern)| match pattern {
            Protocol::Ip4(Ipv4Addr::UNSPECIFIED) => matches!(local, Protocol::Ip4(_)),
            // Such a socket may accept both.
            Protocol::Ip6(Ipv6Addr::UNSPECIFIED) => matches!(local, Protocol::Ip4(_) | Protocol::Ip6(_)),
            pattern => local == pattern,
        })
}

/// What a bare block is about; see [`Change::block`](super::Change::block).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// A peer.
    Peer(PeerId),
    /// A network, or an IP as a network of one.
    Network(Cidr),
}

impl Subject {
    pub(super) fn blocked(self) -> Rule {
        match self {
            Self::Peer(peer) => Rule::block().peer(peer),
            Self::Network(network) => Rule::block().network(network),
        }
    }
}

impl From<PeerId> for Subject {
    fn from(peer: PeerId) -> Self {
        Self::Peer(peer)
    }
}

impl From<Cidr> for Subject {
    fn from(network: Cidr) -> Self {
        Self::Network(network)
    }
}

impl From<IpAddr> for Subject {
    fn from(ip: IpAddr) -> Self {
        Self::Network(ip.into())
    }
}
