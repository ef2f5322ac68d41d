//! What an address says, read once and without allocating: over which transport, from or to which IP, behind which relay.

mod embedded;

pub use embedded::embedded_ipv4;
pub(crate) use embedded::{each_embedded, host, may_embed};

use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_identity::PeerId;
use std::net::IpAddr;

/// What an address is reached over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TransportKind {
    /// A knock, then TLS: what libp2p-knock's transport claims outside of circuits. `/tls` is the
    /// last component but for `/p2p/<peer>`, and something stands before it.
    Knock,
    /// `/tcp/N`: stock TCP, whatever security is negotiated on it.
    Tcp,
    /// `/udp/N/quic-v1`, and the older `/quic`.
    Quic,
    /// `/tcp/N/ws`, `/wss`, `/tls/ws`.
    WebSocket,
    /// `/udp/N/quic-v1/webtransport`.
    WebTransport,
    /// `/udp/N/webrtc-direct`.
    WebRtc,
    /// Through a relay: whatever has `/p2p-circuit` in it.
    Relayed,
    /// `/memory/N`.
    Memory,
    /// None of these.
    Other,
}

impl TransportKind {
    /// Every kind there is, in the order in which it is declared.
    pub const ALL: [Self; 9] = [
        Self::Knock,
        Self::Tcp,
        Self::Quic,
        Self::WebSocket,
        Self::WebTransport,
        Self::WebRtc,
        Self::Relayed,
        Self::Memory,
        Self::Other,
    ];

    /// In lower case, for labels and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Knock => "knock",
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::WebSocket => "websocket",
            Self::WebTransport => "webtransport",
            Self::WebRtc => "webrtc",
            Self::Relayed => "relayed",
            Self::Memory => "memory",
            Self::Other => "other",
        }
    }
}

impl std::fmt::Display for TransportKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// `::ffff:a.b.c.d` as `a.b.c.d`, everything else as it is: what goes to the same host compares equal.
pub fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// What an address says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parts {
    /// What it is reached over.
    pub kind: TransportKind,
    /// Whether it is a knock's address: exactly if libp2p-knock's transport claims it, over
    /// whatever it stands on.
    pub knocks: bool,
    /// The host that packets are exchanged with: of a relayed address the relay, if it says where that is. IPv4-mapped
    /// IPv6 is IPv4.
    pub ip: Option<IpAddr>,
    /// The port there, TCP's or UDP's.
    pub port: Option<u16>,
    /// Whether the host has a name instead of an IP: nobody has resolved it yet.
    pub named: bool,
    /// The relay, in a relayed address that names it.
    pub relay: Option<PeerId>,
    /// The second relay, where the way goes through two, or where the two addresses of an inbound
    /// connection name one each.
    pub second_relay: Option<PeerId>,
    /// Where the second relay is said to be.
    pub second_ip: Option<IpAddr>,
    /// In a relayed address, the IP that is said to be behind the relay. Nobody has proven it.
    pub target_ip: Option<IpAddr>,
    /// The port that goes with it.
    pub target_port: Option<u16>,
    /// The peer: the last `/p2p`, but for the relay.
    pub peer: Option<PeerId>,
    /// Whether two transports could read it as two addresses: it has a second host, a second port,
    /// or something before its host. libp2p's TCP reads from the end and takes no notice of what is
    /// in front, its WebSocket from the start. Or whether it goes through more than two relays:
    /// there would be one that no rule sees.
    pub malformed: bool,
}

/// What libp2p-knock's transport looks at: whether `/tls` is the last component but for a peer.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    /// Nothing was read yet.
    Start,
    /// Something else came last.
    No,
    /// A peer came last, named once or more.
    Named,
    /// Different peers came last.
    Muddled,
    /// `/tls` came last, and something before it: a peer, if this is set.
    Tls(bool),
    /// A peer came last, named once or more, and `/tls` before it.
    Peer,
}

impl Mark {
    /// Behind a circuit, what stands before `/tls` may name the end too.
    const fn tls(self, circuit: bool) -> Self {
        match self {
            Self::Start => Self::No,
            Self::Muddled if circuit => Self::No,
            Self::Named | Self::Peer => Self::Tls(true),
            _ => Self::Tls(false),
        }
    }

    /// `again` if it is the peer that was named last.
    const fn peer(self, again: bool, circuit: bool) -> Self {
        match self {
            // That of the circuit is named before the mark, and is another.
            Self::Tls(true) if circuit && !again => Self::Named,
            Self::Tls(_) => Self::Peer,
            Self::Peer | Self::Named if again => self,
            Self::Peer | Self::Named | Self::Muddled => Self::Muddled,
            Self::Start | Self::No => Self::Named,
        }
    }
}

/// What has been read since the address began, or since the last relay.
#[derive(Default)]
struct Hop {
    begun: bool,
    port: bool,
}

impl Hop {
    /// Reads on, and says whether that has a place there.
    fn read(&mut self, protocol: &Protocol<'_>) -> bool {
        match protocol {
            Protocol::P2pCircuit => {
                *self = Self::default();
                true
            }
            // Of the IP behind it.
            Protocol::Ip6zone(_) => !self.begun,
            Protocol::Ip4(_)
            | Protocol::Ip6(_)
            | Protocol::Dns(_)
            | Protocol::Dns4(_)
            | Protocol::Dns6(_)
            | Protocol::Dnsaddr(_)
            | Protocol::Unix(_)
            | Protocol::Memory(_) => !std::mem::replace(&mut self.begun, true),
            Protocol::Tcp(_) | Protocol::Udp(_) => {
                self.begun = true;
                !std::mem::replace(&mut self.port, true)
            }
            _ => {
                self.begun = true;
                true
            }
        }
    }
}

impl Parts {
    /// Of an address of nothing.
    pub const EMPTY: Self = Self::empty();

    /// Written field by field, of which most are nothing: to copy all of a constant takes longer.
    #[inline]
    const fn empty() -> Self {
        Self {
            kind: TransportKind::Other,
            knocks: false,
            ip: None,
            port: None,
            named: false,
            relay: None,
            second_relay: None,
            second_ip: None,
            target_ip: None,
            target_port: None,
            peer: None,
            malformed: false,
        }
    }

    /// Of one address. An address that has no sense is [`TransportKind::Other`].
    pub fn of(address: &Multiaddr) -> Self {
        let mut this = Self::empty();
        let (mut tcp, mut udp, mut quic, mut tls, mut ws, mut other) = (false, false, false, false, false, false);
        let (mut kind, mut hop, mut mark) = (None, Hop::default(), Mark::Start);
        for protocol in address {
            this.malformed |= !hop.read(&protocol);
            let before = std::mem::replace(&mut mark, Mark::No);
            match protocol {
                Protocol::Ip4(ip) => this.see(ip.into()),
                Protocol::Ip6(ip) => this.see(ip.into()),
                Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => {
                    this.named = true;
                }
                Protocol::Tcp(port) => {
                    tcp = true;
                    this.see_port(port);
                }
                Protocol::Udp(port) => {
                    udp = true;
                    this.see_port(port);
                }
                Protocol::Tls => {
                    tls = true;
                    mark = before.tls(kind == Some(TransportKind::Relayed));
                }
                Protocol::Ws(_) | Protocol::Wss(_) => ws = true,
                Protocol::Quic | Protocol::QuicV1 => quic = true,
                Protocol::WebTransport => kind = kind.or(Some(TransportKind::WebTransport)),
                Protocol::WebRTCDirect | Protocol::WebRTC | Protocol::P2pWebRtcDirect => {
                    kind = kind.or(Some(TransportKind::WebRtc));
                }
                Protocol::Memory(_) => kind = kind.or(Some(TransportKind::Memory)),
                Protocol::P2pCircuit => {
                    this.pass_relay();
                    kind = Some(TransportKind::Relayed);
                }
                Protocol::P2p(peer) => {
                    mark = before.peer(this.peer == Some(peer), kind == Some(TransportKind::Relayed));
                    this.peer = Some(peer);
                }
                Protocol::Certhash(_) | Protocol::Ip6zone(_) | Protocol::Sni(_) => {}
                _ => other = true,
            }
        }
        this.knocks = matches!(mark, Mark::Tls(_) | Mark::Peer);
        this.kind = match kind {
            Some(TransportKind::Relayed) => TransportKind::Relayed,
            _ if this.knocks => TransportKind::Knock,
            Some(kind) => kind,
            None if other => TransportKind::Other,
            None if tcp && ws => TransportKind::WebSocket,
            // TLS, and no knock: no transport of libp2p's.
            None if tcp && tls => TransportKind::Other,
            None if tcp => TransportKind::Tcp,
            None if udp && quic => TransportKind::Quic,
            None => TransportKind::Other,
        };
        this
    }

    /// Of the remote end of an inbound connection, whose two addresses are as the transport gives
    /// them. Through a relay the remote one is mostly a bare `/p2p/<source>`, and the relay is
    /// found in the local one. Whatever either names, the relays and the addresses of both, is kept
    /// for rules to look at; that it knocks only the local one can say, which is ours.
    pub fn of_inbound(local: &Multiaddr, remote: &Multiaddr) -> Self {
        if may_be_circuit(local) {
            let here = Self::of(local);
            if here.kind == TransportKind::Relayed {
                return here.with_remote(&Self::of(remote));
            }
        }
        let mut there = Self::of(remote);
        if there.kind == TransportKind::Other {
            there.kind = kind_of(local);
        }
        there
    }

    /// Of what comes through the relay of this local address from `there`.
    #[cold]
    fn with_remote(self, there: &Self) -> Self {
        let mut this = Self {
            peer: there.peer,
            target_ip: there.target_ip,
            target_port: there.target_port,
            malformed: self.malformed || there.malformed,
            ..self
        };
        if there.kind != TransportKind::Relayed {
            this.target_ip = there.ip;
            this.target_port = there.port;
            return this;
        }
        for (relay, ip) in [(there.relay, there.ip), (there.second_relay, there.second_ip)] {
            let nothing = relay.is_none() && ip.is_none();
            let ours = relay == self.relay && (ip.is_none() || ip == self.ip);
            if nothing || ours {
                continue;
            }
            this.malformed |= this.second_relay.is_some() || this.second_ip.is_some();
            (this.second_relay, this.second_ip) = (relay, ip);
        }
        this
    }

    /// Every IP that a rule that denies has to look at: that of the host or relay, those that are
    /// said to be behind it, and the IPv4 addresses that any of them leads to ([`embedded_ipv4`]).
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.written_ips().flat_map(|ip| {
            let leads_to = match ip {
                IpAddr::V6(six) => Some(embedded_ipv4(six)),
                IpAddr::V4(_) => None,
            };
            std::iter::once(ip).chain(leads_to.into_iter().flatten().map(IpAddr::V4))
        })
    }

    /// Those of them that the address names.
    fn written_ips(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ip.into_iter().chain(self.second_ip).chain(self.target_ip)
    }

    /// Whether packets go through a relay.
    pub fn is_relayed(&self) -> bool {
        self.kind == TransportKind::Relayed
    }

    /// What was read is a relay, and what follows stands behind it.
    fn pass_relay(&mut self) {
        if self.kind != TransportKind::Relayed {
            self.kind = TransportKind::Relayed;
            self.relay = self.peer.take();
            return;
        }
        // Behind another: that is the one packets go to.
        self.malformed |= self.second_relay.is_some() || self.second_ip.is_some();
        self.second_relay = self.peer.take();
        self.second_ip = self.target_ip.take();
        self.target_port = None;
    }

    fn see(&mut self, ip: IpAddr) {
        let ip = canonical(ip);
        match self.kind {
            TransportKind::Relayed => self.target_ip = self.target_ip.or(Some(ip)),
            _ => self.ip = self.ip.or(Some(ip)),
        }
    }

    fn see_port(&mut self, port: u16) {
        match self.kind {
            TransportKind::Relayed => self.target_port = self.target_port.or(Some(port)),
            _ => self.port = self.port.or(Some(port)),
        }
    }
}

#[cold]
fn kind_of(address: &Multiaddr) -> TransportKind {
    Parts::of(address).kind
}

/// Whether the bytes of a `/p2p-circuit` are in it. Other bytes may look like them: it has to be
/// read then.
fn may_be_circuit(address: &Multiaddr) -> bool {
    /// 290 as a varint.
    const CIRCUIT: [u8; 2] = [0xa2, 0x02];
    let bytes = address.as_ref();
    // Most have no such byte at all.
    bytes.contains(&CIRCUIT[0]) && bytes.windows(2).any(|two| two == CIRCUIT)
}

#[cfg(test)]
mod tests;
