//! What must be so, all along and in the end.

use crate::deeds::left_behind;
use crate::faults::Faults;
use crate::ledger::audit;
use crate::measure::Held;
use crate::nodes::Node;
use crate::run::Run;
use anyhow::{Result, ensure};
use libp2p::identity::Keypair;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

impl Run {
    /// Asks the node whose turn it is for its state.
    pub(crate) fn look_at_the_next(&mut self) {
        self.turn = (self.turn + 1) % self.nodes.len();
        let node = &mut self.nodes[self.turn];
        node.complaints(&mut self.faults);
        let asked = Instant::now();
        if let Some(state) = node.state(&mut self.faults) {
            let took = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
            let longest = self.figures.entry("longest answer in ms".to_owned()).or_default();
            *longest = (*longest).max(took);
            self.faults_of(self.turn, &state);
        }
    }

    /// Checks what must be so at all times.
    fn faults_of(&mut self, at: usize, state: &Value) {
        let (node, faults) = (&self.nodes[at], &mut self.faults);
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let (watch, manager) = (&state["watch"], &state["manager"]);
        let mut must = |is_so: bool, kind: &str| {
            if !is_so {
                faults.note(node, kind, &format!("manager {manager}, watch {watch}"));
            }
        };
        let looks = |time: Duration| u64::try_from(time.as_millis() / 100).unwrap_or(u64::MAX);
        must(state["listening"] == true, "a node does not listen");
        must(
            number(&watch["most_open"]) <= number(&manager["hard"]),
            "the manager let in more than its hard limit",
        );
        // "Never exceeded for longer than it takes to close one": two seconds for the goodbye, five
        // for the close.
        must(
            number(&watch["over_hard"]["longest"]) <= looks(Duration::from_secs(10)),
            "the Swarm had more connections than the hard limit for long",
        );
        // What is overdue goes with the next trim. That one may have to wait for the trim before it,
        // four seconds at most, and then for a multiple of the silence period. The rest is for a
        // machine that does other things.
        let trim = node.settings.silence * 2 + Duration::from_secs(8);
        must(
            number(&watch["over_mark"]["longest"]) <= looks(trim),
            "the manager does not keep its mark",
        );
        must(
            number(&watch["disagreed"]["longest"]) <= looks(Duration::from_secs(3)),
            "the manager and the Swarm count differently",
        );
        for (peer, talk) in state["talks"].as_object().into_iter().flatten() {
            if number(&talk["wrong"]) > 0 {
                faults.note(node, "a message came twice or out of order", &format!("{peer}: {talk}"));
            }
        }
        for (name, value) in [
            ("connections by the manager", &watch["most_open"]),
            ("connections by the Swarm", &watch["most_established"]),
            ("looks above the hard limit in a row", &watch["over_hard"]["longest"]),
            ("looks above the mark in a row", &watch["over_mark"]["longest"]),
            // Of two dials to one address the manager cannot tell which made which connection.
            ("connections without a count of streams", &state["uncounted"]),
            (
                "looks at which the two disagreed in a row",
                &watch["disagreed"]["longest"],
            ),
            ("failures to accept", &state["accept_failures"]),
        ] {
            let most = self.figures.entry(format!("most of a node: {name}")).or_default();
            *most = (*most).max(number(value));
        }
        if number(&watch["most_open"]) >= number(&manager["high"]) {
            self.at_mark.insert(at);
            let nodes = u64::try_from(self.at_mark.len()).unwrap_or(u64::MAX);
            self.figures
                .insert("nodes that reached their high mark".to_owned(), nodes);
        }
    }

    /// Checks what must be so in the end.
    pub(crate) fn end(&mut self, before: &[Option<Held>], after: &[Option<Held>]) -> Result<()> {
        for at in 0..self.nodes.len() {
            self.counts_agree(at);
            audit(&mut self.nodes[at], &mut self.faults)?;
            let node = &mut self.nodes[at];
            node.complaints(&mut self.faults);
            let left = left_behind(node)?;
            if !left.is_empty() {
                self.faults
                    .note(node, "something is left beside the file", &format!("{left:?}"));
            }
            if let (Some(before), Some(after)) = (before[at], after[at]) {
                leaks(node, before, after, &mut self.faults);
            }
        }
        self.rules_are_obeyed()
    }

    /// Checks that the Swarm, the manager and the streams count the same, and that the manager is
    /// at its mark. Connections still come and go, so one look of a hundred must find it so.
    fn counts_agree(&mut self, at: usize) {
        let mut why = Value::Null;
        for _ in 0..100 {
            let Some(state) = self.nodes[at].state(&mut self.faults) else {
                return;
            };
            let number = |value: &Value| value.as_u64().unwrap_or(0);
            let manager = &state["manager"];
            let by_events: u64 = state["connections"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(_, ways)| number(&ways[0]) + number(&ways[1]))
                .sum();
            let established = number(&state["established"]);
            let counted = number(&manager["open"]) + number(&manager["closing"]);
            let at_mark = number(&manager["open"]) < number(&manager["high"])
                || number(&manager["closable"]) <= number(&manager["low"]);
            let talks = state["talks"].as_object().map_or(0, serde_json::Map::len);
            let talks_agree = number(&state["talks_counted"]) == talks as u64
                && state["talks"].as_object().into_iter().flatten().all(|(peer, talk)| {
                    talk["open"] == true && talk["linked"] == true && state["connections"][peer].is_array()
                });
            if by_events == established && counted == established && at_mark && talks_agree {
                return;
            }
            why = state;
            std::thread::sleep(Duration::from_millis(100));
        }
        self.faults
            .note(&self.nodes[at], "counts do not agree in the end", &why.to_string());
    }

    /// A stranger that is blocked everywhere is let in nowhere, and everywhere once the blocks are
    /// gone: rules do what they say, and no node is deaf.
    fn rules_are_obeyed(&mut self) -> Result<()> {
        let key = Keypair::ed25519_from_bytes([0xee; 32])?;
        let rule = format!("block peer {}", key.public().to_peer_id());
        let addresses: Vec<_> = self.nodes.iter().map(Node::address).collect();
        for (command, expected, patience) in [("insert", false, 3), ("remove", true, 30)] {
            for node in &mut self.nodes {
                let answer = node.asks(&mut self.faults, &json!({ "do": command, "rule": rule }));
                ensure!(
                    answer.is_none_or(|answer| answer["refused"].is_null()),
                    "{command} {rule}"
                );
            }
            let let_in = self.crowd.let_in(&key, &addresses, Duration::from_secs(patience))?;
            for (node, let_in) in self.nodes.iter().zip(let_in) {
                if let_in != expected {
                    let what = format!("{command}, let in: {let_in}");
                    self.faults.note(node, "a rule is not obeyed, or a node is deaf", &what);
                }
            }
        }
        Ok(())
    }
}

/// Compares what a node holds after the hardship and before it, at the same point of a calm.
fn leaks(node: &Node, before: Held, after: Held, faults: &mut Faults) {
    let told = format!("before {before:?}, after {after:?}");
    // For dials under way and a file that is being read.
    if after.descriptors > before.descriptors + 4 {
        faults.note(node, "descriptors leak", &told);
    }
    // All threads are there from the beginning. One may be looking at the network's interfaces.
    if after.threads > before.threads + 1 {
        faults.note(node, "threads leak", &told);
    }
    // Room for three more behaviours at work on each connection at that moment.
    if after.substreams > before.substreams + 300 {
        faults.note(node, "substreams leak", &told);
    }
    // Some things are remembered on purpose: the grace of peers that have gone (16,384 at half a
    // KiB), gossip that was seen, the knocks of four minutes. The allocator keeps some of a crowd's
    // buffers.
    // A campaign of 15 minutes takes 2.5 MiB in all, most of it in the first minutes.
    if after.resident_kib > before.resident_kib + before.resident_kib / 4 + (4 << 10) {
        faults.note(node, "memory leaks", &told);
    }
}
