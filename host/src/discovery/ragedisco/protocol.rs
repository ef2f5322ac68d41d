//! The rules of ragedisco, without sockets, streams or clocks: messages and time come in, [`Action`]s go out.

use super::announcement::{Announcement, AnnouncementError, Message, key_of};
use super::{GroupError, MAX_ORACLES, Status};
use crate::SignError;
use crate::engine::time::later;
use bytes::Bytes;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Between two writings of everything that is known into the database.
pub(super) const SAVE_INTERVAL: Duration = Duration::from_secs(2 * 60);

/// From the start to the first line about what is known, and between two of them.
const FIRST_REPORT: Duration = Duration::from_secs(10);
const REPORT_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Nobody changes his addresses so often.
pub(super) const SUSPICIOUS_COUNTER: u64 = 100_000_000;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Open the discovery stream to this peer.
    Connect(PeerId),
    /// Close it.
    Disconnect(PeerId),
    /// Send this to a peer that the stream is open to.
    Send(PeerId, Bytes),
    /// Read what the database has about these, and hand it to [`Protocol::on_loaded`].
    Load(Vec<PeerId>),
    /// Write these into the database.
    Store(Vec<Announcement>),
    /// Sign our own addresses with this counter, and hand what comes of it to
    /// [`Protocol::on_signed`].
    Sign(u64),
    /// Tell the operator that a better announcement of this peer is known.
    Learnt(PeerId, u64),
    /// Tell the operator how far it is.
    Report(Status),
}

/// Why an announcement was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejected {
    #[error("{0} is no oracle in any of our groups; whoever sent this may have a group that we have not")]
    NotAnOracle(PeerId),
    #[error(transparent)]
    Invalid(#[from] AnnouncementError),
    #[error("our own announcement cannot be signed")]
    Sign(#[from] SignError),
    #[error("our own announcement has the last counter there is, and other addresses: nobody will learn ours")]
    Exhausted,
}

#[derive(Debug)]
struct Group {
    oracles: BTreeSet<PeerId>,
    bootstrappers: BTreeMap<PeerId, Vec<Multiaddr>>,
}

impl Group {
    fn members(&self) -> BTreeSet<PeerId> {
        self.oracles.iter().chain(self.bootstrappers.keys()).copied().collect()
    }
}

/// The state of one host's discovery.
pub(super) struct Protocol {
    own: PeerId,
    own_addresses: Vec<Vec<u8>>,
    /// The counter of the announcement that is being signed.
    signing: Option<u64>,
    interval: Duration,
    groups: BTreeMap<[u8; 32], Group>,
    /// In how many groups a peer is an oracle, or a bootstrapper. Never 0.
    oracles: BTreeMap<PeerId, usize>,
    bootstrappers: BTreeMap<PeerId, usize>,
    best: BTreeMap<PeerId, Announcement>,
    actions: VecDeque<Action>,
    next_reconcile: Instant,
    next_save: Instant,
    next_report: Instant,
}

impl Protocol {
    /// `first` is our own announcement, with the counter 0.
    pub(super) fn new(now: Instant, first: Announcement, interval: Duration) -> Self {
        let own = first.peer();
        Self {
            own,
            own_addresses: first.raw_addresses().to_vec(),
            signing: None,
            interval,
            groups: BTreeMap::new(),
            oracles: BTreeMap::new(),
            bootstrappers: BTreeMap::new(),
            best: BTreeMap::from([(own, first)]),
            actions: VecDeque::new(),
            next_reconcile: now,
            next_save: now + SAVE_INTERVAL,
            next_report: now + FIRST_REPORT,
        }
    }

    /// The next thing to do, if there is any.
    pub(super) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Protocol::on_time`] has something to do.
    pub(super) fn next_timeout(&self) -> Instant {
        self.next_reconcile.min(self.next_save).min(self.next_report)
    }

    /// Does what is due.
    pub(super) fn on_time(&mut self, now: Instant) {
        if self.next_reconcile <= now {
            self.next_reconcile = later(now, self.interval);
            self.reconcile();
        }
        if self.next_save <= now {
            self.next_save = now + SAVE_INTERVAL;
            self.save();
        }
        if self.next_report <= now {
            self.next_report = now + REPORT_INTERVAL;
            self.actions.push_back(Action::Report(self.status()));
        }
    }

    /// Everything that is known goes into the database.
    pub(super) fn save(&mut self) {
        // Our own one waits until what was stored of it is loaded, which happens when we become an oracle: a counter of 0
        // must not replace the one of an earlier life.
        let known = self.best.iter().filter(|(peer, _)| self.oracles.contains_key(*peer));
        let known: Vec<Announcement> = known.map(|(_, announcement)| announcement.clone()).collect();
        if !known.is_empty() {
            self.actions.push_back(Action::Store(known));
        }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            registered_peers: self.oracles.len(),
            discovered_peers: self.best.len(),
            bootstrappers: self.bootstrappers.len(),
            missing: self
                .oracles
                .keys()
                .filter(|peer| !self.best.contains_key(*peer))
                .copied()
                .collect(),
        }
    }

    /// Takes a group in. A member that is named twice counts once.
    pub(super) fn add_group(
        &mut self,
        digest: [u8; 32],
        oracles: impl IntoIterator<Item = PeerId>,
        bootstrappers: impl IntoIterator<Item = (PeerId, Vec<Multiaddr>)>,
    ) -> Result<(), GroupError> {
        let Entry::Vacant(place) = self.groups.entry(digest) else {
            return Err(GroupError::Known);
        };
        let mut group = Group {
            oracles: oracles.into_iter().collect(),
            bootstrappers: BTreeMap::new(),
        };
        for (peer, addresses) in bootstrappers {
            let all = group.bootstrappers.entry(peer).or_default();
            for address in addresses {
                if !all.contains(&address) {
                    all.push(address);
                }
            }
        }
        let members = group.members();
        if let Some(peer) = members.iter().find(|peer| key_of(peer).is_none()) {
            return Err(GroupError::KeyType(*peer));
        }
        let new: Vec<PeerId> = group
            .oracles
            .iter()
            .filter(|peer| !self.oracles.contains_key(*peer))
            .copied()
            .collect();
        if self.oracles.len() + new.len() > MAX_ORACLES {
            return Err(GroupError::TooManyOracles {
                known: self.oracles.len(),
                new: new.len(),
            });
        }
        // Nothing fails from here on.
        for member in members {
            if member != self.own && !self.oracles.contains_key(&member) && !self.bootstrappers.contains_key(&member) {
                self.actions.push_back(Action::Connect(member));
            }
        }
        for oracle in &group.oracles {
            *self.oracles.entry(*oracle).or_default() += 1;
        }
        for bootstrapper in group.bootstrappers.keys() {
            *self.bootstrappers.entry(*bootstrapper).or_default() += 1;
        }
        place.insert(group);
        if !new.is_empty() {
            self.actions.push_back(Action::Load(new));
        }
        Ok(())
    }

    /// Lets a group go. What is known of those who are in no other one goes into the database and is forgotten here.
    pub(super) fn remove_group(&mut self, digest: &[u8; 32]) -> Result<(), GroupError> {
        let group = self.groups.remove(digest).ok_or(GroupError::Unknown)?;
        let mut gone = Vec::new();
        for oracle in &group.oracles {
            if leave(&mut self.oracles, oracle) {
                if *oracle == self.own {
                    gone.extend(self.best.get(oracle).cloned());
                } else {
                    gone.extend(self.best.remove(oracle));
                }
            }
        }
        for bootstrapper in group.bootstrappers.keys() {
            leave(&mut self.bootstrappers, bootstrapper);
        }
        if !gone.is_empty() {
            self.actions.push_back(Action::Store(gone));
        }
        for member in group.members() {
            if member != self.own && !self.is_member(&member) {
                self.actions.push_back(Action::Disconnect(member));
            }
        }
        Ok(())
    }

    /// Whether a peer is in any group.
    pub(super) fn is_member(&self, peer: &PeerId) -> bool {
        self.oracles.contains_key(peer) || self.bootstrappers.contains_key(peer)
    }

    /// Where a peer may be: what is configured comes before what it says itself, so that an operator has the last word.
    pub(super) fn find_peer(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let configured = if self.bootstrappers.contains_key(peer) {
            self.groups
                .values()
                .filter_map(|group| group.bootstrappers.get(peer))
                .flatten()
                .cloned()
                .collect()
        } else {
            Vec::new()
        };
        let mut found = Vec::new();
        for address in configured
            .into_iter()
            .chain(self.best.get(peer).into_iter().flat_map(Announcement::multiaddrs))
        {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }

    /// A message from a member; what is wrong with parts of it does not keep the rest from being used.
    ///
    /// # Errors
    ///
    /// When all of it is malformed, and nothing of it was used.
    pub(super) fn on_message(&mut self, bytes: &[u8]) -> Result<Vec<Rejected>, AnnouncementError> {
        let announcements = match Message::decode(bytes)? {
            Message::Announcement(announcement) => vec![announcement],
            Message::Reconcile(announcements) => announcements,
        };
        Ok(self.take_all(announcements))
    }

    /// What the database had.
    pub(super) fn on_loaded(&mut self, stored: impl IntoIterator<Item = Announcement>) -> Vec<Rejected> {
        self.take_all(stored)
    }

    fn take_all(&mut self, announcements: impl IntoIterator<Item = Announcement>) -> Vec<Rejected> {
        announcements
            .into_iter()
            .filter_map(|announcement| self.take(announcement).err())
            .collect()
    }

    fn take(&mut self, announcement: Announcement) -> Result<(), Rejected> {
        let peer = announcement.peer();
        if !self.oracles.contains_key(&peer) {
            return Err(Rejected::NotAnOracle(peer));
        }
        // What would not be taken anyway is not worth the verification of its signature: members send everything they
        // know again and again.
        let is_better = match self.best.get(&peer) {
            None => true,
            Some(best) if peer == self.own => {
                best.counter() < announcement.counter()
                    || best.counter() == announcement.counter() && best.raw_addresses() != announcement.raw_addresses()
            }
            Some(best) => best.counter() < announcement.counter(),
        };
        if !is_better {
            return Ok(());
        }
        announcement.verify()?;
        if peer == self.own {
            return self.outdo(&announcement);
        }
        self.actions.push_back(Action::Learnt(peer, announcement.counter()));
        self.best.insert(peer, announcement);
        Ok(())
    }

    /// An announcement of our own from an earlier life, or from before we moved: it is taken, or
    /// answered with a better one when the addresses are not those of today. Signing is not done
    /// here, as it takes whatever time the host's identity takes.
    fn outdo(&mut self, earlier: &Announcement) -> Result<(), Rejected> {
        if earlier.raw_addresses() == self.own_addresses {
            self.best.insert(self.own, earlier.clone());
            return Ok(());
        }
        // The original wraps round to 0 here, and nobody ever listens to it again.
        let counter = earlier.counter().checked_add(1).ok_or(Rejected::Exhausted)?;
        if self.signing.is_none_or(|signing| signing < counter) {
            self.signing = Some(counter);
            self.actions.push_back(Action::Sign(counter));
        }
        Ok(())
    }

    /// What came of [`Action::Sign`] with `counter`. What could not be signed is signed again when
    /// the earlier announcement is heard of again.
    pub(super) fn on_signed(&mut self, counter: u64, signed: Result<Announcement, SignError>) -> Result<(), Rejected> {
        if self.signing == Some(counter) {
            self.signing = None;
        }
        let better = signed?;
        if self.best.get(&self.own).is_some_and(|best| best.counter() >= counter) {
            return Ok(());
        }
        self.actions.push_back(Action::Learnt(self.own, counter));
        let message = Bytes::from(Message::Announcement(better.clone()).encode());
        self.best.insert(self.own, better);
        for peer in self.may_learn_of(&self.own) {
            self.actions.push_back(Action::Send(peer, message.clone()));
        }
        Ok(())
    }

    /// All members of the groups in which `oracle` is one, without ourselves. The oracle itself is among them.
    fn may_learn_of(&self, oracle: &PeerId) -> BTreeSet<PeerId> {
        let groups = self.groups.values().filter(|group| group.oracles.contains(oracle));
        let mut peers: BTreeSet<PeerId> = groups.flat_map(Group::members).collect();
        peers.remove(&self.own);
        peers
    }

    /// Everybody gets all that he may learn, in one message.
    fn reconcile(&mut self) {
        let mut may_learn = BTreeMap::<PeerId, BTreeSet<PeerId>>::new();
        for group in self.groups.values() {
            for member in group.members() {
                let known = group.oracles.iter().filter(|oracle| self.best.contains_key(*oracle));
                may_learn.entry(member).or_default().extend(known);
            }
        }
        may_learn.remove(&self.own);
        for (peer, oracles) in may_learn {
            if oracles.is_empty() {
                continue;
            }
            let members = oracles
                .iter()
                .filter_map(|oracle| self.best.get(oracle))
                .cloned()
                .collect();
            let message = Message::Reconcile(members).encode();
            self.actions.push_back(Action::Send(peer, message.into()));
        }
    }
}

/// One group less for `peer`. Whether it was the last one.
fn leave(counts: &mut BTreeMap<PeerId, usize>, peer: &PeerId) -> bool {
    if let Some(count) = counts.get_mut(peer) {
        *count -= 1;
        if *count == 0 {
            counts.remove(peer);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
