//! rageping: how long a message takes to a peer and back, measured through a stream of its own. Speaks with the Go original.
//!
//! ```no_run
//! # use knock_host::metrics::AlreadyRegistered;
//! # use prometheus_client::registry::Registry;
//! # fn example(host: &knock_host::Host, registry: &mut Registry, peer: libp2p_identity::PeerId) -> Result<(), AlreadyRegistered> {
//! use knock_host::metrics::rageping::{Config, Rageping};
//!
//! // Both ends must have the same configurations. These are the original's: 20 bytes and 200 KiB.
//! let pings = Rageping::new(host, Config::defaults());
//! pings.register(registry)?;
//! pings.add_peers([peer]);
//! # Ok(()) }
//! ```
//!
//! | name | kind | counts |
//! | --- | --- | --- |
//! | `rageping_round_trip_latency_seconds` | histogram | from a ping to its pong |
//! | `rageping_sent_requests_total` | counter | pings sent |
//! | `rageping_received_requests_total` | counter | pings received |
//! | `rageping_timed_out_requests_total` | counter | pings whose pong did not come in time |
//! | `rageping_invalid_messages_received_total` | counter | everything else that came: pongs too late, other sizes |
//! | `knock_host_rageping_streams` | gauge | streams that pings run over, by `peer_id` alone; from registration on, not in the original |
//!
//! Labels of the others: `peer_id`, `remote_peer_id`, `ping_size`, `min_period`, `max_period`, `timeout`.

mod pinger;

use super::registered::{self, AlreadyRegistered};
use crate::peers::chance;
use crate::{Handle, Limits, Priority, Stream};
use libp2p_identity::PeerId;
use pinger::{Due, MIN_SIZE, PONG_SIZE, Pinger, Received};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle as Runtime;
use tokio::task::AbortHandle;

/// The bounds of the histogram by default, in seconds.
pub const DEFAULT_BUCKETS: [f64; 15] = [
    0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
];

/// How large the pings are, and how often. Both ends must have the same, as the stream's name is made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    size: usize,
    min: Duration,
    max: Duration,
    timeout: Duration,
    startup_delay: Duration,
    buckets: Vec<f64>,
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Too small for the tag that a ping has, or over the ceiling for messages.
    #[error("pings of {0} bytes: the least is {MIN_SIZE}, the most {max}", max = crate::MAX_MESSAGE_LENGTH)]
    Size(usize),
    /// The shortest pause is zero, or longer than the longest one.
    #[error("pauses from {min:?} to {max:?}")]
    Period {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
}

impl Config {
    /// Pings of `size` bytes, a random pause from `min` to `max` between two of them, and `timeout` for the pong. The first one is
    /// sent 30 s and one pause after the start.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`].
    pub fn new(size: usize, min: Duration, max: Duration, timeout: Duration) -> Result<Self, ConfigError> {
        if !(MIN_SIZE..=crate::MAX_MESSAGE_LENGTH).contains(&size) {
            return Err(ConfigError::Size(size));
        }
        if min.is_zero() || max < min {
            return Err(ConfigError::Period { min, max });
        }
        Ok(Self {
            size,
            min,
            max,
            timeout,
            startup_delay: Duration::from_secs(30),
            buckets: DEFAULT_BUCKETS.to_vec(),
        })
    }

    /// The original's: 20 bytes every 10 to 20 s, and 200 KiB every 2 to 3 minutes, as both may take quite different times.
    pub fn defaults() -> [Self; 2] {
        let seconds = Duration::from_secs;
        let small = Self::new(20, seconds(10), seconds(20), seconds(10));
        let large = Self::new(200 << 10, seconds(120), seconds(180), seconds(30));
        [small, large].map(|config| config.expect("sizes and periods are in range"))
    }

    /// Before the first pause. 30 s by default, so that a host that has just started is not measured.
    pub fn with_startup_delay(mut self, delay: Duration) -> Self {
        self.startup_delay = delay;
        self
    }

    /// The upper bounds of the histogram's buckets in seconds, ascending. By default [`DEFAULT_BUCKETS`].
    pub fn with_buckets(mut self, buckets: impl IntoIterator<Item = f64>) -> Self {
        self.buckets = buckets.into_iter().collect();
        self
    }

    /// The name of the stream: `ping-pong-(20|10s|20s|10s)`.
    pub fn stream_name(&self) -> String {
        let [min, max, timeout] = [self.min, self.max, self.timeout].map(go_duration);
        format!("ping-pong-({}|{min}|{max}|{timeout})", self.size)
    }

    fn limits(&self) -> Limits {
        let period = self.min.as_secs_f64();
        let bytes = u32::try_from((self.size + PONG_SIZE) * 2).unwrap_or(u32::MAX);
        Limits::default()
            .with_outgoing_buffer(2)
            .with_incoming_buffer(2)
            .with_max_message(self.size.max(PONG_SIZE))
            .with_messages(2.0 / period, 4)
            .with_bytes(f64::from(bytes) / period, bytes)
    }
}

/// Measures on one host, with each of its configurations. Clones are handles to the same; with the last one the measuring ends.
#[derive(Clone)]
pub struct Rageping(Arc<Shared>);

struct Shared {
    host: Handle,
    configs: Vec<Config>,
    /// By peer, and by the place of the configuration.
    peers: Mutex<BTreeMap<(PeerId, usize), Peer>>,
}

struct Peer {
    registrations: usize,
    task: AbortHandle,
    counted: Arc<Counted>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its stream closes with it.
        self.task.abort();
    }
}

struct Counted {
    latency: Histogram,
    sent: Counter,
    received: Counter,
    timed_out: Counter,
    invalid: Counter,
}

impl Rageping {
    /// Measures nothing yet. A configuration that is there twice counts once.
    pub fn new(host: &Handle, configs: impl IntoIterator<Item = Config>) -> Self {
        let mut distinct = Vec::<Config>::new();
        for config in configs {
            if distinct.iter().all(|known| known.stream_name() != config.stream_name()) {
                distinct.push(config);
            }
        }
        Self(Arc::new(Shared {
            host: host.clone(),
            configs: distinct,
            peers: Mutex::default(),
        }))
    }

    /// Adds peers, each of which is measured until it was removed as often as it was added. Ourselves are passed over. A peer that no
    /// stream can be opened to, which is logged, is not measured. Has to be called inside a tokio runtime.
    pub fn add_peers(&self, peers: impl IntoIterator<Item = PeerId>) {
        let own = self.0.host.local_peer_id();
        let runtime = Runtime::current();
        // What lists them is the caller's, and may call us.
        let peers: Vec<PeerId> = peers.into_iter().filter(|peer| *peer != own).collect();
        let (mut failed, mut later) = (Vec::new(), Vec::new());
        // Dropped before the others, also by a panic: what is done later may call us.
        let mut known = self.0.lock();
        for peer in peers {
            for (at, config) in self.0.configs.iter().enumerate() {
                if let Some(known) = known.get_mut(&(peer, at)) {
                    known.registrations += 1;
                    continue;
                }
                let (name, limits) = (config.stream_name(), config.limits());
                match self.0.host.open_under_a_lock(peer, &name, Priority::Default, limits) {
                    Ok((stream, then)) => {
                        later.push(then);
                        known.insert((peer, at), Peer::start(&runtime, Stream::new(stream), config));
                    }
                    Err(error) => failed.push((peer, error)),
                }
            }
        }
        drop(known);
        drop(later);
        for (peer, error) in failed {
            tracing::warn!(%peer, %error, "its latency is not measured");
        }
    }

    /// Takes back as many additions of peers. With the last one of a peer its measuring ends and its metrics are gone.
    pub fn remove_peers(&self, peers: impl IntoIterator<Item = PeerId>) {
        let peers: Vec<PeerId> = peers.into_iter().collect();
        let mut known = self.0.lock();
        for peer in peers {
            for at in 0..self.0.configs.len() {
                if let Some(entry) = known.get_mut(&(peer, at)) {
                    entry.registrations -= 1;
                    if entry.registrations == 0 {
                        known.remove(&(peer, at));
                    }
                }
            }
        }
    }

    /// Renders what is measured. Once for each registry.
    ///
    /// # Errors
    ///
    /// [`AlreadyRegistered`] if the registry has one of the names. To find that out it is rendered
    /// once, which calls its collectors. A collector that describes nothing stays in it, also after
    /// an error.
    pub fn register(&self, registry: &mut Registry) -> Result<(), AlreadyRegistered> {
        registered::register(registry, |registry| {
            registry.register_collector(Box::new(RagepingCollector(Arc::downgrade(&self.0))));
        })
    }
}

impl fmt::Debug for Rageping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rageping")
            .field("configs", &self.0.configs)
            .field("streams", &self.0.lock().len())
            .finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(PeerId, usize), Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn start(runtime: &Runtime, stream: Stream, config: &Config) -> Self {
        let counted = Arc::new(Counted {
            latency: Histogram::new(config.buckets.iter().copied()),
            sent: Counter::default(),
            received: Counter::default(),
            timed_out: Counter::default(),
            invalid: Counter::default(),
        });
        let mut random = chance();
        let pinger = Pinger::new(Instant::now(), config, &mut random);
        let task = runtime
            .spawn(run(stream, pinger, random, counted.clone()))
            .abort_handle();
        Self {
            registrations: 1,
            task,
            counted,
        }
    }
}

/// Until the stream is closed.
async fn run(stream: Stream, mut pinger: Pinger, mut random: StdRng, counted: Arc<Counted>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(pinger.due().into()) => {
                match pinger.on_time(Instant::now(), &mut random) {
                    Some(Due::Send(ping)) => {
                        stream.send(ping);
                        counted.sent.inc();
                    }
                    Some(Due::TimedOut) => _ = counted.timed_out.inc(),
                    None => {}
                }
            }
            message = stream.recv() => {
                let Some(message) = message else { return };
                match pinger.on_message(Instant::now(), &message, &mut random) {
                    Received::Ping(pong) => {
                        counted.received.inc();
                        stream.send(pong.to_vec());
                    }
                    Received::Pong(latency) => counted.latency.observe(latency.as_secs_f64()),
                    Received::Invalid => _ = counted.invalid.inc(),
                }
            }
        }
    }
}

type Of = fn(&Counted) -> &Counter;

struct RagepingCollector(Weak<Shared>);

impl fmt::Debug for RagepingCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RagepingCollector")
    }
}

impl Collector for RagepingCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(shared) = self.0.upgrade() else { return Ok(()) };
        let host = shared.host.local_peer_id().to_string();
        let labels = |(peer, at): &(PeerId, usize)| {
            let config = &shared.configs[*at];
            [
                ("peer_id", host.clone()),
                ("remote_peer_id", peer.to_string()),
                ("ping_size", config.size.to_string()),
                ("min_period", go_duration(config.min)),
                ("max_period", go_duration(config.max)),
                ("timeout", go_duration(config.timeout)),
            ]
        };
        // Not under the lock: what takes the text is the caller's, and may call us.
        let peers: Vec<_> = {
            let peers = shared.lock();
            let entries = peers.iter();
            entries
                .map(|(key, entry)| (labels(key), entry.counted.clone()))
                .collect()
        };
        // Always there: a second registration is found by it.
        let streams = ConstGauge::new(i64::try_from(peers.len()).unwrap_or(i64::MAX));
        let help = "Streams that round trips are measured over";
        let mut metric = encoder.encode_descriptor("knock_host_rageping_streams", help, None, MetricType::Gauge)?;
        streams.encode(metric.encode_family(&[("peer_id", host.as_str())])?)?;
        // A name without a sample would be rendered otherwise.
        if peers.is_empty() {
            return Ok(());
        }
        let mut metric = encoder.encode_descriptor(
            "rageping_round_trip_latency_seconds",
            "From sending a ping to receiving its pong",
            None,
            MetricType::Histogram,
        )?;
        for (labels, counted) in &peers {
            counted.latency.encode(metric.encode_family(labels)?)?;
        }
        let counters: [(&str, &str, Of); 4] = [
            ("rageping_sent_requests", "Pings sent to the remote peer", |counted| {
                &counted.sent
            }),
            (
                "rageping_received_requests",
                "Pings received from the remote peer",
                |counted| &counted.received,
            ),
            (
                "rageping_timed_out_requests",
                "Pings sent to the remote peer that were not answered in time",
                |counted| &counted.timed_out,
            ),
            (
                "rageping_invalid_messages_received",
                "Other messages; a few are to be expected when connections are lost",
                |counted| &counted.invalid,
            ),
        ];
        for (name, help, of) in counters {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, counted) in &peers {
                of(counted).encode(metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

/// As Go prints a duration: `10s`, `2m0s`, `1h0m0.5s`, `100ms`, `1.5µs`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |whole: u128, rest: u128, digits: usize| {
        let text = format!("{whole}.{rest:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos / 1_000, nanos % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos / 1_000_000, nanos % 1_000_000, 6)),
        _ => {
            let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
            let last = format!("{}s", fraction(seconds % 60, rest, 9));
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => last,
                (0, minutes) => format!("{minutes}m{last}"),
                (hours, minutes) => format!("{hours}h{minutes}m{last}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_printed_as_go_prints_it() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_234_567, "1.234567ms"),
            (10_000_000_000, "10s"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (150_000_000_000, "2m30s"),
            (3_600_500_000_000, "1h0m0.5s"),
            (360_000_000_000_001, "100h0m0.000000001s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn the_streams_are_called_as_in_the_original() {
        let [small, large] = Config::defaults();
        assert_eq!(small.stream_name(), "ping-pong-(20|10s|20s|10s)");
        assert_eq!(large.stream_name(), "ping-pong-(204800|2m0s|3m0s|30s)");
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused() {
        let second = Duration::from_secs(1);
        assert_eq!(Config::new(19, second, second, second), Err(ConfigError::Size(19)));
        assert_eq!(
            Config::new((1 << 30) + 1, second, second, second),
            Err(ConfigError::Size((1 << 30) + 1))
        );
        for (min, max) in [(Duration::ZERO, second), (second * 2, second)] {
            assert_eq!(Config::new(20, min, max, second), Err(ConfigError::Period { min, max }));
        }
    }
}
