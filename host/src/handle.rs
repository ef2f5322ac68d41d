//! Where streams are opened.

use crate::after::Later;
use crate::counters::HostCounters;
use crate::error::{OpenError, SignError};
use crate::limits::{Limits, Priority};
use crate::peers::Registry;
use crate::separation::separated;
use crate::stream::{Stream, Stream2};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::fmt;
use std::sync::Arc;

/// Opens streams of a running [`Host`](crate::Host), or of a Swarm with a [`Behaviour`](crate::Behaviour). Cheap to clone, and
/// usable from any thread. Does not keep the host alive: when that is closed, every stream ends and no other can be
/// opened.
#[derive(Clone)]
pub struct Handle {
    registry: Arc<Registry>,
}

impl Handle {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Who we are.
    pub fn local_peer_id(&self) -> PeerId {
        self.registry.local()
    }

    /// Where we listen: with the ports that the system chose, and empty in a Swarm, which has its own list.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.registry.listening().clone()
    }

    /// As configured, with the ports that the system chose. Complete before the discoverer starts, when of an unspecified address not
    /// all of those that it stands for may be known yet.
    pub(crate) fn bound_addresses(&self) -> Vec<Multiaddr> {
        self.registry.bound().clone()
    }

    /// Opens the stream `name` to `peer`. Returns at once and never touches the network: the host connects, and connects
    /// again, by itself, as long as there is a stream. The other end has to open the same name before anything arrives there.
    ///
    /// A peer without any stream to us does not answer our knock, as it answers no stranger's. A dial that comes before it has
    /// one takes all of the dial timeout, 5 s by default, and the next comes after the dial interval; so where two start together,
    /// the first message may take some eight seconds. The other end's dials are not held up by that.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; each is found at once.
    pub fn open_stream(&self, peer: PeerId, name: &str, limits: Limits) -> Result<Stream, OpenError> {
        let stream = self.open_stream2(peer, name, Priority::Default, limits)?;
        Ok(Stream::new(stream))
    }

    /// Opens a stream with requests, responses and a priority, otherwise as [`Handle::open_stream`]. The other end may open the
    /// same name as a plain stream and drops requests then, if it knows of them at all: v1 of the Go original closes the
    /// connection at the first.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; each is found at once.
    pub fn open_stream2(
        &self,
        peer: PeerId,
        name: &str,
        priority: Priority,
        limits: Limits,
    ) -> Result<Stream2, OpenError> {
        self.open_under_a_lock(peer, name, priority, limits)
            .map(|(stream, _later)| stream)
    }

    /// As [`Handle::open_stream2`], for a caller that holds a lock of its own. What comes back beside
    /// the stream wakes tasks when it is dropped, so the lock has to be given back before.
    pub(crate) fn open_under_a_lock(
        &self,
        peer: PeerId,
        name: &str,
        priority: Priority,
        limits: Limits,
    ) -> Result<(Stream2, Later), OpenError> {
        let (shared, ticket, later) = self.registry.open(peer, name, priority, limits)?;
        let stream = Stream2::new(self.registry.clone(), shared, ticket, name.into());
        Ok((stream, later))
    }

    /// Whether there is a connection with `peer` now. Only for people to look at: it may be gone by the time this returns.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.registry.get(peer).is_some_and(|shared| shared.is_connected())
    }

    /// What is counted.
    pub fn counters(&self) -> Arc<HostCounters> {
        self.registry.counters.clone()
    }

    /// Signs `message` with the host's key, for `domain` and nothing else: as the Go original's `peeridhelper` does, so that no
    /// signature that an application gives away is one of the host's own, or of another application's.
    ///
    /// # Errors
    ///
    /// As [`Handle::sign`].
    pub fn sign_in_domain(&self, domain: &str, message: &[u8]) -> Result<[u8; 64], SignError> {
        self.sign(&separated(domain, message))
    }

    /// Signs `message`, as it is, with the host's key. For protocols that say themselves what keeps their signatures apart;
    /// everybody else takes [`Handle::sign_in_domain`].
    ///
    /// # Errors
    ///
    /// [`SignError::NoIdentity`] in a Swarm, and whatever the identity says.
    ///
    /// # Panics
    ///
    /// If the identity does.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        self.registry.sign(message)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("local_peer_id", &self.local_peer_id())
            .finish_non_exhaustive()
    }
}
