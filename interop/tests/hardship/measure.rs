//! What a process holds, read from the kernel, and what it should let go of again.

use crate::faults::Faults;
use crate::nodes::Node;
use crate::schedule::is_spared;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::time::Duration;

/// One node at one moment of calm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    /// Beyond those of its connections and of sockets that have not knocked.
    pub(crate) descriptors: i64,
    pub(crate) threads: i64,
    pub(crate) resident_kib: i64,
    pub(crate) connections: i64,
    /// For each connection, in hundredths.
    pub(crate) substreams: i64,
}

/// Of some looks the least of each: what is there for a moment is no leak.
pub(crate) fn measure(nodes: &mut [Node], faults: &mut Faults) -> Result<Vec<Option<Held>>> {
    let mut least: Vec<Option<Held>> = vec![None; nodes.len()];
    for _ in 0..5 {
        for (node, least) in nodes.iter_mut().zip(&mut least) {
            let now = look(node, faults)?;
            *least = least.map_or(now, |least| Some(least.min(now?)));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(least)
}

impl Held {
    fn min(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.min(other.descriptors),
            threads: self.threads.min(other.threads),
            resident_kib: self.resident_kib.min(other.resident_kib),
            connections: self.connections.min(other.connections),
            substreams: self.substreams.min(other.substreams),
        }
    }
}

fn look(node: &mut Node, faults: &mut Faults) -> Result<Option<Held>> {
    let Some(state) = node.state(faults) else {
        return Ok(None);
    };
    let id = node.process_id().context("no process")?;
    let descriptors = i64::try_from(std::fs::read_dir(format!("/proc/{id}/fd"))?.count())?;
    let number = |value: &Value| value.as_f64().unwrap_or_default() as i64;
    let connections = number(&state["established"]);
    Ok(Some(Held {
        descriptors: descriptors - connections - number(&state["waiting"]),
        threads: field(id, "Threads:")?,
        resident_kib: field(id, "VmRSS:")?,
        connections,
        substreams: 100 * number(&state["substreams"]) / connections.max(1),
    }))
}

/// The number behind `name` in what the kernel tells of the process `id`.
fn field(id: u32, name: &str) -> Result<i64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {name} in the status of process {id}"))
}

/// The mean resident memory of those of `nodes` that are never killed, in KiB.
pub(crate) fn resident_of_the_spared(nodes: &[Node]) -> Result<i64> {
    let spared = nodes.iter().filter(|node| is_spared(node.index));
    let resident: Vec<i64> = spared
        .filter_map(|node| Some(field(node.process_id()?, "VmRSS:")))
        .collect::<Result<_>>()?;
    Ok(resident.iter().sum::<i64>() / i64::try_from(resident.len().max(1))?)
}
