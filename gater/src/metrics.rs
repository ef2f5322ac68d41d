//! What is counted. Without the `metrics` feature every method here is empty and costs nothing.

#[cfg(not(feature = "metrics"))]
pub(crate) use absent::Metrics;
#[cfg(feature = "metrics")]
pub(crate) use present::Metrics;

#[cfg(not(feature = "metrics"))]
mod absent {
    use crate::verdict::{Stage, Verdict};

    pub(crate) struct Metrics;

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self
        }
        pub(crate) fn decided(&self, _: Stage, _: &Verdict) {}
    }
}

#[cfg(feature = "metrics")]
mod present {
    use crate::verdict::{Stage, Verdict};
    use prometheus_client::encoding::EncodeLabelSet;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::registry::Registry;
    use std::sync::OnceLock;

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Decision {
        stage: &'static str,
        verdict: &'static str,
        rule: String,
    }

    /// Counts nothing until it is registered.
    #[derive(Default)]
    pub(crate) struct Metrics(OnceLock<Registered>);

    struct Registered {
        /// Those with no rule to name, by stage and then allow and pass: no label is made for them.
        quick: [[Counter; 2]; Stage::ALL.len()],
        decisions: Family<Decision, Counter>,
    }

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self::default()
        }

        /// In a second registry nothing is counted.
        pub(crate) fn register(&self, registry: &mut Registry) {
            let decisions = Family::<Decision, Counter>::default();
            let counter = |stage: Stage, verdict: &Verdict| {
                decisions.get_or_create_owned(&Decision {
                    stage: stage.name(),
                    verdict: verdict.name(),
                    rule: String::new(),
                })
            };
            let quick = Stage::ALL.map(|stage| [counter(stage, &Verdict::Allow), counter(stage, &Verdict::Pass)]);
            let registered = Registered {
                quick,
                decisions: decisions.clone(),
            };
            if self.0.set(registered).is_ok() {
                registry.sub_registry_with_prefix("libp2p_gater").register(
                    "decisions",
                    "Answers of the policy, by stage, verdict and the rule that said no",
                    decisions,
                );
            }
        }

        pub(crate) fn decided(&self, stage: Stage, verdict: &Verdict) {
            let Some(this) = self.0.get() else { return };
            let stages = &this.quick[stage as usize];
            match verdict {
                Verdict::Allow => stages[0].inc(),
                Verdict::Pass => stages[1].inc(),
                Verdict::Deny(reason) => {
                    let decision = Decision {
                        stage: stage.name(),
                        verdict: verdict.name(),
                        rule: reason.rule().to_owned(),
                    };
                    this.decisions.get_or_create(&decision).inc()
                }
            };
        }
    }
}
