//! Runs the flood scenarios, or other people's scanners, and prints what was measured.

use anyhow::{Context as _, Result, bail};
use arsenal::campaign::{Scenario, Stack, Tools, flood, scan};
use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Parser)]
#[command(about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Floods a listener that it starts itself, in each scenario.
    Flood {
        /// Only this scenario: few-prefixes, botnet, insiders.
        #[arg(long)]
        only: Option<String>,
        /// Floods stock libp2p instead of ours.
        #[arg(long)]
        noise: bool,
        /// So short that it shows merely that everything runs.
        #[arg(long)]
        smoke: bool,
    },
    /// Runs the scanners that are installed against a listener.
    Scan {
        target: SocketAddr,
        /// Seconds for each, at most.
        #[arg(long, default_value_t = 600)]
        limit: u64,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Flood { only, noise, smoke } => {
            let tools = Tools::beside_this_program()?;
            let mut ran = 0;
            for mut scenario in Scenario::all() {
                if only.as_ref().is_some_and(|only| *only != scenario.name) {
                    continue;
                }
                if smoke {
                    scenario = scenario.smoke();
                }
                if noise {
                    scenario.stack = Stack::Noise;
                }
                println!("{}", serde_json::to_string(&flood(&tools, &scenario)?)?);
                ran += 1;
            }
            if ran == 0 {
                bail!("no scenario of that name");
            }
        }
        Command::Scan { target, limit } => {
            let runtime = tokio::runtime::Runtime::new()?;
            let scans = runtime.block_on(scan(target, Duration::from_secs(limit)))?;
            for scan in &scans {
                println!("{}", serde_json::to_string(scan).context("figures are JSON")?);
            }
            let bytes: u64 = scans.iter().map(|scan| scan.bytes_answered).sum();
            println!("RESULT scan_bytes_answered {bytes}");
        }
    }
    Ok(())
}
