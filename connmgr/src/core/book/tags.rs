//! Decaying tags in the book: who asks the user's closures, and when.

use super::super::decaying::{Decaying, Definition, MAX_STEPS};
use super::super::record::Record;
use super::super::time::Stamp;
use super::Book;
use crate::decay::{Bump, BumpError, BumpKind, Decay, DecayKind, DecayingValue, RegisterError};
use libp2p_identity::PeerId;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
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
        let mut definitions = self.definitions.lock().unwrap_or_else(PoisonError::into_inner);
        match definitions.entry(definition.name.clone()) {
            Entry::Occupied(_) => Err(RegisterError::Taken(name.to_owned())),
            Entry::Vacant(entry) => {
                entry.insert(definition.clone());
                Ok(definition)
            }
        }
    }

    /// The values under the tag are void from here on; their memory goes when their records are next looked at.
    pub(crate) fn close_tag(&self, tag: &Arc<Definition>) {
        if !tag.closed.swap(true, Ordering::AcqRel) {
            self.definitions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&tag.name);
        }
    }

    pub(crate) fn bump(&self, tag: &Arc<Definition>, peer: &PeerId, delta: i64) -> Result<(), BumpError> {
        let hash = self.hash(peer);
        loop {
            if tag.is_closed() {
                return Err(BumpError::Closed);
            }
            let now = self.clock.now();
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
                    let value = catch_unwind(AssertUnwindSafe(|| bump(&seen, delta)));
                    let value = value.map_err(|_| BumpError::Panicked)?;
                    shard = self.lock(Self::shard_of(hash));
                    let found = shard
                        .find_live(hash, peer, &self.common, || now)
                        .and_then(|slot| decaying(&mut shard.records[slot], tag, now));
                    let unchanged = match (&old, found) {
                        (Some(old), Some(found)) => found.is_unchanged(old),
                        (None, None) => true,
                        _ => false,
                    };
                    if !unchanged {
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
            let (slot, made) = self.find_or_make(&mut shard, hash, peer);
            let record = &mut shard.records[slot];
            if let Some(entry) = decaying(record, tag, now) {
                *entry = new;
            } else if record.tag_count() >= self.max_tags {
                self.refuse_tag(peer);
            } else {
                record.decaying_mut().push(new);
            }
            drop(shard);
            if made {
                self.bound_early(hash);
            }
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

    /// Asks the closures that are due for a peer's decaying tags, outside the lock.
    pub(crate) fn settle(&self, peer: &PeerId, now: Stamp) {
        let hash = self.hash(peer);
        let due: Vec<Decaying> = {
            let shard = self.lock(Self::shard_of(hash));
            let Some(slot) = shard.find(hash, peer) else { return };
            let entries = shard.records[slot].decaying();
            entries.iter().filter(|entry| entry.is_due(now)).cloned().collect()
        };
        for old in due {
            let new = self.decayed(peer, &old, now);
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
            match catch_unwind(AssertUnwindSafe(|| decay(&seen))) {
                Ok(value) => new.value = value?,
                Err(_) => tracing::error!(tag = %old.tag.name, "a decay function panicked; the value stays"),
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
