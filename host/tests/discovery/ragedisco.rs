//! ragedisco over hosts of ours, with the sealed knock.

use crate::common::{INTERVAL, keypair, peer, until};
use knock_host::discovery::Discoverer as _;
use knock_host::discovery::ragedisco::{
    Config, Database, DatabaseError, FileDatabase, GroupError, MAX_ADDRESSES, Ragedisco,
};
use knock_host::{Host, HostConfig, Limits};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const GROUP: [u8; 32] = [7; 32];
const ANY: &str = "/ip4/127.0.0.1/tcp/0/tls";

struct Node {
    host: Host,
    ragedisco: Ragedisco,
}

async fn start(seed: u8, listen: &str, config: Config) -> Node {
    let ragedisco = Ragedisco::new(config.with_interval(INTERVAL));
    let knock = libp2p_knock::Config::new(&keypair(seed)).unwrap();
    let config = HostConfig::new(knock)
        .with_listen_address(listen.parse().unwrap())
        .with_dial_interval(INTERVAL);
    let host = Host::start(config, ragedisco.clone()).await.unwrap();
    Node { host, ragedisco }
}

impl Node {
    fn address(&self) -> Multiaddr {
        self.host.listen_addresses()[0].clone()
    }

    fn join(&self, seeds: &[u8], bootstrapper: Option<&Self>) {
        let known = bootstrapper.map(|node| (node.host.local_peer_id(), vec![node.address()]));
        self.ragedisco
            .add_group(GROUP, seeds.iter().copied().map(peer), known)
            .unwrap();
    }

    async fn discovers(&self, peers: usize) {
        until("everybody is discovered", || {
            self.ragedisco.status().discovered_peers == peers
        })
        .await;
    }
}

fn file(directory: &Path) -> Config {
    Config::default().with_database(FileDatabase::open(directory.join("announcements")).unwrap())
}

#[tokio::test]
async fn two_who_know_nothing_of_each_other_meet_through_a_bootstrapper_that_is_no_oracle() {
    let bootstrapper = start(1, ANY, Config::default()).await;
    bootstrapper.join(&[2, 3], Some(&bootstrapper));
    let (two, three) = (
        start(2, ANY, Config::default()).await,
        start(3, ANY, Config::default()).await,
    );
    for node in [&two, &three] {
        node.join(&[2, 3], Some(&bootstrapper));
    }
    let here = two.host.open_stream(peer(3), "x", Limits::default()).unwrap();
    let there = three.host.open_stream(peer(2), "x", Limits::default()).unwrap();
    here.send("found");
    let heard = tokio::time::timeout(crate::common::PATIENCE, there.recv())
        .await
        .unwrap();
    assert_eq!(heard.unwrap(), "found");
    assert_eq!(two.ragedisco.find_peer(&peer(3)), [three.address()]);
    assert_eq!(three.ragedisco.status().bootstrappers, 1);
    for node in [two, three, bootstrapper] {
        node.host.close().await;
    }
}

#[tokio::test]
async fn after_a_restart_the_file_knows_where_everybody_is_without_any_bootstrapper() {
    let directory = tempfile::tempdir().unwrap();
    let one = start(1, ANY, Config::default()).await;
    let two = start(2, ANY, file(directory.path())).await;
    one.join(&[1, 2], None);
    two.join(&[1, 2], Some(&one));
    two.discovers(2).await;
    two.host.close().await;
    assert_eq!(
        two.ragedisco.add_group([8; 32], [], []),
        Err(GroupError::NotRunning),
        "closed"
    );

    // Elsewhere: another port. Whoever still dials the former address finds nobody.
    let two = start(2, ANY, file(directory.path())).await;
    two.join(&[1, 2], None);
    until("the file is read", || {
        two.ragedisco.find_peer(&peer(1)) == [one.address()]
    })
    .await;
    // And the other one learns the new address, by an announcement that outdoes the stored one.
    until("the new address is known", || {
        one.ragedisco.find_peer(&peer(2)) == [two.address()]
    })
    .await;
    two.host.close().await;
    one.host.close().await;
}

#[tokio::test]
async fn a_node_that_lost_its_file_is_found_at_its_new_address() {
    let one = start(1, ANY, Config::default()).await;
    let two = start(2, ANY, Config::default()).await;
    one.join(&[1, 2], None);
    two.join(&[1, 2], Some(&one));
    one.discovers(2).await;
    let former = one.ragedisco.find_peer(&peer(2));
    two.host.close().await;

    let two = start(2, ANY, Config::default()).await;
    assert_ne!(former, [two.address()]);
    two.join(&[1, 2], Some(&one));
    until("the new address is known", || {
        one.ragedisco.find_peer(&peer(2)) == [two.address()]
    })
    .await;
    two.host.close().await;
    one.host.close().await;
}

#[tokio::test]
async fn members_of_a_group_that_is_gone_are_forgotten_and_their_streams_closed() {
    let one = start(1, ANY, Config::default()).await;
    let two = start(2, ANY, Config::default()).await;
    one.join(&[1, 2], None);
    two.join(&[1, 2], Some(&one));
    one.discovers(2).await;
    one.ragedisco.remove_group(&GROUP).unwrap();
    assert!(one.ragedisco.find_peer(&peer(2)).is_empty());
    until("the last stream is closed", || one.host.counters().peers().is_empty()).await;
    // Again, as if nothing had been.
    one.join(&[1, 2], None);
    one.discovers(2).await;
    two.host.close().await;
    one.host.close().await;
}

/// Fails whatever it is asked.
struct Broken(Arc<AtomicUsize>);

impl Database for Broken {
    fn store(&self, _: &[(PeerId, Vec<u8>)]) -> Result<(), DatabaseError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err("the disk is full".into())
    }

    fn read(&self, _: &[PeerId]) -> Result<Vec<(PeerId, Vec<u8>)>, DatabaseError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err("the disk is gone".into())
    }
}

#[tokio::test]
async fn a_database_that_fails_does_not_keep_anybody_from_being_found() {
    let calls = Arc::new(AtomicUsize::new(0));
    let one = start(1, ANY, Config::default()).await;
    let two = start(2, ANY, Config::default().with_database(Broken(calls.clone()))).await;
    one.join(&[1, 2], None);
    two.join(&[1, 2], Some(&one));
    two.discovers(2).await;
    two.host.close().await;
    assert_eq!(calls.load(Ordering::SeqCst), 2, "read once, and stored at the close");
    one.host.close().await;
}

#[tokio::test]
async fn one_discoverer_serves_one_host_once() {
    let one = start(1, ANY, Config::default()).await;
    let knock = libp2p_knock::Config::new(&keypair(2)).unwrap();
    let config = HostConfig::new(knock).with_listen_address(ANY.parse().unwrap());
    let second = Host::start(config, one.ragedisco.clone()).await;
    assert!(
        matches!(second, Err(knock_host::StartError::Discoverer(_))),
        "{second:?}"
    );
    one.host.close().await;
}

#[tokio::test]
async fn a_host_that_is_dropped_takes_its_discovery_along() {
    let one = start(1, ANY, Config::default()).await;
    one.join(&[1, 2], None);
    drop(one.host);
    until("it has ended", || {
        one.ragedisco.remove_group(&GROUP) == Err(GroupError::NotRunning)
    })
    .await;
}

#[tokio::test]
async fn a_host_that_listens_everywhere_announces_every_interface() {
    let one = start(1, "/ip4/0.0.0.0/tcp/0", Config::default()).await;
    let port = one.address().to_string().split('/').nth(4).unwrap().to_owned();
    let interfaces = if_addrs::get_if_addrs().unwrap();
    let v4: BTreeSet<Multiaddr> = interfaces
        .iter()
        .filter(|interface| interface.ip().is_ipv4())
        .map(|interface| format!("/ip4/{}/tcp/{port}/tls", interface.ip()).parse().unwrap())
        .collect();
    one.join(&[1, 2], None);
    let announced = one.ragedisco.find_peer(&peer(1));
    assert_eq!(announced.len(), v4.len().min(MAX_ADDRESSES));
    assert!(
        announced.iter().all(|address| v4.contains(address)),
        "{announced:?}, not {v4:?}"
    );
    one.host.close().await;
}
