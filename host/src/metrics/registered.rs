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
use std::sync::{Arc, Weak};

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
/// called twice, the first time with a registry that is thrown away. `registry` is rendered once,
/// and a collector that describes nothing stays in it.
pub(crate) fn register(registry: &mut Registry, fill: impl Fn(&mut Registry)) -> Result<(), AlreadyRegistered> {
    let (mut ours, there) = alike(registry);
    fill(&mut ours);
    match names(&ours).intersection(&there).next() {
        Some(name) => Err(AlreadyRegistered { name: name.clone() }),
        None => {
            fill(registry);
            Ok(())
        }
    }
}

/// An empty registry with the prefix of `registry`, which does not say what its prefix is, and the
/// names that `registry` has.
fn alike(registry: &mut Registry) -> (Registry, BTreeSet<String>) {
    const NAME: &str = "prefix_of_this_registry";
    /// Describes a metric while it is asked to, and nothing ever after.
    #[derive(Debug)]
    struct Probe(Weak<()>);

    impl Collector for Probe {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            if self.0.strong_count() > 0 {
                encoder.encode_descriptor(NAME, "", None, MetricType::Gauge)?;
            }
            Ok(())
        }
    }

    // Dropped also when a collector panics.
    let asked = Arc::new(());
    registry.register_collector(Box::new(Probe(Arc::downgrade(&asked))));
    let mut there = names(registry);
    let probe = there.iter().find(|name| name.ends_with(NAME)).cloned();
    let probe = probe.and_then(|name| there.take(&name)).unwrap_or_default();
    // A prefix may be empty, or end in an underscore of its own.
    let prefix = probe.strip_suffix(NAME).and_then(|prefix| prefix.strip_suffix('_'));
    (prefix.map_or_else(Registry::default, Registry::with_prefix), there)
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

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

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
    #[test]
    fn a_prefix_that_is_empty_or_ends_in_underscores_hides_no_name() {
        for (prefix, name) in [
            ("app_", "app__ours_things"),
            ("app__", "app___ours_things"),
            ("_", "__ours_things"),
            ("", "_ours_things"),
        ] {
            let mut registry = Registry::with_prefix(prefix);
            assert_eq!(one(&mut registry), Ok(()));
            assert!(rendered(&registry).contains(&format!("# TYPE {name} counter")));
            assert_eq!(one(&mut registry).expect_err("twice").name(), name);
        }
    }

    /// Counts how often it is asked.
    #[derive(Debug)]
    struct Asked(Arc<AtomicUsize>);

    impl Collector for Asked {
        fn encode(&self, _: DescriptorEncoder<'_>) -> fmt::Result {
            let before = self.0.fetch_add(1, Ordering::Relaxed);
            assert_ne!(before, 1, "the second time it panics");
            Ok(())
        }
    }

    #[test]
    fn a_registration_renders_the_registry_once_and_a_collector_that_panics_leaves_nothing_in_a_scrape() {
        let mut registry = Registry::with_prefix("app");
        let asked = Arc::new(AtomicUsize::new(0));
        registry.register_collector(Box::new(Asked(asked.clone())));
        assert_eq!(one(&mut registry), Ok(()));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let panicked = catch_unwind(AssertUnwindSafe(|| one(&mut registry)));
        assert!(panicked.is_err());
        let text = rendered(&registry);
        assert_eq!(text.matches("# TYPE ").count(), 1, "{text}");
        assert_eq!(one(&mut registry).expect_err("twice").name(), "app_ours_things");
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }
}
