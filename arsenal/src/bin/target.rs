//! Runs one listener to attack. Commands on standard input: `figures`; the end of it ends the listener.

use anyhow::{Context as _, Result};
use arsenal::sys;
use arsenal::target::{Close, Kind, Settings, Target};
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
    /// Ours: with knocks of version 2.
    #[arg(long)]
    v2: bool,
    /// May be given again: more addresses of the same identity.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: Vec<SocketAddr>,
    /// Ed25519 seed, 64 hexadecimal digits; a fresh identity without.
    #[arg(long)]
    seed: Option<String>,
    /// Stay on this core.
    #[arg(long)]
    core: Option<usize>,
    /// Milliseconds until a socket that has not knocked is closed.
    #[arg(long, default_value_t = 2000)]
    close_time: u64,
    /// Close it after some minutes instead, worked out from this as an installation does it: 64 hexadecimal digits.
    #[arg(long)]
    close_time_seed: Option<String>,
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
        Some(seed) => Keypair::ed25519_from_bytes(bytes(seed).context("--seed")?)?,
        None => Keypair::generate_ed25519(),
    };
    let settings = Settings {
        close: match &args.close_time_seed {
            Some(seed) => Close::Seed(bytes(seed).context("--close-time-seed")?),
            None => Close::After(Duration::from_millis(args.close_time)),
        },
        max_waiting: args.max_waiting,
    };
    let target = Target::start(args.kind.with_v2(args.v2), &key, &args.listen, settings).await?;
    let pid = std::process::id();
    let ready = json!({
        "event": "ready", "address": target.address, "addresses": target.addresses, "peer": target.peer.to_string(), "pid": pid,
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

fn bytes(text: &str) -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).context("64 hexadecimal digits are needed")?;
    Ok(bytes)
}
