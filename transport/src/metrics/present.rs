//! The same with the feature.

use super::labels::*;
use super::*;
use crate::registered::{self, AlreadyRegistered};
use crate::user_code::{Hook, UserCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;

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

/// Cheap to clone; every clone counts into the same registry, or into none.
#[derive(Clone)]
pub(crate) struct Metrics(Option<Arc<Registered>>);

struct Registered {
    accepts: Counter,
    waiting: Gauge,
    listening_ends: Counter,
    knocks: Family<OutcomeLabel, Counter>,
    dials: Family<OutcomeLabel, Counter>,
    handshakes: Family<HandshakeLabel, Counter>,
    durations: Family<RoleLabel, Histogram>,
    bytes: Family<DirectionLabel, Counter>,
    received: Counter,
    sent: Counter,
}

impl Registered {
    /// With every label that there can be: what is counted first is counted from zero.
    fn new() -> Arc<Self> {
        let bytes = Family::<DirectionLabel, Counter>::default();
        let direction = |direction| bytes.get_or_create_owned(&DirectionLabel { direction });
        let this = Self {
            accepts: Counter::default(),
            waiting: Gauge::default(),
            listening_ends: Counter::default(),
            knocks: Family::default(),
            dials: Family::default(),
            handshakes: Family::default(),
            // 0.5 ms to 4 s: from a handshake on the loopback to the default deadline.
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 14))),
            received: direction("received"),
            sent: direction("sent"),
            bytes,
        };
        for outcome in KNOCKS {
            drop(this.knocks.get_or_create(&OutcomeLabel { outcome }));
        }
        for outcome in OUTCOMES.map(name) {
            drop(this.dials.get_or_create(&OutcomeLabel { outcome }));
        }
        for label in handshakes() {
            drop(this.handshakes.get_or_create(&label));
        }
        for role in ROLES.map(role_name) {
            drop(this.durations.get_or_create(&RoleLabel { role }));
        }
        Arc::new(this)
    }

    fn show(&self, registry: &mut Registry, user_code: &UserCode) {
        let registry = registry.sub_registry_with_prefix("libp2p_knock");
        registry.register("accepts", "Sockets accepted, before any knock", self.accepts.clone());
        registry.register(
            "sockets_waiting",
            "Sockets that have not authenticated",
            self.waiting.clone(),
        );
        registry.register(
            "listening_ends",
            "Ends of the task of the listening side, by a panic or with its runtime",
            self.listening_ends.clone(),
        );
        registry.register(
            "knocks",
            "Knocks and sockets without one, by what became of them",
            self.knocks.clone(),
        );
        registry.register("dials", "Finished dials, by what became of them", self.dials.clone());
        registry.register(
            "handshakes",
            "TLS handshakes, by our role, what became of them and the key-exchange group",
            self.handshakes.clone(),
        );
        registry.register_with_unit(
            "handshake_duration",
            "From a valid knock, or from the connected socket, to the end of TLS",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register_with_unit(
            "wire",
            "Bytes on authenticated connections, knock, handshake and TLS overhead included",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register_collector(Box::new(HookPanics(user_code.clone())));
    }
}

impl Metrics {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Registers what is counted, which goes on counting into every registry that it was in
    /// before.
    ///
    /// # Errors
    ///
    /// If the registry has one of the names.
    pub(crate) fn register(&self, registry: &mut Registry, user_code: &UserCode) -> Result<Self, AlreadyRegistered> {
        let this = self.0.clone().unwrap_or_else(Registered::new);
        registered::register(registry, |registry| this.show(registry, user_code))?;
        Ok(Self(Some(this)))
    }

    pub(crate) fn accepted(&self) {
        if let Some(this) = &self.0 {
            this.accepts.inc();
        }
    }

    /// Of one listening side, which showed `before` until now. A clone of the configuration may
    /// have another one.
    pub(crate) fn waiting(&self, before: usize, sockets: usize) {
        let sockets_of = |sockets| i64::try_from(sockets).unwrap_or(i64::MAX);
        if let Some(this) = &self.0 {
            this.waiting.inc_by(sockets_of(sockets) - sockets_of(before));
        }
    }

    pub(crate) fn listening_ended(&self) {
        if let Some(this) = &self.0 {
            this.listening_ends.inc();
        }
    }

    pub(crate) fn knock(&self, outcome: KnockOutcome) {
        if let Some(this) = &self.0 {
            let outcome = knock_name(outcome);
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
            let role = role_name(role);
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

#[cfg(test)]
mod tests;
