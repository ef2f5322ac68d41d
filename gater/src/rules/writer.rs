//! What the thread that changes the rules has to itself: what will expire, and which files it
//! knows.

use super::change::Change;
use super::file::Files;
use super::rule::Rule;
use super::snapshot::Snapshot;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What has been replaced by then, at most, is kept beside as much as is needed.
const NEEDLESS: usize = 1024;
/// No allow expires.
pub(super) const NEVER: u64 = u64::MAX;

#[derive(Default)]
pub(super) struct Writer {
    /// What will expire, the first on top. What was replaced since is passed over.
    expiring: BinaryHeap<Reverse<Expiring>>,
    /// When those of them expire that allow.
    allows: BinaryHeap<Reverse<u64>>,
    /// How many of all there were when those that had been replaced were last thrown out.
    needed: usize,
    /// Files that were read or written.
    pub(super) files: Files,
}

impl Writer {
    fn pop(&mut self, now: u64) -> Option<Reverse<Expiring>> {
        self.expiring.peek().filter(|Reverse(first)| first.at <= now)?;
        self.expiring.pop()
    }

    /// Takes what has expired by `now` out of force in `next`.
    pub(super) fn expire(&mut self, next: &mut Change, now: u64) {
        let expired: Vec<_> = std::iter::from_fn(|| self.pop(now)).collect();
        for Reverse(one) in &expired {
            next.expire(&one.rule);
        }
        // The change may yet come to nothing.
        self.expiring.extend(expired);
    }

    /// The change has been made at `now`: `coming` was inserted, and the rules are these.
    pub(super) fn expect(&mut self, coming: Vec<(u64, Rule)>, cleared: bool, now: u64, rules: &Snapshot) {
        if cleared {
            self.expiring.clear();
            self.allows.clear();
        }
        while self.pop(now).is_some() {}
        self.extend(coming);
        // A rule that is put off every minute leaves one behind each time.
        if self.expiring.len() > 2 * self.needed + NEEDLESS {
            self.expiring.clear();
            self.allows.clear();
            let left = rules.with_conditions();
            self.extend(left.filter_map(|rule| Some((rule.until?, Rule::clone(rule)))));
            self.needed = self.expiring.len();
        }
    }

    fn extend(&mut self, coming: impl IntoIterator<Item = (u64, Rule)>) {
        for (at, rule) in coming {
            if rule.allow {
                self.allows.push(Reverse(at));
            }
            self.expiring.push(Reverse(Expiring { at, rule }));
        }
    }

    /// When the next allow expires, or one that has been replaced would have; [`NEVER`] if none
    /// does.
    pub(super) fn next_allow(&mut self, now: u64) -> u64 {
        while let Some(Reverse(at)) = self.allows.peek() {
            if *at > now {
                return *at;
            }
            self.allows.pop();
        }
        NEVER
    }
}

struct Expiring {
    at: u64,
    rule: Rule,
}

impl Ord for Expiring {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl PartialOrd for Expiring {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Expiring {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Expiring {}
