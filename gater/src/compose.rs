//! Several policies as one.

use crate::changes::Changes;
use crate::context::{Accept, AddrDial, Knock, LiveConnection, PeerDial, PendingConnection, Secured, Upgraded};
use crate::gater::{ConnectionGater, Explanation, Observation};
use crate::user_code::{AFTER_PANIC, Hook, HookPanics};
use crate::verdict::{Stage, Verdict};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Several policies in order: the first that does not pass decides, and those behind it are not
/// asked. One that panics denies.
#[derive(Clone, Default)]
pub struct FirstWins(Several);

/// Several policies in order: the first that denies decides, and those behind it are not asked. One
/// that panics denies. The answer is [`Verdict::Allow`] if none denies and one allows.
#[derive(Clone, Default)]
pub struct AllMustAllow(Several);

#[derive(Clone, Default)]
struct Several {
    gaters: Vec<Arc<dyn ConnectionGater>>,
    /// One that panics has said no, and keeps no other from being told what happens.
    panics: Arc<HookPanics>,
}

impl Several {
    fn ask(
        &self,
        hook: Hook,
        gater: &dyn ConnectionGater,
        question: impl Fn(&dyn ConnectionGater) -> Verdict,
    ) -> Verdict {
        self.panics
            .call(hook, || question(gater))
            .unwrap_or_else(Verdict::panicked)
    }

    /// When the first of them wants to be called again; one that panics, in a minute.
    fn tick(&self) -> Option<Duration> {
        let after = |gater: &Arc<dyn ConnectionGater>| {
            let ticked = self.panics.call(Hook::Tick, || gater.tick());
            ticked.unwrap_or(Some(AFTER_PANIC))
        };
        self.gaters.iter().filter_map(after).min()
    }
}

macro_rules! composition {
    ($name:ident, $decide:ident) => {
        impl $name {
            /// Of none, which passes everything.
            pub fn new() -> Self {
                Self::default()
            }

            /// With `gater` behind those that are there.
            pub fn with(mut self, gater: impl ConnectionGater) -> Self {
                self.0.gaters.push(Arc::new(gater));
                self
            }
        }

        impl FromIterator<Arc<dyn ConnectionGater>> for $name {
            fn from_iter<I: IntoIterator<Item = Arc<dyn ConnectionGater>>>(gaters: I) -> Self {
                Self(Several {
                    gaters: gaters.into_iter().collect(),
                    panics: Arc::default(),
                })
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({} gaters)", stringify!($name), self.0.gaters.len())
            }
        }

        impl ConnectionGater for $name {
            fn intercept_peer_dial(&self, dial: &PeerDial<'_>) -> Verdict {
                $decide(&self.0, Hook::PeerDial, |gater| gater.intercept_peer_dial(dial))
            }
            fn intercept_addr_dial(&self, dial: &AddrDial<'_>) -> Verdict {
                $decide(&self.0, Hook::AddrDial, |gater| gater.intercept_addr_dial(dial))
            }
            fn intercept_accept(&self, accept: &Accept<'_>) -> Verdict {
                $decide(&self.0, Hook::Accept, |gater| gater.intercept_accept(accept))
            }
            fn intercept_knock(&self, knock: &Knock<'_>) -> Verdict {
                $decide(&self.0, Hook::Knock, |gater| gater.intercept_knock(knock))
            }
            fn intercept_secured(&self, secured: &Secured<'_>) -> Verdict {
                $decide(&self.0, Hook::Secured, |gater| gater.intercept_secured(secured))
            }
            fn intercept_upgraded(&self, upgraded: &Upgraded<'_>) -> Verdict {
                $decide(&self.0, Hook::Upgraded, |gater| {
                    gater.intercept_upgraded(upgraded)
                })
            }
            fn judge_live(&self, live: &LiveConnection<'_>) -> Verdict {
                $decide(&self.0, Hook::JudgeLive, |gater| gater.judge_live(live))
            }
            fn judge_pending(&self, pending: &PendingConnection<'_>) -> Verdict {
                $decide(&self.0, Hook::JudgePending, |gater| gater.judge_pending(pending))
            }
            fn observe(&self, observation: &Observation<'_>) {
                for gater in &self.0.gaters {
                    self.0.panics.call(Hook::Observe, || gater.observe(observation));
                }
            }
            fn tick(&self) -> Option<Duration> {
                self.0.tick()
            }
            fn changes(&self) -> Vec<Changes> {
                self.0.gaters.iter().flat_map(|gater| gater.changes()).collect()
            }
            fn denial_rules(&self, stage: Stage) -> Vec<Cow<'static, str>> {
                self.0
                    .gaters
                    .iter()
                    .flat_map(|gater| gater.denial_rules(stage))
                    .collect()
            }
            fn explain(&self, peer: Option<&PeerId>, address: Option<&Multiaddr>) -> Vec<Explanation> {
                self.0
                    .gaters
                    .iter()
                    .flat_map(|gater| gater.explain(peer, address))
                    .collect()
            }
        }
    };
}

composition!(FirstWins, first_wins);
composition!(AllMustAllow, all_must_allow);

fn first_wins(several: &Several, hook: Hook, question: impl Fn(&dyn ConnectionGater) -> Verdict) -> Verdict {
    for gater in &several.gaters {
        match several.ask(hook, &**gater, &question) {
            Verdict::Pass => {}
            decided => return decided,
        }
    }
    Verdict::Pass
}

fn all_must_allow(several: &Several, hook: Hook, question: impl Fn(&dyn ConnectionGater) -> Verdict) -> Verdict {
    let mut all = Verdict::Pass;
    for gater in &several.gaters {
        match several.ask(hook, &**gater, &question) {
            Verdict::Pass => {}
            Verdict::Allow => all = Verdict::Allow,
            denied @ Verdict::Deny(_) => return denied,
        }
    }
    all
}
