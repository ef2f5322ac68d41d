//! Whom not to dial until when. Pure: the time is given.

use super::message::Goodbye;
use crate::verdict::Denied;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionDenied;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::time::Duration;

/// Most peers that are kept from being dialled at a time, those told last.
const PEERS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Why a dial was denied: the peer has said goodbye, and asked not to be dialled for a while. Found in
/// [`DialError::Denied`](libp2p_swarm::DialError::Denied) by downcasting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer has said goodbye: {goodbye}; not dialled for another {left:?}")]
#[non_exhaustive]
pub struct BackedOff {
    /// What it said.
    pub goodbye: Goodbye,
    /// For how long it is not dialled yet.
    pub left: Duration,
}

/// For how long it is no use to dial a peer again that a gate of this Swarm has denied: what is
/// left of the time that the peer has asked for, or what the rule gives as
/// [`Reason::retry_after`](crate::Reason::retry_after). `None` where neither says.
///
/// What `libp2p_connmgr::persistent::Config::with_denied_for` takes.
pub fn denied_for(denied: &ConnectionDenied) -> Option<Duration> {
    let backed_off = denied.downcast_ref::<BackedOff>().map(|backed_off| backed_off.left);
    let by_rule = || denied.downcast_ref::<Denied>()?.reason.retry_after();
    backed_off.or_else(by_rule)
}

#[derive(Debug)]
pub(super) struct BackOffs {
    peers: LruCache<PeerId, (Duration, Goodbye)>,
    usual: Duration,
    longest: Duration,
}

impl BackOffs {
    pub(super) fn new(usual: Duration, longest: Duration) -> Self {
        Self {
            peers: LruCache::new(PEERS),
            usual,
            longest,
        }
    }

    pub(super) fn heard(&mut self, peer: PeerId, goodbye: Goodbye, now: Duration) {
        let time = goodbye.retry_after().unwrap_or(self.usual).min(self.longest);
        if time > Duration::ZERO {
            self.peers.put(peer, (now + time, goodbye));
        }
    }

    /// Forgets those that are over.
    pub(super) fn of(&mut self, peer: &PeerId, now: Duration) -> Option<BackedOff> {
        let (until, goodbye) = self.peers.peek(peer)?;
        let left = until.saturating_sub(now);
        if left.is_zero() {
            self.peers.pop(peer);
            return None;
        }
        Some(BackedOff {
            goodbye: goodbye.clone(),
            left,
        })
    }

    /// How many are not over. Looks at all of them.
    #[cfg(feature = "metrics")]
    pub(super) fn active(&self, now: Duration) -> usize {
        self.peers.iter().filter(|(_, (until, _))| *until > now).count()
    }

    pub(super) fn forgive(&mut self, peer: &PeerId) {
        self.peers.pop(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Code;
    use super::*;
    use crate::verdict::{Reason, Stage};

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn said(seconds: u64) -> Goodbye {
        Goodbye::new(Code::Trimmed).with_retry_after(at(seconds))
    }

    #[test]
    fn a_denied_dial_says_for_how_long_it_is_no_use() {
        let (goodbye, left) = (said(60), at(7));
        let denied = |reason: Reason| ConnectionDenied::new(Denied::new(Stage::PeerDial, reason));
        assert_eq!(
            denied_for(&ConnectionDenied::new(BackedOff { goodbye, left })),
            Some(left)
        );
        assert_eq!(
            denied_for(&denied(Reason::new("rule").with_retry_after(at(9)))),
            Some(at(9))
        );
        assert_eq!(denied_for(&denied(Reason::new("rule"))), None);
        assert_eq!(denied_for(&ConnectionDenied::new(std::fmt::Error)), None);
    }

    #[test]
    fn a_peer_is_let_alone_for_as_long_as_it_asked_and_no_longer() {
        let (mut all, peer) = (BackOffs::new(at(30), at(3600)), PeerId::random());
        assert_eq!(all.of(&peer, at(0)), None);
        all.heard(peer, said(60), at(100));
        assert_eq!(all.of(&peer, at(159)).expect("not yet").left, at(1));
        assert_eq!(all.of(&peer, at(160)), None);
        assert_eq!(all.peers.len(), 0);
    }

    #[test]
    fn who_says_nothing_gets_the_usual_time_and_who_says_too_much_the_longest() {
        let (mut all, peer) = (BackOffs::new(at(30), at(3600)), PeerId::random());
        all.heard(peer, said(0), at(0));
        assert_eq!(all.of(&peer, at(0)).expect("not yet").left, at(30));
        all.heard(peer, said(u32::MAX.into()), at(0));
        assert_eq!(all.of(&peer, at(0)).expect("not yet").left, at(3600));
        all.forgive(&peer);
        assert_eq!(all.of(&peer, at(0)), None);
        let mut never = BackOffs::new(at(30), at(0));
        never.heard(peer, said(60), at(0));
        assert_eq!(never.of(&peer, at(0)), None);
    }

    #[test]
    fn memory_is_bounded_whoever_says_goodbye() {
        let mut all = BackOffs::new(at(30), at(3600));
        for _ in 0..PEERS.get() + 100 {
            all.heard(PeerId::random(), said(60), at(0));
        }
        assert_eq!(all.peers.len(), PEERS.get());
    }
}
