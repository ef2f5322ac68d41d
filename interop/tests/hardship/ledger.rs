//! The rules that a node must have: what it acknowledged, and what was written into its file by
//! hand.

use crate::faults::Faults;
use crate::nodes::Node;
use anyhow::{Context as _, Result};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use libp2p_gater::{Rule, Rules};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

/// What became of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was acknowledged, or written by hand: it has to be there.
    There,
    /// It was taken away, or refused: it must not be there.
    Away,
    /// The node was killed before it answered: it is in the file or it is not.
    Unsure,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// As the file has it.
    pub(crate) line: String,
    /// As the node judges it.
    subject: Value,
    until: Option<SystemTime>,
    /// It was written by hand and not read again before the next change by command.
    pub(crate) behind_its_back: bool,
    pub(crate) fate: Fate,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
}

impl Ledger {
    /// A new rule that blocks a peer or an address that does not exist. `dice` decides all of it.
    /// It is not there yet.
    pub(crate) fn think_of(&mut self, dice: u64, until: Option<SystemTime>) -> usize {
        let number = self.entries.len();
        let mut dice = StdRng::seed_from_u64(dice);
        let (mut rule, subject) = if dice.random_bool(0.5) {
            let peer = stranger(dice.random());
            (Rule::block().peer(peer), json!({ "peer": peer.to_string() }))
        } else {
            // The range is kept for benchmarks; no node has an address in it. A second rule about
            // an address would replace the first.
            let [.., high, low] = number.to_be_bytes();
            let ip = IpAddr::from(Ipv4Addr::new(198, 18, high, low));
            (Rule::block().network(ip), json!({ "ip": ip }))
        };
        // Bare ones lie elsewhere than those with conditions.
        if until.is_some() || dice.random_bool(0.7) {
            rule = rule.note(format!("number {number}"));
        }
        if let Some(until) = until {
            rule = rule.until(until);
        }
        self.entries.push(Entry {
            line: rule.to_string(),
            subject,
            until,
            behind_its_back: false,
            fate: Fate::Away,
        });
        number
    }

    /// One of those that are there, by the dice.
    pub(crate) fn one_that_is_there(&self, dice: u64) -> Option<usize> {
        let there: Vec<_> = (0..self.entries.len())
            .filter(|at| self.entries[*at].fate == Fate::There)
            .collect();
        let at = usize::try_from(dice % 1_000_003).ok()?.checked_rem(there.len())?;
        there.get(at).copied()
    }

    pub(crate) fn ends(&self, number: usize) -> bool {
        self.entries[number].until.is_some()
    }

    pub(crate) fn line(&self, number: usize) -> &str {
        &self.entries[number].line
    }

    /// Nothing but the file knows of the rule when the next change comes.
    pub(crate) fn hide(&mut self, number: usize) {
        self.entries[number].behind_its_back = true;
    }

    pub(crate) fn settle(&mut self, number: usize, fate: Fate) {
        self.entries[number].fate = fate;
    }

    pub(crate) fn there(&self) -> usize {
        self.entries.iter().filter(|entry| entry.fate == Fate::There).count()
    }
}

pub(crate) fn stranger(secret: [u8; 32]) -> PeerId {
    let key = Keypair::ed25519_from_bytes(secret).expect("32 bytes");
    key.public().to_peer_id()
}

/// Compares the file, what the node has in force, and the ledger. A difference is a fault; then the
/// ledger takes over what the file says.
///
/// Rules with an end are left out while the node's clock is wrong: by that clock they may be over.
pub(crate) fn audit(node: &mut Node, faults: &mut Faults) -> Result<()> {
    let file = node.disk.path().join("rules");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("{}", file.display())),
    };
    if !text.is_empty() {
        // A copy, as loading a file removes what a killed writer left beside it.
        let copy = node.scratch.join("rules");
        fs::write(&copy, &text)?;
        if let Err(error) = Rules::load(&copy) {
            faults.note(node, "a file of rules is damaged", &format!("{error:#}:\n{text}"));
        }
    }
    let lines: BTreeSet<&str> = text.lines().collect();
    let known: BTreeSet<String> = node.ledger.entries.iter().map(|entry| entry.line.clone()).collect();
    for line in &lines {
        if line.starts_with("block") && !known.contains(*line) {
            faults.note(node, "a rule from nowhere is in the file", line);
        }
    }
    let listed = node.asks(faults, &json!({ "do": "rules" }));
    let subjects: Vec<_> = node.ledger.entries.iter().map(|entry| entry.subject.clone()).collect();
    let denied = node.asks(faults, &json!({ "do": "judge", "subjects": subjects }));
    let (Some(listed), Some(denied)) = (listed, denied) else {
        return Ok(());
    };
    // What was written by hand and could not be read yet is in the file alone.
    let read = !node.unread;
    let now = SystemTime::now();
    for at in 0..node.ledger.entries.len() {
        let entry = node.ledger.entries[at].clone();
        let over = entry.until.is_some_and(|until| until <= now || node.clock_is_wrong);
        if over {
            continue;
        }
        let in_file = lines.contains(entry.line.as_str());
        let in_list = listed
            .as_array()
            .is_some_and(|rules| rules.iter().any(|rule| *rule == *entry.line));
        let in_force = denied[at] == true;
        let (kind, should_be) = match entry.fate {
            Fate::There if entry.behind_its_back => ("an unread edit by hand is lost", true),
            Fate::There if entry.until.is_some() => ("a rule with an end is lost", true),
            Fate::There => ("a rule is lost", true),
            Fate::Away => ("a rule came back", false),
            Fate::Unsure => {
                node.ledger.entries[at].fate = if in_file { Fate::There } else { Fate::Away };
                ("a rule is half there", in_file)
            }
        };
        let is_right = in_file == should_be && (!read || (in_list == should_be && in_force == should_be));
        if !is_right {
            let found = format!(
                "`{}`: in the file {in_file}, listed {in_list}, in force {in_force}",
                entry.line
            );
            faults.note(node, kind, &found);
            node.ledger.entries[at].fate = if in_file { Fate::There } else { Fate::Away };
        }
    }
    Ok(())
}

/// Writes `line` into the node's file, or takes it out, as an editor does: a new file in the place
/// of the old one. Says whether the disk let it.
pub(crate) fn edit(node: &Node, line: &str, there: bool) -> bool {
    let file = node.disk.path().join("rules");
    let new = node.disk.path().join("rules.edited");
    let text = fs::read_to_string(&file).unwrap_or_else(|_| "libp2p-gater rules 1\nend\n".to_owned());
    let mut lines: Vec<&str> = text.lines().filter(|other| *other != line).collect();
    if there {
        lines.insert(lines.len().saturating_sub(1), line);
    }
    let written = fs::write(&new, lines.join("\n") + "\n").and_then(|()| fs::rename(&new, &file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.is_ok()
}
