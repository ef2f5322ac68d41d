//! What the book tells.

use super::book::{Book, SHARDS};
use super::order::class;
use super::record::{Record, State};
use super::time::Stamp;
use crate::info::{Class, ConnectionInfo, Counts, TagInfo};
use libp2p_identity::PeerId;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a record says about one peer, for an explanation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    pub(crate) class: Option<Class>,
    pub(crate) value: i64,
    pub(crate) protections: Vec<String>,
    pub(crate) guards: usize,
    pub(crate) grace_left: Duration,
    pub(crate) open: usize,
    pub(crate) closing: usize,
    /// By which its entry among candidates is known.
    pub(crate) hash: u64,
}

impl Book {
    pub(crate) fn tag_info(&self, peer: &PeerId) -> Option<TagInfo> {
        let now = self.clock.now();
        self.read(peer, now, |record, value| self.info(record, value))?
    }

    fn info(&self, record: &Record, value: i64) -> Option<TagInfo> {
        // A record may be kept for other reasons, which may end at any time.
        let known = record.state() == State::Connected || record.tag_count() > 0;
        known.then(|| TagInfo {
            first_seen: Some(self.clock.instant(record.first_seen)),
            value,
            tags: record.tags().map(|(name, value)| (name.to_owned(), value)).collect(),
            decaying: record
                .decaying()
                .iter()
                .map(|tag| (tag.tag.name.to_string(), tag.value))
                .collect(),
            protections: record.protections().iter().map(ToString::to_string).collect(),
            connections: record
                .conns
                .iter()
                .map(|conn| ConnectionInfo {
                    id: conn.id,
                    remote_address: (*conn.address).clone(),
                    opened: self.clock.instant(conn.opened),
                    outbound: conn.outbound,
                    relayed: conn.relayed,
                    closing: conn.closing != 0,
                    streams: conn.activity.as_ref().map(|activity| activity.streams()),
                    last_activity: conn.activity.as_ref().map(|activity| activity.last()),
                })
                .collect(),
        })
    }

    pub(crate) fn standing(&self, peer: &PeerId, now: Stamp) -> Standing {
        self.read(peer, now, |record, value| {
            let open = record.open().count();
            Standing {
                class: (open > 0).then(|| class(self, record, now)),
                value,
                protections: record.protections().iter().map(ToString::to_string).collect(),
                guards: record.guards(),
                grace_left: self.common.grace.saturating_sub(now.since(record.first_seen)),
                open,
                closing: record.conns.len() - open,
                hash: record.hash,
            }
        })
        .unwrap_or_default()
    }

    pub(crate) fn counts(&self) -> Counts {
        let now = self.clock.now();
        let mut counts = Counts {
            closing: self.closing(),
            ..Counts::default()
        };
        for at in 0..SHARDS {
            let mut shard = self.lock(at);
            shard.sweep(&self.common, now);
            for record in &shard.records {
                let open = record.open().count();
                if open > 0 {
                    let count = counts.of(class(self, record, now));
                    count.peers += 1;
                    count.connections += open;
                }
            }
        }
        counts.early = self.common.early.load(Ordering::Relaxed);
        counts.gone = self.common.gone.load(Ordering::Relaxed);
        counts
    }

    pub(crate) fn protected_peers(&self) -> Vec<(PeerId, Vec<String>)> {
        let mut peers = Vec::new();
        for at in 0..SHARDS {
            let shard = self.lock(at);
            peers.extend(
                shard
                    .records
                    .iter()
                    .filter(|record| !record.protections().is_empty())
                    .map(|record| {
                        (
                            record.peer(),
                            record.protections().iter().map(ToString::to_string).collect(),
                        )
                    }),
            );
        }
        peers
    }

    /// For tests: how many records there are.
    #[cfg(test)]
    pub(crate) fn records(&self) -> usize {
        (0..SHARDS).map(|at| self.lock(at).records.len()).sum()
    }
}
