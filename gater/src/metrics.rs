//! What is counted. Without the `metrics` feature every method here is empty and costs nothing.

#[cfg(not(feature = "metrics"))]
pub(crate) use absent::Metrics;
#[cfg(feature = "metrics")]
pub(crate) use present::Metrics;

#[cfg(not(feature = "metrics"))]
mod absent {
    use crate::user_code::Hook;
    use crate::verdict::{Stage, Verdict};

    pub(crate) struct Metrics;

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self
        }
        pub(crate) fn decided(&self, _: Stage, _: &Verdict) {}
        pub(crate) fn panicked(&self, _: Hook, _: u64) {}
    }
}

#[cfg(feature = "metrics")]
mod present {
    use crate::user_code::Hook;
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

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Panic {
        hook: &'static str,
    }

    /// Counts nothing until it is registered.
    #[derive(Default)]
    pub(crate) struct Metrics(OnceLock<Registered>);

    struct Registered {
        /// Those with no rule to name, by stage and then allow and pass: no label is made for them.
        quick: [[Counter; 2]; Stage::ALL.len()],
        decisions: Family<Decision, Counter>,
        /// By hook.
        panics: Vec<Counter>,
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
            let hook_panics = Family::<Panic, Counter>::default();
            // Every hook has its line from the start.
            let counted = Hook::ALL.iter().filter(|hook| **hook != Hook::Listener);
            let panics = counted.map(|hook| hook_panics.get_or_create_owned(&Panic { hook: hook.name() }));
            let registered = Registered {
                quick,
                decisions: decisions.clone(),
                panics: panics.collect(),
            };
            if self.0.set(registered).is_ok() {
                let registry = registry.sub_registry_with_prefix("libp2p_gater");
                registry.register(
                    "decisions",
                    "Answers of the policy, by stage, verdict and the rule that said no",
                    decisions,
                );
                registry.register(
                    "hook_panics",
                    "Panics of user code that were caught, by what was called",
                    hook_panics,
                );
            }
        }

        pub(crate) fn panicked(&self, hook: Hook, panics: u64) {
            if let Some(counter) = self.0.get().and_then(|this| this.panics.get(hook as usize)) {
                counter.inc_by(panics);
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
