//! What is known of one peer.

use super::decaying::Decaying;
use super::time::Stamp;
use crate::count::Activity;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use smallvec::SmallVec;
use smol_str::SmolStr;

/// One peer. A million of them must fit into memory, so what most peers lack is boxed.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) hash: u64,
    pub(crate) state: State,
    pub(crate) first_seen: Stamp,
    /// The exact sum of `tags`: an addend may leave again, so saturating here would lose it.
    sum: i128,
    /// By name.
    tags: Vec<(SmolStr, i64)>,
    pub(crate) conns: SmallVec<[Conn; 1]>,
    extra: Option<Box<Extra>>,
    pub(crate) peer: PeerId,
    /// Whether the peer was connected before: then it has had its grace.
    pub(crate) returning: bool,
    /// Whether the behaviour will look at what keeps this peer's connections alive.
    pub(crate) announced: bool,
}

/// Why a record exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has a connection.
    Connected,
    /// It has none and never had, but somebody tagged it.
    Early { since: Stamp },
    /// It had one.
    Gone { since: Stamp },
    /// It has none, and is protected or in use: stays until it no longer is.
    Pinned,
}

#[derive(Debug, Default)]
struct Extra {
    decaying: Vec<Decaying>,
    protections: Vec<SmolStr>,
    guards: usize,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnectionId,
    /// Counts up with each connection that is established.
    pub(crate) serial: u64,
    pub(crate) opened: Stamp,
    /// Shares its bytes with the Swarm's.
    pub(crate) address: Multiaddr,
    pub(crate) activity: Option<Activity>,
    /// The trim that closes it, 0 if none.
    pub(crate) closing: u32,
    pub(crate) outbound: bool,
    pub(crate) relayed: bool,
}

/// What setting a tag came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagOutcome {
    Set,
    /// The peer has as many tags as it may.
    Full,
}

impl Record {
    pub(crate) fn new(peer: PeerId, hash: u64, state: State, first_seen: Stamp) -> Self {
        Self {
            hash,
            state,
            first_seen,
            sum: 0,
            tags: Vec::new(),
            conns: SmallVec::new(),
            extra: None,
            peer,
            returning: false,
            announced: false,
        }
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.tags.binary_search_by(|(tag, _)| tag.as_str().cmp(name))
    }

    pub(crate) fn tag(&self, name: &str) -> Option<i64> {
        self.position(name).ok().map(|at| self.tags[at].1)
    }

    pub(crate) fn set_tag(&mut self, name: &str, value: i64, max: usize) -> TagOutcome {
        match self.position(name) {
            Ok(at) => {
                let old = std::mem::replace(&mut self.tags[at].1, value);
                self.sum += i128::from(value) - i128::from(old);
            }
            Err(_) if self.tag_count() >= max => return TagOutcome::Full,
            Err(at) => {
                // Doubling from one, where Vec would begin with four: most peers have one tag or two.
                if self.tags.len() == self.tags.capacity() {
                    self.tags.reserve_exact(self.tags.len().max(1));
                }
                self.tags.insert(at, (SmolStr::new(name), value));
                self.sum += i128::from(value);
            }
        }
        TagOutcome::Set
    }

    pub(crate) fn remove_tag(&mut self, name: &str) -> bool {
        let Ok(at) = self.position(name) else { return false };
        let (_, value) = self.tags.remove(at);
        self.sum -= i128::from(value);
        true
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = (&str, i64)> {
        self.tags.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Plain and decaying ones.
    pub(crate) fn tag_count(&self) -> usize {
        self.tags.len() + self.decaying().len()
    }

    /// Forgets what a last disconnect forgets.
    pub(crate) fn clear_tags(&mut self) {
        self.tags = Vec::new();
        self.sum = 0;
        if let Some(extra) = &mut self.extra {
            extra.decaying = Vec::new();
        }
    }

    /// The peer's value now, saturating. Closures are not asked: see [`Decaying::advance`].
    pub(crate) fn value(&mut self, now: Stamp) -> i64 {
        let mut sum = self.sum;
        if let Some(extra) = &mut self.extra {
            extra.decaying.retain_mut(|tag| tag.advance(now));
            sum += extra.decaying.iter().map(|tag| i128::from(tag.value)).sum::<i128>();
        }
        i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }

    pub(crate) fn decaying(&self) -> &[Decaying] {
        self.extra.as_ref().map_or(&[], |extra| &extra.decaying)
    }

    /// Room for decaying tags, made if there is none.
    pub(crate) fn decaying_mut(&mut self) -> &mut Vec<Decaying> {
        &mut self.extra.get_or_insert_default().decaying
    }

    pub(crate) fn existing_decaying_mut(&mut self) -> Option<&mut Vec<Decaying>> {
        self.extra.as_mut().map(|extra| &mut extra.decaying)
    }

    pub(crate) fn protections(&self) -> &[SmolStr] {
        self.extra.as_ref().map_or(&[], |extra| &extra.protections)
    }

    pub(crate) fn guards(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.guards)
    }

    /// Protected under any tag, or in use.
    pub(crate) fn is_kept(&self) -> bool {
        self.extra
            .as_ref()
            .is_some_and(|extra| extra.guards > 0 || !extra.protections.is_empty())
    }

    pub(crate) fn protect(&mut self, tag: &str) {
        let protections = &mut self.extra.get_or_insert_default().protections;
        if let Err(at) = protections.binary_search_by(|known| known.as_str().cmp(tag)) {
            protections.insert(at, SmolStr::new(tag));
        }
    }

    pub(crate) fn unprotect(&mut self, tag: &str) {
        if let Some(extra) = &mut self.extra {
            extra.protections.retain(|known| known != tag);
        }
    }

    pub(crate) fn guard(&mut self, count: impl FnOnce(usize) -> usize) {
        let guards = &mut self.extra.get_or_insert_default().guards;
        *guards = count(*guards);
    }

    /// Gives the box back when nothing is in it.
    pub(crate) fn tidy(&mut self) {
        if let Some(extra) = &self.extra
            && extra.decaying.is_empty()
            && extra.protections.is_empty()
            && extra.guards == 0
        {
            self.extra = None;
        }
    }

    /// Connections that no trim is closing.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Conn> {
        self.conns.iter().filter(|conn| conn.closing == 0)
    }

    /// Open streams on them, one for each connection whose streams nobody counts.
    pub(crate) fn streams(&self) -> u64 {
        self.open()
            .map(|conn| {
                conn.activity
                    .as_ref()
                    .map_or(1, |activity| u64::from(activity.streams()))
            })
            .sum()
    }
}
