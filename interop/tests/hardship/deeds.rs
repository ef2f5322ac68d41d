//! What is done to a node, and what it has to answer to it.

use crate::crowd::SHORT;
use crate::ledger::{Fate, audit, edit};
use crate::nodes::Node;
use crate::run::{Form, Run};
use crate::schedule::Step;
use anyhow::Result;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

impl Run {
    /// Does `step` to the node `at`. False if there was nothing to do.
    pub(crate) fn carry_out(&mut self, at: usize, step: Step) -> Result<bool> {
        let faults = &mut self.faults;
        let node = &mut self.nodes[at];
        match step {
            Step::Kill if node.is_running() => node.kill(faults),
            Step::KillWhileItSaves { after, dice } if node.is_up() && !node.unread => {
                let rule = node.ledger.think_of(dice, None);
                // What cannot be told has ended, and that is noted below.
                let _ = node.tell(&json!({ "do": "insert", "rule": node.ledger.line(rule) }));
                std::thread::sleep(Duration::from_micros(after));
                node.kill(faults);
                node.ledger.settle(rule, Fate::Unsure);
            }
            Step::KillWhileItSaves { .. } if node.is_running() => node.kill(faults),
            Step::Start if !node.is_running() => {
                if !left_behind(node)?.is_empty() {
                    // It was killed between the new file and its place.
                    *self
                        .figures
                        .entry("killed in the middle of a save".to_owned())
                        .or_default() += 1;
                }
                node.start(faults)?;
                audit(node, faults)?;
            }
            Step::Stop if node.is_up() => node.stop()?,
            Step::GoOn if node.stopped => {
                node.go_on()?;
                self.reload(at);
            }
            Step::Clock(seconds) => {
                node.clock.set(seconds)?;
                node.clock_is_wrong = seconds != 0;
            }
            Step::Fill { spare } => {
                node.disk.fill(spare)?;
                self.without_disk[at] = true;
            }
            Step::ReadOnly => {
                node.disk.read_only()?;
                self.without_disk[at] = true;
            }
            Step::Free => {
                node.disk.free()?;
                self.without_disk[at] = false;
            }
            Step::Writable => {
                node.disk.writable()?;
                self.without_disk[at] = false;
            }
            Step::Insert { dice, ends } => {
                // A little after the run, so that a clock that is ahead sees it pass.
                let Form {
                    shape, calm, settle, ..
                } = self.form;
                let run = calm * 2 + shape.length + settle + Duration::from_secs(60);
                let end = ends.then(|| SystemTime::now() + run.saturating_sub(self.begun.elapsed()));
                if !self.reload(at) {
                    return Ok(false);
                }
                let rule = self.nodes[at].ledger.think_of(dice, end);
                self.change(at, rule, true);
            }
            Step::Remove { dice } => {
                let Some(rule) = node.ledger.one_that_is_there(dice) else {
                    return Ok(false);
                };
                if !self.reload(at) {
                    return Ok(false);
                }
                self.change(at, rule, false);
            }
            Step::InsertByHand { dice } => {
                let rule = node.ledger.think_of(dice, None);
                if !self.edit(at, rule, true) {
                    return Ok(false);
                }
                self.reload(at);
            }
            Step::RemoveByHand { dice } => {
                let Some(rule) = node.ledger.one_that_is_there(dice) else {
                    return Ok(false);
                };
                if !self.edit(at, rule, false) {
                    return Ok(false);
                }
                self.reload(at);
            }
            Step::InsertBehindItsBack { dice } => {
                if !self.reload(at) {
                    return Ok(false);
                }
                let by_hand = self.nodes[at].ledger.think_of(dice, None);
                if !self.edit(at, by_hand, true) {
                    return Ok(false);
                }
                self.nodes[at].ledger.hide(by_hand);
                let by_command = self.nodes[at].ledger.think_of(!dice, None);
                self.change(at, by_command, true);
                self.reload(at);
                audit(&mut self.nodes[at], &mut self.faults)?;
            }
            Step::Dial { other } if node.is_up() => {
                let address = self.nodes[other].address();
                self.nodes[at].asks(&mut self.faults, &json!({ "do": "dial", "address": address }));
            }
            Step::Gossip if node.is_up() => {
                let text = format!("from {at} at {:?}", self.begun.elapsed());
                node.asks(faults, &json!({ "do": "gossip", "text": text }));
            }
            Step::Crowd { knocking, noisy, dice } => {
                let many = (knocking, noisy);
                self.crowd.visit(&node.address(), node.socket, many, dice, SHORT)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Has the node read its file again if that was changed by hand. True if the node is up and
    /// knows its file.
    pub(crate) fn reload(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        if !node.is_up() {
            return false;
        }
        if node.unread {
            let Some(answer) = node.asks(&mut self.faults, &json!({ "do": "reload" })) else {
                return false;
            };
            if answer["refused"].is_null() {
                node.unread = false;
            } else {
                self.refused(at, "reload", &answer);
                return false;
            }
        }
        true
    }

    /// Writes a rule into the file by hand, or takes it out.
    fn edit(&mut self, at: usize, rule: usize, there: bool) -> bool {
        let node = &mut self.nodes[at];
        let line = node.ledger.line(rule).to_owned();
        if !edit(node, &line, there) {
            return false;
        }
        node.log(format!("by hand, {}: {line}", if there { "in" } else { "out" }));
        node.ledger.settle(rule, if there { Fate::There } else { Fate::Away });
        node.unread = true;
        true
    }

    /// Has the node insert or remove a rule. The change is saved and in force, or it is refused
    /// with an error that says why and changes nothing.
    fn change(&mut self, at: usize, rule: usize, there: bool) {
        let node = &mut self.nodes[at];
        let command = if there { "insert" } else { "remove" };
        let line = node.ledger.line(rule).to_owned();
        let answer = node.asks(&mut self.faults, &json!({ "do": command, "rule": line }));
        let Some(answer) = answer else {
            node.ledger.settle(rule, Fate::Unsure);
            return;
        };
        node.log(format!("{command} {line}: {answer}"));
        let saved = answer["refused"].is_null();
        let fate = |there| if there { Fate::There } else { Fate::Away };
        // A wrong clock may have put the end of a rule into the past; `audit` sees to those.
        if answer["listed"] != (saved == there) && !node.ledger.ends(rule) {
            self.faults.note(
                node,
                "an answer and the rules differ",
                &format!("{command} {line}: {answer}"),
            );
        }
        if saved {
            node.ledger.settle(rule, fate(there));
            self.count(format!("{command}: saved"));
        } else {
            node.ledger.settle(rule, fate(!there));
            self.refused(at, command, &answer);
        }
    }

    /// Counts a refusal. One without a kind, or without a trouble that explains it, is a fault.
    fn refused(&mut self, at: usize, command: &str, answer: &Value) {
        let kind = answer["refused"]["kind"].as_str().unwrap_or_default().to_owned();
        self.count(format!("{command}: refused, {kind}"));
        let node = &self.nodes[at];
        let has_reason = self.without_disk[at] || node.settings.limited || node.unread;
        if kind.is_empty() || !has_reason {
            self.faults.note(
                node,
                "a change is refused without a reason",
                &format!("{command}: {answer}"),
            );
        }
    }
}

/// The files that an unfinished save has left.
pub(crate) fn left_behind(node: &Node) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(node.disk.path())?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.ends_with(".new")).collect())
}
