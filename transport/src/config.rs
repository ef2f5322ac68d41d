//! What can be set, each with its default, its bound and its worst case.

use crate::certificate;
use crate::clock::Clock;
use crate::error::ConfigError;
use crate::guard::Guard;
use crate::identity::{Identity, Key, Local};
use crate::knock::v3::{Gate, Network, StaticKey, StaticKeyError};
use crate::knock::{Mode, Version};
use crate::metrics::Metrics;
use crate::random::Hedged;
use crate::silence::budget::OPENINGS_PER_SECOND;
use crate::silence::limits;
use crate::yamux;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use libp2p_core::ConnectedPoint;
use libp2p_identity::{Keypair, PeerId};
use rustls::pki_types::CertificateDer;
use rustls::{KeyLog, NoKeyLog};
use std::collections::HashMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;
use web_time::SystemTime;

/// Why a hook said no. Anything that is an error will do: the gater's and your own.
pub type Denial = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type Hook = Arc<dyn Fn(&PeerId, &ConnectedPoint) -> Result<(), Denial> + Send + Sync>;

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
    pub(crate) identity: Arc<dyn Identity>,
    pub(crate) key: Key,
    pub(crate) certificate: CertificateDer<'static>,
    dialect: Dialect,
    peers: Arc<HashMap<Key, Dialect>>,
    /// What sealed knocks are made and opened with; none for an identity that only signs.
    pub(crate) sealed: Option<Sealed>,
    pub(crate) random: Arc<Hedged>,
    pub(crate) guard: Arc<Guard>,
    clock: Clock,
    openings_per_second: NonZeroU32,
    pub(crate) groups: Vec<KeyExchange>,
    pub(crate) key_log: Arc<dyn KeyLog>,
    pub(crate) admission: Option<Hook>,
    pub(crate) secured: Option<Hook>,
    pub(crate) max_waiting: NonZeroUsize,
    pub(crate) close_time: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) yamux: yamux::Config,
    pub(crate) metrics: Metrics,
}

/// How a peer knocks, and what is spoken then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Dialect {
    pub(crate) version: Version,
    pub(crate) mode: Mode,
}

impl Dialect {
    /// The one protocol that TLS negotiates: a sealed knock has said everything before.
    pub(crate) fn alpn(self) -> Option<&'static [u8]> {
        match self.version {
            Version::V2 => self.mode.alpn(),
            Version::V3 => None,
        }
    }
}

/// What sealed knocks are made and opened with.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) own: StaticKey,
    pub(crate) network: Network,
    pub(crate) gate: Gate,
}

impl Sealed {
    fn new(own: StaticKey, network: Network) -> Self {
        let gate = Gate::new(own.clone(), &network);
        Self { own, network, gate }
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
        let own = StaticKey::new(identity.clone()).map_err(|error| match error {
            StaticKeyError::Key(key) => ConfigError::InvalidKey(key),
            StaticKeyError::CannotAgree => ConfigError::SignerCannotKnockV3,
            StaticKeyError::Mismatch => ConfigError::SignerMismatch,
        })?;
        let mut this = Self::with_signer(identity)?;
        this.dialect = Dialect::default();
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
        Ok(Self {
            identity,
            key,
            certificate,
            dialect: Dialect {
                version: Version::V2,
                mode: Mode::Yamux,
            },
            peers: Arc::default(),
            sealed: None,
            random,
            guard: Arc::new(Guard::new(clock.clone(), openings_per_second)),
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

    /// Which knock is sent to, and understood from, every peer that has no version of its own. Default [`Version::V3`].
    ///
    /// Exactly one for each peer, on both sides: nothing is negotiated, learnt or fallen back to, or whoever drops
    /// packets could choose the weaker one. What version 2 gives away is in `SECURITY.md`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::SignerCannotKnockV3`] for an identity that can only sign.
    pub fn with_version(mut self, version: Version) -> Result<Self, ConfigError> {
        self.dialect.version = self.can(version)?;
        Ok(self)
    }

    /// What is spoken inside TLS with every peer that has no mode of its own. Default [`Mode::Yamux`]. [`Mode::Frames`] is
    /// for [`Authenticated`] alone: it is what Go's ragep2p speaks, and muxing it would fail.
    ///
    /// [`Authenticated`]: crate::Authenticated
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.dialect.mode = mode;
        self
    }

    /// How one peer knocks and what is spoken with it, whatever holds for all others.
    ///
    /// # Errors
    ///
    /// [`ConfigError::UnsupportedPeer`] for a peer whose key is not Ed25519, and [`ConfigError::SignerCannotKnockV3`].
    pub fn with_peer(mut self, peer: PeerId, version: Version, mode: Mode) -> Result<Self, ConfigError> {
        let key = Key::of_peer(&peer).map_err(|reason| ConfigError::UnsupportedPeer { peer, reason })?;
        let version = self.can(version)?;
        Arc::make_mut(&mut self.peers).insert(key, Dialect { version, mode });
        Ok(self)
    }

    /// As Go's ragep2p: [`Version::V2`] and [`Mode::Frames`] with every peer that has none of its own. Nodes of ours in the
    /// same network get the better knock by [`Config::with_peer`], on both sides.
    pub fn ragep2p_compatible(mut self) -> Self {
        self.dialect = Dialect {
            version: Version::V2,
            mode: Mode::Frames,
        };
        self
    }

    /// The network to knock in. Default [`Network::open`]: whoever knows our PeerID. In a private one, whoever has its
    /// secret as well; to anybody from another network we are as silent as to any stranger, and he to us. Says nothing
    /// to knocks of version 2, which know of no networks.
    pub fn with_network(mut self, network: Network) -> Self {
        self.sealed = self.sealed.map(|sealed| Sealed::new(sealed.own, network));
        self
    }

    fn can(&self, version: Version) -> Result<Version, ConfigError> {
        match version {
            Version::V3 if self.sealed.is_none() => Err(ConfigError::SignerCannotKnockV3),
            version => Ok(version),
        }
    }

    /// How `peer` knocks and is knocked at.
    pub(crate) fn dialect(&self, peer: &Key) -> Dialect {
        self.peers.get(peer).copied().unwrap_or(self.dialect)
    }

    /// Whether a sealed knock may begin as any knock of version 2 does: version 2 is the rule, so that every key will do,
    /// and somebody has version 3 all the same.
    pub(crate) fn is_ambiguous(&self) -> bool {
        let sealed = |dialect: &Dialect| dialect.version == Version::V3;
        self.dialect.version == Version::V2 && self.peers.values().any(sealed)
    }

    /// Whether anybody may knock with version 2.
    pub(crate) fn speaks_v2(&self) -> bool {
        let all = || self.peers.values().chain([&self.dialect]);
        all().any(|dialect| dialect.version == Version::V2)
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
    /// Called on the task that polls the transport: it must not block. The peer is not proven yet (a knock can be a
    /// replay), so deny by it but change nothing by it. A refused caller learns nothing: to it the listener looks as
    /// if the knock had been wrong. The Swarm sees nothing either; the metric `knocks{outcome="denied"}` counts it. In
    /// the listener's part of a hole punch it is our own dial that fails, with [`Error::Denied`](crate::Error::Denied).
    ///
    /// Set more than once, every hook has to allow. They are asked in the order in which they were
    /// set, until one denies.
    pub fn with_admission<F>(mut self, hook: F) -> Self
    where
        F: Fn(&PeerId, &ConnectedPoint) -> Result<(), Denial> + Send + Sync + 'static,
    {
        self.admission = Some(both(self.admission, hook));
        self
    }

    /// Asked between TLS and the muxer, inbound and outbound, with the proven peer. Default: everybody.
    ///
    /// Called on the connection's task. A refusal is [`Error::Denied`](crate::Error::Denied) here;
    /// the other end sees its connection closed, and may have seen it open for a moment. Set more
    /// than once, every hook has to allow, as with [`Config::with_admission`].
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
    /// What is done for version 2 grows with it: by default 2000 signature checks a second, 20 of them for one prefix,
    /// and 2 handshakes for a peer from one prefix.
    ///
    /// Only somebody who knows our PeerID can spend it. The memory of what was answered, which no replay outlives, grows
    /// with it: 242 s of it are kept, some 10 MB by default if ever used up. It begins empty here, so set this before the
    /// [`Config`] is used or cloned.
    pub fn with_max_openings(mut self, per_second: NonZeroU32) -> Self {
        self.openings_per_second = per_second;
        self.renew_guard();
        self
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
        self.guard = Arc::new(Guard::new(self.clock.clone(), self.openings_per_second));
    }

    /// How long TLS may take, from the connected socket (dialer) or the valid knock (listener), and how long the
    /// listener's part of a hole punch waits for a knock. Default 5 s. Keep it below the Swarm's own limit on a new
    /// connection, 10 s unless changed.
    pub fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long a connection may take to close, after which it is dropped. Default 5 s. rust-libp2p awaits a closing
    /// connection without a limit of its own.
    pub fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Configures yamux. Default: [`yamux::Config::default`].
    pub fn with_yamux(mut self, yamux: yamux::Config) -> Self {
        self.yamux = yamux;
        self
    }

    /// Registers the metrics below the prefix `libp2p_knock`. Register once for each registry: a second transport on
    /// a clone of this configuration counts into the same numbers.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn with_metrics(mut self, registry: &mut prometheus_client::registry::Registry) -> Self {
        self.metrics = Metrics::register(registry);
        self
    }

    /// Settings that weaken what this crate promises, named so that a review finds them.
    pub fn dangerous(self) -> Dangerous {
        Dangerous(self)
    }
}

/// For a crate that builds on a configuration that the application made.
impl Config {
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

/// See [`Config::dangerous`].
#[derive(Debug)]
pub struct Dangerous(Config);

impl Dangerous {
    /// How long a socket that does not authenticate stays open. Below some minutes it is a mark that tells this listener
    /// from others; for tests and measurements, which cannot wait for minutes.
    pub fn with_close_time(mut self, time: Duration) -> Config {
        self.0.close_time = time;
        self.0
    }

    /// The wall clock that knocks are made and judged by. Forgets which knocks were answered. For tests, and for
    /// machines with a better clock than the system's.
    pub fn with_clock(self, wall: impl Fn() -> SystemTime + Send + Sync + 'static) -> Config {
        self.0.judging_by(Clock::of(wall))
    }

    /// Hands the secrets of every connection to `log`, so that captures can be decrypted. Never on by itself: the
    /// environment variable that libp2p's own TLS obeys is not looked at.
    pub fn with_key_log(mut self, log: Arc<dyn KeyLog>) -> Config {
        self.0.key_log = log;
        self.0
    }
}

/// Asks `first`, if there is one, then `hook`.
fn both<F>(first: Option<Hook>, hook: F) -> Hook
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

#[cfg(test)]
mod tests;
