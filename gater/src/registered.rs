//! Whether a registry has metrics of the same names already. `prometheus-client` registers any name any
//! number of times; a scrape that describes a metric twice is no OpenMetrics, and what reads it may
//! refuse it or keep one of the two values.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A metric that the registry has already: another configuration was registered there, or the same
/// one twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the registry has the metric {name} already: register once for each registry, or in a sub-registry with a prefix"
)]
pub struct AlreadyRegistered {
    name: String,
}

impl AlreadyRegistered {
    /// The first name that is there twice, as it is rendered, without the ending `_total`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Has `fill` put metrics into `registry`, unless one of their names is there already. `fill` is
/// called twice, the first time with a registry that is thrown away.
pub(crate) fn register(registry: &mut Registry, fill: impl Fn(&mut Registry)) -> Result<(), AlreadyRegistered> {
    let there = names(registry);
    let mut ours = match prefix(registry) {
        prefix if prefix.is_empty() => Registry::default(),
        prefix => Registry::with_prefix(prefix),
    };
    fill(&mut ours);
    match names(&ours).intersection(&there).next() {
        Some(name) => Err(AlreadyRegistered { name: name.clone() }),
        None => {
            fill(registry);
            Ok(())
        }
    }
}

/// What is described in a scrape.
fn names(registry: &Registry) -> BTreeSet<String> {
    let mut text = String::new();
    // Writing into a string does not fail, and what a collector says has no name then.
    let _ = encode_registry(&mut text, registry);
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let named = described.filter_map(|line| line.split(' ').next());
    named.map(str::to_owned).collect()
}

/// What stands before every name in `registry`, without the underscore. It does not say so itself.
fn prefix(registry: &mut Registry) -> String {
    const NAME: &str = "prefix_of_this_registry";
    /// Describes a metric while it is asked to, and nothing ever after.
    #[derive(Debug)]
    struct Probe(Arc<AtomicBool>);

    impl Collector for Probe {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            if self.0.load(Ordering::Relaxed) {
                encoder.encode_descriptor(NAME, "", None, MetricType::Gauge)?;
            }
            Ok(())
        }
    }

    let asked = Arc::new(AtomicBool::new(true));
    registry.register_collector(Box::new(Probe(asked.clone())));
    let names = names(registry);
    asked.store(false, Ordering::Relaxed);
    let prefix = names.iter().find_map(|name| name.strip_suffix(NAME));
    prefix.unwrap_or_default().trim_end_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    fn one(registry: &mut Registry) -> Result<(), AlreadyRegistered> {
        register(registry, |registry| {
            let registry = registry.sub_registry_with_prefix("ours");
            registry.register("things", "Things", Counter::<u64>::default());
        })
    }

    fn rendered(registry: &Registry) -> String {
        let mut text = String::new();
        encode_registry(&mut text, registry).expect("into a string");
        text
    }

    #[test]
    fn a_name_that_is_there_already_is_refused_and_nothing_is_added() {
        let mut registry = Registry::default();
        assert_eq!(one(&mut registry), Ok(()));
        let before = rendered(&registry);
        assert_eq!(
            before,
            "# HELP ours_things Things.\n# TYPE ours_things counter\nours_things_total 0\n"
        );
        let refused = one(&mut registry).expect_err("twice");
        assert_eq!(refused.name(), "ours_things");
        assert_eq!(rendered(&registry), before);
    }

    #[test]
    fn the_same_name_below_another_prefix_is_another_one() {
        let mut registry = Registry::default();
        let below = registry.sub_registry_with_prefix("one");
        assert_eq!(one(below), Ok(()));
        assert_eq!(one(below).expect_err("twice").name(), "one_ours_things");
        assert_eq!(one(&mut registry), Ok(()));
        // One that only begins alike is another metric.
        let mut alike = Registry::default();
        alike.register("ours_things_more", "More", Counter::<u64>::default());
        assert_eq!(one(&mut alike), Ok(()));
        // Also one that another part of the program has registered.
        let mut foreign = Registry::default();
        foreign.register("ours_things", "Theirs", Counter::<u64>::default());
        assert_eq!(one(&mut foreign).expect_err("twice").name(), "ours_things");
    }
}
