//! What is counted. Without the `metrics` feature every method here is empty and costs nothing.

use crate::error::Error;
use crate::knock::Refusal;
use crate::stream::Role;
use std::time::Duration;

/// What became of one knock, or of a socket that was to send one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum KnockOutcome {
    Accepted,
    Denied,
    /// Others needed the buffer for its flight.
    Displaced,
    Evicted,
    Incomplete,
    Refused(Refusal),
    Timeout,
}

/// What became of one dial or one handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Ok,
    Certificate,
    Closed,
    Denied,
    Inner,
    Other,
    Timeout,
    Tls,
    WrongPeer,
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Self {
        match error {
            Error::Certificate(_) => Self::Certificate,
            Error::Closed => Self::Closed,
            Error::Denied(_) => Self::Denied,
            Error::Inner(_) => Self::Inner,
            Error::Timeout(_) => Self::Timeout,
            Error::Tls(_) => Self::Tls,
            Error::WrongPeer { .. } => Self::WrongPeer,
            _ => Self::Other,
        }
    }
}

#[cfg(not(feature = "metrics"))]
pub(crate) use absent::Metrics;
#[cfg(feature = "metrics")]
pub(crate) use present::Metrics;

#[cfg(not(feature = "metrics"))]
mod absent {
    use super::*;

    #[derive(Clone)]
    pub(crate) struct Metrics;

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self
        }
        pub(crate) fn accepted(&self) {}
        pub(crate) fn waiting(&self, _: usize) {}
        pub(crate) fn knock(&self, _: KnockOutcome) {}
        pub(crate) fn dial(&self, _: Outcome) {}
        pub(crate) fn handshake(&self, _: Role, _: Outcome, _: &'static str, _: Duration) {}
        pub(crate) fn read(&self, _: usize) {}
        pub(crate) fn written(&self, _: usize) {}
    }
}

#[cfg(feature = "metrics")]
mod present {
    use super::*;
    use crate::user_code::{Hook, UserCode};
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
    use prometheus_client::metrics::MetricType;
    use prometheus_client::metrics::counter::ConstCounter;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
    use prometheus_client::registry::{Registry, Unit};
    use std::sync::Arc;

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct OutcomeLabel {
        outcome: &'static str,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct HandshakeLabel {
        role: &'static str,
        outcome: &'static str,
        group: &'static str,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct RoleLabel {
        role: &'static str,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct DirectionLabel {
        direction: &'static str,
    }

    /// Shows what [`UserCode`] counts. Every hook has a value from registration on.
    #[derive(Debug)]
    struct HookPanics(UserCode);

    impl Collector for HookPanics {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            let help = "Panics in hooks of the user's, which count as denials";
            let mut family = encoder.encode_descriptor("hook_panics", help, None, MetricType::Counter)?;
            for hook in Hook::ALL {
                let label = HookLabel { hook: hook.name() };
                ConstCounter::new(self.0.panics(hook)).encode(family.encode_family(&label)?)?;
            }
            Ok(())
        }
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct HookLabel {
        hook: &'static str,
    }

    /// Cheap to clone; every clone counts into the same registry, or into none.
    #[derive(Clone)]
    pub(crate) struct Metrics(Option<Arc<Registered>>);

    struct Registered {
        accepts: Counter,
        waiting: Gauge,
        knocks: Family<OutcomeLabel, Counter>,
        dials: Family<OutcomeLabel, Counter>,
        handshakes: Family<HandshakeLabel, Counter>,
        durations: Family<RoleLabel, Histogram>,
        bytes: Family<DirectionLabel, Counter>,
        received: Counter,
        sent: Counter,
    }

    impl Registered {
        fn new() -> Arc<Self> {
            let bytes = Family::<DirectionLabel, Counter>::default();
            let direction = |direction| bytes.get_or_create_owned(&DirectionLabel { direction });
            Arc::new(Self {
                accepts: Counter::default(),
                waiting: Gauge::default(),
                knocks: Family::default(),
                dials: Family::default(),
                handshakes: Family::default(),
                // 0.5 ms to 4 s: from a handshake on the loopback to the default deadline.
                durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 14))),
                received: direction("received"),
                sent: direction("sent"),
                bytes,
            })
        }
    }

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self(None)
        }

        /// Registers what is counted, which goes on counting into every registry that it was in
        /// before.
        pub(crate) fn register(&self, registry: &mut Registry, user_code: &UserCode) -> Self {
            let registry = registry.sub_registry_with_prefix("libp2p_knock");
            let this = self.0.clone().unwrap_or_else(Registered::new);
            registry.register("accepts", "Sockets accepted, before any knock", this.accepts.clone());
            registry.register(
                "sockets_waiting",
                "Sockets that have not authenticated",
                this.waiting.clone(),
            );
            registry.register(
                "knocks",
                "Knocks and sockets without one, by what became of them",
                this.knocks.clone(),
            );
            registry.register("dials", "Finished dials, by what became of them", this.dials.clone());
            registry.register(
                "handshakes",
                "TLS handshakes, by our role, what became of them and the key-exchange group",
                this.handshakes.clone(),
            );
            registry.register_with_unit(
                "handshake_duration",
                "From a valid knock, or from the connected socket, to the end of TLS",
                Unit::Seconds,
                this.durations.clone(),
            );
            registry.register_with_unit(
                "wire",
                "Bytes on authenticated connections, knock, handshake and TLS overhead included",
                Unit::Bytes,
                this.bytes.clone(),
            );
            registry.register_collector(Box::new(HookPanics(user_code.clone())));
            Self(Some(this))
        }

        pub(crate) fn accepted(&self) {
            if let Some(this) = &self.0 {
                this.accepts.inc();
            }
        }

        pub(crate) fn waiting(&self, sockets: usize) {
            if let Some(this) = &self.0 {
                this.waiting.set(i64::try_from(sockets).unwrap_or(i64::MAX));
            }
        }

        pub(crate) fn knock(&self, outcome: KnockOutcome) {
            if let Some(this) = &self.0 {
                let outcome = match outcome {
                    KnockOutcome::Accepted => "accepted",
                    KnockOutcome::Denied => "denied",
                    KnockOutcome::Displaced => "displaced",
                    KnockOutcome::Evicted => "evicted",
                    KnockOutcome::Incomplete => "incomplete",
                    KnockOutcome::Timeout => "timeout",
                    KnockOutcome::Refused(Refusal::Version(_)) => "refused_version",
                    KnockOutcome::Refused(Refusal::SelfDial) => "refused_self",
                    KnockOutcome::Refused(Refusal::Key) => "refused_key",
                    KnockOutcome::Refused(Refusal::Signature) => "refused_signature",
                    KnockOutcome::Refused(Refusal::Box) => "refused_box",
                    KnockOutcome::Refused(Refusal::Replayed) => "refused_replayed",
                    KnockOutcome::Refused(Refusal::Budget) => "refused_budget",
                    KnockOutcome::Refused(Refusal::NotConfigured) => "refused_not_configured",
                    KnockOutcome::Refused(Refusal::Noise) => "refused_noise",
                    KnockOutcome::Refused(Refusal::Time) => "refused_time",
                    KnockOutcome::Refused(Refusal::Floor) => "refused_floor",
                    KnockOutcome::Refused(Refusal::Reserved | Refusal::Mode(_) | Refusal::FlightLength(_)) => {
                        "refused_payload"
                    }
                    KnockOutcome::Refused(
                        Refusal::Flight | Refusal::Hello | Refusal::TlsVersion | Refusal::KeyShare,
                    ) => "refused_flight",
                };
                this.knocks.get_or_create(&OutcomeLabel { outcome }).inc();
            }
        }

        pub(crate) fn dial(&self, outcome: Outcome) {
            if let Some(this) = &self.0 {
                let outcome = name(outcome);
                this.dials.get_or_create(&OutcomeLabel { outcome }).inc();
            }
        }

        /// `group` is empty when the handshake did not get that far.
        pub(crate) fn handshake(&self, role: Role, outcome: Outcome, group: &'static str, took: Duration) {
            if let Some(this) = &self.0 {
                let role = match role {
                    Role::Dialer => "dialer",
                    Role::Listener => "listener",
                };
                let label = HandshakeLabel {
                    role,
                    outcome: name(outcome),
                    group,
                };
                this.handshakes.get_or_create(&label).inc();
                if outcome == Outcome::Ok {
                    this.durations
                        .get_or_create(&RoleLabel { role })
                        .observe(took.as_secs_f64());
                }
            }
        }

        pub(crate) fn read(&self, bytes: usize) {
            if let Some(this) = &self.0 {
                this.received.inc_by(bytes as u64);
            }
        }

        pub(crate) fn written(&self, bytes: usize) {
            if let Some(this) = &self.0 {
                this.sent.inc_by(bytes as u64);
            }
        }
    }

    fn name(outcome: Outcome) -> &'static str {
        match outcome {
            Outcome::Ok => "ok",
            Outcome::Certificate => "certificate",
            Outcome::Closed => "closed",
            Outcome::Denied => "denied",
            Outcome::Inner => "connect",
            Outcome::Other => "other",
            Outcome::Timeout => "timeout",
            Outcome::Tls => "tls",
            Outcome::WrongPeer => "wrong_peer",
        }
    }
}
