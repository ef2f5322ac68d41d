//! The handle: what the rest of the program holds.

use crate::config::LimitError;
use crate::conn_manager::ConnManager;
use crate::count;
use crate::decay::{Bump, Decay, DecayingTag, RegisterError};
use crate::event::Trimmed;
use crate::info::{Counts, Explanation, Info, TagInfo};
use crate::shared::{Request, Shared};
use crate::trimming::{TrimError, Trimming};
use futures::future::{BoxFuture, FutureExt as _};
use libp2p_core::{ConnectedPoint, Transport};
use libp2p_identity::PeerId;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Tags, protects and asks, from any thread. A clone is the same manager.
///
/// Every call takes effect before it returns and waits for nothing longer than another thread's change of one record; a
/// trim that passes holds one 256th of the records at a time. Works before the Swarm runs and after it is gone: then there are no
/// connections, tags are early ones, and a trim has nothing to do. After [`Self::close`] every call that
/// would change something does nothing.
#[derive(Clone)]
pub struct Manager {
    pub(crate) shared: Arc<Shared>,
}

impl Manager {
    /// Gives the peer `value` under `tag`, in place of what it had.
    ///
    /// A peer that is not connected is remembered for as long as
    /// [`Config::with_early_tags`](crate::Config::with_early_tags) says; one that is, until its last connection closes.
    pub fn tag_peer(&self, peer: &PeerId, tag: &str, value: i64) {
        if self.is_open() {
            self.shared.book.tag(peer, tag, value);
        }
    }

    /// Removes the tag. Without it nothing happens.
    pub fn untag_peer(&self, peer: &PeerId, tag: &str) {
        if self.is_open() {
            self.shared.book.untag(peer, tag);
        }
    }

    /// Gives the peer under `tag` what `upsert` makes of its value there, 0 if it has none.
    ///
    /// `upsert` is called on this thread, under no lock, and may call the manager. It is called
    /// again if the tag has changed meanwhile, up to 1,024 times: its last answer stands. If it
    /// panics nothing has changed.
    pub fn upsert_tag(&self, peer: &PeerId, tag: &str, mut upsert: impl FnMut(i64) -> i64) {
        if self.is_open() {
            self.shared.book.upsert(peer, tag, &mut upsert);
        }
    }

    /// What is known of the peer. `None` for one that is neither connected nor tagged, whether or
    /// not it is protected.
    pub fn tag_info(&self, peer: &PeerId) -> Option<TagInfo> {
        self.shared.book.tag_info(peer)
    }

    /// Trims now: closes the least valuable connections until the low watermark is reached, as
    /// [`TrimTarget`](crate::TrimTarget) counts, whether or not the high one was.
    ///
    /// Resolves when they are closed, or at
    /// [`Config::with_close_deadline`](crate::Config::with_close_deadline) with those that are not
    /// as `stuck`. Trims never overlap: a call while one runs gets the outcome of that. Dropping
    /// the future does not stop the trim. Resolves at once, with nothing closed, before the Swarm
    /// runs, when it is gone, and when the manager is closed.
    ///
    /// # Errors
    ///
    /// [`TrimError::NotPolled`] when the Swarm is not polled for 10 s meanwhile, as when the task
    /// that drives it awaits this. The trim is carried out when the Swarm is polled again.
    pub fn trim_open_conns(&self) -> Trimming {
        self.trim(Request::Normal)
    }

    /// Trims for memory: down to the low watermark of all connections, grace or not, those with most streams first among equals; protected
    /// peers and those in use only when there is nobody else left.
    ///
    /// Resolves as [`Self::trim_open_conns`] does. A normal trim that runs is finished first.
    pub fn force_trim(&self) -> Trimming {
        self.trim(Request::Forced)
    }

    fn trim(&self, request: Request) -> Trimming {
        let (answer, trimming) = Trimming::new(self.shared.clone());
        if self.is_open() {
            self.shared.request(request, answer);
        }
        trimming
    }

    /// Exempts the peer from trimming, and keeps it alive if [`KeepAlive`](crate::KeepAlive) says so, until
    /// [`Self::unprotect`] with the same tag. The same tag twice is once. Connected or not: it outlives connections, and has no expiry.
    ///
    /// Tags of a protected peer that is not connected do not expire. When the protection ends their
    /// time begins, as if they were set then.
    pub fn protect(&self, peer: &PeerId, tag: &str) {
        if self.is_open() && self.shared.book.protect(peer, tag) {
            self.shared.wake();
        }
    }

    /// Removes one protection. Whether the peer is still protected, under another.
    pub fn unprotect(&self, peer: &PeerId, tag: &str) -> bool {
        if !self.is_open() {
            return self.is_protected(peer, "");
        }
        let (still, changed) = self.shared.book.unprotect(peer, tag);
        if changed {
            self.shared.wake();
        }
        still
    }

    /// Whether the peer is protected under `tag`, or under any if it is empty.
    pub fn is_protected(&self, peer: &PeerId, tag: &str) -> bool {
        self.shared.book.is_protected(peer, tag)
    }

    /// All protected peers, with their tags. Looks at every peer there is.
    pub fn protected_peers(&self) -> Vec<(PeerId, Vec<String>)> {
        self.shared.book.protected_peers()
    }

    /// Protects the peer for as long as the guard, or a clone of it, lives.
    pub fn in_use(&self, peer: &PeerId) -> InUse {
        InUse::new(self.shared.clone(), *peer)
    }

    /// Registers a decaying tag. Its interval is raised to
    /// [`Config::with_decay_resolution`](crate::Config::with_decay_resolution) if it is shorter. Until it is closed no other may have its name.
    ///
    /// # Errors
    ///
    /// The name is taken, the manager closed, or a parameter of `decay` or `bump` is impossible.
    pub fn register_decaying_tag(
        &self,
        name: &str,
        interval: Duration,
        decay: Decay,
        bump: Bump,
    ) -> Result<DecayingTag, RegisterError> {
        if !self.is_open() {
            return Err(RegisterError::Closed);
        }
        decay.check()?;
        bump.check()?;
        let definition = self.shared.book.register(name, interval, decay, bump)?;
        let shared = self.shared.clone();
        Ok(DecayingTag { definition, shared })
    }

    /// Settings and state. Costs nothing.
    pub fn info(&self) -> Info {
        self.shared.info()
    }

    /// Peers and connections by class. Looks at every peer there is, a 256th at a time.
    pub fn counts(&self) -> Counts {
        self.shared.book.counts()
    }

    /// Why the peer would be closed by a trim on demand, or would not. Looks at every peer there is.
    pub fn explain(&self, peer: &PeerId) -> Explanation {
        self.shared.explain(peer)
    }

    /// Whether the manager stays within a limit that the system has.
    ///
    /// # Errors
    ///
    /// The hard limit, or the high watermark where there is none, is above `system`.
    pub fn check_limit(&self, system: usize) -> Result<(), LimitError> {
        let hard = self.shared.hard_limit.map(|hard| hard.limit);
        let manager = hard.unwrap_or(self.shared.high);
        if manager > system {
            Err(LimitError { manager, system })
        } else {
            Ok(())
        }
    }

    /// The hard limit as a question that a transport can ask about a connection before it has cost much: a knock's admission hook, a gater's.
    ///
    /// It allows every peer while there is room. At the limit it allows peers that are protected,
    /// in use, or have a value above zero, as the behaviour may find a place for them, and denies
    /// others with [`HardLimitReached`]. What counts is what counts for
    /// [`Config::with_hard_limit`](crate::Config::with_hard_limit): not handshakes, so that the
    /// behaviour is the one that holds the limit. Without a hard limit it denies no peer.
    pub fn hard_cap(
        &self,
    ) -> impl Fn(&PeerId, &ConnectedPoint) -> Result<(), Box<dyn Error + Send + Sync>> + Clone + Send + Sync + use<>
    {
        let shared = self.shared.clone();
        move |peer, _| Ok(shared.has_room_for(peer)?)
    }

    /// Wraps a transport so that streams and last activity of its connections are known to the order in which they are
    /// trimmed, and closing them takes bounded time. For each transport of the Swarm.
    pub fn count<T: Transport>(&self, transport: T) -> count::Transport<T> {
        count::Transport::new(transport, self.shared.activity.clone())
    }

    /// Ends the manager's work: no trim begins any more, and calls that would change something do nothing. What is known stays
    /// readable, and what was protected stays alive. Connections are not closed.
    pub fn close(&self) {
        self.shared.close();
    }

    fn is_open(&self) -> bool {
        !self.shared.is_closed()
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("info", &self.info())
            .finish_non_exhaustive()
    }
}

impl ConnManager for Manager {
    fn tag_peer(&self, peer: &PeerId, tag: &str, value: i64) {
        Self::tag_peer(self, peer, tag, value);
    }

    fn untag_peer(&self, peer: &PeerId, tag: &str) {
        Self::untag_peer(self, peer, tag);
    }

    fn upsert_tag(&self, peer: &PeerId, tag: &str, upsert: &mut dyn FnMut(i64) -> i64) {
        Self::upsert_tag(self, peer, tag, upsert);
    }

    fn tag_info(&self, peer: &PeerId) -> Option<TagInfo> {
        Self::tag_info(self, peer)
    }

    fn trim_open_conns(&self) -> BoxFuture<'static, Result<Trimmed, TrimError>> {
        Self::trim_open_conns(self).boxed()
    }

    fn protect(&self, peer: &PeerId, tag: &str) {
        Self::protect(self, peer, tag);
    }

    fn unprotect(&self, peer: &PeerId, tag: &str) -> bool {
        Self::unprotect(self, peer, tag)
    }

    fn is_protected(&self, peer: &PeerId, tag: &str) -> bool {
        Self::is_protected(self, peer, tag)
    }

    fn close(&self) {
        Self::close(self);
    }
}

/// Protects a peer while it, or a clone of it, lives. Connected or not. See [`Manager::in_use`].
#[must_use = "the peer is protected only while this lives"]
pub struct InUse {
    shared: Arc<Shared>,
    peer: PeerId,
    /// Not if the manager was closed by then.
    holds: bool,
}

impl InUse {
    fn new(shared: Arc<Shared>, peer: PeerId) -> Self {
        let holds = !shared.is_closed();
        if holds && shared.book.guard(&peer) {
            shared.wake();
        }
        Self { shared, peer, holds }
    }

    /// Whom it protects.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }
}

impl Clone for InUse {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone(), self.peer)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if self.holds && self.shared.book.unguard(&self.peer) {
            self.shared.wake();
        }
    }
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InUse")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// There are as many connections as there may be, and no peer is worth less than the newcomer; or
/// too many of them are being closed.
///
/// The cause of a [`ConnectionDenied`](libp2p_swarm::ConnectionDenied) by the behaviour: `denied.downcast::<HardLimitReached>()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hard limit of {limit} connections is reached")]
#[non_exhaustive]
pub struct HardLimitReached {
    /// The limit.
    pub limit: usize,
}
