//! A libp2p node that is silent to strangers. `node demo` shows what that means, `node run` is one to use, `node probe`
//! is a stranger.

mod demo;
mod explain;
mod inbox;
mod key;
mod link;
mod node;
mod probe;
mod random;
mod run;
mod seed;
mod swarm;
mod term;
mod transfer;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::io;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// A libp2p node over libp2p-knock: silent to whoever does not know its peer id.
///
/// RUST_LOG=libp2p_knock=debug shows what the transport does.
#[derive(Debug, Parser)]
#[command(name = "node", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Four nodes in one process: what works, and what a stranger gets to see.
    Demo {
        /// One JSON object for each step.
        #[arg(long)]
        json: bool,
    },
    /// A node to chat and to send files with. Without flags: key in ./node.key, port 4001, files into ./received.
    Run(run::Options),
    /// Sends 1024 bytes that are no knock to a port, and counts what comes back.
    ///
    /// Exits with 0 if nothing came back, 1 if something did, 2 if there was no connection.
    Probe {
        /// A multiaddr (/ip4/192.0.2.7/tcp/4001/tls) or host:port.
        address: String,
        /// How long to wait for an answer.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
        seconds: u16,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .init();
    let (result, failed) = match cli.command {
        Command::Demo { json } => (unless_interrupted(demo::demo(json)).await, 1),
        Command::Run(options) => (run::run(options).await.map(|()| true), 1),
        Command::Probe { address, seconds } => (probe(&address, seconds).await, 2),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read our output has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().map(io::Error::kind) == Some(io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(failed)
        }
    }
}

/// Ctrl-C ends `work` as if it had failed, so that it cleans up behind itself.
async fn unless_interrupted(work: impl Future<Output = Result<bool>>) -> Result<bool> {
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

async fn probe(address: &str, seconds: u16) -> Result<bool> {
    let (host, port) = probe::target(address)?;
    let patience = Duration::from_secs(seconds.into());
    let finding = probe::probe(&host, port, &probe::message(&[]), patience).await?;
    term::line(&finding.to_string())?;
    if finding.received > 0 {
        term::line(&format!("it begins with {:?}", String::from_utf8_lossy(&finding.start)))?;
    }
    Ok(finding.received == 0)
}
