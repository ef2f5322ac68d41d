//! What a kept connection costs that carries nothing else: bytes that its TCP connection carries,
//! both ways, counted on the way.

use crate::common::*;
use futures::future::join_all;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::NetworkBehaviour;
use libp2p_connmgr::persistent::{self, Probes};
use libp2p_connmgr::{Config, KeepAlive};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Stands between a dialer and `address`, and counts what goes through.
async fn counted(address: &Multiaddr) -> (Multiaddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    let mut there = 0;
    let parts = address.iter().map(|part| match part {
        Protocol::Tcp(port) => {
            there = port;
            Protocol::Tcp(here)
        }
        other => other,
    });
    let through = parts.collect();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", there)).await.unwrap();
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(near_read, far_write, counter.clone()));
            tokio::spawn(pass(far_read, near_write, counter.clone()));
        }
    });
    (through, count)
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, count: Arc<AtomicUsize>) {
    let mut buf = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buf).await {
        count.fetch_add(n, Ordering::Relaxed);
        if to.write_all(&buf[..n]).await.is_err() {
            return;
        }
    }
}

/// A quarter of the defaults, so that the test takes a quarter as long: the first question comes
/// after a sixth.
const WANTED: Duration = Duration::from_millis(1_500);
const PROTECTED: Duration = Duration::from_millis(1_750);

/// After the handshake and before the first question.
const UP: Duration = Duration::from_millis(100);

/// Two questions, or as many as there are every quarter of a second.
const TWO: Duration = Duration::from_millis(2_500);
const MANY: usize = 10;

/// Bytes that go over the connection of a node to `other` in the time of two questions.
async fn bytes<B: NetworkBehaviour>(over: Over, probes: Option<Probes>, mut other: Running<B>, wanted: bool) -> usize {
    let manager = Config::disabled().with_keep_alive_interval(PROTECTED);
    let wants = persistent::Config::new()
        .with_keep_alive_interval(WANTED)
        .with_probes(probes);
    let mut node = Node::with(over, manager, wants, |config| config).await;
    let (address, count) = counted(&other.address).await;
    let peer = *other.swarm.local_peer_id();
    if wanted {
        node.swarm.behaviour_mut().persistent.add_peer(peer, [address]).unwrap();
    } else {
        node.manager.protect(&peer, "friend");
        node.dial(peer, &address);
    }
    let both = async {
        node.until(|node| node.swarm.is_connected(&peer)).await;
        node.run_for(UP).await;
        let before = count.load(Ordering::Relaxed);
        node.run_for(TWO).await;
        assert_eq!(node.lost, 0);
        count.load(Ordering::Relaxed) - before
    };
    other.beside(both).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_kept_peer_costs_less_than_two_kilobytes_a_minute_and_one_that_keeps_too_a_tenth() {
    let cases = [Over::Knock, Over::Noise].map(|over| async move {
        let probes = Probes {
            interval: Duration::from_millis(250),
            timeout: Duration::from_secs(20),
        };
        let (refuses, accepts) = (stock(over), || Node::new(over, KeepAlive::Protected));
        let bytes = futures::join!(
            bytes(over, None, refuses.await, true),
            bytes(over, None, stock(over).await, false),
            bytes(over, None, accepts().await.running, true),
            bytes(over, None, accepts().await.running, false),
            bytes(over, Some(probes), accepts().await.running, true),
        );
        (over, bytes)
    });
    for (over, (wanted, protected, held, guarded, probed)) in join_all(cases).await {
        println!("{over:?}, a question that is refused: {} bytes", wanted / 2);
        // By default ten questions of wanted peers a minute, and 8.6 of the manager.
        let (wanted, protected) = (wanted / 2 * 10, protected / 2 * 60 / 7);
        println!("{over:?}, a peer that refuses: {wanted} bytes a minute if wanted, {protected} if protected");
        assert!((500..2_000).contains(&wanted) && (500..2_000).contains(&protected));
        println!("{over:?}, a peer that accepts: {held} bytes once if wanted, {guarded} if protected");
        assert!((50..250).contains(&held) && (50..250).contains(&guarded));
        let probe = probed.saturating_sub(held) / MANY;
        println!("{over:?}, whether it answers: {probe} bytes, {} a minute", probe * 4);
        assert!((20..100).contains(&probe), "{probed}");
    }
}
