//! A window of messages under way, over and over.

use crate::common::{in_time, pair, peer, wide};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_of_messages_keeps_moving() {
    let (one, two, _list) = pair().await;
    let limits = wide()
        .with_outgoing_buffer(2048)
        .with_incoming_buffer(2048)
        .with_messages(1e9, 2_000_000_000)
        .with_bytes(1e12, 4_000_000_000);
    let back = Arc::new(two.open_stream(peer(1), "x", limits).unwrap());
    let there = one.open_stream(peer(2), "x", limits).unwrap();
    let sink = back.clone();
    tokio::spawn(async move {
        let mut sunk = 0_u64;
        while sink.recv().await.is_some() {
            sunk += 1;
            if sunk.is_multiple_of(8) {
                sink.send(vec![0]);
            }
        }
    });
    for round in 0..3 {
        let begun = Instant::now();
        let (mut sent, mut acked) = (0, 0);
        while begun.elapsed() < Duration::from_millis(700) {
            while sent < acked + 1024 {
                there.send(vec![0; 100]);
                sent += 1;
            }
            if tokio::time::timeout(Duration::from_secs(5), there.recv())
                .await
                .is_err()
            {
                let ours = one.counters().peer(&peer(2)).unwrap();
                let theirs = two.counters().peer(&peer(1)).unwrap();
                panic!("round {round}: sent {sent}, acked {acked}\n{ours:#?}\n{theirs:#?}");
            }
            acked += 8;
        }
        while acked < sent {
            in_time(there.recv()).await.unwrap();
            acked += 8;
        }
        // An idle while, which a waiter gives up on.
        let nothing = tokio::time::timeout(Duration::from_millis(600), there.recv()).await;
        assert!(nothing.is_err());
    }
}
