//! Strangers that come, stay for a moment and go: some knock, some send noise, some say nothing.

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, SwarmBuilder, ping};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// How long a stranger tries.
const PATIENCE: Duration = Duration::from_secs(6);
/// A short visit, at most.
pub(crate) const SHORT: Duration = Duration::from_millis(2500);

#[derive(Debug)]
pub(crate) struct Crowd {
    runtime: Runtime,
    visits: JoinSet<()>,
    pub(crate) counts: Arc<Counts>,
}

impl Drop for Crowd {
    /// All of them go at once.
    fn drop(&mut self) {
        self.visits.abort_all();
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) let_in: AtomicU64,
    pub(crate) turned_away: AtomicU64,
    pub(crate) noise: AtomicU64,
}

impl Crowd {
    pub(crate) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            runtime,
            visits: JoinSet::new(),
            counts: Arc::default(),
        })
    }

    /// So many strangers that knock at `address`, and so many that connect to `socket` and do
    /// something else. None stays for longer than `most`.
    pub(crate) fn visit(
        &mut self,
        address: &str,
        socket: SocketAddr,
        (knocking, noisy): (usize, usize),
        dice: u64,
        most: Duration,
    ) -> Result<()> {
        let mut dice = StdRng::seed_from_u64(dice);
        let address: Multiaddr = address.parse()?;
        while self.visits.try_join_next().is_some() {}
        for _ in 0..knocking {
            let (address, counts) = (address.clone(), self.counts.clone());
            let key = Keypair::ed25519_from_bytes(dice.random::<[u8; 32]>())?;
            let stay = most.mul_f64(dice.random_range(0.1..1.0));
            self.visits.spawn_on(
                async move {
                    match knock(key, address, PATIENCE).await {
                        Ok(mut swarm) => {
                            counts.let_in.fetch_add(1, Ordering::Relaxed);
                            let _ = tokio::time::timeout(stay, async { while swarm.next().await.is_some() {} }).await;
                        }
                        Err(_) => _ = counts.turned_away.fetch_add(1, Ordering::Relaxed),
                    }
                },
                self.runtime.handle(),
            );
        }
        for _ in 0..noisy {
            let counts = self.counts.clone();
            let stay = most.mul_f64(dice.random_range(0.1..1.0));
            let mut noise = vec![0; dice.random_range(0..2000)];
            dice.fill_bytes(&mut noise);
            self.visits.spawn_on(
                async move {
                    if let Ok(Ok(mut socket)) = tokio::time::timeout(PATIENCE, TcpStream::connect(socket)).await {
                        counts.noise.fetch_add(1, Ordering::Relaxed);
                        let _ = socket.write_all(&noise).await;
                        tokio::time::sleep(stay).await;
                    }
                },
                self.runtime.handle(),
            );
        }
        Ok(())
    }

    /// Waits until the last of them has gone.
    pub(crate) fn disperse(&mut self) {
        self.runtime
            .block_on(async { while self.visits.join_next().await.is_some() {} });
    }

    /// For each of `addresses`, at the same time: whether the one with this key is let in within
    /// `patience`. A stranger that is turned away tries again: the node may be at its hard limit.
    pub(crate) fn let_in(&self, key: &Keypair, addresses: &[String], patience: Duration) -> Result<Vec<bool>> {
        self.runtime.block_on(async {
            let knocks = addresses.iter().map(|address| async {
                let begun = Instant::now();
                while begun.elapsed() < patience {
                    if knock(key.clone(), address.parse()?, patience).await.is_ok() {
                        return Ok(true);
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Ok(false)
            });
            futures::future::join_all(knocks).await.into_iter().collect()
        })
    }
}

/// Dials `address` as the owner of `key`. The connection lasts as long as the Swarm.
async fn knock(key: Keypair, address: Multiaddr, patience: Duration) -> Result<Swarm<ping::Behaviour>> {
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)))?
        .with_behaviour(|_| ping::Behaviour::default())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    swarm.dial(address)?;
    // A dialer that the other end refuses sees a connection for a moment: only an answer shows that
    // it was let in.
    let connected = tokio::time::timeout(patience, async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(ping::Event { result: Ok(_), .. }) => return true,
                SwarmEvent::OutgoingConnectionError { .. } | SwarmEvent::ConnectionClosed { .. } => return false,
                _ => {}
            }
        }
    });
    ensure!(connected.await?, "turned away");
    Ok(swarm)
}
