//! Our side of the comparison: what `interop/go/connmgr-bench` does, done to this manager.

use super::{Load, million};
use crate::sys;
use anyhow::{Result, ensure};
use futures::future::FutureExt as _;
use futures::task::noop_waker_ref;
use libp2p_connmgr::{Behaviour, Bump, Config, Decay, Manager};
use libp2p_core::transport::PortUse;
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p_swarm::{ConnectionId, FromSwarm, NetworkBehaviour as _, ToSwarm};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Child {
    load: Load,
    #[arg(long)]
    peers: usize,
    #[arg(long)]
    threads: usize,
    #[arg(long)]
    millis: u64,
}

/// Does it and writes the result.
pub(crate) fn child(args: &Child) -> Result<()> {
    let Child { peers, threads, .. } = *args;
    let length = Duration::from_millis(args.millis);
    let result = match args.load {
        Load::Tag => tag(peers, threads, length)?,
        Load::Contention => contention(peers, threads, length)?,
        Load::Trim => trim(peers, threads)?,
        Load::Decay => decay(peers)?,
        Load::Memory => memory(peers)?,
        Load::Connect => connect(peers, length)?,
        Load::Million => million::measure(peers)?,
    };
    println!("{result}");
    Ok(())
}

/// A manager, and connections that its Swarm would have.
pub(super) struct Bench {
    pub(super) behaviour: Behaviour,
    pub(super) manager: Manager,
    peers: Arc<Vec<PeerId>>,
    point: ConnectedPoint,
}

impl Bench {
    fn new(peers: usize, low: usize, high: usize) -> Result<Self> {
        Self::with(peers, Config::new(low, high)?)
    }

    fn with(peers: usize, config: Config) -> Result<Self> {
        let config = config
            .with_grace_period(Duration::ZERO)
            .with_silence_period(Duration::from_secs(3600))?
            .with_early_tags(Duration::from_secs(3600), usize::MAX);
        let (behaviour, manager) = libp2p_connmgr::new(config);
        Ok(Self {
            behaviour,
            manager,
            peers: Arc::new((0..peers).map(peer).collect()),
            point: dialled("/ip4/127.0.0.1/udp/1234".parse()?),
        })
    }

    fn connect(&mut self, index: usize) {
        established(&mut self.behaviour, self.peers[index], id(index), &self.point);
    }

    fn disconnect(&mut self, index: usize) {
        closed(&mut self.behaviour, self.peers[index], id(index), &self.point);
    }

    fn connect_all(&mut self) {
        for index in 0..self.peers.len() {
            self.connect(index);
        }
    }

    /// Threads that tag random peers until stopped.
    fn taggers(&self, threads: usize, tag: &'static str) -> Taggers {
        let done = Arc::new(AtomicBool::new(false));
        let threads = (0..threads)
            .map(|thread| {
                let (manager, peers, done) = (self.manager.clone(), self.peers.clone(), done.clone());
                std::thread::spawn(move || {
                    let mut random = Random::new(thread);
                    let mut count = 0_i64;
                    while !done.load(Ordering::Relaxed) {
                        for _ in 0..64 {
                            manager.tag_peer(&peers[random.below(peers.len())], tag, count & 0xff);
                            count += 1;
                        }
                    }
                    count
                })
            })
            .collect();
        Taggers { done, threads }
    }
}

struct Taggers {
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<i64>>,
}

impl Taggers {
    /// How many tags there were.
    fn stop(self) -> i64 {
        self.done.store(true, Ordering::Relaxed);
        self.threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    }
}

/// As cheap as Go's, or what is compared is the dice.
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self(0x9E37_79B9_7F4A_7C15 ^ ((seed as u64 + 1) << 32))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * limit as u128) >> 64) as usize
    }
}

/// An id of the form that Ed25519 keys have, with the index in it, so that nobody needs to remember whose it is.
pub(super) fn peer(index: usize) -> PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
    let mut random = Random::new(index);
    for chunk in bytes[6..].chunks_exact_mut(8) {
        random.below(1);
        chunk.copy_from_slice(&random.0.to_be_bytes());
    }
    bytes[30..].copy_from_slice(&(index as u64).to_be_bytes());
    PeerId::from_bytes(&bytes).expect("a well-formed id")
}

/// The other way round.
pub(super) fn index_of(peer: &PeerId) -> usize {
    let bytes = peer.to_bytes();
    let index: [u8; 8] = bytes[30..].try_into().expect("eight bytes");
    u64::from_be_bytes(index) as usize
}

pub(super) fn id(index: usize) -> ConnectionId {
    ConnectionId::new_unchecked(index + 1)
}

pub(super) fn dialled(address: Multiaddr) -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address,
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

pub(super) fn established(behaviour: &mut Behaviour, peer: PeerId, id: ConnectionId, point: &ConnectedPoint) {
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: peer,
        connection_id: id,
        endpoint: point,
        failed_addresses: &[],
        other_established: 0,
    }));
}

pub(super) fn closed(behaviour: &mut Behaviour, peer: PeerId, id: ConnectionId, point: &ConnectedPoint) {
    behaviour.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
        peer_id: peer,
        connection_id: id,
        endpoint: point,
        cause: None,
        remaining_established: 0,
    }));
}

fn done(ops: u64, since: Instant) -> Value {
    json!({ "ops": ops, "nanos": nanos(since) })
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn tag(peers: usize, threads: usize, length: Duration) -> Result<Value> {
    let mut bench = Bench::new(peers, peers, peers + 1)?;
    bench.connect_all();
    let start = Instant::now();
    let taggers = bench.taggers(threads, "score");
    std::thread::sleep(length);
    let ops = taggers.stop();
    Ok(done(ops.unsigned_abs(), start))
}

fn contention(peers: usize, threads: usize, length: Duration) -> Result<Value> {
    let mut bench = Bench::new(peers, 1_000, 1_000)?;
    let taggers = bench.taggers(threads, "another-tag");
    let mut random = Random::new(99);
    let start = Instant::now();
    let mut ops = 0;
    while start.elapsed() < length {
        for _ in 0..16 {
            let index = random.below(peers);
            bench.connect(index);
            bench.manager.tag_peer(&bench.peers[index], "tag", 100);
            bench.manager.untag_peer(&bench.peers[index], "tag");
            bench.disconnect(index);
            ops += 1;
        }
    }
    let result = done(ops, start);
    taggers.stop();
    Ok(result)
}

/// From the call until it resolves, every close reported back at once, as the stand-ins on the other side do.
fn trim(peers: usize, threads: usize) -> Result<Value> {
    let low = (peers / 2).max(1);
    let mut bench = Bench::new(peers, low, low)?;
    bench.connect_all();
    let mut random = Random::new(3);
    for peer in bench.peers.iter() {
        bench.manager.tag_peer(peer, "value", random.below(101) as i64);
    }
    let taggers = bench.taggers(threads, "busy");
    let mut cx = Context::from_waker(noop_waker_ref());
    let mut count = 0_u64;
    let start = Instant::now();
    let mut trimming = bench.manager.trim_open_conns();
    let trimmed = loop {
        if let Poll::Ready(ToSwarm::CloseConnection { peer_id, .. }) = bench.behaviour.poll(&mut cx) {
            count += 1;
            closed(&mut bench.behaviour, peer_id, id(index_of(&peer_id)), &bench.point);
        }
        if let Poll::Ready(trimmed) = trimming.poll_unpin(&mut cx) {
            break trimmed?;
        }
    };
    let nanos = nanos(start);
    taggers.stop();
    ensure!(
        trimmed.closed as u64 == count && trimmed.stuck == 0,
        "{trimmed:?}, but {count}"
    );
    Ok(json!({ "nanos": nanos, "closed": count }))
}

fn decay(peers: usize) -> Result<Value> {
    const MINUTE: Duration = Duration::from_secs(60);
    let passed = Arc::new(AtomicU64::new(0));
    let (begin, clock) = (Instant::now(), passed.clone());
    let config = Config::new(peers, peers + 1)?
        .with_decay_resolution(MINUTE)
        .with_clock(move || begin + Duration::from_secs(clock.load(Ordering::Relaxed)));
    let mut bench = Bench::with(peers, config)?;
    bench.connect_all();
    for name in ["tag0", "tag1", "tag2"] {
        let tag = bench
            .manager
            .register_decaying_tag(name, MINUTE, Decay::fixed(1), Bump::overwrite())?;
        for peer in bench.peers.iter() {
            tag.bump(peer, 1_000)?;
        }
    }
    // Nothing happens at the tick itself; what it costs is paid by the read, and this is the first after it.
    let start = Instant::now();
    passed.store(60, Ordering::Relaxed);
    let mut cx = Context::from_waker(noop_waker_ref());
    while bench.behaviour.poll(&mut cx).is_ready() {}
    let tick = nanos(start);
    let start = Instant::now();
    let mut sum = 0;
    for peer in bench.peers.iter() {
        sum += bench.manager.tag_info(peer).map_or(0, |info| info.value);
    }
    let read = nanos(start);
    ensure!(sum == 3 * 999 * i64::try_from(peers)?, "the values sum up to {sum}");
    Ok(json!({ "nanos": tick, "read_nanos": read }))
}

fn memory(peers: usize) -> Result<Value> {
    let mut bench = Bench::new(peers, peers, peers + 1)?;
    let early: Vec<PeerId> = (peers..2 * peers).map(peer).collect();
    let before = sys::resident()?;
    bench.connect_all();
    let connected = sys::resident()?;
    for peer in bench.peers.iter() {
        bench.manager.tag_peer(peer, "value", 7);
    }
    let tagged = sys::resident()?;
    for peer in &early {
        bench.manager.tag_peer(peer, "value", 7);
    }
    let with_early = sys::resident()?;
    let per = |from: u64, to: u64| to.saturating_sub(from) as f64 / peers as f64;
    ensure!(bench.manager.tag_info(&early[0]).is_some());
    Ok(json!({
        "resident_connected": per(before, connected),
        "resident_tagged": per(before, tagged),
        "resident_early": per(tagged, with_early),
    }))
}

fn connect(peers: usize, length: Duration) -> Result<Value> {
    let mut bench = Bench::new(peers, peers, peers + 1)?;
    let start = Instant::now();
    let mut ops = 0;
    while start.elapsed() < length {
        bench.connect_all();
        for index in 0..peers {
            bench.disconnect(index);
        }
        ops += peers as u64;
    }
    Ok(done(ops, start))
}
