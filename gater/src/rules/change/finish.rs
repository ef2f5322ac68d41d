//! What a change comes to: the ranges, each list of them once, and what follows from the whole.

use super::super::change::{Change, Edit, MOST_ABOUT_ONE, RuleError, allowing, same_as_plain, with, without};
use super::super::rule::Rule;
use super::super::sets::Standing;
use super::super::snapshot::{Entry, Snapshot};
use super::super::warning::Named;

/// What a change has come to.
pub(in super::super) struct Finished {
    pub(in super::super) next: Snapshot,
    /// Something may be refused now that was not before.
    pub(in super::super) tightened: bool,
    /// Rates mean other buckets now.
    pub(in super::super) new_rates: bool,
    /// What has been inserted that will expire.
    pub(in super::super) expiring: Vec<(u64, Rule)>,
    /// Nothing that was to expire is left of before.
    pub(in super::super) cleared: bool,
    /// Of the peers that were named.
    pub(in super::super) named: Named,
    /// Rules that had expired, and were too many to be kept.
    pub(in super::super) dropped: usize,
}

impl Change {
    pub(in super::super) fn finish(mut self) -> Result<Finished, RuleError> {
        let edits = std::mem::take(&mut self.networks);
        let mut error = None;
        let (mut more, mut less) = (0, 0);
        self.next.networks.apply(edits.into_iter().collect(), |entry, edit| {
            let mut entry: Entry = entry.unwrap_or_default();
            let rules = entry.rules.take().unwrap_or_default();
            less += allowing(&rules);
            let rules = match edit {
                Edit::Block => {
                    entry.blocked = true;
                    // In place of one with an expiry, or a note.
                    match rules.iter().find(|rule| same_as_plain(rule)) {
                        Some(rule) => without(&rules, rule),
                        None => rules,
                    }
                }
                Edit::Unblock => {
                    entry.blocked = false;
                    rules
                }
                Edit::Insert(rule) => {
                    if same_as_plain(&rule) {
                        entry.blocked = false;
                    }
                    match with(&rules, &rule, "rules about one network", MOST_ABOUT_ONE) {
                        Ok(rules) => rules,
                        Err(too_many) => {
                            error = Some(too_many);
                            rules
                        }
                    }
                }
                Edit::Remove(rule) => without(&rules, &rule),
            };
            more += allowing(&rules);
            entry.rules = (!rules.is_empty()).then_some(rules);
            (entry.blocked || entry.rules.is_some()).then_some(entry)
        });
        self.next.allowing = self.next.allowing + more - less;
        self.next.allows = self.next.allowing > 0
            || self.next.general.iter().any(|rule| rule.allow)
            || self.next.sets.values().any(|set| set.standing == Standing::Allowed)
            || self.next.lists.values().any(|list| list.standing == Standing::Allowed);
        let knocks = self.next.knock_everybody || !self.next.knock_peers.is_empty();
        self.next.short = !self.next.allows && !knocks && self.next.peers.is_empty();
        // A file that is read is taken as it is.
        let dropped = if self.cleared { 0 } else { self.next.expired.trim() };
        match error {
            Some(error) => Err(error),
            None => Ok(Finished {
                next: self.next,
                tightened: self.tightened,
                new_rates: self.new_rates,
                expiring: self.expiring,
                cleared: self.cleared,
                named: self.named,
                dropped,
            }),
        }
    }
}
