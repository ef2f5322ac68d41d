//! What an observer on the path sees, recorded by a proxy between two swarms.

use crate::common::*;
use crate::swarm::{Event, pinging_swarm, wait_for_ping};
use libp2p::Multiaddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Dialer,
    Listener,
}

type Tape = Arc<Mutex<Vec<(From, Vec<u8>)>>>;

/// Passes one connection on to `to` and keeps every read, in order.
async fn recording_proxy(to: std::net::SocketAddr) -> (std::net::SocketAddr, Tape) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tape = Tape::default();
    let recording = tape.clone();
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(to).await.unwrap();
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let there = copy(near_read, far_write, From::Dialer, recording.clone());
        let back = copy(far_read, near_write, From::Listener, recording);
        tokio::join!(there, back);
    });
    (address, tape)
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    side: From,
    tape: Tape,
) {
    let mut room = vec![0; 65536];
    while let Ok(n @ 1..) = from.read(&mut room).await {
        tape.lock().unwrap().push((side, room[..n].to_vec()));
        if to.write_all(&room[..n]).await.is_err() {
            return;
        }
    }
}

/// The types of the TLS records in `bytes`, which must hold nothing else.
fn record_types(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [kind, 3, 1 | 3, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        assert!(rest.len() >= length, "a record is cut");
        types.push(*kind);
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "{} bytes are no TLS record", bytes.len());
    types
}

const HANDSHAKE: u8 = 22;

#[tokio::test]
async fn a_v2_flight_is_knock_and_client_hello_the_answer_is_tls_and_nothing_is_negotiated_in_clear() {
    let sealed = meeting(old, |flight| {
        assert_eq!(flight[..97], knock(1, 2), "the knock, and deterministic as Ed25519 is");
        assert_eq!(
            record_types(&flight[97..]),
            [HANDSHAKE],
            "one ClientHello in the same write"
        );
        assert_eq!(flight[97 + 5], 1, "a ClientHello");
        97
    })
    .await;
    assert_eq!(sealed, 97);
}

/// Head, and the ClientHello of X25519MLKEM768 with a tag: nothing in it can be read, and not even its parts be told.
#[tokio::test]
async fn a_v3_flight_is_noise_of_one_length_the_answer_is_tls_and_nothing_is_negotiated_in_clear() {
    let mut flights = Vec::new();
    for _ in 0..2 {
        meeting(config, |flight| {
            flights.push(flight.to_vec());
            flight.len()
        })
        .await;
    }
    assert!(
        (204 + 16 + 1380..204 + 16 + 1420).contains(&flights[0].len()),
        "{}",
        flights[0].len()
    );
    assert_eq!(flights[0].len(), flights[1].len());
    let alike = flights[0].iter().zip(&flights[1]).filter(|(a, b)| a == b).count();
    assert!(alike < 40, "{alike} bytes are the same in two knocks, 6 are expected");
}

/// Two swarms meet and ping. `look` sees the first write and says how much of the dialer's bytes is no TLS in clear.
async fn meeting(config: fn(u8) -> libp2p_knock::Config, look: impl FnOnce(&[u8]) -> usize) -> usize {
    let tcp = |seed| libp2p_knock::tokio::Transport::new(config(seed));
    let mut listening = pinging_swarm(tcp(2), peer(2));
    let listener = listening.listening("/ip4/127.0.0.1/tcp/0/tls").await;
    let (proxy, tape) = recording_proxy(socket_of(&listener).unwrap()).await;
    let mut dialling = pinging_swarm(tcp(1), peer(1));
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}/tls/p2p/{}", proxy.port(), peer(2))
        .parse()
        .unwrap();
    dialling.swarm.dial(address).unwrap();
    let both = futures::future::join(wait_for_ping(&mut dialling), wait_for_ping(&mut listening));
    let (there, back): (Event, Event) = soon("pings both ways", both).await;
    assert_eq!((there.peer, back.peer), (peer(2), peer(1)));

    let tape = tape.lock().unwrap();
    let (side, flight) = &tape[0];
    assert_eq!(*side, From::Dialer);
    let sealed = look(flight);

    let (side, answer) = &tape[1];
    assert_eq!(*side, From::Listener, "the dialer waits for the answer");
    assert_eq!(answer[0], HANDSHAKE);

    for side in [From::Dialer, From::Listener] {
        let mut said: Vec<u8> = Vec::new();
        for (_, bytes) in tape.iter().filter(|(from, _)| *from == side) {
            said.extend_from_slice(bytes);
        }
        let tls = if side == From::Dialer {
            &said[sealed..]
        } else {
            &said[..]
        };
        record_types(tls);
        for word in [&b"multistream"[..], b"/ipfs/ping", b"/noise"] {
            assert!(!said.windows(word.len()).any(|at| at == word), "{side:?} says {word:?}");
        }
    }
    sealed
}
