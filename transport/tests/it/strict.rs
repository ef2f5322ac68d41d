//! Ends that are all of rustls, and hold ours to the letter of TLS once both have authenticated.

use crate::common::*;
use futures::future::poll_fn;
use futures::{AsyncRead as _, AsyncReadExt as _};
use libp2p_core::muxing::StreamMuxerExt as _;
use libp2p_core::{Multiaddr, Transport as _};
use libp2p_knock::Error;
use rustls::{AlertDescription, Connection};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

/// What the strict end does after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Sends a record with a flipped bit.
    Spoils,
    /// Says that it closes, and waits for the answer.
    Closes,
    /// Says so in yamux first, as muxers do.
    Leaves,
}

/// What it hears.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Alert(AlertDescription),
    /// `close_notify`.
    End,
    /// The end of the socket without one.
    Cut,
}

/// Does it, once the handshake is through, and listens to the end.
fn play(mut tls: Connection, mut socket: TcpStream, deed: Deed) -> Heard {
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).expect("a handshake");
    }
    const GO_AWAY: [u8; 12] = [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    match deed {
        Deed::Spoils => tls.writer().write_all(b"spoilt").unwrap(),
        Deed::Closes => tls.send_close_notify(),
        Deed::Leaves => {
            tls.writer().write_all(&GO_AWAY).unwrap();
            tls.send_close_notify();
        }
    }
    let mut sealed = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut sealed).unwrap();
    }
    if deed == Deed::Spoils {
        *sealed.last_mut().unwrap() ^= 1;
    }
    socket.write_all(&sealed).unwrap();
    loop {
        let n = tls.read_tls(&mut socket).expect("no reset");
        match tls.process_new_packets() {
            Err(rustls::Error::AlertReceived(alert)) => return Heard::Alert(alert),
            other => _ = other.expect("ours makes no fault"),
        }
        let mut room = [0; 1024];
        while let Ok(1..) = tls.reader().read(&mut room) {}
        match tls.reader().read(&mut room) {
            Ok(0) => return Heard::End,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Heard::Cut,
            _ => assert!(n > 0, "the socket has ended"),
        }
    }
}

/// A strict client that knocks at `listener`.
fn client(listener: SocketAddr, deed: Deed) -> Heard {
    let mut socket = TcpStream::connect(listener).unwrap();
    socket.write_all(&knock(1, 2)).unwrap();
    let tls = gullible_client(&rustls::version::TLS13, Some((1, 1)));
    play(tls.into(), socket, deed)
}

/// A strict server that is peer 2 and asks for a certificate.
fn server(listener: TcpListener, deed: Deed) -> Heard {
    let (mut socket, _) = listener.accept().unwrap();
    socket.read_exact(&mut [0; 97]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = rustls_identity(2, 1);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"/yamux/1.0.0".to_vec()];
    let tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
    play(tls.into(), socket, deed)
}

fn expected(deed: Deed) -> Heard {
    match deed {
        Deed::Spoils => Heard::Alert(AlertDescription::BadRecordMac),
        Deed::Closes | Deed::Leaves => Heard::End,
    }
}

/// Reads a stream until it ends or fails, and drops it as a program does that has nothing to say.
async fn read_to_the_end(mut stream: Stream) -> std::io::Result<usize> {
    stream.read_to_end(&mut Vec::new()).await
}

/// Drives a muxer as a Swarm does, which drops it when it fails.
async fn drive<M: libp2p_core::StreamMuxer + Unpin>(mut muxer: M) {
    while poll_fn(|cx| muxer.poll_unpin(cx)).await.is_ok() {}
}

#[tokio::test]
async fn a_strict_client_is_told_of_its_fault_and_has_its_close_answered() {
    for deed in [Deed::Spoils, Deed::Closes] {
        let mut listener = victim(old(2)).await;
        let to = listener.socket.unwrap();
        let attack = tokio::task::spawn_blocking(move || client(to, deed));
        let (_, stream) = listener.upgraded().await.unwrap();
        let read = soon("the end of the stream", read_to_the_end(stream)).await;
        assert_eq!(read.is_ok(), deed == Deed::Closes, "{read:?}");
        assert_eq!(soon("the client", attack).await.unwrap(), expected(deed), "{deed:?}");
    }
}

#[tokio::test]
async fn a_strict_client_of_a_muxer_is_told_of_its_fault_and_has_its_close_answered() {
    for deed in [Deed::Spoils, Deed::Closes, Deed::Leaves] {
        let transport = libp2p_knock::Transport::new(libp2p::tcp::tokio::Transport::default(), old(2));
        let mut listener = listen(transport, peer(2), "/ip4/127.0.0.1/tcp/0/tls").await;
        let to = listener.socket.unwrap();
        let attack = tokio::task::spawn_blocking(move || client(to, deed));
        let (_, muxer) = listener.upgraded().await.unwrap();
        soon("the end of the connection", drive(muxer)).await;
        assert_eq!(soon("the client", attack).await.unwrap(), expected(deed), "{deed:?}");
    }
}

fn at_peer_2(listener: &TcpListener) -> Multiaddr {
    let port = listener.local_addr().unwrap().port();
    format!("/ip4/127.0.0.1/tcp/{port}/tls/p2p/{}", peer(2))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_strict_server_is_told_of_its_fault_and_has_its_close_answered() {
    for deed in [Deed::Spoils, Deed::Closes] {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = at_peer_2(&listening);
        let served = tokio::task::spawn_blocking(move || server(listening, deed));
        let dial = authenticated(old(1)).dial(address, dialer()).unwrap();
        let (_, stream) = soon("the dial", dial).await.unwrap();
        let _ = soon("the end of the stream", read_to_the_end(stream)).await;
        assert_eq!(soon("the server", served).await.unwrap(), expected(deed), "{deed:?}");
    }
}

#[tokio::test]
async fn a_strict_server_of_a_muxer_is_told_of_its_fault_and_has_its_close_answered() {
    for deed in [Deed::Spoils, Deed::Closes, Deed::Leaves] {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = at_peer_2(&listening);
        let served = tokio::task::spawn_blocking(move || server(listening, deed));
        let dial = libp2p_knock::tokio::Transport::new(old(1))
            .dial(address, dialer())
            .unwrap();
        let (_, muxer) = soon("the dial", dial).await.unwrap();
        soon("the end of the connection", drive(muxer)).await;
        assert_eq!(soon("the server", served).await.unwrap(), expected(deed), "{deed:?}");
    }
}

/// In each turn of a task tokio has a socket do so much, and then says that it is not ready. This is
/// as much less.
fn spend(units: usize, cx: &mut Context<'_>) {
    for _ in 0..units {
        let _ = pin!(tokio::task::consume_budget()).poll(cx);
    }
}

/// Polls `end` with so much spent, and drops it in the turn in which it ends.
async fn end_within_a_turn<T>(end: T, units: usize, mut poll: impl FnMut(&mut T, &mut Context<'_>) -> Poll<bool>) {
    let mut end = Some(end);
    poll_fn(|cx| {
        spend(units, cx);
        while let Some(it) = &mut end {
            match poll(it, cx) {
                Poll::Ready(true) => end = None,
                Poll::Ready(false) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn a_task_that_has_done_much_in_its_turn_tells_of_faults_and_answers_closes_as_any_other() {
    // All that there is in a turn is 128.
    for units in 124..128 {
        for deed in [Deed::Spoils, Deed::Closes] {
            let mut listener = victim(old(2)).await;
            let to = listener.socket.unwrap();
            let attack = tokio::task::spawn_blocking(move || client(to, deed));
            let (_, stream) = listener.upgraded().await.unwrap();
            let read = |stream: &mut Stream, cx: &mut Context<'_>| {
                let read = Pin::new(stream).poll_read(cx, &mut [0; 64]);
                read.map(|read| !matches!(read, Ok(1..)))
            };
            soon("the end of the stream", end_within_a_turn(stream, units, read)).await;
            let heard = soon("the client", attack).await.unwrap();
            assert_eq!(heard, expected(deed), "{deed:?}, {units} units spent");
        }
        for deed in [Deed::Spoils, Deed::Closes, Deed::Leaves] {
            let transport = libp2p_knock::Transport::new(libp2p::tcp::tokio::Transport::default(), old(2));
            let mut listener = listen(transport, peer(2), "/ip4/127.0.0.1/tcp/0/tls").await;
            let to = listener.socket.unwrap();
            let attack = tokio::task::spawn_blocking(move || client(to, deed));
            let (_, muxer) = listener.upgraded().await.unwrap();
            let drive = end_within_a_turn(muxer, units, |muxer, cx| {
                muxer.poll_unpin(cx).map(|event| event.is_err())
            });
            soon("the end of the connection", drive).await;
            let heard = soon("the client", attack).await.unwrap();
            assert_eq!(heard, expected(deed), "{deed:?}, {units} units spent");
        }
    }
}

/// Authentication comes first: to a client that another key has certified, the same fault is not
/// told.
#[tokio::test]
async fn a_client_that_has_not_authenticated_is_told_nothing() {
    let close = std::time::Duration::from_millis(300);
    let mut listener = victim(old(2).dangerous().with_close_time(close)).await;
    let to = listener.socket.unwrap();
    let attack = tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(to).unwrap();
        socket.write_all(&knock(1, 2)).unwrap();
        let tls = gullible_client(&rustls::version::TLS13, Some((3, 1)));
        play(tls.into(), socket, Deed::Spoils)
    });
    assert!(matches!(listener.error().await, Error::WrongPeer { .. }));
    assert_eq!(soon("the client", attack).await.unwrap(), Heard::Cut);
}
