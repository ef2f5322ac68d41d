//! The listening side's own life: what ends its task, what that leaves behind, and how soon an
//! address is free again.

use crate::common::*;
use futures::future::poll_fn;
use libp2p_core::transport::{ListenerId, TransportError, TransportEvent};
use libp2p_core::{Multiaddr, Transport};
use libp2p_knock::{Authenticated, Failure};
use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

type Tcp = libp2p::tcp::tokio::Transport;

async fn next<T: Transport + Unpin>(transport: &mut T) -> TransportEvent<T::ListenerUpgrade, T::Error> {
    soon("an event", poll_fn(|cx| Pin::new(&mut *transport).poll(cx))).await
}

async fn address_of<T: Transport + Unpin>(transport: &mut T) -> Multiaddr {
    next(transport).await.into_new_address().expect("an address")
}

fn here() -> Multiaddr {
    "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap()
}

/// Nothing runs in between: a current-thread runtime, and no `await`.
#[tokio::test]
async fn an_address_is_free_as_soon_as_its_listener_is_removed() {
    let mut transport = tcp(2);
    let mut id = ListenerId::next();
    transport.listen_on(id, here()).unwrap();
    let address = address_of(&mut transport).await;
    for _ in 0..3 {
        for polled in [false, true] {
            assert!(transport.remove_listener(id));
            id = ListenerId::next();
            transport.listen_on(id, address.clone()).expect("free");
            if polled {
                // Each listener that went is told of, and the one that is there.
                let (mut closed, mut listening) = (0, false);
                while closed < 2 || !listening {
                    match next(&mut transport).await {
                        TransportEvent::ListenerClosed { reason, listener_id } => {
                            reason.expect("closed on demand");
                            assert_ne!(listener_id, id);
                            closed += 1;
                        }
                        TransportEvent::NewAddress { listener_id, .. } => listening |= listener_id == id,
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }
    // And it works.
    tokio::spawn(async move {
        loop {
            if let TransportEvent::Incoming { upgrade, .. } = next(&mut transport).await {
                tokio::spawn(upgrade);
            }
        }
    });
    let dial = authenticated(config(1)).dial(address.with_p2p(peer(2)).unwrap(), dialer());
    soon("the dial", dial.unwrap()).await.expect("let in");
}

#[tokio::test]
async fn an_address_of_all_interfaces_is_free_as_soon_as_its_listener_is_removed() {
    let mut transport = tcp(2);
    let id = ListenerId::next();
    let any: Multiaddr = "/ip4/0.0.0.0/tcp/0/tls".parse().unwrap();
    transport.listen_on(id, any).unwrap();
    let port = socket_of(&address_of(&mut transport).await).unwrap().port();
    assert!(transport.remove_listener(id));
    let again: Multiaddr = format!("/ip4/0.0.0.0/tcp/{port}/tls").parse().unwrap();
    transport.listen_on(ListenerId::next(), again).expect("free");
}

#[tokio::test]
async fn an_address_is_free_as_soon_as_its_transport_is_dropped() {
    let mut transport = tcp(2);
    transport.listen_on(ListenerId::next(), here()).unwrap();
    let address = address_of(&mut transport).await;
    for _ in 0..3 {
        drop(transport);
        transport = tcp(2);
        transport.listen_on(ListenerId::next(), address.clone()).expect("free");
    }
}

/// On as many threads as it takes for the door to be at work meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_address_is_free_when_its_listener_is_said_to_be_closed() {
    let mut transport = tcp(2);
    let mut id = ListenerId::next();
    transport.listen_on(id, here()).unwrap();
    let address = address_of(&mut transport).await;
    for round in 0..200 {
        assert!(transport.remove_listener(id));
        loop {
            if let TransportEvent::ListenerClosed { .. } = next(&mut transport).await {
                break;
            }
        }
        id = ListenerId::next();
        let listening = transport.listen_on(id, address.clone());
        listening.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
    }
}

#[cfg(all(feature = "fast-open", target_os = "linux"))]
#[tokio::test]
async fn an_address_is_free_as_soon_as_a_fast_open_listener_is_removed() {
    use libp2p_knock::tokio::FastOpen;
    let inner = FastOpen::default();
    let mut transport = Authenticated::new(inner, config(2)).with_executor(|task| drop(tokio::spawn(task)));
    let id = ListenerId::next();
    transport.listen_on(id, here()).unwrap();
    let address = address_of(&mut transport).await;
    assert!(transport.remove_listener(id));
    let id = ListenerId::next();
    transport.listen_on(id, address.clone()).expect("free");
    drop(transport);
    let mut transport = Authenticated::new(FastOpen::default(), config(2));
    transport.listen_on(id, address).expect("free");
    assert!(transport.remove_listener(id));
    assert!(!transport.remove_listener(id));
}

/// As a Swarm's owner may do from any thread. The other listener has a caller, which the door is
/// too busy to accept.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_listener_can_be_removed_outside_of_the_runtime() {
    let (go_on, wait) = mpsc::channel::<()>();
    let (asked, is_asked) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let hook = move |_: &libp2p_identity::PeerId, _: &libp2p_core::ConnectedPoint| {
        asked.send(())?;
        Ok(tokio::task::block_in_place(|| {
            wait.lock().unwrap().recv_timeout(PATIENCE)
        })?)
    };
    let mut transport = libp2p_knock::tokio::Transport::new(config(2).with_admission(hook));
    let (first, second, third) = (ListenerId::next(), ListenerId::next(), ListenerId::next());
    transport.listen_on(first, here()).unwrap();
    let address = address_of(&mut transport).await;
    transport.listen_on(second, here()).unwrap();
    let other = address_of(&mut transport).await;
    let dial = authenticated(config(1)).dial(other.clone().with_p2p(peer(2)).unwrap(), dialer());
    let dial = tokio::spawn(dial.unwrap());
    let busy = tokio::task::spawn_blocking(move || is_asked.recv_timeout(PATIENCE).map(|()| is_asked));
    let _asked = busy.await.unwrap().expect("asked");
    let _caller = std::net::TcpStream::connect(socket_of(&other).unwrap()).unwrap();
    // For the runtime to see that it is there.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let removing = std::thread::spawn(move || {
        assert!(transport.remove_listener(first));
        transport
    });
    let mut transport = removing.join().expect("no panic");
    transport.listen_on(third, address).expect("free");
    go_on.send(()).unwrap();
    let (mut closed, mut listening) = (false, false);
    while !(closed && listening) {
        match next(&mut transport).await {
            TransportEvent::ListenerClosed { listener_id, .. } => closed |= listener_id == first,
            TransportEvent::NewAddress { listener_id, .. } => listening |= listener_id == third,
            TransportEvent::Incoming { upgrade, .. } => drop(tokio::spawn(upgrade)),
            other => panic!("{other:?}"),
        }
    }
    soon("the dial", dial).await.unwrap().expect("let in");
}

/// A port that a live listener of ours holds is as taken as another program's.
#[tokio::test]
async fn an_address_that_a_listener_of_ours_still_holds_is_refused() {
    let mut transport = tcp(2);
    let (first, second) = (ListenerId::next(), ListenerId::next());
    transport.listen_on(first, here()).unwrap();
    let address = address_of(&mut transport).await;
    transport.listen_on(second, address.clone()).expect_err("in use");
    transport.listen_on(second, here()).unwrap();
    assert!(transport.remove_listener(second));
    transport.listen_on(ListenerId::next(), address).expect_err("in use");
}

/// A runtime takes the door along. The listeners are closed and reported so, and the next
/// `listen_on` works.
#[tokio::test]
async fn a_door_whose_runtime_is_gone_is_told_as_closed_listeners_and_the_next_one_works() {
    let other = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let handles = Arc::new(Mutex::new(vec![
        tokio::runtime::Handle::current(),
        other.handle().clone(),
    ]));
    let mut transport = authenticated(config(2)).with_executor(move |task| {
        let handle = handles.lock().unwrap().pop().expect("asked twice");
        drop(handle.spawn(task));
    });
    let mut open = HashSet::new();
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let id = ListenerId::next();
        transport.listen_on(id, here()).unwrap();
        open.insert(id);
        addresses.push(address_of(&mut transport).await);
    }
    // A stranger that waits there goes with it.
    let mut stranger = tokio::net::TcpStream::connect(socket_of(&addresses[0]).unwrap())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    other.shutdown_background();
    while !open.is_empty() {
        let TransportEvent::ListenerClosed { listener_id, reason } = next(&mut transport).await else {
            panic!("something else");
        };
        assert!(open.remove(&listener_id));
        reason.expect_err("not on demand");
    }
    let ended = soon("the end", tokio::io::AsyncReadExt::read(&mut stranger, &mut [0])).await;
    assert!(!matches!(ended, Ok(1)));
    for address in &addresses {
        std::net::TcpListener::bind(socket_of(address).unwrap()).expect("nobody listens");
    }
    // It is told once, and the transport goes on.
    assert!(futures::poll!(poll_fn(|cx| Pin::new(&mut transport).poll(cx))).is_pending());
    transport
        .listen_on(ListenerId::next(), addresses[0].clone())
        .expect("works");
    let address = address_of(&mut transport).await;
    tokio::spawn(async move {
        loop {
            if let TransportEvent::Incoming { upgrade, .. } = next(&mut transport).await {
                tokio::spawn(upgrade);
            }
        }
    });
    let dial = authenticated(config(1)).dial(address.with_p2p(peer(2)).unwrap(), dialer());
    soon("the dial", dial.unwrap()).await.expect("let in");
}

/// An inner transport at whose every part something can be done. Its listeners are TCP's.
#[derive(Default)]
struct Odd {
    tcp: Tcp,
    /// Panics in `poll` from then on.
    panics: Arc<AtomicBool>,
    /// To be said once, by the first listener.
    error: Arc<Mutex<Option<OddError>>>,
    /// The listener that closes by itself, and drops its socket when it is polled again.
    closes: Arc<Mutex<Option<ListenerId>>>,
    /// What becomes of accepted sockets.
    upgrade: Ill,
    waker: Arc<Mutex<Option<Waker>>>,
    closed: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Debug)]
enum Ill {
    #[default]
    Not,
    /// The upgrade panics.
    Upgrade,
    /// The socket panics when it is read.
    Read,
}

/// An error that takes its time to say what is behind it.
struct OddError(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for OddError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OddError")
    }
}

impl std::fmt::Display for OddError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("odd")
    }
}

impl std::error::Error for OddError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        (self.0)();
        None
    }
}

struct Socket(libp2p::tcp::tokio::TcpStream, bool);

impl futures::AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        assert!(!self.1, "the inner transport's own fault");
        Pin::new(&mut self.0).poll_read(cx, room)
    }
}

impl futures::AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

impl Transport for Odd {
    type Output = Socket;
    type Error = OddError;
    type ListenerUpgrade = futures::future::BoxFuture<'static, Result<Socket, OddError>>;
    type Dial = futures::future::Pending<Result<Socket, OddError>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<OddError>> {
        let listening = self.tcp.listen_on(id, address);
        listening.map_err(|_| TransportError::Other(OddError(Box::new(|| ()))))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.tcp.remove_listener(id)
    }

    fn dial(
        &mut self,
        _: Multiaddr,
        _: libp2p_core::transport::DialOpts,
    ) -> Result<Self::Dial, TransportError<OddError>> {
        Ok(futures::future::pending())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, OddError>> {
        let this = self.get_mut();
        *this.waker.lock().unwrap() = Some(cx.waker().clone());
        assert!(
            !this.panics.swap(false, Ordering::Relaxed),
            "the inner transport's own fault"
        );
        if let Some(error) = this.error.lock().unwrap().take() {
            return Poll::Ready(TransportEvent::ListenerError {
                listener_id: ListenerId::next(),
                error,
            });
        }
        if std::mem::take(&mut this.closed) {
            this.tcp = Tcp::default();
        }
        if let Some(listener_id) = this.closes.lock().unwrap().take() {
            this.closed = true;
            return Poll::Ready(TransportEvent::ListenerClosed {
                listener_id,
                reason: Err(OddError(Box::new(|| ()))),
            });
        }
        let event = std::task::ready!(Pin::new(&mut this.tcp).poll(cx));
        let ill = this.upgrade;
        Poll::Ready(
            event
                .map_upgrade(|upgrade| -> Self::ListenerUpgrade {
                    Box::pin(async move {
                        assert_ne!(ill, Ill::Upgrade, "the inner transport's own fault");
                        Ok(Socket(upgrade.await.expect("TCP"), ill == Ill::Read))
                    })
                })
                .map_err(|_| OddError(Box::new(|| ()))),
        )
    }
}

#[tokio::test]
async fn an_inner_transport_that_panics_is_told_as_closed_listeners_and_the_next_one_works() {
    let odd = Odd::default();
    let (panics, waker) = (odd.panics.clone(), odd.waker.clone());
    let mut transport = Authenticated::new(odd, config(2)).with_executor(|task| drop(tokio::spawn(task)));
    let mut open = HashSet::new();
    for _ in 0..2 {
        let id = ListenerId::next();
        transport.listen_on(id, here()).unwrap();
        open.insert(id);
    }
    let (one, two) = (address_of(&mut transport).await, address_of(&mut transport).await);
    panics.store(true, Ordering::Relaxed);
    waker.lock().unwrap().take().expect("polled").wake();
    while !open.is_empty() {
        let TransportEvent::ListenerClosed { listener_id, reason } = next(&mut transport).await else {
            panic!("something else");
        };
        assert!(open.remove(&listener_id));
        reason.expect_err("not on demand");
    }
    for address in [&one, &two] {
        std::net::TcpListener::bind(socket_of(address).unwrap()).expect("nobody listens");
    }
    transport.listen_on(ListenerId::next(), one).expect("works");
    let address = address_of(&mut transport).await;
    tokio::spawn(async move {
        loop {
            if let TransportEvent::Incoming { upgrade, .. } = next(&mut transport).await {
                tokio::spawn(upgrade);
            }
        }
    });
    let dial = authenticated(config(1)).dial(address.with_p2p(peer(2)).unwrap(), dialer());
    soon("the dial", dial.unwrap()).await.expect("let in");
}

#[tokio::test]
async fn an_error_of_the_inner_transport_that_panics_when_it_is_looked_into_is_passed_on() {
    let odd = Odd::default();
    *odd.error.lock().unwrap() = Some(OddError(Box::new(|| panic!("the inner transport's own fault"))));
    let mut transport = Authenticated::new(odd, config(2)).with_executor(|task| drop(tokio::spawn(task)));
    transport.listen_on(ListenerId::next(), here()).unwrap();
    let failed = next(&mut transport).await;
    assert!(matches!(failed, TransportEvent::ListenerError { .. }));
    address_of(&mut transport).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_free_when_its_listener_is_said_to_have_closed_by_an_error() {
    let odd = Odd::default();
    let (closes, waker) = (odd.closes.clone(), odd.waker.clone());
    let mut transport = Authenticated::new(odd, config(2)).with_executor(|task| drop(tokio::spawn(task)));
    for round in 0..50 {
        let id = ListenerId::next();
        transport.listen_on(id, here()).unwrap();
        let address = address_of(&mut transport).await;
        *closes.lock().unwrap() = Some(id);
        waker.lock().unwrap().take().expect("polled").wake();
        let TransportEvent::ListenerClosed { listener_id, reason } = next(&mut transport).await else {
            panic!("something else");
        };
        assert_eq!(listener_id, id);
        reason.expect_err("by an error");
        std::net::TcpListener::bind(socket_of(&address).unwrap())
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
}

/// A stream or an upgrade of the inner transport's that panics is one socket fewer, and nothing
/// else.
#[tokio::test]
async fn a_socket_that_panics_ends_and_the_listener_goes_on() {
    for ill in [Ill::Upgrade, Ill::Read] {
        let odd = Odd {
            upgrade: ill,
            ..Odd::default()
        };
        let mut transport = Authenticated::new(odd, config(2)).with_executor(|task| drop(tokio::spawn(task)));
        transport.listen_on(ListenerId::next(), here()).unwrap();
        let address = address_of(&mut transport).await;
        for _ in 0..3 {
            let mut socket = tokio::net::TcpStream::connect(socket_of(&address).unwrap())
                .await
                .unwrap();
            let ended = soon("the end", tokio::io::AsyncReadExt::read(&mut socket, &mut [0])).await;
            assert!(!matches!(ended, Ok(1)), "{ill:?}");
        }
        let polled = futures::poll!(poll_fn(|cx| Pin::new(&mut transport).poll(cx)));
        assert!(polled.is_pending(), "{ill:?}");
    }
}

/// Whatever the door does with an event, the inner transport is free meanwhile: here the event's
/// own error asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inner_transport_is_not_held_while_the_door_looks_at_an_event() {
    let odd = Odd::default();
    let (error, waker) = (odd.error.clone(), odd.waker.clone());
    let mut transport = Authenticated::new(odd, config(2)).with_executor(|task| drop(tokio::spawn(task)));
    transport.listen_on(ListenerId::next(), here()).unwrap();
    let address = address_of(&mut transport).await.with_p2p(peer(1)).unwrap();
    let (asked, look) = mpsc::channel();
    let (answer, answered) = mpsc::channel();
    let answered = Mutex::new(answered);
    *error.lock().unwrap() = Some(OddError(Box::new(move || {
        // The first look is the door's. A later one, to print it, finds the channel closed.
        if asked.send(()).is_ok() {
            let free = answered.lock().unwrap().recv_timeout(Duration::from_secs(5));
            assert!(free.is_ok(), "the dial waited for the door");
        }
    })));
    waker.lock().unwrap().take().expect("polled").wake();
    let dialling = tokio::task::spawn_blocking(move || {
        look.recv_timeout(PATIENCE).expect("the door looks");
        let dialled: Result<_, TransportError<Failure>> = transport.dial(address, dialer());
        let _ = answer.send(());
        drop(dialled);
        transport
    });
    let mut transport = soon("the dial", dialling).await.unwrap();
    let event = next(&mut transport).await;
    assert!(matches!(event, TransportEvent::ListenerError { .. }), "{event:?}");
}
