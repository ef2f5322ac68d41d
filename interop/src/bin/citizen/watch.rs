//! Looks ten times a second whether the manager keeps its marks.
//!
//! What lasts is counted in looks and not in seconds: a process that is stopped, or gets no
//! processor, looks less often, and so does its manager.

use libp2p_connmgr::Counts;
use serde_json::{Value, json};
use std::time::Duration;

/// From one look to the next, at least.
pub(crate) const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct Watch {
    looks: u64,
    /// The most connections that the manager counted, those that it was closing left out.
    most_open: usize,
    /// The most that the Swarm had.
    most_established: usize,
    /// The Swarm had more than the hard limit.
    over_hard: Run,
    /// The manager had its high mark or more, and more than its low mark of connections that a trim
    /// should have closed by then.
    over_mark: Run,
    /// The manager and the Swarm counted differently.
    disagreed: Run,
}

/// For how many looks in a row something was so.
#[derive(Debug, Default)]
struct Run {
    now: u64,
    longest: u64,
}

impl Run {
    fn look(&mut self, is_so: bool) {
        self.now = if is_so { self.now + 1 } else { 0 };
        self.longest = self.longest.max(self.now);
    }

    fn state(&self) -> Value {
        json!({ "now": self.now, "longest": self.longest })
    }
}

/// The manager's settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    /// In looks: for how long a connection is left alone, its grace and two silences.
    pub(crate) patience: u64,
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) hard: usize,
}

impl Watch {
    /// A connection was established: now is when a limit would be exceeded.
    pub(crate) fn newcomer(&mut self, open: usize, established: usize) {
        self.most_open = self.most_open.max(open);
        self.most_established = self.most_established.max(established);
    }

    /// How often it has looked.
    pub(crate) fn looks(&self) -> u64 {
        self.looks
    }

    /// `overdue` are connections that a trim should have closed by now, but for as many as the low
    /// mark.
    pub(crate) fn look(&mut self, marks: Marks, counts: &Counts, established: usize, overdue: usize) {
        self.looks += 1;
        let open = counts.connections();
        self.newcomer(open, established);
        self.over_hard.look(established > marks.hard);
        self.over_mark.look(open >= marks.high && overdue > marks.low);
        self.disagreed.look(open + counts.closing != established);
    }

    pub(crate) fn state(&self) -> Value {
        json!({
            "looks": self.looks,
            "most_open": self.most_open,
            "most_established": self.most_established,
            "over_hard": self.over_hard.state(),
            "over_mark": self.over_mark.state(),
            "disagreed": self.disagreed.state(),
        })
    }
}
