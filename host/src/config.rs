//! What can be set for a host, each with its default and its worst case.

use libp2p_core::{ConnectedPoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_knock::{Denial, Mode};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(crate) type Admission = Arc<dyn Fn(&PeerId, &ConnectedPoint) -> Result<(), Denial> + Send + Sync>;

/// Configuration of a [`Host`](crate::Host).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keypair = libp2p_identity::Keypair::generate_ed25519();
/// // In a network of Go hosts: knock version 2 for everybody.
/// let knock = libp2p_knock::Config::new(&keypair)?.ragep2p_compatible();
/// let config = knock_host::HostConfig::new(knock).with_listen_address("/ip4/0.0.0.0/tcp/4001/tls".parse()?);
/// # let _ = config; Ok(()) }
/// ```
#[derive(Clone)]
pub struct HostConfig {
    pub(crate) knock: libp2p_knock::Config,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) dial_interval: Duration,
    pub(crate) dial_timeout: Option<Duration>,
    pub(crate) memory: usize,
    pub(crate) admission: Option<Admission>,
}

/// 256 MiB.
pub(crate) const MEMORY: usize = 256 << 20;

/// Ragep2p's users set three to ten seconds.
pub(crate) const DIAL_INTERVAL: Duration = Duration::from_secs(3);

impl HostConfig {
    /// `knock` says who we are, how each peer knocks and in which network. The default there is version 3, for hosts of this
    /// crate among themselves; Go hosts need [`ragep2p_compatible`](libp2p_knock::Config::ragep2p_compatible), or version 2
    /// and [`Mode::Frames`] for each by [`with_peer`](libp2p_knock::Config::with_peer).
    ///
    /// A host speaks [`Mode::Frames`], with everybody: that becomes the mode of every peer that has
    /// none of its own, and [`Host::start`](crate::Host::start) refuses a configuration in which a
    /// peer has another. A host has no muxer, so [`with_yamux`](libp2p_knock::Config::with_yamux)
    /// and [`with_close_timeout`](libp2p_knock::Config::with_close_timeout) concern nothing here.
    /// Everything else holds, the hooks among it: a caller is let in when there is a stream to it,
    /// and the knock's admission hook and that of [`HostConfig::with_admission`] both allow it.
    pub fn new(knock: libp2p_knock::Config) -> Self {
        Self {
            knock: knock.with_mode(Mode::Frames),
            listen: Vec::new(),
            dial_interval: DIAL_INTERVAL,
            dial_timeout: None,
            memory: MEMORY,
            admission: None,
        }
    }

    /// Listens there as well: `/ip4/…/tcp/N`, `/ip6/…/tcp/N`, with or without `/tls`. One at least is needed.
    pub fn with_listen_address(mut self, address: Multiaddr) -> Self {
        self.listen.push(address);
        self
    }

    /// The least time between two rounds of dials to one peer; each round comes after one to two of
    /// it. Default 3 s. At least a millisecond, to which less is raised. A lost connection is
    /// dialled again within a quarter of it, if the last round is long enough ago.
    ///
    /// Inbound connections are held to two in each interval and peer, and at least one in two seconds, four at once.
    pub fn with_dial_interval(mut self, interval: Duration) -> Self {
        self.dial_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How long one address of a round may take, to the end of the handshake. The addresses of a
    /// round, 16 at most, are tried one after the other, so a round takes as many of these at worst.
    ///
    /// Default: a second longer than the knock's own
    /// [handshake timeout](libp2p_knock::Config::with_handshake_timeout), so 6 s. A knock that is
    /// not answered then fails with what is known about that. With less than the handshake timeout
    /// the reason is only that there was no answer.
    pub fn with_dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = Some(timeout);
        self
    }

    pub(crate) fn dial_timeout(&self) -> Duration {
        let longer = self.knock.handshake_timeout().saturating_add(Duration::from_secs(1));
        self.dial_timeout.unwrap_or(longer)
    }

    /// Bytes that received messages may take before the application takes them, over all peers. Default 256 MiB. One peer may
    /// hold as much as is left for the others, so half of it at most; a message for which there is no room is dropped and
    /// counted.
    pub fn with_memory_budget(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// Asked after a valid knock of a peer that there is a stream to, and after the knock's own
    /// hooks, if it has any: all must allow, and so must all that are set here, in this order. See
    /// [`Config::with_admission`](libp2p_knock::Config::with_admission), whose promises hold here.
    /// It is called on the task that accepts: while it runs no other knock is judged. It may call
    /// the host. A panic denies, and is counted ([`Hook::Admission`](crate::Hook::Admission)).
    pub fn with_admission<F>(mut self, hook: F) -> Self
    where
        F: Fn(&PeerId, &ConnectedPoint) -> Result<(), Denial> + Send + Sync + 'static,
    {
        self.admission = Some(match self.admission.take() {
            None => Arc::new(hook),
            Some(first) => Arc::new(move |peer, point| {
                first(peer, point)?;
                hook(peer, point)
            }),
        });
        self
    }
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConfig")
            .field("knock", &self.knock)
            .field("listen", &self.listen)
            .field("dial_interval", &self.dial_interval)
            .field("dial_timeout", &self.dial_timeout())
            .field("memory", &self.memory)
            .field("admission", &self.admission.is_some())
            .finish()
    }
}
