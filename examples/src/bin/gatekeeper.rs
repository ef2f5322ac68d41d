//! Two nodes, and a policy that refuses at one stage after the other: what has the other end seen by then?
//!
//! `cargo run -p examples --bin gatekeeper`

use anyhow::Context as _;
use clap::Parser;
use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, tcp};
use libp2p_gater::{
    Accept, AddrDial, Behaviour, Changes, ConnectionGater, Denied, Event, Gate, Knock, LiveConnection, PeerDial,
    Reason, Secured, Stage, TransportKind, Upgraded, Verdict, goodbye,
};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(30);

/// Refuses at one stage, and remembers that it did.
#[derive(Clone, Default)]
struct Gatekeeper {
    refuses: Arc<Mutex<Option<Stage>>>,
    has_refused: Arc<AtomicBool>,
    changes: Changes,
}

impl Gatekeeper {
    fn refuse(&self, stage: Stage) {
        *self.refuses.lock().expect("no panic") = Some(stage);
        self.changes.tightened();
    }

    fn answer(&self, stage: Stage) -> Verdict {
        if *self.refuses.lock().expect("no panic") != Some(stage) {
            return Verdict::Pass;
        }
        self.has_refused.store(true, Ordering::SeqCst);
        Verdict::Deny(Reason::new("example").with_retry_after(Duration::from_secs(60)))
    }
}

impl ConnectionGater for Gatekeeper {
    fn intercept_peer_dial(&self, _: &PeerDial<'_>) -> Verdict {
        self.answer(Stage::PeerDial)
    }
    fn intercept_addr_dial(&self, _: &AddrDial<'_>) -> Verdict {
        self.answer(Stage::AddrDial)
    }
    fn intercept_accept(&self, _: &Accept<'_>) -> Verdict {
        self.answer(Stage::Accept)
    }
    fn intercept_knock(&self, _: &Knock<'_>) -> Verdict {
        self.answer(Stage::Knock)
    }
    fn intercept_secured(&self, _: &Secured<'_>) -> Verdict {
        self.answer(Stage::Secured)
    }
    fn intercept_upgraded(&self, _: &Upgraded<'_>) -> Verdict {
        self.answer(Stage::Upgraded)
    }
    fn judge_live(&self, _: &LiveConnection<'_>) -> Verdict {
        self.answer(Stage::Live)
    }
    fn changes(&self) -> Vec<Changes> {
        vec![self.changes.clone()]
    }
}

struct Node {
    swarm: Swarm<Behaviour>,
    policy: Gatekeeper,
}

impl Node {
    /// Every part of the gate, each where it is asked first.
    fn new() -> anyhow::Result<Self> {
        let policy = Gatekeeper::default();
        let gate = Gate::new(policy.clone());
        let swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_other_transport(|key| {
                let config = libp2p_knock::Config::new(key)?
                    .with_admission(gate.knock())
                    .with_secured_hook(gate.secured())
                    .with_handshake_timeout(Duration::from_secs(2));
                let tcp = tcp::tokio::Transport::new(tcp::Config::default());
                let beneath = gate.transport(tcp).beneath(TransportKind::Knock);
                Ok(libp2p_knock::Transport::new(beneath, config).with_executor(|task| drop(tokio::spawn(task))))
            })?
            .with_behaviour(|_| gate.behaviour())?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build();
        Ok(Self { swarm, policy })
    }

    fn peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    async fn listen(&mut self) -> anyhow::Result<Multiaddr> {
        self.swarm.listen_on("/ip4/127.0.0.1/tcp/0/tls".parse()?)?;
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = self.swarm.select_next_some().await {
                return Ok(address);
            }
        }
    }
}

/// What went over the wire: between the two nodes stands somebody who counts.
#[derive(Default)]
struct Wire {
    connections: AtomicU64,
    from_dialer: AtomicU64,
    from_listener: AtomicU64,
}

impl Wire {
    async fn before(to: &Multiaddr) -> anyhow::Result<(Arc<Self>, Multiaddr)> {
        let port = |address: &Multiaddr| {
            address.iter().find_map(|protocol| match protocol {
                Protocol::Tcp(port) => Some(port),
                _ => None,
            })
        };
        let to: SocketAddr = ([127, 0, 0, 1], port(to).context("a TCP address")?).into();
        let (wire, listener) = (Arc::new(Self::default()), TcpListener::bind("127.0.0.1:0").await?);
        let address = format!("/ip4/127.0.0.1/tcp/{}/tls", listener.local_addr()?.port()).parse()?;
        let counting = wire.clone();
        tokio::spawn(async move {
            while let Ok((dialer, _)) = listener.accept().await {
                counting.connections.fetch_add(1, Ordering::SeqCst);
                let Ok(listener) = TcpStream::connect(to).await else {
                    continue;
                };
                let (mut from_dialer, mut to_dialer) = dialer.into_split();
                let (mut from_listener, mut to_listener) = listener.into_split();
                let (up, down) = (counting.clone(), counting.clone());
                tokio::spawn(async move { copy(&mut from_dialer, &mut to_listener, &up.from_dialer).await });
                tokio::spawn(async move { copy(&mut from_listener, &mut to_dialer, &down.from_listener).await });
            }
        });
        Ok((wire, address))
    }

    fn text(&self, by_dialer: bool) -> String {
        let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let sent = if by_dialer {
            &self.from_dialer
        } else {
            &self.from_listener
        };
        match (count(&self.connections), count(sent)) {
            (0, _) => "nothing: no packet".to_owned(),
            (_, 0) if count(&self.from_dialer) > 0 => "a TCP connection, and no answer to the knock".to_owned(),
            (_, 0) => "a TCP connection, and not a byte".to_owned(),
            (_, sent) => format!("{sent} bytes"),
        }
    }
}

async fn copy(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    count: &AtomicU64,
) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        count.fetch_add(n as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Refuses once, and says what the other end saw.
async fn refuse(stage: Stage, by_dialer: bool) -> anyhow::Result<String> {
    let (mut alice, mut bob) = (Node::new()?, Node::new()?);
    let at = bob.listen().await?;
    let (wire, address) = Wire::before(&at).await?;
    let policy = if by_dialer { &alice.policy } else { &bob.policy }.clone();
    if stage != Stage::Live {
        policy.refuse(stage);
    }
    let (mut over, mut events) = (false, Vec::new());
    if let Err(error) = alice.swarm.dial(address.with_p2p(bob.peer()).expect("no peer yet")) {
        let denied = Denied::in_dial(&error).context("another error")?;
        anyhow::ensure!(denied.stage == stage);
        over = true;
    }
    let mut up = 0;
    while !(over && policy.has_refused.load(Ordering::SeqCst)) {
        let (dialer, event) = tokio::select! {
            event = alice.swarm.select_next_some() => (true, event),
            event = bob.swarm.select_next_some() => (false, event),
        };
        match event {
            SwarmEvent::ConnectionEstablished { .. } => {
                up += 1;
                anyhow::ensure!(
                    dialer != by_dialer || stage == Stage::Live,
                    "the refused connection is open"
                );
                if stage == Stage::Live && up == 2 {
                    policy.refuse(stage);
                }
                if dialer != by_dialer && stage != Stage::Live {
                    events.push("it sees the connection open");
                }
            }
            SwarmEvent::ConnectionClosed { .. } => {
                if dialer != by_dialer && stage != Stage::Live {
                    events.push("and closed");
                }
                // The refusal is at the other end; this one has seen the last of it.
                over |= dialer != by_dialer;
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                if dialer == by_dialer {
                    let denied = Denied::in_dial(&error).context("another error")?;
                    anyhow::ensure!(denied.stage == stage);
                } else {
                    events.push("its dial fails");
                }
                over = true;
            }
            SwarmEvent::Behaviour(Event::Goodbye(goodbye::Event::Heard { goodbye, .. })) => {
                events.push(match goodbye.retry_after() {
                    Some(_) => "it is told why, and for how long not to come back",
                    None => "it is told why",
                });
            }
            _ => {}
        }
    }
    let mut text = wire.text(by_dialer);
    for event in events {
        text.push_str("; ");
        text.push_str(event);
    }
    Ok(text)
}

/// Two nodes, and a policy that refuses at one stage of a connection after the other: what has the
/// other end seen by then? Takes some seconds, and nothing but the loopback.
///
/// Stages, in their order: peer_dial and addr_dial (nothing is sent), accept (a socket), knock (a
/// valid knock), secured (the keys are proven), upgraded (the muxer runs), live (an established
/// connection that a rule no longer lets in).
#[derive(Debug, Parser)]
#[command(name = "gatekeeper", version)]
struct Cli;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli = Cli::parse();
    println!("alice dials bob by a knock. One of them refuses, at one stage after the other.\n");
    println!("  {:<9} {:<5} what the other has seen", "stage", "by");
    for (stage, by_dialer) in [
        (Stage::PeerDial, true),
        (Stage::AddrDial, true),
        (Stage::Accept, false),
        (Stage::Knock, false),
        (Stage::Secured, true),
        (Stage::Secured, false),
        (Stage::Upgraded, true),
        (Stage::Upgraded, false),
        (Stage::Live, true),
        (Stage::Live, false),
    ] {
        let by = if by_dialer { "alice" } else { "bob" };
        let saw = tokio::time::timeout(PATIENCE, refuse(stage, by_dialer))
            .await
            .with_context(|| format!("{stage}, {by}: nothing within {PATIENCE:?}"))?
            .with_context(|| format!("{stage}, {by}"))?;
        println!("  {:<9} {by:<5} {saw}", stage.name());
    }
    Ok(())
}
