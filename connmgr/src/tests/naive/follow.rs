//! A model that follows a real manager where that may choose, and the original's emergency.

use super::trims::{Candidate, Key, SAME};
use super::{Naive, Peer, Reason, Refuted};
use std::collections::BTreeSet;

impl Naive {
    /// What the real manager closed, if that is so many of the first, in any order of equals. Of
    /// peers that are not visible it is not known whether they were selected.
    pub(super) fn follow(
        &mut self,
        reason: Reason,
        candidates: &[Candidate],
        excess: usize,
        visible: impl Fn(Peer) -> bool,
    ) -> Result<Vec<Peer>, Refuted> {
        let at = self.now;
        let observed = self.observed.pop_front();
        let observed = observed.filter(|observed| (observed.at, observed.reason) == (at, reason));
        let Some(observed) = observed else {
            return Err(format!(
                "{reason:?} at {at}: nothing was closed, and {excess} of {candidates:?} should be"
            ));
        };
        let chosen: BTreeSet<Peer> = observed.peers.iter().copied().filter(|peer| visible(*peer)).collect();
        let same = |key: Key| Key { equals: SAME, ..key };
        let keys: BTreeSet<Key> = candidates.iter().map(|candidate| same(candidate.key)).collect();
        let fits = keys.iter().any(|bound| {
            let (below, equal): (Vec<&Candidate>, Vec<&Candidate>) = candidates
                .iter()
                .filter(|candidate| same(candidate.key) <= *bound)
                .partition(|candidate| same(candidate.key) < *bound);
            let sum: usize = below.iter().map(|candidate| candidate.weight).sum();
            let must = below.iter().filter(|candidate| visible(candidate.peer));
            let rest: BTreeSet<Peer> = must.clone().map(|candidate| candidate.peer).collect();
            if sum >= excess || !rest.is_subset(&chosen) {
                return false;
            }
            let rest: BTreeSet<Peer> = chosen.difference(&rest).copied().collect();
            let (seen, hidden): (Vec<&Candidate>, Vec<&Candidate>) =
                equal.iter().partition(|candidate| visible(candidate.peer));
            if !rest
                .iter()
                .all(|peer| seen.iter().any(|candidate| candidate.peer == *peer))
            {
                return false;
            }
            let taken: Vec<usize> = seen
                .iter()
                .filter(|candidate| rest.contains(&candidate.peer))
                .map(|candidate| candidate.weight)
                .collect();
            // With any of those that cannot be seen, the last of which was still needed.
            (0..1_u32 << hidden.len().min(16)).any(|chosen| {
                let hidden = hidden.iter().enumerate();
                let also = hidden
                    .filter(|(at, _)| chosen >> at & 1 == 1)
                    .map(|(_, candidate)| candidate.weight);
                let all: Vec<usize> = taken.iter().copied().chain(also).collect();
                let sum = sum + all.iter().sum::<usize>();
                sum >= excess && all.iter().any(|last| sum - last < excess)
            })
        });
        if !fits {
            return Err(format!(
                "{reason:?} at {at}: {chosen:?} were closed, which are not the first with {excess} connections of {candidates:?}"
            ));
        }
        Ok(observed.peers)
    }

    /// The original's emergency trim: what it has selected is compared with what is left to be
    /// selected.
    pub(super) fn half_emergency(&mut self) -> Result<(), Refuted> {
        let Some(target) = self.open().checked_sub(self.setting.low) else {
            self.waiting.clear();
            return Ok(());
        };
        let all = self.candidates(true);
        let (kept, others): (Vec<_>, Vec<_>) = all.iter().partition(|candidate| self.is_kept(candidate.peer));
        let unprotected: Vec<Candidate> = others.into_iter().copied().collect();
        let weight: usize = unprotected.iter().map(|candidate| candidate.weight).sum();
        let victims = if target == 0 {
            Vec::new()
        } else if weight >= target {
            self.follow(Reason::Pressure, &unprotected, target, |_| true)?
        } else if weight >= target - weight || kept.is_empty() {
            unprotected.iter().map(|candidate| candidate.peer).collect()
        } else {
            // Once more from the beginning, with everybody.
            let seen: BTreeSet<Peer> = kept.iter().map(|candidate| candidate.peer).collect();
            let unordered: Vec<Candidate> = all
                .iter()
                .map(|candidate| Candidate {
                    key: Key {
                        spared: false,
                        ..candidate.key
                    },
                    ..*candidate
                })
                .collect();
            let observed = self.observed.front().cloned();
            let also: Vec<Peer> = observed.map_or_else(Vec::new, |observed| observed.peers);
            self.follow(Reason::Pressure, &unordered, target - weight, |peer| {
                seen.contains(&peer)
            })?;
            let mut victims: Vec<Peer> = unprotected.iter().map(|candidate| candidate.peer).collect();
            victims.extend(also.into_iter().filter(|peer| seen.contains(peer)));
            victims
        };
        let followed = target > 0 && weight < target && (weight >= target - weight || kept.is_empty());
        if followed && !victims.is_empty() {
            let mut closed = self
                .observed
                .pop_front()
                .map_or_else(Vec::new, |observed| observed.peers);
            let mut expected = victims.clone();
            closed.sort_unstable();
            closed.dedup();
            expected.sort_unstable();
            if closed != expected {
                return Err(format!("an emergency closed {closed:?} and not {expected:?}"));
            }
        }
        self.note(&victims, Reason::Pressure);
        self.runs += 1;
        for peer in victims {
            self.tell(peer, self.runs);
        }
        self.end((0, 0))
    }
}
