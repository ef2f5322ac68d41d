//! Decaying tags in the book: who asks the user's closures, and when.

use super::super::decaying::{Decaying, Definition, MAX_STEPS};
use super::super::record::{Record, TagOutcome};
use super::super::time::Stamp;
use super::{Book, Definitions, MAX_TRIES};
use crate::decay::{Bump, BumpError, BumpKind, Decay, DecayKind, DecayingValue, RegisterError};
use crate::user_code::{Hook, is_running, once};
use libp2p_identity::PeerId;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

impl Book {
    pub(crate) fn register(
        &self,
        name: &str,
        interval: Duration,
        decay: Decay,
        bump: Bump,
    ) -> Result<Arc<Definition>, RegisterError> {
        let definition = Arc::new(Definition::new(
            name,
            interval,
            self.resolution,
            decay,
            bump,
            self.clock.now(),
        ));
        self.drop_ended();
        match self.definitions().by_name.entry(definition.name.clone()) {
            Entry::Occupied(_) => Err(RegisterError::Taken(name.to_owned())),
            Entry::Vacant(entry) => {
                entry.insert(definition.clone());
                Ok(definition)
            }
        }
    }

    fn definitions(&self) -> MutexGuard<'_, Definitions> {
        self.definitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values under the tag are void from here on; their memory goes when their records are next looked at.
    pub(crate) fn close_tag(&self, tag: &Arc<Definition>) {
        if !tag.closed.swap(true, Ordering::AcqRel) {
            let mut definitions = self.definitions();
            let ended = definitions.by_name.remove(&tag.name);
            definitions.ended.extend(ended);
        }
        self.drop_ended();
    }

    /// Lets go of closed tags that no record and no handle knows any more, under no lock: what
    /// their closures hold may call the manager when it is dropped.
    pub(crate) fn drop_ended(&self) {
        let mut definitions = self.definitions();
        if definitions.ended.is_empty() {
            return;
        }
        let all = std::mem::take(&mut definitions.ended);
        let (gone, known) = all.into_iter().partition(|ended| Arc::strong_count(ended) == 1);
        definitions.ended = known;
        drop(definitions);
        let gone: Vec<Arc<Definition>> = gone;
        drop(gone);
    }

    pub(crate) fn bump(&self, tag: &Arc<Definition>, peer: &PeerId, delta: i64) -> Result<(), BumpError> {
        let hash = self.hash(peer);
        let mut asked = 0;
        loop {
            asked += 1;
            if tag.is_closed() {
                return Err(BumpError::Closed);
            }
            let moment = self.clock.moment();
            let now = moment.now();
            self.settle(peer, now);
            let mut shard = self.lock(Self::shard_of(hash));
            let old = shard
                .find_live(hash, peer, &self.common, || now)
                .and_then(|slot| decaying(&mut shard.records[slot], tag, now).cloned());
            let mut new = old.clone().unwrap_or_else(|| Decaying::new(tag.clone(), now));
            new.value = match &tag.bump.0 {
                BumpKind::SumUnbounded => new.value.saturating_add(delta),
                BumpKind::SumBounded { min, max } => new.value.saturating_add(delta).clamp(*min, *max),
                BumpKind::Overwrite => delta,
                BumpKind::Custom(bump) => {
                    drop(shard);
                    let seen = self.seen(peer, &new);
                    let call = (Arc::as_ptr(tag).addr(), hash);
                    let value = once(call, || self.panics.call(Hook::Bump, || bump(&seen, delta)));
                    let value = value.ok_or(BumpError::Recursive)?.ok_or(BumpError::Panicked)?;
                    shard = self.lock(Self::shard_of(hash));
                    let found = shard
                        .find_live(hash, peer, &self.common, || now)
                        .and_then(|slot| decaying(&mut shard.records[slot], tag, now));
                    let unchanged = match (&old, found) {
                        (Some(old), Some(found)) => found.is_unchanged(old),
                        (None, None) => true,
                        _ => false,
                    };
                    if !unchanged && asked < MAX_TRIES {
                        continue;
                    }
                    value
                }
            };
            new.bumped = now;
            // It may have been closed since: a value that nobody removes must not come to life.
            if tag.is_closed() {
                return Err(BumpError::Closed);
            }
            let (slot, made) = self.find_or_make(&mut shard, hash, peer, moment);
            let record = &mut shard.records[slot];
            let mut outcome = TagOutcome::Set;
            if let Some(entry) = decaying(record, tag, now) {
                *entry = new;
            } else if record.tag_count() >= self.max_tags {
                outcome = TagOutcome::Full;
            } else {
                record.decaying_mut().push(new);
            }
            drop(shard);
            self.tagged(hash, peer, outcome, made, moment);
            return Ok(());
        }
    }

    pub(crate) fn remove_decaying(&self, tag: &Arc<Definition>, peer: &PeerId) -> Result<(), BumpError> {
        if tag.is_closed() {
            return Err(BumpError::Closed);
        }
        let hash = self.hash(peer);
        let mut shard = self.lock(Self::shard_of(hash));
        if let Some(slot) = shard.find(hash, peer) {
            let record = &mut shard.records[slot];
            if let Some(entries) = record.existing_decaying_mut() {
                entries.retain(|entry| !Arc::ptr_eq(&entry.tag, tag));
            }
            record.tidy();
        }
        Ok(())
    }

    /// Asks the closures that are due for a peer's decaying tags, outside the lock. One that reads
    /// a peer from within sees its values as they last were: else each would ask for all the
    /// others.
    pub(crate) fn settle(&self, peer: &PeerId, now: Stamp) {
        let call = (std::ptr::from_ref(self).addr(), 0);
        if is_running(call) {
            return;
        }
        let hash = self.hash(peer);
        let due: Vec<Decaying> = {
            let shard = self.lock(Self::shard_of(hash));
            let Some(slot) = shard.find(hash, peer) else { return };
            let entries = shard.records[slot].decaying();
            entries.iter().filter(|entry| entry.is_due(now)).cloned().collect()
        };
        for old in due {
            let Some(new) = once(call, || self.decayed(peer, &old, now)) else {
                return;
            };
            let mut shard = self.lock(Self::shard_of(hash));
            let Some(slot) = shard.find(hash, peer) else { return };
            let record = &mut shard.records[slot];
            if let Some(entries) = record.existing_decaying_mut()
                && let Some(at) = entries.iter().position(|entry| entry.is_unchanged(&old))
            {
                match new {
                    Some(new) => entries[at] = new,
                    None => drop(entries.swap_remove(at)),
                }
            }
            record.tidy();
        }
    }

    /// One call for each visit that was missed. A closure that panics leaves the value as it was before that visit.
    fn decayed(&self, peer: &PeerId, old: &Decaying, now: Stamp) -> Option<Decaying> {
        let DecayKind::Custom(decay) = &old.tag.decay.0 else {
            return Some(old.clone());
        };
        let mut new = old.clone();
        let visits = old.tag.visits(now);
        for _ in 0..visits.saturating_sub(old.visits).min(MAX_STEPS) {
            let seen = self.seen(peer, &new);
            if let Some(value) = self.panics.call(Hook::Decay, || decay(&seen)) {
                new.value = value?;
            }
            new.visits += 1;
        }
        new.visits = visits;
        Some(new)
    }

    fn seen(&self, peer: &PeerId, entry: &Decaying) -> DecayingValue {
        let last = if entry.visits == 0 {
            entry.added
        } else {
            entry.tag.visited_at(entry.visits)
        };
        DecayingValue {
            tag: entry.tag.name.to_string(),
            peer: *peer,
            value: entry.value,
            added: self.clock.instant(entry.added),
            last_visit: self.clock.instant(last.max(entry.bumped)),
        }
    }
}

/// The entry under a tag, if it still has a value.
fn decaying<'a>(record: &'a mut Record, tag: &Arc<Definition>, now: Stamp) -> Option<&'a mut Decaying> {
    let entries = record.existing_decaying_mut()?;
    let at = entries.iter().position(|entry| Arc::ptr_eq(&entry.tag, tag))?;
    if !entries[at].advance(now) {
        entries.swap_remove(at);
        return None;
    }
    Some(&mut entries[at])
}
