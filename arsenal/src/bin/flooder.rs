//! Floods a listener with bogus knocks, and holds sockets open that say nothing.

use anyhow::{Context as _, Result};
use arsenal::flood::{Bogus, Flood, half_open};
use arsenal::gate::GateKey;
use arsenal::source::Sources;
use arsenal::{rng, sys};
use clap::Parser;
use libp2p_identity::PeerId;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[derive(Parser)]
#[command(about)]
struct Args {
    /// The listener.
    target: SocketAddr,
    /// Knocks a second; 0 for as many as one thread can.
    #[arg(long, default_value_t = 20_000.0)]
    rate: f64,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Networks, 127.a.b.0/24, that it comes from; up to 4096.
    #[arg(long, default_value_t = 16)]
    prefixes: u16,
    /// Sockets that are opened and say nothing, beside the flood.
    #[arg(long, default_value_t = 0)]
    half_open: usize,
    /// Connections of the flood that are kept open.
    #[arg(long, default_value_t = 8192)]
    hold: usize,
    /// The listener's PeerId: send boxes that open, with noise inside.
    #[arg(long, value_name = "PEERID")]
    insider: Option<PeerId>,
    #[arg(long)]
    seed: Option<u64>,
    /// Stay on this core.
    #[arg(long)]
    core: Option<usize>,
    /// Let others on that core go first, up to 19: honest dialers are to wait for the listener and not for the flood.
    #[arg(long, default_value_t = 0)]
    nice: u8,
    /// Stop at the first line on standard input, or at its end.
    #[arg(long)]
    supervised: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.core.map(sys::pin_to_core).transpose()?;
    sys::be_nice(args.nice)?;
    sys::raise_open_files((args.hold + args.half_open + 256) as u64);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(args))
}

async fn run(args: Args) -> Result<()> {
    let seed = args.seed.unwrap_or_else(rng::fresh_seed);
    let bogus = match &args.insider {
        Some(peer) => Bogus::Sealed(Arc::new(GateKey::of_peer(peer)?)),
        None => Bogus::Random,
    };
    let held = Arc::new(AtomicUsize::new(0));
    let sockets = half_open(args.target, Sources::half_open(256), args.half_open, held.clone());
    tokio::spawn(sockets);
    await_half_open(&held, args.half_open).await;

    let stop = Arc::new(AtomicBool::new(false));
    if args.supervised {
        let stop = stop.clone();
        tokio::spawn(async move {
            let _ = BufReader::new(tokio::io::stdin()).lines().next_line().await;
            stop.store(true, Ordering::Relaxed);
        });
    }
    println!(
        "{}",
        json!({ "event": "flooding", "seed": seed, "half_open": held.load(Ordering::Relaxed) })
    );
    let flood = Flood {
        target: args.target,
        sources: Sources::flood(args.prefixes),
        rate: args.rate,
        bogus,
        hold: args.hold,
        seed,
    };
    let limit = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    let flooded = tokio::task::spawn_blocking(move || flood.run_blocking(limit, &stop)).await?;

    let half_open = held.load(Ordering::Relaxed);
    let rate = flooded.rate();
    println!(
        "{}",
        json!({ "event": "done", "rate": rate, "half_open": half_open, "queue_full": flooded.queue_full(), "flooded": flooded })
    );
    println!("RESULT flood_rate {rate:.0}");
    println!("RESULT flood_queue_full {}", flooded.queue_full());
    println!("RESULT flood_half_open {half_open}");
    // A task blocked on standard input would keep the runtime.
    std::process::exit(0);
}

/// Until all of them stand, or the listener lets no more.
async fn await_half_open(held: &AtomicUsize, wanted: usize) {
    let mut most = 0;
    let mut risen = Instant::now();
    while most < wanted && risen.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = held.load(Ordering::Relaxed);
        if now > most {
            (most, risen) = (now, Instant::now());
        }
    }
}
