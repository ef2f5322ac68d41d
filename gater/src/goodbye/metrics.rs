//! What is counted of goodbyes. Without the `metrics` feature every method here is empty and costs
//! nothing.

#[cfg(not(feature = "metrics"))]
pub(crate) use absent::Metrics;
#[cfg(feature = "metrics")]
pub(crate) use present::Metrics;

#[cfg(not(feature = "metrics"))]
mod absent {
    use super::super::back_off::BackOffs;
    use super::super::handler::Said;
    use super::super::message::Code;
    use std::sync::{Arc, Mutex};
    use web_time::Instant;

    #[derive(Debug, Clone)]
    pub(crate) struct Metrics;

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self
        }
        pub(in super::super) fn watch(&self, _: &Arc<Mutex<BackOffs>>, _: Instant) {}
        pub(in super::super) fn said(&self, _: Code, _: Said) {}
        pub(in super::super) fn heard(&self, _: Code) {}
        pub(in super::super) fn denied(&self) {}
    }
}

#[cfg(feature = "metrics")]
mod present {
    use super::super::back_off::BackOffs;
    use super::super::handler::Said;
    use super::super::message::Code;
    use crate::gate::lock;
    use crate::measured::Measured;
    use crate::registered::{self, AlreadyRegistered};
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
    use prometheus_client::metrics::MetricType;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::ConstGauge;
    use prometheus_client::registry::Registry;
    use std::fmt;
    use std::sync::{Arc, Mutex, Weak};
    use web_time::Instant;

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct SaidLabel {
        code: &'static str,
        outcome: &'static str,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct CodeLabel {
        code: &'static str,
    }

    const CODES: [Code; 6] = [
        Code::Unspecified,
        Code::Trimmed,
        Code::NotAllowed,
        Code::TooMany,
        Code::ShuttingDown,
        Code::Other(u16::MAX),
    ];
    const OUTCOMES: [Said; 3] = [Said::Heard, Said::Unheard, Said::Unsupported];

    /// A peer may say any of 65,536 codes: those that have no name share a label.
    fn code_name(code: Code) -> &'static str {
        match code {
            Code::Unspecified => "unspecified",
            Code::Trimmed => "trimmed",
            Code::NotAllowed => "not_allowed",
            Code::TooMany => "too_many",
            Code::ShuttingDown => "shutting_down",
            Code::Other(_) => "other",
        }
    }

    fn outcome(said: Said) -> &'static str {
        match said {
            Said::Heard => "heard",
            Said::Unheard => "unheard",
            Said::Unsupported => "unsupported",
        }
    }

    /// Clones count the same, of as many behaviours as there are.
    #[derive(Debug, Clone)]
    pub(crate) struct Metrics(Arc<Counted>);

    #[derive(Debug)]
    struct Counted {
        said: Family<SaidLabel, Counter>,
        heard: Family<CodeLabel, Counter>,
        denied: Counter,
        /// The back-offs of each behaviour, and since when its time counts.
        watched: Mutex<Vec<Watched>>,
    }

    type Watched = (Weak<Mutex<BackOffs>>, Instant);

    /// How many back-offs hold changes with time, without any event.
    #[derive(Debug)]
    struct Scrape(Weak<Counted>);

    impl Default for Metrics {
        fn default() -> Self {
            let counted = Counted {
                said: Family::default(),
                heard: Family::default(),
                denied: Counter::default(),
                watched: Mutex::default(),
            };
            for code in CODES.map(code_name) {
                drop(counted.heard.get_or_create(&CodeLabel { code }));
                for outcome in OUTCOMES.map(outcome) {
                    drop(counted.said.get_or_create(&SaidLabel { code, outcome }));
                }
            }
            Self(Arc::new(counted))
        }
    }

    impl Metrics {
        /// Counts, and is in no registry yet.
        pub(crate) fn none() -> Self {
            Self::default()
        }

        /// # Errors
        ///
        /// If the registry has one of the names.
        pub(in super::super) fn register(&self, registry: &mut Registry) -> Result<(), AlreadyRegistered> {
            registered::register(registry, |registry| self.show(registry))
        }

        pub(crate) fn show(&self, registry: &mut Registry) {
            let registry = registry.sub_registry_with_prefix("libp2p_gater_goodbye");
            registry.register(
                "said",
                "Connections closed with a goodbye, by its code and whether it was heard",
                Measured::new(&self.0, |this| &this.said),
            );
            registry.register(
                "heard",
                "Goodbyes of peers, by their code",
                Measured::new(&self.0, |this| &this.heard),
            );
            registry.register(
                "dials_denied",
                "Dials denied because the peer had asked not to be dialled",
                Measured::new(&self.0, |this| &this.denied),
            );
            registry.register_collector(Box::new(Scrape(Arc::downgrade(&self.0))));
        }

        pub(in super::super) fn watch(&self, back_offs: &Arc<Mutex<BackOffs>>, start: Instant) {
            let mut watched = lock(&self.0.watched);
            watched.retain(|(back_offs, _)| back_offs.strong_count() > 0);
            watched.push((Arc::downgrade(back_offs), start));
        }

        pub(in super::super) fn said(&self, code: Code, said: Said) {
            let (code, outcome) = (code_name(code), outcome(said));
            self.0.said.get_or_create(&SaidLabel { code, outcome }).inc();
        }

        pub(in super::super) fn heard(&self, code: Code) {
            let code = code_name(code);
            self.0.heard.get_or_create(&CodeLabel { code }).inc();
        }

        pub(in super::super) fn denied(&self) {
            self.0.denied.inc();
        }
    }

    impl Collector for Scrape {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let Some(this) = self.0.upgrade() else { return Ok(()) };
            let watched = lock(&this.watched).clone();
            let active = |(back_offs, start): Watched| {
                let back_offs = back_offs.upgrade()?;
                let active = lock(&back_offs).active(start.elapsed());
                i64::try_from(active).ok()
            };
            let active = ConstGauge::new(watched.into_iter().filter_map(active).sum::<i64>());
            let help = "Peers that are not dialled for now, as they asked";
            active.encode(encoder.encode_descriptor("back_offs", help, None, MetricType::Gauge)?)
        }
    }
}
