//! Swarms that run together in one task.

use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm};
use std::error::Error;
use std::time::Duration;

/// Far more than anything here takes, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The knock, as a builder takes it.
pub(crate) fn knock(key: &Keypair) -> Result<libp2p_knock::tokio::Transport, Box<dyn Error + Send + Sync>> {
    Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?))
}

/// Listens on the loopback, and returns what the program would print.
pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    swarm.listen_on("/ip4/127.0.0.1/tcp/0/tls".parse().unwrap()).unwrap();
    until(swarm, |event| match event {
        SwarmEvent::NewListenAddr { address, .. } => Some(address.clone()),
        _ => None,
    })
    .await
}

/// Runs the swarm until `wanted` finds what it looks for.
pub(crate) async fn until<B: NetworkBehaviour, T>(
    swarm: &mut Swarm<B>,
    mut wanted: impl FnMut(&SwarmEvent<B::ToSwarm>) -> Option<T>,
) -> T {
    let run = async {
        loop {
            if let Some(found) = wanted(&swarm.select_next_some().await) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, run).await.expect("it happens in time")
}

/// Why a dial fails, while the other swarm runs too.
pub(crate) async fn failure<B: NetworkBehaviour, C: NetworkBehaviour>(
    dialer: &mut Swarm<B>,
    address: &Multiaddr,
    other: &mut Swarm<C>,
) -> DialError {
    if let Err(error) = dialer.dial(address.clone()) {
        return error;
    }
    let run = async {
        loop {
            tokio::select! {
                event = dialer.select_next_some() => match event {
                    SwarmEvent::OutgoingConnectionError { error, .. } => return error,
                    SwarmEvent::ConnectionEstablished { .. } => panic!("{address} is reached"),
                    _ => {}
                },
                _ = other.select_next_some() => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, run).await.expect("it fails in time")
}

/// What the transport says of the one address that was dialled.
pub(crate) fn reason(error: &DialError) -> &libp2p_knock::Error {
    let DialError::Transport(addresses) = error else {
        panic!("{error:?}")
    };
    let [(_, error)] = &addresses[..] else {
        panic!("{addresses:?}")
    };
    libp2p_knock::Failure::find(error).unwrap_or_else(|| panic!("{error:?}"))
}

/// Whether an address is a knock's, with or without whose it is.
pub(crate) fn is_marked(address: &Multiaddr) -> bool {
    let parts: Vec<_> = address.iter().collect();
    matches!(parts[..], [.., Protocol::Tls] | [.., Protocol::Tls, Protocol::P2p(_)])
}
