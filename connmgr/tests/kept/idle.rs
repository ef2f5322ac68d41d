use crate::common::*;
use futures::future::join_all;
use libp2p::PeerId;
use libp2p::core::upgrade::Version;
use libp2p_connmgr::{Config, KeepAlive, persistent};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_refuses_is_kept_also_where_protocols_are_negotiated_lazily() {
    // Three questions and a half in the other end's idle timeout.
    let mut stock = stock_with(Over::Noise, |config| config.with_idle_connection_timeout(2 * SHORT)).await;
    let config = Config::disabled().with_keep_alive_interval(SHORT * 2 / 3);
    let mut node = Node::with(Over::Noise, config, persistent::Config::new(), |config| {
        config.with_substream_upgrade_protocol_override(Version::V1Lazy)
    })
    .await;
    let peer = *stock.swarm.local_peer_id();
    node.manager.protect(&peer, "friend");
    node.dial(peer, &stock.address);
    let both = async {
        node.until(|node| node.swarm.is_connected(&peer)).await;
        node.run_for(5 * SHORT).await;
        assert_eq!(node.lost, 0);
    };
    stock.beside(both).await;
}

/// Less than anything is kept for in these tests, and than a question takes to come.
const SHORT: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_promised_to_be_kept_is_lost_as_it_always_was() {
    for over in ALL {
        let mut stock = stock(over).await;
        let config = Config::disabled();
        let mut node = Node::with(over, config, persistent::Config::new(), |config| {
            config.with_idle_connection_timeout(SHORT)
        })
        .await;
        // Another peer is wanted and another one protected.
        node.manager.protect(&PeerId::random(), "friend");
        let persistent = &mut node.swarm.behaviour_mut().persistent;
        persistent.add_peer(PeerId::random(), []).unwrap();
        node.dial(*stock.swarm.local_peer_id(), &stock.address);
        stock.beside(node.until(|node| node.lost == 1)).await;
    }
}

/// An end that runs this crate, and whose idle timeout is shorter than the time between its
/// questions.
async fn impatient(over: Over) -> Node {
    let config = Config::disabled().with_keep_alive_interval(6 * SHORT);
    Node::with(over, config, persistent::Config::new(), |config| {
        config.with_idle_connection_timeout(3 * SHORT)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_runs_this_crate_keeps_what_the_other_end_promised_and_lets_go_with_it() {
    join_all(ALL.map(|over| async move {
        let (mut node, mut other) = (impatient(over).await, impatient(over).await);
        let peer = *other.swarm.local_peer_id();
        node.manager.protect(&peer, "friend");
        node.dial(peer, &other.address);
        let both = async {
            node.until(|node| node.swarm.is_connected(&peer)).await;
            node.run_for(5 * SHORT).await;
            assert_eq!(node.lost, 0, "{over:?}");
            node.manager.unprotect(&peer, "friend");
            node.until(|node| node.lost == 1).await;
        };
        other.beside(both).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_to_keep_no_connection_does_not_do_so_for_others_either() {
    let mut other = managed(Over::Noise, KeepAlive::None, 3 * SHORT).await;
    let mut node = impatient(Over::Noise).await;
    let peer = *other.swarm.local_peer_id();
    node.manager.protect(&peer, "friend");
    node.dial(peer, &other.address);
    other.beside(node.until(|node| node.lost == 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn being_asked_is_no_use_of_a_connection_to_the_manager() {
    // Questions every second: two that are refused, or one that is accepted and two on its stream.
    let asking = async |over, accepting: bool| {
        let config = Config::disabled().with_keep_alive(KeepAlive::None);
        let probes = persistent::Probes {
            interval: 2 * SHORT,
            timeout: Duration::from_secs(20),
        };
        let wants = persistent::Config::new().with_probes(probes);
        let mut node = Node::with(over, config, wants, |config| config).await;
        let (peer, address, task) = if accepting {
            let other = Node::new(over, KeepAlive::Protected).await;
            let there = (*other.swarm.local_peer_id(), other.address.clone());
            (there.0, there.1, other.running.run())
        } else {
            let other = stock(over).await;
            let there = (*other.swarm.local_peer_id(), other.address.clone());
            (there.0, there.1, other.run())
        };
        node.swarm.behaviour_mut().persistent.add_peer(peer, [address]).unwrap();
        node.until(|node| node.swarm.is_connected(&peer)).await;
        node.run_for(5 * SHORT).await;
        let info = node.manager.tag_info(&peer).unwrap();
        let [connection] = &info.connections[..] else {
            panic!("not one connection: {info:?}");
        };
        assert_eq!(connection.streams, Some(0), "{over:?}, {accepting}");
        let last = connection.last_activity.unwrap();
        assert!(
            last <= connection.opened,
            "{over:?}, {accepting}: {:?} later",
            last - connection.opened
        );
        task.abort();
    };
    let cases = ALL.map(|over| async move { futures::join!(asking(over, false), asking(over, true)) });
    join_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_goes_though_the_manager_asks_it_more_often_than_it_has_to_be_unused() {
    let stock = stock(Over::Noise).await;
    let (peer, address) = (*stock.swarm.local_peer_id(), stock.address.clone());
    let _task = stock.run();
    let config = Config::disabled().with_keep_alive_interval(SHORT);
    let wants = persistent::Config::new().with_settle(3 * SHORT);
    let mut node = Node::with(Over::Noise, config, wants, |config| config).await;
    node.manager.protect(&peer, "friend");
    let persistent = &mut node.swarm.behaviour_mut().persistent;
    persistent.add_peer(peer, [address.clone()]).unwrap();
    node.until(|node| node.swarm.is_connected(&peer)).await;
    let again = libp2p::swarm::dial_opts::DialOpts::peer_id(peer)
        .condition(libp2p::swarm::dial_opts::PeerCondition::Always)
        .addresses(vec![address]);
    node.swarm.dial(again.build()).unwrap();
    node.until(|node| node.swarm.network_info().connection_counters().num_established() == 2)
        .await;
    node.until(|node| node.lost == 1).await;
    // And the other one stays.
    node.run_for(5 * SHORT).await;
    assert_eq!(node.lost, 1);
}
