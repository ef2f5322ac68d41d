//! The enemy in front of the listener: what each attack gets back, and what the listener says it was.

use crate::common::*;
use libp2p_knock::{CertificateRefusal, Error};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Stream};
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SHORT: Duration = Duration::from_millis(400);

async fn impatient_victim() -> Victim {
    victim(old(2).dangerous().with_close_time(SHORT).with_handshake_timeout(SHORT)).await
}

#[tokio::test]
async fn strangers_get_no_byte_whatever_they_say_and_all_wait_equally_long() {
    let mut listener = impatient_victim().await;
    let own_knock = {
        let mut knock = knock(1, 2);
        knock[1..33].copy_from_slice(&libp2p_knock::Identity::public_key(&key(2)));
        knock
    };
    let mut flipped = knock(1, 2);
    flipped[96] ^= 1;
    let mut old_version = knock(1, 2);
    old_version[0] = 1;
    let too_long = [&flipped[..], &[7; 4000]].concat();
    let probes: [(&str, &[u8]); 12] = [
        ("nothing", b""),
        ("one byte", b"\x02"),
        ("96 bytes of a valid knock", &knock(1, 2)[..96]),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
        ("libp2p", b"\x13/multistream/1.0.0\n"),
        ("a ClientHello", &client_hello()),
        ("zeros", &[0; 1024]),
        ("a flipped bit", &flipped),
        ("another version", &old_version),
        ("a knock for somebody else", &knock(1, 3)),
        ("our own key", &own_knock),
        ("a wrong knock and more", &too_long),
    ];
    let results = futures::future::join_all(probes.iter().map(|(_, bytes)| listener.probe(bytes))).await;
    for ((what, _), (answer, after)) in probes.iter().zip(results) {
        assert!(answer.is_empty(), "{what}: {} bytes back", answer.len());
        assert!(after >= SHORT, "{what}: closed after {after:?}");
    }
    listener.nothing_for(Duration::from_millis(50)).await;
}

/// Where version 2 is the rule and somebody has version 3, one sealed knock in 256 begins as every v2 knock does.
#[cfg(feature = "internals")]
#[tokio::test]
async fn a_sealed_knock_that_begins_like_version_2_is_answered() {
    use libp2p_knock::internals::{Callee, Fresh, StaticKey, local, seal};
    use libp2p_knock::{Mode, Network, Version};
    let own = StaticKey::new(local(&keypair(1)).unwrap()).unwrap();
    let callee = Callee::of_peer(&peer(2)).unwrap();
    for first in [3, 2] {
        let config = old(2).with_peer(peer(1), Version::V3, Mode::Yamux).unwrap();
        let listener = victim(config.dangerous().with_close_time(SHORT).with_handshake_timeout(SHORT)).await;
        // A second ahead: what is as old as this process is refused.
        let now = 1000 + std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let fresh = Fresh {
            nonce: [first; 12],
            ephemeral: [4; 32],
            flight_key: [5; 32],
        };
        let knock = seal(
            &own,
            &callee,
            &Network::open(),
            Mode::Yamux,
            now,
            fresh,
            &client_hello(),
        )
        .unwrap();
        let (answer, _) = listener.probe(&knock).await;
        assert_eq!(answer.first(), Some(&22), "a nonce that begins with {first}");
    }
}

/// The first flight of a real TLS client, without a knock.
fn client_hello() -> Vec<u8> {
    let mut client = gullible_client(&rustls::version::TLS13, None);
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// Knocks rightly as seed 1 and then does TLS as `client`. What the listener makes of it, and the application bytes
/// that the attacker got to read.
async fn attack(mut client: ClientConnection) -> (Error, Vec<u8>) {
    let mut listener = victim(old(2).dangerous().with_close_time(SHORT)).await;
    let address = listener.socket.unwrap();
    let attacking = tokio::task::spawn_blocking(move || {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        socket.write_all(&knock(1, 2)).unwrap();
        let mut stream = Stream::new(&mut client, &mut socket);
        let mut read = Vec::new();
        let _ = stream
            .write_all(b"let me in")
            .and_then(|()| stream.read_to_end(&mut read));
        read
    });
    let error = listener.error().await;
    (error, attacking.await.unwrap())
}

#[tokio::test]
async fn another_keys_certificate_after_a_right_knock_is_refused_inside_the_handshake() {
    let (error, read) = attack(gullible_client(&rustls::version::TLS13, Some((3, 1)))).await;
    match error {
        Error::WrongPeer { expected, found } => assert_eq!((expected, found), (peer(1), peer(3))),
        other => panic!("{other:?}"),
    }
    assert!(read.is_empty());
}

#[tokio::test]
async fn two_certificates_are_one_too_many() {
    let (error, read) = attack(gullible_client(&rustls::version::TLS13, Some((1, 2)))).await;
    assert!(
        matches!(error, Error::Certificate(CertificateRefusal::Count(2))),
        "{error:?}"
    );
    assert!(read.is_empty());
}

#[tokio::test]
async fn no_certificate_is_not_enough() {
    let (error, read) = attack(gullible_client(&rustls::version::TLS13, None)).await;
    assert!(
        matches!(error, Error::Tls(rustls::Error::NoCertificatesPresented)),
        "{error:?}"
    );
    assert!(read.is_empty());
}

#[tokio::test]
async fn the_right_certificate_is_enough_so_the_attacks_above_fail_for_the_right_reason() {
    let mut listener = victim(old(2).dangerous().with_close_time(SHORT)).await;
    let address = listener.socket.unwrap();
    let friend = tokio::task::spawn_blocking(move || {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        socket.write_all(&knock(1, 2)).unwrap();
        let mut client = gullible_client(&rustls::version::TLS13, Some((1, 1)));
        Stream::new(&mut client, &mut socket).write_all(b"hello").unwrap();
    });
    let (caller, mut stream) = listener.upgraded().await.unwrap();
    assert_eq!(caller, peer(1));
    let mut hello = [0; 5];
    futures::AsyncReadExt::read_exact(&mut stream, &mut hello)
        .await
        .unwrap();
    assert_eq!(&hello, b"hello");
    friend.await.unwrap();
}

/// Sends `bytes` and returns all that comes back before the end, which may be a reset: after a valid knock the
/// listener is known to be one anyway.
async fn answer_to(listener: &Victim, bytes: &[u8]) -> Vec<u8> {
    let mut socket = listener.connect().await;
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end", socket.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn a_tls_1_2_client_is_refused_without_an_alert() {
    let mut listener = victim(old(2).dangerous().with_close_time(SHORT)).await;
    let mut client = gullible_client(&rustls::version::TLS12, Some((1, 1)));
    let mut flight = knock(1, 2).to_vec();
    client.write_tls(&mut flight).unwrap();
    assert_eq!(answer_to(&listener, &flight).await, b"");
    let error = listener.error().await;
    assert!(
        matches!(error, Error::Tls(rustls::Error::PeerIncompatible(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_client_without_our_alpn_is_refused_without_an_alert() {
    let mut listener = victim(old(2).dangerous().with_close_time(SHORT)).await;
    let mut config = gullible_config(&rustls::version::TLS13, Some((1, 1)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from("0.0.0.0").unwrap()).unwrap();
    let mut flight = knock(1, 2).to_vec();
    client.write_tls(&mut flight).unwrap();
    assert_eq!(answer_to(&listener, &flight).await, b"");
    let error = listener.error().await;
    assert!(
        matches!(error, Error::Tls(rustls::Error::NoApplicationProtocol)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_valid_knock_and_then_garbage_gets_no_byte() {
    let mut listener = victim(old(2).dangerous().with_close_time(SHORT)).await;
    let garbage = [&knock(1, 2)[..], &[0xaa; 300]].concat();
    assert_eq!(answer_to(&listener, &garbage).await, b"");
    let error = listener.error().await;
    assert!(matches!(error, Error::Tls(_)), "{error:?}");
}

#[tokio::test]
async fn a_valid_knock_and_then_the_end_is_an_ordinary_close() {
    let mut listener = victim(old(2).dangerous().with_close_time(SHORT)).await;
    let mut socket = listener.connect().await;
    socket.write_all(&knock(1, 2)).await.unwrap();
    drop(socket);
    assert!(matches!(listener.error().await, Error::Closed));
}

#[tokio::test]
async fn a_valid_knock_and_then_silence_ends_at_the_handshake_timeout() {
    let mut listener = impatient_victim().await;
    let (answer, after) = listener.probe(&knock(1, 2)).await;
    assert!(answer.is_empty());
    assert!(after >= SHORT, "{after:?}");
    assert!(matches!(listener.error().await, Error::Timeout(limit) if limit == SHORT));
}

#[tokio::test]
async fn a_silent_socket_is_never_shown_to_the_swarm() {
    let mut listener = impatient_victim().await;
    let (answer, after) = listener.probe(b"").await;
    assert!(answer.is_empty());
    assert!(after >= SHORT, "{after:?}");
    listener.nothing_for(Duration::from_millis(50)).await;
}

/// A friend whose bytes arrive as `pieces` says, his whole first flight included.
async fn arrives_in(pieces: impl Fn(&[u8]) -> Vec<Vec<u8>>) {
    let mut listener = victim(old(2).dangerous().with_close_time(PATIENCE)).await;
    let mut client = gullible_client(&rustls::version::TLS13, Some((1, 1)));
    let mut flight = knock(1, 2).to_vec();
    client.write_tls(&mut flight).unwrap();
    let mut socket = listener.connect().await;
    socket.set_nodelay(true).unwrap();
    for piece in pieces(&flight) {
        socket.write_all(&piece).await.unwrap();
        // Let it be read by itself.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut socket = socket.into_std().unwrap();
    socket.set_nonblocking(false).unwrap();
    let finish = tokio::task::spawn_blocking(move || client.complete_io(&mut socket).map(|_| ()));
    assert_eq!(listener.upgraded().await.unwrap().0, peer(1));
    finish.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_knock_may_come_one_byte_at_a_time() {
    arrives_in(|flight| {
        let (knock, hello) = flight.split_at(97);
        let bytes = knock.iter().map(|byte| vec![*byte]);
        bytes.chain([hello.to_vec()]).collect()
    })
    .await;
}

#[tokio::test]
async fn a_knock_may_be_glued_to_the_client_hello() {
    arrives_in(|flight| vec![flight.to_vec()]).await;
}

#[tokio::test]
async fn a_knock_may_be_cut_in_the_middle_and_the_client_hello_too() {
    arrives_in(|flight| vec![flight[..50].to_vec(), flight[50..150].to_vec(), flight[150..].to_vec()]).await;
}
