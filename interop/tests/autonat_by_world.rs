//! AutoNAT v2 at `prefer`, where the first server that is asked knows only stock: with libp2p's client as it is, and with
//! one for each world, as MIGRATION.md says.

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use libp2p::autonat::v2::{client, server};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, SwarmEvent, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, Transport as _, identify, noise, tcp, yamux};
use libp2p_knock::{Config, Migration, MigrationStage, is_knock_address};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

#[path = "../../examples/migrate/by_world.rs"]
mod by_world;
use by_world::ByWorld;

const PATIENCE: Duration = Duration::from_secs(45);
const STOCK: &str = "/ip4/127.0.0.1/tcp/0";
const KNOCK: &str = "/ip4/127.0.0.1/tcp/0/tls";

type Asking = client::Behaviour<StdRng>;

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Node {
    /// As libp2p has it.
    asking: Toggle<Asking>,
    asking_stock: Toggle<ByWorld<Asking>>,
    asking_knock: Toggle<ByWorld<Asking>>,
    answering: Toggle<server::Behaviour<StdRng>>,
    /// Tells each end that the other answers AutoNAT, and us where we are seen.
    identify: identify::Behaviour,
    candidates: Candidates,
}

/// Says what identify would say of an address at which others have seen us.
#[derive(Default)]
struct Candidates(VecDeque<Multiaddr>);

impl NetworkBehaviour for Candidates {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = std::convert::Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.0.pop_front().map_or(Poll::Pending, |address| {
            Poll::Ready(ToSwarm::NewExternalAddrCandidate(address))
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Client {
    No,
    Plain,
    ByWorld,
}

/// A node that listens at each of `addresses`, and those in their order.
async fn node(
    seed: u8,
    stage: MigrationStage,
    client: Client,
    addresses: &[&str],
) -> Result<(Swarm<Node>, Vec<Multiaddr>)> {
    let key = Keypair::ed25519_from_bytes([seed; 32])?;
    let asking = || {
        let config = client::Config::default().with_probe_interval(Duration::from_millis(200));
        Asking::new(StdRng::seed_from_u64(seed.into()), config)
    };
    let behaviour = Node {
        asking: (client == Client::Plain).then(asking).into(),
        asking_stock: (client == Client::ByWorld).then(|| ByWorld::stock(asking())).into(),
        asking_knock: (client == Client::ByWorld).then(|| ByWorld::knock(asking())).into(),
        answering: (client == Client::No)
            .then(|| server::Behaviour::new(StdRng::seed_from_u64(1)))
            .into(),
        identify: identify::Behaviour::new(identify::Config::new("/by-world/1".to_owned(), key.public())),
        candidates: Candidates::default(),
    };
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|key| {
            let stock = tcp::tokio::Transport::new(tcp::Config::default())
                .upgrade(Version::V1Lazy)
                .authenticate(noise::Config::new(key)?)
                .multiplex(yamux::Config::default());
            let knock = libp2p_knock::tokio::Transport::new(Config::new(key)?);
            Ok(Migration::new(stage, stock, knock))
        })?
        .with_behaviour(|_| behaviour)?
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build();
    let mut listening = Vec::new();
    for address in addresses {
        swarm.listen_on(address.parse()?)?;
        while listening.len()
            < addresses
                .iter()
                .position(|other| other == address)
                .map_or(0, |at| at + 1)
        {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                listening.push(address);
            }
        }
    }
    Ok((swarm, listening))
}

/// A server at `stage`, which runs for as long as the test, and where it is reached.
async fn server(seed: u8, stage: MigrationStage, addresses: &[&str]) -> Result<Vec<Multiaddr>> {
    let (mut swarm, listening) = node(seed, stage, Client::No, addresses).await?;
    let peer = *swarm.local_peer_id();
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let qualified = listening
        .into_iter()
        .map(|address| address.with_p2p(peer).ok().context("another peer's"));
    qualified.collect()
}

/// What the client was told, until it is `last`: the addresses that were refused, and those that were confirmed.
async fn told(swarm: &mut Swarm<Node>, last: &Multiaddr) -> Result<(Vec<Multiaddr>, Vec<Multiaddr>)> {
    let (mut refused, mut confirmed) = (Vec::new(), Vec::new());
    let told = async {
        while !refused.contains(last) && !confirmed.contains(last) {
            let event = match swarm.select_next_some().await {
                SwarmEvent::Behaviour(NodeEvent::Asking(event)) => event,
                SwarmEvent::Behaviour(NodeEvent::AskingStock(event) | NodeEvent::AskingKnock(event)) => event,
                _ => continue,
            };
            let list = if event.result.is_ok() {
                &mut confirmed
            } else {
                &mut refused
            };
            list.push(event.tested_addr);
        }
    };
    let waited = tokio::time::timeout(PATIENCE, told).await;
    waited.with_context(|| format!("nothing about {last}"))?;
    Ok((refused, confirmed))
}

fn observe(swarm: &mut Swarm<Node>, addresses: &[Multiaddr]) {
    swarm.behaviour_mut().candidates.0.extend(addresses.iter().cloned());
}

#[tokio::test]
async fn with_one_client_a_stock_server_loses_the_knocks_address_for_good() -> Result<()> {
    let stock = server(1, MigrationStage::Stock, &[STOCK]).await?;
    let both = server(2, MigrationStage::Prefer, &[KNOCK]).await?;
    let (mut swarm, ours) = node(3, MigrationStage::Prefer, Client::Plain, &[STOCK, KNOCK]).await?;
    swarm.dial(stock[0].clone())?;
    observe(&mut swarm, &ours);
    let (refused, _) = told(&mut swarm, &ours[1]).await?;
    ensure!(refused.contains(&ours[1]), "{refused:?}");

    // Alone with a server that could dial it: another address is asked about, and the knock's is not once more.
    let _ = swarm.disconnect_peer_id(peer_of(&stock[0])?);
    swarm.dial(both[0].clone())?;
    swarm.listen_on(STOCK.parse()?)?;
    let later = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    observe(&mut swarm, &[ours[1].clone(), later.clone()]);
    let (refused, confirmed) = told(&mut swarm, &later).await?;
    ensure!(
        !confirmed.contains(&ours[1]) && !refused.contains(&ours[1]),
        "{confirmed:?} {refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn with_a_client_for_each_world_both_addresses_are_confirmed_whichever_server_comes_first() -> Result<()> {
    for knock_first in [false, true] {
        let stock = server(1, MigrationStage::Stock, &[STOCK]).await?;
        let knock = server(2, MigrationStage::Require, &[KNOCK]).await?;
        let (mut swarm, ours) = node(3, MigrationStage::Prefer, Client::ByWorld, &[STOCK, KNOCK]).await?;
        observe(&mut swarm, &ours);
        let mut servers = [(&stock, &ours[0]), (&knock, &ours[1])];
        if knock_first {
            servers.reverse();
        }
        for (server, address) in servers {
            swarm.dial(server[0].clone())?;
            let (refused, confirmed) = told(&mut swarm, address).await?;
            ensure!(
                refused.is_empty() && confirmed.contains(address),
                "{confirmed:?} {refused:?}"
            );
            ensure!(is_knock_address(address) == is_knock_address(&server[0]));
            ensure!(swarm.external_addresses().any(|external| external == address));
        }
    }
    Ok(())
}

fn peer_of(address: &Multiaddr) -> Result<PeerId> {
    match address.iter().last() {
        Some(libp2p::multiaddr::Protocol::P2p(peer)) => Ok(peer),
        _ => anyhow::bail!("{address} names no peer"),
    }
}
