//! ragedisco: the members of a group find each other by announcements that each of them signs.
//!
//! Two are enough to start with: whoever knows the address of one member, a *bootstrapper*, hears of all others from it. Members
//! pass on what they know, so bootstrappers need not stay. Byte for byte what the Go original does, on the same stream,
//! `ragedisco/v1`; nodes of both kinds make one group.
//!
//! ```no_run
//! use knock_host::discovery::ragedisco::{Config, FileDatabase, Ragedisco};
//! # fn example(alice: libp2p_identity::PeerId, bob: libp2p_identity::PeerId) -> Result<(), Box<dyn std::error::Error>> {
//!
//! let config = Config::default()
//!     .with_announced_addresses(["203.0.113.9:6690"])      // else those that the host listens on
//!     .with_database(FileDatabase::open("announcements")?); // else everything is forgotten at the end
//! let ragedisco = Ragedisco::new(config);
//! // … then the host is started with `ragedisco.clone()` as its discoverer, and:
//! ragedisco.add_group([7; 32], [alice, bob], [(alice, vec!["/ip4/198.51.100.7/tcp/6690/tls".parse()?])])?;
//! # Ok(())
//! # }
//! ```
//!
//! # Who learns what
//!
//! An announcement is passed on to all members, oracles and bootstrappers, of the groups in which its signer is an *oracle*, and
//! to nobody else. Bootstrappers that are no oracles are never announced: their addresses come from configuration.
//!
//! # Limits
//!
//! 165 distinct oracles over all groups; 10 addresses in an announcement, IP literals only; 110,000 bytes in a message, 2 messages
//! waiting for a peer and 2 from it, 2 messages for each interval from a peer and 4 at once. What is over a limit is refused or
//! dropped; the next message says it again. Memory is some 900 bytes for each oracle.
//!
//! # What differs from the original, on this side of the wire
//!
//! - The configured addresses of a bootstrapper keep their order.
//! - No call waits for another; the original can stand still for ever when its own announcement is replaced at the wrong moment.
//! - An announcement of our own with the last counter there is stops ours, with an error in the log. The original starts again at
//!   0, which nobody hears.
//! - Signatures are verified only of announcements that would be taken.
//! - What is known is also written at the close. Our own announcement is written only once what was stored of it has been read.
//! - A stream that could not be opened is tried again.

mod address;
mod announcement;
mod database;
mod driver;
mod file_database;
mod patient;
mod protocol;
mod wire;

pub use address::{AddressError, MAX_ADDRESS_LENGTH, MAX_ADDRESSES};
pub use announcement::{Announcement, AnnouncementError, Message};
pub use database::{Database, DatabaseError};
pub use driver::StartError;
pub use file_database::{Damage, FileDatabase, FileDatabaseError};

use super::Discoverer;
use crate::Handle;
use futures::future::BoxFuture;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The name of the stream.
pub const STREAM_NAME: &str = "ragedisco/v1";

/// The most bytes in a message: 165 announcements of 10 of the longest addresses fit.
pub const MAX_MESSAGE_LENGTH: usize = 110_000;

/// The most distinct oracles over all groups of a host.
pub const MAX_ORACLES: usize = 165;

/// How often, from where and with what memory.
#[derive(Clone)]
pub struct Config {
    interval: Duration,
    announced: Vec<String>,
    database: Option<Arc<dyn Database>>,
}

impl Default for Config {
    /// Every minute, the addresses that the host listens on, no database.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            announced: Vec::new(),
            database: None,
        }
    }
}

impl Config {
    /// Between two messages with all that a peer may learn. A minute by default; at least a millisecond, to which less is
    /// raised.
    ///
    /// All members should have the same: a peer takes two messages for each of *its* intervals, and drops more.
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Where others reach this host: an IP address and a port each, `192.0.2.7:6690` or `[2001:db8::7]:6690`. In `0.0.0.0:6690`
    /// and `[::]:6690` the address stands for all of the interfaces' addresses. At most ten are announced, the first ones.
    ///
    /// By default these are the addresses that the host listens on when it starts.
    pub fn with_announced_addresses(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.announced = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// Where announcements are kept between two lives. Without one a host that starts again knows its bootstrappers only.
    pub fn with_database(mut self, database: impl Database) -> Self {
        self.database = Some(Arc::new(database));
        self
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("interval", &self.interval)
            .field("announced", &self.announced)
            .field("database", &self.database.is_some())
            .finish()
    }
}

/// A group was not taken in, or not let go. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// There is a group with this digest.
    #[error("there is a group with this digest")]
    Known,
    /// There is no group with this digest.
    #[error("there is no group with this digest")]
    Unknown,
    /// With this group there would be more than [`MAX_ORACLES`].
    #[error("{known} oracles are known and {new} would be added; there can be {MAX_ORACLES}")]
    TooManyOracles {
        /// So many there are.
        known: usize,
        /// So many of the group are not among them.
        new: usize,
    },
    /// A member whose key is not Ed25519 cannot sign announcements.
    #[error("{0} has no Ed25519 key")]
    KeyType(PeerId),
    /// The host has not started yet, or has closed.
    #[error("the host is not running")]
    NotRunning,
}

/// How far the discovery is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Distinct oracles over all groups; ourselves included where we are one.
    pub registered_peers: usize,
    /// Those with a valid announcement, and ourselves. Its addresses may still be wrong.
    pub discovered_peers: usize,
    /// Distinct bootstrappers over all groups.
    pub bootstrappers: usize,
    /// The oracles without an announcement.
    pub missing: Vec<PeerId>,
}

/// The discoverer. Clones are handles to one and the same; it serves one host, once.
#[derive(Clone)]
pub struct Ragedisco(Arc<driver::Shared>);

impl Ragedisco {
    /// Does nothing until a host starts with it.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(driver::Shared::new(config)))
    }

    /// Takes in a group, which its `digest` identifies, and looks for its members from now on. A member that is named twice
    /// counts once; ourselves may be among them.
    ///
    /// # Errors
    ///
    /// When the digest is known, when the group has too many oracles or a member without an Ed25519 key, or when the host is not
    /// running.
    pub fn add_group(
        &self,
        digest: [u8; 32],
        oracles: impl IntoIterator<Item = PeerId>,
        bootstrappers: impl IntoIterator<Item = (PeerId, Vec<Multiaddr>)>,
    ) -> Result<(), GroupError> {
        // What lists them is the caller's, and may call us.
        let (oracles, bootstrappers) = (Vec::from_iter(oracles), Vec::from_iter(bootstrappers));
        self.0
            .protocol(|protocol| protocol.add_group(digest, oracles, bootstrappers))
            .unwrap_or(Err(GroupError::NotRunning))
    }

    /// Lets a group go: its members that are in no other group are forgotten, and their announcements stored.
    ///
    /// # Errors
    ///
    /// When there is no such group, or when the host is not running.
    pub fn remove_group(&self, digest: &[u8; 32]) -> Result<(), GroupError> {
        self.0
            .protocol(|protocol| protocol.remove_group(digest))
            .unwrap_or(Err(GroupError::NotRunning))
    }

    /// How far it is. All zero while the host is not running.
    pub fn status(&self) -> Status {
        self.0.status()
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn downgrade(&self) -> WeakRagedisco {
        WeakRagedisco(Arc::downgrade(&self.0))
    }
}

/// A [`Ragedisco`] that others keep, or no longer.
#[cfg(feature = "metrics")]
pub(crate) struct WeakRagedisco(std::sync::Weak<driver::Shared>);

#[cfg(feature = "metrics")]
impl WeakRagedisco {
    pub(crate) fn status(&self) -> Option<Status> {
        self.0.upgrade().map(|shared| shared.status())
    }
}

#[cfg(feature = "metrics")]
impl fmt::Debug for WeakRagedisco {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WeakRagedisco").field(&self.status()).finish()
    }
}

impl fmt::Debug for Ragedisco {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ragedisco").field(&self.status()).finish()
    }
}

impl Discoverer for Ragedisco {
    fn start(&self, host: &Handle) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.start(host)?)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.close())
    }

    fn find_peer(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.0.find_peer(peer)
    }
}
