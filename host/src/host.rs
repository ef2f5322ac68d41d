//! A host of its own: listens, dials, and keeps one connection with each peer that there is a stream to.

mod address;
mod run;
mod tcp;

use crate::config::HostConfig;
use crate::discovery::Discoverer;
use crate::error::StartError;
use crate::handle::Handle;
use crate::peers::{Registry, Setup};
use libp2p_knock::Mode;
use run::Driver;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use tcp::Listening;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running host. Streams are opened on it as on its [`Handle`].
///
/// Dropped, it stops at once, lets go of its ports and closes in the background; [`Host::close`]
/// waits for that.
///
/// ```no_run
/// # async fn run(keypair: libp2p_identity::Keypair, peer: libp2p_identity::PeerId) -> Result<(), Box<dyn std::error::Error>> {
/// use knock_host::{Host, HostConfig, Limits, discovery::StaticList};
///
/// let config = HostConfig::new(libp2p_knock::Config::new(&keypair)?)
///     .with_listen_address("/ip4/0.0.0.0/tcp/4001/tls".parse()?);
/// let peers = StaticList::from_iter([(peer, "/ip4/192.0.2.7/tcp/4001/tls".parse()?)]);
/// let host = Host::start(config, peers).await?;
/// let stream = host.open_stream(peer, "greetings", Limits::default())?;
/// stream.send("good morning");
/// while let Some(message) = stream.recv().await {
///     println!("{}", String::from_utf8_lossy(&message));
/// }
/// host.close().await;
/// # Ok(()) }
/// ```
pub struct Host {
    handle: Handle,
    listening: Listening,
    stop: watch::Sender<bool>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Host {
    /// Listens, and starts to dial as soon as there are streams. Has to be called inside a tokio runtime with time and net
    /// enabled.
    ///
    /// A port has one socket that listens: one that another has is refused, by the system, and no
    /// other gets one of the host's as long as it runs. When the future is dropped, nothing is left
    /// running.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. Nothing is left running.
    ///
    /// # Panics
    ///
    /// If [`Discoverer::start`] does. Nothing is left running then either.
    pub async fn start(config: HostConfig, discoverer: impl Discoverer) -> Result<Self, StartError> {
        if config.listen.is_empty() {
            return Err(StartError::NoListenAddress);
        }
        let mode = Mode::Yamux;
        if let Some(&peer) = config.knock.peers_in_mode(mode).first() {
            return Err(StartError::Mode { peer, mode });
        }
        let registry = Arc::new(Registry::new(Setup {
            local: config.knock.local_peer_id(),
            identity: Some(config.knock.identity().clone()),
            ed25519_only: true,
            memory: config.memory,
            dial_interval: config.dial_interval,
        }));
        let discoverer: Arc<dyn Discoverer> = Arc::new(discoverer);
        let (stop, stopped) = watch::channel(false);
        // Dropped from here on, for whatever reason, it closes what there is.
        let mut host = Self {
            handle: Handle::new(registry.clone()),
            listening: Listening::default(),
            stop,
            task: tokio::sync::Mutex::default(),
        };
        let mut driver = Driver::new(config, registry, discoverer.clone(), host.listening.clone());
        driver.listen().await?;
        discoverer.start(&host.handle).map_err(StartError::Discoverer)?;
        *host.task.get_mut() = Some(tokio::spawn(driver.run(stopped)));
        Ok(host)
    }

    /// What opens streams and may be handed around.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Closes the discoverer, every stream and every connection, and waits for that: five seconds for the discoverer and five
    /// for peers that do not let go, at most. Harmless when called again, and when the future is dropped, which leaves it to
    /// go on by itself.
    pub async fn close(&self) {
        self.stop.send_replace(true);
        let mut task = self.task.lock().await;
        if let Some(running) = task.as_mut() {
            if let Err(error) = running.await {
                tracing::error!(%error, "the host's task ended badly");
            }
            *task = None;
        }
    }
}

impl Deref for Host {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.listening.close();
        self.handle.registry().close_all();
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("local_peer_id", &self.handle.local_peer_id())
            .finish_non_exhaustive()
    }
}
