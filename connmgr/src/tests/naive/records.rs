//! Tags, protection and dials of the model, and what it remembers.

use super::{Absent, INTERVALS, Kept, Known, Naive, Peer, Time};

impl Naive {
    pub(super) fn gone_for(&self) -> Time {
        self.setting.retention.unwrap_or(0).max(self.setting.grace)
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&mut self) {
        if self.ways().early_tags_stay {
            return;
        }
        let (now, gone_for, early_for) = (self.now, self.gone_for(), self.setting.early_for);
        self.peers.retain(|_, known| match known.absent {
            Absent::No => true,
            Absent::Early(since) => now < since + early_for,
            Absent::Gone(since) => now < since + gone_for,
        });
    }

    pub(crate) fn is_kept(&self, peer: Peer) -> bool {
        self.kept.contains_key(&peer)
    }

    pub(super) fn spares(&self, peer: Peer) -> bool {
        self.is_kept(peer) || self.is_dialled(peer)
    }

    pub(super) fn is_dialled(&self, peer: Peer) -> bool {
        !self.ways().dials_do_not_spare && self.dials.contains_key(&peer)
    }

    /// The record of a peer that is tagged.
    pub(super) fn tagged(&mut self, peer: Peer) -> &mut Known {
        self.expire();
        let (now, keep_tags) = (self.now, self.setting.retention.is_some());
        let pinned = self.is_kept(peer) && !self.ways().forgets_the_gone;
        let known = self.peers.entry(peer).or_insert_with(|| Known {
            first_seen: now,
            absent: if pinned { Absent::No } else { Absent::Early(now) },
            ..Known::default()
        });
        if matches!(known.absent, Absent::Gone(_)) && !keep_tags {
            known.absent = Absent::Early(now);
        }
        known
    }

    pub(crate) fn tag(&mut self, peer: Peer, tag: usize, value: i64) {
        self.tagged(peer).tags.insert(tag, value);
    }

    pub(crate) fn upsert(&mut self, peer: Peer, tag: usize, by: i64) {
        let value = self.tagged(peer).tags.entry(tag).or_default();
        *value = value.saturating_add(by);
    }

    pub(crate) fn untag(&mut self, peer: Peer, tag: usize) {
        self.expire();
        self.peers.get_mut(&peer).map(|known| known.tags.remove(&tag));
    }

    pub(crate) fn bump(&mut self, peer: Peer, tag: usize, delta: i64) {
        let value = self.tagged(peer).decaying.entry(tag).or_default();
        *value = if tag == 0 { value.saturating_add(delta) } else { delta };
    }

    pub(crate) fn remove(&mut self, peer: Peer, tag: usize) {
        if self.ways().empty_records {
            self.tagged(peer);
        }
        self.peers.get_mut(&peer).map(|known| known.decaying.remove(&tag));
    }

    pub(crate) fn reset(&mut self, tag: usize) {
        for known in self.peers.values_mut() {
            known.decaying.remove(&tag);
        }
        let last = self.now / self.setting.resolution * self.setting.resolution;
        self.due[tag] = last + INTERVALS[tag].max(self.setting.resolution);
    }

    pub(super) fn keep(&mut self, peer: Peer, change: impl FnOnce(&mut Kept)) {
        self.expire();
        change(self.kept.entry(peer).or_default());
        if self.ways().forgets_the_gone {
            return;
        }
        let now = self.now;
        let known = self.peers.entry(peer).or_insert_with(|| Known {
            first_seen: now,
            ..Known::default()
        });
        known.absent = Absent::No;
    }

    pub(super) fn release(&mut self, peer: Peer, change: impl FnOnce(&mut Kept)) {
        let Some(kept) = self.kept.get_mut(&peer) else { return };
        change(kept);
        if !kept.is_empty() {
            return;
        }
        self.kept.remove(&peer);
        if self.ways().forgets_the_gone {
            return;
        }
        let (now, gone_for) = (self.now, self.gone_for());
        let keep_tags = self.setting.retention.is_some();
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if !known.conns.is_empty() {
            return;
        }
        known.absent = match known.left {
            Some(_) if known.tagged() && keep_tags => Absent::Gone(now),
            _ if known.tagged() => Absent::Early(now),
            Some(left) if now < left + gone_for => Absent::Gone(left),
            _ => {
                self.peers.remove(&peer);
                return;
            }
        };
    }

    pub(crate) fn protect(&mut self, peer: Peer, tag: usize) {
        self.keep(peer, |kept| {
            kept.protections.insert(tag);
        });
    }

    /// Whether the peer still is protected.
    pub(crate) fn unprotect(&mut self, peer: Peer, tag: usize) -> bool {
        self.release(peer, |kept| {
            kept.protections.remove(&tag);
        });
        self.kept.get(&peer).is_some_and(|kept| !kept.protections.is_empty())
    }

    /// Guards of a closed manager hold nothing. The last one is dropped first.
    pub(crate) fn guard(&mut self, peer: Peer) {
        if self.is_over() {
            *self.idle_guards.entry(peer).or_default() += 1;
            return;
        }
        self.keep(peer, |kept| kept.guards += 1);
    }

    pub(crate) fn unguard(&mut self, peer: Peer) {
        if let Some(idle) = self.idle_guards.get_mut(&peer).filter(|idle| **idle > 0) {
            *idle -= 1;
            return;
        }
        self.release(peer, |kept| kept.guards = kept.guards.saturating_sub(1));
    }

    pub(crate) fn begin_dial(&mut self, peer: Peer) {
        *self.dials.entry(peer).or_default() += 1;
    }

    pub(crate) fn end_dial(&mut self, peer: Peer) {
        if let Some(dials) = self.dials.get_mut(&peer) {
            *dials -= 1;
            if *dials == 0 {
                self.dials.remove(&peer);
            }
        }
    }
}
