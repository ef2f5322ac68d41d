//! What an address says, read once and without allocating: over which transport, from or to which IP, behind which relay.

use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_identity::PeerId;
use std::net::IpAddr;

/// What an address is reached over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TransportKind {
    /// `/tcp/N/tls`: a knock, then TLS.
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
    /// Whether somebody knocks there: `/tls` with no WebSocket behind it, over whatever the transport is.
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
    /// In a relayed address, the IP that is said to be behind the relay. Nobody has proven it.
    pub target_ip: Option<IpAddr>,
    /// The port that goes with it.
    pub target_port: Option<u16>,
    /// The peer: the last `/p2p`, but for the relay.
    pub peer: Option<PeerId>,
}

impl Parts {
    /// Of an address of nothing.
    pub const EMPTY: Self = Self {
        kind: TransportKind::Other,
        knocks: false,
        ip: None,
        port: None,
        named: false,
        relay: None,
        target_ip: None,
        target_port: None,
        peer: None,
    };

    /// Of one address. An address that has no sense is [`TransportKind::Other`].
    pub fn of(address: &Multiaddr) -> Self {
        let mut this = Self::EMPTY;
        let (mut tcp, mut udp, mut quic, mut tls, mut ws, mut other) = (false, false, false, false, false, false);
        let mut kind = None;
        for protocol in address {
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
                Protocol::Tls => tls = true,
                Protocol::Ws(_) | Protocol::Wss(_) => ws = true,
                Protocol::Quic | Protocol::QuicV1 => quic = true,
                Protocol::WebTransport => kind = kind.or(Some(TransportKind::WebTransport)),
                Protocol::WebRTCDirect | Protocol::WebRTC | Protocol::P2pWebRtcDirect => {
                    kind = kind.or(Some(TransportKind::WebRtc));
                }
                Protocol::Memory(_) => kind = kind.or(Some(TransportKind::Memory)),
                Protocol::P2pCircuit => {
                    // A second relay behind the first: the first is the one packets go to.
                    this.relay = this.relay.or(this.peer);
                    this.peer = None;
                    // How the relay is reached says nothing about what is spoken through it.
                    (tls, ws, other) = (false, false, false);
                    kind = Some(TransportKind::Relayed);
                }
                Protocol::P2p(peer) => this.peer = Some(peer),
                Protocol::Certhash(_) | Protocol::Ip6zone(_) | Protocol::Sni(_) => {}
                _ => other = true,
            }
            if kind == Some(TransportKind::Relayed) {
                this.kind = TransportKind::Relayed;
            }
        }
        this.knocks = tls && !ws && !other;
        this.kind = match kind {
            Some(TransportKind::Memory) if this.knocks => TransportKind::Knock,
            Some(kind) => kind,
            None if other => TransportKind::Other,
            None if tcp && ws => TransportKind::WebSocket,
            None if tcp && tls => TransportKind::Knock,
            None if tcp => TransportKind::Tcp,
            None if udp && quic => TransportKind::Quic,
            None => TransportKind::Other,
        };
        this
    }

    /// Of the remote end of an inbound connection, whose two addresses are as the transport gives them. Through a relay
    /// the remote one is a bare `/p2p/<source>`, and the relay is found in the local one.
    pub fn of_inbound(local: &Multiaddr, remote: &Multiaddr) -> Self {
        let mut there = Self::of(remote);
        if there.ip.is_some() && there.kind != TransportKind::Other && there.kind != TransportKind::Relayed {
            return there;
        }
        let here = Self::of(local);
        if here.kind == TransportKind::Relayed {
            return Self {
                peer: there.peer,
                target_ip: there.target_ip.or(there.ip),
                target_port: there.target_port.or(there.port),
                ..here
            };
        }
        if there.kind == TransportKind::Other {
            there.kind = here.kind;
        }
        there
    }

    /// Every IP that a rule has to look at: that of the host or relay, and the one behind the relay.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ip.into_iter().chain(self.target_ip)
    }

    /// Whether packets go through a relay.
    pub fn is_relayed(&self) -> bool {
        self.kind == TransportKind::Relayed
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
