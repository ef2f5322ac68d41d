//! What can be set, with its bounds.

use libp2p_swarm::ConnectionDenied;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
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
    pub(crate) keep_alive_interval: Option<Duration>,
    pub(crate) probes: Option<Probes>,
    pub(crate) denied_for: Option<DeniedFor>,
    pub(crate) seed: Option<u64>,
}

/// What [`Config::with_denied_for`] has set.
#[derive(Clone)]
pub(crate) struct DeniedFor(pub(crate) Arc<Wait>);

type Wait = dyn Fn(&ConnectionDenied) -> Option<Duration> + Send + Sync;

impl fmt::Debug for DeniedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeniedFor")
    }
}

/// How a kept connection is asked whether it still answers. See [`Config::with_probes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probes {
    /// From one answer to the next question, at most. At least 10 ms.
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

    /// A connection that lasted this long ends the series of failures before it: its loss is
    /// answered by a dial at once. One that did not counts as a failure, or a peer that accepts and
    /// hangs up would be dialled without pause. Default 10 s.
    ///
    /// That holds for one loss in a row. Until a connection has lasted six times as long, further
    /// losses count as failures too: a peer that closes every connection after a while is dialled
    /// less and less often.
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

    /// How long a second connection must have carried no stream before the end with the smaller id
    /// closes it. The other end waits half as long again. Default 3 s, at least 10 ms.
    ///
    /// A connection that carries streams is not closed, however long that takes; only one that
    /// leaves a question unanswered is. Questions of this behaviour and of the manager do not count,
    /// nor streams that the Swarm is told to ignore, as ping's.
    pub fn with_settle(mut self, unused: Duration) -> Self {
        self.settle = unused.max(Self::SHORTEST_INTERVAL);
        self
    }

    /// Whether second connections are given up. Default `true`. With `false` all connections of a
    /// wanted peer are kept.
    pub fn with_one_connection(mut self, one: bool) -> Self {
        self.one_connection = one;
        self
    }

    /// Dials of this behaviour at a time; more wait their turn. Default 16. Each tries eight
    /// addresses of a peer at most, and those that other behaviours know.
    pub fn with_max_dials(mut self, dials: NonZeroUsize) -> Self {
        self.max_dials = dials;
        self
    }

    /// Dials peers met before, or named by [`add_known`](super::Behaviour::add_known), while fewer peers than this are
    /// connected, of either direction. Default 0: no target.
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

    /// The time between two questions to a kept peer, each of which restarts its idle timeout.
    /// Default 6 s, at least 10 ms.
    ///
    /// A wanted peer stays connected if its idle timeout is longer than this by the time that a
    /// stream takes to arrive; libp2p's default is 10 s. A peer that runs this crate too is asked
    /// once and then holds the stream: its timeout has only to outlast the first question, which
    /// comes after a sixth of this. `None` asks no questions: then the peer decides by itself. A
    /// question and its refusal take some 180 bytes, see the README.
    pub fn with_keep_alive_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.keep_alive_interval = interval.into();
        self
    }

    /// How a peer is noticed that does not answer any more. Default: asked 15 s after the last
    /// answer or earlier, with 20 s for the next.
    ///
    /// Any answer to a question proves that the peer is there, a refusal too. Without one in time
    /// the connection is closed and the peer dialled anew, also if the connection is only slow: the
    /// timeout has to be longer than a full queue takes to drain. `None` relies on the transport:
    /// TCP takes a quarter of an hour to notice that its segments are not acknowledged, and for
    /// ever if there is nothing to send. A connection is still asked, with 20 s, when another one
    /// comes up.
    ///
    /// A connection whose streams are all in use cannot be asked. It stays, and is asked again after
    /// the interval; until then the transport alone notices that the peer is gone.
    pub fn with_probes(mut self, probes: impl Into<Option<Probes>>) -> Self {
        self.probes = probes.into();
        self
    }

    /// Tells for how long a denied dial is of no use: for a gate's back-off, for instance. A dial
    /// that this Swarm has denied is no failure of the peer.
    ///
    /// The closure gets what the Swarm was told, and looks for the errors that it knows. Where it
    /// returns `None`, or is not set, the dial is tried again after a pause that doubles from the
    /// minimum interval: up to 15 s where nothing was sent, and up to the maximum interval where a
    /// connection had been made before it was denied. It is called in the Swarm's task, under no
    /// lock: a slow one holds up the Swarm. A panic is caught and logged, and counts as `None`.
    ///
    /// ```
    /// use libp2p_connmgr::persistent::Config;
    /// use libp2p_swarm::ConnectionDenied;
    /// # #[derive(Debug, thiserror::Error)] #[error("later")] struct BackedOff { left: std::time::Duration }
    ///
    /// // libp2p-gater's error says `left`.
    /// let config = Config::new().with_denied_for(|denied: &ConnectionDenied| {
    ///     denied.downcast_ref::<BackedOff>().map(|backed_off| backed_off.left)
    /// });
    /// ```
    pub fn with_denied_for(
        mut self,
        wait: impl Fn(&ConnectionDenied) -> Option<Duration> + Send + Sync + 'static,
    ) -> Self {
        self.denied_for = Some(DeniedFor(Arc::new(wait)));
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
            settle: Duration::from_secs(3),
            one_connection: true,
            max_dials: NonZeroUsize::MIN.saturating_add(15),
            target: 0,
            max_known: 1024,
            keep_alive_interval: Some(Duration::from_secs(6)),
            probes: Some(Probes {
                interval: Duration::from_secs(15),
                timeout: Duration::from_secs(20),
            }),
            denied_for: None,
            seed: None,
        }
    }
}
