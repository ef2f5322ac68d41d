//! What can be set, each with its default, its bound and its worst case.

mod dialects;

use crate::certificate;
use crate::clock::Clock;
use crate::error::ConfigError;
use crate::guard::Guard;
use crate::identity::{Caught, Identity, Key, Local};
use crate::knock::v3::{Network, StaticKey, StaticKeyError};
use crate::knock::{Mode, Version};
use crate::metrics::Metrics;
use crate::random::Hedged;
use crate::silence::budget::OPENINGS_PER_SECOND;
use crate::silence::limits;
use crate::user_code::UserCode;
use crate::yamux;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
pub(crate) use dialects::{Dialect, Sealed, Theirs};
use libp2p_core::ConnectedPoint;
use libp2p_identity::{Keypair, PeerId};
use rustls::pki_types::CertificateDer;
use rustls::{KeyLog, NoKeyLog};
use std::collections::HashMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Why a hook said no. Anything that is an error will do: the gater's and your own.
pub type Denial = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type Policy = Arc<dyn Fn(&PeerId, &ConnectedPoint) -> Result<(), Denial> + Send + Sync>;

/// A group for the key exchange of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyExchange {
    /// X25519 alone.
    X25519,
    /// X25519 and ML-KEM-768 together: a recording made today stays closed to a quantum computer of tomorrow. Costs
    /// some 1.2 kB in each direction and 55 µs.
    X25519MlKem768,
}

impl KeyExchange {
    pub(crate) fn of(group: rustls::NamedGroup) -> Option<Self> {
        match group {
            rustls::NamedGroup::X25519 => Some(Self::X25519),
            rustls::NamedGroup::X25519MLKEM768 => Some(Self::X25519MlKem768),
            _ => None,
        }
    }

    /// In TLS.
    pub(crate) fn code_point(self) -> u16 {
        match self {
            Self::X25519 => rustls::NamedGroup::X25519.into(),
            Self::X25519MlKem768 => rustls::NamedGroup::X25519MLKEM768.into(),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X25519 => "x25519",
            Self::X25519MlKem768 => "x25519mlkem768",
        }
    }
}

/// Configuration of the transports in this crate. Cheap to clone.
///
/// ```
/// # fn main() -> Result<(), libp2p_knock::ConfigError> {
/// let key = libp2p_identity::Keypair::generate_ed25519();
/// let config = libp2p_knock::Config::new(&key)?.with_max_waiting(1024.try_into().expect("not zero"));
/// # let _ = config; Ok(()) }
/// ```
#[derive(Clone)]
pub struct Config {
    identity: Arc<dyn Identity>,
    /// The same for tasks of ours: what it panics with is an error.
    pub(crate) caught: Arc<dyn Identity>,
    pub(crate) user_code: UserCode,
    pub(crate) key: Key,
    pub(crate) certificate: CertificateDer<'static>,
    dialect: Dialect,
    peers: Arc<HashMap<Key, Dialect>>,
    /// What sealed knocks are made and opened with; none for an identity that only signs.
    pub(crate) sealed: Option<Sealed>,
    pub(crate) random: Arc<Hedged>,
    pub(crate) guard: Arc<Guard>,
    cloned: Cloned,
    clock: Clock,
    openings_per_second: NonZeroU32,
    pub(crate) groups: Vec<KeyExchange>,
    pub(crate) key_log: Arc<dyn KeyLog>,
    pub(crate) admission: Option<Policy>,
    pub(crate) secured: Option<Policy>,
    pub(crate) max_waiting: NonZeroUsize,
    pub(crate) close_time: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) yamux: yamux::Config,
    pub(crate) metrics: Metrics,
}

/// Whether a configuration was ever cloned. All clones share what is remembered of knocks, and so
/// does the transport that a clone was given to.
#[derive(Debug, Default)]
struct Cloned(Arc<AtomicBool>);

impl Clone for Cloned {
    fn clone(&self) -> Self {
        self.0.store(true, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl Config {
    /// The defaults, with `keypair` as identity. Makes and signs the certificate.
    ///
    /// # Errors
    ///
    /// [`ConfigError::UnsupportedKeyType`] for anything but Ed25519, naming what it is.
    pub fn new(keypair: &Keypair) -> Result<Self, ConfigError> {
        let local = Local::new(keypair).map_err(|found| ConfigError::UnsupportedKeyType { found })?;
        Self::with_identity(Arc::new(local))
    }

    /// The defaults, with an identity whose key may live elsewhere. Asks it for one Diffie-Hellman and for two signatures,
    /// one of them that of the certificate, and checks them.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidKey`], [`ConfigError::Sign`], [`ConfigError::SignerMismatch`] and
    /// [`ConfigError::SignerCannotKnockV3`]: an identity that cannot work is found here and not at the first connection.
    /// For one that can only sign there is [`Config::with_signer`].
    pub fn with_identity(identity: Arc<dyn Identity>) -> Result<Self, ConfigError> {
        // Asked inside the caller's own call: a panic here is the caller's.
        let own = StaticKey::new(identity.clone()).map_err(|error| match error {
            StaticKeyError::Key(key) => ConfigError::InvalidKey(key),
            StaticKeyError::CannotAgree => ConfigError::SignerCannotKnockV3,
            StaticKeyError::Mismatch => ConfigError::SignerMismatch,
        })?;
        let mut this = Self::with_signer(identity)?;
        this.dialect = Dialect::default();
        let own = own.working_with(this.caught.clone());
        this.sealed = Some(Sealed::new(own, Network::open()));
        Ok(this)
    }

    /// For an identity that can only sign: every peer knocks and is knocked at with [`Version::V2`], which is all that
    /// such an identity can do. Otherwise the defaults.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidKey`], [`ConfigError::Sign`] and [`ConfigError::SignerMismatch`].
    pub fn with_signer(identity: Arc<dyn Identity>) -> Result<Self, ConfigError> {
        let key = Key::check(&identity.public_key()).map_err(ConfigError::InvalidKey)?;
        let certificate = certificate::make(&*identity)?;
        let (signed, signature) = certificate::signed_parts(&certificate);
        if !key.verifies(signed, signature) {
            return Err(ConfigError::SignerMismatch);
        }
        let random = Arc::new(Hedged::new(&*identity)?);
        let mut seed = [0; 32];
        // Without randomness no knock can be made either, and that will be said then.
        let _ = SystemRandom::new().fill(&mut seed);
        let (clock, openings_per_second) = (
            Clock::system(),
            const { NonZeroU32::new(OPENINGS_PER_SECOND).expect("not zero") },
        );
        let user_code = UserCode::default();
        Ok(Self {
            caught: Arc::new(Caught::new(identity.clone(), key, user_code.clone())),
            identity,
            user_code,
            key,
            certificate,
            dialect: Dialect {
                version: Version::V2,
                mode: Mode::Yamux,
            },
            peers: Arc::default(),
            sealed: None,
            random,
            guard: Arc::new(Guard::new(clock.clone(), openings_per_second, Arc::default())),
            cloned: Cloned::default(),
            clock,
            openings_per_second,
            groups: vec![KeyExchange::X25519MlKem768, KeyExchange::X25519],
            key_log: Arc::new(NoKeyLog),
            admission: None,
            secured: None,
            max_waiting: default_pool(),
            close_time: limits::close_time(&seed),
            handshake_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(5),
            yamux: yamux::Config::default(),
            metrics: Metrics::none(),
        })
    }

    /// Our own PeerId.
    pub fn local_peer_id(&self) -> PeerId {
        self.key.peer_id()
    }

    /// Who we are, for whoever signs something else with the same key.
    pub fn identity(&self) -> &Arc<dyn Identity> {
        &self.identity
    }

    /// The key-exchange groups, most wanted first; the first one is what a dialer sends its share for. Default:
    /// [`KeyExchange::X25519MlKem768`], then [`KeyExchange::X25519`].
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoKeyExchange`] when `groups` is empty.
    pub fn with_key_exchange(mut self, groups: &[KeyExchange]) -> Result<Self, ConfigError> {
        if groups.is_empty() {
            return Err(ConfigError::NoKeyExchange);
        }
        self.groups = groups.to_vec();
        Ok(self)
    }

    /// Asked after a valid knock and before any work or byte of TLS, with the peer the knock names and how it
    /// reached us. Default: every valid knock is let in, so that whoever knows our PeerId can connect, as in libp2p.
    ///
    /// Called on the task of the listening side, which has one for all its callers: a hook that
    /// blocks delays all of them. The peer is not proven yet (a knock can be a replay), so deny by
    /// it but change nothing by it. A refused caller learns nothing: to it the listener looks as if
    /// the knock had been wrong. The Swarm sees nothing either; the metric
    /// `knocks{outcome="denied"}` counts it. In the listener's part of a hole punch the hook is
    /// called on the dial's task, and our own dial fails with
    /// [`Error::Denied`](crate::Error::Denied).
    ///
    /// A hook that panics denies that caller. It may call back into this crate: no lock is held
    /// meanwhile. Set more than once, every hook has to allow. They are asked in the order in which
    /// they were set, until one denies.
    pub fn with_admission<F>(mut self, hook: F) -> Self
    where
        F: Fn(&PeerId, &ConnectedPoint) -> Result<(), Denial> + Send + Sync + 'static,
    {
        self.admission = Some(both(self.admission, hook));
        self
    }

    /// Asked between TLS and the muxer, inbound and outbound, with the proven peer. Default: everybody.
    ///
    /// Called on the connection's task, which a slow hook delays, and with it the thread that runs
    /// it. A refusal is [`Error::Denied`](crate::Error::Denied) here; the other end sees its
    /// connection closed, and may have seen it open for a moment. A hook that panics denies that
    /// connection. Set more than once, every hook has to allow, as with
    /// [`Config::with_admission`].
    pub fn with_secured_hook<F>(mut self, hook: F) -> Self
    where
        F: Fn(&PeerId, &ConnectedPoint) -> Result<(), Denial> + Send + Sync + 'static,
    {
        self.secured = Some(both(self.secured, hook));
        self
    }

    /// Most accepted sockets that may be held at once before they have authenticated, over all listeners of a
    /// transport. Default: a quarter of the descriptors that the process may open, less 128, and from 64 to 8192.
    ///
    /// Callers in their TLS handshake count, and so do those that the Swarm has not taken yet.
    ///
    /// Worst case: as many descriptors, some 4 kB each in the kernel and 1 kB here. When full, one is closed for each that
    /// is accepted: by lot, from the prefixes (IPv4 /24, IPv6 /48) that hold the most; one from which nobody has
    /// authenticated within a day goes before one from which somebody has. Above half, no prefix holds more than a
    /// sixteenth. Established connections are not affected.
    pub fn with_max_waiting(mut self, sockets: NonZeroUsize) -> Self {
        self.max_waiting = sockets;
        self
    }

    /// Sealed knocks opened in a second, at most: two Diffie-Hellman operations, some 70 µs, each. Default 1000, about
    /// 7 % of a core. Half of them is kept for prefixes from which somebody has authenticated within a day, and while
    /// less than half a second's worth is left, one prefix has 20 a second. Who is over it meets silence.
    ///
    /// What is done for version 2 grows with it: by default 2000 signature checks a second, 20 of
    /// them for one prefix, and 2 handshakes for a peer from one prefix. At once a prefix has as
    /// many checks as there are peers configured for version 2, from 5 to 256; 256 if version 2 is
    /// the rule.
    ///
    /// Only somebody who knows our PeerID can spend it. The memory of what was answered, which no replay outlives, grows
    /// with it: 242 s of it are kept, 8.2 MB by default if ever used up. All clones share it.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Cloned`] once the configuration was cloned: one clone would count, and
    /// remember, by itself.
    pub fn with_max_openings(mut self, per_second: NonZeroU32) -> Result<Self, ConfigError> {
        self.not_cloned("with_max_openings")?;
        self.openings_per_second = per_second;
        self.renew_guard();
        Ok(self)
    }

    fn not_cloned(&self, setting: &'static str) -> Result<(), ConfigError> {
        match self.cloned.0.load(Ordering::Relaxed) {
            true => Err(ConfigError::Cloned { setting }),
            false => Ok(()),
        }
    }

    /// Fixes how long a socket that does not authenticate stays open: 120 s to 600 s, worked out from `seed`.
    ///
    /// Default: drawn anew by every [`Config`]. Installations that restart keep 32 random bytes beside their key and set
    /// them here, so that a restart does not show. They must not be worked out from anything public, and are no secret
    /// whose loss does harm.
    pub fn with_close_time_seed(mut self, seed: &[u8; 32]) -> Self {
        self.close_time = limits::close_time(seed);
        self
    }

    pub(crate) fn judging_by(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self.renew_guard();
        self
    }

    /// Forgets which knocks were answered.
    pub(crate) fn renew_guard(&mut self) {
        let known = self.guard.known().clone();
        self.guard = Arc::new(Guard::new(self.clock.clone(), self.openings_per_second, known));
    }

    /// How long TLS may take, from the connected socket (dialer) or the valid knock (listener), and how long the
    /// listener's part of a hole punch waits for a knock. Default 5 s. Keep it below the Swarm's own limit on a new
    /// connection, 10 s unless changed.
    pub fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long a connection may take to close, after which it is dropped. Default 5 s. rust-libp2p
    /// awaits a closing connection without a limit of its own. A muxer that
    /// [`MuxExt::muxed`](crate::MuxExt::muxed) puts on behind a check of yours has
    /// [`Muxed::with_close_timeout`](crate::Muxed::with_close_timeout).
    pub fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Configures yamux in [`Transport`](crate::Transport) and
    /// [`tokio::Transport`](crate::tokio::Transport). Default: [`yamux::Config::default`]. A muxer
    /// that is put on by hand is given its own.
    pub fn with_yamux(mut self, yamux: yamux::Config) -> Self {
        self.yamux = yamux;
        self
    }

    /// Registers the metrics below the prefix `libp2p_knock`. Register once for each registry: a
    /// second transport on a clone of this configuration counts into the same numbers. Several
    /// registries show the same numbers each. Two configurations in one process have a registry
    /// each, or a sub-registry with a prefix of its own each.
    ///
    /// A Swarm that is made anew in the same process takes a clone of this configuration, not
    /// another registration: what is registered stays, and goes on counting.
    ///
    /// Every label that there can be is there from here on, at zero. Nothing that a peer sends
    /// makes another.
    ///
    /// # Errors
    ///
    /// [`AlreadyRegistered`](crate::AlreadyRegistered) if the registry has one of the names. To
    /// find that out it is rendered once, which calls its collectors. A collector that describes
    /// nothing stays in it, also after an error.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn with_metrics(
        mut self,
        registry: &mut prometheus_client::registry::Registry,
    ) -> Result<Self, crate::AlreadyRegistered> {
        self.metrics = self.metrics.register(registry, &self.user_code)?;
        Ok(self)
    }

    /// Settings that weaken what this crate promises, named so that a review finds them.
    pub fn dangerous(self) -> Dangerous {
        Dangerous(self)
    }
}

/// For a crate that builds on a configuration that the application made.
impl Config {
    /// See [`Config::with_handshake_timeout`].
    pub fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    /// The peers that have [`Config::with_peer`] and `mode`, in the order of their ids.
    pub fn peers_in_mode(&self, mode: Mode) -> Vec<PeerId> {
        let peers = self.peers.iter().filter(|(_, dialect)| dialect.mode == mode);
        let mut peers: Vec<PeerId> = peers.map(|(key, _)| key.peer_id()).collect();
        peers.sort_unstable();
        peers
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("local_peer_id", &self.local_peer_id())
            .field("version", &self.dialect.version)
            .field("mode", &self.dialect.mode)
            .field("peers", &self.peers.len())
            .field("groups", &self.groups)
            .field("admission", &self.admission.is_some())
            .field("secured_hook", &self.secured.is_some())
            .field("max_waiting", &self.max_waiting)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("close_timeout", &self.close_timeout)
            .finish_non_exhaustive()
    }
}

/// Asks `first`, if there is one, then `hook`.
fn both<F>(first: Option<Policy>, hook: F) -> Policy
where
    F: Fn(&PeerId, &ConnectedPoint) -> Result<(), Denial> + Send + Sync + 'static,
{
    match first {
        None => Arc::new(hook),
        Some(first) => Arc::new(move |peer, point| {
            first(peer, point)?;
            hook(peer, point)
        }),
    }
}

/// Half of what is left when half of all descriptors goes to connections.
fn default_pool() -> NonZeroUsize {
    let descriptors = descriptors();
    let pool = limits::pool_capacity(descriptors, descriptors / 2);
    NonZeroUsize::new(pool).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(unix)]
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Windows has no such limit.
#[cfg(not(unix))]
fn descriptors() -> usize {
    usize::MAX
}

mod dangerous;

pub use dangerous::Dangerous;

#[cfg(test)]
mod tests;
