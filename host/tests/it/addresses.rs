//! Where peers are dialled: what worked first, and no address starves behind others that do not
//! answer.

use crate::common::{address, config, host, in_time, keypair, knock, peer, until, until_heard, wide};
use futures::StreamExt as _;
use knock_host::discovery::StaticList;
use knock_host::{Behaviour, BehaviourConfig, Handle, Host};
use libp2p::kad;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, noise, tcp, yamux};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

/// What becomes of a connection.
#[derive(Clone, Copy)]
enum Then {
    /// It stays open, and nothing is said.
    Silence,
    /// It is closed.
    Close,
    /// It goes through to this port.
    Through(u16),
}

/// Takes connections, and counts them.
struct Door {
    address: Multiaddr,
    taken: Arc<AtomicUsize>,
    task: JoinHandle<()>,
    /// Those that it hands over.
    through: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Door {
    async fn new(then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (taken, through) = (Arc::new(AtomicUsize::new(0)), Arc::<Mutex<Vec<AbortHandle>>>::default());
        let task = tokio::spawn({
            let (taken, through) = (taken.clone(), through.clone());
            async move {
                let mut kept = Vec::new();
                loop {
                    let (mut socket, _) = listener.accept().await.unwrap();
                    taken.fetch_add(1, Ordering::SeqCst);
                    match then {
                        Then::Silence => kept.push(socket),
                        Then::Close => {}
                        Then::Through(port) => {
                            let mut there = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                            let pipe = tokio::spawn(async move { copy_bidirectional(&mut socket, &mut there).await });
                            through.lock().unwrap().push(pipe.abort_handle());
                        }
                    }
                }
            }
        });
        Self {
            address: format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap(),
            taken,
            task,
            through,
        }
    }

    /// Breaks what goes through it.
    fn cut(&self) {
        self.through.lock().unwrap().drain(..).for_each(|pipe| pipe.abort());
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

async fn doors(count: usize, then: Then) -> Vec<Door> {
    futures::future::join_all((0..count).map(|_| Door::new(then))).await
}

fn port(address: &Multiaddr) -> u16 {
    address.to_string().split('/').nth(4).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_host_reaches_a_peer_whose_ninth_address_is_the_good_one() {
    let list = StaticList::new();
    let slow = config(knock(1)).with_dial_timeout(Duration::from_millis(200));
    let one = Host::start(slow, list.clone()).await.unwrap();
    let two = host(2, &StaticList::new()).await;
    let others = doors(8, Then::Silence).await;
    for other in &others {
        list.add(peer(2), other.address.clone());
    }
    list.add(peer(2), address(&two));
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    until_heard(&there, &back).await;
    assert!(others.iter().any(|other| other.taken() > 0), "they were tried first");
}

#[tokio::test]
async fn no_address_of_many_starves_behind_those_that_do_not_answer() {
    let list = StaticList::new();
    let quick = config(knock(1)).with_dial_interval(Duration::from_millis(1));
    let one = Host::start(quick, list.clone()).await.unwrap();
    let others = doors(40, Then::Close).await;
    for other in &others {
        list.add(peer(2), other.address.clone());
    }
    let _stream = one.open_stream(peer(2), "x", wide()).unwrap();
    until("each was tried", || others.iter().all(|other| other.taken() > 0)).await;
    let most = others.iter().map(Door::taken).max().unwrap();
    // Three rounds of 16, and what began meanwhile.
    assert!(most <= 4, "one was tried {most} times");
}

#[tokio::test]
async fn the_address_that_worked_is_dialled_first_and_others_do_not_push_it_out() {
    let list = StaticList::new();
    let one = host(1, &list).await;
    let two = host(2, &StaticList::new()).await;
    let good = Door::new(Then::Through(port(&address(&two)))).await;
    let others = doors(3, Then::Close).await;
    for other in others.iter().chain([&good]) {
        list.add(peer(2), other.address.clone());
    }
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&there, &back).await;
    let taken = |others: &[Door]| others.iter().map(Door::taken).sum::<usize>();
    let before = taken(&others);
    let lost = |connections: usize| {
        good.cut();
        let counters = one.counters().peer(&peer(2)).unwrap();
        async move {
            until("it is dialled again", || {
                counters.conn_established.get() > connections as u64
            })
            .await;
        }
    };
    for round in 1..6 {
        lost(round).await;
        until_heard(&there, &back).await;
        assert_eq!(taken(&others), before, "round {round}: the good one was dialled first");
    }
    assert_eq!(good.taken(), 6);
    // It is not in the list any more, which is full of others.
    list.remove(&peer(2));
    let many = doors(20, Then::Close).await;
    for other in &many {
        list.add(peer(2), other.address.clone());
    }
    lost(6).await;
    until_heard(&there, &back).await;
    assert_eq!(
        (good.taken(), taken(&many)),
        (7, 15),
        "in one round, and in its own place"
    );
    // Where nothing at all is known, nothing is dialled.
    list.remove(&peer(2));
    good.cut();
    until("it is gone", || !one.is_connected(&peer(2))).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(good.taken(), 7);
}

/// Streams, and another behaviour that knows addresses.
#[derive(NetworkBehaviour)]
struct Both {
    streams: Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
}

/// A Swarm with libp2p's own settings, that listens by stock TCP.
async fn node(seed: u8, list: &StaticList, known: &[(u8, Multiaddr)]) -> (Handle, Multiaddr, JoinHandle<()>) {
    let config = BehaviourConfig::default().with_dial_interval(Duration::from_millis(100));
    let streams = Behaviour::new(peer(seed), config).with_discoverer(Arc::new(list.clone()));
    let handle = streams.handle();
    let mut kad = kad::Behaviour::new(peer(seed), kad::store::MemoryStore::new(peer(seed)));
    for (other, address) in known {
        kad.add_address(&peer(*other), address.clone());
    }
    let mut swarm = SwarmBuilder::with_existing_identity(keypair(seed))
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Both { streams, kad })
        .unwrap()
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = in_time(async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    });
    let address = address.await;
    let task = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    (handle, address, task)
}

#[tokio::test]
async fn a_swarm_reaches_a_peer_whose_ninth_address_is_the_good_one() {
    let (two, good, two_runs) = node(2, &StaticList::new(), &[]).await;
    let others = doors(12, Then::Silence).await;
    let list = StaticList::new();
    // The discoverer knows nine addresses, and another behaviour knows four more.
    for other in &others[..8] {
        list.add(peer(2), other.address.clone());
    }
    list.add(peer(2), good);
    let known: Vec<_> = others[8..].iter().map(|other| (2, other.address.clone())).collect();
    let (one, _, one_runs) = node(1, &list, &known).await;
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&there, &back).await;
    assert!(others.iter().all(|other| other.taken() <= 1), "in the first dial");
    one_runs.abort();
    two_runs.abort();
}

#[tokio::test]
async fn an_address_that_two_behaviours_of_a_swarm_know_is_dialled_once() {
    let (two, behind, two_runs) = node(2, &StaticList::new(), &[]).await;
    let door = Door::new(Then::Through(port(&behind))).await;
    // The discoverer knows it without the peer, the other behaviour with it.
    let list = StaticList::from_iter([(peer(2), door.address.clone())]);
    let known = door.address.clone().with_p2p(peer(2)).unwrap();
    let (one, _, one_runs) = node(1, &list, &[(2, known)]).await;
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&there, &back).await;
    assert_eq!(door.taken(), 1);
    one_runs.abort();
    two_runs.abort();
}
