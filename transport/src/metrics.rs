//! What is counted. Without the `metrics` feature every method here is empty and costs nothing.

use crate::error::Error;
use crate::knock::Refusal;
use crate::stream::Role;
use std::time::Duration;

/// What became of one knock, or of a socket that was to send one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum KnockOutcome {
    Accepted,
    Denied,
    /// Others needed the buffer for its flight.
    Displaced,
    Evicted,
    Incomplete,
    Refused(Refusal),
    Timeout,
}

/// What became of one dial or one handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Ok,
    Certificate,
    Closed,
    Denied,
    Inner,
    Other,
    Timeout,
    Tls,
    Unanswered,
    WrongPeer,
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Self {
        match error {
            Error::Certificate(_) => Self::Certificate,
            Error::Closed => Self::Closed,
            Error::Denied(_) => Self::Denied,
            Error::Inner(_) => Self::Inner,
            Error::Timeout(_) => Self::Timeout,
            Error::Tls(_) => Self::Tls,
            Error::Unanswered(_) => Self::Unanswered,
            Error::WrongPeer { .. } => Self::WrongPeer,
            _ => Self::Other,
        }
    }
}

#[cfg(not(feature = "metrics"))]
pub(crate) use absent::Metrics;
#[cfg(feature = "metrics")]
pub(crate) use present::Metrics;

#[cfg(not(feature = "metrics"))]
mod absent {
    use super::*;

    #[derive(Clone)]
    pub(crate) struct Metrics;

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self
        }
        pub(crate) fn accepted(&self) {}
        pub(crate) fn waiting(&self, _: usize, _: usize) {}
        pub(crate) fn knock(&self, _: KnockOutcome) {}
        pub(crate) fn dial(&self, _: Outcome) {}
        pub(crate) fn handshake(&self, _: Role, _: Outcome, _: &'static str, _: Duration) {}
        pub(crate) fn read(&self, _: usize) {}
        pub(crate) fn written(&self, _: usize) {}
        pub(crate) fn listening_ended(&self) {}
    }
}

#[cfg(feature = "metrics")]
mod labels;
#[cfg(feature = "metrics")]
mod present;
