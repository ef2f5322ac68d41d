//! A node to use: chat from stdin, files to and from friends.

mod bars;
mod chat;

use crate::inbox::Inbox;
use crate::link::{Event, Link};
use crate::node;
use crate::swarm::{self, Behaviour};
use crate::{explain, key, seed, term};
use anyhow::{Context as _, Result, bail};
use chat::Chat;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Swarm};
use std::io::{self, IsTerminal as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Where a node listens that nobody told where to.
const PORT: u16 = 4001;
/// What is typed to run this program in a checkout of the repository, on whatever host.
const COMMAND: &str = "cargo run -q --release -p examples --bin node -- run";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The file with this node's key, made if it does not exist.
    #[arg(long, value_name = "FILE", default_value = "node.key")]
    key: PathBuf,
    /// An address to listen on, such as /ip4/0.0.0.0/tcp/4001/tls. Repeatable. [default: port 4001, or any if taken]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Multiaddr>,
    /// A node to connect to: /ip4/192.0.2.7/tcp/4001/tls/p2p/PEER. Repeatable.
    #[arg(long, value_name = "ADDR")]
    dial: Vec<Multiaddr>,
    /// The file of a private network, mode 0600: `name: …` and `secret: <64 hex digits>`, or a `swarm.key`. Nodes outside
    /// of it are strangers. [default: the open network]
    #[arg(long, value_name = "FILE")]
    network: Option<PathBuf>,
    /// Where received files go.
    #[arg(long, value_name = "DIR", default_value = "received")]
    dir: PathBuf,
    /// The largest file to receive, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    max_mib: u32,
    /// The most connections at a time. At that number an inbound one is closed; one that this node
    /// dials takes an inbound one's place.
    #[arg(long, value_name = "N", default_value_t = swarm::CONNECTIONS, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,
}

pub(crate) async fn run(options: Options) -> Result<()> {
    let (key, made) = key::load_or_create(&options.key)?;
    let us = key.public().to_peer_id();
    // Before anything starts: the command line is at hand, and easily mended.
    if let Some(wrong) = options
        .dial
        .iter()
        .find_map(|address| explain::undiallable(address, &us))
    {
        bail!("{wrong}");
    }
    // Strangers' sockets and friends' take a descriptor each, and the usual soft limit is a thousand.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let mut swarm = swarm(&key, config(&key, &options)?, options.max_connections)?;
    listen(&mut swarm, &options.listen)?;
    let inbox = Inbox::new(options.dir.clone(), u64::from(options.max_mib) << 20);
    let (link, mut events) = node::spawn(swarm, inbox);
    let mut chat = Chat::new(us, link.clone());

    let (addresses, others) = settle(&link, &mut events, options.listen.is_empty()).await;
    greet(&us, &options, made, &addresses)?;
    for event in others {
        chat.show(event)?;
    }
    for address in options.dial {
        link.dial(address);
    }

    let mut lines = stdin();
    let mut reading = true;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let stop = interrupted();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            Some(event) = events.recv() => chat.show(event)?,
            line = lines.recv(), if reading => match line {
                Some(line) => if chat.typed(&line)?.is_break() { return Ok(()) },
                None => {
                    // A node started by a script has no stdin and is to run on.
                    reading = false;
                    if io::stdin().is_terminal() {
                        chat.line("no more chat from here, Ctrl-C quits")?;
                    }
                }
            },
            _ = second.tick() => chat.tick(),
            () = &mut stop => return Ok(()),
        }
    }
}

fn swarm(key: &Keypair, config: libp2p_knock::Config, most: u16) -> Result<Swarm<Behaviour>> {
    swarm::silent_with_dns(key.clone(), "run", config.clone(), most).or_else(|error| {
        tracing::warn!("no /dns addresses here: {error:#}");
        swarm::silent(key.clone(), "run", config, most)
    })
}

/// How this node knocks: in its network, with one close time for strangers, restarts or not, and
/// with its friends before strangers after a restart too.
fn config(key: &Keypair, options: &Options) -> Result<libp2p_knock::Config> {
    let config = libp2p_knock::Config::new(key)?
        .with_close_time_seed(&seed::load_or_create(&options.key)?)
        .with_known_prefixes_file(seed::beside(&options.key, "known"));
    Ok(match &options.network {
        Some(path) => config.with_network(libp2p_knock::Network::from_file(path)?)?,
        None => config,
    })
}

fn listen(swarm: &mut Swarm<Behaviour>, addresses: &[Multiaddr]) -> Result<()> {
    for address in addresses {
        let result = swarm.listen_on(address.clone());
        result.map_err(|error| anyhow::anyhow!("cannot listen on {address}: {}", explain::transport(&error)))?;
    }
    if !addresses.is_empty() {
        return Ok(());
    }
    let everywhere = |port| {
        Multiaddr::from(Ipv4Addr::UNSPECIFIED)
            .with(Protocol::Tcp(port))
            .with(Protocol::Tls)
    };
    match swarm.listen_on(everywhere(PORT)) {
        Ok(_) => Ok(()),
        Err(error) if explain::port_is_taken(&error) => {
            term::line(&format!("port {PORT} is taken, so another one is chosen\n"))?;
            swarm.listen_on(everywhere(0)).map(drop).context("cannot listen")
        }
        Err(error) => bail!("cannot listen on port {PORT}: {}", explain::transport(&error)),
    }
}

/// Waits until no more addresses turn up. With `both`, listens on IPv6 too, on the port that IPv4 has got.
async fn settle(link: &Link, events: &mut mpsc::Receiver<Event>, both: bool) -> (Vec<Multiaddr>, Vec<Event>) {
    const QUIET: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(2);
    let (mut addresses, mut others) = (Vec::<Multiaddr>::new(), Vec::new());
    let end = Instant::now() + LONGEST;
    while let Ok(Some(event)) = timeout_at(end.min(Instant::now() + QUIET), events.recv()).await {
        match event {
            Event::Listening(address) => {
                if both && addresses.is_empty() {
                    let port = address.iter().filter(|part| matches!(part, Protocol::Tcp(_)));
                    let any = [Protocol::Ip6(std::net::Ipv6Addr::UNSPECIFIED)];
                    link.listen(any.into_iter().chain(port).chain([Protocol::Tls]).collect());
                }
                addresses.push(address);
            }
            // Nobody asked for IPv6, and not every machine has it.
            Event::NotListening { .. } if both => {}
            event => others.push(event),
        }
    }
    (addresses, others)
}

fn greet(us: &PeerId, options: &Options, made: bool, addresses: &[Multiaddr]) -> Result<()> {
    let shown = options.key.display();
    term::line(&format!("peer id     {us}"))?;
    term::line(&format!("key         {shown}{}", if made { " (new)" } else { "" }))?;
    for (index, address) in addresses.iter().enumerate() {
        term::line(&format!("{:12}{address}", if index == 0 { "listening" } else { "" }))?;
    }
    let ip4 = |address: &Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip),
        _ => None,
    };
    let local = addresses
        .iter()
        .find(|address| ip4(address).is_some_and(|ip| ip.is_loopback()));
    let lan = addresses
        .iter()
        .find(|address| ip4(address).is_some_and(|ip| !ip.is_loopback()));
    if let Some(address) = local {
        let second = options.key.file_name().is_some_and(|name| name == "second.key");
        let other = if second { "third.key" } else { "second.key" };
        let network = options.network.as_deref().map(|path| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            format!(" --network {}", term::quoted(&path.to_string_lossy()))
        });
        let network = network.unwrap_or_default();
        term::line("\nsecond terminal on this host:")?;
        term::line(&format!(
            "  {} --key {other}{network} --dial {address}/p2p/{us}",
            command()
        ))?;
    }
    if let Some(address) = lan {
        let (network, with) = match options.network {
            Some(_) => (
                " --network network.file",
                ", with a copy of the network's file as network.file",
            ),
            None => ("", ""),
        };
        term::line(&format!(
            "another host on this LAN, in a checkout of the repository{with}:"
        ))?;
        term::line(&format!("  {COMMAND}{network} --dial {address}/p2p/{us}"))?;
    }
    term::line("\ntype a line to chat, /help for commands, /quit or Ctrl-C to leave")?;
    Ok(())
}

/// What is typed on this host, in any directory, to run this program.
fn command() -> String {
    match std::env::current_exe() {
        Ok(path) => format!("{} run", term::quoted(&path.to_string_lossy())),
        Err(_) => COMMAND.to_owned(),
    }
}

/// Lines of stdin, from a thread of its own: the runtime's reader would keep the program from ending.
fn stdin() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Ctrl-C, or the polite signal that service managers send.
async fn interrupted() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}
