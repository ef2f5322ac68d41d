//! What the behaviour reports.

use libp2p_identity::PeerId;
use std::fmt;

/// What the manager did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A newcomer was denied at the hard limit: nobody connected is worth less.
    Denied {
        /// The newcomer.
        peer: PeerId,
    },
    /// A peer's connections have been told to close: all that it has.
    Trimmed {
        /// Whose.
        peer: PeerId,
        /// How many.
        connections: usize,
        /// Why.
        reason: Reason,
    },
    /// A trim is over.
    TrimFinished {
        /// Why it ran.
        reason: Reason,
        /// What it came to.
        trimmed: Trimmed,
    },
    /// A trim had nothing to close.
    TrimSkipped {
        /// Why it ran.
        reason: Reason,
        /// Why it closed nothing.
        skipped: Skipped,
    },
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The high watermark was reached.
    HighWatermark,
    /// Somebody called [`Manager::trim_open_conns`](crate::Manager::trim_open_conns).
    OnDemand,
    /// Somebody called [`Manager::force_trim`](crate::Manager::force_trim): memory is short.
    Pressure,
    /// A more valuable peer took the place, at the hard limit.
    HardLimit,
}

impl Reason {
    /// One word, as metrics and closers get it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HighWatermark => "high_watermark",
            Self::OnDemand => "on_demand",
            Self::Pressure => "pressure",
            Self::HardLimit => "hard_limit",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a trim closed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Skipped {
    /// The manager was made without watermarks.
    Disabled,
    /// There are not more connections than the low watermark.
    AtLowWatermark,
    /// There are more, but candidates among them have no more than they may: the others are protected, in use, in
    /// grace, or have a dial in flight.
    TooFewCandidates,
}

impl Skipped {
    /// One word, as metrics get it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::AtLowWatermark => "at_low_watermark",
            Self::TooFewCandidates => "too_few_candidates",
        }
    }
}

/// What a trim came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Trimmed {
    /// Connections that it closed, and that are gone.
    pub closed: usize,
    /// Connections that it told to close and that were still there at the deadline. They count as closing until they are gone.
    pub stuck: usize,
}
