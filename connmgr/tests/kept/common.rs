//! A node that promises, and a Swarm that has promised nothing.

use futures::StreamExt as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent, dummy};
use libp2p::{Multiaddr, PeerId, Transport as _, noise, quic, tcp, yamux};
use libp2p_connmgr::{Config, KeepAlive, Manager, PersistentPeers, persistent};
use std::future::Future;
use std::time::Duration;

/// Far more than anything here takes, for machines that are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

type Stack = Boxed<(PeerId, StreamMuxerBox)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Knock,
    Noise,
    Quic,
}

pub(crate) const ALL: [Over; 3] = [Over::Knock, Over::Noise, Over::Quic];

impl Over {
    fn listens(self) -> Multiaddr {
        match self {
            Self::Knock => "/ip4/127.0.0.1/tcp/0/tls",
            Self::Noise => "/ip4/127.0.0.1/tcp/0",
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        }
        .parse()
        .unwrap()
    }

    fn transport(self, key: &Keypair) -> Stack {
        match self {
            Self::Knock => libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key).unwrap())
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                .boxed(),
            Self::Noise => tcp::tokio::Transport::new(tcp::Config::default())
                .upgrade(Version::V1Lazy)
                .authenticate(noise::Config::new(key).unwrap())
                .multiplex(yamux::Config::default())
                .boxed(),
            Self::Quic => quic::tokio::Transport::new(quic::Config::new(key))
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                .boxed(),
        }
    }
}

/// A Swarm, where it listens, and how many of its connections have ended.
pub(crate) struct Running<B: NetworkBehaviour> {
    pub(crate) swarm: Swarm<B>,
    pub(crate) address: Multiaddr,
    pub(crate) lost: usize,
}

impl<B: NetworkBehaviour> Running<B> {
    async fn new(over: Over, behaviour: B, key: &Keypair, config: swarm::Config) -> Self {
        Self::with(over.transport(key), over, behaviour, key, config).await
    }

    async fn with(stack: Stack, over: Over, behaviour: B, key: &Keypair, config: swarm::Config) -> Self {
        let mut swarm = Swarm::new(stack, behaviour, key.public().to_peer_id(), config);
        swarm.listen_on(over.listens()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        Self {
            swarm,
            address,
            lost: 0,
        }
    }

    pub(crate) fn dial(&mut self, peer: PeerId, address: &Multiaddr) {
        let opts = DialOpts::peer_id(peer).addresses(vec![address.clone()]);
        self.swarm.dial(opts.build()).unwrap();
    }

    async fn step(&mut self) {
        if let SwarmEvent::ConnectionClosed { .. } = self.swarm.select_next_some().await {
            self.lost += 1;
        }
    }

    /// Drives the Swarm until `is_so`.
    pub(crate) async fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                self.step().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("in time");
    }

    pub(crate) async fn run_for(&mut self, time: Duration) {
        let forever = async {
            loop {
                self.step().await;
            }
        };
        let _ = tokio::time::timeout(time, forever).await;
    }

    /// Runs by itself from now on.
    pub(crate) fn run(mut self) -> tokio::task::JoinHandle<()>
    where
        B: NetworkBehaviour<ToSwarm: Send> + Send,
    {
        tokio::spawn(async move {
            loop {
                self.step().await;
            }
        })
    }

    /// Drives the Swarm while `other` runs.
    pub(crate) async fn beside<F: Future>(&mut self, other: F) -> F::Output {
        tokio::pin!(other);
        loop {
            tokio::select! {
                output = &mut other => return output,
                () = self.step() => {}
            }
        }
    }
}

#[derive(NetworkBehaviour)]
pub(crate) struct Promising {
    pub(crate) connmgr: libp2p_connmgr::Behaviour,
    pub(crate) persistent: PersistentPeers,
}

/// A node with a manager and wanted peers.
pub(crate) struct Node {
    pub(crate) running: Running<Promising>,
    pub(crate) manager: Manager,
}

impl std::ops::Deref for Node {
    type Target = Running<Promising>;

    fn deref(&self) -> &Self::Target {
        &self.running
    }
}

impl std::ops::DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.running
    }
}

impl Node {
    pub(crate) async fn new(over: Over, keep_alive: KeepAlive) -> Self {
        let manager = Config::disabled().with_keep_alive(keep_alive);
        Self::with(over, manager, persistent::Config::new(), |config| config).await
    }

    pub(crate) async fn with(
        over: Over,
        manager: Config,
        persistent: persistent::Config,
        swarm: impl FnOnce(swarm::Config) -> swarm::Config,
    ) -> Self {
        let key = Keypair::generate_ed25519();
        let (connmgr, manager) = libp2p_connmgr::new(manager);
        let persistent = PersistentPeers::new(key.public().to_peer_id(), persistent);
        let behaviour = Promising { connmgr, persistent };
        let config = swarm(swarm::Config::with_tokio_executor());
        let counted = manager
            .count(over.transport(&key))
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
        let running = Running::with(counted.boxed(), over, behaviour, &key, config).await;
        Self { running, manager }
    }
}

/// A Swarm as libp2p makes it.
pub(crate) async fn stock(over: Over) -> Running<dummy::Behaviour> {
    stock_with(over, |config| config).await
}

pub(crate) async fn stock_with(
    over: Over,
    config: impl FnOnce(swarm::Config) -> swarm::Config,
) -> Running<dummy::Behaviour> {
    let key = Keypair::generate_ed25519();
    let config = config(swarm::Config::with_tokio_executor());
    Running::new(over, dummy::Behaviour, &key, config).await
}

/// One with a manager only.
pub(crate) async fn managed(over: Over, keep_alive: KeepAlive, idle: Duration) -> Running<libp2p_connmgr::Behaviour> {
    let key = Keypair::generate_ed25519();
    let (connmgr, _) = libp2p_connmgr::new(Config::disabled().with_keep_alive(keep_alive));
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(idle);
    Running::new(over, connmgr, &key, config).await
}
