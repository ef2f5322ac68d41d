//! Who goes first.

use super::book::Book;
use super::dials::Dials;
use super::record::{Record, State};
use super::shard::Shard;
use super::time::Stamp;
use super::trim::find;
use crate::config::Order;
use crate::info::{Candidate, Class};
use crate::user_code::{Hook, HookPanics, once};
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::cmp::Reverse;
use std::sync::Arc;

/// A peer's place in the order: the smallest goes first. Total, as no two peers share a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Protected or in use. Only a forced trim has such candidates.
    pub(crate) kept: bool,
    /// The value, or the first half of the rank of an order of the user's.
    worth: u64,
    /// Streams and direction, or the second half.
    using: u64,
    /// The last activity; the highest where it is not known.
    active: u64,
    /// The younger, the smaller.
    age: u64,
    /// Its latest connection; the later, the smaller.
    latest: Reverse<ConnectionId>,
}

/// A peer that may be closed, and where to find it again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) hash: u64,
    /// Where the record was; it may have moved.
    pub(crate) slot: u32,
    pub(crate) connections: u32,
}

const STREAMS: u64 = 1 << 63;
const DIALLED: u64 = 1 << 62;

impl Key {
    /// What counts between a newcomer and whoever would have to go for him.
    pub(crate) fn merit(&self, own_order: bool) -> (bool, u64, u64) {
        let using = if own_order { self.using } else { self.using & DIALLED };
        (self.kept, self.worth, using)
    }

    /// A newcomer's.
    pub(crate) fn newcomer(kept: bool, value: i64, outbound: bool) -> Self {
        Self {
            kept,
            worth: ordered(value),
            using: if outbound { DIALLED } else { 0 },
            active: u64::MAX,
            age: 0,
            latest: Reverse(ConnectionId::new_unchecked(0)),
        }
    }

    /// Whether whoever has this value comes later, whatever else he has. Not in an order of the user's.
    fn is_outdone_by(&self, value: i64) -> bool {
        !self.kept && self.worth < ordered(value)
    }

    pub(crate) fn with_rank(mut self, (first, second): (i64, i64)) -> Self {
        self.worth = ordered(first);
        self.using = ordered(second);
        self
    }

    fn new(book: &Book, record: &Record, value: i64, most_streams_first: bool) -> (Self, u32) {
        let (mut connections, mut streams) = (0_u32, 0_u64);
        let (mut inbound, mut active, mut latest) = (false, None, None);
        for conn in record.open() {
            connections += 1;
            latest = latest.max(Some(conn.id));
            inbound |= !conn.outbound;
            match &conn.activity {
                Some(activity) => {
                    streams += u64::from(activity.streams());
                    active = active.max(Some(book.clock.stamp(activity.last()).0));
                }
                None => active = Some(u64::MAX),
            }
        }
        // What is not counted is taken for in use: at least one stream, and active.
        if active == Some(u64::MAX) {
            streams = streams.max(1);
        }
        let streams = streams.min(u64::from(u32::MAX));
        let mut using = if most_streams_first {
            u64::from(u32::MAX) - streams
        } else {
            streams
        };
        if streams > 0 {
            using |= STREAMS;
        }
        if !inbound {
            using |= DIALLED;
        }
        let key = Self {
            kept: record.is_kept(),
            worth: ordered(value),
            using,
            active: active.unwrap_or(0),
            age: u64::MAX - record.first_seen.0,
            latest: Reverse(latest.unwrap_or_else(|| ConnectionId::new_unchecked(0))),
        };
        (key, connections)
    }

    /// Whether the key was made from this record.
    pub(crate) fn is_of(&self, record: &Record) -> bool {
        record.conns.iter().any(|conn| conn.id == self.latest.0)
    }
}

/// The same order without a sign.
fn ordered(value: i64) -> u64 {
    value.cast_unsigned() ^ (1 << 63)
}

/// Who is a candidate, and how candidates are ordered.
pub(crate) struct Rules<'a> {
    pub(crate) book: &'a Book,
    pub(crate) dials: &'a Dials,
    pub(crate) order: Option<&'a Order>,
    pub(crate) mode: Mode,
    pub(crate) now: Stamp,
}

/// What spares a peer, and what does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Protection, use, a dial in flight, and grace.
    Normal,
    /// Grace does not: somebody else wants the place.
    Evict,
    /// Nothing in the end: memory is short. Who is protected comes last, and more streams go before fewer.
    Forced,
}

/// What was seen beside candidates.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) records: usize,
    /// Connections of candidates.
    pub(crate) connections: usize,
    /// When the next peer's grace ends.
    pub(crate) grace_ends: Option<Stamp>,
}

impl Rules<'_> {
    /// Appends the candidates of one part; of those that are not smaller than `below`, only their connections are counted.
    pub(crate) fn collect(&self, at: usize, below: Option<&Key>, out: &mut Vec<Entry>, seen: &mut Seen) {
        let mut late = Vec::new();
        let mut ranked = Vec::new();
        {
            let shard = &mut *self.book.lock(at);
            shard.sweep(&self.book.common, self.now);
            seen.records += shard.records.len();
            for slot in 0..shard.records.len() {
                let record = &shard.records[slot];
                if record.decaying().iter().any(|tag| tag.is_due(self.now)) {
                    late.push(record.peer());
                } else {
                    self.consider(shard, slot, below, out, &mut ranked, seen);
                }
            }
        }
        // A closure of the user's decays these, so the lock has to be given up.
        for peer in late {
            self.book.settle(&peer, self.now);
            let shard = &mut *self.book.lock(at);
            if let Some(slot) = shard.find(self.book.hash(&peer), &peer) {
                self.consider(shard, slot, below, out, &mut ranked, seen);
            }
        }
        if let Some(order) = self.order {
            let ranked = ranked.into_iter().map(|(candidate, entry)| Entry {
                key: entry.key.with_rank(rank(order, &candidate, &self.book.panics)),
                ..entry
            });
            out.extend(ranked.filter(|entry| below.is_none_or(|below| entry.key < *below)));
        }
    }

    fn consider(
        &self,
        shard: &mut Shard,
        slot: usize,
        below: Option<&Key>,
        out: &mut Vec<Entry>,
        ranked: &mut Vec<(Candidate, Entry)>,
        seen: &mut Seen,
    ) {
        let record = &mut shard.records[slot];
        if record.state() != State::Connected {
            return;
        }
        if !self.still(record) {
            return;
        }
        if self.mode == Mode::Normal && !self.book.is_past_grace(record, self.now) {
            let ends = record.first_seen.after(self.book.common.grace);
            seen.grace_ends = Some(seen.grace_ends.map_or(ends, |known| known.min(ends)));
            return;
        }
        let value = record.value(self.now);
        if self.order.is_none() && below.is_some_and(|below| below.is_outdone_by(value)) {
            seen.connections += record.open().count();
            return;
        }
        let (mut key, connections) = Key::new(self.book, record, value, self.mode == Mode::Forced);
        if connections == 0 {
            return;
        }
        // A dial in flight is spared for as long as there is anybody else.
        key.kept |= self.is_dialled(record);
        seen.connections += connections as usize;
        #[allow(clippy::cast_possible_truncation, reason = "a shard's index is no larger")]
        let slot = slot as u32;
        let entry = Entry {
            key,
            hash: record.hash,
            slot,
            connections,
        };
        if self.order.is_some() {
            ranked.push((view(self.book, record, value, self.now), entry));
        } else if below.is_none_or(|below| entry.key < *below) {
            out.push(entry);
        }
    }

    /// A peer's entry as it would be now; nothing if it is no candidate any more.
    pub(crate) fn again(&self, entry: &Entry) -> Option<Entry> {
        let (mut out, mut ranked, mut seen) = (Vec::new(), Vec::new(), Seen::default());
        {
            let shard = &mut *self.book.lock(Book::shard_of(entry.hash));
            let slot = find(shard, entry)?;
            self.consider(shard, slot, None, &mut out, &mut ranked, &mut seen);
        }
        if let Some((order, (candidate, entry))) = self.order.zip(ranked.pop()) {
            let key = entry.key.with_rank(rank(order, &candidate, &self.book.panics));
            return Some(Entry { key, ..entry });
        }
        out.pop()
    }

    fn is_dialled(&self, record: &Record) -> bool {
        self.dials.any() && self.dials.contains(&record.peer())
    }

    /// Whether nothing but grace spares the peer.
    pub(crate) fn still(&self, record: &Record) -> bool {
        self.mode == Mode::Forced || (!record.is_kept() && !self.is_dialled(record))
    }
}

/// What a peer counts as.
pub(crate) fn class(book: &Book, record: &Record, now: Stamp) -> Class {
    if record.is_kept() {
        Class::Protected
    } else if !book.is_past_grace(record, now) {
        Class::InGrace
    } else if record.tag_count() > 0 {
        Class::Tagged
    } else {
        Class::Plain
    }
}

/// A closure that panics ranks the peer in the middle, and so does one that asks for an explanation
/// from within.
pub(crate) fn rank(order: &Order, candidate: &Candidate, panics: &HookPanics) -> (i64, i64) {
    let call = (Arc::as_ptr(order).addr(), 0);
    let ranked = once(call, || panics.call(Hook::Order, || order(candidate)));
    ranked.flatten().unwrap_or((0, 0))
}

/// The peer as an order of the user's sees it.
fn view(book: &Book, record: &Record, value: i64, now: Stamp) -> Candidate {
    let conns = || record.open();
    let counted = conns().all(|conn| conn.activity.is_some());
    Candidate {
        peer: record.peer(),
        value,
        age: now.since(record.first_seen),
        connections: conns().count(),
        inbound: conns().filter(|conn| !conn.outbound).count(),
        relayed: conns().filter(|conn| conn.relayed).count(),
        streams: counted.then(|| record.streams()),
        idle: conns()
            .filter_map(|conn| conn.activity.as_ref())
            .map(|activity| now.since(book.clock.stamp(activity.last())))
            .min()
            .filter(|_| counted),
    }
}

/// A newcomer as an order of the user's sees it.
pub(crate) fn view_newcomer(peer: PeerId, value: i64, outbound: bool, relayed: bool) -> Candidate {
    Candidate {
        peer,
        value,
        age: std::time::Duration::ZERO,
        connections: 1,
        inbound: usize::from(!outbound),
        relayed: usize::from(relayed),
        streams: None,
        idle: None,
    }
}

#[cfg(test)]
impl Key {
    pub(crate) fn for_test(value: i64, connection: usize) -> Self {
        Self {
            latest: Reverse(ConnectionId::new_unchecked(connection)),
            ..Self::newcomer(false, value, false)
        }
    }
}
