//! What hostile peers can make a host hold.

use crate::attacker::{VICTIM, dial, header, id_of};
use crate::common::{address, config, in_time, knock, peer, until, wide};
use crate::latency::alone;
use futures::AsyncWriteExt as _;
use knock_host::Host;
use knock_host::discovery::StaticList;
use std::time::Duration;

const BUDGET: usize = 32 << 20;

/// Resident beside the budget: what buffers of sockets and of the allocator take.
const BESIDE: usize = 48 << 20;

/// Each sends this much, in messages of 1 MiB that nobody takes.
const MESSAGES: usize = 64;

/// Seeds of the hostile peers.
const HOSTILE: std::ops::Range<u8> = 10..18;

/// Bytes of this process in memory.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[cfg(target_os = "linux")]
#[test]
fn half_a_gigabyte_from_many_peers_takes_no_more_than_the_budget() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = config(knock(VICTIM)).with_memory_budget(BUDGET);
        let victim = Host::start(config, StaticList::new()).await.unwrap();
        // One message of each is too long to end, and is behind the others.
        let limits = wide().with_max_message(1 << 30).with_bytes(4e9, u32::MAX);
        let mut streams = Vec::new();
        let mut connections = Vec::new();
        for seed in HOSTILE {
            streams.push(victim.open_stream(peer(seed), "x", limits).unwrap());
            connections.push(in_time(dial(seed, &address(&victim))).await.unwrap());
            until("it is in", || victim.is_connected(&peer(seed))).await;
        }
        let before = resident();
        let payload = vec![0xaa; 1 << 20];
        let mut most = 0;
        for _ in 0..MESSAGES {
            for (connection, seed) in connections.iter_mut().zip(HOSTILE) {
                let frame = header(3, id_of(seed, "x"), 1 << 20);
                in_time(connection.write_all(&frame)).await.unwrap();
                in_time(connection.write_all(&payload)).await.unwrap();
                in_time(connection.flush()).await.unwrap();
            }
            most = most.max(resident());
        }
        for (connection, seed) in connections.iter_mut().zip(HOSTILE) {
            let frame = header(3, id_of(seed, "x"), 1 << 30);
            in_time(connection.write_all(&frame)).await.unwrap();
            in_time(connection.write_all(&payload)).await.unwrap();
            in_time(connection.flush()).await.unwrap();
        }
        // All of it has come when each has had its last message refused.
        for seed in HOSTILE {
            let counters = victim.counters().peer(&peer(seed)).unwrap();
            let all = (MESSAGES + 1) * (37 + (1 << 20));
            let read = || counters.conn_read_processed_bytes.get() + counters.conn_read_skipped_bytes.get();
            until("all of it has come", || read() >= all as u64).await;
            assert!(counters.dropped_memory.get() > 0, "nothing was too much");
            assert_eq!(counters.conn_established.get(), 1, "nobody is thrown out for it");
        }
        most = most.max(resident());
        let mut held = 0;
        for stream in &streams {
            while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(200), stream.recv()).await {
                held += message.len();
            }
        }
        println!(
            "{held} bytes held, {} more resident at most",
            most.saturating_sub(before)
        );
        assert!((1..=BUDGET).contains(&held), "{held} bytes were held");
        assert!(most < before + BUDGET + BESIDE, "{before} bytes before, {most} at most");
        victim.close().await;
    });
}
