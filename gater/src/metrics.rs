//! What is counted. Without the `metrics` feature every method here is empty and costs nothing.

#[cfg(not(feature = "metrics"))]
pub(crate) use absent::Metrics;
#[cfg(feature = "metrics")]
pub(crate) use present::Metrics;

#[cfg(not(feature = "metrics"))]
mod absent {
    use crate::goodbye;
    use crate::user_code::Hook;
    use crate::verdict::{Stage, Verdict};

    pub(crate) struct Metrics;

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self
        }
        pub(crate) fn goodbye(&self) -> goodbye::Metrics {
            goodbye::Metrics::none()
        }
        pub(crate) fn decided(&self, _: Stage, _: &Verdict) {}
        pub(crate) fn panicked(&self, _: Hook, _: u64) {}
    }
}

#[cfg(feature = "metrics")]
mod present {
    use crate::goodbye;
    use crate::measured::Measured;
    use crate::registered::{self, AlreadyRegistered};
    use crate::user_code::Hook;
    use crate::verdict::{Stage, Verdict};
    use prometheus_client::encoding::EncodeLabelSet;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::registry::Registry;
    use std::borrow::Cow;
    use std::sync::{Arc, OnceLock};

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Decision {
        stage: &'static str,
        verdict: &'static str,
        rule: Cow<'static, str>,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Panic {
        hook: &'static str,
    }

    /// Counts nothing until it is registered.
    #[derive(Default)]
    pub(crate) struct Metrics {
        registered: OnceLock<Arc<Registered>>,
        goodbye: goodbye::Metrics,
    }

    struct Registered {
        /// Those with no rule to name, by stage and then allow and pass: no label is made for them.
        quick: [[Counter; 2]; Stage::ALL.len()],
        decisions: Family<Decision, Counter>,
        /// By hook.
        panics: Vec<Counter>,
        hook_panics: Family<Panic, Counter>,
    }

    /// What a gate's own denials at `stage` name.
    fn own(stage: Stage) -> impl Iterator<Item = Cow<'static, str>> {
        let admits = matches!(stage, Stage::Knock | Stage::Secured | Stage::Upgraded);
        let rules = ["policy_panicked"].into_iter().chain(admits.then_some("admission"));
        rules.map(Cow::Borrowed)
    }

    impl Registered {
        fn new(denials: [Vec<Cow<'static, str>>; Stage::ALL.len()]) -> Arc<Self> {
            let decisions = Family::<Decision, Counter>::default();
            let counter = |stage: Stage, verdict: &'static str, rule| {
                decisions.get_or_create_owned(&Decision {
                    stage: stage.name(),
                    verdict,
                    rule,
                })
            };
            let none = || Cow::Borrowed("");
            let quick = Stage::ALL
                .map(|stage| [&Verdict::Allow, &Verdict::Pass].map(|verdict| counter(stage, verdict.name(), none())));
            for (stage, rules) in Stage::ALL.into_iter().zip(denials) {
                for rule in own(stage).chain(rules) {
                    counter(stage, DENY, rule);
                }
            }
            let hook_panics = Family::<Panic, Counter>::default();
            let counted = Hook::ALL.iter().filter(|hook| **hook != Hook::Listener);
            let panics = counted.map(|hook| hook_panics.get_or_create_owned(&Panic { hook: hook.name() }));
            Arc::new(Self {
                quick,
                panics: panics.collect(),
                decisions,
                hook_panics,
            })
        }

        fn show(self: &Arc<Self>, registry: &mut Registry) {
            let registry = registry.sub_registry_with_prefix("libp2p_gater");
            registry.register(
                "decisions",
                "Answers of the policy, by stage, verdict and the rule that said no",
                Measured::new(self, |this| &this.decisions),
            );
            registry.register(
                "hook_panics",
                "Panics of user code that were caught, by what was called",
                Measured::new(self, |this| &this.hook_panics),
            );
        }
    }

    /// [`Verdict::name`] of a denial.
    const DENY: &str = "deny";

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self::default()
        }

        /// What the behaviours count into.
        pub(crate) fn goodbye(&self) -> goodbye::Metrics {
            self.goodbye.clone()
        }

        /// With every hook and stage, and with `denials`, the rules of each stage, at zero. What is
        /// counted goes on being counted into every registry that it was in before.
        ///
        /// # Errors
        ///
        /// If the registry has one of the names.
        pub(crate) fn register(
            &self,
            registry: &mut Registry,
            denials: [Vec<Cow<'static, str>>; Stage::ALL.len()],
        ) -> Result<(), AlreadyRegistered> {
            let this = self.registered.get_or_init(|| Registered::new(denials));
            registered::register(registry, |registry| {
                this.show(registry);
                self.goodbye.show(registry);
            })
        }

        pub(crate) fn panicked(&self, hook: Hook, panics: u64) {
            if let Some(counter) = self.registered.get().and_then(|this| this.panics.get(hook as usize)) {
                counter.inc_by(panics);
            }
        }

        pub(crate) fn decided(&self, stage: Stage, verdict: &Verdict) {
            let Some(this) = self.registered.get() else { return };
            let stages = &this.quick[stage as usize];
            match verdict {
                Verdict::Allow => stages[0].inc(),
                Verdict::Pass => stages[1].inc(),
                Verdict::Deny(reason) => {
                    let decision = Decision {
                        stage: stage.name(),
                        verdict: verdict.name(),
                        rule: Cow::Owned(reason.rule().to_owned()),
                    };
                    this.decisions.get_or_create(&decision).inc()
                }
            };
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::verdict::Reason;

        #[test]
        fn a_denial_is_counted_under_the_word_that_is_there_from_the_start() {
            assert_eq!(Verdict::Deny(Reason::new("a rule")).name(), DENY);
        }
    }
}
