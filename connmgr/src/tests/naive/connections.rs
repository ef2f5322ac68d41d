//! Connections of the model, and the hard limit.

use super::trims::Key;
use super::{Absent, Conn, Known, Link, Naive, Peer, Reason, Refuted, Trimmed};

impl Naive {
    /// Connections that count, and all.
    pub(crate) fn open(&self) -> usize {
        self.peers.values().map(|known| self.weight(known)).sum()
    }

    pub(crate) fn established(&self) -> usize {
        self.peers.values().map(|known| known.conns.len()).sum()
    }

    pub(super) fn weight(&self, known: &Known) -> usize {
        if self.ways().closing_counts {
            known.conns.len()
        } else {
            known.open().count()
        }
    }

    /// False for a newcomer that is denied.
    pub(crate) fn connect(&mut self, peer: Peer, link: Link) -> bool {
        let serial = self.serial;
        self.serial += 1;
        self.connect_as(peer, link, serial)
    }

    pub(crate) fn connect_as(&mut self, peer: Peer, link: Link, serial: usize) -> bool {
        self.expire();
        if let Some(limit) = self.setting.hard_limit {
            let all = self.established();
            let may = match all.checked_sub(limit) {
                None => true,
                Some(above) => above < (limit / 8).max(1) && self.poorest(peer, link).is_some(),
            };
            if !may {
                return false;
            }
        }
        let (now, gone_for) = (self.now, self.gone_for());
        let known = self.peers.entry(peer).or_default();
        if known.conns.is_empty() {
            if known.left.is_none_or(|left| now >= left + gone_for) {
                known.first_seen = now;
            }
            known.left = None;
        }
        known.absent = Absent::No;
        known.conns.push(Conn {
            serial,
            link,
            opened: now,
            closing: 0,
        });
        self.arm();
        if let Some(limit) = self.setting.hard_limit
            && self.open() > limit
            && let Some(victim) = self.poorest(peer, link)
        {
            let peers = vec![victim];
            let (at, reason) = (self.now, Reason::HardLimit);
            self.trims.push(Trimmed { at, peers, reason });
            self.tell(victim, u32::MAX);
        }
        true
    }

    /// The first in the order, if it is worth less than a newcomer.
    pub(super) fn poorest(&self, newcomer: Peer, link: Link) -> Option<Peer> {
        let merit = |key: &Key| (key.spared, key.value, key.dialled_only);
        let value = self.peers.get(&newcomer).map_or(0, Known::value);
        let own = (self.is_kept(newcomer), value, link.dialled);
        let all = self
            .peers
            .iter()
            .filter(|(peer, known)| known.open().next().is_some() && !self.spares(**peer));
        let mut all: Vec<_> = all
            .map(|(peer, known)| (self.key(*peer, known, false), *peer))
            .collect();
        all.sort_unstable();
        let (key, poorest) = all.into_iter().find(|(_, peer)| *peer != newcomer)?;
        (merit(&key) < own).then_some(poorest)
    }

    pub(crate) fn disconnect(&mut self, peer: Peer) {
        let oldest = self.peers.get(&peer).and_then(|known| known.conns.first());
        if let Some(serial) = oldest.map(|conn| conn.serial) {
            self.gone(peer, serial);
        }
    }

    pub(super) fn gone(&mut self, peer: Peer, serial: usize) {
        let (now, keep_tags) = (self.now, self.setting.retention.is_some());
        let forget = self.ways().forgets_the_gone;
        let kept = self.is_kept(peer);
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some(at) = known.conns.iter().position(|conn| conn.serial == serial) else {
            return;
        };
        let conn = known.conns.remove(at);
        self.told.retain(|(_, told)| *told != serial);
        if let Some(run) = &mut self.run
            && run.id == conn.closing
        {
            run.outstanding -= 1;
            run.closed += 1;
        }
        if !known.conns.is_empty() {
            return;
        }
        if forget {
            self.peers.remove(&peer);
            return;
        }
        known.left = Some(now);
        if !keep_tags {
            known.tags.clear();
            known.decaying.clear();
        }
        if !kept {
            known.absent = Absent::Gone(now);
        }
    }

    /// Tells all connections of a peer to close.
    pub(super) fn tell(&mut self, peer: Peer, run: u32) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let mut told = Vec::new();
        for conn in known.conns.iter_mut().filter(|conn| conn.closing == 0) {
            conn.closing = run;
            told.push(conn.serial);
        }
        if let Some(active) = &mut self.run
            && active.id == run
        {
            active.outstanding += told.len();
        }
        for serial in told {
            self.told.push((peer, serial));
            if !self.setting.slow {
                self.gone(peer, serial);
            }
        }
    }

    pub(crate) fn let_close(&mut self, connections: usize) -> Result<(), Refuted> {
        for _ in 0..connections {
            let oldest = self.told.iter().min_by_key(|(_, serial)| *serial);
            let Some((peer, serial)) = oldest.copied() else {
                break;
            };
            self.gone(peer, serial);
            self.poll()?;
        }
        Ok(())
    }
}
