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
    /// Whether two transports could read it as two addresses: it has a second host, a second port, or something before its
    /// host. libp2p's TCP reads from the end and takes no notice of what is in front, its WebSocket from the start.
    pub malformed: bool,
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
        malformed: false,
    };

    /// Of one address. An address that has no sense is [`TransportKind::Other`].
    pub fn of(address: &Multiaddr) -> Self {
        let mut this = Self::EMPTY;
        let (mut tcp, mut udp, mut quic, mut tls, mut ws, mut other) = (false, false, false, false, false, false);
        let (mut kind, mut hop) = (None, Hop::default());
        for protocol in address {
            this.malformed |= !hop.read(&protocol);
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
                knocks: here.knocks || there.knocks,
                malformed: here.malformed || there.malformed,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Parts {
        Parts::of(&text.parse().expect(text))
    }

    const ONE: &str = "12D3KooWRdMLPQGLUgdmpocSxFgNKVRBhVpXetFJiTL2wfNjkZep";
    const TWO: &str = "12D3KooWEUomVBMFkQDVnsF6ca4RUVMMN3NxfCWUjr9teyFv57eg";

    #[test]
    fn each_transport_is_told_by_what_stands_behind_the_port() {
        for (address, kind, knocks) in [
            ("/ip4/192.0.2.1/tcp/1/tls", TransportKind::Knock, true),
            ("/ip4/192.0.2.1/tcp/1", TransportKind::Tcp, false),
            ("/ip4/192.0.2.1/tcp/1/ws", TransportKind::WebSocket, false),
            ("/ip4/192.0.2.1/tcp/1/wss", TransportKind::WebSocket, false),
            ("/ip4/192.0.2.1/tcp/1/tls/ws", TransportKind::WebSocket, false),
            (
                "/ip4/192.0.2.1/tcp/1/tls/sni/example.org/ws",
                TransportKind::WebSocket,
                false,
            ),
            ("/ip4/192.0.2.1/udp/1/quic-v1", TransportKind::Quic, false),
            ("/ip4/192.0.2.1/udp/1/quic", TransportKind::Quic, false),
            (
                "/ip4/192.0.2.1/udp/1/quic-v1/webtransport",
                TransportKind::WebTransport,
                false,
            ),
            ("/ip4/192.0.2.1/udp/1/webrtc-direct", TransportKind::WebRtc, false),
            ("/ip4/192.0.2.1/udp/1", TransportKind::Other, false),
            ("/ip4/192.0.2.1/tcp/1/http", TransportKind::Other, false),
            ("/dns4/example.org/tcp/1/tls", TransportKind::Knock, true),
            ("/memory/7", TransportKind::Memory, false),
            ("/memory/7/tls", TransportKind::Knock, true),
            ("/ip4/192.0.2.1", TransportKind::Other, false),
        ] {
            for address in [address.to_owned(), format!("{address}/p2p/{ONE}")] {
                let parts = parts(&address);
                assert_eq!((parts.kind, parts.knocks), (kind, knocks), "{address}");
            }
        }
    }

    #[test]
    fn an_ip_is_the_same_however_it_is_written() {
        let plain = parts("/ip4/192.0.2.1/tcp/1");
        assert_eq!(parts("/ip6/::ffff:192.0.2.1/tcp/1"), plain);
        let zoned = parts("/ip6zone/eth0/ip6/fe80::1/tcp/1");
        assert_eq!(zoned.ip, "fe80::1".parse().ok());
        assert_eq!((zoned.kind, zoned.port), (TransportKind::Tcp, Some(1)));
    }

    #[test]
    fn what_two_transports_would_read_as_two_addresses_is_malformed() {
        for address in [
            "/ip4/192.0.2.1/ip4/10.0.0.1/tcp/22".to_owned(),
            "/dns4/example.org/ip4/10.0.0.1/tcp/22".to_owned(),
            "/tls/ip4/192.0.2.1/tcp/1".to_owned(),
            "/memory/7/ip4/192.0.2.1/tcp/1".to_owned(),
            "/ip4/192.0.2.1/ip6zone/eth0/ip6/fe80::1/tcp/1".to_owned(),
            "/tcp/1/ip4/192.0.2.1/tcp/2".to_owned(),
            "/ip4/192.0.2.1/tcp/1/tcp/2".to_owned(),
            "/ip4/192.0.2.1/udp/1/tcp/2".to_owned(),
            "/ip4/192.0.2.1/tcp/1/ws/ip4/10.0.0.1/tcp/22".to_owned(),
            format!("/p2p/{ONE}/ip4/192.0.2.1/tcp/1"),
            format!("/ip4/192.0.2.1/ip4/10.0.0.1/tcp/1/p2p/{ONE}/p2p-circuit"),
            format!("/ip4/192.0.2.1/tcp/1/p2p/{ONE}/p2p-circuit/tls/ip4/10.0.0.1/tcp/22"),
        ] {
            assert!(parts(&address).malformed, "{address}");
        }
        for address in [
            "/ip4/192.0.2.1/tcp/1/tls".to_owned(),
            "/ip6zone/eth0/ip6/fe80::1/tcp/1".to_owned(),
            "/dns4/example.org/tcp/443/tls/sni/example.org/ws".to_owned(),
            "/ip4/192.0.2.1/udp/1/quic-v1/webtransport".to_owned(),
            "/memory/7/tls".to_owned(),
            format!("/p2p/{ONE}"),
            format!("/p2p/{ONE}/p2p-circuit/p2p/{TWO}"),
            format!("/ip4/192.0.2.1/tcp/1/tls/p2p/{ONE}/p2p-circuit/ip4/198.51.100.2/tcp/2/p2p/{TWO}"),
        ] {
            assert!(!parts(&address).malformed, "{address}");
        }
    }

    #[test]
    fn a_name_is_no_address_and_says_so() {
        let named = parts("/dns6/example.org/tcp/1");
        assert!(named.named && named.ip.is_none());
    }

    #[test]
    fn a_relayed_address_has_two_ends() {
        let circuit = parts(&format!(
            "/ip4/192.0.2.1/tcp/1/tls/p2p/{ONE}/p2p-circuit/ip4/198.51.100.2/tcp/2/p2p/{TWO}"
        ));
        assert_eq!((circuit.kind, circuit.knocks), (TransportKind::Relayed, false));
        assert_eq!((circuit.ip, circuit.port), ("192.0.2.1".parse().ok(), Some(1)));
        assert_eq!(
            (circuit.target_ip, circuit.target_port),
            ("198.51.100.2".parse().ok(), Some(2))
        );
        assert_eq!((circuit.relay, circuit.peer), (ONE.parse().ok(), TWO.parse().ok()));
        assert_eq!(circuit.ips().count(), 2);
        let knocking = parts(&format!("/ip4/192.0.2.1/tcp/1/p2p/{ONE}/p2p-circuit/tls/p2p/{TWO}"));
        assert_eq!((knocking.kind, knocking.knocks), (TransportKind::Relayed, true));
    }

    #[test]
    fn behind_two_relays_packets_go_to_the_first() {
        let circuits = parts(&format!(
            "/ip4/192.0.2.1/tcp/1/p2p/{ONE}/p2p-circuit/p2p/{TWO}/p2p-circuit"
        ));
        assert_eq!(circuits.relay, ONE.parse().ok());
        assert_eq!(circuits.ip, "192.0.2.1".parse().ok());
    }

    #[test]
    fn what_comes_through_a_relay_is_found_in_the_local_address() {
        let local = format!("/ip4/192.0.2.1/tcp/1/p2p/{ONE}/p2p-circuit");
        let inbound = Parts::of_inbound(
            &local.parse().expect("local"),
            &format!("/p2p/{TWO}").parse().expect("remote"),
        );
        assert_eq!(inbound.kind, TransportKind::Relayed);
        assert_eq!((inbound.relay, inbound.peer), (ONE.parse().ok(), TWO.parse().ok()));
        assert_eq!(inbound.ip, "192.0.2.1".parse().ok());
    }
}
