//! A program that depends on this crate alone can name what its signatures name.

use libp2p_gater::goodbye::{Code, Goodbye};
#[cfg(feature = "metrics")]
use libp2p_gater::prometheus_client::registry::Registry;
use libp2p_gater::{
    ConnectedPoint, ConnectionDenied, ConnectionId, Denied, DialError, Direction, Endpoint, Gate, Keypair, Link,
    ListenError, ListenerId, Multiaddr, PeerId, Rules,
};

fn dial(error: &DialError) -> Option<&Denied> {
    Denied::in_dial(error)
}

fn listen(error: &ListenError) -> Option<&Denied> {
    Denied::in_listen(error)
}

fn close(gate: &Gate, peer: PeerId, connection: ConnectionId) {
    gate.close(peer, connection, Goodbye::new(Code::Trimmed));
}

fn admit(gate: &Gate, peer: &PeerId, point: &ConnectedPoint) -> Result<(), ConnectionDenied> {
    gate.knock()(peer, point).map_err(ConnectionDenied::new)
}

#[test]
fn types_of_other_crates_in_public_signatures_have_names_here() {
    let gate = Gate::new(Rules::new());
    #[cfg(feature = "metrics")]
    let gate = gate.with_metrics(&mut Registry::default()).unwrap();
    let address: Multiaddr = "/ip4/127.0.0.1/tcp/1/tls".parse().unwrap();
    let point = ConnectedPoint::Listener {
        local_addr: address.clone(),
        send_back_addr: address.clone(),
    };
    let peer = Keypair::generate_ed25519().public().to_peer_id();
    assert!(admit(&gate, &peer, &point).is_ok());
    close(&gate, peer, ConnectionId::new_unchecked(1));
    assert!(dial(&DialError::Aborted).is_none());
    assert!(listen(&ListenError::Aborted).is_none());
    let link = Link::outbound(&address, Endpoint::Dialer).with_listener(ListenerId::next());
    assert_eq!(link.direction, Direction::Outbound);
}
