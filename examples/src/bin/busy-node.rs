//! Who is worth a connection? A node that 300 peers dial, and that keeps 60 of them: a live table while they come and go, and in
//! the end who stays and why. Over the knock transport, on the loopback, in one process.
//!
//! `cargo run -p examples --bin busy-node`

use anyhow::{Result, ensure};
use clap::Parser;
use futures::StreamExt as _;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent, dummy};
use libp2p::{Multiaddr, PeerId, Swarm, identity::Keypair};
use libp2p_connmgr::{Bump, Class, Config, Decay, DecayingTag, Event, KeepAlive, Manager};
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[derive(Parser)]
#[command(about = "300 peers dial a node that keeps 60 of them: who stays, and why")]
struct Args {
    /// How many peers dial.
    #[arg(long, default_value_t = 300)]
    peers: usize,
    /// Down to how many connections the node trims, beside those that are protected.
    #[arg(long, default_value_t = 50)]
    low: usize,
    /// At how many it begins to.
    #[arg(long, default_value_t = 90)]
    high: usize,
    /// How many connections there may be at a time: at that number a newcomer needs a peer that is
    /// worth less.
    #[arg(long, default_value_t = 300)]
    most: usize,
    /// Peers that are protected.
    #[arg(long, default_value_t = 10)]
    friends: usize,
    /// Peers that are of use, and get a score for it.
    #[arg(long, default_value_t = 30)]
    useful: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.useful <= args.low, "more useful peers than the node may keep");
    ensure!(
        args.peers > args.low + args.friends,
        "fewer peers than the node may keep"
    );
    ensure!(
        args.low + args.friends <= args.most,
        "--most {} is below --low {} and --friends {} together",
        args.most,
        args.low,
        args.friends
    );
    // Two descriptors for each connection: both its ends are here.
    rlimit::increase_nofile_limit(4 * args.peers as u64 + 256)?;

    let config = Config::new(args.low, args.high)?
        .with_keep_alive(KeepAlive::All)
        .with_grace_period(Duration::from_millis(500))
        .with_silence_period(Duration::from_secs(1))?
        .with_hard_limit(args.most)?;
    let (connmgr, manager) = libp2p_connmgr::new(config);
    let counting = manager.clone();
    let mut node = libp2p::SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_other_transport(|key| {
            let transport = libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?);
            Ok(counting.count(transport))
        })?
        .with_behaviour(|_| connmgr)?
        .build();
    node.listen_on("/ip4/127.0.0.1/tcp/0/tls".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = node.select_next_some().await {
            break address
                .with_p2p(*node.local_peer_id())
                .map_err(|address| anyhow::anyhow!("{address}"))?;
        }
    };

    let mut crowd = Crowd::start(&args, &manager, &address)?;
    let mut table = Table::new(&args);
    let mut redraw = tokio::time::interval(Duration::from_millis(200));
    // Everybody has been here, and a trim that began after that is over.
    let mut last_trim = None;
    loop {
        tokio::select! {
            event = node.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => crowd.arrived(peer_id)?,
                SwarmEvent::Behaviour(Event::Trimmed { connections, .. }) => table.trimmed += connections,
                SwarmEvent::Behaviour(Event::Denied { .. }) => crowd.denied += 1,
                _ => {}
            },
            _ = redraw.tick() => {
                table.draw(&manager, crowd.came())?;
                // Newcomers have half a second of grace: a trim before it is over cannot reach the mark.
                if last_trim.is_none() && crowd.came() >= args.peers && manager.counts().in_grace.peers == 0 {
                    last_trim = Some(tokio::spawn(manager.trim_open_conns()));
                }
                if last_trim.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) {
                    break;
                }
            }
        }
    }
    table.draw(&manager, crowd.came())?;
    report(&args, &manager, &node, &crowd)
}

/// The peers that dial, each with an identity and a Swarm of its own.
struct Crowd {
    friends: Vec<PeerId>,
    useful: Vec<PeerId>,
    strangers: Vec<PeerId>,
    /// All peers that were let in, in the order of arrival.
    arrivals: Vec<PeerId>,
    /// How many were not, at the hard limit.
    denied: usize,
    /// What a peer of use gets, and loses again unless it goes on being of use.
    score: DecayingTag,
    _tasks: JoinSet<()>,
}

impl Crowd {
    fn start(args: &Args, manager: &Manager, address: &Multiaddr) -> Result<Self> {
        let score = manager.register_decaying_tag(
            "score",
            Duration::from_secs(600),
            Decay::linear(0.9),
            Bump::sum_bounded(0, 1_000),
        )?;
        let mut crowd = Self {
            friends: Vec::new(),
            useful: Vec::new(),
            strangers: Vec::new(),
            arrivals: Vec::new(),
            denied: 0,
            score,
            _tasks: JoinSet::new(),
        };
        for at in 0..args.peers {
            let mut peer = peer()?;
            let id = *peer.local_peer_id();
            // Spread among the strangers, so that the time of arrival does not decide.
            let known = args.friends + args.useful;
            let turn = at * known / args.peers;
            let is_stranger = at > 0 && (at - 1) * known / args.peers == turn;
            if !is_stranger && turn < args.friends {
                manager.protect(&id, "friend");
                crowd.friends.push(id);
            } else if !is_stranger {
                // Known from before: worth a place even when all are taken.
                crowd.score.bump(&id, 1)?;
                crowd.useful.push(id);
            } else {
                crowd.strangers.push(id);
            }
            let address = address.clone();
            crowd._tasks.spawn(async move {
                // They come over a few seconds, not all at once.
                tokio::time::sleep(Duration::from_millis(10) * u32::try_from(at).unwrap_or(u32::MAX)).await;
                if peer.dial(address).is_ok() {
                    loop {
                        peer.select_next_some().await;
                    }
                }
            });
        }
        Ok(crowd)
    }

    /// Peers of use show what they are good for as soon as they are there.
    fn arrived(&mut self, peer: PeerId) -> Result<()> {
        if let Some(at) = self.useful.iter().position(|known| *known == peer) {
            self.score.bump(&peer, i64::try_from(at)?)?;
        }
        self.arrivals.push(peer);
        Ok(())
    }

    fn came(&self) -> usize {
        self.arrivals.len() + self.denied
    }
}

#[derive(NetworkBehaviour)]
struct Nothing {
    nothing: dummy::Behaviour,
}

/// A peer that says nothing, and never hangs up by itself.
fn peer() -> Result<Swarm<Nothing>> {
    Ok(
        libp2p::SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
            .with_tokio()
            .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)))?
            .with_behaviour(|_| Nothing {
                nothing: dummy::Behaviour,
            })?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3_600)))
            .build(),
    )
}

/// One line for each moment; on a terminal always the same one.
struct Table {
    start: Instant,
    terminal: bool,
    trimmed: usize,
    last: String,
    header: String,
}

impl Table {
    fn new(args: &Args) -> Self {
        Self {
            start: Instant::now(),
            // A dumb one cannot draw a line over itself.
            terminal: io::stdout().is_terminal()
                && (cfg!(windows) || std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")),
            trimmed: 0,
            last: String::new(),
            header: format!(
                "{} peers dial; at {} connections the node trims to {} beside its {} friends\n\n  time   came  connections = protected + in grace + tagged + plain   closed",
                args.peers, args.high, args.low, args.friends
            ),
        }
    }

    fn draw(&mut self, manager: &Manager, arrivals: usize) -> Result<()> {
        let mut out = io::stdout().lock();
        if !self.header.is_empty() {
            writeln!(out, "{}", std::mem::take(&mut self.header))?;
        }
        let counts = manager.counts();
        let row = format!(
            "{arrivals:>7} {:>12} {:>11} {:>10} {:>8} {:>7} {:>8}",
            counts.connections(),
            counts.protected.connections,
            counts.in_grace.connections,
            counts.tagged.connections,
            counts.plain.connections,
            self.trimmed,
        );
        let time = format!("{:>5.1}s", self.start.elapsed().as_secs_f64());
        if self.terminal {
            write!(out, "\r{time}{row}\x1b[K")?;
        } else if row != self.last {
            writeln!(out, "{time}{row}")?;
        }
        self.last = row;
        Ok(out.flush()?)
    }
}

/// Who stays and why, and whether it is who should.
fn report(args: &Args, manager: &Manager, node: &Swarm<libp2p_connmgr::Behaviour>, crowd: &Crowd) -> Result<()> {
    let mut out = io::stdout().lock();
    let stays = |peers: &[PeerId]| peers.iter().filter(|peer| node.is_connected(peer)).count();
    writeln!(out, "\n\n{} were denied; who stays, and why:", crowd.denied)?;
    for (who, peers) in [
        ("friends", &crowd.friends),
        ("useful", &crowd.useful),
        ("strangers", &crowd.strangers),
    ] {
        writeln!(out, "  {} of {} {who}", stays(peers), peers.len())?;
        for peer in peers.iter().filter(|peer| node.is_connected(peer)).take(3) {
            writeln!(out, "    {}", manager.explain(peer))?;
        }
    }
    let left = manager.info().connections;
    let checks = [
        (
            left == args.low + args.friends,
            format!("{left} connections are left of {}", crowd.came()),
        ),
        (stays(&crowd.friends) == args.friends, "every friend stays".to_owned()),
        (stays(&crowd.useful) == args.useful, "everybody of use stays".to_owned()),
        (
            crowd
                .friends
                .iter()
                .all(|peer| manager.explain(peer).class == Some(Class::Protected)),
            "friends are never candidates".to_owned(),
        ),
    ];
    writeln!(out)?;
    for (ok, what) in &checks {
        writeln!(out, "{}  {what}", if *ok { "ok" } else { "NO" })?;
    }
    let good = checks.iter().filter(|(ok, _)| *ok).count();
    writeln!(out, "\nbusy-node: {good}/{} ok", checks.len())?;
    ensure!(good == checks.len(), "not as it should be");
    Ok(())
}
