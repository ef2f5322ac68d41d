//! Rules that are out of force by the clock. They are kept, for the clock may be wrong, and apart,
//! so that no decision looks at them.

use super::rule::Rule;
use super::sharded::Sharded;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Most that are kept. Some 20 MiB, and 6 MiB in a file.
pub(super) const MOST_EXPIRED: usize = 65_536;
/// How many are left when there were too many, so that this is not done at every change.
const LEFT: usize = MOST_EXPIRED / 16 * 15;

/// A rule by what it names, whatever its expiry and note.
#[derive(Clone)]
struct Same(Arc<Rule>);

impl PartialEq for Same {
    fn eq(&self, other: &Self) -> bool {
        self.0.same(&other.0)
    }
}

impl Eq for Same {}

impl Hash for Same {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let rule = &*self.0;
        (rule.allow, &rule.peer, rule.network, rule.ports).hash(state);
        (rule.direction, rule.transport, &rule.listener).hash(state);
    }
}

/// A changed copy costs little.
#[derive(Clone, Default)]
pub(super) struct Expired {
    rules: Sharded<Same, Arc<Rule>>,
    /// No rule here expires after this second.
    latest: u64,
}

impl Expired {
    pub(super) const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter().map(|(_, rule)| rule)
    }

    /// In place of the same rule with another expiry.
    pub(super) fn put(&mut self, rule: Arc<Rule>) {
        self.latest = self.latest.max(rule.until.unwrap_or_default());
        self.rules.insert(Same(Arc::clone(&rule)), rule);
    }

    pub(super) fn remove(&mut self, rule: &Arc<Rule>) {
        if !self.is_empty() {
            self.rules.remove(&Same(Arc::clone(rule)));
        }
    }

    /// Whether some may be in force at `now`.
    pub(super) const fn may_be_due(&self, now: u64) -> bool {
        self.latest > now
    }

    /// Those that are in force at `now`: the clock has gone back.
    pub(super) fn due(&mut self, now: u64) -> Vec<Arc<Rule>> {
        if !self.may_be_due(now) {
            return Vec::new();
        }
        let until = |rule: &Arc<Rule>| rule.until.unwrap_or_default();
        self.latest = self.iter().map(until).max().unwrap_or_default();
        self.iter().filter(|rule| until(rule) > now).cloned().collect()
    }

    /// Drops those that expired first where there are too many. How many those were.
    pub(super) fn trim(&mut self) -> usize {
        if self.rules.len() <= MOST_EXPIRED {
            return 0;
        }
        let mut all: Vec<_> = self.iter().cloned().collect();
        let dropped = all.len() - LEFT;
        all.select_nth_unstable_by_key(dropped, |rule| rule.until);
        for rule in &all[..dropped] {
            self.remove(rule);
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Cidr;
    use std::net::Ipv4Addr;
    use std::time::{Duration, UNIX_EPOCH};

    fn rule(n: u32, until: u64) -> Arc<Rule> {
        let block = Rule::block().network(Cidr::from(Ipv4Addr::from_bits(n)));
        Arc::new(block.until(UNIX_EPOCH + Duration::from_secs(until)))
    }

    #[test]
    fn the_same_rule_is_kept_once_with_its_newest_expiry() {
        let mut expired = Expired::default();
        expired.put(rule(1, 10));
        expired.put(rule(1, 20));
        expired.put(rule(2, 15));
        assert_eq!(expired.iter().count(), 2);
        assert_eq!(expired.due(20), []);
        assert_eq!(expired.due(19), [rule(1, 20)]);
        expired.remove(&rule(1, 7));
        assert_eq!(expired.due(14), [rule(2, 15)]);
        assert!(!expired.may_be_due(15), "what is gone is not waited for");
    }

    #[test]
    fn beyond_the_most_those_go_that_expired_first() {
        let mut expired = Expired::default();
        for n in 0..u32::try_from(MOST_EXPIRED).expect("few") {
            expired.put(rule(n, u64::from(n)));
        }
        assert_eq!(expired.trim(), 0);
        expired.put(rule(u32::MAX, 1 << 36));
        let dropped = expired.trim();
        assert_eq!((dropped, expired.iter().count()), (MOST_EXPIRED + 1 - LEFT, LEFT));
        let first = expired.iter().filter_map(|rule| rule.until).min();
        assert_eq!(first, Some(dropped as u64));
        assert_eq!(expired.due(1 << 35), [rule(u32::MAX, 1 << 36)]);
    }
}
