//! TCP with Fast Open (RFC 7413): the first flight travels in the SYN, which saves one round trip.
//!
//! `libp2p-tcp` opens its sockets out of reach, so this is a TCP transport of its own: addresses, port reuse and
//! interface changes behave as there.

use crate::timer::Deadline;
use futures::future::{BoxFuture, FutureExt as _, Ready, ready};
use futures::stream::StreamExt as _;
use if_watch::{IfEvent, tokio::IfWatcher};
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p_core::{Endpoint, Multiaddr, Transport};
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tfo::{TfoListener, TfoStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

/// How long a listener rests after `accept` has failed, which is mostly for want of descriptors.
const REST: Duration = Duration::from_millis(100);

/// TCP with Fast Open, as the inner transport of [`Transport`](crate::Transport) or
/// [`Authenticated`](crate::Authenticated):
///
/// ```no_run
/// # fn main() -> Result<(), libp2p_knock::ConfigError> {
/// # let key = libp2p_identity::Keypair::generate_ed25519();
/// let config = libp2p_knock::Config::new(&key)?;
/// let transport = libp2p_knock::Transport::new(libp2p_knock::tokio::FastOpen::default(), config)
///     .with_executor(|task| drop(tokio::spawn(task)));
/// # let _ = transport; Ok(()) }
/// ```
///
/// Without the executor, which [`tokio::Transport`](super::Transport) has of itself, knocks are judged only while the
/// Swarm polls the transport, and a busy Swarm keeps dialers waiting.
///
/// **What it needs.** Linux on both ends, and on the listener's `sysctl net.ipv4.tcp_fastopen=3` (the usual value, 1,
/// lets a host dial this way and not be dialled). The first dial to a host fetches a cookie and saves nothing, later
/// ones carry the first flight in the SYN. Where anything of that is missing, connections are ordinary TCP ones.
///
/// **What fits.** A knock and a ClientHello with X25519 alone fit a SYN; with X25519MLKEM768 they are some 1.5 kB and do
/// not at an MTU of 1,500, so the rest follows one round trip later, as without Fast Open. See
/// [`Config::with_key_exchange`](crate::Config::with_key_exchange).
///
/// **What it costs**, and why it is off unless asked for: a listener that hands out cookies is told from one that does
/// not, by its SYN-ACK; a SYN's data may be delivered twice, which for a knock and a ClientHello costs a TLS flight and
/// is otherwise harmless; some middleboxes drop such a SYN, and the kernel then tries again without; and a failed
/// connect may show only when the knock is written, at stage TLS instead of at stage inner.
///
/// In the listener's part of a hole punch it connects in the ordinary way: a SYN that waits for data would never leave.
///
/// Needs a tokio runtime around `listen_on` and the dials, as `libp2p-tcp`'s does.
#[derive(Debug, Default)]
pub struct FastOpen {
    listeners: VecDeque<Listener>,
    /// Those that were removed, and whose end is still to be said.
    removed: VecDeque<ListenerId>,
    /// To be woken when a listener comes or goes.
    waker: Option<Waker>,
}

/// The stream of [`FastOpen`].
pub type FastOpenStream = Compat<TfoStream>;

struct Listener {
    id: ListenerId,
    bound: SocketAddr,
    socket: TcpListener,
    /// For a wildcard address: which addresses that means today.
    interfaces: Option<IfWatcher>,
    /// Where it can be reached, and so where dials may come from.
    reachable: Vec<IpAddr>,
    /// Whether its one address, which is no wildcard, is still to be announced.
    unannounced: bool,
    resting: Option<Deadline>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("id", &self.id)
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

type Event = TransportEvent<Ready<io::Result<FastOpenStream>>, io::Error>;

impl Transport for FastOpen {
    type Output = FastOpenStream;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<FastOpenStream>>;
    type Dial = BoxFuture<'static, io::Result<FastOpenStream>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let Some(socket) = super::socket_addr(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if super::in_use(socket) {
            return Err(TransportError::Other(io::ErrorKind::AddrInUse.into()));
        }
        let listener = Listener::new(id, socket).map_err(TransportError::Other)?;
        self.listeners.push_back(listener);
        self.wake();
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let Some(at) = self.listeners.iter().position(|listener| listener.id == id) else {
            return false;
        };
        // Its socket closes here, and its address is free.
        drop(self.listeners.remove(at));
        self.removed.push_back(id);
        self.wake();
        true
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let remote = super::socket_addr(&address).filter(|to| to.port() != 0 && !to.ip().is_unspecified());
        let Some(remote) = remote else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let local = match opts.port_use {
            PortUse::Reuse => self.local_for(remote.ip()),
            _ => None,
        };
        let fast = opts.role == Endpoint::Dialer;
        Ok(async move {
            match connect(remote, local, fast).await {
                // The pair of addresses is taken: there is a connection already.
                Err(error) if local.is_some() && error.kind() == io::ErrorKind::AddrNotAvailable => {
                    connect(remote, None, fast).await
                }
                done => done,
            }
        }
        .boxed())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        let this = self.get_mut();
        this.waker = Some(cx.waker().clone());
        if let Some(listener_id) = this.removed.pop_front() {
            return Poll::Ready(TransportEvent::ListenerClosed {
                listener_id,
                reason: Ok(()),
            });
        }
        for _ in 0..this.listeners.len() {
            // Whoever had something to say goes to the end of the queue.
            let Some(mut listener) = this.listeners.pop_front() else {
                break;
            };
            let event = listener.poll(cx);
            this.listeners.push_back(listener);
            if event.is_ready() {
                return event;
            }
        }
        Poll::Pending
    }
}

impl FastOpen {
    /// The address to dial `remote` from so that the port is a listener's: of the same family, and on the loopback if
    /// and only if the remote is.
    fn local_for(&self, remote: IpAddr) -> Option<SocketAddr> {
        let fits = |ip: &IpAddr| ip.is_ipv4() == remote.is_ipv4() && ip.is_loopback() == remote.is_loopback();
        let listener = self
            .listeners
            .iter()
            .find(|listener| listener.reachable.iter().any(fits))?;
        Some(SocketAddr::new(unspecified(remote), listener.bound.port()))
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Listener {
    fn new(id: ListenerId, address: SocketAddr) -> io::Result<Self> {
        let socket = new_socket(address, true)?;
        socket.bind(&address.into())?;
        socket.listen(super::BACKLOG.cast_signed())?;
        let socket: std::net::TcpListener = socket.into();
        // The option belongs to the socket and not to the descriptor, so a copy of that will do.
        if let Err(error) = TfoListener::from_std(socket.try_clone()?) {
            tracing::debug!(%address, %error, "listening without TCP Fast Open");
        }
        let bound = socket.local_addr()?;
        let wildcard = bound.ip().is_unspecified();
        Ok(Self {
            id,
            bound,
            socket: TcpListener::from_std(socket)?,
            interfaces: wildcard.then(IfWatcher::new).transpose()?,
            reachable: if wildcard { Vec::new() } else { vec![bound.ip()] },
            unannounced: !wildcard,
            resting: None,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let listener_id = self.id;
        if std::mem::take(&mut self.unannounced) {
            return Poll::Ready(TransportEvent::NewAddress {
                listener_id,
                listen_addr: multiaddr(self.bound),
            });
        }
        if let Some(resting) = &mut self.resting {
            futures::ready!(resting.poll_unpin(cx));
            self.resting = None;
        }
        while let Some(Poll::Ready(Some(change))) = self.interfaces.as_mut().map(|watcher| watcher.poll_next_unpin(cx))
        {
            if let Some(event) = self.changed(change) {
                return Poll::Ready(event);
            }
        }
        let accepted = futures::ready!(self.socket.poll_accept(cx));
        Poll::Ready(match accepted.and_then(prepared) {
            Ok((stream, local, remote)) => TransportEvent::Incoming {
                listener_id,
                upgrade: ready(Ok(stream)),
                local_addr: multiaddr(local),
                send_back_addr: multiaddr(remote),
            },
            Err(error) => self.failed(error),
        })
    }

    /// What a change of the interfaces means to whoever listens on all of them.
    fn changed(&mut self, change: io::Result<IfEvent>) -> Option<Event> {
        let (listener_id, port) = (self.id, self.bound.port());
        let ours = |ip: IpAddr, bound: SocketAddr| ip.is_ipv4() == bound.is_ipv4();
        match change {
            Ok(IfEvent::Up(net)) if ours(net.addr(), self.bound) => {
                self.reachable.push(net.addr());
                Some(TransportEvent::NewAddress {
                    listener_id,
                    listen_addr: multiaddr(SocketAddr::new(net.addr(), port)),
                })
            }
            Ok(IfEvent::Down(net)) if ours(net.addr(), self.bound) => {
                self.reachable.retain(|ip| *ip != net.addr());
                Some(TransportEvent::AddressExpired {
                    listener_id,
                    listen_addr: multiaddr(SocketAddr::new(net.addr(), port)),
                })
            }
            Ok(_) => None,
            Err(error) => Some(self.failed(error)),
        }
    }

    /// An error that the listener survives.
    fn failed(&mut self, error: io::Error) -> Event {
        self.resting = Some(Deadline::after(REST));
        TransportEvent::ListenerError {
            listener_id: self.id,
            error,
        }
    }
}

fn prepared((stream, remote): (TcpStream, SocketAddr)) -> io::Result<(FastOpenStream, SocketAddr, SocketAddr)> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    Ok((TfoStream::from(stream).compat(), local, remote))
}

async fn connect(remote: SocketAddr, local: Option<SocketAddr>, fast: bool) -> io::Result<FastOpenStream> {
    let socket = || {
        let socket = new_socket(remote, local.is_some())?;
        if let Some(local) = local {
            socket.bind(&local.into())?;
        }
        Ok::<_, io::Error>(TcpSocket::from_std_stream(socket.into()))
    };
    if fast {
        match TfoStream::connect_with_socket(socket()?, remote).await {
            // A kernel, or a sandbox, that does not know the option.
            Err(error) if is_unsupported(&error) => {}
            done => return done.map(|stream| stream.compat()),
        }
    }
    let stream = socket()?.connect(remote).await?;
    Ok(TfoStream::from(stream).compat())
}

fn is_unsupported(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    // ENOPROTOOPT has no kind of its own.
    const ENOPROTOOPT: i32 = 92;
    matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported) || error.raw_os_error() == Some(ENOPROTOOPT)
}

/// A socket as `libp2p-tcp` makes it by default.
fn new_socket(address: SocketAddr, share_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    if share_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn unspecified(family_of: IpAddr) -> IpAddr {
    match family_of {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::empty()
        .with(address.ip().into())
        .with(Protocol::Tcp(address.port()))
}
