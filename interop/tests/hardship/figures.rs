//! What happened, for a reader, and whether enough did.

use crate::measure::Held;
use crate::run::Run;
use anyhow::{Result, ensure};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

impl Run {
    /// A run in which nothing happened shows nothing.
    pub(crate) fn is_not_vacuous(&self) -> Result<()> {
        let done = |what: &str| {
            let figures = self.figures.iter();
            figures
                .filter(|(name, _)| name.starts_with(what) && !name.ends_with("left out"))
                .map(|(_, count)| count)
                .sum::<u64>()
        };
        for what in [
            "Kill",
            "Start",
            "Stop",
            "GoOn",
            "Clock",
            "Fill",
            "ReadOnly",
            "InsertByHand",
            "Dial",
            "Crowd",
            "insert: saved",
            "insert: refused, io",
            "nodes that reached",
        ] {
            ensure!(done(what) > 0, "it never came to `{what}`: {:#?}", self.figures);
        }
        let let_in = self.crowd.counts.let_in.load(Ordering::Relaxed);
        ensure!(let_in > 0, "no stranger was let in");
        Ok(())
    }

    pub(crate) fn report(&self, before: &[Option<Held>], after: &[Option<Held>]) {
        let mut all = format!(
            "seed {}, {} nodes, {:?} of hardship\n",
            self.form.shape.seed, self.form.shape.nodes, self.form.shape.length
        );
        for (what, count) in &self.figures {
            let _ = writeln!(all, "  {what}: {count}");
        }
        let counts = &self.crowd.counts;
        for (what, count) in [
            ("strangers let in", &counts.let_in),
            ("strangers turned away", &counts.turned_away),
            ("noisy sockets", &counts.noise),
        ] {
            let _ = writeln!(all, "  {what}: {}", count.load(Ordering::Relaxed));
        }
        let _ = writeln!(
            all,
            "  mean resident KiB of the nodes that are never killed, at each tenth: {:?}",
            self.resident
        );
        let there: usize = self.nodes.iter().map(|node| node.ledger.there()).sum();
        let _ = writeln!(all, "  rules in the end: {there}");
        let _ = writeln!(
            all,
            "  node: starts; before and after: descriptors, threads, resident KiB, connections, substreams of 100"
        );
        for ((node, before), after) in self.nodes.iter().zip(before).zip(after) {
            if let (Some(before), Some(after)) = (before, after) {
                let _ = writeln!(
                    all,
                    "  {:>2}: {:>3}; {:>3} {:>3}, {:>3} {:>3}, {:>6} {:>6}, {:>3} {:>3}, {:>4} {:>4}",
                    node.index,
                    node.starts,
                    before.descriptors,
                    after.descriptors,
                    before.threads,
                    after.threads,
                    before.resident_kib,
                    after.resident_kib,
                    before.connections,
                    after.connections,
                    before.substreams,
                    after.substreams
                );
            }
        }
        all.push_str(&self.faults.summary());
        eprint!("{all}");
    }
}
