//! Metrics that end with what they measure. `prometheus-client` takes no metric out of a registry:
//! one that is registered here is described while its owner lives, and never after.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::fmt;
use std::sync::{Arc, Weak};

/// A metric that `T` owns.
pub(crate) struct Measured<T, M> {
    owner: Weak<T>,
    metric: fn(&T) -> &M,
}

impl<T, M> Measured<T, M> {
    pub(crate) fn new(owner: &Arc<T>, metric: fn(&T) -> &M) -> Self {
        Self {
            owner: Arc::downgrade(owner),
            metric,
        }
    }
}

impl<T, M> fmt::Debug for Measured<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measured").finish_non_exhaustive()
    }
}

impl<T, M: EncodeMetric + TypedMetric> EncodeMetric for Measured<T, M> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.owner
            .upgrade()
            .map_or(Ok(()), |owner| (self.metric)(&owner).encode(encoder))
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.owner
            .upgrade()
            .is_none_or(|owner| (self.metric)(&owner).is_empty())
    }
}
