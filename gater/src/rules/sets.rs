//! Named sets of peers, each swapped as a whole.

use super::key::PeerKey;
use super::sharded::Sharded;
use libp2p_identity::PeerId;
use std::net::IpAddr;
use std::sync::Arc;

/// What being in a set means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// As a rule of the allow list, for each of them. They are members too.
    Allowed,
    /// As a rule of the block list, for each of them.
    Blocked,
    /// They are members, for [`Admission::Members`] and [`Admission::KnownAddresses`], and nothing else.
    Member,
}

impl Standing {
    /// In lower case, for files.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Blocked => "blocked",
            Self::Member => "member",
        }
    }
}

/// Whom to let in that no list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Admission {
    /// Everybody.
    #[default]
    Everyone,
    /// Whoever is in a set that is not of [`Standing::Blocked`], in both directions, from the stage at which he is known.
    Members,
    /// As [`Self::Members`]; and what is accepted must come from an IP at which one of them is known. What has no IP of
    /// its own, such as a relay's circuit, does not.
    KnownAddresses,
}

impl Admission {
    /// In lower case, for files.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::Members => "members",
            Self::KnownAddresses => "known-addresses",
        }
    }
}

/// A peer of a set, and the IPs at which it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub(super) peer: PeerId,
    pub(super) ips: Vec<IpAddr>,
}

impl Member {
    /// A peer that is known at `ips`; mapped IPv4 is IPv4.
    pub fn at(peer: PeerId, ips: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut ips: Vec<IpAddr> = ips.into_iter().map(|ip| ip.to_canonical()).collect();
        ips.sort_unstable();
        ips.dedup();
        Self { peer, ips }
    }
}

impl From<PeerId> for Member {
    fn from(peer: PeerId) -> Self {
        Self { peer, ips: Vec::new() }
    }
}

#[derive(Clone)]
pub(super) struct PeerSet {
    pub(super) standing: Standing,
    pub(super) peers: Sharded<PeerKey, Arc<[IpAddr]>>,
    /// Where any of them is known.
    pub(super) ips: Sharded<IpAddr, ()>,
}

impl PeerSet {
    pub(super) fn new(standing: Standing) -> Self {
        Self {
            standing,
            peers: Sharded::default(),
            ips: Sharded::default(),
        }
    }

    pub(super) fn add(&mut self, key: PeerKey, ips: &[IpAddr]) {
        for ip in ips {
            self.ips.insert(*ip, ());
        }
        let mut all: Vec<IpAddr> = ips.to_vec();
        all.extend(self.peers.get(&key).into_iter().flat_map(|known| known.iter()));
        all.sort_unstable();
        all.dedup();
        self.peers.insert(key, all.into());
    }
}
