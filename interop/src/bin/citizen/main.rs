//! One node with everything of ours on, as a process: commands on standard input, answers on
//! standard output, one JSON object a line.
//!
//! The knock transport inside a gate and a counting manager, rules in a file, wanted peers, named
//! streams with a message a second; beside them libp2p's identify, ping, kad, gossipsub and AutoNAT
//! v2. What it keeps lies in one directory, so that it can be killed and started again. It ends
//! when its standard input does. See `tests/hardship`.
//!
//! Lines on standard output that begin with `#` tell people what happened; no program reads them.

mod behaviour;
mod commands;
mod node;
mod state;
mod talks;
mod watch;

use crate::commands::Line;
use crate::node::Node;
use anyhow::{Context as _, Result};
use clap::Parser;
use futures::StreamExt as _;
use libp2p::Multiaddr;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

#[derive(Parser)]
#[command(about)]
struct Args {
    /// What outlives this process: `key` (a private key in libp2p's protobuf), `rules`,
    /// `close-time`.
    #[arg(long)]
    state: PathBuf,
    /// Where to listen by knock.
    #[arg(long)]
    listen: Multiaddr,
    /// The connection manager's low mark.
    #[arg(long)]
    low: usize,
    /// Its high mark.
    #[arg(long)]
    high: usize,
    /// Its hard limit.
    #[arg(long)]
    hard: usize,
    /// How long it spares a newcomer, in milliseconds.
    #[arg(long)]
    grace: u64,
    /// The time between two of its trims, in milliseconds.
    #[arg(long)]
    silence: u64,
    /// Leaves out what dials by itself: kad, and AutoNAT's client.
    #[arg(long)]
    still: bool,
}

/// The same number of threads everywhere, so that they can be compared.
#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let args = Args::parse();
    let mut node = Node::start(&args)?;
    let mut lines = input();
    let mut second = interval(Duration::from_secs(1));
    let mut tick = interval(watch::TICK);
    for timer in [&mut second, &mut tick] {
        // A process that was stopped has missed them; it need not make up for that.
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    println!("{}", json!({ "event": "started", "peer": node.peer().to_string() }));
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { return Ok(()) };
                let line: Line = serde_json::from_str(&line).with_context(|| format!("no command: {line}"))?;
                let answer = node.run(line.command).unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
                println!("{}", json!({ "answer": line.id, "is": answer }));
            }
            event = node.swarm.select_next_some() => node.on_event(event),
            _ = second.tick() => node.talks.speak(),
            _ = tick.tick() => node.look(),
        }
    }
}

/// The lines of standard input, read by one thread: tokio's own reads are made by a pool, whose
/// size depends on chance.
fn input() -> mpsc::UnboundedReceiver<String> {
    let (to, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
