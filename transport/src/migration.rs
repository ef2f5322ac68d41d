//! Two transports in one while a network moves from the one to the other.

mod dials;
mod metrics;
mod muxer;

use crate::address::is_knock_address;
use dials::{Lost, Peers, Round};
use futures::future::{BoxFuture, Either, FutureExt as _, TryFutureExt as _};
use libp2p_core::multiaddr::Protocol;
use libp2p_core::muxing::StreamMuxer;
use libp2p_core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p_core::{Endpoint, Multiaddr, Transport};
use libp2p_identity::PeerId;
use metrics::{Direction, World, Worlds};
pub use muxer::MigrationMuxer;
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The default of [`Migration::with_head_start`].
const HEAD_START: Duration = Duration::from_secs(3);

/// Which connections a [`Migration`] makes and takes. Written as `stock`, `prefer` or `require`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MigrationStage {
    /// The stock transport alone, as if the knock were not there: before, and the way back.
    Stock,
    /// Both. A peer is reached by knock where it has such an address and answers there, else by the stock transport.
    /// Neither silent to strangers nor safe from a downgrade.
    Prefer,
    /// The knock alone, as if the stock transport were not there.
    Require,
}

impl MigrationStage {
    /// Whether the stage dials `address`, and listens on it.
    pub fn admits(self, address: &Multiaddr) -> bool {
        match self {
            Self::Stock => !is_knock_address(address),
            Self::Prefer => true,
            Self::Require => is_knock_address(address),
        }
    }
}

impl fmt::Display for MigrationStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stock => "stock",
            Self::Prefer => "prefer",
            Self::Require => "require",
        })
    }
}

/// A word that is no [`MigrationStage`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown stage `{0}`: expected `stock`, `prefer` or `require`")]
pub struct UnknownStage(String);

impl FromStr for MigrationStage {
    type Err = UnknownStage;

    fn from_str(word: &str) -> Result<Self, UnknownStage> {
        let stages = [Self::Stock, Self::Prefer, Self::Require];
        let found = stages.into_iter().find(|stage| stage.to_string() == word);
        found.ok_or_else(|| UnknownStage(word.to_owned()))
    }
}

/// Why a dial or a listener of a [`Migration`] failed. The errors of both transports show as they are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError<S, K> {
    /// The stock transport's.
    #[error(transparent)]
    Stock(S),
    /// The knock's.
    #[error(transparent)]
    Knock(K),
    /// A stock dial was given up, because a knock at the same peer has succeeded.
    #[error("given up for a knock at the same peer, which has succeeded")]
    Displaced,
    /// A knock had its head start without an answer, and libp2p would not have polled a stock dial otherwise.
    #[error("no answer within the head start, and the stock addresses of the peer wait")]
    GaveWay,
}

impl<S, K> MigrationError<S, K> {
    fn lost<E>(lost: Lost<E>, failed: impl FnOnce(E) -> Self) -> Self {
        match lost {
            Lost::Failed(error) => failed(error),
            Lost::Displaced => Self::Displaced,
            Lost::GaveWay => Self::GaveWay,
        }
    }
}

/// A stock transport and the knock in one, while a network moves.
///
/// `stock` is any transport with a muxer: TCP with Noise and yamux, QUIC beside it by `or_transport`. `knock` is one
/// of this crate, or any that dials the addresses of [`is_knock_address`]. Each of them, and the whole, may have
/// wrappers around it: a gate's, a connection manager's.
///
/// ```
/// use libp2p::core::upgrade::Version;
/// use libp2p::{SwarmBuilder, Transport as _, noise, ping, tcp, yamux};
/// use libp2p_knock::{Config, Migration, MigrationStage};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keypair = libp2p::identity::Keypair::generate_ed25519();
/// let stage: MigrationStage = "prefer".parse()?; // from the command line
/// let swarm = SwarmBuilder::with_existing_identity(keypair)
///     .with_tokio()
///     .with_other_transport(|key| {
///         let stock = tcp::tokio::Transport::new(tcp::Config::default())
///             .upgrade(Version::V1Lazy)
///             .authenticate(noise::Config::new(key)?)
///             .multiplex(yamux::Config::default());
///         Ok(Migration::new(stage, stock, libp2p_knock::tokio::Transport::new(Config::new(key)?)))
///     })?
///     .with_behaviour(|_| ping::Behaviour::default())?
///     .build();
/// # let _ = swarm; Ok(()) }
/// ```
///
/// An address goes to the transport whose it is. One that the stage does not admit is `MultiaddrNotSupported`, in a
/// dial and in a `listen_on`, whichever behaviour has found it.
///
/// # Dials
///
/// At [`MigrationStage::Prefer`] a stock dial waits for the knocks at the same peer, at most for the
/// [head start](Self::with_head_start). It goes when all of them have failed or the head start is over. It ends with
/// [`MigrationError::Displaced`], or is dropped by libp2p, when one has succeeded. If code around the knock, such as a
/// gate, goes on with its connection, the stock dial waits one second more.
///
/// This holds for the addresses of one `Swarm::dial` in any order and number, although libp2p polls eight dials at a
/// time unless told otherwise. The head start begins when libp2p polls the first of them. A knock behind the first
/// eight addresses is driven by the stock dials before it, and gets the place of one of them when it has succeeded.
/// Stock dials drive eight such knocks at once, in order.
///
/// A stock dial behind eight knocks or more gets its place from knocks that fail with [`MigrationError::GaveWay`], one
/// after the other, once the head start is over. That takes up to 0.3 s more behind 12 knocks without an answer, 1 s
/// behind 25, and 3 s behind 250.
///
/// A transport around this one that dials when it is polled, as libp2p's DNS does, shows only the dials that libp2p
/// polls. Set `libp2p::swarm::Config::with_dial_concurrency_factor` to as many addresses as a peer may have then. A
/// knock whose name takes longer to look up than a stock connection takes to be made comes too late.
///
/// An address without a peer id at its end is dialled at once.
///
/// Dropping a dial is safe at any point. [`Authenticated`](crate::Authenticated) says what becomes of a knock.
pub struct Migration<S, K> {
    stage: MigrationStage,
    stock: S,
    knock: K,
    head_start: Duration,
    peers: Peers,
    /// The round that the next dial may belong to.
    open: Option<Open>,
    /// Whose turn it is to be polled first.
    stock_first: bool,
    worlds: Worlds,
}

struct Open {
    peer: PeerId,
    role: Endpoint,
    port_use: PortUse,
    round: Arc<Round>,
}

impl<S, K> Migration<S, K> {
    /// Both transports, as `stage` allows.
    pub fn new(stage: MigrationStage, stock: S, knock: K) -> Self {
        Self {
            stage,
            stock,
            knock,
            head_start: HEAD_START,
            peers: Peers::default(),
            open: None,
            stock_first: false,
            worlds: Worlds::none(),
        }
    }

    /// How long a stock dial waits for the knocks at its peer. Default 3 s.
    ///
    /// A knock needs two round trips. A knock that is dropped on the way costs a dial this time. libp2p ends a dial
    /// after 10 s, so what is left of these is for the stock transport. Zero lets both race.
    ///
    /// `libp2p::swarm::Config::with_smart_dial` polls all addresses without a limit, some of them 30 ms to a second or more
    /// after the first. A head start has to be longer than that. With a shorter one, or none, a knock fails with
    /// [`MigrationError::GaveWay`] while all stock dials are held back. This holds for a wrapper that holds dials back too.
    /// No knock fails so within 50 ms after libp2p has polled it.
    pub fn with_head_start(mut self, head_start: Duration) -> Self {
        self.head_start = head_start;
        self
    }

    /// Counts connections in `registry` by `world` (`stock`, `knock`) and `direction` (`inbound`, `outbound`):
    /// `libp2p_knock_migration_connections` are open, and `libp2p_knock_migration_established_total` were made. Every
    /// value is there from the start. When the transport is dropped they leave the scrape, and the
    /// registry takes the next `Migration`.
    ///
    /// # Errors
    ///
    /// [`AlreadyRegistered`](crate::AlreadyRegistered) if the registry has one of the names: another
    /// `Migration` needs another registry, or a sub-registry with a prefix. To find that out the
    /// registry is rendered once, which calls its collectors. A collector that describes nothing
    /// stays in it, also after an error.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn with_metrics(
        mut self,
        registry: &mut prometheus_client::registry::Registry,
    ) -> Result<Self, crate::AlreadyRegistered> {
        self.worlds = Worlds::register(registry)?;
        Ok(self)
    }

    /// The round of a dial at `peer`.
    fn round(&mut self, peer: PeerId, opts: DialOpts) -> Arc<Round> {
        let open = self.open.take().filter(|open| {
            let same = (open.peer, open.role, open.port_use) == (peer, opts.role, opts.port_use);
            same && !open.round.has_begun()
        });
        let open = open.unwrap_or_else(|| Open {
            peer,
            role: opts.role,
            port_use: opts.port_use,
            round: self.peers.round(),
        });
        let round = open.round.clone();
        self.open = Some(open);
        round
    }
}

impl<S, K> fmt::Debug for Migration<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration")
            .field("stage", &self.stage)
            .field("head_start", &self.head_start)
            .finish_non_exhaustive()
    }
}

type Connecting<SM, KM, SE, KE> = BoxFuture<'static, Result<(PeerId, MigrationMuxer<SM, KM>), MigrationError<SE, KE>>>;

impl<S, K, SM, KM> Transport for Migration<S, K>
where
    S: Transport<Output = (PeerId, SM)> + Unpin,
    S::Dial: Send + 'static,
    S::ListenerUpgrade: Send + 'static,
    S::Error: Send + 'static,
    SM: StreamMuxer + Send + 'static,
    K: Transport<Output = (PeerId, KM)> + Unpin,
    K::Dial: Send + 'static,
    K::ListenerUpgrade: Send + 'static,
    K::Error: Send + 'static,
    KM: StreamMuxer + Send + 'static,
{
    type Output = (PeerId, MigrationMuxer<SM, KM>);
    type Error = MigrationError<S::Error, K::Error>;
    type ListenerUpgrade = Connecting<SM, KM, S::Error, K::Error>;
    type Dial = Connecting<SM, KM, S::Error, K::Error>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        if !self.stage.admits(&address) {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        if is_knock_address(&address) {
            self.knock
                .listen_on(id, address)
                .map_err(|e| e.map(MigrationError::Knock))
        } else {
            self.stock
                .listen_on(id, address)
                .map_err(|e| e.map(MigrationError::Stock))
        }
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.knock.remove_listener(id) || self.stock.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        // Behaviours dial too, whatever address they have heard of.
        if !self.stage.admits(&address) {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        let peer = match address.iter().last() {
            Some(Protocol::P2p(peer)) if self.stage == MigrationStage::Prefer => Some(peer),
            _ => None,
        };
        let worlds = self.worlds.counting();
        let head_start = self.head_start;
        if is_knock_address(&address) {
            let dial = self
                .knock
                .dial(address, opts)
                .map_err(|e| e.map(MigrationError::Knock))?;
            let joined = move |(peer, muxer)| {
                let open = worlds.open(World::Knock, Direction::Outbound);
                (peer, MigrationMuxer::new(Either::Right(muxer), open))
            };
            let Some(peer) = peer else {
                return Ok(dial.map_ok(joined).map_err(MigrationError::Knock).boxed());
            };
            let round = self.round(peer, opts);
            let knock = self.peers.knock(peer, &round, head_start, dial);
            let done = knock.run().map_ok(joined);
            return Ok(done
                .map_err(|lost| MigrationError::lost(lost, MigrationError::Knock))
                .boxed());
        }
        let dial = self
            .stock
            .dial(address, opts)
            .map_err(|e| e.map(MigrationError::Stock))?;
        let joined = move |(peer, muxer)| {
            let open = worlds.open(World::Stock, Direction::Outbound);
            (peer, MigrationMuxer::new(Either::Left(muxer), open))
        };
        let Some(peer) = peer else {
            return Ok(dial.map_ok(joined).map_err(MigrationError::Stock).boxed());
        };
        let round = self.round(peer, opts);
        let stock = self.peers.stock(peer, &round, head_start);
        let done = stock.run(dial).map_ok(joined);
        Ok(done
            .map_err(|lost| MigrationError::lost(lost, MigrationError::Stock))
            .boxed())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let this = self.get_mut();
        this.open = None;
        // In turn, so that a flood in one world does not starve the other.
        this.stock_first = !this.stock_first;
        for stock in [this.stock_first, !this.stock_first] {
            let worlds = this.worlds.counting();
            if stock && let Poll::Ready(event) = Pin::new(&mut this.stock).poll(cx) {
                let event = event.map_err(MigrationError::Stock);
                return Poll::Ready(event.map_upgrade(|upgrade| {
                    let joined = move |(peer, muxer)| {
                        let open = worlds.open(World::Stock, Direction::Inbound);
                        (peer, MigrationMuxer::new(Either::Left(muxer), open))
                    };
                    upgrade.map_ok(joined).map_err(MigrationError::Stock).boxed()
                }));
            } else if !stock && let Poll::Ready(event) = Pin::new(&mut this.knock).poll(cx) {
                let event = event.map_err(MigrationError::Knock);
                return Poll::Ready(event.map_upgrade(|upgrade| {
                    let joined = move |(peer, muxer)| {
                        let open = worlds.open(World::Knock, Direction::Inbound);
                        (peer, MigrationMuxer::new(Either::Right(muxer), open))
                    };
                    upgrade.map_ok(joined).map_err(MigrationError::Knock).boxed()
                }));
            }
        }
        Poll::Pending
    }
}
