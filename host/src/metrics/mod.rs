//! ragep2p's metrics: its names, labels and buckets, so that its dashboards and alerts work as they are.
//!
//! ```
//! # fn example(host: &knock_host::Host) -> Result<(), knock_host::metrics::AlreadyRegistered> {
//! let mut registry = prometheus_client::registry::Registry::default();
//! knock_host::metrics::register(&mut registry, host)?;
//! # Ok(()) }
//! ```
//!
//! What is rendered is read from the host's counters at each scrape. The metrics of a peer are there as long as there is a stream to
//! it, and start again at zero with the next first one, as in the original.
//!
//! | name | kind | counts |
//! | --- | --- | --- |
//! | `ragep2p_host_inbound_dials_total` | counter | everything that the listeners accepted |
//! | `ragep2p_peer_conn_established_total` | counter | finished handshakes, both directions |
//! | `ragep2p_peer_conn_established_inbound_total` | counter | the inbound part |
//! | `ragep2p_peer_conn_read_processed_bytes_total` | counter | bytes read for use: headers, names, payloads |
//! | `ragep2p_peer_conn_read_skipped_bytes_total` | counter | bytes of payloads that were thrown away |
//! | `ragep2p_peer_conn_written_bytes_total` | counter | bytes written: headers, names, payloads |
//! | `ragep2p_peer_rawconn_read_bytes_total` | counter | bytes read from the socket; with the knock, which ragep2p leaves out (97 bytes of version 2, once a connection) |
//! | `ragep2p_peer_rawconn_written_bytes_total` | counter | bytes written to it |
//! | `ragep2p_peer_rawconn_rate_limit_rate`, `…_capacity` | gauge | the bucket over the whole connection, bytes per second and bytes |
//! | `ragep2p_peer_messages_rate_limit_rate`, `…_capacity` | gauge | the sum over all streams, messages per second and messages |
//! | `ragep2p_peer_bytes_rate_limit_rate`, `…_capacity` | gauge | the sum over all streams, bytes per second and bytes |
//! | `ragep2p_experimental_peer_message_bytes` | histogram | sizes of sent messages; bounds 2^8, 2^10 … 2^28 |
//! | `knock_host_hook_panics_total` | counter | panics in code of the application's, by `hook` ([`Hook`]), each from the start on; not in the original |
//! | `knock_host_peer_messages_dropped_total` | counter | messages that were dropped, by `reason`; not in the original |
//! | `ragedisco_registered_peers` | gauge | oracles over all groups |
//! | `ragedisco_discovered_peers` | gauge | those with an announcement |
//! | `ragedisco_bootstappers` | gauge | bootstrappers; the letter that lacks in its name lacks in the original |
//!
//! How long messages take is measured by [`rageping`].
//!
//! The label of all is `peer_id`, the host; those of a peer also have `remote_peer_id`. A registry with a prefix gives the names that
//! prefix: use one without.
//!
//! The health checks that the original suggests are in `monitoring/rules.yml` beside this crate's manifest, a dashboard is in
//! `monitoring/dashboard.json`. One difference in the rendered text: the bound of a bucket reads `256.0`, which is what OpenMetrics
//! asks for, where the original's older format has `256`.

pub mod rageping;
mod registered;

pub use registered::AlreadyRegistered;

use crate::counters::{Counter, Gauge, HostCounters, PeerCounters, Sizes};
use crate::discovery::ragedisco::{Ragedisco, WeakRagedisco};
use crate::{Handle, Hook, Host};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::{Arc, Weak};

/// Registers what `host` counts. One host for each registry: a second one would have a second
/// description of every metric, which OpenMetrics does not allow. Two hosts in one process have a
/// registry each, served at two paths or ports; a sub-registry with a prefix would change the names.
///
/// When the host, its last handle and its last stream are dropped, the metrics leave the scrape, and
/// the registry takes the next host. The host's own tasks may take a moment more, unless
/// [`Host::close`] was awaited.
///
/// # Errors
///
/// [`AlreadyRegistered`] if the registry has one of the names, of this host or another one. To find
/// that out it is rendered once, which calls its collectors. A collector that describes nothing
/// stays in it, also after an error.
pub fn register(registry: &mut Registry, host: &Host) -> Result<(), AlreadyRegistered> {
    register_handle(registry, host.handle())
}

/// As [`register`], for streams that run in a Swarm.
///
/// # Errors
///
/// As [`register`].
pub fn register_handle(registry: &mut Registry, host: &Handle) -> Result<(), AlreadyRegistered> {
    registered::register(registry, |registry| {
        registry.register_collector(Box::new(HostCollector {
            host: host.local_peer_id().to_string(),
            counters: Arc::downgrade(&host.counters()),
        }));
    })
}

/// Registers how far the discovery of `host` is, until `ragedisco` and the host are dropped.
///
/// # Errors
///
/// As [`register`].
pub fn register_ragedisco(
    registry: &mut Registry,
    host: &Handle,
    ragedisco: &Ragedisco,
) -> Result<(), AlreadyRegistered> {
    registered::register(registry, |registry| {
        registry.register_collector(Box::new(RagediscoCollector {
            host: host.local_peer_id().to_string(),
            ragedisco: ragedisco.downgrade(),
        }));
    })
}

#[derive(Debug)]
struct HostCollector {
    host: String,
    counters: Weak<HostCounters>,
}

/// Labels and what has them.
type Peers = [([(&'static str, String); 2], Arc<PeerCounters>)];

impl Collector for HostCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(counters) = self.counters.upgrade() else {
            return Ok(());
        };
        let host = [("peer_id", self.host.as_str())];
        let mut dials = encoder.encode_descriptor(
            "ragep2p_host_inbound_dials",
            "Inbound dials that the host accepted or failed to accept",
            None,
            MetricType::Counter,
        )?;
        encode_counter(&mut dials, &host, counters.inbound_dials.get())?;
        let mut panics = encoder.encode_descriptor(
            "knock_host_hook_panics",
            "Panics in code of the application's that the host called",
            None,
            MetricType::Counter,
        )?;
        for hook in Hook::ALL {
            let labels = [("peer_id", self.host.as_str()), ("hook", hook.name())];
            encode_counter(&mut panics, &labels, counters.hook_panics.get(hook))?;
        }

        let peers = counters.peers();
        let peers: Vec<_> = peers
            .into_iter()
            .map(|(peer, counters)| {
                let labels = [("peer_id", self.host.clone()), ("remote_peer_id", peer.to_string())];
                (labels, counters)
            })
            .collect();
        // A name without a sample would be rendered otherwise.
        if peers.is_empty() {
            return Ok(());
        }
        for (name, help, of) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, counters) in &peers {
                encode_counter(&mut metric, labels, of(counters).get())?;
            }
        }
        for (name, help, of) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, counters) in &peers {
                metric.encode_family(labels)?.encode_gauge(&of(counters).get())?;
            }
        }
        encode_sizes(&mut encoder, &peers)?;
        encode_drops(&mut encoder, &peers)
    }
}

fn encode_counter<L>(metric: &mut MetricEncoder<'_>, labels: &L, count: u64) -> fmt::Result
where
    L: prometheus_client::encoding::EncodeLabelSet,
{
    metric
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, _, u64>(&count, None)
}

fn encode_sizes(encoder: &mut DescriptorEncoder<'_>, peers: &Peers) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(
        "ragep2p_experimental_peer_message_bytes",
        "Sizes of the messages sent to the remote peer",
        None,
        MetricType::Histogram,
    )?;
    for (labels, counters) in peers {
        let sizes = counters.message_bytes.buckets();
        let bounds = Sizes::BOUNDS
            .into_iter()
            .map(|bound| bound as f64)
            .chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(sizes).collect();
        let (sum, count) = (counters.message_bytes.sum() as f64, sizes.iter().sum());
        metric
            .encode_family(labels)?
            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

fn encode_drops(encoder: &mut DescriptorEncoder<'_>, peers: &Peers) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(
        "knock_host_peer_messages_dropped",
        "Messages that were dropped, by the reason",
        None,
        MetricType::Counter,
    )?;
    for ([host, peer], counters) in peers {
        for (reason, counter) in [
            ("outgoing_buffer", &counters.dropped_outgoing),
            ("incoming_buffer", &counters.dropped_incoming),
            ("rate", &counters.dropped_rate),
            ("length", &counters.dropped_oversize),
            ("unknown_stream", &counters.dropped_unknown),
            ("memory", &counters.dropped_memory),
        ] {
            let labels = [(host.0, host.1.as_str()), (peer.0, peer.1.as_str()), ("reason", reason)];
            encode_counter(&mut metric, &labels, counter.get())?;
        }
    }
    Ok(())
}

type Of<T> = fn(&PeerCounters) -> &T;

/// Without the ending `_total`, which is added when they are rendered.
const COUNTERS: [(&str, &str, Of<Counter>); 7] = [
    (
        "ragep2p_peer_conn_established",
        "Secure connections established with the remote peer; one at most is active at any time",
        |peer| &peer.conn_established,
    ),
    (
        "ragep2p_peer_conn_established_inbound",
        "Secure connections established with the remote peer that it dialled",
        |peer| &peer.conn_established_inbound,
    ),
    (
        "ragep2p_peer_conn_read_processed_bytes",
        "Bytes read on secure connections with the remote peer for use",
        |peer| &peer.conn_read_processed_bytes,
    ),
    (
        "ragep2p_peer_conn_read_skipped_bytes",
        "Bytes read on secure connections with the remote peer and thrown away, because of a limit for instance",
        |peer| &peer.conn_read_skipped_bytes,
    ),
    (
        "ragep2p_peer_conn_written_bytes",
        "Bytes written on secure connections with the remote peer",
        |peer| &peer.conn_written_bytes,
    ),
    (
        "ragep2p_peer_rawconn_read_bytes",
        "Bytes read from sockets after the knock, handshakes and TLS overhead included",
        |peer| &peer.rawconn_read_bytes,
    ),
    (
        "ragep2p_peer_rawconn_written_bytes",
        "Bytes written to sockets after the knock, handshakes and TLS overhead included",
        |peer| &peer.rawconn_written_bytes,
    ),
];

const GAUGES: [(&str, &str, Of<Gauge>); 6] = [
    (
        "ragep2p_peer_rawconn_rate_limit_rate",
        "What the bucket over reading from a connection refills with, bytes per second",
        |peer| &peer.rawconn_rate_limit_rate,
    ),
    (
        "ragep2p_peer_rawconn_rate_limit_capacity",
        "The capacity of the bucket over reading from a connection, bytes",
        |peer| &peer.rawconn_rate_limit_capacity,
    ),
    (
        "ragep2p_peer_messages_rate_limit_rate",
        "The sum of the streams' refill rates, messages per second",
        |peer| &peer.messages_rate_limit_rate,
    ),
    (
        "ragep2p_peer_messages_rate_limit_capacity",
        "The sum of the streams' capacities, messages",
        |peer| &peer.messages_rate_limit_capacity,
    ),
    (
        "ragep2p_peer_bytes_rate_limit_rate",
        "The sum of the streams' refill rates, bytes per second",
        |peer| &peer.bytes_rate_limit_rate,
    ),
    (
        "ragep2p_peer_bytes_rate_limit_capacity",
        "The sum of the streams' capacities, bytes",
        |peer| &peer.bytes_rate_limit_capacity,
    ),
];

#[derive(Debug)]
struct RagediscoCollector {
    host: String,
    ragedisco: WeakRagedisco,
}

impl Collector for RagediscoCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(status) = self.ragedisco.status() else {
            return Ok(());
        };
        for (name, help, value) in [
            (
                "ragedisco_registered_peers",
                "Peers that the discovery looks for",
                status.registered_peers,
            ),
            (
                "ragedisco_discovered_peers",
                "Peers with a valid announcement, whose addresses may still be wrong",
                status.discovered_peers,
            ),
            (
                "ragedisco_bootstappers",
                "Bootstrappers of the discovery",
                status.bootstrappers,
            ),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            let labels = [("peer_id", self.host.as_str())];
            metric.encode_family(&labels)?.encode_gauge(&(value as f64))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
