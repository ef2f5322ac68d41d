//! A listener to attack, alone in its process: ours or stock libp2p's. It accepts, and echoes on every substream.

use crate::muxer::serve_echo;
use crate::source::socket_addr;
use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use futures::future::poll_fn;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::muxing::StreamMuxerBox;
use libp2p_core::transport::timeout::TransportTimeout;
use libp2p_core::transport::{Boxed, ListenerId, TransportEvent};
use libp2p_core::{Multiaddr, Transport as _, upgrade};
use libp2p_identity::{Keypair, PeerId};
use libp2p_knock::{Config, Version};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Which listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// libp2p-knock, with sealed knocks.
    Knock,
    /// libp2p-knock, with knocks of version 2.
    #[value(skip)]
    KnockV2,
    /// Stock libp2p: TCP, Noise, yamux.
    Noise,
}

impl Kind {
    /// The same, with knocks of version 2 if so wanted. Stock libp2p does not knock.
    #[must_use]
    pub fn with_v2(self, v2: bool) -> Self {
        match self {
            Self::Knock if v2 => Self::KnockV2,
            other => other,
        }
    }

    /// How it knocks, if it does.
    pub fn version(self) -> Option<Version> {
        match self {
            Self::Knock => Some(Version::V3),
            Self::KnockV2 => Some(Version::V2),
            Self::Noise => None,
        }
    }
}

/// When our listener closes a socket that has not knocked.
#[derive(Debug, Clone, Copy)]
pub enum Close {
    /// After so long: for attacks that cannot wait for minutes.
    After(Duration),
    /// After minutes, worked out from this as an installation does it.
    Seed([u8; 32]),
}

/// What an attack needs to set. Stock libp2p takes none of it.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// When a socket that has not knocked is closed.
    pub close: Close,
    /// How many of those there may be. A prober that holds more sees evictions.
    pub max_waiting: NonZeroUsize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            close: Close::After(Duration::from_secs(2)),
            max_waiting: NonZeroUsize::new(8192).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// How our listener is set up: here and nowhere else.
///
/// # Errors
///
/// For a key that is not Ed25519.
pub fn listener_config(key: &Keypair, version: Version, settings: Settings) -> Result<Config> {
    let config = dialer_config(key, version)?.with_max_waiting(settings.max_waiting);
    Ok(match settings.close {
        Close::After(time) => config.dangerous().with_close_time(time),
        Close::Seed(seed) => config.with_close_time_seed(&seed),
    })
}

/// How an honest dialer of that listener is set up; the counterpart of [`listener_config`].
///
/// # Errors
///
/// For a key that is not Ed25519.
pub fn dialer_config(key: &Keypair, version: Version) -> Result<Config> {
    Ok(Config::new(key)?.with_version(version)?)
}

/// A running listener. It ends when this is dropped.
#[derive(Debug)]
pub struct Target {
    /// Where it listens, first.
    pub address: SocketAddr,
    /// Everywhere it listens, in the order asked for.
    pub addresses: Vec<SocketAddr>,
    /// Who it is.
    pub peer: PeerId,
    established: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Target {
    /// Starts it on this runtime, with one identity on every address of `listen`.
    ///
    /// # Errors
    ///
    /// When it cannot listen there, or nowhere is to be listened.
    pub async fn start(kind: Kind, key: &Keypair, listen: &[SocketAddr], settings: Settings) -> Result<Self> {
        let mut transport = transport(kind, key, settings)?;
        let mut addresses = Vec::new();
        for listen in listen {
            let mut address = Multiaddr::from(listen.ip()).with(Protocol::Tcp(listen.port()));
            if kind.version().is_some() {
                address.push(Protocol::Tls);
            }
            transport.listen_on(ListenerId::next(), address)?;
            addresses.push(match next(&mut transport).await {
                TransportEvent::NewAddress { listen_addr, .. } => {
                    socket_addr(&listen_addr).with_context(|| format!("no TCP address: {listen_addr}"))?
                }
                TransportEvent::ListenerError { error, .. } => return Err(error).context("the listener failed"),
                TransportEvent::ListenerClosed { reason, .. } => bail!("the listener closed: {reason:?}"),
                _ => bail!("a listener that begins with something else than its address"),
            });
        }
        let established = Arc::new(AtomicU64::new(0));
        Ok(Self {
            address: *addresses.first().context("nowhere to listen")?,
            addresses,
            peer: key.public().to_peer_id(),
            task: tokio::spawn(serve(transport, established.clone())),
            established,
        })
    }

    /// Connections that came as far as a muxer.
    pub fn established(&self) -> u64 {
        self.established.load(Ordering::Relaxed)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Any = Boxed<(PeerId, StreamMuxerBox)>;

fn transport(kind: Kind, key: &Keypair, settings: Settings) -> Result<Any> {
    Ok(match kind.version() {
        // Its listening side has a task of its own.
        Some(version) => libp2p_knock::tokio::Transport::new(listener_config(key, version, settings)?)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
        None => {
            let stack = libp2p_tcp::tokio::Transport::new(libp2p_tcp::Config::default())
                .upgrade(upgrade::Version::V1Lazy)
                .authenticate(libp2p_noise::Config::new(key)?)
                .multiplex(libp2p_yamux::Config::default())
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
            // As SwarmBuilder does it.
            TransportTimeout::new(stack, Duration::from_secs(10)).boxed()
        }
    })
}

async fn next(
    transport: &mut Any,
) -> TransportEvent<<Any as libp2p_core::Transport>::ListenerUpgrade, <Any as libp2p_core::Transport>::Error> {
    poll_fn(|cx| Pin::new(&mut *transport).poll(cx)).await
}

async fn serve(mut transport: Any, established: Arc<AtomicU64>) {
    loop {
        let TransportEvent::Incoming { upgrade, .. } = next(&mut transport).await else {
            continue;
        };
        let established = established.clone();
        tokio::spawn(async move {
            if let Ok((_, muxer)) = upgrade.await {
                established.fetch_add(1, Ordering::Relaxed);
                // It ends with an error when the dialer leaves.
                let _ = serve_echo(muxer).await;
            }
        });
    }
}
