//! What is known of one peer.

use super::decaying::Decaying;
use super::time::Stamp;
use crate::count::Activity;
use libp2p_core::Multiaddr;
use libp2p_core::multihash::Multihash;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use smallvec::SmallVec;
use smol_str::SmolStr;

/// One peer. A million of them must fit into memory, so what most peers lack is boxed, and what most have is not.
///
/// In the order in which it is asked: what finds a record, what a tag changes, what a trim asks besides. A heap block begins 16 bytes
/// into a cache line, as a rule, and then each of these has a line. Aligned it would always; but a block that is aligned
/// cannot grow in its place, and a hundred thousand peers would take half as much again.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Record {
    id: Id,
    kind: Kind,
    /// Whether there is, or was, a tag so large that `sum` may be wrong.
    huge: bool,
    /// Whether the behaviour will look at what keeps this peer's connections alive.
    pub(crate) announced: bool,
    /// By name.
    tags: SmallVec<[Tag; 1]>,
    /// Wrapping, and right unless `huge`.
    sum: i64,
    extra: Option<Box<Extra>>,
    pub(crate) conns: SmallVec<[Conn; 1]>,
    pub(crate) first_seen: Stamp,
    pub(crate) hash: u64,
    /// Of [`State`].
    since: Stamp,
}

type Tag = (SmolStr, i64);

/// A [`PeerId`], which takes 80 bytes, in 44. One that is longer is in [`Extra`].
#[derive(Debug)]
struct Id {
    digest: [u8; SHORT],
    /// Of the digest, or `LONG`.
    length: u8,
    sha256: bool,
}

/// The longest digest of a peer whose key is in its id. Nothing but an unusual SHA-256 is longer.
const SHORT: usize = 42;
const LONG: u8 = u8::MAX;
const SHA256: u64 = 0x12;

impl Id {
    fn new(peer: &PeerId) -> Self {
        let hash = peer.as_ref().digest();
        let mut digest = [0; SHORT];
        let length = hash.len().min(SHORT);
        digest[..length].copy_from_slice(&hash[..length]);
        Self {
            digest,
            length: u8::try_from(hash.len())
                .ok()
                .filter(|_| hash.len() <= SHORT)
                .unwrap_or(LONG),
            sha256: peer.as_ref().code() == SHA256,
        }
    }

    fn digest(&self) -> &[u8] {
        &self.digest[..usize::from(self.length)]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connected,
    Early,
    Gone,
    Pinned,
}

/// Why a record exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has a connection.
    Connected,
    /// It has none and was tagged. [`Record::left`] tells whether it ever had one.
    Early { since: Stamp },
    /// It had one.
    Gone { since: Stamp },
    /// It has none, and is protected or in use: stays until it no longer is.
    Pinned,
}

#[derive(Debug, Default)]
struct Extra {
    /// The peer, if its id is a long one.
    long: Option<PeerId>,
    decaying: Vec<Decaying>,
    protections: Vec<SmolStr>,
    guards: usize,
    /// When the last connection closed, of a record without one whose state does not say so.
    left: Option<Stamp>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnectionId,
    pub(crate) opened: Stamp,
    /// Shares its bytes with the Swarm's. Boxed, as it would take 32 bytes of peers without connections too.
    pub(crate) address: Box<Multiaddr>,
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
        let mut record = Self {
            hash,
            first_seen,
            since: Stamp(0),
            sum: 0,
            tags: SmallVec::new(),
            conns: SmallVec::new(),
            extra: None,
            id: Id::new(&peer),
            kind: Kind::Pinned,
            huge: false,
            announced: false,
        };
        record.set_state(state);
        if record.id.length == LONG {
            record.extra.get_or_insert_default().long = Some(peer);
        }
        record
    }

    pub(crate) fn peer(&self) -> PeerId {
        if let Some(long) = self.long() {
            return *long;
        }
        let code = if self.id.sha256 { SHA256 } else { 0 };
        let hash = Multihash::wrap(code, self.id.digest()).ok();
        hash.and_then(|hash| PeerId::from_multihash(hash).ok())
            .expect("it was a PeerId's, and those have one of two codes")
    }

    pub(crate) fn is(&self, peer: &PeerId) -> bool {
        if self.id.length == LONG {
            return self.long() == Some(peer);
        }
        let hash = peer.as_ref();
        hash.digest() == self.id.digest() && (hash.code() == SHA256) == self.id.sha256
    }

    fn long(&self) -> Option<&PeerId> {
        self.extra.as_ref().filter(|_| self.id.length == LONG)?.long.as_ref()
    }

    pub(crate) fn state(&self) -> State {
        let since = self.since;
        match self.kind {
            Kind::Connected => State::Connected,
            Kind::Early => State::Early { since },
            Kind::Gone => State::Gone { since },
            Kind::Pinned => State::Pinned,
        }
    }

    pub(crate) fn set_state(&mut self, state: State) {
        (self.kind, self.since) = match state {
            State::Connected => (Kind::Connected, self.since),
            State::Early { since } => (Kind::Early, since),
            State::Gone { since } => (Kind::Gone, since),
            State::Pinned => (Kind::Pinned, self.since),
        };
    }

    /// When the peer's last connection closed. Nothing while it has one, and for a peer that never
    /// had.
    pub(crate) fn left(&self) -> Option<Stamp> {
        let noted = self.extra.as_ref().and_then(|extra| extra.left);
        noted.or_else(|| (self.kind == Kind::Gone).then_some(self.since))
    }

    /// Notes what [`Self::left`] tells, for a state that does not say so.
    pub(crate) fn set_left(&mut self, left: Option<Stamp>) {
        if left.is_some() {
            self.extra.get_or_insert_default().left = left;
        } else if let Some(extra) = &mut self.extra {
            extra.left = None;
            self.tidy();
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
                self.sum = self.sum.wrapping_sub(old).wrapping_add(value);
            }
            Err(_) if self.tag_count() >= max => return TagOutcome::Full,
            Err(at) => {
                self.tags.insert(at, (SmolStr::new(name), value));
                self.sum = self.sum.wrapping_add(value);
            }
        }
        // As many as there may be of those that are not huge stay within the range.
        // Written only when it changes: it stands on another cache line than the value, and threads that tag would pass that one to
        // and fro as well.
        if value.unsigned_abs() > i64::MAX.unsigned_abs() / max.max(1) as u64 {
            self.huge = true;
        }
        TagOutcome::Set
    }

    pub(crate) fn remove_tag(&mut self, name: &str) -> bool {
        let Ok(at) = self.position(name) else { return false };
        let (_, value) = self.tags.remove(at);
        self.sum = self.sum.wrapping_sub(value);
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
        self.tags = SmallVec::new();
        self.sum = 0;
        self.huge = false;
        if let Some(extra) = &mut self.extra {
            extra.decaying = Vec::new();
        }
    }

    /// The peer's value now, saturating. Closures are not asked: see [`Decaying::advance`].
    pub(crate) fn value(&mut self, now: Stamp) -> i64 {
        let Some(extra) = &mut self.extra else {
            return if self.huge { saturate(self.exact()) } else { self.sum };
        };
        extra.decaying.retain_mut(|tag| tag.advance(now));
        let decaying: i128 = extra.decaying.iter().map(|tag| i128::from(tag.value)).sum();
        saturate(decaying + if self.huge { self.exact() } else { self.sum.into() })
    }

    /// The sum of the plain tags: an addend may leave again, so a saturated sum would be no use.
    fn exact(&self) -> i128 {
        self.tags.iter().map(|(_, value)| i128::from(*value)).sum()
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
            && extra.left.is_none()
            && extra.long.is_none()
        {
            self.extra = None;
        }
    }

    /// Connections that no trim is closing.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Conn> {
        self.conns.iter().filter(|conn| conn.closing == 0)
    }

    /// Something out of each of its cache lines.
    pub(crate) fn touch(&self) -> u64 {
        u64::from(self.id.length) ^ self.sum.cast_unsigned() ^ self.first_seen.0 ^ self.hash
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

fn saturate(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p_identity::Keypair;

    #[test]
    fn a_record_takes_little() {
        assert_eq!((size_of::<Id>(), size_of::<Conn>(), size_of::<Record>()), (44, 40, 192));
    }

    #[test]
    fn every_peer_is_itself_and_nobody_else() {
        let mut peers = vec![PeerId::random(), Keypair::generate_ed25519().public().to_peer_id()];
        for length in [0, 1, 32, 42, 43, 64] {
            for code in [0, SHA256] {
                let hash = Multihash::wrap(code, &[7; 64][..length]).unwrap();
                peers.extend(PeerId::from_multihash(hash));
            }
        }
        assert_eq!(peers.len(), 2 + 4 + 6);
        for (at, peer) in peers.iter().enumerate() {
            let mut record = Record::new(*peer, 0, State::Connected, Stamp(0));
            record.protect("tag");
            record.unprotect("tag");
            record.tidy();
            assert_eq!(record.peer(), *peer);
            for (other, stranger) in peers.iter().enumerate() {
                assert_eq!(record.is(stranger), at == other);
            }
        }
    }
}
