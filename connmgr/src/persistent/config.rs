//! What can be set, with its bounds.

use std::num::NonZeroUsize;
use std::time::Duration;

/// How wanted peers are kept. Values out of bounds are moved to the nearest bound, as each setter says.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) min_interval: Duration,
    pub(crate) max_interval: Duration,
    pub(crate) jitter: f64,
    pub(crate) stable: Duration,
    pub(crate) simultaneous: Duration,
    pub(crate) settle: Duration,
    pub(crate) one_connection: bool,
    pub(crate) max_dials: NonZeroUsize,
    pub(crate) target: usize,
    pub(crate) max_known: usize,
    pub(crate) probes: Option<Probes>,
    pub(crate) seed: Option<u64>,
}

/// How a kept connection is asked whether it still answers. See [`Config::with_probes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probes {
    /// From one answer to the next question.
    pub interval: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
}

impl Config {
    /// The shortest interval that [`with_min_interval`](Self::with_min_interval) takes.
    pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

    /// The defaults, which stand beside each setter.
    pub fn new() -> Self {
        Self::default()
    }

    /// At least this long between two dials of one peer; after a first failure, the pause. Default 1 s, at least 10 ms.
    pub fn with_min_interval(mut self, interval: Duration) -> Self {
        self.min_interval = interval.max(Self::SHORTEST_INTERVAL);
        self
    }

    /// Each failure doubles the pause, up to this. Default 5 min; less than the minimum counts as the minimum.
    pub fn with_max_interval(mut self, interval: Duration) -> Self {
        self.max_interval = interval;
        self
    }

    /// A pause is made longer by a random part of this fraction of it, so that many that lost the same peer do not come
    /// back in one moment. Default 0.3; 0 to 1, and what is no number counts as 0.
    pub fn with_jitter(mut self, fraction: f64) -> Self {
        self.jitter = if fraction.is_nan() {
            0.0
        } else {
            fraction.clamp(0.0, 1.0)
        };
        self
    }

    /// A connection that lasted this long ends the series of failures before it: its loss is answered by a dial at once.
    /// One that did not counts as a failure, or a peer that accepts and hangs up would be dialled without pause. Default
    /// 10 s.
    pub fn with_stable(mut self, after: Duration) -> Self {
        self.stable = after;
        self
    }

    /// Connections that come up within this time of each other are taken for simultaneous dials. Default 10 s, which is
    /// how long the Swarm gives a dial.
    pub fn with_simultaneous(mut self, within: Duration) -> Self {
        self.simultaneous = within;
        self
    }

    /// How long the end that does not close duplicates waits for the end that does. Default 5 s.
    pub fn with_settle(mut self, wait: Duration) -> Self {
        self.settle = wait;
        self
    }

    /// Whether duplicates are closed at all. Default `true`.
    pub fn with_one_connection(mut self, one: bool) -> Self {
        self.one_connection = one;
        self
    }

    /// Dials of this behaviour at a time; more wait their turn. Default 16. Each dials all addresses of a peer.
    pub fn with_max_dials(mut self, dials: NonZeroUsize) -> Self {
        self.max_dials = dials;
        self
    }

    /// Dials peers met before, or named by [`add_known`](super::Behaviour::add_known), while fewer peers than this are
    /// connected, whoever dialled them. Default 0: none.
    ///
    /// Not more than the manager's low watermark, or it trims what this dials.
    pub fn with_target_connections(mut self, peers: usize) -> Self {
        self.target = peers;
        self
    }

    /// How many peers without a connection are remembered for the target, the longest without one forgotten first.
    /// Default 1,024, some 2 KiB each at most. Wanted peers do not count.
    pub fn with_max_known(mut self, peers: usize) -> Self {
        self.max_known = peers;
        self
    }

    /// Every so often a kept connection is asked for a protocol, and any answer, a refusal too, proves that there is
    /// somebody. Without one the connection is closed and the peer dialled anew. Default: 15 s after the last answer,
    /// with 20 s for the next. `None` relies on the transport, and TCP takes a quarter of an hour to notice that nobody
    /// acknowledges, and for ever if there is nothing to send.
    pub fn with_probes(mut self, probes: impl Into<Option<Probes>>) -> Self {
        self.probes = probes.into();
        self
    }

    /// Makes the jitter repeatable. Default: random.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_secs(1),
            max_interval: Duration::from_secs(300),
            jitter: 0.3,
            stable: Duration::from_secs(10),
            simultaneous: Duration::from_secs(10),
            settle: Duration::from_secs(5),
            one_connection: true,
            max_dials: NonZeroUsize::MIN.saturating_add(15),
            target: 0,
            max_known: 1024,
            probes: Some(Probes {
                interval: Duration::from_secs(15),
                timeout: Duration::from_secs(20),
            }),
            seed: None,
        }
    }
}
