//! What went wrong, with its evidence.

use crate::nodes::Node;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

/// Lines of a node's output that go with a fault.
const TAIL: usize = 120;

#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    begun: Instant,
    /// By what and where.
    found: BTreeMap<(String, String), Fault>,
}

#[derive(Debug)]
struct Fault {
    times: u32,
    what: String,
    evidence: String,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            begun: Instant::now(),
            found: BTreeMap::new(),
        }
    }

    /// The first of its kind at this node is kept with all that is known then, the others are
    /// counted.
    pub(crate) fn note(&mut self, node: &Node, kind: &str, what: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        let key = (kind.to_owned(), node.name());
        let fault = self.found.entry(key).or_insert_with(|| Fault {
            times: 0,
            what: format!("at {at:.1} s: {what}"),
            evidence: node.story(TAIL),
        });
        if fault.times == 0 {
            // Now, for a run may be stopped before its end.
            eprintln!("hardship: {kind}, {}, {}", node.name(), fault.what);
        }
        fault.times += 1;
    }

    /// How many of each kind, for a table.
    pub(crate) fn summary(&self) -> String {
        let mut kinds: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for ((kind, _), fault) in &self.found {
            let (nodes, times) = kinds.entry(kind).or_default();
            *nodes += 1;
            *times += fault.times;
        }
        kinds.iter().fold(String::new(), |mut all, (kind, (nodes, times))| {
            let _ = writeln!(all, "  {kind}: {times} times at {nodes} nodes");
            all
        })
    }

    /// The whole story, if there is one.
    pub(crate) fn verdict(self) -> Result<(), String> {
        if self.found.is_empty() {
            return Ok(());
        }
        let mut all = format!("seed {}\n{}", self.seed, self.summary());
        for ((kind, node), fault) in &self.found {
            let _ = write!(
                all,
                "\n== {kind}: {node}, {} times, first {}\n{}",
                fault.times, fault.what, fault.evidence
            );
        }
        Err(all)
    }
}
