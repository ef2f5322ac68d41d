//! Rules that come out of force by the clock, and into force again where that has gone back.

use super::super::cidr::Cidr;
use super::super::rule::Rule;
use super::super::snapshot::{Entry, List};
use super::{Change, MOST_ABOUT_ONE, MOST_GENERAL, same_as_plain};
use std::collections::HashMap;
use std::sync::Arc;

impl Change {
    /// Drops the rules that have expired, for good. [`Rules::expired`](crate::Rules::expired) lists
    /// them.
    pub fn forget_expired(&mut self) {
        self.next.expired = Default::default();
    }

    /// As it was read from a file. In force, it is inserted; a rule that has expired takes the
    /// place of none that has not.
    pub(in super::super) fn insert_read(&mut self, rule: Rule) -> Result<(), super::RuleError> {
        match rule.until.is_some_and(|until| until <= self.now) {
            true => {
                self.next.expired.put(Arc::new(rule));
                Ok(())
            }
            false => self.insert(rule),
        }
    }

    /// Keeps `rule` apart, if it has not been replaced since. Before anything else is done: what is
    /// out of force takes no place from what comes.
    pub(in super::super) fn expire(&mut self, rule: &Rule) {
        let now = self.now;
        let due = |list: &List| {
            let due = |other: &&Arc<Rule>| other.same(rule) && other.until.is_some_and(|at| at <= now);
            list.iter().find(due).cloned()
        };
        let listed = match (rule.peer_key(), rule.network) {
            (Some(key), _) => self.next.peers.get(&key).and_then(due),
            (None, None) => due(&self.next.general),
            (None, Some(network)) => {
                let mut found = None;
                self.at(network, |entry| found = entry.rules.as_ref().and_then(due));
                found
            }
        };
        if let Some(listed) = listed {
            let tightened = self.tightened;
            self.remove(Rule::clone(&listed));
            // It was said when the rule was inserted, or it has been out of force already.
            self.tightened = tightened | rule.allow;
            self.next.expired.put(listed);
        }
    }

    /// Puts into force again what had expired by a clock that was ahead, as far as there is room
    /// and nothing stands in its place. After [`Self::expire`], and before anything else is done.
    pub(in super::super) fn revive(&mut self) {
        let mut added: HashMap<Cidr, usize> = HashMap::new();
        for rule in self.next.expired.due(self.now) {
            let more = rule.network.map_or(0, |network| *added.entry(network).or_default());
            if self.is_listed(&rule) || !self.has_room(&rule, more) {
                continue;
            }
            // There is room, so this does not fail.
            if self.put(Rule::clone(&rule), rule.peer_key()).is_ok()
                && let Some(network) = rule.network
            {
                *added.entry(network).or_default() += 1;
            }
        }
    }

    fn at(&self, network: Cidr, mut found: impl FnMut(&Entry)) {
        self.next.networks.around(network.first(), |range, entry| {
            if range == network {
                found(entry);
            }
        });
    }

    /// Whether the same rule stands on its list, whatever its expiry.
    fn is_listed(&self, rule: &Rule) -> bool {
        let same = |list: &List| list.iter().any(|other| other.same(rule));
        match (rule.peer_key(), rule.network) {
            (Some(key), _) => {
                self.next.peers.get(&key).is_some_and(same)
                    || same_as_plain(rule) && self.next.blocked.contains(key.words())
            }
            (None, None) => same(&self.next.general),
            (None, Some(network)) => {
                let mut found = false;
                self.at(network, |entry| {
                    found |= entry.rules.as_ref().is_some_and(same) || same_as_plain(rule) && entry.blocked;
                });
                found
            }
        }
    }

    /// Whether each list that it would stand on has a place, with `more` to come at its range.
    fn has_room(&self, rule: &Rule, more: usize) -> bool {
        let key = rule.peer_key();
        let about_peer = key
            .and_then(|key| self.next.peers.get(&key))
            .map_or(0, |list| list.len());
        let mut about_network = more;
        if let Some(network) = rule.network {
            self.at(network, |entry| {
                about_network += entry.rules.as_ref().map_or(0, |list| list.len())
            });
        }
        let general = if key.is_none() && rule.network.is_none() {
            self.next.general.len()
        } else {
            0
        };
        about_peer < MOST_ABOUT_ONE && about_network < MOST_ABOUT_ONE && general < MOST_GENERAL
    }
}
