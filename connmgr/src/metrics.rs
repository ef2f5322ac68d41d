//! What is counted. Without the `metrics` feature every method here is empty and costs nothing.

use crate::event::Event;
use crate::shared::Shared;
use std::sync::Arc;
use std::time::Duration;

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
        pub(crate) fn attach(&self, _: &Arc<Shared>) {}
        pub(crate) fn event(&self, _: &Event) {}
        pub(crate) fn closed(&self, _: Duration) {}
    }
}

#[cfg(feature = "metrics")]
mod present {
    use super::*;
    use crate::event::{Reason, Skipped};
    use crate::measured::Measured;
    use crate::registered::{self, AlreadyRegistered};
    use crate::user_code::Hook;
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
    use prometheus_client::metrics::MetricType;
    use prometheus_client::metrics::counter::{ConstCounter, Counter};
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::ConstGauge;
    use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
    use prometheus_client::registry::{Registry, Unit};
    use std::fmt;
    use std::sync::{Mutex, PoisonError, Weak};

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct TrimLabel {
        reason: &'static str,
        outcome: &'static str,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct ReasonLabel {
        reason: &'static str,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct ClassLabel {
        class: &'static str,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct HookLabel {
        hook: &'static str,
    }

    /// Cheap to clone; every clone counts into the same registry, or into none.
    #[derive(Clone)]
    pub(crate) struct Metrics(Option<Arc<Registered>>);

    /// Why a trim runs. At the hard limit peers are evicted without one.
    const TRIMS: [Reason; 3] = [Reason::HighWatermark, Reason::OnDemand, Reason::Pressure];
    const TRIMMED: [Reason; 4] = [
        Reason::HighWatermark,
        Reason::OnDemand,
        Reason::Pressure,
        Reason::HardLimit,
    ];
    const SKIPPED: [Skipped; 3] = [Skipped::Disabled, Skipped::AtLowWatermark, Skipped::TooFewCandidates];
    const CLOSED: &str = "closed";
    const STUCK: &str = "stuck";

    struct Registered {
        trims: Family<TrimLabel, Counter>,
        trimmed: Family<ReasonLabel, Counter>,
        stuck: Counter,
        denied: Counter,
        lifetimes: Histogram,
        /// Whose gauges are shown.
        manager: Mutex<Weak<Shared>>,
    }

    /// What is worked out only when somebody scrapes: classes change with time, without any event.
    struct Scrape(Weak<Registered>);

    impl fmt::Debug for Scrape {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Scrape")
        }
    }

    impl Registered {
        fn new() -> Arc<Self> {
            let this = Self {
                trims: Family::default(),
                trimmed: Family::default(),
                stuck: Counter::default(),
                denied: Counter::default(),
                // 1 s to 36 h.
                lifetimes: Histogram::new(exponential_buckets(1.0, 4.0, 9)),
                manager: Mutex::default(),
            };
            for reason in TRIMS.map(Reason::as_str) {
                for outcome in [CLOSED, STUCK].into_iter().chain(SKIPPED.map(Skipped::as_str)) {
                    drop(this.trims.get_or_create(&TrimLabel { reason, outcome }));
                }
            }
            for reason in TRIMMED.map(Reason::as_str) {
                drop(this.trimmed.get_or_create(&ReasonLabel { reason }));
            }
            Arc::new(this)
        }

        fn show(self: &Arc<Self>, registry: &mut Registry) {
            let registry = registry.sub_registry_with_prefix("libp2p_connmgr");
            registry.register(
                "trims",
                "Trims, by why they ran and what became of them",
                Measured::new(self, |this| &this.trims),
            );
            registry.register(
                "trimmed_connections",
                "Connections that were told to close, by why",
                Measured::new(self, |this| &this.trimmed),
            );
            registry.register(
                "stuck_connections",
                "Connections that were not closed at a trim's deadline",
                Measured::new(self, |this| &this.stuck),
            );
            registry.register(
                "denied",
                "Newcomers denied at the hard limit",
                Measured::new(self, |this| &this.denied),
            );
            registry.register_with_unit(
                "connection_lifetime",
                "From established to closed",
                Unit::Seconds,
                Measured::new(self, |this| &this.lifetimes),
            );
            registry.register_collector(Box::new(Scrape(Arc::downgrade(self))));
        }
    }

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self(None)
        }

        /// With every label that there can be, at zero.
        ///
        /// # Errors
        ///
        /// If the registry has one of the names.
        pub(crate) fn register(registry: &mut Registry) -> Result<Self, AlreadyRegistered> {
            let this = Registered::new();
            registered::register(registry, |registry| this.show(registry))?;
            Ok(Self(Some(this)))
        }

        /// A second manager with the same configuration shares the counters. The gauges are the
        /// first one's until that has ended.
        pub(crate) fn attach(&self, shared: &Arc<Shared>) {
            let Some(this) = &self.0 else { return };
            // Dropped after the lock: it may be the last one of a manager that goes at this moment.
            let first;
            let mut manager = this.manager.lock().unwrap_or_else(PoisonError::into_inner);
            first = manager.upgrade();
            if first.as_ref().is_none_or(|first| first.has_ended()) {
                *manager = Arc::downgrade(shared);
            }
        }

        pub(crate) fn event(&self, event: &Event) {
            let Some(this) = &self.0 else { return };
            let trim = |reason, outcome| this.trims.get_or_create(&TrimLabel { reason, outcome }).inc();
            match event {
                Event::Denied { .. } => drop(this.denied.inc()),
                Event::Trimmed {
                    connections, reason, ..
                } => {
                    let reason = reason.as_str();
                    this.trimmed
                        .get_or_create(&ReasonLabel { reason })
                        .inc_by(*connections as u64);
                }
                Event::TrimFinished { reason, trimmed } => {
                    trim(reason.as_str(), if trimmed.stuck > 0 { STUCK } else { CLOSED });
                    this.stuck.inc_by(trimmed.stuck as u64);
                }
                Event::TrimSkipped { reason, skipped } => drop(trim(reason.as_str(), skipped.as_str())),
            }
        }

        pub(crate) fn closed(&self, after: Duration) {
            if let Some(this) = &self.0 {
                this.lifetimes.observe(after.as_secs_f64());
            }
        }
    }

    impl Collector for Scrape {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let Some(this) = self.0.upgrade() else { return Ok(()) };
            let manager = this.manager.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let shared = manager.upgrade();
            // Where there is no manager its counters are zero.
            let shared = shared.as_deref();
            let refused = ConstCounter::new(shared.map_or(0, |shared| shared.book.refused_tags()));
            let help = "Tags that were not set, as the peer has as many as it may";
            refused.encode(encoder.encode_descriptor("refused_tags", help, None, refused.metric_type())?)?;
            let help = "Panics in code of the user's, by where it is called";
            let mut panics = encoder.encode_descriptor("hook_panics", help, None, MetricType::Counter)?;
            for hook in Hook::ALL {
                let label = HookLabel { hook: hook.name() };
                let count = shared.map_or(0, |shared| shared.panics().get(hook));
                ConstCounter::new(count).encode(panics.encode_family(&label)?)?;
            }
            shared.map_or(Ok(()), |shared| gauges(shared, &mut encoder))
        }
    }

    fn gauges(shared: &Shared, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = shared.book.counts();
        let classes = [
            ("protected", counts.protected),
            ("in_grace", counts.in_grace),
            ("tagged", counts.tagged),
            ("plain", counts.plain),
        ];
        let gauge = |value: usize| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let mut connections =
            encoder.encode_descriptor("connections", "Connections, by class", None, MetricType::Gauge)?;
        for (class, count) in classes {
            gauge(count.connections).encode(connections.encode_family(&ClassLabel { class })?)?;
        }
        gauge(counts.closing).encode(connections.encode_family(&ClassLabel { class: "closing" })?)?;
        let mut peers = encoder.encode_descriptor("peers", "Peers, by class", None, MetricType::Gauge)?;
        for (class, count) in classes {
            gauge(count.peers).encode(peers.encode_family(&ClassLabel { class })?)?;
        }
        gauge(counts.early).encode(peers.encode_family(&ClassLabel { class: "early" })?)?;
        gauge(counts.gone).encode(peers.encode_family(&ClassLabel { class: "gone" })?)?;
        for (name, help, value) in [
            ("low_watermark", "What a trim goes down to", shared.low),
            ("high_watermark", "What starts a trim", shared.high),
        ] {
            let metric = gauge(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}
