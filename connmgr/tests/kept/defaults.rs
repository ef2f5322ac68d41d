use crate::common::*;
use futures::future::join_all;
use libp2p_connmgr::KeepAlive;
use std::time::Duration;

/// libp2p's own idle timeout is 10 s: a connection that lives longer was kept.
const PAST_THE_IDLE_TIMEOUT: Duration = Duration::from_millis(11_500);

/// What has the connection kept.
#[derive(Debug, Clone, Copy)]
enum Promise {
    Wanted,
    Protected,
    All,
}

/// One connection between a node that promises to keep it and a Swarm as libp2p makes it; how often
/// it was lost.
async fn lost(over: Over, promise: Promise, inbound: bool) -> usize {
    let mut stock = stock(over).await;
    let peer = *stock.swarm.local_peer_id();
    let mut node = Node::new(
        over,
        match promise {
            Promise::All => KeepAlive::All,
            _ => KeepAlive::Protected,
        },
    )
    .await;
    match promise {
        Promise::Wanted => {
            let addresses = if inbound { vec![] } else { vec![stock.address.clone()] };
            node.swarm.behaviour_mut().persistent.add_peer(peer, addresses).unwrap();
        }
        Promise::Protected => node.manager.protect(&peer, "friend"),
        Promise::All => {}
    }
    if inbound {
        stock.dial(*node.swarm.local_peer_id(), &node.address);
    } else if !matches!(promise, Promise::Wanted) {
        node.dial(peer, &stock.address);
    }
    let both = async {
        node.until(|node| node.swarm.is_connected(&peer)).await;
        node.run_for(PAST_THE_IDLE_TIMEOUT).await;
        node.lost
    };
    stock.beside(both).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_promised_to_be_kept_survives_a_peer_with_the_defaults_of_libp2p() {
    let mut cases = Vec::new();
    for over in ALL {
        for promise in [Promise::Wanted, Promise::Protected, Promise::All] {
            for inbound in [false, true] {
                cases.push(async move { (over, promise, inbound, lost(over, promise, inbound).await) });
            }
        }
    }
    let lost: Vec<_> = join_all(cases).await.into_iter().filter(|case| case.3 > 0).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
