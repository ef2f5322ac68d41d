//! What is done to whom and when, all of it out of one number.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// One thing that is done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Kill,
    /// Kills it so many microseconds after it was told to insert a rule.
    KillWhileItSaves {
        after: u64,
        dice: u64,
    },
    Start,
    Stop,
    GoOn,
    /// The wall clock is so many seconds ahead or behind, or right again.
    Clock(i64),
    /// The disk is full but for so many pages.
    Fill {
        spare: usize,
    },
    Free,
    ReadOnly,
    Writable,
    /// A rule by command; some have an end that comes after the run.
    Insert {
        dice: u64,
        ends: bool,
    },
    Remove {
        dice: u64,
    },
    /// A rule by hand, which is read at once.
    InsertByHand {
        dice: u64,
    },
    RemoveByHand {
        dice: u64,
    },
    /// A rule by hand, and then another by command before the file is read again.
    InsertBehindItsBack {
        dice: u64,
    },
    /// Dials another node, connected or not.
    Dial {
        other: usize,
    },
    Gossip,
    /// So many strangers that knock, and so many that do something else.
    Crowd {
        knocking: usize,
        noisy: usize,
        dice: u64,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Step {
    /// Its name without what differs from one to the next, for counting.
    pub(crate) fn name(&self) -> String {
        let all = format!("{self:?}");
        let name = all.split(|c: char| !c.is_alphanumeric()).next();
        name.unwrap_or_default().to_owned()
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) node: usize,
    pub(crate) step: Step,
}

/// How a schedule is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) nodes: usize,
    pub(crate) length: Duration,
    pub(crate) seed: u64,
    /// How long between two troubles of one kind at one node, in milliseconds.
    pub(crate) pause: (u64, u64),
    /// How long a process is stopped at most, in milliseconds.
    pub(crate) stop: u64,
    /// Rules that end, and edits behind a node's back, as well.
    pub(crate) cunning: bool,
}

/// Whether a node is never killed: its memory is that of the whole run.
pub(crate) fn is_spared(node: usize) -> bool {
    node % 2 == 1
}

/// Everything that will be done, in order.
pub(crate) fn schedule(shape: &Shape) -> Vec<Planned> {
    let mut plan = Vec::new();
    for node in 0..shape.nodes {
        // Each kind of trouble goes its own way, so that they meet in every combination.
        let lanes: [fn(&mut Lane<'_>); 5] = [process, disk, clock, rules, company];
        for (number, lane) in (0u64..).zip(lanes) {
            let mut lane_plan = Lane {
                shape,
                node,
                dice: StdRng::seed_from_u64(shape.seed ^ (number << 40) ^ ((node as u64) << 48)),
                at: Duration::ZERO,
                plan: &mut plan,
            };
            lane_plan.pause(1, 1);
            while lane_plan.at < shape.length {
                lane(&mut lane_plan);
            }
        }
    }
    let mut dice = StdRng::seed_from_u64(shape.seed.wrapping_add(1));
    let mut at = Duration::from_millis(500);
    while at < shape.length {
        let step = Step::Crowd {
            knocking: dice.random_range(5..20),
            // More than a process with 64 descriptors can hold.
            noisy: dice.random_range(0..80),
            dice: dice.random(),
        };
        let node = dice.random_range(0..shape.nodes);
        plan.push(Planned { at, node, step });
        at += Duration::from_millis(dice.random_range(1000..3000));
    }
    // What ends a trouble may come after the end, and then it is everything that is put right.
    plan.retain(|planned| planned.at < shape.length);
    plan.sort_by_key(|planned| planned.at);
    plan
}

struct Lane<'a> {
    shape: &'a Shape,
    node: usize,
    dice: StdRng,
    at: Duration,
    plan: &'a mut Vec<Planned>,
}

impl Lane<'_> {
    fn step(&mut self, step: Step) {
        let (at, node) = (self.at, self.node);
        self.plan.push(Planned { at, node, step });
    }

    fn wait(&mut self, milliseconds: Range<u64>) {
        self.at += Duration::from_millis(self.dice.random_range(milliseconds));
    }

    /// The usual pause, times a fraction.
    fn pause(&mut self, times: u64, of: u64) {
        let (least, most) = self.shape.pause;
        self.wait(least * times / of..most * times / of);
    }

    fn one_of(&mut self, steps: &[Step]) {
        if let Some(step) = steps.choose(&mut self.dice).copied() {
            self.step(step);
        }
    }
}

fn process(lane: &mut Lane<'_>) {
    let roll = lane.dice.random_range(0..3);
    if is_spared(lane.node) || roll == 0 {
        lane.step(Step::Stop);
        lane.wait(500..lane.shape.stop);
        lane.step(Step::GoOn);
    } else {
        let (after, dice) = (lane.dice.random_range(0..2000), lane.dice.random());
        lane.one_of(&[Step::Kill, Step::KillWhileItSaves { after, dice }]);
        lane.wait(0..4000);
        lane.step(Step::Start);
    }
    lane.pause(1, 1);
}

fn disk(lane: &mut Lane<'_>) {
    let spare = lane.dice.random_range(0..3);
    if lane.dice.random_bool(0.5) {
        lane.step(Step::Fill { spare });
        lane.wait(1000..5000);
        lane.step(Step::Free);
    } else {
        lane.step(Step::ReadOnly);
        lane.wait(1000..5000);
        lane.step(Step::Writable);
    }
    lane.pause(2, 3);
}

fn clock(lane: &mut Lane<'_>) {
    lane.one_of(&[Step::Clock(30), Step::Clock(-30), Step::Clock(600), Step::Clock(-3600)]);
    lane.wait(1500..6000);
    lane.step(Step::Clock(0));
    lane.pause(1, 1);
}

fn rules(lane: &mut Lane<'_>) {
    let dice = lane.dice.random();
    let (roll, coin) = (lane.dice.random_range(0..10), lane.dice.random_bool(0.5));
    lane.step(match roll {
        0..4 => Step::Insert { dice, ends: false },
        4..6 => Step::Remove { dice },
        6..8 => Step::InsertByHand { dice },
        8 => Step::RemoveByHand { dice },
        _ if !lane.shape.cunning => Step::Insert { dice, ends: false },
        _ if coin => Step::Insert { dice, ends: true },
        _ => Step::InsertBehindItsBack { dice },
    });
    lane.pause(1, 4);
}

fn company(lane: &mut Lane<'_>) {
    let other = (lane.node + lane.dice.random_range(1..lane.shape.nodes)) % lane.shape.nodes;
    lane.one_of(&[Step::Dial { other }, Step::Dial { other }, Step::Gossip]);
    lane.pause(1, 3);
}
