//! Who outlives the Swarm's idle timeout.

use crate::common::*;
use libp2p_connmgr::{Config, KeepAlive};
use std::time::Duration;

/// What a test has, once a peer is there, to say that it is to stay.
const IDLE: Duration = Duration::from_millis(700);

async fn node(over: Over, keep_alive: KeepAlive) -> Node {
    Node::new(over, Config::disabled().with_keep_alive(keep_alive), IDLE).await
}

/// Waits until peers that nobody keeps have come and gone three times over: that is the proof that time has passed.
async fn idle_out(node: &mut Node) {
    for _ in 0..3 {
        let peer = node.connect(1).await[0];
        node.until(|node| !node.is_connected(&peer)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_peers_outlive_the_idle_timeout_and_others_do_not() {
    for over in ALL {
        let mut node = node(over, KeepAlive::Protected).await;
        // One is protected before it connects, one after, and one is in use.
        let early = plain(over);
        let early_id = *early.local_peer_id();
        node.manager.protect(&early_id, "friend");
        node.start(early, 1);
        node.until(|node| node.is_connected(&early_id)).await;
        let friend = node.connect(1).await[0];
        node.manager.protect(&friend, "friend");
        let used = node.connect(1).await[0];
        let guard = node.manager.in_use(&used);
        let others = [friend, used];
        idle_out(&mut node).await;
        assert!(node.is_connected(&early_id), "{over:?}");
        assert!(others.iter().all(|peer| node.is_connected(peer)), "{over:?}");
        node.manager.unprotect(&others[0], "friend");
        drop(guard);
        node.until(|node| !node.is_connected(&others[0]) && !node.is_connected(&others[1]))
            .await;
        assert!(node.is_connected(&early_id), "{over:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_none_protection_keeps_nobody_alive() {
    for over in ALL {
        let mut node = node(over, KeepAlive::None).await;
        let peer = node.connect(1).await[0];
        node.manager.protect(&peer, "friend");
        node.until(|node| !node.is_connected(&peer)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_everybody_stays_while_the_same_time_ends_others() {
    for over in ALL {
        let mut keeping = node(over, KeepAlive::All).await;
        let mut other = node(over, KeepAlive::None).await;
        let peers = keeping.connect(3).await;
        // The other node shows that the time is over, while this one is driven too.
        keeping.drive(idle_out(&mut other)).await;
        keeping.catch_up();
        assert!(peers.iter().all(|peer| keeping.is_connected(peer)), "{over:?}");
    }
}
