//! Floods: bogus knocks from many networks as fast as asked for, and sockets that are opened and say nothing.

use crate::gate::{GateKey, HEAD};
use crate::pace::Pace;
use crate::rng::Rng;
use crate::source::{Sources, connect};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;

/// What the bogus knocks are.
#[derive(Debug, Clone)]
pub enum Bogus {
    /// Uniform bytes, at least as many as a sealed head has: what somebody sends who knows nothing.
    Random,
    /// A box that opens, noise inside: what somebody sends who knows the PeerId. Each costs a Diffie-Hellman.
    Sealed(Arc<GateKey>),
}

impl Bogus {
    fn knock(&self, rng: &mut Rng) -> Vec<u8> {
        let extra = rng.below(1400);
        let sealed = match self {
            Self::Random => None,
            Self::Sealed(gate) => gate.seal_noise(extra, rng),
        };
        sealed.unwrap_or_else(|| rng.bytes(HEAD + extra))
    }
}

/// A flood of connections, each with a bogus knock.
#[derive(Debug, Clone)]
pub struct Flood {
    /// The listener.
    pub target: SocketAddr,
    /// From where.
    pub sources: Sources,
    /// Connections a second; 0 for as many as one thread can.
    pub rate: f64,
    /// With what.
    pub bogus: Bogus,
    /// How many connections are kept open; the oldest is reset when there are more.
    pub hold: usize,
    /// What contents and sources follow from.
    pub seed: u64,
}

/// The reason of a connection that found the listener's accept queue full.
pub const QUEUE_FULL: &str = "queue-full";

/// What a flood came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Flooded {
    /// Knocks that were sent.
    pub sent: u64,
    /// Connections that came to nothing, by reason: [`QUEUE_FULL`], or what the kernel said.
    pub failed: BTreeMap<String, u64>,
    /// For how long.
    pub seconds: f64,
}

impl Flooded {
    /// Knocks a second.
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.seconds.max(1e-3)
    }

    /// Connections that the listener had not made room for: it accepts more slowly than they come.
    pub fn queue_full(&self) -> u64 {
        self.failed.get(QUEUE_FULL).copied().unwrap_or(0)
    }
}

impl Flood {
    /// Floods until `stop` or for `limit`, on this thread: a system call costs less here than a task.
    pub fn run_blocking(&self, limit: Duration, stop: &AtomicBool) -> Flooded {
        let started = Instant::now();
        let mut flooded = Flooded::default();
        let mut held = VecDeque::with_capacity(self.hold + 1);
        let mut rng = Rng::new(self.seed);
        let mut pace = Pace::new(self.rate);
        while started.elapsed() < limit && !stop.load(Ordering::Relaxed) {
            pace.wait_blocking();
            match self.knock(&mut rng) {
                Ok(socket) => {
                    flooded.sent += 1;
                    held.push_back(socket);
                    if held.len() > self.hold
                        && let Some(oldest) = held.pop_front()
                    {
                        // A port in TIME_WAIT could not be used again.
                        let _ = oldest.set_linger(Some(Duration::ZERO));
                    }
                }
                Err(e) => *flooded.failed.entry(reason(&e)).or_default() += 1,
            }
        }
        flooded.seconds = started.elapsed().as_secs_f64();
        flooded
    }

    fn knock(&self, rng: &mut Rng) -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(self.target),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        if self.target.is_ipv4() {
            socket.bind(&SocketAddr::new(self.sources.pick(rng).into(), 0).into())?;
        }
        match socket.connect(&self.target.into()) {
            // On loopback it stands by the time the call returns, if the listener's queue had room.
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(e) => return Err(e),
        }
        socket.send(&self.bogus.knock(rng))?;
        Ok(socket)
    }
}

fn reason(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected => QUEUE_FULL.to_owned(),
        kind => format!("{kind:?}"),
    }
}

/// After the listener has closed one, it is opened again so much later.
const REOPEN: Duration = Duration::from_secs(5);

/// New sockets a second while [`half_open`] begins.
const OPENING_RATE: u32 = 2000;

/// Keeps `count` sockets open that say nothing, and opens each again some time after the listener has closed it. `held`
/// says how many stand. Ends when dropped.
pub async fn half_open(target: SocketAddr, sources: Sources, count: usize, held: Arc<AtomicUsize>) {
    let mut sockets = tokio::task::JoinSet::new();
    for number in 0..count {
        let held = held.clone();
        sockets.spawn(async move {
            let turn = u32::try_from(number).unwrap_or(u32::MAX);
            tokio::time::sleep(Duration::from_secs(1) / OPENING_RATE * turn).await;
            // Neighbours in number are neighbours in time; they should not be in one network.
            let source = IpAddr::from(sources.host((number % 65_536) as u16, number / 256));
            loop {
                if let Ok(mut socket) = connect(target, Some(source).filter(|_| target.is_ipv4())).await {
                    held.fetch_add(1, Ordering::Relaxed);
                    let mut sink = [0; 64];
                    while let Ok(1..) = socket.read(&mut sink).await {}
                    held.fetch_sub(1, Ordering::Relaxed);
                }
                tokio::time::sleep(REOPEN).await;
            }
        });
    }
    while sockets.join_next().await.is_some() {}
}
