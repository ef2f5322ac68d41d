//! What is counted of wanted peers. Without the `metrics` feature every method here is empty and
//! costs nothing.

#[cfg(not(feature = "metrics"))]
pub(crate) use absent::Metrics;
#[cfg(feature = "metrics")]
pub(crate) use present::Metrics;

/// What became of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialled {
    Connected,
    Denied,
    NoAddresses,
    /// Another dial was under way, or was faster.
    NotNeeded,
    Other,
    Unreachable,
    WrongPeer,
}

#[cfg(not(feature = "metrics"))]
mod absent {
    use super::super::event::Event;
    use super::super::peers::Peers;
    use super::Dialled;
    use libp2p_identity::PeerId;

    pub(crate) struct Metrics;

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self
        }
        pub(crate) fn dialled(&self, _: Dialled) {}
        pub(crate) fn event(&mut self, _: &Event, _: &Peers) {}
        pub(crate) fn removed(&mut self, _: &PeerId) {}
        pub(crate) fn panicked(&self) {}
        pub(crate) fn show(&self, _: &Peers) {}
    }
}

#[cfg(feature = "metrics")]
mod present {
    use super::super::event::Event;
    use super::super::peers::Peers;
    use super::Dialled;
    use crate::measured::Measured;
    use crate::registered::{self, AlreadyRegistered};
    use libp2p_identity::PeerId;
    use prometheus_client::encoding::EncodeLabelSet;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::registry::Registry;
    use std::collections::HashSet;
    use std::sync::Arc;

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct OutcomeLabel {
        outcome: &'static str,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct StateLabel {
        state: &'static str,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct HookLabel {
        hook: &'static str,
    }

    impl Dialled {
        const ALL: [Self; 7] = [
            Self::Connected,
            Self::Denied,
            Self::NoAddresses,
            Self::NotNeeded,
            Self::Other,
            Self::Unreachable,
            Self::WrongPeer,
        ];

        fn label(self) -> OutcomeLabel {
            let outcome = match self {
                Self::Connected => "connected",
                Self::Denied => "denied",
                Self::NoAddresses => "no_addresses",
                Self::NotNeeded => "not_needed",
                Self::Other => "other",
                Self::Unreachable => "unreachable",
                Self::WrongPeer => "wrong_peer",
            };
            OutcomeLabel { outcome }
        }
    }

    /// Of one behaviour, or of none.
    pub(crate) struct Metrics(Option<Registered>);

    struct Registered {
        counted: Arc<Counted>,
        /// Wanted peers that were lost and have not come back.
        missing: HashSet<PeerId>,
    }

    struct Counted {
        dials: Family<OutcomeLabel, Counter>,
        lost: Counter,
        reconnected: Counter,
        unresponsive: Counter,
        duplicates: Counter,
        panics: Family<HookLabel, Counter>,
        states: Family<StateLabel, Gauge>,
        connected: Gauge,
        target: Gauge,
    }

    impl Counted {
        fn new() -> Arc<Self> {
            let this = Self {
                dials: Family::default(),
                lost: Counter::default(),
                reconnected: Counter::default(),
                unresponsive: Counter::default(),
                duplicates: Counter::default(),
                panics: Family::default(),
                states: Family::default(),
                connected: Gauge::default(),
                target: Gauge::default(),
            };
            for dialled in Dialled::ALL {
                drop(this.dials.get_or_create(&dialled.label()));
            }
            drop(this.panics.get_or_create(&DENIED_FOR));
            Arc::new(this)
        }

        fn show(self: &Arc<Self>, registry: &mut Registry) {
            let registry = registry.sub_registry_with_prefix("libp2p_connmgr_persistent");
            registry.register(
                "dials",
                "Finished dials of wanted peers and for the target, by what became of them",
                Measured::new(self, |this| &this.dials),
            );
            registry.register(
                "lost",
                "Wanted peers whose last connection was lost",
                Measured::new(self, |this| &this.lost),
            );
            registry.register(
                "reconnected",
                "Wanted peers that were lost and are connected again",
                Measured::new(self, |this| &this.reconnected),
            );
            registry.register(
                "unresponsive_connections",
                "Connections that were closed as they did not answer",
                Measured::new(self, |this| &this.unresponsive),
            );
            registry.register(
                "duplicate_connections",
                "Second connections that were closed",
                Measured::new(self, |this| &this.duplicates),
            );
            registry.register(
                "hook_panics",
                "Panics in code of the user's, by where it is called",
                Measured::new(self, |this| &this.panics),
            );
            registry.register(
                "wanted_peers",
                "Wanted peers: connected, being dialled, or waiting for the next dial",
                Measured::new(self, |this| &this.states),
            );
            registry.register(
                "connected_peers",
                "Connected peers, wanted or not",
                Measured::new(self, |this| &this.connected),
            );
            registry.register(
                "target_peers",
                "How many peers are to be connected; 0 without a target",
                Measured::new(self, |this| &this.target),
            );
        }
    }

    /// The one hook that is called from a task.
    const DENIED_FOR: HookLabel = HookLabel { hook: "denied_for" };

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self(None)
        }

        /// With every label that there can be, at zero.
        ///
        /// # Errors
        ///
        /// If the registry has one of the names.
        pub(crate) fn register(registry: &mut Registry, peers: &Peers) -> Result<Self, AlreadyRegistered> {
            let counted = Counted::new();
            registered::register(registry, |registry| counted.show(registry))?;
            let this = Self(Some(Registered {
                counted,
                missing: HashSet::new(),
            }));
            this.show(peers);
            Ok(this)
        }

        pub(crate) fn dialled(&self, dialled: Dialled) {
            if let Some(this) = &self.0 {
                this.counted.dials.get_or_create(&dialled.label()).inc();
            }
        }

        pub(crate) fn event(&mut self, event: &Event, peers: &Peers) {
            let Some(this) = &mut self.0 else { return };
            match event {
                Event::Connected { peer } => {
                    if this.missing.remove(peer) {
                        this.counted.reconnected.inc();
                    }
                }
                Event::Disconnected { peer, .. } => {
                    this.counted.lost.inc();
                    // Meanwhile it may be wanted no longer.
                    if peers.is_wanted(peer) {
                        this.missing.insert(*peer);
                    }
                }
                Event::DuplicateClosed { .. } => drop(this.counted.duplicates.inc()),
                Event::Unresponsive { .. } => drop(this.counted.unresponsive.inc()),
                Event::DialFailed { .. } | Event::TargetMissed { .. } | Event::TargetReached { .. } => {}
            }
        }

        /// `peer` is wanted no longer.
        pub(crate) fn removed(&mut self, peer: &PeerId) {
            if let Some(this) = &mut self.0 {
                this.missing.remove(peer);
            }
        }

        pub(crate) fn panicked(&self) {
            if let Some(this) = &self.0 {
                this.counted.panics.get_or_create(&DENIED_FOR).inc();
            }
        }

        pub(crate) fn show(&self, peers: &Peers) {
            let Some(this) = &self.0 else { return };
            let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
            for (state, count) in [
                ("connected", peers.wanted_connected()),
                ("dialling", peers.wanted_dialling()),
                ("waiting", peers.waiting()),
            ] {
                this.counted
                    .states
                    .get_or_create(&StateLabel { state })
                    .set(gauge(count));
            }
            this.counted.connected.set(gauge(peers.connected()));
            this.counted.target.set(gauge(peers.config().target));
        }
    }
}
