//! Plays recorded first flights again, and counts who is answered.

use anyhow::{Context as _, Result};
use arsenal::gate::GateKey;
use arsenal::replay::{Replay, Way};
use arsenal::{capture, rng, sys};
use clap::Parser;
use libp2p_identity::PeerId;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
#[command(about)]
struct Args {
    /// The listener.
    target: SocketAddr,
    /// Recorded first flights, or directories of them.
    #[arg(required = true)]
    flights: Vec<PathBuf>,
    /// How often each flight is played in each way.
    #[arg(long, default_value_t = 10)]
    times: usize,
    /// Only these ways.
    #[arg(long, value_delimiter = ',')]
    ways: Vec<Way>,
    /// Another address of the same listener (may be given again).
    #[arg(long)]
    also: Vec<SocketAddr>,
    /// The address that the flights came from.
    #[arg(long)]
    source: Option<IpAddr>,
    /// An address that they did not come from.
    #[arg(long)]
    other_source: Option<IpAddr>,
    /// Copies at the same moment.
    #[arg(long, default_value_t = 64)]
    copies: usize,
    /// The listener's PeerId: rewraps sealed knocks.
    #[arg(long)]
    peer: Option<PeerId>,
    /// Milliseconds to wait for an answer.
    #[arg(long, default_value_t = 500)]
    wait: u64,
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    sys::raise_open_files(args.copies as u64 + 1024);
    let flights = capture::load(&args.flights)?;
    let gate = args.peer.as_ref().map(GateKey::of_peer).transpose()?;
    let usual = Replay::new(args.target);
    let replay = Replay {
        also: args.also,
        source: args.source,
        other_source: args.other_source.or(usual.other_source),
        times: args.times,
        copies: args.copies,
        wait: Duration::from_millis(args.wait),
        ..usual
    };
    let seed = args.seed.unwrap_or_else(rng::fresh_seed);
    let ways = if args.ways.is_empty() {
        Way::ALL.to_vec()
    } else {
        args.ways
    };
    println!("seed {seed}, {} flights", flights.len());
    let results = replay.run(&flights, &ways, gate.as_ref(), seed).await;
    for result in &results {
        println!("{}", serde_json::to_string(result).context("figures are JSON")?);
    }
    println!(
        "RESULT replay_sent {}",
        results.iter().map(|result| result.sent).sum::<u64>()
    );
    println!(
        "RESULT replay_answered {}",
        results.iter().map(|result| result.answered).sum::<u64>()
    );
    Ok(())
}
