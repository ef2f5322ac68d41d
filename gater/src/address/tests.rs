//! What addresses say.

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
