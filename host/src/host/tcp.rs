//! TCP for a host: dials as `libp2p-tcp` does, and listens on ports that it shares with no other
//! socket.
//!
//! `libp2p-tcp` listens with `SO_REUSEPORT`, so that a dial may come from the port of a listener.
//! Two programs that both do would each get a share of the callers, and no look at the port before
//! can exclude that both look first. A host dials from any port: without the option the kernel
//! refuses the second socket, whichever it is.

use crate::counters::HostCounters;
use crate::meter::Metered;
use crate::peers::lock;
use futures::future::{BoxFuture, FutureExt as _, Ready, ready};
use futures::stream::StreamExt as _;
use futures_timer::Delay;
use if_watch::{IfEvent, tokio::IfWatcher};
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p_core::{Multiaddr, Transport};
use libp2p_tcp::tokio::TcpStream;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;

/// Connections that are not accepted yet, of one address.
const BACKLOG: i32 = 1024;

/// How long a listener rests after `accept` has failed, which is mostly for want of descriptors.
const REST: Duration = Duration::from_millis(100);

/// A dead peer shows within a minute and a half, even on a connection that is never written to. The
/// original waits for the system's two hours (W12).
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 5;

pub(super) type Io = Metered<TcpStream>;
type Event = TransportEvent<Ready<io::Result<Io>>, io::Error>;

/// The transport. Its listening sockets are closed with [`Listening::close`], or with it.
pub(super) struct Tcp {
    dialler: libp2p_tcp::tokio::Transport,
    listening: Listening,
    counters: Arc<HostCounters>,
}

/// The listening sockets of a host. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Listening(Arc<Mutex<VecDeque<Listener>>>);

struct Listener {
    id: ListenerId,
    bound: SocketAddr,
    socket: TcpListener,
    /// For a wildcard address: which addresses that means today.
    interfaces: Option<IfWatcher>,
    /// What is to be told before anything else.
    event: Option<Event>,
    resting: Option<Delay>,
}

impl Tcp {
    pub(super) fn new(listening: Listening, counters: Arc<HostCounters>) -> Self {
        Self {
            dialler: libp2p_tcp::tokio::Transport::default(),
            listening,
            counters,
        }
    }
}

impl Listening {
    /// Closes all of them, at once: another socket may listen there when this returns.
    pub(super) fn close(&self) {
        let closed = std::mem::take(&mut *lock(&self.0));
        drop(closed);
    }
}

impl Transport for Tcp {
    type Output = Io;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Io>>;
    type Dial = BoxFuture<'static, io::Result<Io>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let Some(socket) = socket_addr(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let listener = Listener::new(id, socket).map_err(TransportError::Other)?;
        lock(&self.listening.0).push_back(listener);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let mut listeners = lock(&self.listening.0);
        let at = listeners.iter().position(|listener| listener.id == id);
        let removed = at.and_then(|at| listeners.remove(at));
        drop(listeners);
        removed.is_some()
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let connect = self.dialler.dial(address, opts)?;
        Ok(async move { connect.await.map(metered) }.boxed())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        let mut listeners = lock(&self.listening.0);
        for _ in 0..listeners.len() {
            // Whichever had something to say goes to the end of the queue.
            let Some(mut listener) = listeners.pop_front() else {
                break;
            };
            let event = listener.poll(cx);
            listeners.push_back(listener);
            if let Poll::Ready(event) = event {
                if matches!(event, TransportEvent::Incoming { .. }) {
                    self.counters.inbound_dials.one();
                }
                return Poll::Ready(event);
            }
        }
        Poll::Pending
    }
}

impl Listener {
    fn new(id: ListenerId, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Connections of an earlier listener that linger in TIME_WAIT are no reason to refuse. On
        // Windows the option would let one socket steal the port of another, and is not needed.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        // What is accepted inherits it.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket: std::net::TcpListener = socket.into();
        let bound = socket.local_addr()?;
        let wildcard = bound.ip().is_unspecified();
        let announced = TransportEvent::NewAddress {
            listener_id: id,
            listen_addr: multiaddr(bound),
        };
        Ok(Self {
            id,
            bound,
            socket: TcpListener::from_std(socket)?,
            interfaces: wildcard.then(IfWatcher::new).transpose()?,
            event: (!wildcard).then_some(announced),
            resting: None,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(event) = self.event.take() {
            return Poll::Ready(event);
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
        loop {
            let (stream, remote) = match futures::ready!(self.socket.poll_accept(cx)) {
                Ok(accepted) => accepted,
                Err(error) => return Poll::Ready(self.failed(error)),
            };
            // Some systems say nothing of a connection that is broken already.
            let Ok(local) = stream.local_addr() else { continue };
            return Poll::Ready(TransportEvent::Incoming {
                listener_id: self.id,
                upgrade: ready(Ok(metered(TcpStream(stream)))),
                local_addr: multiaddr(local),
                send_back_addr: multiaddr(remote),
            });
        }
    }

    /// What a change of the interfaces means for a wildcard address.
    fn changed(&mut self, change: io::Result<IfEvent>) -> Option<Event> {
        let listener_id = self.id;
        let ours =
            |ip: IpAddr| (ip.is_ipv4() == self.bound.is_ipv4()).then(|| multiaddr((ip, self.bound.port()).into()));
        match change {
            Ok(IfEvent::Up(net)) => ours(net.addr()).map(|listen_addr| TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            }),
            Ok(IfEvent::Down(net)) => ours(net.addr()).map(|listen_addr| TransportEvent::AddressExpired {
                listener_id,
                listen_addr,
            }),
            Err(error) => Some(self.failed(error)),
        }
    }

    /// An error that the listener survives.
    fn failed(&mut self, error: io::Error) -> Event {
        self.resting = Some(Delay::new(REST));
        let listener_id = self.id;
        TransportEvent::ListenerError { listener_id, error }
    }
}

/// `/ip4/…/tcp/N` or `/ip6/…/tcp/N`, and nothing else.
fn socket_addr(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else {
        return None;
    };
    parts.next().is_none().then_some(SocketAddr::new(ip, port))
}

fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

fn metered(io: TcpStream) -> Io {
    keep_alive(&io);
    Metered::new(io)
}

fn keep_alive(io: &TcpStream) {
    let probes = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    #[cfg(not(target_os = "windows"))]
    let probes = probes.with_retries(KEEPALIVE_PROBES);
    if let Err(error) = SockRef::from(&io.0).set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "no keep-alive on this connection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream as Socket;

    #[tokio::test]
    async fn a_connection_asks_whether_its_other_end_is_still_there() {
        // W12: without it a peer that is gone without a word is never missed by a host that only
        // listens.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = Socket::connect(listener.local_addr().unwrap()).await.unwrap();
        let io = TcpStream(socket);
        assert!(!SockRef::from(&io.0).keepalive().unwrap());
        keep_alive(&io);
        let socket = SockRef::from(&io.0);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        }
    }

    async fn next(tcp: &mut Tcp) -> Event {
        std::future::poll_fn(|cx| Pin::new(&mut *tcp).poll(cx)).await
    }

    #[tokio::test]
    async fn what_is_accepted_delays_nothing_asks_after_its_peer_and_says_where_it_is() {
        let counters = Arc::<HostCounters>::default();
        let mut tcp = Tcp::new(Listening::default(), counters.clone());
        let id = ListenerId::next();
        tcp.listen_on(id, "/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let TransportEvent::NewAddress { listen_addr, .. } = next(&mut tcp).await else {
            panic!("the address first")
        };
        let caller = Socket::connect(socket_addr(&listen_addr).unwrap()).await.unwrap();
        let event = next(&mut tcp).await;
        let TransportEvent::Incoming {
            upgrade,
            local_addr,
            send_back_addr,
            ..
        } = event
        else {
            panic!("{event:?}")
        };
        assert_eq!((local_addr, counters.inbound_dials.get()), (listen_addr, 1));
        assert_eq!(socket_addr(&send_back_addr), Some(caller.local_addr().unwrap()));
        let accepted = upgrade.await.unwrap();
        let socket = SockRef::from(&accepted.get_ref().0);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert!(!socket.reuse_port().unwrap());
        assert!(tcp.remove_listener(id));
        assert!(!tcp.remove_listener(id));
    }

    #[tokio::test]
    async fn every_address_behind_a_wildcard_is_told() {
        let mut tcp = Tcp::new(Listening::default(), Arc::default());
        tcp.listen_on(ListenerId::next(), "/ip4/0.0.0.0/tcp/0".parse().unwrap())
            .unwrap();
        let interfaces = if_addrs::get_if_addrs().unwrap();
        let v4: std::collections::BTreeSet<IpAddr> = interfaces
            .iter()
            .map(if_addrs::Interface::ip)
            .filter(IpAddr::is_ipv4)
            .collect();
        let mut told = std::collections::BTreeSet::new();
        while told.len() < v4.len() {
            let TransportEvent::NewAddress { listen_addr, .. } = next(&mut tcp).await else {
                panic!("an address")
            };
            told.insert(socket_addr(&listen_addr).unwrap().ip());
        }
        assert_eq!(told, v4);
    }

    #[test]
    fn only_plain_ip_and_tcp_is_listened_on() {
        for address in [
            "/ip4/127.0.0.1/udp/1",
            "/dns4/localhost/tcp/1",
            "/ip4/127.0.0.1/tcp/1/ws",
            "/ip4/127.0.0.1",
        ] {
            assert_eq!(socket_addr(&address.parse().unwrap()), None, "{address}");
        }
    }
}
