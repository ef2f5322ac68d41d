//! Much of everything: what one source can spend is not what the others live on.

use super::*;
use libp2p_core::transport::{ListenerId, TransportError, TransportEvent};
use libp2p_core::{Multiaddr, Transport};
use libp2p_knock::internals::wrap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

/// Where the honest dialer below lives: another prefix than the flood's, 127.0.0.0/24.
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 7, 7, 7));

/// TCP that only dials, from one address.
pub(super) struct From(pub(super) IpAddr);

impl Transport for From {
    type Output = Compat<TcpStream>;
    type Error = io::Error;
    type ListenerUpgrade = futures::future::Pending<io::Result<Self::Output>>;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(&mut self, _: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _: libp2p_core::transport::DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let (from, to) = (
            self.0,
            socket_of(&address).ok_or(TransportError::MultiaddrNotSupported(address))?,
        );
        Ok(async move { Ok(connect_from(from, to).await?.compat()) }.boxed())
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Poll::Pending
    }
}

pub(super) async fn connect_from(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    // Or it would keep its port from a listener's dials, on whichever address that listens.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// An honest dial from there.
async fn dial_from(from: IpAddr, dialer_config: Config, target: &mut Target) -> Result<(), Failure> {
    let mut transport = libp2p_knock::Authenticated::new(From(from), dialer_config);
    let dial = transport.dial(target.listener.address.clone(), dialer()).unwrap();
    soon("the dial", dial).await?;
    Ok(())
}

/// Sends each of `knocks` from the loopback's own prefix and keeps the sockets, which say nothing more.
async fn flood(target: &Target, knocks: impl IntoIterator<Item = Vec<u8>>) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for knock in knocks {
        let mut socket = target.listener.connect().await;
        socket.write_all(&knock).await.unwrap();
        sockets.push(socket);
    }
    sockets
}

fn patient(per_second: u32) -> Config {
    config(2)
        .with_max_openings(per_second.try_into().unwrap())
        .unwrap()
        .with_max_waiting(8192.try_into().unwrap())
}

/// He may come in, and says that his clock is almost too far ahead: his knocks have to be remembered for longest.
#[tokio::test]
async fn an_insider_whose_knocks_are_remembered_for_longest_keeps_no_peer_out_that_is_known() {
    const KNOCKS: usize = 300;
    let close = Duration::from_secs(60);
    let mut target = Target::closing_after(close, patient(50)).await;
    dial_from(HOME, config(1), &mut target)
        .await
        .expect("nothing is wrong yet");
    assert_eq!(target.next_in().await, peer(1));

    let hello = client_hello();
    let ahead = || SystemTime::now() + Duration::from_secs(119);
    let knocks: Vec<_> = (0..KNOCKS).map(|_| sealed_at(9, 2, ahead(), &hello)).collect();
    let started = Instant::now();
    let _sockets = flood(&target, knocks).await;
    for n in 0..5 {
        dial_from(HOME, config(1), &mut target)
            .await
            .unwrap_or_else(|e| panic!("dial {n}: {e:?}"));
    }
    until("all of them", || {
        target.knocks("accepted") + target.knocks("refused_budget") == KNOCKS + 6
    })
    .await;
    let most = 50 + (50.0 * started.elapsed().as_secs_f64()) as usize + 1;
    let accepted = target.knocks("accepted") - 6;
    assert!(accepted <= most, "{accepted} of {KNOCKS}, {most} at most");
}

/// Somebody with keys of his own, which cost nothing, knocks in order and then leaves TLS where it is.
#[tokio::test]
async fn callers_that_never_finish_tls_keep_no_honest_peer_out() {
    const KNOCKS: usize = 650;
    /// A sixteenth of the pool.
    const AT_ONCE: usize = 8192 / 16;
    let close = Duration::from_secs(60);
    let mut target = Target::closing_after(close, patient(5000).with_handshake_timeout(close)).await;
    let hello = client_hello();
    let knocks: Vec<_> = (0..KNOCKS)
        .map(|n| sealed_at(20 + (n % 200) as u8, 2, SystemTime::now(), &hello))
        .collect();
    let _sockets = flood(&target, knocks).await;
    // There is a limit on handshakes at once, and nobody is refused for it: the oldest goes.
    until("all of them", || target.knocks("accepted") == KNOCKS).await;
    let displaced = "handshakes_total{role=\"listener\",outcome=\"other\",group=\"\"}";
    until("who had to go", || target.value(displaced) == KNOCKS - AT_ONCE).await;
    for n in 0..10 {
        dial_from(HOME, config(1), &mut target)
            .await
            .unwrap_or_else(|e| panic!("dial {n}: {e:?}"));
    }
}

/// Who knows our PeerID makes boxes that open, and what is in them costs two Diffie-Hellman.
#[tokio::test]
async fn a_flood_of_boxes_with_garbage_in_them_costs_no_more_than_the_budget_and_spares_who_is_known() {
    const KNOCKS: usize = 1000;
    let close = Duration::from_secs(60);
    let mut target = Target::closing_after(close, patient(100)).await;
    dial_from(HOME, config(1), &mut target)
        .await
        .expect("nothing is wrong yet");
    target.listener.upgraded().await.expect("an honest dial");

    let boxes = (0..KNOCKS).map(|n| {
        let mut noise = [0x5a; 176];
        noise[..8].copy_from_slice(&n.to_le_bytes());
        wrap(&callee(2), &Network::open(), &fresh(), &noise, b"hello")
    });
    let boxes: Vec<_> = boxes.collect();
    let started = Instant::now();
    let _sockets = flood(&target, boxes).await;
    for n in 0..5 {
        dial_from(HOME, config(1), &mut target)
            .await
            .unwrap_or_else(|e| panic!("dial {n}: {e:?}"));
    }
    until("all of them", || {
        target.knocks("refused_noise") + target.knocks("refused_budget") == KNOCKS
    })
    .await;
    let most = 100 + (100.0 * started.elapsed().as_secs_f64()) as usize + 1;
    let opened = target.knocks("refused_noise");
    assert!((50..=most).contains(&opened), "{opened} opened, {most} at most");
}

/// No budget stands before the box, or this flood would spend it for whoever lives beside it.
#[tokio::test]
async fn a_flood_of_noise_from_the_honest_dialers_own_prefix_costs_him_nothing() {
    const NOISE: usize = 1000;
    let close = Duration::from_secs(60);
    // Enough for the dials and for nothing else.
    let mut target = Target::closing_after(close, patient(4)).await;
    let noise = (0..NOISE).map(|n| n.to_le_bytes().into_iter().cycle().take(300).collect());
    let _sockets = flood(&target, noise).await;
    for _ in 0..2 {
        target.lets_in(config(1)).await;
    }
    until("all of them", || target.knocks("refused_box") == NOISE).await;
    assert_eq!(target.knocks("refused_budget"), 0);
    assert_eq!(target.knocks("evicted"), 0);
}

/// A behaviour that takes its time holds the whole Swarm up, and with it those whose handshakes are to begin.
#[tokio::test]
async fn callers_that_a_swarm_does_not_take_are_bounded_and_when_it_does_the_next_ones_come_in() {
    const KNOCKS: usize = 1100;
    /// Twice as many as may be answered at once.
    const MOST: usize = 2 * 8192 / 16;
    let mut registry = Registry::default();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let config = patient(5000).dangerous().with_close_time(Duration::from_secs(60));
    let mut transport = libp2p_knock::Authenticated::new(
        libp2p::tcp::tokio::Transport::default(),
        config.with_metrics(&mut registry).unwrap(),
    )
    .with_executor(|task| drop(tokio::spawn(task)));
    transport
        .listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap())
        .unwrap();
    let event = soon("an address", next(&mut transport)).await;
    let to = event.into_new_address().and_then(|at| socket_of(&at)).unwrap();
    let knocks = |outcome: &str| {
        value(
            &registry,
            &format!("libp2p_knock_knocks_total{{outcome=\"{outcome}\"}}"),
        ) as usize
    };
    // From now on nobody asks what has come.
    let hello = client_hello();
    let mut sockets = Vec::new();
    for n in 0..KNOCKS {
        let mut socket = TcpStream::connect(to).await.unwrap();
        let knock = sealed_at(20 + (n % 200) as u8, 2, SystemTime::now(), &hello);
        socket.write_all(&knock).await.unwrap();
        sockets.push(socket);
    }
    until("all of them", || {
        knocks("accepted") + knocks("refused_budget") == KNOCKS
    })
    .await;
    assert_eq!(knocks("accepted"), MOST);
    for _ in 0..MOST {
        // Dropped, as by a Swarm that wants nobody.
        assert!(soon("a caller", next(&mut transport)).await.is_upgrade());
    }
    let knock = sealed_at(9, 2, SystemTime::now(), &hello);
    let mut socket = TcpStream::connect(to).await.unwrap();
    socket.write_all(&knock).await.unwrap();
    assert!(soon("one more", next(&mut transport)).await.is_upgrade());
}

async fn next<T: Transport + Unpin>(transport: &mut T) -> TransportEvent<T::ListenerUpgrade, T::Error> {
    futures::future::poll_fn(|cx| Pin::new(&mut *transport).poll(cx)).await
}
