//! Where a peer can be found: what the application says, what has worked, and what is claimed.
//!
//! What has worked has places of its own, which nothing that is claimed can take. An address at
//! which another peer answered is left out for a while.

#[cfg(test)]
mod tests;

use super::super::knock::is_knock;
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_identity::PeerId;
use std::time::Duration;
use web_time::Instant;

/// Most claimed addresses of a peer: anything can be claimed.
pub(crate) const MAX_CLAIMED: usize = 8;

/// Addresses that have worked and were not given, at most.
pub(crate) const MAX_PROVEN: usize = 4;

/// What the Swarm dials at a time. It gives all addresses of a dial the same ten seconds, so a
/// ninth has none if eight are silent.
pub(crate) const AT_A_TIME: usize = 8;

/// Of addresses that have worked, how many are part of every dial, however often they have failed
/// since.
const ALWAYS: usize = 2;

/// How long an address is left out after the first time that another peer answered there; doubled
/// with each time.
const WRONG: Duration = Duration::from_secs(60);
const WRONG_AT_MOST: Duration = Duration::from_secs(3600);

/// The addresses of one peer.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    entries: Vec<Entry>,
    /// Counts what is given, claimed and works: the newest has the greatest.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    /// With the peer at its end.
    address: Multiaddr,
    given: bool,
    /// When it worked last.
    worked: Option<u64>,
    /// When it was given or claimed last.
    heard: u64,
    /// Dials that it was a part of in vain since it worked.
    failures: u32,
    wrong: Option<Wrong>,
}

/// Another peer answered there.
#[derive(Debug, Clone, Copy)]
struct Wrong {
    until: Instant,
    times: u32,
}

/// What a dial is to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The best first; eight at most.
    pub(crate) addresses: Vec<Multiaddr>,
    /// Whether the addresses that other behaviours know are tried as well.
    pub(crate) extend: bool,
}

/// What limits a [`Plan`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits<'a> {
    /// Knocks only, so nothing of what other behaviours know.
    pub(crate) knock_only: bool,
    /// The last dial reached another peer: nothing of what other behaviours know if there is
    /// anything else, and no claims if something was given or has worked.
    pub(crate) trusted_only: bool,
    /// Half of the places are for what other behaviours know.
    pub(crate) leave_room: bool,
    /// Where this Swarm listens, which is not dialled.
    pub(crate) own: &'a [Multiaddr],
}

impl Limits<'_> {
    fn allow(&self, address: &Multiaddr) -> bool {
        (!self.knock_only || is_knock(address)) && !self.own.iter().any(|own| is_at(address, own))
    }
}

impl Entry {
    fn is_trusted(&self) -> bool {
        self.given || self.worked.is_some()
    }

    fn is_claim(&self) -> bool {
        !self.is_trusted()
    }

    fn is_usable(&self, now: Instant) -> bool {
        self.wrong.is_none_or(|wrong| wrong.until <= now)
    }
}

impl Addresses {
    /// Replaces what was given before.
    pub(crate) fn give(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let before = std::mem::take(&mut self.entries);
        for address in addresses.into_iter().filter_map(|address| with_peer(address, peer)) {
            if self.find(&address).is_none() {
                self.insert(address, true);
            }
        }
        // What is known of an address stays known; what was given and is not any more has to have
        // worked.
        for mut entry in before {
            let known = !std::mem::take(&mut entry.given) || entry.worked.is_some();
            match self.find(&entry.address) {
                Some(new) => (new.worked, new.wrong) = (entry.worked, entry.wrong),
                None if known => self.entries.push(entry),
                None => {}
            }
        }
        self.bound();
    }

    /// It is claimed that the peer can be found there. What leads through a relay is not
    /// remembered: it is the relay's to forward, for as long as that reservation lasts.
    pub(crate) fn claimed(&mut self, peer: PeerId, address: Multiaddr) {
        let Some(address) = with_peer(address, peer).filter(is_direct) else {
            return;
        };
        self.clock += 1;
        let clock = self.clock;
        match self.find(&address) {
            Some(entry) => entry.heard = clock,
            None => self.insert(address, false),
        }
        self.bound();
    }

    /// A dial of it has reached the peer.
    pub(crate) fn worked(&mut self, peer: PeerId, address: Multiaddr) {
        let Some(address) = with_peer(address, peer).filter(is_direct) else {
            return;
        };
        self.clock += 1;
        let clock = self.clock;
        if self.find(&address).is_none() {
            self.insert(address.clone(), false);
        }
        if let Some(entry) = self.find(&address) {
            (entry.worked, entry.failures, entry.wrong) = (Some(clock), 0, None);
        }
        self.bound();
    }

    /// A dial of it was in vain.
    pub(crate) fn failed(&mut self, peer: PeerId, address: &Multiaddr) {
        if let Some(entry) = with_peer(address.clone(), peer).and_then(|address| self.find(&address)) {
            entry.failures = entry.failures.saturating_add(1);
        }
    }

    /// Another peer answered there.
    pub(crate) fn wrong(&mut self, peer: PeerId, address: &Multiaddr, now: Instant) {
        if let Some(entry) = with_peer(address.clone(), peer).and_then(|address| self.find(&address)) {
            let times = entry.wrong.map_or(0, |wrong| wrong.times);
            let pause = WRONG.saturating_mul(1 << times.min(16)).min(WRONG_AT_MOST);
            entry.failures = entry.failures.saturating_add(1);
            entry.wrong = Some(Wrong {
                until: now + pause,
                times: times.saturating_add(1),
            });
        }
    }

    /// What the next dial tries. What does not fit into one has its turn in another: the fewer
    /// dials an address was part of in vain, the earlier it comes.
    pub(crate) fn plan(&self, limits: Limits<'_>, now: Instant) -> Plan {
        let ranked = self.ranked(limits, now);
        let has_turn = limits.knock_only || !limits.leave_room;
        if ranked.is_empty()
            && has_turn
            && let Some(last) = self.last_resort(limits)
        {
            return Plan {
                addresses: vec![last.address.clone()],
                extend: false,
            };
        }
        let alone = limits.trusted_only && !ranked.is_empty();
        let trusted_only = alone && ranked.iter().any(|entry| entry.is_trusted());
        let extend = !limits.knock_only && !alone;
        let most = if limits.leave_room && extend {
            AT_A_TIME / 2
        } else {
            AT_A_TIME
        };
        let addresses = ranked.iter().filter(|entry| !trusted_only || entry.is_trusted());
        Plan {
            addresses: addresses.take(most).map(|entry| entry.address.clone()).collect(),
            extend,
        }
    }

    /// For the dials of others: as many as fit into one.
    pub(crate) fn best(&self, knock_only: bool, own: &[Multiaddr], now: Instant) -> Vec<Multiaddr> {
        let limits = Limits {
            knock_only,
            own,
            ..Limits::default()
        };
        let ranked = self.ranked(limits, now);
        let best = ranked.into_iter().take(AT_A_TIME);
        best.map(|entry| entry.address.clone()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What may be dialled now, the best first.
    fn ranked(&self, limits: Limits<'_>, now: Instant) -> Vec<&Entry> {
        let usable = |entry: &&Entry| entry.is_usable(now) && limits.allow(&entry.address);
        let mut ranked: Vec<&Entry> = self.entries.iter().filter(usable).collect();
        // What was given keeps its order, as the sort does.
        ranked.sort_by_key(|entry| {
            let newest = entry.worked.map_or(0, |worked| u64::MAX - worked);
            let claim = if entry.is_claim() { u64::MAX - entry.heard } else { 0 };
            (entry.failures, entry.worked.is_none(), newest, entry.is_claim(), claim)
        });
        let mut proven: Vec<&Entry> = ranked.iter().copied().filter(|entry| entry.worked.is_some()).collect();
        proven.sort_by_key(|entry| std::cmp::Reverse(entry.worked));
        proven.truncate(ALWAYS);
        ranked.retain(|entry| !proven.iter().any(|first| first.address == entry.address));
        proven.into_iter().chain(ranked).collect()
    }

    /// The address that comes back first, for where all are left out: the peer may be there again.
    /// It is dialled alone, as another peer may answer faster at any other address.
    fn last_resort(&self, limits: Limits<'_>) -> Option<&Entry> {
        let left_out = self.entries.iter().filter(|entry| limits.allow(&entry.address));
        let until = |entry: &&Entry| entry.wrong.map(|wrong| wrong.until);
        left_out.filter(|entry| entry.wrong.is_some()).min_by_key(until)
    }

    fn find(&mut self, address: &Multiaddr) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.address == *address)
    }

    fn insert(&mut self, address: Multiaddr, given: bool) {
        self.clock += 1;
        self.entries.push(Entry {
            address,
            given,
            worked: None,
            heard: self.clock,
            failures: 0,
            wrong: None,
        });
    }

    /// Forgets what there is no place for: that which worked longest ago is a claim like others,
    /// and the oldest claim goes.
    fn bound(&mut self) {
        let proven = |entry: &Entry| if entry.given { None } else { entry.worked };
        while self.entries.iter().filter(|entry| proven(entry).is_some()).count() > MAX_PROVEN {
            let oldest = self.entries.iter().filter_map(proven).min();
            for entry in &mut self.entries {
                if proven(entry) == oldest {
                    entry.worked = None;
                }
            }
        }
        while self.entries.iter().filter(|entry| entry.is_claim()).count() > MAX_CLAIMED {
            let claims = self.entries.iter().enumerate().filter(|(_, entry)| entry.is_claim());
            let Some((oldest, _)) = claims.min_by_key(|(_, entry)| entry.heard) else {
                return;
            };
            self.entries.remove(oldest);
        }
    }
}

/// The form in which other behaviours have it too: the Swarm removes what is equal before it
/// appends the peer itself. `None` for an address that is another peer's, or no place at all.
fn with_peer(address: Multiaddr, peer: PeerId) -> Option<Multiaddr> {
    let address = address.with_p2p(peer).ok()?;
    (address.len() > Multiaddr::from(Protocol::P2p(peer)).len()).then_some(address)
}

fn is_direct(address: &Multiaddr) -> bool {
    !address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether `address`, which has a peer at its end, is `own` but for that. The Swarm leaves out its
/// own addresses too, and does not know them by that form.
fn is_at(address: &Multiaddr, own: &Multiaddr) -> bool {
    is_direct(own) && address.starts_with(own) && address.iter().count() == own.iter().count() + 1
}
