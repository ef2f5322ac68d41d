//! What time does to rules without anything having happened: an allow expires, and a clock that was
//! wrong is put right.

use super::change::{Change, Finished};
use super::snapshot::Snapshot;
use super::turns::Turn;
use super::writer::{NEVER, Writer};
use super::{RuleError, Shared, lock, warning};
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

/// For how long a look at the clock is enough, at most: it may be set in between.
const LOOK: Duration = Duration::from_secs(60);
/// When to try again, where another thread changes the rules.
const BUSY: Duration = Duration::from_secs(1);

impl Shared {
    /// Makes a change seen, ends the turn, and says what follows from it.
    pub(super) fn publish(&self, mut turn: Turn<'_, Writer>, done: Finished, now: u64) {
        turn.expect(done.expiring, done.cleared, now, &done.next);
        if let Some((_, prefixes)) = done.next.caps.as_ref().and_then(|caps| caps.per_prefix) {
            lock(&self.counts).resize(prefixes);
        }
        let (before, keeps_expired) = (self.current.load(), !done.next.expired.is_empty());
        let next_allow = turn.next_allow(now);
        let scheduled = self.next_allow.swap(next_allow, Ordering::AcqRel) != next_allow
            || keeps_expired && before.expired.is_empty();
        let warning = warning::about_admission(&done.next);
        let warning =
            warning.filter(|warning| done.cleared || warning::about_admission(&before).as_ref() != Some(warning));
        drop(before);
        let mut buckets = lock(&self.buckets);
        self.current.store(done.next);
        if done.new_rates {
            buckets.clear();
        }
        drop((buckets, turn));
        if done.tightened {
            self.changes.tightened();
        }
        if scheduled {
            self.changes.rescheduled();
        }
        done.named.log();
        if let Some(warning) = warning {
            tracing::warn!(%warning, "rules let in less than they seem to");
        }
        if done.dropped > 0 {
            tracing::warn!(rules = done.dropped, "expired rules were dropped: more than are kept");
        }
    }

    /// As `ConnectionGater::tick` has it.
    pub(super) fn tick(&self) -> Option<Duration> {
        let time = self.now();
        let now = super::rule::seconds(time);
        let is_due = self.next_allow.load(Ordering::Acquire) <= now || self.current.load().expired.may_be_due(now);
        if is_due && !self.catch_up(now) {
            return Some(BUSY);
        }
        match self.next_allow.load(Ordering::Acquire) {
            NEVER if self.current.load().expired.is_empty() => None,
            NEVER => Some(LOOK),
            at => {
                let at = UNIX_EPOCH + Duration::from_secs(at);
                Some(at.duration_since(time).unwrap_or_default().min(LOOK))
            }
        }
    }

    /// The change that nothing but time has asked for, unless another is being made.
    fn catch_up(&self, now: u64) -> bool {
        let Some(mut turn) = self.turns.try_take() else {
            return false;
        };
        let mut next = Change::of(Snapshot::clone(&self.current.load()), now);
        turn.expire(&mut next, now);
        next.revive();
        let done: Result<Finished, RuleError> = next.finish();
        if let Ok(done) = done {
            self.publish(turn, done, now);
        }
        true
    }
}
