//! Thousands of real connections, each from a peer of its own, over knock: how long the Swarm is held up while they come,
//! and while half of them are trimmed, closed peer by peer or connection by connection.

use super::number;
use crate::report::{Report, markdown};
use crate::{Options, sys};
use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use futures::channel::mpsc;
use futures::future::poll_fn;
use futures::stream::{FuturesUnordered, StreamExt as _};
use libp2p_connmgr::{Behaviour, Config, KeepAlive};
use libp2p_core::muxing::{StreamMuxerBox, StreamMuxerExt as _};
use libp2p_core::transport::{Boxed, DialOpts, PortUse};
use libp2p_core::{Endpoint, Multiaddr, Transport as _};
use libp2p_identity::{Keypair, PeerId};
use libp2p_knock::tokio::Transport;
use libp2p_swarm::{Swarm, SwarmEvent};
use serde_json::{Value, json};
use std::process::Stdio;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

/// How a trim closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Closing {
    /// All connections of a peer at a time: as the manager does by itself.
    Peers,
    /// One connection at a time, by its id, which the Swarm has to look for: as a closer may.
    Connections,
}

pub(super) async fn run(report: &mut Report, options: &Options) -> Result<()> {
    /// Of the runtime, the listener and the three standard ones.
    const SPARE_FILES: u64 = 64;
    let wanted = if options.smoke { 40 } else { 10_000 };
    let connections = wanted.min(usize::try_from(sys::raise_open_files().saturating_sub(SPARE_FILES))?);
    let mut rows = vec![
        [
            "closing",
            "longest poll while connecting, ms (CPU)",
            "longest poll of the trim, ms (CPU)",
            "all polls of the trim, ms of CPU",
            "until all are closed, ms",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut stored = Vec::new();
    for (closing, label) in [(Closing::Peers, "peers"), (Closing::Connections, "connections")] {
        let value = measure(label, connections).await.with_context(|| label.to_owned())?;
        let pair = |what: &str| -> Result<String> {
            let (wall, cpu) = (
                number(&value, &format!("{what}_wall_ms"))?,
                number(&value, &format!("{what}_cpu_ms"))?,
            );
            Ok(format!("{wall:.2} ({cpu:.2})"))
        };
        rows.push(vec![
            match closing {
                Closing::Peers => "all connections of a peer".to_owned(),
                Closing::Connections => "connection by connection".to_owned(),
            },
            pair("connecting")?,
            pair("trimming")?,
            format!("{:.1}", number(&value, "polls_cpu_ms")?),
            format!("{:.0}", number(&value, "trim_ms")?),
        ]);
        if closing == Closing::Peers {
            report.result("connmgr_real_longest_poll_ms", Some(number(&value, "trimming_cpu_ms")?));
        } else {
            report.result(
                "connmgr_real_longest_poll_one_by_one_ms",
                Some(number(&value, "trimming_cpu_ms")?),
            );
        }
        stored.push(value);
    }
    println!(
        "\n{connections} real connections over knock, each from another peer, trimmed to half; `Swarm::poll` of the node that \
         trims\n\n{}",
        markdown(&rows)
    );
    report.attach("real", Value::Array(stored));
    Ok(())
}

async fn measure(closing: &str, connections: usize) -> Result<Value> {
    let program = std::env::current_exe()?;
    let count = connections.to_string();
    let mut listener = Command::new(&program)
        .args(["connmgr-listener", closing, &count])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(listener.stdout.take().context("piped")?).lines();
    let address = lines.next_line().await?.context("the listener has ended")?;
    let mut dialer = Command::new(&program)
        .args(["connmgr-dialer", &address, &count])
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let line = lines.next_line().await?.context("the listener has ended early")?;
    drop(dialer.stdin.take());
    dialer.wait().await?;
    ensure!(listener.wait().await?.success());
    serde_json::from_str(&line).with_context(|| line)
}

/// The longest of some polls, and their sum.
#[derive(Default)]
struct Polls {
    longest_wall: Duration,
    longest_cpu: Duration,
    cpu: Duration,
}

impl Polls {
    fn note<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (wall, cpu) = (Instant::now(), sys::thread_cpu());
        let result = work();
        let (cpu, wall) = (sys::thread_cpu() - cpu, wall.elapsed());
        self.longest_wall = self.longest_wall.max(wall);
        self.longest_cpu = self.longest_cpu.max(cpu);
        self.cpu += cpu;
        result
    }
}

fn transport(key: &Keypair) -> Result<Transport> {
    const PLENTY: u32 = 100_000;
    Ok(Transport::new(
        libp2p_knock::Config::new(key)?
            .with_max_openings(PLENTY.try_into()?)?
            .with_max_waiting((PLENTY as usize).try_into()?),
    ))
}

fn boxed(key: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let transport = transport(key)?.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(transport.boxed())
}

/// The node that is measured: tells where it listens and, in the end, what it took.
pub(crate) async fn listener(closing: Closing, connections: usize) -> Result<()> {
    let key = Keypair::generate_ed25519();
    let mut config = Config::new((connections / 2).max(1), connections + 1)?
        .with_grace_period(Duration::ZERO)
        .with_keep_alive(KeepAlive::All);
    let (close, mut to_close) = mpsc::unbounded();
    if closing == Closing::Connections {
        config = config.with_closer(move |_, connection, _| drop(close.unbounded_send(connection)));
    }
    let (behaviour, manager) = libp2p_connmgr::new(config);
    let mut swarm = Swarm::new(
        boxed(&key)?,
        behaviour,
        key.public().to_peer_id(),
        libp2p_swarm::Config::with_tokio_executor(),
    );
    swarm.listen_on("/ip4/127.0.0.1/tcp/0/tls".parse()?)?;

    let mut connecting = Polls::default();
    let mut established = 0;
    while established < connections {
        match next(&mut swarm, &mut connecting).await {
            SwarmEvent::NewListenAddr { address, .. } => println!("{address}/p2p/{}", swarm.local_peer_id()),
            SwarmEvent::ConnectionEstablished { .. } => established += 1,
            SwarmEvent::IncomingConnectionError { error, .. } => return Err(error.into()),
            SwarmEvent::ConnectionClosed { cause, .. } => anyhow::bail!("a connection was closed: {cause:?}"),
            _ => {}
        }
    }

    let mut trimming = Polls::default();
    let start = Instant::now();
    let mut trim = manager.trim_open_conns();
    let mut gone = 0;
    let trimmed = loop {
        tokio::select! {
            biased;
            Some(connection) = to_close.next() => {
                trimming.note(|| swarm.close_connection(connection));
            }
            event = next(&mut swarm, &mut trimming) => {
                if matches!(event, SwarmEvent::ConnectionClosed { .. }) {
                    gone += 1;
                }
            }
            trimmed = &mut trim => break trimmed?,
        }
    };
    let took = start.elapsed();
    let half = connections - (connections / 2).max(1);
    ensure!(
        trimmed.closed == half && trimmed.stuck == 0 && gone >= half,
        "{trimmed:?}, {gone}"
    );
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let result = json!({
        "connections": connections,
        "connecting_wall_ms": ms(connecting.longest_wall),
        "connecting_cpu_ms": ms(connecting.longest_cpu),
        "trimming_wall_ms": ms(trimming.longest_wall),
        "trimming_cpu_ms": ms(trimming.longest_cpu),
        "polls_cpu_ms": ms(trimming.cpu),
        "trim_ms": ms(took),
    });
    println!("{result}");
    Ok(())
}

/// The Swarm's next event, every poll on the way to it noted.
async fn next(
    swarm: &mut Swarm<Behaviour>,
    polls: &mut Polls,
) -> SwarmEvent<<Behaviour as libp2p_swarm::NetworkBehaviour>::ToSwarm> {
    poll_fn(|cx| match polls.note(|| swarm.poll_next_unpin(cx)) {
        Poll::Ready(Some(event)) => Poll::Ready(event),
        // A Swarm's events never end.
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    })
    .await
}

/// The other ends: each a peer of its own. Stays until its input ends.
pub(crate) async fn dialer(address: Multiaddr, connections: usize) -> Result<()> {
    /// Dials at a time.
    const AT_ONCE: usize = 16;
    let mut dials = FuturesUnordered::new();
    for _ in 0..connections {
        dials.push(dial(address.clone()));
        if dials.len() >= AT_ONCE {
            dials.next().await.context("there are some")??;
        }
    }
    while let Some(dialled) = dials.next().await {
        dialled?;
    }
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Dials, and has a task answer until the other end closes.
async fn dial(address: Multiaddr) -> Result<()> {
    let mut transport = boxed(&Keypair::generate_ed25519())?;
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let (_, mut muxer) = transport.dial(address, opts)?.await?;
    tokio::spawn(async move {
        poll_fn(|cx| {
            if let Poll::Ready(Err(_)) = muxer.poll_unpin(cx) {
                return Poll::Ready(());
            }
            match muxer.poll_inbound_unpin(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(()),
                // Nobody opens streams here.
                _ => Poll::Pending,
            }
        })
        .await;
    });
    Ok(())
}
