//! Trims of the model: when, and which peers.

use super::{Absent, Known, Naive, Peer, Reason, Refuted, Run, SECOND, Setting, Time, Trimmed};
use std::cmp::Reverse;

/// A peer's place in the order: the smallest goes first. The last two decide among equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) spared: bool,
    pub(super) value: i64,
    pub(super) has_streams: bool,
    pub(super) dialled_only: bool,
    pub(super) streams: i64,
    pub(super) equals: Equals,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Equals {
    pub(super) active: Time,
    pub(super) young: Reverse<(Time, usize)>,
}

pub(super) const SAME: Equals = Equals {
    active: 0,
    young: Reverse((0, 0)),
};

/// A peer that may be trimmed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) peer: Peer,
    pub(super) key: Key,
    pub(super) weight: usize,
}

impl Naive {
    pub(super) fn key(&self, peer: Peer, known: &Known, forced: bool) -> Key {
        let conns: Vec<_> = known
            .conns
            .iter()
            .filter(|conn| self.ways().closing_counts || conn.closing == 0)
            .collect();
        let counted: i64 = conns.iter().filter_map(|conn| conn.link.streams).map(i64::from).sum();
        let all_counted = conns.iter().all(|conn| conn.link.streams.is_some());
        let streams = if all_counted { counted } else { counted.max(1) };
        // To the second.
        let active = conns.iter().map(|conn| conn.opened / SECOND).max().unwrap_or(0);
        Key {
            spared: self.spares(peer),
            value: known.value(),
            has_streams: streams > 0,
            dialled_only: conns.iter().all(|conn| conn.link.dialled),
            streams: if forced { -streams } else { streams },
            equals: Equals {
                active: if all_counted { active } else { Time::MAX },
                young: Reverse((
                    known.first_seen,
                    conns.iter().map(|conn| conn.serial).max().unwrap_or(0),
                )),
            },
        }
    }

    pub(super) fn candidates(&self, forced: bool) -> Vec<Candidate> {
        let grace = self.setting.grace;
        let mut all: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, known)| self.weight(known) > 0)
            .filter(|(peer, known)| forced || (!self.spares(**peer) && self.now >= known.first_seen + grace))
            .map(|(peer, known)| Candidate {
                peer: *peer,
                key: self.key(*peer, known, forced),
                weight: self.weight(known),
            })
            .collect();
        all.sort_unstable_by_key(|candidate| candidate.key);
        all
    }

    /// Sets the next look at the high watermark.
    pub(super) fn arm(&mut self) {
        let next = (self.now / self.setting.silence + 1) * self.setting.silence;
        if !self.closed && self.run.is_none() && self.tick.is_none() && self.open() >= self.setting.high {
            self.tick = Some(next);
        }
    }

    /// What is due: the end of a trim, and the next one.
    pub(crate) fn poll(&mut self) -> Result<(), Refuted> {
        loop {
            if let Some(run) = &self.run {
                if run.outstanding > 0 && self.now < run.deadline {
                    return Ok(());
                }
                let outcome = (run.closed, run.outstanding);
                self.run = None;
                self.end(outcome)?;
            } else if self.tick.is_some_and(|tick| tick <= self.now) {
                self.tick = None;
                if self.open() >= self.setting.high {
                    self.begin(Reason::HighWatermark)?;
                }
            } else {
                return Ok(());
            }
        }
    }

    /// A trim is over.
    pub(super) fn end(&mut self, outcome: (usize, usize)) -> Result<(), Refuted> {
        self.last_trim = Some(self.now);
        // What was due meanwhile is left out.
        self.tick = self.tick.filter(|tick| *tick > self.now);
        for asked in std::mem::take(&mut self.waiting) {
            self.asked[asked] = Some(outcome);
        }
        self.arm();
        if !self.forced.is_empty() {
            self.waiting = std::mem::take(&mut self.forced);
            self.begin(Reason::Pressure)?;
        }
        Ok(())
    }

    pub(crate) fn trim(&mut self, forced: bool) -> Result<(), Refuted> {
        let asked = self.asked.len();
        self.asked.push(None);
        if self.is_over() {
            self.asked[asked] = Some((0, 0));
            return Ok(());
        }
        let reason = if forced { Reason::Pressure } else { Reason::OnDemand };
        match &self.run {
            Some(run) if forced && !run.forced => self.forced.push(asked),
            Some(_) => self.waiting.push(asked),
            None => {
                self.waiting.push(asked);
                self.begin(reason)?;
                self.poll()?;
            }
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, reason: Reason) -> Result<(), Refuted> {
        let forced = reason == Reason::Pressure;
        if forced && self.ways().emergency_half_way {
            return self.half_emergency();
        }
        let recorded = !self.ways().background_unrecorded || reason != Reason::HighWatermark;
        let victims = self.select(reason)?;
        if victims.is_empty() {
            return self.over(recorded);
        }
        self.runs += 1;
        let id = self.runs;
        if !self.ways().closing_counts {
            self.run = Some(Run {
                id,
                forced,
                outstanding: 0,
                closed: 0,
                deadline: self.now + self.setting.close_deadline,
            });
        }
        self.note(&victims, reason);
        for peer in victims {
            self.tell(peer, id);
        }
        if self.ways().closing_counts {
            self.over(recorded)?;
        }
        Ok(())
    }

    /// A trim is over that has nothing to wait for.
    pub(super) fn over(&mut self, recorded: bool) -> Result<(), Refuted> {
        if recorded {
            return self.end((0, 0));
        }
        self.tick = self.tick.filter(|tick| *tick > self.now);
        self.arm();
        Ok(())
    }

    pub(super) fn note(&mut self, victims: &[Peer], reason: Reason) {
        if !victims.is_empty() {
            let (at, peers) = (self.now, victims.to_vec());
            self.trims.push(Trimmed { at, peers, reason });
        }
    }

    /// The peers that a trim closes, in that order.
    pub(super) fn select(&mut self, reason: Reason) -> Result<Vec<Peer>, Refuted> {
        self.expire();
        let forced = reason == Reason::Pressure;
        let Setting { low, grace, total, .. } = self.setting;
        let open = self.open();
        let candidates = self.candidates(forced);
        let weight: usize = candidates.iter().map(|candidate| candidate.weight).sum();
        let excess = if open <= low {
            0
        } else if total || forced {
            (open - low).min(weight)
        } else {
            weight.saturating_sub(low)
        };
        if excess == 0 {
            return Ok(Vec::new());
        }
        // Early tags past grace go with it.
        let (now, kept) = (self.now, self.kept.clone());
        let by_age = self.ways().early_tags_age_protected;
        self.peers.retain(|peer, known| match known.absent {
            Absent::Early(_) if by_age => known.first_seen + grace > now || kept.contains_key(peer),
            Absent::Early(since) => since + grace > now,
            _ => true,
        });
        if self.ways().any_order_of_equals {
            return self.follow(reason, &candidates, excess, |_| true);
        }
        let mut left = excess;
        let mut victims = Vec::new();
        for candidate in candidates {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(candidate.weight);
            victims.push(candidate.peer);
        }
        Ok(victims)
    }
}
