//! Runs one listener to attack. Commands on standard input: `figures`; the end of it ends the listener.

use anyhow::{Context as _, Result};
use arsenal::sys;
use arsenal::target::{Kind, Settings, Target};
use clap::Parser;
use libp2p_identity::Keypair;
use serde_json::json;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[derive(Parser)]
#[command(about)]
struct Args {
    /// Which listener.
    kind: Kind,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Ed25519 seed, 64 hexadecimal digits; a fresh identity without.
    #[arg(long)]
    seed: Option<String>,
    /// Stay on this core.
    #[arg(long)]
    core: Option<usize>,
    /// Milliseconds until a socket that has not knocked is closed.
    #[arg(long, default_value_t = 2000)]
    close_time: u64,
    /// Sockets that may wait for their knock.
    #[arg(long, default_value = "8192")]
    max_waiting: NonZeroUsize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    // Before the runtime, so that its threads inherit it.
    args.core.map(sys::pin_to_core).transpose()?;
    sys::raise_open_files(args.max_waiting.get() as u64 * 2 + 4096);
    let mut runtime = match args.core {
        Some(_) => tokio::runtime::Builder::new_current_thread(),
        None => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(run(args))
}

async fn run(args: Args) -> Result<()> {
    let key = match &args.seed {
        Some(seed) => {
            let seed = hex::decode(seed).context("--seed is hexadecimal")?;
            Keypair::ed25519_from_bytes(seed).context("--seed is 32 bytes")?
        }
        None => Keypair::generate_ed25519(),
    };
    let settings = Settings {
        close_time: Duration::from_millis(args.close_time),
        max_waiting: args.max_waiting,
    };
    let target = Target::start(args.kind, &key, args.listen, settings).await?;
    let pid = std::process::id();
    let ready = json!({
        "event": "ready", "address": target.address, "peer": target.peer.to_string(), "pid": pid,
    });
    println!("{ready}");
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(command) = commands.next_line().await? {
        match command.trim().trim_matches('"') {
            "figures" => {
                let figures = json!({
                    "event": "figures", "usage": sys::usage(pid)?, "kernel_tcp": sys::kernel_tcp()?,
                    "established": target.established(),
                });
                println!("{figures}");
            }
            other => eprintln!("no such command: {other}"),
        }
    }
    Ok(())
}
