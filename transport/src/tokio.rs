//! The ready-made stack: knock, TLS and yamux over `libp2p-tcp` on tokio.

use crate::address;
use crate::config::Config;
use crate::error::{Error, Failure, Stage};
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

#[cfg(all(feature = "fast-open", target_os = "linux"))]
mod fast_open;

#[cfg(all(feature = "fast-open", target_os = "linux"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "fast-open", target_os = "linux"))))]
pub use fast_open::{FastOpen, FastOpenStream};

/// Linux allows no more by default.
const BACKLOG: u32 = 4096;

type Inner = crate::Transport<libp2p_tcp::tokio::Transport>;

/// Knock, TLS and yamux over TCP. Addresses: `/ip4/…/tcp/N/tls`, `/ip6/…/tcp/N/tls`, with `/p2p/<peer>` behind it in a
/// dial; `/dns…/tcp/N/tls/p2p/<peer>` when a DNS transport stands in front, as `SwarmBuilder::with_dns` puts it.
///
/// Dials come from the port of a listener of this transport when the dial asks for it (`PortUse::Reuse`, libp2p's
/// default) and there is one, as in `libp2p-tcp`.
///
/// ```
/// # async fn run(keypair: libp2p::identity::Keypair, peer: libp2p::PeerId) -> Result<(), Box<dyn std::error::Error>> {
/// # use libp2p::{Multiaddr, ping};
/// # let behaviour = ping::Behaviour::default();
/// let mut swarm = libp2p::SwarmBuilder::with_existing_identity(keypair)
///     .with_tokio()
///     .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)))?
///     .with_dns()? // needed for /dns addresses
///     .with_behaviour(|_| behaviour)?
///     .build();
/// swarm.listen_on("/ip4/0.0.0.0/tcp/4001/tls".parse()?)?;
/// swarm.dial(format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{peer}").parse::<Multiaddr>()?)?;
/// # Ok(()) }
/// ```
///
/// The listening side runs on a task of its own, from the first [`listen_on`](libp2p_core::Transport::listen_on) on,
/// which has to be called inside a tokio runtime, as that of `libp2p-tcp` has. How busy the Swarm is does not show in
/// how strangers are treated.
///
/// **One port, one transport.** libp2p opens listeners with `SO_REUSEPORT`: a stock TCP listener on
/// the same port would not fail, it would take a share of the connections.
/// [`listen_on`](libp2p_core::Transport::listen_on) refuses a port that somebody listens on already
/// ([`Error::PortInUse`]); it cannot see one that comes later.
///
/// A port is free again as soon as [`remove_listener`](libp2p_core::Transport::remove_listener) has
/// returned, or the transport is dropped.
#[derive(Debug)]
pub struct Transport {
    inner: Inner,
    /// Of the last `listen_on`. Accepted sockets can be made inside it alone.
    runtime: Option<tokio::runtime::Handle>,
    listeners: HashMap<ListenerId, Listener>,
}

/// A listener that has not been said to be closed.
#[derive(Debug)]
struct Listener {
    port: u16,
    /// It was removed, and `libp2p-tcp` still has its socket: for a tenth of a second after an
    /// error it lets none go.
    leaving: bool,
}

impl Transport {
    /// The stack that `config` describes, over TCP as `libp2p-tcp` sets it up by default, but for the queue of
    /// connections that nobody has accepted yet: it holds 4096, or as many as the system allows. In a flood a shorter one
    /// is full as soon as the listener is kept from running for some hundredths of a second, and whoever comes then
    /// waits for a second.
    pub fn new(config: Config) -> Self {
        Self::with_tcp(libp2p_tcp::Config::default().listen_backlog(BACKLOG), config)
    }

    /// The same over TCP as `tcp` says.
    pub fn with_tcp(tcp: libp2p_tcp::Config, config: Config) -> Self {
        let inner = Inner::new(libp2p_tcp::tokio::Transport::new(tcp), config);
        Self {
            inner: inner.with_executor(|task| drop(tokio::spawn(task))),
            runtime: None,
            listeners: HashMap::new(),
        }
    }

    /// Whether the only listeners of ours at this port are about to leave it. Its place can be
    /// taken before they have: `libp2p-tcp` shares ports.
    fn is_being_left(&self, port: u16) -> bool {
        let mut ours = self
            .listeners
            .values()
            .filter(|listener| listener.port == port)
            .peekable();
        ours.peek().is_some() && ours.all(|listener| listener.leaving)
    }
}

impl libp2p_core::Transport for Transport {
    type Output = <Inner as libp2p_core::Transport>::Output;
    type Error = Failure;
    type ListenerUpgrade = <Inner as libp2p_core::Transport>::ListenerUpgrade;
    type Dial = <Inner as libp2p_core::Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Failure>> {
        let socket = address::parse(&address).and_then(|marked| socket_addr(&marked.inner));
        if let Some(socket) = socket
            && in_use(socket)
            && !self.is_being_left(socket.port())
        {
            return Err(TransportError::Other(Error::PortInUse { address }.at(Stage::Address)));
        }
        self.inner.listen_on(id, address)?;
        self.runtime = tokio::runtime::Handle::try_current().ok();
        let port = socket.map_or(0, |socket| socket.port());
        self.listeners.insert(id, Listener { port, leaving: false });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        if !self.inner.remove_listener(id) {
            return false;
        }
        let _runtime = self.runtime.as_ref().map(tokio::runtime::Handle::enter);
        if self.inner.settle(id) {
            self.listeners.remove(&id);
        } else if let Some(listener) = self.listeners.get_mut(&id) {
            listener.leaving = true;
        }
        true
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Failure>> {
        self.inner.dial(address, opts)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let this = self.get_mut();
        let event = ready!(Pin::new(&mut this.inner).poll(cx));
        match &event {
            TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            } => {
                // Any was asked for, and this is the one that it has become.
                let port = listen_addr.iter().find_map(|part| match part {
                    Protocol::Tcp(port) => Some(port),
                    _ => None,
                });
                if let (Some(listener), Some(port)) = (this.listeners.get_mut(listener_id), port) {
                    listener.port = port;
                }
            }
            TransportEvent::ListenerClosed { listener_id, .. } => drop(this.listeners.remove(listener_id)),
            _ => {}
        }
        Poll::Ready(event)
    }
}

fn socket_addr(address: &Multiaddr) -> Option<SocketAddr> {
    let mut protocols = address.iter();
    let ip: IpAddr = match protocols.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let Protocol::Tcp(port) = protocols.next()? else {
        return None;
    };
    // Whatever else follows makes it another transport's: a relay's, a WebSocket.
    let ours = protocols.all(|protocol| matches!(protocol, Protocol::P2p(_)));
    ours.then_some(SocketAddr::new(ip, port))
}

/// Whether somebody listens at `address`: a socket that does not ask to share a port cannot be bound to one that is
/// listened on. Every other failure is left for the listener itself to report.
fn in_use(address: SocketAddr) -> bool {
    if address.port() == 0 {
        return false;
    }
    let probe = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            // As libp2p-tcp does, or the probe would collide with a listener on IPv4.
            socket.set_only_v6(true)?;
        }
        // Connections of an earlier listener that linger in TIME_WAIT are no reason to refuse. On Windows the same
        // option would let the probe steal the port, and is not needed.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    matches!(probe(), Err(error) if error.kind() == io::ErrorKind::AddrInUse)
}
