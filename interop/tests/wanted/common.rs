//! Swarms that run by themselves, and what they have told.

use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Generous, for machines that do other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// TCP + Noise and the knock, as while a network migrates.
pub(crate) fn both<B: NetworkBehaviour>(registry: &mut Registry, behaviour: impl FnOnce(&Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_other_transport(|key| {
            let config = libp2p_knock::Config::new(key)?.with_metrics(registry)?;
            Ok(libp2p_knock::tokio::Transport::new(config))
        })
        .unwrap()
        .with_behaviour(behaviour)
        .unwrap()
        .build()
}

/// Where the Swarm listens once it does.
pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: &str) -> Multiaddr {
    swarm.listen_on(address.parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

pub(crate) const KNOCK: &str = "/ip4/127.0.0.1/tcp/0/tls";
pub(crate) const STOCK: &str = "/ip4/127.0.0.1/tcp/0";

/// Runs by itself from now on.
pub(crate) fn run<B>(mut swarm: Swarm<B>) -> PeerId
where
    B: NetworkBehaviour<ToSwarm: Send> + Send,
{
    let peer = *swarm.local_peer_id();
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    peer
}

pub(crate) async fn until<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// The sum of all counters whose name and labels begin like this.
pub(crate) fn count(registry: &Registry, name: &str) -> u64 {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}
