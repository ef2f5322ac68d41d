//! The listener's own life: its bounds, its hooks, its end.

use crate::common::*;
use libp2p_core::transport::{ListenerId, TransportError};
use libp2p_core::{ConnectedPoint, Multiaddr, Transport as _};
use libp2p_knock::{Error, Failure};
use std::pin::Pin;
#[cfg(all(feature = "internals", feature = "metrics"))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
#[cfg(all(feature = "internals", feature = "metrics"))]
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn carries_marker(address: &Multiaddr) -> bool {
    address.to_string().ends_with("/tls")
}

#[tokio::test]
async fn every_address_that_is_handed_out_carries_the_marker() {
    let mut listener = victim(config(2)).await;
    assert!(listener.address.to_string().contains("/tls/p2p/"));
    let dial = authenticated(config(1))
        .dial(listener.address.clone(), dialer())
        .unwrap();
    let _dialled = soon("the dial", dial).await.unwrap();
    let Seen::Incoming {
        local_addr,
        send_back_addr,
    } = listener.next().await
    else {
        panic!("no incoming connection");
    };
    assert!(carries_marker(&local_addr), "{local_addr}");
    assert!(carries_marker(&send_back_addr), "{send_back_addr}");
}

fn refused(seed: u8, address: &str) -> TransportError<Failure> {
    let mut transport = tcp(seed);
    transport
        .listen_on(ListenerId::next(), address.parse().unwrap())
        .expect_err("it listens")
}

#[tokio::test]
async fn listening_needs_the_marker_and_nobody_elses_name() {
    for address in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/tls/ws", "/memory/0/tls"] {
        assert!(
            matches!(refused(2, address), TransportError::MultiaddrNotSupported(_)),
            "{address}"
        );
    }
    match refused(2, &format!("/ip4/127.0.0.1/tcp/0/tls/p2p/{}", peer(3))) {
        TransportError::Other(failure) => assert!(matches!(failure.error(), Error::NotOurPeerId { .. })),
        TransportError::MultiaddrNotSupported(address) => panic!("{address}"),
    }
    let ours = format!("/ip4/127.0.0.1/tcp/0/tls/p2p/{}", peer(2));
    listen(tcp(2), peer(2), &ours).await;
}

#[tokio::test]
async fn a_port_that_somebody_listens_on_is_refused_even_if_it_could_be_shared() {
    // As libp2p's TCP transport opens it: with SO_REUSEPORT.
    let mut stock = libp2p::tcp::tokio::Transport::default();
    stock
        .listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let event = futures::future::poll_fn(|cx| Pin::new(&mut stock).poll(cx)).await;
    let address = event.into_new_address().expect("an address");
    match refused(2, &format!("{address}/tls")) {
        TransportError::Other(failure) => {
            let error = Failure::find(&failure).expect("ours");
            assert!(matches!(error, Error::PortInUse { .. }), "{error:?}");
        }
        TransportError::MultiaddrNotSupported(address) => panic!("{address}"),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not on the list")]
struct NotOnTheList;

#[tokio::test]
async fn admission_is_asked_after_a_valid_knock_and_a_refused_caller_gets_no_byte() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let config = old(2)
        .dangerous()
        .with_close_time(Duration::from_millis(300))
        .with_admission(move |peer, point| {
            log.lock().unwrap().push((*peer, point.clone()));
            if *peer == crate::common::peer(1) {
                Ok(())
            } else {
                Err(Box::new(NotOnTheList))
            }
        });
    let mut listener = victim(config).await;

    let flight = [&knock(3, 2)[..], b"\x16\x03\x01 and so on"].concat();
    let (answer, after) = listener.probe(&flight).await;
    assert!(
        answer.is_empty(),
        "{} bytes for a peer that is not on the list",
        answer.len()
    );
    assert!(after >= Duration::from_millis(300), "{after:?}");
    let (bad, _) = listener.probe(&[0; 97]).await;
    assert!(bad.is_empty());

    let dial = authenticated(old(1)).dial(listener.address.clone(), dialer()).unwrap();
    let _dialled = soon("the dial of a friend", dial).await.unwrap();
    let (caller, _) = listener.upgraded().await.unwrap();
    assert_eq!(caller, peer(1));

    let asked = asked.lock().unwrap();
    let peers: Vec<_> = asked.iter().map(|(peer, _)| *peer).collect();
    assert_eq!(peers, [peer(3), peer(1)], "asked about valid knocks only");
    for (_, point) in asked.iter() {
        let ConnectedPoint::Listener { send_back_addr, .. } = point else {
            panic!("{point:?}");
        };
        assert!(carries_marker(send_back_addr), "{send_back_addr}");
    }
}

#[tokio::test]
async fn the_secured_hook_is_asked_with_the_proven_peer_on_both_sides() {
    let deny = |peer: &libp2p_identity::PeerId, _: &ConnectedPoint| {
        if *peer == crate::common::peer(1) {
            Err(NotOnTheList.into())
        } else {
            Ok(())
        }
    };
    // The listener refuses: it says so, and the dialer sees its connection end.
    let mut listener = victim(config(2).with_secured_hook(deny)).await;
    let dial = authenticated(config(1))
        .dial(listener.address.clone(), dialer())
        .unwrap();
    let dialled = soon("the dial", dial).await;
    match listener.error().await {
        Error::Denied(reason) => assert!(reason.downcast_ref::<NotOnTheList>().is_some()),
        other => panic!("{other:?}"),
    }
    if let Ok((_, mut stream)) = dialled {
        let read = soon("the end", futures::AsyncReadExt::read(&mut stream, &mut [0; 1])).await;
        assert!(!matches!(read, Ok(1..)), "a byte came from a listener that refused us");
    }

    // The dialer refuses.
    let mut listener = victim(config(1)).await;
    let mut transport = authenticated(config(3).with_secured_hook(deny));
    let dial = transport.dial(listener.address.clone(), dialer()).unwrap();
    let failure = soon("the dial", dial).await.unwrap_err();
    assert!(matches!(failure.error(), Error::Denied(_)), "{failure:?}");
    assert_eq!(failure.stage(), libp2p_knock::Stage::Secured);
    let _ = listener.upgraded().await;
}

#[tokio::test]
async fn a_full_waiting_room_lets_somebody_go_and_still_admits_a_friend() {
    let mut listener = victim(config(2).with_max_waiting(4.try_into().unwrap())).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(listener.connect().await);
    }
    let dial = authenticated(config(1))
        .dial(listener.address.clone(), dialer())
        .unwrap();
    let (found, _stream) = soon("the dial", dial).await.unwrap();
    assert_eq!(found, peer(2));
    listener.upgraded().await.unwrap();

    let mut closed = 0;
    for socket in &mut silent {
        let end = tokio::time::timeout(Duration::from_millis(100), socket.read(&mut [0])).await;
        closed += usize::from(matches!(end, Ok(Ok(0))));
    }
    assert!(
        (4..8).contains(&closed),
        "{closed} of 8 made room, each with an ordinary end"
    );
}

#[tokio::test]
async fn a_removed_listener_takes_its_waiters_along_and_lets_running_upgrades_finish() {
    let mut listener = victim(old(2)).await;
    let mut silent = listener.connect().await;
    let mut knocked = listener.connect().await;
    knocked.write_all(&knock(1, 2)).await.unwrap();
    assert!(
        matches!(listener.next().await, Seen::Incoming { .. }),
        "the upgrade runs"
    );

    listener.remove();
    assert!(matches!(listener.next().await, Seen::Closed));
    assert_eq!(
        soon("the end", silent.read(&mut [0; 1])).await.unwrap(),
        0,
        "dropped with its listener"
    );

    // The other end goes on where it was, with TLS.
    let mut socket = knocked.into_std().unwrap();
    socket.set_nonblocking(false).unwrap();
    let mut late = gullible_client(&rustls::version::TLS13, Some((1, 1)));
    let finish = tokio::task::spawn_blocking(move || late.complete_io(&mut socket).map(|_| ()));
    assert_eq!(listener.upgraded().await.unwrap().0, peer(1));
    finish.await.unwrap().unwrap();

    let refused = tokio::net::TcpStream::connect(listener.socket.unwrap()).await;
    assert!(refused.is_err(), "the port is closed");
}

/// The handshake has its own limit, and the time of those that have not authenticated does not cut
/// it short.
#[tokio::test]
async fn a_handshake_that_has_begun_may_end_after_the_time_of_its_socket() {
    let config = old(2)
        .with_handshake_timeout(PATIENCE)
        .dangerous()
        .with_close_time(Duration::from_secs(1));
    let mut listener = victim(config).await;
    let mut knocked = Vec::new();
    for seed in [1, 3] {
        let mut socket = listener.connect().await;
        socket.write_all(&knock(seed, 2)).await.unwrap();
        assert!(matches!(listener.next().await, Seen::Incoming { .. }));
        knocked.push(socket);
    }
    // The last to come is the last to go.
    let mut last = listener.connect().await;
    assert_eq!(soon("the end of their time", last.read(&mut [0])).await.unwrap(), 0);

    let mut bad = knocked.pop().unwrap();
    bad.write_all(&[7, 3, 3, 0, 1, 7]).await.unwrap();
    let ended = soon("the end of what is no TLS", bad.read_to_end(&mut Vec::new())).await;
    ended.expect("no reset");
    listener.error().await;

    let mut socket = knocked.pop().unwrap().into_std().unwrap();
    socket.set_nonblocking(false).unwrap();
    let mut late = gullible_client(&rustls::version::TLS13, Some((1, 1)));
    let finish = tokio::task::spawn_blocking(move || late.complete_io(&mut socket).map(|_| ()));
    assert_eq!(listener.upgraded().await.unwrap().0, peer(1));
    finish.await.unwrap().unwrap();
}

/// After a restart none of their knocks is remembered. Each is to come in by its first dial: a
/// refused one waits in silence for five seconds before it dials again.
#[tokio::test]
async fn forty_peers_of_one_prefix_that_knock_with_version_2_come_in_by_one_dial_each() {
    use libp2p_knock::{Mode, Version};
    const PEERS: std::ops::Range<u8> = 100..140;
    let one_by_one = PEERS.fold(config(2), |config, seed| {
        config.with_peer(peer(seed), Version::V2, Mode::Yamux).expect("Ed25519")
    });
    for listening in [old(2), one_by_one] {
        let listener = victim(listening).await;
        let dials = PEERS.map(|seed| {
            let dial = authenticated(old(seed)).dial(listener.address.clone(), dialer());
            tokio::spawn(dial.unwrap())
        });
        let dialled = soon("the dials", futures::future::join_all(dials)).await;
        let refused = dialled.iter().filter(|dialled| !matches!(dialled, Ok(Ok(_)))).count();
        assert_eq!(refused, 0);
    }
}

#[cfg(all(feature = "internals", feature = "metrics"))]
/// An inner transport at which callers never cease to arrive, each with `bytes` to say.
struct Flood {
    bytes: Vec<u8>,
    arrived: Arc<AtomicUsize>,
}

#[cfg(all(feature = "internals", feature = "metrics"))]
impl libp2p_core::Transport for Flood {
    type Output = futures::io::AllowStdIo<std::io::Cursor<Vec<u8>>>;
    type Error = std::io::Error;
    type ListenerUpgrade = futures::future::Ready<Result<Self::Output, Self::Error>>;
    type Dial = Self::ListenerUpgrade;

    fn listen_on(&mut self, _: ListenerId, _: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        Ok(())
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _: libp2p_core::transport::DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<libp2p_core::transport::TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        let socket = futures::io::AllowStdIo::new(std::io::Cursor::new(self.bytes.clone()));
        Poll::Ready(libp2p_core::transport::TransportEvent::Incoming {
            listener_id: ListenerId::next(),
            upgrade: futures::future::ready(Ok(socket)),
            local_addr: "/memory/1".parse().unwrap(),
            send_back_addr: "/memory/2".parse().unwrap(),
        })
    }
}

#[cfg(all(feature = "internals", feature = "metrics"))]
#[tokio::test]
async fn one_turn_accepts_at_most_64_sockets_and_opens_at_most_8_knocks_and_asks_to_be_woken() {
    use libp2p_knock::internals;
    let arrived = Arc::new(AtomicUsize::new(0));
    // Boxes that open, and a Diffie-Hellman for what is in them.
    let callee = internals::Callee::of_peer(&peer(2)).unwrap();
    let fresh = internals::Fresh {
        nonce: [1; 12],
        ephemeral: [2; 32],
        flight_key: [3; 32],
    };
    let flood = Flood {
        bytes: internals::wrap(&callee, &libp2p_knock::Network::open(), &fresh, &[9; 176], &[0; 176]),
        arrived: arrived.clone(),
    };
    let mut registry = prometheus_client::registry::Registry::default();
    let config = config(2)
        .with_max_openings(100_000.try_into().unwrap())
        .unwrap()
        .with_metrics(&mut registry)
        .unwrap();
    let mut transport = libp2p_knock::Authenticated::new(flood, config);
    let opened = |registry: &_| crate::metrics::value(registry, "libp2p_knock_knocks_total{outcome=\"refused_noise\"}");
    for turn in 0..100 {
        let before = (arrived.load(Ordering::Relaxed), opened(&registry));
        let waker = Arc::new(Woken::default());
        let poll = Pin::new(&mut transport).poll(&mut Context::from_waker(&waker.clone().into()));
        assert!(poll.is_pending());
        assert!(waker.0.load(Ordering::Relaxed), "turn {turn}: there is more to do");
        let after = (arrived.load(Ordering::Relaxed), opened(&registry));
        assert!(after.0 - before.0 <= 64, "turn {turn}: {} accepted", after.0 - before.0);
        assert!(after.1 - before.1 <= 8.0, "turn {turn}: {} opened", after.1 - before.1);
    }
    assert!(opened(&registry) > 256.0, "the flood was worked off");
}

#[cfg(all(feature = "internals", feature = "metrics"))]
#[derive(Default)]
struct Woken(AtomicBool);

#[cfg(all(feature = "internals", feature = "metrics"))]
impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
