//! Connections by world and direction. Without the `metrics` feature nothing is counted.

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    Stock,
    Knock,
}

/// Which end has dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

#[cfg(not(feature = "metrics"))]
pub(crate) use absent::{Open, Worlds};
#[cfg(feature = "metrics")]
pub(crate) use present::{Open, Worlds};

#[cfg(not(feature = "metrics"))]
mod absent {
    use super::{Direction, World};

    pub(crate) struct Worlds;

    pub(crate) struct Counting;

    pub(crate) struct Open;

    impl Worlds {
        pub(crate) fn none() -> Self {
            Self
        }
        pub(crate) fn counting(&self) -> Counting {
            Counting
        }
    }

    impl Counting {
        pub(crate) fn open(&self, _: World, _: Direction) -> Open {
            Open
        }
    }
}

#[cfg(feature = "metrics")]
mod present {
    use super::{Direction, World};
    use crate::measured::Measured;
    use crate::registered::{self, AlreadyRegistered};
    use prometheus_client::encoding::EncodeLabelSet;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::registry::Registry;
    use std::sync::{Arc, Weak};

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Labels {
        world: &'static str,
        direction: &'static str,
    }

    impl Labels {
        fn new(world: World, direction: Direction) -> Self {
            Self {
                world: match world {
                    World::Stock => "stock",
                    World::Knock => "knock",
                },
                direction: match direction {
                    Direction::Inbound => "inbound",
                    Direction::Outbound => "outbound",
                },
            }
        }
    }

    /// Of one transport, whose metrics end with it.
    pub(crate) struct Worlds(Option<Arc<Registered>>);

    /// Counts as long as the transport is there. A dial may outlast it for a moment.
    pub(crate) struct Counting(Weak<Registered>);

    struct Registered {
        established: Family<Labels, Counter>,
        open: Family<Labels, Gauge>,
    }

    impl Worlds {
        pub(crate) fn none() -> Self {
            Self(None)
        }

        /// Registers what is counted, with every value at 0.
        ///
        /// # Errors
        ///
        /// If the registry has one of the names.
        pub(crate) fn register(registry: &mut Registry) -> Result<Self, AlreadyRegistered> {
            let this = Arc::new(Registered {
                established: Family::default(),
                open: Family::default(),
            });
            for world in [World::Stock, World::Knock] {
                for direction in [Direction::Inbound, Direction::Outbound] {
                    let labels = Labels::new(world, direction);
                    drop(this.established.get_or_create(&labels));
                    drop(this.open.get_or_create(&labels));
                }
            }
            registered::register(registry, |registry| {
                let registry = registry.sub_registry_with_prefix("libp2p_knock_migration");
                registry.register(
                    "established",
                    "Connections made, by world and direction",
                    Measured::new(&this, |this| &this.established),
                );
                registry.register(
                    "connections",
                    "Connections that are open, by world and direction",
                    Measured::new(&this, |this| &this.open),
                );
            })?;
            Ok(Self(Some(this)))
        }

        pub(crate) fn counting(&self) -> Counting {
            Counting(self.0.as_ref().map(Arc::downgrade).unwrap_or_default())
        }
    }

    impl Counting {
        /// Counts a connection, as open until what is returned is dropped.
        pub(crate) fn open(&self, world: World, direction: Direction) -> Open {
            Open(self.0.upgrade().map(|this| {
                let labels = Labels::new(world, direction);
                this.established.get_or_create(&labels).inc();
                let open = this.open.get_or_create_owned(&labels);
                open.inc();
                open
            }))
        }
    }

    pub(crate) struct Open(Option<Gauge>);

    impl Drop for Open {
        fn drop(&mut self) {
            if let Some(open) = &self.0 {
                open.dec();
            }
        }
    }
}
