//! What can be set, each with its default, its bound and its worst case.

use crate::certificate;
use crate::error::ConfigError;
use crate::identity::{Identity, Key, Local};
use crate::knock::{Mode, Version};
use crate::metrics::Metrics;
use libp2p_core::ConnectedPoint;
use libp2p_identity::{Keypair, PeerId};
use rustls::pki_types::CertificateDer;
use rustls::{KeyLog, NoKeyLog};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

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
    pub(crate) version: Version,
    pub(crate) mode: Mode,
    pub(crate) groups: Vec<KeyExchange>,
    pub(crate) key_log: Arc<dyn KeyLog>,
    pub(crate) admission: Option<Hook>,
    pub(crate) secured: Option<Hook>,
    pub(crate) max_waiting: NonZeroUsize,
    pub(crate) knock_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) yamux: libp2p_yamux::Config,
    pub(crate) metrics: Metrics,
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

    /// The defaults, with an identity whose key may live elsewhere. Asks it for one signature, that of the
    /// certificate, and checks it.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidKey`], [`ConfigError::Sign`] and [`ConfigError::SignerMismatch`]: an identity that
    /// cannot work is found here and not at the first connection.
    pub fn with_identity(identity: Arc<dyn Identity>) -> Result<Self, ConfigError> {
        let key = Key::check(&identity.public_key()).map_err(ConfigError::InvalidKey)?;
        let certificate = certificate::make(&*identity)?;
        let (signed, signature) = certificate::signed_parts(&certificate);
        if !key.verifies(signed, signature) {
            return Err(ConfigError::SignerMismatch);
        }
        Ok(Self {
            identity,
            key,
            certificate,
            version: Version::default(),
            mode: Mode::default(),
            groups: vec![KeyExchange::X25519MlKem768, KeyExchange::X25519],
            key_log: Arc::new(NoKeyLog),
            admission: None,
            secured: None,
            max_waiting: const { NonZeroUsize::new(256).expect("not zero") },
            knock_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(5),
            yamux: libp2p_yamux::Config::default(),
            metrics: Metrics::none(),
        })
    }

    /// Our own PeerId.
    pub fn local_peer_id(&self) -> PeerId {
        self.key.peer_id()
    }

    /// Which knock is sent and understood. Default [`Version::V2`].
    pub fn with_version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// What is spoken inside TLS. Default [`Mode::Yamux`]. [`Mode::Frames`] is for [`Authenticated`] alone: it is
    /// what Go's ragep2p speaks, and muxing it would fail.
    ///
    /// [`Authenticated`]: crate::Authenticated
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
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
    pub fn with_admission<F>(mut self, hook: F) -> Self
    where
        F: Fn(&PeerId, &ConnectedPoint) -> Result<(), Denial> + Send + Sync + 'static,
    {
        self.admission = Some(Arc::new(hook));
        self
    }

    /// Asked between TLS and the muxer, inbound and outbound, with the proven peer. Default: everybody.
    ///
    /// Called on the connection's task. A refusal is [`Error::Denied`](crate::Error::Denied) here; the other end
    /// sees its connection closed, and may have seen it open for a moment.
    pub fn with_secured_hook<F>(mut self, hook: F) -> Self
    where
        F: Fn(&PeerId, &ConnectedPoint) -> Result<(), Denial> + Send + Sync + 'static,
    {
        self.secured = Some(Arc::new(hook));
        self
    }

    /// Most accepted sockets that may wait for their knock at once, over all listeners. Default 256.
    ///
    /// Worst case: as many file descriptors, and a small buffer each. When full, the socket that has waited
    /// longest is closed: under a flood an honest peer may have to dial twice; established connections are not
    /// affected. A node that expects hundreds of dials within one round-trip time wants more.
    pub fn with_max_waiting(mut self, sockets: NonZeroUsize) -> Self {
        self.max_waiting = sockets;
        self
    }

    /// How long an accepted socket may take to knock, and how long one that was refused is read from and kept open.
    /// Default 5 s. Keep it well below the Swarm's own limit on a new connection, 10 s unless changed.
    pub fn with_knock_timeout(mut self, timeout: Duration) -> Self {
        self.knock_timeout = timeout;
        self
    }

    /// How long TLS may take, from the connected socket (dialer) or the valid knock (listener). Default 5 s.
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

    /// Configures yamux. Default: that of `libp2p-yamux`.
    pub fn with_yamux(mut self, yamux: libp2p_yamux::Config) -> Self {
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

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("local_peer_id", &self.local_peer_id())
            .field("version", &self.version)
            .field("mode", &self.mode)
            .field("groups", &self.groups)
            .field("admission", &self.admission.is_some())
            .field("secured_hook", &self.secured.is_some())
            .field("max_waiting", &self.max_waiting)
            .field("knock_timeout", &self.knock_timeout)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("close_timeout", &self.close_timeout)
            .finish_non_exhaustive()
    }
}

/// See [`Config::dangerous`].
#[derive(Debug)]
pub struct Dangerous(Config);

impl Dangerous {
    /// Hands the secrets of every connection to `log`, so that captures can be decrypted. Never on by itself: the
    /// environment variable that libp2p's own TLS obeys is not looked at.
    pub fn with_key_log(mut self, log: Arc<dyn KeyLog>) -> Config {
        self.0.key_log = log;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SignError;
    use libp2p_identity::KeyType;

    #[test]
    fn every_other_key_type_is_refused_by_name() {
        for (keypair, expected) in [
            (Keypair::generate_secp256k1(), KeyType::Secp256k1),
            (Keypair::generate_ecdsa(), KeyType::Ecdsa),
            (rsa(), KeyType::RSA),
        ] {
            match Config::new(&keypair) {
                Err(ConfigError::UnsupportedKeyType { found }) => assert_eq!(found, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    fn rsa() -> Keypair {
        let mut pkcs8 = include_bytes!("../tests/vectors/rsa-2048.pk8").to_vec();
        Keypair::rsa_from_pkcs8(&mut pkcs8).expect("an RSA key")
    }

    struct Broken {
        key: [u8; 32],
        signature: Option<[u8; 64]>,
    }

    impl Identity for Broken {
        fn public_key(&self) -> [u8; 32] {
            self.key
        }

        fn sign(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
            self.signature.ok_or_else(|| SignError("the agent is gone".into()))
        }
    }

    #[test]
    fn an_identity_that_cannot_work_is_found_before_the_first_connection() {
        let good = Local::new(&Keypair::generate_ed25519()).expect("Ed25519").public_key();
        let config = |key, signature| Config::with_identity(Arc::new(Broken { key, signature }));
        assert!(matches!(config([0; 32], None), Err(ConfigError::InvalidKey(_))));
        assert!(matches!(config(good, None), Err(ConfigError::Sign(_))));
        assert!(matches!(config(good, Some([1; 64])), Err(ConfigError::SignerMismatch)));
    }

    #[test]
    fn a_configuration_shows_no_secret() {
        let keypair = Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes");
        let shown = format!("{:?}", Config::new(&keypair).expect("Ed25519"));
        assert!(!shown.contains("7, 7, 7"), "{shown}");
        assert!(shown.contains(&keypair.public().to_peer_id().to_string()));
    }
}
