//! A libp2p node as a process: commands on standard input, events on standard output, one JSON object a line.
//!
//! It has the knock transport, libp2p's own TCP + Noise + yamux, or both, and libp2p's own behaviours, none of which
//! knows which transport is below it. It ends when its standard input does.

mod behaviour;
mod commands;
mod report;

use crate::behaviour::{Behaviour, Which};
use crate::commands::Command;
use crate::report::report;
use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use futures::StreamExt as _;
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, tcp, yamux};
use serde_json::json;
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[derive(Parser)]
#[command(about)]
struct Args {
    /// Determines the identity: the same number, the same peer.
    #[arg(long)]
    seed: u64,
    /// Where to listen by knock. Without it the knock transport is absent.
    #[arg(long)]
    knock: Option<Multiaddr>,
    /// Where to listen by TCP + Noise. Without it that transport is absent.
    #[arg(long)]
    stock: Option<Multiaddr>,
    /// The behaviours to run.
    #[arg(long, value_delimiter = ',')]
    with: Vec<Which>,
    /// At how many peers this one stores its records.
    #[arg(long, default_value = "20")]
    kad_replication: NonZeroUsize,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let mut swarm = build(&args)?;
    report(&json!({"event": "started", "peer": swarm.local_peer_id().to_string()}));

    let mut listeners = Listeners::default();
    if let Some(address) = &args.knock {
        listeners.knock = Some(swarm.listen_on(address.clone()).context("listening by knock")?);
    }
    if let Some(address) = &args.stock {
        listeners.stock = Some(swarm.listen_on(address.clone()).context("listening by TCP")?);
    }

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                let command = serde_json::from_str(&line).with_context(|| format!("no command: {line}"));
                if let Err(error) = command.and_then(|command: Command| command.run(&mut swarm)) {
                    report(&json!({"event": "refused", "command": line, "error": format!("{error:#}")}));
                }
            }
            event = swarm.select_next_some() => report::swarm_event(&mut swarm, &listeners, event),
        }
    }
}

/// Which listener is which, since an address alone should not have to say.
#[derive(Default)]
struct Listeners {
    knock: Option<ListenerId>,
    stock: Option<ListenerId>,
}

impl Listeners {
    fn name(&self, id: ListenerId) -> &'static str {
        match Some(id) {
            id if id == self.knock => "knock",
            id if id == self.stock => "stock",
            _ => "later",
        }
    }
}

fn build(args: &Args) -> Result<Swarm<Behaviour>> {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&args.seed.to_le_bytes());
    let keypair = Keypair::ed25519_from_bytes(secret)?;
    let builder = SwarmBuilder::with_existing_identity(keypair).with_tokio();

    // The circuit through a relay is secured by Noise, as everywhere; the connection to the relay by what is here.
    macro_rules! finish {
        ($builder:expr) => {
            $builder
                .with_relay_client(noise::Config::new, yamux::Config::default)?
                .with_behaviour(|keypair, relay| Behaviour::new(keypair, relay, &args.with, args.kad_replication))?
                // Longer than any test: a connection ends when a command says so.
                .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(300)))
                .build()
        };
    }
    let knock = |key: &Keypair| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?));
    let tcp = tcp::Config::default;
    ensure!(
        args.knock.is_some() || args.stock.is_some(),
        "neither --knock nor --stock"
    );
    Ok(match (&args.knock, &args.stock) {
        (Some(_), None) => finish!(builder.with_other_transport(knock)?),
        (None, _) => finish!(builder.with_tcp(tcp(), noise::Config::new, yamux::Config::default)?),
        (Some(_), Some(_)) => finish!(
            builder
                .with_tcp(tcp(), noise::Config::new, yamux::Config::default)?
                .with_other_transport(knock)?
        ),
    })
}
