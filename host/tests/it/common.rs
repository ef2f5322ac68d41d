//! Hosts, and patience.

use knock_host::discovery::StaticList;
use knock_host::{Handle, Host, HostConfig, Limits, Stream};
use libp2p_core::Multiaddr;
use libp2p_identity::{Keypair, PeerId};
use std::time::Duration;

/// Longer than anything takes, however slow the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

pub(crate) fn peer(seed: u8) -> PeerId {
    keypair(seed).public().to_peer_id()
}

pub(crate) fn knock(seed: u8) -> libp2p_knock::Config {
    libp2p_knock::Config::new(&keypair(seed)).unwrap()
}

pub(crate) fn config(knock: libp2p_knock::Config) -> HostConfig {
    HostConfig::new(knock)
        .with_listen_address("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .with_dial_interval(Duration::from_millis(100))
}

/// A host of key `seed` that finds peers in `list`.
pub(crate) async fn host(seed: u8, list: &StaticList) -> Host {
    Host::start(config(knock(seed)), list.clone()).await.unwrap()
}

pub(crate) fn address(host: &Handle) -> Multiaddr {
    host.listen_addresses().pop().unwrap()
}

/// Hosts of keys 1 and 2, of which 1 knows where 2 is.
pub(crate) async fn pair() -> (Host, Host, StaticList) {
    let list = StaticList::new();
    let one = host(1, &list).await;
    let two = host(2, &StaticList::new()).await;
    list.add(peer(2), address(&two));
    (one, two, list)
}

/// Wide enough for everything that a test sends.
pub(crate) fn wide() -> Limits {
    Limits::default()
        .with_outgoing_buffer(100_000)
        .with_incoming_buffer(100_000)
        .with_max_message(1 << 20)
        .with_messages(1e6, 1_000_000)
        .with_bytes(2e9, 2_000_000_000)
}

pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}

/// Sends until something comes back at the other end: what is sent while a connection breaks may be lost.
pub(crate) async fn until_heard(from: &Stream, at: &Stream) {
    let heard = async {
        loop {
            from.send("?");
            if let Ok(message) = tokio::time::timeout(Duration::from_millis(50), at.recv()).await {
                assert!(message.is_some(), "the stream was closed");
                return;
            }
        }
    };
    in_time(heard).await;
}
