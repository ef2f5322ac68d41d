//! A node with a manager, and peers that dial it, over any of three transports.

use futures::{FutureExt as _, StreamExt as _};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{Swarm, SwarmEvent, dummy};
use libp2p::{Multiaddr, PeerId, Transport as _, noise, quic, tcp, yamux};
use libp2p_connmgr::{Behaviour, Config, Event, Manager};
use std::future::Future;
use std::time::Duration;
use tokio::task::JoinSet;

/// Far more than anything here takes, for machines that are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// For connections that only the manager is to end.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);

/// What an assertion names when it fails, and what it runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Knock,
    Noise,
    Quic,
}

pub(crate) const ALL: [Over; 3] = [Over::Knock, Over::Noise, Over::Quic];

type Stack = Boxed<(PeerId, StreamMuxerBox)>;

impl Over {
    pub(crate) fn listens(self) -> Multiaddr {
        match self {
            Self::Knock => "/ip4/127.0.0.1/tcp/0/tls",
            Self::Noise => "/ip4/127.0.0.1/tcp/0",
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        }
        .parse()
        .unwrap()
    }

    /// Counted, where there is a manager to count for.
    pub(crate) fn transport(self, key: &Keypair, manager: Option<&Manager>) -> Stack {
        fn boxed<T, M>(transport: T, manager: Option<&Manager>) -> Stack
        where
            T: libp2p::Transport<Output = (PeerId, M)> + Send + Unpin + 'static,
            T::Dial: Send + 'static,
            T::ListenerUpgrade: Send + 'static,
            T::Error: Send + Sync,
            M: libp2p::core::StreamMuxer + Send + Unpin + 'static,
            M::Substream: Send + Unpin,
            M::Error: Send + Sync,
        {
            match manager {
                Some(manager) => manager
                    .count(transport)
                    .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                    .boxed(),
                None => transport
                    .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                    .boxed(),
            }
        }
        match self {
            Self::Knock => boxed(
                libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key).unwrap()),
                manager,
            ),
            Self::Noise => boxed(
                tcp::tokio::Transport::new(tcp::Config::default())
                    .upgrade(Version::V1Lazy)
                    .authenticate(noise::Config::new(key).unwrap())
                    .multiplex(yamux::Config::default()),
                manager,
            ),
            Self::Quic => boxed(quic::tokio::Transport::new(quic::Config::new(key)), manager),
        }
    }
}

/// A node that trims.
pub(crate) struct Node {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) manager: Manager,
    pub(crate) address: Multiaddr,
    pub(crate) events: Vec<SwarmEvent<Event>>,
    peers: JoinSet<()>,
    over: Over,
}

impl Node {
    pub(crate) async fn new(over: Over, config: Config, idle: Duration) -> Self {
        let key = Keypair::generate_ed25519();
        let (connmgr, manager) = libp2p_connmgr::new(config);
        let transport = over.transport(&key, Some(&manager));
        let swarm_config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(idle);
        let mut swarm = Swarm::new(transport, connmgr, key.public().to_peer_id(), swarm_config);
        swarm.listen_on(over.listens()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with_p2p(*swarm.local_peer_id()).unwrap();
            }
        };
        Self {
            swarm,
            manager,
            address,
            events: Vec::new(),
            peers: JoinSet::new(),
            over,
        }
    }

    /// A peer on a task of its own that dials this node once, and stays for as long as it is let.
    pub(crate) fn start_peer(&mut self) -> PeerId {
        self.start_peer_with(1)
    }

    /// The same with several connections.
    pub(crate) fn start_peer_with(&mut self, connections: usize) -> PeerId {
        let peer = plain(self.over);
        let id = *peer.local_peer_id();
        self.start(peer, connections);
        id
    }

    /// The same with a Swarm of the test's.
    pub(crate) fn start(&mut self, mut peer: Swarm<dummy::Behaviour>, connections: usize) {
        let (to, address) = (*self.swarm.local_peer_id(), self.address.clone());
        self.peers.spawn(async move {
            for _ in 0..connections {
                let dial = DialOpts::peer_id(to)
                    .condition(PeerCondition::Always)
                    .addresses(vec![address.clone()])
                    .build();
                peer.dial(dial).unwrap();
            }
            loop {
                peer.select_next_some().await;
            }
        });
    }

    /// Starts peers, and waits until they are connected.
    pub(crate) async fn connect(&mut self, peers: usize) -> Vec<PeerId> {
        let before = self.manager.info().connections;
        let ids = (0..peers).map(|_| self.start_peer()).collect();
        self.until(|node| node.manager.info().connections == before + peers)
            .await;
        ids
    }

    /// Drives the Swarm until `is_so`.
    pub(crate) async fn until(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        let over = self.over;
        let wait = async {
            while !is_so(self) {
                let event = self.swarm.select_next_some().await;
                self.events.push(event);
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("not so within {PATIENCE:?} over {over:?}: {:?}", self.manager.info());
        }
    }

    /// Drives the Swarm until the future is ready.
    pub(crate) async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = Box::pin(future);
        let drive = async {
            loop {
                tokio::select! {
                    output = &mut future => return output,
                    event = self.swarm.select_next_some() => self.events.push(event),
                }
            }
        };
        tokio::time::timeout(PATIENCE, drive).await.expect("it ends in time")
    }

    pub(crate) async fn trim(&mut self) -> libp2p_connmgr::Trimmed {
        let trimming = self.manager.trim_open_conns();
        self.drive(trimming).await.unwrap()
    }

    /// Takes up what has happened already.
    pub(crate) fn catch_up(&mut self) {
        while let Some(Some(event)) = self.swarm.next().now_or_never() {
            self.events.push(event);
        }
    }

    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        self.swarm.is_connected(peer)
    }

    /// What the manager has said.
    pub(crate) fn reports(&self) -> Vec<Event> {
        let of = |event: &SwarmEvent<Event>| match event {
            SwarmEvent::Behaviour(event) => Some(event.clone()),
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }
}

/// A peer without a manager, that ends no connection by itself.
pub(crate) fn plain(over: Over) -> Swarm<dummy::Behaviour> {
    let key = Keypair::generate_ed25519();
    let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(LONG);
    let transport = over.transport(&key, None);
    Swarm::new(transport, dummy::Behaviour, key.public().to_peer_id(), config)
}
