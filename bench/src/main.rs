//! What libp2p-knock costs beside the stacks one would pick instead, all in one run. See the README.

mod close_times;
mod connmgr;
mod delay;
mod gater;
mod handshake;
mod host;
mod idle;
mod idle_many;
mod ladder;
mod plot;
mod report;
mod rtt;
mod samples;
mod service;
mod silence;
mod stacks;
mod svg;
mod sys;
mod throughput;

use anyhow::Result;
use clap::{Parser, Subcommand};
use close_times::Probed;
use libp2p_core::Multiaddr;
use stacks::{Kind, Target};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Parser)]
#[command(about, version)]
struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds short enough for CI: shows that everything runs, not how fast.
    #[arg(long, global = true)]
    smoke: bool,
    /// Interleaved rounds; more of them narrow the spread.
    #[arg(long, global = true)]
    rounds: Option<usize>,
    /// Only this stack (may be given again); for a look with a profiler.
    #[arg(long, global = true, value_name = "STACK")]
    only: Vec<Kind>,
    /// Also stores the results here, for `plot`. What other measurements have stored there stays.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    fn rounds(&self, usual: usize, smoke: usize) -> usize {
        self.rounds.unwrap_or(if self.smoke { smoke } else { usual }).max(1)
    }

    /// The stacks to measure. Fast Open is about round trips; on loopback it is TCP like any other.
    fn kinds(&self) -> Vec<Kind> {
        self.kinds_where(|kind| !matches!(kind, Kind::KnockFastOpen | Kind::KnockFastOpenHybrid))
    }

    /// Those that satisfy `usual`, or those that were asked for.
    fn kinds_where(&self, usual: impl Fn(Kind) -> bool) -> Vec<Kind> {
        Kind::ALL
            .into_iter()
            .filter(|kind| match self.only.as_slice() {
                [] => usual(*kind),
                only => only.contains(kind),
            })
            .collect()
    }

    fn json(&self) -> Option<&Path> {
        self.json.as_deref()
    }
}

#[derive(Subcommand)]
enum Command {
    /// CPU and wall time from the start of a dial to the first echoed byte.
    Handshake {
        /// Dials per stack and round.
        #[arg(long)]
        dials: Option<usize>,
        /// Only this part (may be given again); for a profiler, `redial`, which makes no identities.
        #[arg(long)]
        part: Vec<handshake::Part>,
    },
    /// Bulk data over 1 and 32 substreams.
    Throughput {
        /// Seconds per stack, round and number of substreams.
        #[arg(long)]
        seconds: Option<f64>,
    },
    /// Memory of idle connections, unused and used.
    Idle {
        /// Idle connections; a quarter as many for those that carry 1 MiB first.
        #[arg(long)]
        connections: Option<usize>,
    },
    /// Memory and CPU of a listener with 1,000 and 10,000 idle connections.
    IdleMany,
    /// Round trips on a link of 100 ms. Needs root, for a TUN device.
    Rtt,
    /// Bytes on the wire until the first echoed byte.
    Ladder,
    /// Decisions of the gater's rules, beside a bare prefix trie and go-libp2p's gater.
    Gater,
    /// The connection manager beside go-libp2p's, a million peers, and ten thousand real connections. Needs Go.
    Connmgr,
    /// All of the above; of `connmgr` only with `--smoke`.
    All,
    /// Honest dialers while the listener is flooded. Needs the programs of the arsenal beside this one.
    Silence,
    /// Streams of messages between two hosts, each in its process: ours, and Go's. Needs Go. Not a part of `all`.
    Host {
        /// Seconds per stack, round and size of messages.
        #[arg(long)]
        seconds: Option<f64>,
        /// Only this part.
        #[arg(long)]
        part: Option<host::Part>,
        /// Beside commonware-p2p as well. Builds it, which takes minutes.
        #[arg(long)]
        commonware: bool,
    },
    /// Draws what `--json` has stored.
    Plot {
        /// Where the SVG files go.
        #[arg(long, default_value = ".")]
        out: PathBuf,
        /// Close times that the arsenal's prober has stored, to be drawn side by side (may be given again).
        #[arg(long, value_name = "NAME=FILE")]
        close_times: Vec<Probed>,
    },
    #[command(hide = true)]
    IdleChild {
        kind: Kind,
        connections: usize,
        #[arg(long)]
        used: bool,
    },
    #[command(hide = true)]
    GaterMemory { rules: PathBuf },
    #[command(hide = true)]
    ConnmgrChild(connmgr::Child),
    #[command(hide = true)]
    ConnmgrListener {
        closing: connmgr::Closing,
        connections: usize,
    },
    #[command(hide = true)]
    ConnmgrDialer { address: Multiaddr, connections: usize },
    #[command(hide = true)]
    HostChild { seed: u8, dial_interval_ms: u64 },
    #[command(hide = true)]
    ManyListener { kind: Kind },
    #[command(hide = true)]
    ManyDialer {
        kind: Kind,
        target: Target,
        connections: usize,
    },
}

fn main() -> Result<()> {
    let Args { command, options } = Args::parse();
    sys::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    // On a worker, where a dialer's tasks would run: `block_on` alone would add a third thread.
    runtime.block_on(async { tokio::spawn(run(command, options)).await? })
}

async fn run(command: Command, options: Options) -> Result<()> {
    match command {
        Command::Handshake { dials, part } => handshake::run(&options, dials, &part).await,
        Command::Throughput { seconds } => throughput::run(&options, seconds).await,
        Command::Idle { connections } => idle::run(&options, connections).await,
        Command::IdleMany => idle_many::run(&options).await,
        Command::Rtt => rtt::run(&options).await,
        Command::Ladder => ladder::run(&options).await,
        Command::Gater => gater::run(&options),
        Command::Connmgr => connmgr::run(&options).await,
        Command::All => {
            handshake::run(&options, None, &[]).await?;
            throughput::run(&options, None).await?;
            idle::run(&options, None).await?;
            idle_many::run(&options).await?;
            ladder::run(&options).await?;
            gater::run(&options)?;
            // A campaign of its own: it needs Go, and takes half an hour.
            if options.smoke {
                connmgr::run(&options).await?;
            }
            rtt::run(&options).await
        }
        Command::Silence => silence::run(&options).await,
        Command::Host {
            seconds,
            part,
            commonware,
        } => host::run(&options, seconds, part, commonware).await,
        Command::HostChild { seed, dial_interval_ms } => {
            host::child::run(seed, Duration::from_millis(dial_interval_ms)).await
        }
        Command::Plot { out, close_times } => plot::run(options.json(), &out, &close_times),
        Command::IdleChild {
            kind,
            connections,
            used,
        } => idle::child(kind, connections, used).await,
        Command::GaterMemory { rules } => gater::memory(&rules),
        Command::ConnmgrChild(load) => connmgr::child(&load),
        Command::ConnmgrListener { closing, connections } => connmgr::listener(closing, connections).await,
        Command::ConnmgrDialer { address, connections } => connmgr::dialer(address, connections).await,
        Command::ManyListener { kind } => idle_many::listener(kind).await,
        Command::ManyDialer {
            kind,
            target,
            connections,
        } => idle_many::dialer(kind, &target, connections).await,
    }
}
