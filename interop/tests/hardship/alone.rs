//! Single hardships that the campaign meets by chance, each by itself.

use crate::crowd::Crowd;
use crate::disks::Place;
use crate::faults::Faults;
use crate::ledger::{Fate, audit, edit};
use crate::nodes::{Node, Settings};
use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime};

/// Generous, for machines that do other things too: most of what is awaited comes within a second
/// or two.
const SOON: Duration = Duration::from_secs(30);

const SETTINGS: Settings = Settings {
    low: 1,
    high: 3,
    hard: 30,
    grace: Duration::from_secs(1),
    silence: Duration::from_millis(500),
    limited: false,
    still: true,
};

fn nodes(place: &Place, seed: u64, count: usize) -> Result<Vec<Node>> {
    (0..count)
        .map(|index| Node::new(place, index, seed, SETTINGS))
        .collect()
}

fn insert(node: &mut Node, faults: &mut Faults, line: &str) -> Result<Value> {
    let command = json!({ "do": "insert", "rule": line });
    node.asks(faults, &command).context("an answer")
}

/// Waits until `is_so` of what the node says of itself.
fn until(node: &mut Node, faults: &mut Faults, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
    let begun = Instant::now();
    loop {
        let state = node.state(faults).context("an answer")?;
        if is_so(&state) {
            return Ok(());
        }
        let story = || node.story(40);
        ensure!(
            begun.elapsed() < SOON,
            "{what}: not within {SOON:?}: {state}\n{}",
            story()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_hand_edit_that_was_not_read_yet_survives_a_change_by_command() -> Result<()> {
    let Some(place) = Place::make("edit")? else {
        return Ok(());
    };
    let mut faults = Faults::new(2);
    let mut node = nodes(&place, 2, 1)?.remove(0);
    node.start(&mut faults)?;
    let first = node.ledger.think_of(1, None);
    let line = node.ledger.line(first).to_owned();
    let answer = insert(&mut node, &mut faults, &line)?;
    ensure!(answer["refused"].is_null(), "{answer}");
    node.ledger.settle(first, Fate::There);

    let by_hand = node.ledger.think_of(2, None);
    ensure!(edit(&node, node.ledger.line(by_hand), true));
    node.ledger.settle(by_hand, Fate::There);
    node.ledger.hide(by_hand);
    let by_command = node.ledger.think_of(3, None);
    let line = node.ledger.line(by_command).to_owned();
    // Refused, with an error that names what differs, or saved together with the other.
    let answer = insert(&mut node, &mut faults, &line)?;
    if answer["refused"].is_null() {
        node.ledger.settle(by_command, Fate::There);
    }
    let answer = node
        .asks(&mut faults, &json!({ "do": "reload" }))
        .context("an answer")?;
    ensure!(answer["refused"].is_null(), "{answer}");
    audit(&mut node, &mut faults)?;
    faults.verdict().map_err(|all| anyhow!(all))
}

#[test]
fn a_clock_that_was_ahead_takes_no_rule_away() -> Result<()> {
    let Some(place) = Place::make("clock")? else {
        return Ok(());
    };
    let mut faults = Faults::new(3);
    let mut node = nodes(&place, 3, 1)?.remove(0);
    node.start(&mut faults)?;
    let ends = node
        .ledger
        .think_of(1, Some(SystemTime::now() + Duration::from_secs(300)));
    let line = node.ledger.line(ends).to_owned();
    let answer = insert(&mut node, &mut faults, &line)?;
    ensure!(answer["refused"].is_null(), "{answer}");
    node.ledger.settle(ends, Fate::There);

    // By this clock it is over: once for a node that runs, once for one that starts.
    node.clock.set(600)?;
    node.clock_is_wrong = true;
    for dice in [2, 3] {
        let other = node.ledger.think_of(dice, None);
        let line = node.ledger.line(other).to_owned();
        let answer = insert(&mut node, &mut faults, &line)?;
        ensure!(answer["refused"].is_null(), "{answer}");
        node.ledger.settle(other, Fate::There);
        node.kill(&mut faults);
        node.start(&mut faults)?;
    }
    node.clock.set(0)?;
    node.clock_is_wrong = false;
    node.kill(&mut faults);
    node.start(&mut faults)?;
    audit(&mut node, &mut faults)?;
    faults.verdict().map_err(|all| anyhow!(all))
}

#[test]
fn a_node_whose_friends_alone_reach_its_mark_still_closes_strangers() -> Result<()> {
    const FRIENDS: usize = 3;
    let Some(place) = Place::make("mark")? else {
        return Ok(());
    };
    let mut faults = Faults::new(4);
    let mut nodes = nodes(&place, 4, 1 + FRIENDS)?;
    let (node, friends) = nodes.split_first_mut().context("a node")?;
    for friend in friends.iter_mut() {
        friend.partner(node.peer, Some(node.address()));
        node.partner(friend.peer, None);
    }
    node.start(&mut faults)?;
    for friend in friends {
        friend.start(&mut faults)?;
    }
    until(node, &mut faults, "friends", |state| {
        state["manager"]["protected"].as_u64() >= Some(FRIENDS as u64)
    })?;
    // The friends bring about a trim, which finds no peer to close.
    std::thread::sleep(SETTINGS.grace + SETTINGS.silence * 3);

    // They stay for longer than anything here takes.
    let mut crowd = Crowd::new()?;
    crowd.visit(&node.address(), node.socket, (10, 0), 4, SOON * 20)?;
    until(node, &mut faults, "strangers", |state| {
        state["manager"]["open"].as_u64() >= Some(FRIENDS as u64 + 5)
    })?;
    until(node, &mut faults, "the low mark", |state| {
        state["manager"]["closable"].as_u64() <= Some(SETTINGS.low as u64) && state["manager"]["in_grace"] == 0
    })?;
    faults.verdict().map_err(|all| anyhow!(all))
}
