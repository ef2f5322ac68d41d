//! Peers that we have a stream to, and that do what they should not. Beside each of them an honest peer, who notices
//! nothing.

use crate::attacker::{HONEST, HOSTILE, VICTIM, dial, header, id, message, open, opens};
use crate::common::{address, config, host, in_time, knock, peer, until, wide};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use knock_host::discovery::StaticList;
use knock_host::{Host, Limits, PeerCounters, Stream};
use libp2p_knock::TlsStream;
use libp2p_tcp::tokio::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A host, an honest peer of it, and a connection of a hostile one, which has a stream too.
struct Scene {
    victim: Host,
    honest: Host,
    there: Arc<Stream>,
    back: Arc<Stream>,
    /// Of the hostile peer.
    stream: Stream,
    connection: TlsStream<TcpStream>,
    counters: Arc<PeerCounters>,
}

impl Scene {
    async fn new(limits: Limits) -> Self {
        Self::with_budget(limits, 256 << 20).await
    }

    async fn with_budget(limits: Limits, budget: usize) -> Self {
        let list = StaticList::new();
        let config = config(knock(VICTIM)).with_memory_budget(budget);
        let victim = Host::start(config, StaticList::new()).await.unwrap();
        list.add(peer(VICTIM), address(&victim));
        let honest = host(HONEST, &list).await;
        let there = Arc::new(honest.open_stream(peer(VICTIM), "x", wide()).unwrap());
        let back = Arc::new(victim.open_stream(peer(HONEST), "x", wide()).unwrap());
        let stream = victim.open_stream(peer(HOSTILE), "x", limits).unwrap();
        let connection = in_time(dial(HOSTILE, &address(&victim))).await.unwrap();
        until("it is in", || victim.is_connected(&peer(HOSTILE))).await;
        let counters = victim.counters().peer(&peer(HOSTILE)).unwrap();
        let scene = Self {
            victim,
            honest,
            there,
            back,
            stream,
            connection,
            counters,
        };
        scene.honest_work(10).await;
        scene
    }

    /// Questions and answers with the honest peer, none of which is lost. How long the slowest of a hundred took.
    async fn honest_work(&self, count: usize) -> Duration {
        let mut took = Vec::new();
        for n in 0..count {
            let begun = Instant::now();
            self.there.send(n.to_be_bytes().to_vec());
            let question = in_time(self.back.recv()).await.unwrap();
            self.back.send(question);
            assert_eq!(in_time(self.there.recv()).await.unwrap(), n.to_be_bytes().as_slice());
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }

    /// All of this was one connection for the honest peer.
    fn honest_noticed_nothing(&self) {
        let counters = self.victim.counters().peer(&peer(HONEST)).unwrap();
        assert_eq!(counters.conn_established.get(), 1);
        assert!(self.honest.is_connected(&peer(VICTIM)));
    }

    async fn is_thrown_out(&self) {
        until("it is thrown out", || !self.victim.is_connected(&peer(HOSTILE))).await;
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_given_up_and_what_waits_for_it_is_bounded() {
    let mut scene = Scene::new(wide().with_outgoing_buffer(8)).await;
    scene.connection.write_all(&open("x")).await.unwrap();
    scene.connection.flush().await.unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    while scene.victim.is_connected(&peer(HOSTILE)) {
        assert!(Instant::now() < limit, "it is still there");
        scene.stream.send(vec![0; 1 << 20]);
        scene.honest_work(20).await;
    }
    assert!(
        scene.counters.dropped_outgoing.get() > 0,
        "the buffer of eight overflowed"
    );
    scene.honest_noticed_nothing();
}

#[tokio::test]
async fn a_slow_line_keeps_its_connection_however_long_a_message_takes() {
    // W5: the original gives a message five seconds, whatever its size.
    let mut scene = Scene::new(wide().with_max_message(64 << 20)).await;
    scene.connection.write_all(&open("x")).await.unwrap();
    scene.connection.flush().await.unwrap();
    const SIZE: usize = 32 << 20;
    scene.stream.send(vec![7; SIZE]);
    let begun = Instant::now();
    // The opening of "x", and the header.
    let mut left = 38 + 37 + SIZE;
    let mut buffer = vec![0; SIZE / 14];
    while left > 0 {
        let piece = left.min(buffer.len());
        scene.connection.read_exact(&mut buffer[..piece]).await.unwrap();
        left -= piece;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(6), "that was not slow");
    assert!(scene.victim.is_connected(&peer(HOSTILE)));
    assert_eq!(scene.counters.conn_established.get(), 1);
}

#[tokio::test]
async fn a_gigabyte_that_is_announced_and_does_not_come_costs_nothing() {
    let mut scene = Scene::with_budget(wide().with_max_message(1 << 30), 1 << 20).await;
    scene.connection.write_all(&header(3, id("x"), 1 << 30)).await.unwrap();
    for _ in 0..50 {
        scene.connection.write_all(&[0; 100]).await.unwrap();
        scene.connection.flush().await.unwrap();
        scene.honest_work(2).await;
    }
    assert!(scene.victim.is_connected(&peer(HOSTILE)), "it may take its time");
    scene.honest_noticed_nothing();
}

#[tokio::test]
async fn memory_that_one_peer_fills_leaves_room_for_the_others() {
    // Nobody takes what comes on the hostile peer's stream.
    let mut scene = Scene::with_budget(wide(), 1 << 20).await;
    let frame = message(&vec![0; 60_000]);
    for _ in 0..100 {
        scene.connection.write_all(&frame).await.unwrap();
        scene.connection.flush().await.unwrap();
    }
    let counters = scene.counters.clone();
    until("the rest is dropped", || counters.dropped_memory.get() >= 100 - 8).await;
    scene.honest_work(50).await;
    // Half the budget, and no more.
    let mut taken = 0;
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(500), scene.stream.recv()).await {
        taken += message.len();
    }
    assert!((1..=1 << 19).contains(&taken), "{taken}");
    scene.honest_noticed_nothing();
}

#[tokio::test]
async fn four_thousand_and_some_opens_end_the_connection() {
    let mut scene = Scene::new(wide()).await;
    // More than there are, and than come back while they are read.
    let frames = opens(8000);
    let _ = scene.connection.write_all(&frames).await;
    let _ = scene.connection.flush().await;
    scene.is_thrown_out().await;
    scene.honest_work(50).await;
    scene.honest_noticed_nothing();
}

#[tokio::test]
async fn whoever_floods_over_what_is_allowed_loses_his_connection_and_nobody_else_anything() {
    let mut scene = Scene::new(Limits::default()).await;
    let frame = message(&[0; 1000]).repeat(1000);
    let connection = &mut scene.connection;
    let flood = async { while connection.write_all(&frame).await.is_ok() && connection.flush().await.is_ok() {} };
    in_time(flood).await;
    scene.is_thrown_out().await;
    assert!(scene.counters.dropped_rate.get() > 0);
    scene.honest_work(50).await;
    scene.honest_noticed_nothing();
}

#[tokio::test]
async fn records_of_one_byte_end_the_connection() {
    let mut scene = Scene::new(wide().with_bytes(4e9, u32::MAX)).await;
    let frame = message(&[0; 20_000]);
    for byte in &frame {
        let written = scene.connection.write_all(&[*byte]).await;
        if written.is_err() || scene.connection.flush().await.is_err() {
            break;
        }
    }
    scene.is_thrown_out().await;
    scene.honest_noticed_nothing();
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_the_connection() {
    for bytes in [
        vec![0x16],
        header(1, id("x"), 257),
        header(2, id("x"), 1),
        header(3, id("x"), u32::MAX),
    ] {
        let mut scene = Scene::new(wide()).await;
        scene.connection.write_all(&bytes).await.unwrap();
        scene.connection.flush().await.unwrap();
        scene.is_thrown_out().await;
        scene.honest_noticed_nothing();
    }
}

#[tokio::test]
async fn a_peer_that_comes_again_and_again_is_let_in_four_times() {
    let list = StaticList::new();
    let config = config(knock(VICTIM)).with_dial_interval(Duration::from_secs(3600));
    let victim = Host::start(config, list.clone()).await.unwrap();
    let _stream = victim.open_stream(peer(HOSTILE), "x", wide()).unwrap();
    let mut connections = Vec::new();
    for _ in 0..20 {
        connections.push(in_time(dial(HOSTILE, &address(&victim))).await.unwrap());
    }
    let counters = victim.counters().peer(&peer(HOSTILE)).unwrap();
    // The last of them to be refused has been: it reads the end.
    let mut last = connections.pop().unwrap();
    let begun = Instant::now();
    let _ = in_time(last.read(&mut [0; 1])).await;
    // And one in two seconds.
    let most = 5 + begun.elapsed().as_secs() + 20;
    let established = counters.conn_established_inbound.get();
    assert!((4..=most.min(19)).contains(&established), "{established}");
}
