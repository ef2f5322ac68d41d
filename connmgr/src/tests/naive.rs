//! A connection manager as naive as can be: one list, searched from end to end, tags that tick
//! whenever they are due, and a sort. It plays this crate's manager, or go-libp2p's: where the two
//! differ, [`Ways`] has a switch.
//!
//! It needs nothing but the standard library, so that the program that runs beside the real
//! go-libp2p includes it too (`interop/tests/connmgr_beside_go`).

#[path = "naive/connections.rs"]
mod connections;
#[path = "naive/follow.rs"]
mod follow;
#[path = "naive/records.rs"]
mod records;
#[path = "naive/trims.rs"]
mod trims;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A peer's number.
pub(crate) type Peer = usize;

/// Microseconds since the manager was made.
pub(crate) type Time = u64;
pub(crate) const SECOND: Time = 1_000_000;
/// The real manager takes a tag that is set in the instant of a trim, without grace, for a
/// nanosecond younger.
const MOMENT: Time = 1;

/// Names of plain tags. One is a decaying tag's as well.
pub(crate) const TAGS: [&str; 4] = ["a", "b", "a tag whose name is longer than fits inline", "fixed"];
/// The first loses 3 every 7 s, the second half of what it has every 10 s. Bumps of the first add,
/// of the second overwrite.
pub(crate) const DECAYING: [&str; 2] = ["fixed", "linear"];
pub(crate) const INTERVALS: [Time; 2] = [7 * SECOND, 10 * SECOND];

/// What is done to a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Tag(Peer, usize, i64),
    Untag(Peer, usize),
    Upsert(Peer, usize, i64),
    Protect(Peer, usize),
    Unprotect(Peer, usize),
    Guard(Peer),
    Unguard(Peer),
    Bump(Peer, usize, i64),
    Remove(Peer, usize),
    /// Closes a decaying tag and registers it again.
    Reset(usize),
    Connect(Peer, Link),
    /// The oldest connection, if the peer has any.
    Disconnect(Peer),
    BeginDial(Peer),
    EndDial(Peer),
    /// Lets so many connections that were told to close be closed: those that were made first.
    Release(usize),
    Trim,
    ForceTrim,
    /// Second by second.
    Wait(u64),
    /// Seconds at once: the machine was asleep.
    Jump(u64),
    /// The clock is put back by so many seconds.
    Back(u64),
    Close,
}

/// A connection as it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) dialled: bool,
    /// Open streams, if they are counted.
    pub(crate) streams: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) grace: Time,
    pub(crate) silence: Time,
    pub(crate) close_deadline: Time,
    pub(crate) early_for: Time,
    pub(crate) retention: Option<Time>,
    pub(crate) total: bool,
    pub(crate) hard_limit: Option<usize>,
    /// Whether connections that are told to close wait for a release.
    pub(crate) slow: bool,
    /// The grid on which decaying tags tick.
    pub(crate) resolution: Time,
    pub(crate) ways: Ways,
}

/// Where go-libp2p's manager goes other ways than this one. Each has a line in the README.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ways {
    /// D1: an emergency trim may stop half-way, and selects peers twice.
    pub(crate) emergency_half_way: bool,
    /// D2, D3: what is closing counts as open and is selected again; trims wait for nothing.
    pub(crate) closing_counts: bool,
    /// D2: only trims that were asked for are recorded.
    pub(crate) background_unrecorded: bool,
    /// D4, D6: a peer is forgotten with its last connection, and is new when it returns.
    pub(crate) forgets_the_gone: bool,
    /// D5: early tags stay until a trim comes by; an emergency trim does not.
    pub(crate) early_tags_stay: bool,
    /// D5: protection has no effect on the age of early tags.
    pub(crate) early_tags_age_protected: bool,
    /// D12: a decaying tag hides the plain one of its name, and addresses are listed, not
    /// connections.
    pub(crate) info_collapses: bool,
    /// A tag that is removed leaves an early record behind, and so does the removal of a decaying
    /// tag that never was.
    pub(crate) empty_records: bool,
    /// A dial in flight spares no peer.
    pub(crate) dials_do_not_spare: bool,
    /// After a close, everything goes on but what runs in the background.
    pub(crate) close_ends_the_background_only: bool,
    /// Peers that are equal go in any order.
    pub(crate) any_order_of_equals: bool,
}

impl Ways {
    #[allow(
        dead_code,
        reason = "of two programs that include this file, one has no go-libp2p beside it"
    )]
    pub(crate) const GO: Self = Self {
        emergency_half_way: true,
        closing_counts: true,
        background_unrecorded: true,
        forgets_the_gone: true,
        early_tags_stay: true,
        early_tags_age_protected: true,
        info_collapses: true,
        empty_records: true,
        dials_do_not_spare: true,
        close_ends_the_background_only: true,
        any_order_of_equals: true,
    };
}

/// Why a trim runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    HighWatermark,
    OnDemand,
    Pressure,
    HardLimit,
}

/// One peer. What protects it is elsewhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) first_seen: Time,
    /// When the last connection closed.
    pub(crate) left: Option<Time>,
    pub(crate) tags: BTreeMap<usize, i64>,
    pub(crate) decaying: BTreeMap<usize, i64>,
    pub(crate) conns: Vec<Conn>,
    pub(crate) absent: Absent,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Conn {
    pub(crate) serial: usize,
    pub(crate) link: Link,
    opened: Time,
    /// The run that closes it; 0 for none.
    pub(crate) closing: u32,
}

/// Since when a peer without connections is only remembered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Absent {
    #[default]
    No,
    Early(Time),
    Gone(Time),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) protections: BTreeSet<usize>,
    pub(crate) guards: usize,
}

impl Kept {
    fn is_empty(&self) -> bool {
        self.protections.is_empty() && self.guards == 0
    }
}

impl Known {
    pub(crate) fn value(&self) -> i64 {
        let tags = self.tags.values().chain(self.decaying.values());
        let sum: i128 = tags.map(|value| i128::from(*value)).sum();
        i64::try_from(sum.clamp(i64::MIN.into(), i64::MAX.into())).unwrap()
    }

    pub(crate) fn tagged(&self) -> bool {
        !self.tags.is_empty() || !self.decaying.is_empty()
    }

    fn open(&self) -> impl Iterator<Item = &Conn> {
        self.conns.iter().filter(|conn| conn.closing == 0)
    }
}

/// A trim that waits for what it closes.
#[derive(Debug, Clone)]
struct Run {
    id: u32,
    forced: bool,
    outstanding: usize,
    closed: usize,
    deadline: Time,
}

/// What a trim closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub(crate) at: Time,
    pub(crate) peers: Vec<Peer>,
    pub(crate) reason: Reason,
}

pub(crate) struct Naive {
    pub(crate) setting: Setting,
    pub(crate) now: Time,
    /// What the clock has been put back by and not made up for.
    behind: Time,
    pub(crate) peers: BTreeMap<Peer, Known>,
    pub(crate) kept: BTreeMap<Peer, Kept>,
    idle_guards: BTreeMap<Peer, usize>,
    dials: BTreeMap<Peer, usize>,
    /// When each decaying tag ticks next.
    due: [Time; 2],
    serial: usize,
    run: Option<Run>,
    runs: u32,
    tick: Option<Time>,
    pub(crate) closed: bool,
    /// Outcomes of trims that were asked for, closed and stuck, once they are over.
    pub(crate) asked: Vec<Option<(usize, usize)>>,
    waiting: Vec<usize>,
    forced: Vec<usize>,
    /// Told to close, and not closed yet.
    told: Vec<(Peer, usize)>,
    /// What trims have closed since it was last taken.
    pub(crate) trims: Vec<Trimmed>,
    pub(crate) last_trim: Option<Time>,
    /// What the real manager's trims have closed, for a model that follows it where equals may go
    /// in any order.
    pub(crate) observed: VecDeque<Trimmed>,
}

/// What the real manager did that a model does not allow.
pub(crate) type Refuted = String;

impl Naive {
    pub(crate) fn new(setting: Setting) -> Self {
        Self {
            setting,
            now: 0,
            behind: 0,
            peers: BTreeMap::new(),
            kept: BTreeMap::new(),
            idle_guards: BTreeMap::new(),
            dials: BTreeMap::new(),
            due: INTERVALS,
            serial: 0,
            run: None,
            runs: 0,
            tick: None,
            closed: false,
            asked: Vec::new(),
            waiting: Vec::new(),
            forced: Vec::new(),
            told: Vec::new(),
            trims: Vec::new(),
            last_trim: None,
            observed: VecDeque::new(),
        }
    }

    fn ways(&self) -> Ways {
        self.setting.ways
    }

    /// Whether changes of tags and protection have any effect.
    pub(crate) fn is_over(&self) -> bool {
        self.closed && !self.ways().close_ends_the_background_only
    }

    /// Does it to the model, with what the real manager's trims have closed meanwhile in
    /// [`Self::observed`]. A new connection has that serial. What an unprotect returns, if it is
    /// one.
    pub(crate) fn apply(&mut self, serial: usize, op: Op) -> Result<Option<bool>, Refuted> {
        // The original bumps and removes in the background, which a close ends.
        let acts = !self.is_over();
        let decays = !self.closed;
        match op {
            Op::Tag(peer, tag, value) if acts => self.tag(peer, tag, value),
            Op::Untag(peer, tag) if acts => self.untag(peer, tag),
            Op::Upsert(peer, tag, by) if acts => self.upsert(peer, tag, by),
            Op::Protect(peer, tag) if acts => self.protect(peer, tag),
            Op::Unprotect(peer, tag) if acts => return Ok(Some(self.unprotect(peer, tag))),
            Op::Guard(peer) => self.guard(peer),
            Op::Unguard(peer) => self.unguard(peer),
            Op::Bump(peer, tag, by) if decays => self.bump(peer, tag, by),
            Op::Remove(peer, tag) if decays => self.remove(peer, tag),
            Op::Reset(tag) if decays => self.reset(tag),
            Op::Connect(peer, link) => drop(self.connect_as(peer, link, serial)),
            Op::Disconnect(peer) => self.disconnect(peer),
            Op::BeginDial(peer) => self.begin_dial(peer),
            Op::EndDial(peer) => self.end_dial(peer),
            Op::Release(connections) => self.let_close(connections)?,
            Op::Trim => self.trim(false)?,
            Op::ForceTrim => self.trim(true)?,
            Op::Wait(seconds) => {
                // Operations lie between the full seconds, on which everything ticks.
                for _ in 0..2 * seconds {
                    self.pass(SECOND / 2);
                    self.poll()?;
                }
            }
            Op::Jump(seconds) => self.pass(seconds * SECOND),
            Op::Back(seconds) => self.back(seconds),
            Op::Close => self.close(),
            Op::Tag(..)
            | Op::Untag(..)
            | Op::Upsert(..)
            | Op::Protect(..)
            | Op::Unprotect(..)
            | Op::Bump(..)
            | Op::Remove(..)
            | Op::Reset(..) => {}
        }
        self.poll()?;
        Ok(None)
    }

    // ---- time ----

    /// How long it takes until the next full second of the manager's time. Without grace it does
    /// not matter which.
    pub(crate) fn to_next_second(&self) -> Time {
        match self.behind {
            _ if self.setting.grace == 0 => SECOND + MOMENT,
            0 => SECOND - self.now % SECOND,
            behind => behind.min(SECOND),
        }
    }

    /// How long it takes until the background may look, after so many seconds at least.
    pub(crate) fn to_tick_after(&self, seconds: u64) -> Time {
        if self.setting.grace == 0 {
            return seconds * SECOND + MOMENT;
        }
        let silence = self.setting.silence;
        let until = (self.now + seconds * SECOND).div_ceil(silence) * silence;
        until - self.now + self.behind
    }

    pub(crate) fn back(&mut self, seconds: u64) {
        self.behind += seconds * SECOND;
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.tick = None;
        for asked in std::mem::take(&mut self.forced) {
            self.asked[asked] = Some((0, 0));
        }
    }

    /// Time goes on, and tags tick.
    pub(crate) fn pass(&mut self, time: Time) {
        let made_up = self.behind.min(time);
        self.behind -= made_up;
        let until = self.now + time - made_up;
        while !(self.closed && self.ways().close_ends_the_background_only) {
            let resolution = self.setting.resolution;
            let visits = self.due.map(|due| due.div_ceil(resolution) * resolution);
            let Some(visit) = visits.into_iter().min().filter(|visit| *visit <= until) else {
                break;
            };
            self.now = self.now.max(visit);
            self.expire();
            for (tag, at) in visits.into_iter().enumerate().filter(|(_, at)| *at == visit) {
                let _ = at;
                self.due[tag] += INTERVALS[tag].max(resolution);
                for known in self.peers.values_mut() {
                    let Some(value) = known.decaying.get_mut(&tag) else {
                        continue;
                    };
                    *value = decay(tag, *value);
                    if *value <= 0 {
                        known.decaying.remove(&tag);
                    }
                }
            }
        }
        self.now = until;
        self.expire();
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "values of the model are small"
)]
fn decay(tag: usize, value: i64) -> i64 {
    if tag == 0 {
        value.saturating_sub(3)
    } else {
        (value as f64 * 0.5).floor() as i64
    }
}
