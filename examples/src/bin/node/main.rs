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
use clap::{CommandFactory as _, Parser, Subcommand};
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
    /// Exits with 0 if nothing came back, 1 if something did, 2 if there was no connection. What it
    /// waits for it says on stderr.
    ///
    /// With --json stdout gets one object on one line, always with these keys: "address" as given;
    /// "outcome", one of "silent", "answered" and "unreachable" (exit codes 0, 1 and 2); "sent" and
    /// "received", in bytes; "seconds" from the first byte sent to the end; "begins_with", the first
    /// 32 bytes received, in hex; "ended", how the far side ended the connection: "closed", "reset",
    /// "broke", or null if it did not; "error", why there was no connection, or null.
    Probe {
        /// A multiaddr (/ip4/192.0.2.7/tcp/4001/tls) or host:port.
        address: String,
        /// How long to wait for an answer, in seconds.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
        seconds: u16,
        /// One JSON object on stdout instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Prints a script with which a shell completes this program's commands and flags.
    ///
    /// For bash: source <(node completions bash)
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .with_ansi(term::coloured(&io::stderr()))
        .init();
    let (result, failed) = match cli.command {
        Command::Demo { json } => (unless_interrupted(demo::demo(json)).await, 1),
        Command::Run(options) => (run::run(options).await.map(|()| true), 1),
        Command::Probe { address, seconds, json } => (probe(&address, seconds, json).await, 2),
        Command::Completions { shell } => (completions(shell).map(|()| true), 1),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read our output has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().map(io::Error::kind) == Some(io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            if !error.is::<Said>() {
                eprintln!("error: {error:#}");
            }
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

async fn probe(address: &str, seconds: u16, json: bool) -> Result<bool> {
    let patience = Duration::from_secs(seconds.into());
    let probing = async {
        let (host, port) = probe::target(address)?;
        // Not on stdout: it is no result.
        term::aside(&format!(
            "connecting to {host} port {port}, for {} s at most",
            probe::CONNECT.as_secs()
        ));
        let connected = probe::connect(&host, port).await?;
        term::aside(&format!(
            "connected: sending {} bytes, then waiting {seconds} s for an answer (--seconds)",
            probe::LENGTH
        ));
        Ok::<_, anyhow::Error>(connected.probe(&probe::message(&[]), patience).await)
    };
    let found = probing.await;
    if json {
        let found = found.map_err(|error| format!("{error:#}"));
        heard(term::line(&probe::json(address, &found).to_string()))?;
        let silent = found.as_ref().map(|finding| finding.received == 0);
        return silent.map_err(|_| Said.into());
    }
    let finding = found?;
    heard(term::line(&finding.to_string()))?;
    if finding.received > 0 {
        heard(term::line(&format!(
            "it begins with {:?}",
            String::from_utf8_lossy(&finding.start)
        )))?;
    }
    Ok(finding.received == 0)
}

/// A reader that has seen enough changes nothing about what was found: the exit code says it.
fn heard(said: io::Result<()>) -> io::Result<()> {
    match said {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        said => said,
    }
}

/// It failed, and stdout says so already.
#[derive(Debug, thiserror::Error)]
#[error("see stdout")]
struct Said;

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "node", &mut script);
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(())
}
