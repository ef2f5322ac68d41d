//! Who is closed and who stays.

use crate::common::*;
use libp2p::PeerId;
use libp2p::swarm::SwarmEvent;
use libp2p_connmgr::{Config, Event, Reason, TrimTarget, Trimmed};
use std::collections::HashSet;
use std::time::{Duration, Instant};

fn config(low: usize, high: usize) -> Config {
    Config::new(low, high).unwrap().with_grace_period(Duration::ZERO)
}

/// Connections as the Swarm counts them.
fn established(node: &Node) -> u32 {
    node.swarm.network_info().connection_counters().num_established()
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_peers_survive_every_trim_and_the_others_go_down_to_the_low_watermark() {
    for over in ALL {
        let mut node = Node::new(over, config(5, 1_000), LONG).await;
        let peers = node.connect(20).await;
        for peer in &peers[..3] {
            node.manager.protect(peer, "friend");
            node.manager.tag_peer(peer, "score", -1_000);
        }
        for expected in [12, 0, 0] {
            let trimmed = node.trim().await;
            assert_eq!((trimmed.closed, trimmed.stuck), (expected, 0), "{over:?}");
            assert_eq!(node.manager.info().connections, 5 + 3);
            assert_eq!(established(&node), 5 + 3);
            assert!(peers[..3].iter().all(|peer| node.is_connected(peer)));
        }
        // More come, and one that was protected no longer is.
        node.connect(4).await;
        node.manager.unprotect(&peers[0], "friend");
        assert_eq!(node.trim().await.closed, 5);
        assert!(!node.is_connected(&peers[0]));
        assert!(peers[1..3].iter().all(|peer| node.is_connected(peer)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_total_target_nothing_beyond_low_stays_but_what_is_protected_or_in_grace() {
    for over in ALL {
        for protected in [2, 8] {
            let config = config(5, 1_000).with_trim_target(TrimTarget::Total);
            let mut node = Node::new(over, config, LONG).await;
            let peers = node.connect(12).await;
            for peer in &peers[..protected] {
                node.manager.protect(peer, "friend");
            }
            node.trim().await;
            assert_eq!(node.manager.info().connections, protected.max(5), "{over:?}");
        }
        let config = Config::new(5, 1_000).unwrap().with_grace_period(LONG);
        let mut node = Node::new(over, config.with_trim_target(TrimTarget::Total), LONG).await;
        node.connect(8).await;
        assert_eq!(node.trim().await, Trimmed::default());
        assert_eq!(established(&node), 8, "all are in grace");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_background_trims_at_the_high_watermark_by_itself() {
    for over in ALL {
        let config = config(5, 10).with_silence_period(Duration::from_millis(200)).unwrap();
        let mut node = Node::new(over, config, LONG).await;
        for _ in 0..10 {
            node.start_peer();
        }
        let finished = |node: &mut Node| {
            let reports = node.reports();
            reports.iter().any(|event| {
                matches!(
                    event,
                    Event::TrimFinished {
                        reason: Reason::HighWatermark,
                        ..
                    }
                )
            })
        };
        node.until(finished).await;
        assert_eq!(node.manager.info().connections, 5, "{over:?}");
        assert!(node.manager.info().last_trim.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newcomers_are_trimmed_after_a_background_trim_that_found_too_few_candidates() {
    let config = Config::new(2, 4).unwrap().with_grace_period(Duration::from_secs(1));
    let config = config.with_silence_period(Duration::from_millis(500)).unwrap();
    let mut node = Node::new(Over::Knock, config, LONG).await;
    for friend in &node.connect(4).await[..2] {
        node.manager.protect(friend, "friend");
    }
    // Two are protected, the others past their grace, and no more than may stay.
    let fruitless = |node: &mut Node| {
        node.manager.counts().in_grace.peers == 0
            && matches!(
                node.events.last(),
                Some(SwarmEvent::Behaviour(Event::TrimSkipped { .. }))
            )
    };
    node.until(fruitless).await;
    for _ in 0..10 {
        node.start_peer();
    }
    let arrived = |node: &mut Node| {
        let events = node.events.iter();
        events
            .filter(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. }))
            .count()
            == 14
    };
    node.until(arrived).await;
    node.until(|node| established(node) == 4).await;
    assert_eq!(node.manager.counts().protected.connections, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn constant_churn_makes_no_trim_storm() {
    for over in ALL {
        let silence = Duration::from_millis(500);
        let mut node = Node::new(over, config(4, 8).with_silence_period(silence).unwrap(), LONG).await;
        let start = Instant::now();
        let trims = |node: &Node| {
            let reports = node.reports();
            reports
                .iter()
                .filter(|event| !matches!(event, Event::Trimmed { .. }))
                .count()
        };
        let mut came = 0;
        while trims(&node) < 3 {
            node.start_peer();
            came += 1;
            let connected = |node: &mut Node| {
                let events = node.events.iter();
                events
                    .filter(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. }))
                    .count()
                    >= came
            };
            node.until(connected).await;
        }
        let periods = start.elapsed().as_millis() / silence.as_millis();
        assert!(
            trims(&node) as u128 <= periods + 1,
            "{} trims in {periods} periods over {over:?}",
            trims(&node)
        );
        assert!(came >= 8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_connections_of_a_peer_are_counted_and_closed_together() {
    for over in ALL {
        let mut node = Node::new(over, config(2, 1_000), LONG).await;
        let peer = node.start_peer_with(3);
        node.until(|node| node.manager.info().connections == 3).await;
        let info = node.manager.tag_info(&peer).unwrap();
        assert_eq!(info.connections.len(), 3, "{over:?}");
        let ids: HashSet<_> = info.connections.iter().map(|connection| connection.id).collect();
        assert_eq!(ids.len(), 3);
        assert!(info.connections.iter().all(|connection| !connection.outbound));
        for friend in node.connect(2).await {
            node.manager.tag_peer(&friend, "score", 1);
        }
        let trimmed = node.trim().await;
        assert_eq!((trimmed.closed, trimmed.stuck), (3, 0));
        assert!(!node.is_connected(&peer));
        assert_eq!(established(&node), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_dialled_by_name_is_counted_like_any_other() {
    for over in [Over::Knock, Over::Noise] {
        let mut remote = Node::new(over, config(5, 10), LONG).await;
        let key = libp2p::identity::Keypair::generate_ed25519();
        let (connmgr, manager) = libp2p_connmgr::new(config(5, 10));
        // The counting is below the name resolution, so it sees an address, and the Swarm a name.
        let transport = libp2p::dns::tokio::Transport::system(over.transport(&key, Some(&manager))).unwrap();
        let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(LONG);
        let id = key.public().to_peer_id();
        let mut swarm = libp2p::Swarm::new(libp2p::Transport::boxed(transport), connmgr, id, config);
        let name = remote.address.to_string().replace("/ip4/127.0.0.1", "/dns4/localhost");
        swarm.dial(name.parse::<libp2p::Multiaddr>().unwrap()).unwrap();
        let remote_id = *remote.swarm.local_peer_id();
        let both = async {
            loop {
                if let SwarmEvent::ConnectionEstablished { .. } = futures::StreamExt::select_next_some(&mut swarm).await
                {
                    break;
                }
            }
        };
        remote.drive(both).await;
        let info = manager.tag_info(&remote_id).unwrap();
        assert_eq!(info.connections.len(), 1, "{over:?}");
        let connection = &info.connections[0];
        assert!(connection.outbound && connection.remote_address.to_string().starts_with("/dns4/localhost"));
        assert!(connection.streams.is_some() && connection.last_activity.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cm24_a_trimmed_connection_is_closed_for_both_ends_and_the_reason_is_told() {
    for over in ALL {
        let mut node = Node::new(over, config(1, 1), LONG).await;
        let (mut ada, mut bob) = (plain(over), plain(over));
        let ids = [*ada.local_peer_id(), *bob.local_peer_id()];
        for peer in [&mut ada, &mut bob] {
            peer.dial(node.address.clone()).unwrap();
        }
        // Both dial at once; whoever is trimmed sees its connection end.
        let ended = async {
            loop {
                let (who, event) = tokio::select! {
                    event = futures::StreamExt::select_next_some(&mut ada) => (ids[0], event),
                    event = futures::StreamExt::select_next_some(&mut bob) => (ids[1], event),
                };
                if let SwarmEvent::ConnectionClosed { num_established: 0, .. } = event {
                    break who;
                }
            }
        };
        let manager = node.manager.clone();
        let trim = async {
            while manager.info().connections < 2 {
                tokio::task::yield_now().await;
            }
            manager.trim_open_conns().await.unwrap()
        };
        let (trimmed, ended): (Trimmed, PeerId) = node.drive(async { futures::join!(trim, ended) }).await;
        assert_eq!((trimmed.closed, trimmed.stuck), (1, 0), "{over:?}");
        node.catch_up();
        let reports = node.reports();
        let expected = |event: &Event| matches!(event, Event::Trimmed { peer, connections: 1, reason: Reason::OnDemand, .. } if *peer == ended);
        assert!(reports.iter().any(expected), "{reports:?}");
        assert!(!node.is_connected(&ended));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hard_limit_holds_and_a_friend_finds_a_place() {
    for over in ALL {
        let config = config(4, 8).with_hard_limit(8).unwrap();
        let config = config.with_silence_period(LONG).unwrap().with_grace_period(LONG);
        let mut node = Node::new(over, config, LONG).await;
        node.connect(8).await;
        let stranger = node.start_peer();
        node.until(|node| node.reports().contains(&Event::Denied { peer: stranger }))
            .await;
        assert_eq!(node.manager.info().connections, 8, "{over:?}");
        let friend = {
            // Protected before it dials.
            let peer = plain(over);
            let id = *peer.local_peer_id();
            node.manager.protect(&id, "friend");
            node.start(peer, 1);
            id
        };
        node.until(|node| node.is_connected(&friend) && node.manager.info().closing == 0)
            .await;
        assert_eq!((node.manager.info().connections, established(&node)), (8, 8));
    }
}
