//! Stands between dialers and a listener. Prints a line for each dial that has ended.

use anyhow::{Context as _, Result};
use arsenal::capture::Recorder;
use arsenal::content::client_hello;
use arsenal::inpath::{InPath, Mode};
use arsenal::sys;
use clap::{Parser, Subcommand};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Parser)]
#[command(about)]
struct Args {
    /// Where dialers are to dial.
    listen: SocketAddr,
    /// The listener.
    target: SocketAddr,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Counts bytes.
    Pass,
    /// Writes each first flight into a file of this directory.
    Record { directory: PathBuf },
    /// Lets no byte of a dialer through.
    Withhold,
    /// Sends a copy of the flight first, then the original.
    ReplayFirst,
    /// Sends the flight on later.
    Delay { milliseconds: u64 },
    /// Cuts the connection when the flight is there.
    Drop,
    /// Gives each of two dials the other's flight, or what comes behind its first bytes.
    Swap {
        #[arg(default_value_t = 0)]
        keep: usize,
    },
    /// Keeps the first bytes of the flight, and puts a ClientHello of its own behind them.
    Replace { keep: usize },
    /// Lets the first bytes of the flight through and nothing after them.
    Cut { keep: usize },
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    sys::raise_open_files(65_536);
    let mode = match args.what {
        What::Pass => Mode::Pass,
        What::Record { directory } => Mode::Record(Arc::new(Recorder::new(directory)?)),
        What::Withhold => Mode::Withhold,
        What::ReplayFirst => Mode::ReplayFirst,
        What::Delay { milliseconds } => Mode::Delay(Duration::from_millis(milliseconds)),
        What::Drop => Mode::Drop,
        What::Swap { keep } => Mode::Swap { keep },
        What::Replace { keep } => Mode::Replace {
            keep,
            with: client_hello()?,
        },
        What::Cut { keep } => Mode::Cut(keep),
    };
    let mut path = InPath::start(args.listen, args.target, mode)
        .await
        .context("cannot listen")?;
    println!("{}", json!({ "event": "ready", "address": path.address }));
    while let Some(dial) = path.ended().await {
        let line = json!({
            "event": "dial", "flight": dial.flight.len(), "up": dial.up, "down": dial.down,
            "copy_answered": dial.copy_answered,
        });
        println!("{line}");
    }
    Ok(())
}
