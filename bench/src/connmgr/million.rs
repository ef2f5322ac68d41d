//! A million peers, the behaviour alone: memory, one trim, and the longest time it holds the Swarm up.

use super::loads::{closed, dialled, established, id, index_of, peer};
use crate::sys;
use anyhow::{Result, ensure};
use futures::future::FutureExt as _;
use futures::task::noop_waker_ref;
use libp2p_connmgr::Config;
use libp2p_core::{ConnectedPoint, Multiaddr};
use libp2p_swarm::{NetworkBehaviour as _, ToSwarm};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What the table shows, with the name in the JSON and the digits.
pub(super) const ROWS: &[(&str, &str, usize)] = &[
    ("memory, MiB", "mib", 0),
    (
        "a trim of one sixth (192 to 160): all of its work, ms of CPU",
        "work_ms",
        1,
    ),
    ("… until the victims are chosen, ms of CPU", "choosing_ms", 1),
    ("… what the Swarm reports of each close, ms of CPU", "reports_ms", 1),
    ("… connections closed", "closed", 0),
    ("longest poll, ms of CPU", "longest_poll_cpu_ms", 3),
    (
        "longest poll, ms on the wall, the machine's other work included",
        "longest_poll_wall_ms",
        3,
    ),
    ("a poll with nothing to do, ns", "idle_poll_ns", 0),
];

pub(super) fn measure(peers: usize) -> Result<Value> {
    let low = peers / 192 * 160;
    let config = Config::new(low, peers + 1)?
        .with_grace_period(Duration::ZERO)
        .with_silence_period(Duration::from_secs(3600))?;
    let (mut behaviour, manager) = libp2p_connmgr::new(config);
    let before = sys::resident()?;
    for index in 0..peers {
        let peer = peer(index);
        established(&mut behaviour, peer, id(index), &point(index));
        manager.tag_peer(&peer, "value", (index * 7 % 101) as i64);
    }
    let mib = sys::resident()?.saturating_sub(before) as f64 / 1024.0 / 1024.0;

    let mut cx = Context::from_waker(noop_waker_ref());
    while behaviour.poll(&mut cx).is_ready() {}
    const IDLE: u32 = 100_000;
    let idle = Instant::now();
    for _ in 0..IDLE {
        ensure!(behaviour.poll(&mut cx).is_pending(), "there is something to do");
    }
    let idle = idle.elapsed() / IDLE;

    let mut trimming = manager.trim_open_conns();
    let (mut polls, mut reports, mut choosing) = (Duration::ZERO, Duration::ZERO, None);
    let (mut longest_cpu, mut longest_wall) = (Duration::ZERO, Duration::ZERO);
    let mut closes = 0;
    let trimmed = loop {
        let (wall, cpu) = (Instant::now(), sys::thread_cpu());
        let polled = behaviour.poll(&mut cx);
        let (cpu, wall) = (sys::thread_cpu() - cpu, wall.elapsed());
        polls += cpu;
        longest_cpu = longest_cpu.max(cpu);
        longest_wall = longest_wall.max(wall);
        if let Poll::Ready(ToSwarm::CloseConnection { peer_id, .. }) = polled {
            choosing.get_or_insert(polls);
            closes += 1;
            let index = index_of(&peer_id);
            let point = point(index);
            let cpu = sys::thread_cpu();
            closed(&mut behaviour, peer_id, id(index), &point);
            reports += sys::thread_cpu() - cpu;
        }
        if let Poll::Ready(trimmed) = trimming.poll_unpin(&mut cx) {
            break trimmed?;
        }
    };
    ensure!(
        trimmed.closed == closes && closes == peers - low,
        "{trimmed:?}, but {closes}"
    );
    // What two looks at the clock cost is no work of the manager's.
    let clock = {
        let cpu = sys::thread_cpu();
        for _ in 0..1_000 {
            sys::thread_cpu();
        }
        (sys::thread_cpu() - cpu) / 1_000
    };
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let looks = u32::try_from(closes)?;
    Ok(json!({
        "mib": mib,
        // A close is two polls: itself, and the event about it.
        "work_ms": ms(polls.saturating_sub(clock * 2 * looks)),
        "choosing_ms": ms(choosing.unwrap_or_default()),
        "reports_ms": ms(reports.saturating_sub(clock * looks)),
        "closed": closes,
        "longest_poll_cpu_ms": ms(longest_cpu),
        "longest_poll_wall_ms": ms(longest_wall),
        "idle_poll_ns": idle.as_nanos() as f64,
    }))
}

/// Each its own, as in a real node.
fn point(index: usize) -> ConnectedPoint {
    let ip = Ipv4Addr::from(0x0A00_0000_u32 | (index as u32 & 0x00FF_FFFF));
    dialled(Multiaddr::from(ip).with(libp2p_core::multiaddr::Protocol::Tcp(4001)))
}
