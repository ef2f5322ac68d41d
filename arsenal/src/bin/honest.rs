//! Dials a listener as its honest peers would, and says how it was served.

use anyhow::Result;
use arsenal::honest::Honest;
use arsenal::source::Sources;
use arsenal::sys;
use arsenal::target::Kind;
use clap::Parser;
use libp2p_identity::PeerId;
use serde_json::json;
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[derive(Parser)]
#[command(about)]
struct Args {
    /// The listener.
    target: SocketAddr,
    /// Its PeerId.
    peer: PeerId,
    /// What it speaks.
    #[arg(long, default_value = "knock")]
    stack: Kind,
    /// Ours: with knocks of version 2.
    #[arg(long)]
    v2: bool,
    /// Networks, 127.a.b.0/24, with one dialer each.
    #[arg(long, default_value_t = 32)]
    prefixes: u16,
    #[arg(long, default_value_t = 500)]
    dials: usize,
    /// Dials a second.
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Dial once from every network first.
    #[arg(long)]
    after_authenticated: bool,
    /// Stay on this core.
    #[arg(long)]
    core: Option<usize>,
    /// Say when ready, and begin at a line on standard input.
    #[arg(long)]
    supervised: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.core.map(sys::pin_to_core).transpose()?;
    sys::raise_open_files(16_384);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(args))
}

async fn run(args: Args) -> Result<()> {
    let honest = Honest::new(
        args.stack.with_v2(args.v2),
        args.target,
        args.peer,
        Sources::honest(args.prefixes),
    )?;
    if args.after_authenticated {
        honest.authenticate().await?;
    }
    if args.supervised {
        println!("{}", json!({ "event": "ready" }));
        BufReader::new(tokio::io::stdin()).lines().next_line().await?;
    }
    let served = honest.run(args.dials, args.rate).await;
    let mut event = serde_json::to_value(&served)?;
    event["event"] = "served".into();
    println!("{event}");
    let share = |part: usize| part as f64 / served.dials.max(1) as f64;
    println!("RESULT honest_first_try {:.4}", share(served.first_try));
    println!("RESULT honest_within_three {:.4}", share(served.within_three));
    println!("RESULT honest_p50_ms {:.3}", served.p50_ms);
    println!("RESULT honest_p99_ms {:.3}", served.p99_ms);
    Ok(())
}
