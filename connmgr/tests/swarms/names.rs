//! A program that depends on this crate alone can name what its signatures name.

#[cfg(feature = "metrics")]
use libp2p_connmgr::prometheus_client::registry::Registry;
use libp2p_connmgr::{
    BoxFuture, Config, ConnManager, ConnectedPoint, ConnectionDenied, ConnectionId, ConnectionInfo, HardLimitReached,
    Instant, Manager, Multiaddr, PeerId, PersistentPeers, TrimError, Trimmed, persistent,
};
use std::time::Duration;

struct Mine(Manager);

impl Mine {
    fn admit(&self, peer: &PeerId, point: &ConnectedPoint) -> bool {
        let refused = self.0.hard_cap()(peer, point).err();
        refused.is_none_or(|error| !error.is::<HardLimitReached>())
    }

    fn trim(&self) -> BoxFuture<'static, Result<Trimmed, TrimError>> {
        ConnManager::trim_open_conns(&self.0)
    }
}

fn waits(denied: &ConnectionDenied) -> Option<Duration> {
    denied
        .downcast_ref::<HardLimitReached>()
        .map(|_| Duration::from_secs(1))
}

fn want(local: PeerId, wanted: PeerId, address: Multiaddr) -> PersistentPeers {
    let config = persistent::Config::new().with_denied_for(waits);
    let mut peers = PersistentPeers::new(local, config);
    peers.add_peer(wanted, [address]).unwrap();
    peers
}

fn ids(connections: &[ConnectionInfo]) -> Vec<ConnectionId> {
    connections.iter().map(|connection| connection.id).collect()
}

#[tokio::test]
async fn types_of_other_crates_in_public_signatures_have_names_here() {
    let now: fn() -> Instant = Instant::now;
    let config = Config::new(1, 2).unwrap().with_clock(now);
    #[cfg(feature = "metrics")]
    let config = config.with_metrics(&mut Registry::default()).unwrap();
    let mine = Mine(libp2p_connmgr::new(config).1);
    let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let point = ConnectedPoint::Listener {
        local_addr: address.clone(),
        send_back_addr: address.clone(),
    };
    assert!(mine.admit(&PeerId::random(), &point));
    assert_eq!(mine.trim().await, Ok(Trimmed::default()));
    assert_eq!(ids(&[]), []);
    drop(want(PeerId::random(), PeerId::random(), address));
}
