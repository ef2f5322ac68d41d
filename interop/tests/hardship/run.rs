//! One run: calm, hardship, everything put right, calm again.

use crate::crowd::Crowd;
use crate::disks::Place;
use crate::faults::Faults;
use crate::ledger::audit;
use crate::measure::{Held, measure, resident_of_the_spared};
use crate::nodes::{Node, Settings};
use crate::schedule::{Planned, Shape, schedule};
use anyhow::{Result, anyhow};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Rules of a node before anything happens.
const RULES: usize = 300;

/// How many nodes, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) shape: Shape,
    /// Each of the two calms between which the processes are compared.
    pub(crate) calm: Duration,
    /// Once all is put right, every wanted pair talks within this time. The longest that anything
    /// waits is a goodbye's two seconds and a pause of four; what a dial that is not answered takes
    /// is five; after a clock that was ahead for six seconds there may be six in which knocks look
    /// like copies. The rest is for machines that do other things.
    pub(crate) settle: Duration,
    /// Which nodes' friends alone reach the high mark.
    pub(crate) tight: bool,
}

pub(crate) struct Run {
    pub(crate) form: Form,
    pub(crate) nodes: Vec<Node>,
    /// Who wants whom, and whether that wants it too.
    pub(crate) pairs: Vec<(usize, usize, bool)>,
    pub(crate) crowd: Crowd,
    pub(crate) faults: Faults,
    pub(crate) figures: BTreeMap<String, u64>,
    pub(crate) begun: Instant,
    /// Which nodes' disks are full or read-only.
    pub(crate) without_disk: Vec<bool>,
    /// Which nodes have had as many connections as their high mark.
    pub(crate) at_mark: BTreeSet<usize>,
    /// The mean resident memory of the nodes that are never killed, in KiB, at each tenth.
    pub(crate) resident: Vec<i64>,
    /// The next to be asked how it is.
    pub(crate) turn: usize,
}

/// Runs it, and fails with everything that was found.
pub(crate) fn run(name: &str, form: Form) -> Result<()> {
    let Some(place) = Place::make(name)? else { return Ok(()) };
    let seed = form.shape.seed;
    let mut run = Run {
        form,
        nodes: (0..form.shape.nodes)
            .map(|index| Node::new(&place, index, seed, settings(&form, index)))
            .collect::<Result<_>>()?,
        pairs: pairs(form.shape.nodes),
        crowd: Crowd::new()?,
        faults: Faults::new(seed),
        figures: BTreeMap::new(),
        begun: Instant::now(),
        without_disk: vec![false; form.shape.nodes],
        at_mark: BTreeSet::new(),
        resident: Vec::new(),
        turn: 0,
    };
    run.begin()?;
    run.say("all are connected");
    let before = run.rest()?;
    run.say("hardship begins");
    run.suffer()?;
    run.say("all is put right");
    run.put_right()?;
    run.settle("stuck")?;
    run.say("all are connected again");
    let after = run.rest()?;
    run.end(&before, &after)?;
    run.report(&before, &after);
    run.is_not_vacuous()?;
    run.faults.verdict().map_err(|all| anyhow!(all))
}

fn settings(form: &Form, index: usize) -> Settings {
    // A node has at most 3 friends in the short form and 5 in the long one. A trim leaves these and
    // `low` others.
    let many = form.shape.nodes > 12;
    let (low, high, hard) = match (many, form.tight && index % 4 == 3) {
        (false, _) => (4, 9, 13),
        (true, false) => (8, 18, 26),
        (true, true) => (2, 6, 16),
    };
    let (grace, silence) = if many { (5, 2) } else { (2, 1) };
    Settings {
        low,
        high,
        hard,
        grace: Duration::from_secs(grace),
        silence: Duration::from_secs(silence),
        limited: index % 3 == 1,
        still: false,
    }
}

/// A ring, every other pair of which wants each other, and chords.
fn pairs(nodes: usize) -> Vec<(usize, usize, bool)> {
    let mut pairs: Vec<_> = (0..nodes).map(|at| (at, (at + 1) % nodes, at % 2 == 0)).collect();
    if nodes > 12 {
        pairs.extend((0..nodes).map(|at| (at, (at + 7) % nodes, false)));
        pairs.extend((0..nodes).step_by(2).map(|at| (at, (at + 11) % nodes, true)));
    } else {
        pairs.extend((0..nodes).step_by(3).map(|at| (at, (at + 2) % nodes, false)));
    }
    pairs
}

impl Run {
    fn say(&self, what: &str) {
        eprintln!("hardship: {:7.1} s: {what}", self.begun.elapsed().as_secs_f64());
    }

    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.figures.entry(what.into()).or_default() += 1;
    }

    fn begin(&mut self) -> Result<()> {
        for (one, other, mutual) in self.pairs.clone() {
            let (peer, address) = (self.nodes[other].peer, self.nodes[other].address());
            self.nodes[one].partner(peer, Some(address));
            let (peer, address) = (self.nodes[one].peer, self.nodes[one].address());
            self.nodes[other].partner(peer, mutual.then_some(address));
        }
        for node in &mut self.nodes {
            node.rule(RULES, self.form.shape.seed)?;
            node.start(&mut self.faults)?;
        }
        self.settle("not connected at the start")
    }

    /// Waits until each pair is connected at both ends and has talked both ways since.
    fn settle(&mut self, kind: &str) -> Result<()> {
        let begun = Instant::now();
        let first = self.states();
        let mut missing = self.pairs.clone();
        while !missing.is_empty() && begun.elapsed() < self.form.settle {
            std::thread::sleep(Duration::from_millis(200));
            let now = self.states();
            missing.retain(|(one, other, mutual)| {
                let is_fine = |here: usize, there: usize, wants: bool| {
                    let peer = self.nodes[there].peer.to_string();
                    let heard = |states: &[Value]| states[here]["talks"][&peer]["heard"].as_u64().unwrap_or(0);
                    let connected = now[here]["connections"][&peer].is_array();
                    connected && (!wants || now[here]["wanted"][&peer] == true) && heard(&now) > heard(&first)
                };
                !(is_fine(*one, *other, true) && is_fine(*other, *one, *mutual))
            });
        }
        for (one, other, _) in missing {
            let (node, peer) = (&self.nodes[one], &self.nodes[other]);
            let what = format!(
                "with {} ({}), not within {:?}\n{}",
                peer.name(),
                peer.peer,
                self.form.settle,
                peer.story(60)
            );
            self.faults.note(node, kind, &what);
        }
        self.figures.insert(
            format!("settled in ms ({kind})"),
            u64::try_from(begun.elapsed().as_millis())?,
        );
        Ok(())
    }

    fn states(&mut self) -> Vec<Value> {
        let nodes = self.nodes.iter_mut();
        nodes
            .map(|node| node.state(&mut self.faults).unwrap_or_default())
            .collect()
    }

    /// A calm, in which no wanted peer is lost, and what each node holds at its end.
    fn rest(&mut self) -> Result<Vec<Option<Held>>> {
        let first = self.states();
        let begun = Instant::now();
        while begun.elapsed() < self.form.calm {
            self.look_at_the_next();
            std::thread::sleep(Duration::from_millis(1000 / u64::try_from(self.nodes.len())?));
        }
        let last = self.states();
        for ((node, first), last) in self.nodes.iter().zip(first).zip(last) {
            let more = |what: &str| {
                last[what]
                    .as_u64()
                    .unwrap_or(0)
                    .saturating_sub(first[what].as_u64().unwrap_or(0))
            };
            if more("lost") > 0 {
                self.faults.note(
                    node,
                    "a wanted peer is lost in a calm",
                    &format!("{} times", more("lost")),
                );
            }
            for what in ["duplicates_closed", "unresponsive"] {
                *self.figures.entry(format!("in calms: {what}")).or_default() += more(what);
            }
        }
        measure(&mut self.nodes, &mut self.faults)
    }

    fn suffer(&mut self) -> Result<()> {
        let mut plan: VecDeque<Planned> = schedule(&self.form.shape).into();
        let begun = Instant::now();
        let mut looked = Instant::now();
        let rhythm = Duration::from_millis(2000 / u64::try_from(self.nodes.len())?);
        let tenth = self.form.shape.length / 10;
        while let Some(next) = plan.front().copied() {
            if next.at <= begun.elapsed() {
                plan.pop_front();
                self.nodes[next.node].log(next.step.to_string());
                let done = self.carry_out(next.node, next.step)?;
                let name = next.step.name();
                self.count(if done { name } else { format!("{name}, left out") });
            } else if looked.elapsed() >= rhythm {
                looked = Instant::now();
                self.look_at_the_next();
            } else {
                std::thread::sleep(Duration::from_millis(2));
            }
            self.revive()?;
            if self.resident.len() < 10 && begun.elapsed() >= tenth * u32::try_from(self.resident.len())? {
                self.resident.push(resident_of_the_spared(&self.nodes)?);
            }
        }
        self.crowd.disperse();
        Ok(())
    }

    /// Starts nodes that ended by themselves: that is a fault already, and the others need them.
    fn revive(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if node.has_ended_by_itself() {
                node.log("is started again");
                node.start(&mut self.faults)?;
                audit(node, &mut self.faults)?;
            }
        }
        Ok(())
    }

    fn put_right(&mut self) -> Result<()> {
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            node.log("all is put right");
            node.clock.set(0)?;
            node.clock_is_wrong = false;
            node.disk.writable()?;
            node.disk.free()?;
            self.without_disk[at] = false;
            if node.stopped {
                node.go_on()?;
            }
            if !node.is_running() {
                node.start(&mut self.faults)?;
            }
            // Unread or not: what a killed process left beside the file goes at a reload.
            node.unread = true;
            let read = self.reload(at);
            if !read {
                let node = &self.nodes[at];
                self.faults
                    .note(node, "a file of rules cannot be read", "after all was put right");
            }
        }
        Ok(())
    }
}
