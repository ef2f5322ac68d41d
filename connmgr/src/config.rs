//! What a manager is told to do.

use crate::core::Clock;
use crate::info::Candidate;
use crate::metrics::Metrics;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use web_time::Instant;

pub(crate) type Order = Arc<dyn Fn(&Candidate) -> (i64, i64) + Send + Sync>;
pub(crate) type Closer = Arc<dyn Fn(PeerId, ConnectionId, &'static str) + Send + Sync>;

/// The settings of a manager.
///
/// Durations of more than 584 years are 584 years.
#[derive(Clone)]
pub struct Config {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) hard_limit: Option<usize>,
    pub(crate) target: TrimTarget,
    pub(crate) grace: Duration,
    pub(crate) silence: Duration,
    pub(crate) close_deadline: Duration,
    pub(crate) keep_alive: KeepAlive,
    pub(crate) keep_alive_interval: Option<Duration>,
    pub(crate) early_for: Duration,
    pub(crate) max_early: usize,
    pub(crate) max_tags: usize,
    /// For how long, and for how many peers.
    pub(crate) retention: Option<(Duration, usize)>,
    pub(crate) decay_resolution: Duration,
    pub(crate) order: Option<Order>,
    pub(crate) closer: Option<Closer>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
}

/// Which number a trim brings down to the low watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TrimTarget {
    /// The connections of candidates: peers that are neither protected nor in grace. What is protected or in grace comes
    /// on top. go-libp2p counts like this.
    #[default]
    Eligible,
    /// All connections, as far as candidates last: afterwards there are no more than the low watermark, or than
    /// what is protected and in grace, whichever is more.
    Total,
}

/// Which connections the manager keeps alive, past the Swarm's idle timeout and past the other
/// end's.
///
/// For the other end this depends on its idle timeout: see [`Config::with_keep_alive_interval`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeepAlive {
    /// Those of protected peers and of peers in use.
    #[default]
    Protected,
    /// All of them: then only trims, the other program and other behaviours end a connection.
    All,
    /// None of them, nor for the other end if that asks.
    None,
}

impl Config {
    /// Trims from `high` connections down to `low`. go-libp2p's hosts use 160 and 192.
    ///
    /// # Errors
    ///
    /// A mark of zero, or a low one above the high one. For a manager that never trims: [`Self::disabled`].
    pub fn new(low: usize, high: usize) -> Result<Self, ConfigError> {
        if low == 0 || high == 0 {
            return Err(ConfigError::ZeroWatermark { low, high });
        }
        if low > high {
            return Err(ConfigError::LowAboveHigh { low, high });
        }
        Ok(Self {
            low,
            high,
            ..Self::disabled()
        })
    }

    /// Keeps the books and protects, but never trims, neither by itself nor on demand.
    pub fn disabled() -> Self {
        Self {
            low: 0,
            high: 0,
            hard_limit: None,
            target: TrimTarget::default(),
            grace: Duration::from_secs(60),
            silence: Duration::from_secs(10),
            close_deadline: Duration::from_secs(10),
            keep_alive: KeepAlive::default(),
            keep_alive_interval: Some(Duration::from_secs(7)),
            early_for: Duration::from_secs(60),
            max_early: 16_384,
            max_tags: 1_024,
            retention: None,
            decay_resolution: Duration::from_secs(60),
            order: None,
            closer: None,
            clock: Clock::new(None),
            metrics: Metrics::none(),
        }
    }

    pub(crate) fn trims(&self) -> bool {
        self.low > 0
    }

    /// Which number a trim brings down to the low watermark. Default [`TrimTarget::Eligible`].
    pub fn with_trim_target(mut self, target: TrimTarget) -> Self {
        self.target = target;
        self
    }

    /// The most connections at a time. Default: none.
    ///
    /// Every established connection counts, also while it is being closed; one in its handshake
    /// does not. Below the limit every newcomer comes in. At the limit it takes the place of the
    /// least valuable peer, if that is worth less: a protected newcomer is worth more than all that
    /// are not, then the higher value counts, then a dialled connection counts more than an
    /// accepted one. Grace does not help here, or strangers that keep coming would keep friends
    /// out. If no peer is worth less the newcomer is denied with
    /// [`HardLimitReached`](crate::HardLimitReached). The peer that goes is the least valuable of
    /// at most 8,192 that are looked at, so that one newcomer costs no more than that.
    ///
    /// The other peer is closed when the newcomer is in: one that another behaviour denies costs no
    /// peer its place, whatever the order of the behaviours. While connections close there may be
    /// more than `connections` in all, but no more than an eighth (at least one); then newcomers of
    /// any worth are denied. Without those that close there are never more than `connections`.
    ///
    /// # Errors
    ///
    /// A limit below the high watermark: trimming would never begin.
    pub fn with_hard_limit(mut self, connections: usize) -> Result<Self, ConfigError> {
        if connections == 0 || connections < self.high {
            return Err(ConfigError::HardLimit {
                connections,
                high: self.high,
            });
        }
        self.hard_limit = Some(connections);
        Ok(self)
    }

    /// How long a peer is spared after it was first seen. Default 1 minute; zero spares nobody.
    ///
    /// Grace belongs to the peer, not to the connection: a second connection has none of its own. A
    /// peer that comes back within this time of leaving, or within the retention if that is longer,
    /// goes on with what was left. A later return begins a new grace. The same holds for peers that
    /// were protected or tagged while they were away.
    pub fn with_grace_period(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The time between two background trims at least. Default 10 s. Trims on demand do not wait for it.
    ///
    /// # Errors
    ///
    /// Zero.
    pub fn with_silence_period(mut self, silence: Duration) -> Result<Self, ConfigError> {
        if silence.is_zero() {
            return Err(ConfigError::ZeroSilence);
        }
        self.silence = silence;
        Ok(self)
    }

    /// How long a trim waits for the connections that it closes; what is left is reported as stuck. Default 10 s.
    pub fn with_close_deadline(mut self, deadline: Duration) -> Self {
        self.close_deadline = deadline;
        self
    }

    /// Which connections to keep alive past the idle timeouts of both ends. Default
    /// [`KeepAlive::Protected`].
    ///
    /// A Swarm closes a connection without streams after 10 s by default, which keeps most nodes
    /// below any watermark: then there is nothing to trim. Choose [`KeepAlive::All`], or set
    /// `libp2p_swarm::Config::with_idle_connection_timeout` at both ends, for the watermarks to
    /// decide. What the other end's timeout has to be is with
    /// [`with_keep_alive_interval`](Self::with_keep_alive_interval).
    pub fn with_keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// The time between two questions to the other end of a kept connection, each of which restarts
    /// its idle timeout. Default 7 s, at least 10 ms.
    ///
    /// A connection is kept at both ends if the other end's idle timeout is longer than this by the
    /// time that a stream takes to arrive; libp2p's default is 10 s. An end that runs this crate
    /// too is asked once and then holds the stream: its timeout has only to outlast the first
    /// question, which comes after a sixth of this. `None` asks no questions: then the other end
    /// decides by itself. A question and its refusal take some 180 bytes, see the README.
    ///
    /// Wanted peers are asked by [`PersistentPeers`](crate::PersistentPeers), a second earlier by
    /// default: where that asks, the manager has no need to.
    pub fn with_keep_alive_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.keep_alive_interval = interval.into();
        self
    }

    /// Tags of peers that never were connected: how long they last, and for how many peers. Default 1 minute, 16,384 peers.
    ///
    /// A trim that closes connections also removes early tags that are older than the grace period.
    /// Tags of a protected peer stay; their time begins when the protection ends.
    ///
    /// Beyond that the oldest go, of the same 256th of all peers where possible. About 500 bytes each at most, beside long
    /// tag names. The bound also holds for peers whose grace is remembered after they have gone.
    pub fn with_early_tags(mut self, last: Duration, peers: usize) -> Self {
        self.early_for = last;
        self.max_early = peers;
        self
    }

    /// Keeps a peer's tags for `last` after its last connection has closed, for at most `peers` peers. Default: they go at once,
    /// as in go-libp2p.
    ///
    /// A tag that is set meanwhile goes with the others. Tags of a protected peer stay; `last`
    /// begins when the protection ends.
    pub fn with_retention(mut self, last: Duration, peers: usize) -> Self {
        self.retention = Some((last, peers));
        self
    }

    /// Most tags of one peer, plain and decaying together. Default 1,024. Others are ignored, and counted.
    pub fn with_max_tags(mut self, tags: usize) -> Self {
        self.max_tags = tags;
        self
    }

    /// The grid on which decaying tags tick. Default 1 minute; shorter intervals are raised to it. Zero is a nanosecond.
    pub fn with_decay_resolution(mut self, resolution: Duration) -> Self {
        self.decay_resolution = resolution;
        self
    }

    /// Replaces the order in which peers are trimmed: the smallest pair goes first. Peers with equal pairs are told apart
    /// by the longer time without traffic, where it is counted, and then by age: the youngest goes first.
    ///
    /// The default is the pair of the value, and of how little the peer is used: without streams before with, with an
    /// inbound connection before dialled only, fewer streams before more. Under memory pressure
    /// ([`Manager::force_trim`](crate::Manager::force_trim)) more streams go before fewer.
    ///
    /// The closure is asked once for each candidate of each trim, and at the hard limit about the
    /// newcomer and the peer that would go for it. It runs in the Swarm's task, under no lock: a
    /// slow one holds up the Swarm. [`Manager::explain`](crate::Manager::explain) asks it on its
    /// caller's thread. It may call the manager; an explanation that it asks for takes every pair
    /// for `(0, 0)`. If it panics the peer counts as `(0, 0)`.
    pub fn with_order(mut self, order: impl Fn(&Candidate) -> (i64, i64) + Send + Sync + 'static) -> Self {
        self.order = Some(Arc::new(order));
        self
    }

    /// Lets `closer` close what is trimmed, for instance after telling the peer why. It gets the
    /// peer, the connection, and the reason as one word. It is called in the Swarm's task, under no
    /// lock, once for each connection, and must not block. It may call the manager. A connection
    /// that is still there 2 s later is closed without it. If it panics, the peer's connections are
    /// closed at once.
    pub fn with_closer(mut self, closer: impl Fn(PeerId, ConnectionId, &'static str) + Send + Sync + 'static) -> Self {
        self.closer = Some(Arc::new(closer));
        self
    }

    /// Takes the time from `now`, for tests. The behaviour's timer is a real one: after moving the
    /// clock, wake the Swarm by [`Manager::trim_open_conns`](crate::Manager::trim_open_conns) or
    /// any event.
    ///
    /// Every call of the manager, and the Swarm's task, asks it, under no lock. While it goes back,
    /// panics, or calls the manager, the time stands still.
    pub fn with_clock(mut self, now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(Some(Arc::new(now)));
        self
    }

    /// Counts into `registry`, under `libp2p_connmgr`. Each label that there can be is there from
    /// here on, at zero. A registry takes one configuration: two in one process have a registry
    /// each, or a sub-registry with a prefix of its own each.
    ///
    /// A Swarm that is made anew in the same process takes a clone of this configuration, not
    /// another registration: the counters go on, and the gauges are the new manager's as soon as
    /// the old behaviour is gone. With the last clone and the last behaviour the metrics leave the
    /// scrape, and the registry takes another configuration.
    ///
    /// # Errors
    ///
    /// [`AlreadyRegistered`](crate::AlreadyRegistered) if the registry has one of the names. To
    /// find that out it is rendered once, which calls its collectors. A collector that describes
    /// nothing stays in it, also after an error.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn with_metrics(
        mut self,
        registry: &mut prometheus_client::registry::Registry,
    ) -> Result<Self, crate::AlreadyRegistered> {
        self.metrics = Metrics::register(registry)?;
        Ok(self)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("low", &self.low)
            .field("high", &self.high)
            .field("hard_limit", &self.hard_limit)
            .field("target", &self.target)
            .field("grace", &self.grace)
            .field("silence", &self.silence)
            .field("keep_alive", &self.keep_alive)
            .field("retention", &self.retention)
            .field("order", &self.order.is_some())
            .field("closer", &self.closer.is_some())
            .finish_non_exhaustive()
    }
}

/// Why a configuration makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The hard limit is zero or below the high watermark.
    #[error("a hard limit of {connections} connections is below the high watermark {high}, or zero")]
    HardLimit {
        /// The limit.
        connections: usize,
        /// The high watermark.
        high: usize,
    },
    /// The low watermark is above the high one.
    #[error("the low watermark {low} is above the high watermark {high}")]
    LowAboveHigh {
        /// The low watermark.
        low: usize,
        /// The high watermark.
        high: usize,
    },
    /// A silence period of zero.
    #[error("a silence period of zero would trim without end")]
    ZeroSilence,
    /// A watermark is zero.
    #[error("the watermarks {low} and {high} must not be zero; Config::disabled() never trims")]
    ZeroWatermark {
        /// The low watermark.
        low: usize,
        /// The high watermark.
        high: usize,
    },
}

/// [`Manager::check_limit`](crate::Manager::check_limit): the manager would let more connections live than the system does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection manager's limit of {manager} connections is above the system's of {system}")]
#[non_exhaustive]
pub struct LimitError {
    /// The manager's hard limit, or its high watermark if it has none.
    pub manager: usize,
    /// The system's limit.
    pub system: usize,
}
