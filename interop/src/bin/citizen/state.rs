//! Everything that a node knows of itself, as one JSON object.

use crate::node::Node;
use libp2p::PeerId;
use libp2p_connmgr::ConnectionInfo;
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl Node {
    pub(crate) fn state(&self) -> Value {
        let mut by_peer: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for open in self.open.values() {
            let (out, inward) = by_peer.entry(open.peer.to_string()).or_default();
            *(if open.dialled { out } else { inward }) += 1;
        }
        let wanted: BTreeMap<String, bool> = self
            .swarm
            .behaviour()
            .persistent
            .wanted()
            .map(|(peer, connected)| (peer.to_string(), connected))
            .collect();
        let network = self.swarm.network_info();
        let swarm = network.connection_counters();
        let counts = self.manager.counts();
        let info = self.manager.info();
        let (substreams, uncounted) = self.substreams();
        json!({
            "connections": by_peer,
            "established": swarm.num_established(),
            "pending": swarm.num_pending(),
            "manager": {
                "low": self.marks.low,
                "high": self.marks.high,
                "hard": self.marks.hard,
                "open": info.connections,
                "closing": info.closing,
                "protected": counts.protected.connections,
                "in_grace": counts.in_grace.connections,
                "closable": counts.tagged.connections + counts.plain.connections,
                "gone": counts.gone,
            },
            "substreams": substreams,
            "uncounted": uncounted,
            "wanted": wanted,
            "lost": self.wanted.lost,
            "duplicates_closed": self.wanted.duplicates_closed,
            "unresponsive": self.wanted.unresponsive,
            "talks": self.talks.state(),
            "talks_counted": self.talks.counted(),
            "gossip_heard": self.gossip_heard,
            "accept_failures": self.accept_failures,
            "listening": self.swarm.listeners().count() > 0 && !self.listening.is_empty(),
            "waiting": self.metric("libp2p_knock_sockets_waiting"),
            "watch": self.watch.state(),
        })
    }

    /// Open streams as the manager counts them, and connections for which it does not.
    fn substreams(&self) -> (u64, usize) {
        let peers: std::collections::BTreeSet<&PeerId> = self.open.values().map(|open| &open.peer).collect();
        let infos = peers.into_iter().filter_map(|peer| self.manager.tag_info(peer));
        let connections: Vec<ConnectionInfo> = infos.flat_map(|info| info.connections).collect();
        let counted = connections.iter().filter_map(|connection| connection.streams);
        let uncounted = connections.iter().filter(|connection| connection.streams.is_none());
        (counted.map(u64::from).sum(), uncounted.count())
    }

    /// A value without labels.
    fn metric(&self, name: &str) -> Value {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            return Value::Null;
        }
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<f64>().ok());
        json!(value)
    }
}
