//! Nodes with everything on, under hardship: processes are killed and stopped, clocks jump, disks
//! fill up or become read-only, a third of the nodes has 64 descriptors, and rules are changed by
//! command and by hand meanwhile.
//!
//! The tests show that no rule is lost, no peer is stuck and nothing leaks, and that each
//! connection manager keeps its mark throughout. The short form runs in CI. `interop/README.md`
//! says how to run the campaign.
#![cfg(all(test, target_os = "linux"))]

mod alone;
mod crowd;
mod deeds;
mod demands;
mod disks;
mod faults;
mod figures;
mod ledger;
mod measure;
mod nodes;
mod run;
mod schedule;

use anyhow::{Context as _, Result};
use run::Form;
use schedule::Shape;
use std::time::Duration;

/// The number in the environment variable `name`, if it is set.
fn number(name: &str) -> Result<Option<u64>> {
    let Ok(value) = std::env::var(name) else {
        return Ok(None);
    };
    let number = value
        .parse()
        .with_context(|| format!("{name}={value} is not a number"))?;
    Ok(Some(number))
}

#[test]
fn no_rule_is_lost_no_peer_is_stuck_nothing_leaks_and_the_manager_keeps_its_mark_through_hardship() -> Result<()> {
    let seconds = number("HARDSHIP_SECONDS")?;
    let long = seconds.is_some();
    let form = Form {
        shape: Shape {
            nodes: usize::try_from(number("HARDSHIP_NODES")?.unwrap_or(6))?,
            length: Duration::from_secs(seconds.unwrap_or(12)),
            seed: number("HARDSHIP_SEED")?.unwrap_or(1),
            pause: if long { (4000, 20_000) } else { (500, 3000) },
            stop: if long { 8000 } else { 3000 },
            cunning: long,
        },
        calm: Duration::from_secs(if long { 30 } else { 3 }),
        settle: Duration::from_secs(120),
        tight: long,
    };
    run::run("crowd", form)
}
