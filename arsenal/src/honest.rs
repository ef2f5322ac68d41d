//! Honest dialers: they show whether a listener under attack still serves those it is there for.

use crate::muxer::echo;
use crate::pace::Pace;
use crate::source::{BoundTcp, Sources};
use crate::stats::quantile;
use crate::target::{Kind, dialer_config};
use anyhow::{Context as _, Result, ensure};
use libp2p_core::multiaddr::Protocol;
use libp2p_core::muxing::StreamMuxerBox;
use libp2p_core::transport::{Boxed, DialOpts, PortUse};
use libp2p_core::{Endpoint, Multiaddr, Transport as _, upgrade};
use libp2p_identity::{Keypair, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Tries of one dial, at most.
const TRIES: usize = 3;

/// A try that takes longer has failed.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Dialers, one for each source prefix, with an identity of its own.
pub struct Honest {
    dialers: Vec<Arc<Dialer>>,
}

impl std::fmt::Debug for Honest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Honest").field("dialers", &self.dialers.len()).finish()
    }
}

struct Dialer {
    transport: Mutex<Boxed<(PeerId, StreamMuxerBox)>>,
    address: Multiaddr,
    target: PeerId,
}

/// What honest dialers met with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// Dials.
    pub dials: usize,
    /// Those that succeeded at once: connected, authenticated, and a byte came back.
    pub first_try: usize,
    /// Those that succeeded at the third try at the latest.
    pub within_three: usize,
    /// Half of those took no longer, tries that failed included.
    pub p50_ms: f64,
    /// 99 of a hundred of those took no longer.
    pub p99_ms: f64,
    /// Why tries failed.
    pub failures: BTreeMap<String, usize>,
}

impl Honest {
    /// Dialers of that listener, one for each prefix of `sources`.
    ///
    /// # Errors
    ///
    /// When the stack cannot be set up.
    pub fn new(kind: Kind, target: SocketAddr, peer: PeerId, sources: Sources) -> Result<Self> {
        let mut address = Multiaddr::from(target.ip()).with(Protocol::Tcp(target.port()));
        if kind.version().is_some() {
            address.push(Protocol::Tls);
        }
        let address = address.with(Protocol::P2p(peer));
        let dialers = (0..sources.prefixes()).map(|prefix| {
            Ok(Arc::new(Dialer {
                transport: Mutex::new(transport(kind, sources.host(prefix, 0).into())?),
                address: address.clone(),
                target: peer,
            }))
        });
        Ok(Self {
            dialers: dialers.collect::<Result<_>>()?,
        })
    }

    /// Dials once from every prefix, so that the listener has seen each of them authenticate.
    ///
    /// # Errors
    ///
    /// When one does not get through.
    pub async fn authenticate(&self) -> Result<()> {
        for (prefix, dialer) in self.dialers.iter().enumerate() {
            let attempt = dialer.attempt().await;
            attempt.with_context(|| format!("prefix {prefix} could not authenticate beforehand"))?;
        }
        Ok(())
    }

    /// `dials` dials, `rate` a second, from the prefixes in turn.
    pub async fn run(&self, dials: usize, rate: f64) -> Served {
        let mut pace = Pace::new(rate);
        let mut running = tokio::task::JoinSet::new();
        for dialer in self.dialers.iter().cycle().take(dials) {
            pace.wait().await;
            let dialer = dialer.clone();
            running.spawn(async move { dialer.dial().await });
        }
        let mut served = Served::default();
        let mut times = Vec::new();
        while let Some(dialled) = running.join_next().await {
            let Ok((tries, time, failures)) = dialled else { continue };
            served.dials += 1;
            if let Some(tries) = tries {
                served.first_try += usize::from(tries == 1);
                served.within_three += 1;
                times.push(time.as_secs_f64() * 1e3);
            }
            for failure in failures {
                *served.failures.entry(failure).or_default() += 1;
            }
        }
        served.p50_ms = quantile(&times, 0.5).unwrap_or(0.0);
        served.p99_ms = quantile(&times, 0.99).unwrap_or(0.0);
        served
    }
}

impl Dialer {
    /// At which try it succeeded, how long it took, and why earlier tries did not.
    async fn dial(&self) -> (Option<usize>, Duration, Vec<String>) {
        let started = Instant::now();
        let mut failures = Vec::new();
        for number in 1..=TRIES {
            match self.attempt().await {
                Ok(()) => return (Some(number), started.elapsed(), failures),
                Err(e) => failures.push(format!("{e:#}")),
            }
        }
        (None, started.elapsed(), failures)
    }

    async fn attempt(&self) -> Result<()> {
        let opts = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let dial = {
            let mut transport = self.transport.lock().unwrap_or_else(PoisonError::into_inner);
            transport.dial(self.address.clone(), opts)?
        };
        let through = async {
            let (peer, mut muxer) = dial.await?;
            ensure!(peer == self.target, "met {peer}");
            // A dialer that was refused silently believes in its connection until it waits for a byte.
            echo(&mut muxer).await
        };
        timeout(TRY_TIMEOUT, through).await.context("too late")?
    }
}

fn transport(kind: Kind, source: IpAddr) -> Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let key = Keypair::generate_ed25519();
    Ok(match kind.version() {
        Some(version) => libp2p_knock::Transport::new(BoundTcp(source), dialer_config(&key, version)?)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
        None => BoundTcp(source)
            .upgrade(upgrade::Version::V1Lazy)
            .authenticate(libp2p_noise::Config::new(&key)?)
            .multiplex(libp2p_yamux::Config::default())
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
    })
}
