//! One trim at a time, in slices.
//!
//! Collect the candidates of one part after the other; select as many of the least valuable as are too many; close them,
//! looking once more whether anything spares them by now; wait until they are closed, or until the deadline. Each step
//! is short, so that the Swarm gets its turn between any two.
//!
//! Of many candidates the first are a sample, as chance has it where a peer's record lies: whoever is worth so much that
//! he will hardly have to go is then not remembered.

use super::book::{Book, SHARDS};
use super::order::{Entry, Key, Mode, Rules, Seen};
use super::record::Record;
use super::select::Selection;
use super::shard::Shard;
use super::time::{Stamp, nanos};
use crate::config::{Config, TrimTarget};
use crate::event::{Reason, Skipped, Trimmed};
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use smallvec::SmallVec;
use std::hint::black_box;
use std::time::Duration;

/// Work in one step, each some tenths of a millisecond: records looked at, entries moved, entries whose memory is given back.
const COLLECT: usize = 2_048;
const SELECT: usize = 16_384;
const SHED: usize = 65_536;
/// Candidates that make a sample.
const SAMPLE: usize = 16_384;
/// Closes in a row.
const CLOSE: usize = 32;

const NEVER: Stamp = Stamp(u64::MAX);

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is to be done, until [`Trimmer::next_timeout`].
    Idle,
    /// There is more to be done: come back after the others had their turn.
    More,
    /// All connections of the peer are to be closed.
    Close {
        peer: PeerId,
        connections: SmallVec<[ConnectionId; 2]>,
        reason: Reason,
    },
    Finished {
        reason: Reason,
        trimmed: Trimmed,
    },
    Skipped {
        reason: Reason,
        skipped: Skipped,
    },
}

#[derive(Debug)]
pub(crate) struct Trimmer {
    low: usize,
    high: usize,
    target: TrimTarget,
    silence: Duration,
    close_deadline: Duration,
    /// Boxed, as each step takes it out and puts it back.
    run: Option<Box<Run>>,
    runs: u32,
    /// When to look whether there are too many connections.
    tick: Option<Stamp>,
    /// When there may be more candidates than the last trim found, which were too few. See
    /// [`Self::expect`].
    fruitless_until: Stamp,
    /// The earliest candidate to come that was told of while the present trim ran: it may have
    /// passed that peer already.
    expected: Stamp,
    stopped: bool,
}

#[derive(Debug)]
struct Run {
    id: u32,
    reason: Reason,
    phase: Phase,
    /// Candidates, and their connections.
    entries: Vec<Entry>,
    weight: usize,
    /// Not those that are not smaller.
    below: Option<Key>,
    /// No sample was taken, and one may be.
    samples: bool,
    seen: Seen,
    outstanding: usize,
    trimmed: Trimmed,
    /// Why nothing is to be closed, once that is known.
    skipped: Option<Skipped>,
}

#[derive(Debug)]
enum Phase {
    Begin,
    Collect { shard: usize },
    Narrow { selection: Selection, shard: usize },
    Select(Selection),
    Close { at: usize, until: usize, row: usize },
    Shed,
    Settle { deadline: Stamp },
}

impl Run {
    fn forced(&self) -> bool {
        self.reason == Reason::Pressure
    }
}

impl Trimmer {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            low: config.low,
            high: config.high,
            target: config.target,
            silence: config.silence,
            close_deadline: config.close_deadline,
            run: None,
            runs: 0,
            tick: None,
            fruitless_until: Stamp(0),
            expected: NEVER,
            stopped: !config.trims(),
        }
    }

    /// No background trim begins from here on.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.tick = None;
    }

    /// What runs.
    pub(crate) fn running(&self) -> Option<Reason> {
        self.run.as_ref().map(|run| run.reason)
    }

    /// False if one runs already.
    pub(crate) fn start(&mut self, reason: Reason) -> bool {
        if self.run.is_some() {
            return false;
        }
        self.expected = NEVER;
        // 0 means "not closing", and the highest is an eviction's.
        self.runs = if self.runs >= u32::MAX - 1 { 1 } else { self.runs + 1 };
        self.run = Some(Box::new(Run {
            id: self.runs,
            reason,
            phase: Phase::Begin,
            entries: Vec::new(),
            weight: 0,
            below: None,
            samples: true,
            seen: Seen::default(),
            outstanding: 0,
            trimmed: Trimmed::default(),
            skipped: None,
        }));
        true
    }

    /// Sets the next look, unless an earlier one is set. Looks fall on multiples of the silence
    /// period.
    fn arm(&mut self, open: usize, now: Stamp) {
        if self.stopped || self.run.is_some() || open < self.high {
            return;
        }
        let silence = nanos(self.silence).max(1);
        let from = now.max(self.fruitless_until);
        // The first tick after now, or the first that may find somebody.
        let next = (now.0 / silence).saturating_add(1).max(from.0.div_ceil(silence));
        let next = Stamp(next.saturating_mul(silence));
        // A tick that is due already must not be put off, or churn would put it off for ever.
        self.tick = Some(self.tick.map_or(next, |tick| tick.min(next)));
    }

    /// To be called when a connection has been established, and whenever a peer becomes a candidate
    /// other than by the end of a grace that a trim has seen: `at` the end of its grace, or now.
    /// Without it the background would not look again after a trim that found too few candidates.
    pub(crate) fn expect(&mut self, at: Stamp, open: usize, now: Stamp) {
        self.expected = self.expected.min(at);
        self.fruitless_until = self.fruitless_until.min(at);
        self.arm(open, now);
    }

    pub(crate) fn next_timeout(&self) -> Option<Stamp> {
        match self.run.as_deref() {
            Some(Run {
                phase: Phase::Settle { deadline },
                ..
            }) => Some(*deadline),
            Some(_) => None,
            None => self.tick,
        }
    }

    /// A connection that a trim was closing is closed.
    pub(crate) fn on_closed(&mut self, closing: u32) {
        if let Some(run) = &mut self.run
            && run.id == closing
        {
            run.outstanding = run.outstanding.saturating_sub(1);
            run.trimmed.closed += 1;
        }
    }

    pub(crate) fn step(&mut self, rules: &mut Rules<'_>) -> Step {
        if self.run.is_none() {
            match self.tick {
                Some(tick) if tick <= rules.now => self.tick = None,
                _ => return Step::Idle,
            }
            if rules.book.open() < self.high {
                return Step::Idle;
            }
            self.start(Reason::HighWatermark);
        }
        let Some(mut run) = self.run.take() else {
            return Step::Idle;
        };
        rules.mode = if run.forced() { Mode::Forced } else { Mode::Normal };
        let step = self.advance(&mut run, rules);
        if matches!(step, Step::Finished { .. } | Step::Skipped { .. }) {
            if step
                == (Step::Skipped {
                    reason: run.reason,
                    skipped: Skipped::TooFewCandidates,
                })
                && !run.forced()
            {
                self.fruitless_until = run.seen.grace_ends.unwrap_or(NEVER).min(self.expected);
            }
            // What was due meanwhile is left out: looks fall on multiples of the silence period,
            // and never follow a trim at once.
            self.tick = self.tick.filter(|tick| *tick > rules.now);
            self.arm(rules.book.open(), rules.now);
        } else {
            self.run = Some(run);
        }
        step
    }

    fn advance(&self, run: &mut Run, rules: &Rules<'_>) -> Step {
        let reason = run.reason;
        let skip = |skipped| Step::Skipped { reason, skipped };
        loop {
            match &mut run.phase {
                Phase::Begin => {
                    if self.low == 0 {
                        return skip(Skipped::Disabled);
                    }
                    let open = rules.book.open();
                    if open <= self.low {
                        return skip(Skipped::AtLowWatermark);
                    }
                    // Room for all at once: growing would copy the whole of it in one step.
                    run.entries.reserve_exact(open);
                    run.phase = Phase::Collect { shard: 0 };
                }
                Phase::Collect { shard } => {
                    let begin = run.seen.records;
                    while *shard < SHARDS && run.seen.records - begin < COLLECT {
                        let known = run.entries.len();
                        rules.collect(*shard, run.below.as_ref(), &mut run.entries, &mut run.seen);
                        run.weight += connections(&run.entries[known..]);
                        *shard += 1;
                    }
                    let open = rules.book.open();
                    if *shard < SHARDS {
                        if run.samples && run.entries.len() >= SAMPLE {
                            run.samples = false;
                            let need = share(open.saturating_sub(self.low), *shard);
                            // Of most of them there would be nothing to gain.
                            if need < run.weight / 4 * 3 {
                                run.phase = Phase::Narrow {
                                    selection: Selection::new(&run.entries, need, run.weight),
                                    shard: *shard,
                                };
                            }
                        }
                        return Step::More;
                    }
                    let excess = self.excess(open, run.seen.connections, run.reason);
                    if excess > run.weight && run.below.is_some() {
                        // Chance, or much has changed since: once more, with everybody.
                        run.entries.clear();
                        run.weight = 0;
                        run.below = None;
                        run.seen = Seen::default();
                        run.phase = Phase::Collect { shard: 0 };
                        return Step::More;
                    }
                    if excess == 0 {
                        let at_low = open <= self.low;
                        run.skipped = Some(if at_low {
                            Skipped::AtLowWatermark
                        } else {
                            Skipped::TooFewCandidates
                        });
                        run.phase = Phase::Shed;
                        continue;
                    }
                    // Early tags come first in the order, and count for nothing: those past grace go now.
                    rules.book.common.sweep_early(rules.now);
                    run.phase = Phase::Select(Selection::new(&run.entries, excess, run.weight));
                }
                Phase::Narrow { selection, shard } => {
                    if let Some(until) = selection.step(&mut run.entries, SELECT) {
                        run.entries.truncate(until);
                        run.weight = selection.taken();
                        run.below = selection.below();
                        run.phase = Phase::Collect { shard: *shard };
                    }
                    return Step::More;
                }
                Phase::Select(selection) => match selection.step(&mut run.entries, SELECT) {
                    None => return Step::More,
                    Some(until) => {
                        run.phase = Phase::Close { at: 0, until, row: 0 };
                        return Step::More;
                    }
                },
                Phase::Close { at, until, row } => {
                    if at == until {
                        run.phase = Phase::Shed;
                        continue;
                    }
                    if *row == CLOSE {
                        *row = 0;
                        return Step::More;
                    }
                    if *row == 0 {
                        warm(rules.book, &run.entries[*at..(*until).min(*at + CLOSE)]);
                    }
                    let entry = run.entries[*at];
                    *at += 1;
                    *row += 1;
                    if let Some((peer, connections)) = mark(rules, &entry, run.id) {
                        run.outstanding += connections.len();
                        return Step::Close {
                            peer,
                            connections,
                            reason: run.reason,
                        };
                    }
                }
                Phase::Shed => {
                    // At once it would be milliseconds, of a million.
                    let left = run.entries.len().saturating_sub(SHED);
                    run.entries.truncate(left);
                    run.entries.shrink_to_fit();
                    if left > 0 {
                        return Step::More;
                    }
                    if let Some(skipped) = run.skipped {
                        return skip(skipped);
                    }
                    run.phase = Phase::Settle {
                        deadline: rules.now.after(self.close_deadline),
                    };
                }
                Phase::Settle { deadline } => {
                    if run.outstanding > 0 && rules.now < *deadline {
                        return Step::Idle;
                    }
                    run.trimmed.stuck = run.outstanding;
                    return Step::Finished {
                        reason: run.reason,
                        trimmed: run.trimmed,
                    };
                }
            }
        }
    }

    fn excess(&self, open: usize, candidates: usize, reason: Reason) -> usize {
        excess(self.low, self.target, open, candidates, reason)
    }
}

/// How many connections of the first so many parts may be among the `most` that have to go of all parts: an eighth more than their share,
/// and more of a small one.
fn share(most: usize, parts: usize) -> usize {
    let share = most / SHARDS * parts + most % SHARDS * parts / SHARDS;
    // Four standard deviations of what chance does to the share, at most.
    share + share / 8 + 4 * share.isqrt() + 16
}

fn connections(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.connections as usize).sum()
}

/// How many connections of candidates are too many.
pub(crate) fn excess(low: usize, target: TrimTarget, open: usize, candidates: usize, reason: Reason) -> usize {
    if low == 0 || open <= low {
        return 0;
    }
    match target {
        TrimTarget::Eligible if reason != Reason::Pressure => candidates.saturating_sub(low),
        _ => (open - low).min(candidates),
    }
}

/// Reads a little of each record that is about to be marked: the processor fetches these from main memory together, where one by one
/// each would be waited for.
fn warm(book: &Book, entries: &[Entry]) {
    let mut read = 0;
    for these in entries.chunk_by(|one, next| Book::shard_of(one.hash) == Book::shard_of(next.hash)) {
        let shard = book.lock(Book::shard_of(these[0].hash));
        for entry in these {
            read ^= shard.records.get(entry.slot as usize).map_or(0, Record::touch);
        }
    }
    black_box(read);
}

/// Marks the connections of a selected peer, unless something spares it by now.
pub(crate) fn mark(rules: &Rules<'_>, entry: &Entry, trim: u32) -> Option<(PeerId, SmallVec<[ConnectionId; 2]>)> {
    let mut shard = rules.book.lock(Book::shard_of(entry.hash));
    let slot = find(&shard, entry)?;
    let record = &mut shard.records[slot];
    if !rules.still(record) {
        return None;
    }
    let mut connections = SmallVec::new();
    rules.book.mark_closing(record, trim, |id| connections.push(id));
    (!connections.is_empty()).then_some((record.peer(), connections))
}

/// Where the record was, or wherever it is now.
pub(crate) fn find(shard: &Shard, entry: &Entry) -> Option<usize> {
    let is_it = |record: &Record| record.hash == entry.hash && entry.key.is_of(record);
    let slot = entry.slot as usize;
    if shard.records.get(slot).is_some_and(is_it) {
        return Some(slot);
    }
    shard.find_where(entry.hash, is_it)
}
