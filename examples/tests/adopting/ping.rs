//! `examples/ping`: dials what it is told to, and pings.

use crate::common::{failure, is_marked, knock, listen, reason, until};
use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, ping, tcp, yamux};
use libp2p_knock::Error;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

fn program() -> Swarm<ping::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(knock)
        .unwrap()
        .with_behaviour(|_| ping::Behaviour::default())
        .unwrap()
        .build()
}

fn stock() -> Swarm<ping::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| ping::Behaviour::default())
        .unwrap()
        .build()
}

/// Whether both have pinged each other.
async fn ping_each_other(mut dialer: Swarm<ping::Behaviour>, address: Multiaddr, mut listener: Swarm<ping::Behaviour>) {
    let pinged = |event: &SwarmEvent<ping::Event>| match event {
        SwarmEvent::Behaviour(ping::Event { result: Ok(_), .. }) => Some(()),
        SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
        _ => None,
    };
    dialer.dial(address).unwrap();
    let listening = tokio::spawn(async move {
        until(&mut listener, pinged).await;
        // Until the other end has its answer too.
        loop {
            listener.select_next_some().await;
        }
    });
    until(&mut dialer, pinged).await;
    listening.abort();
}

#[tokio::test]
async fn what_it_printed_cannot_be_dialled_without_its_peer_id() {
    let mut listener = program();
    let printed = listen(&mut listener).await;
    assert!(is_marked(&printed), "{printed}");
    // As the example prints it. Stock TCP learns who answers; a knock is made for one peer.
    let error = failure(&mut program(), &printed, &mut stock()).await;
    assert!(
        matches!(reason(&error), Error::MissingPeerId { address } if *address == printed),
        "{error}"
    );
    assert!(error.to_string().contains("add /p2p/<peer id>"), "{error}");
    let whole = printed.with_p2p(*listener.local_peer_id()).unwrap();
    ping_each_other(program(), whole, listener).await;
}

#[tokio::test]
async fn an_address_that_the_program_builds_needs_the_mark_before_the_peer() {
    let mut listener = program();
    let printed = listen(&mut listener).await;
    let peer = *listener.local_peer_id();
    let port = printed.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let built = |marked: bool| {
        let address = Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(port.unwrap()));
        let address = if marked { address.with(Protocol::Tls) } else { address };
        address.with_p2p(peer).unwrap()
    };
    let error = failure(&mut program(), &built(false), &mut stock()).await;
    assert!(error.to_string().contains("Multiaddr is not supported"), "{error}");
    let behind = built(false).with(Protocol::Tls);
    let error = failure(&mut program(), &behind, &mut stock()).await;
    assert!(matches!(reason(&error), Error::MissingPeerId { .. }), "{error}");
    ping_each_other(program(), built(true), listener).await;
}

#[tokio::test]
async fn an_address_that_the_program_takes_apart_ends_in_the_mark() {
    let mut listener = program();
    let printed = listen(&mut listener).await;
    let mut stripped = printed.clone().with_p2p(*listener.local_peer_id()).unwrap();
    let (whole, other) = (stripped.clone(), Keypair::generate_ed25519().public().to_peer_id());
    assert_eq!(whole.clone().with_p2p(*listener.local_peer_id()), Ok(whole.clone()));
    assert_eq!(whole.clone().with_p2p(other), Err(whole));
    assert_eq!(stripped.pop(), Some(Protocol::P2p(*listener.local_peer_id())));
    assert_eq!(stripped, printed);
    // As programs do that want a socket address: this one took the whole of a stock address.
    let whole = |address: &Multiaddr| {
        let parts: Vec<_> = address.iter().collect();
        matches!(parts[..], [Protocol::Ip4(_), Protocol::Tcp(_)])
    };
    assert!(!whole(&stripped));
    assert_eq!(stripped.pop(), Some(Protocol::Tls));
    assert!(whole(&stripped));
}

#[tokio::test]
async fn a_wrong_id_is_a_timeout_of_five_seconds_and_never_a_wrong_peer_id() {
    let wrong = Keypair::generate_ed25519().public().to_peer_id();
    let mut listener = stock();
    listener.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = until(&mut listener, |event| match event {
        SwarmEvent::NewListenAddr { address, .. } => Some(address.clone()),
        _ => None,
    });
    let address = address.await.with_p2p(wrong).unwrap();
    let error = failure(&mut stock(), &address, &mut listener).await;
    assert!(matches!(error, DialError::WrongPeerId { .. }), "{error:?}");

    let mut listener = program();
    let address = listen(&mut listener).await.with_p2p(wrong).unwrap();
    let start = Instant::now();
    let error = failure(&mut program(), &address, &mut listener).await;
    assert!(
        matches!(reason(&error), Error::Timeout(after) if *after == Duration::from_secs(5)),
        "{error:?}"
    );
    assert!(start.elapsed() >= Duration::from_secs(5));
}

#[tokio::test]
async fn a_random_peer_id_is_no_key_that_can_be_knocked_at() {
    let mut listener = program();
    let address = listen(&mut listener).await.with_p2p(PeerId::random()).unwrap();
    let error = failure(&mut program(), &address, &mut listener).await;
    assert!(matches!(reason(&error), Error::UnsupportedKey { .. }), "{error:?}");
    // For tests there is this.
    let peer = Keypair::generate_ed25519().public().to_peer_id();
    assert_ne!(peer, PeerId::random());
}

#[tokio::test]
async fn the_dialer_is_established_before_the_listener_and_may_be_alone() {
    #[derive(Debug, thiserror::Error)]
    #[error("not a member")]
    struct NotAMember;
    // What is only known when the peer is proven: here, that it is not let in.
    let mut listener = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|key| {
            let config = libp2p_knock::Config::new(key)?.with_secured_hook(|_, _| Err(NotAMember.into()));
            Ok(libp2p_knock::tokio::Transport::new(config))
        })
        .unwrap()
        .with_behaviour(|_| ping::Behaviour::default())
        .unwrap()
        .build();
    let address = listen(&mut listener).await.with_p2p(*listener.local_peer_id()).unwrap();
    let mut dialer = program();
    dialer.dial(address).unwrap();
    let (mut established, mut closed) = (0, false);
    while !closed {
        tokio::select! {
            event = dialer.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { .. } => established += 1,
                SwarmEvent::ConnectionClosed { .. } => closed = true,
                SwarmEvent::Behaviour(ping::Event { result: Ok(_), .. }) => panic!("it was answered"),
                _ => {}
            },
            event = listener.select_next_some() => {
                assert!(!matches!(event, SwarmEvent::ConnectionEstablished { .. }));
            }
        }
    }
    assert_eq!(established, 1);
}

#[tokio::test]
async fn a_stranger_is_no_event() {
    let mut listener = program();
    let printed = listen(&mut listener).await;
    let port = printed.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let mut stranger = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port.unwrap())).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let stranger = stranger.local_addr().unwrap().port();
    let mut dialer = program();
    dialer
        .dial(printed.with_p2p(*listener.local_peer_id()).unwrap())
        .unwrap();
    tokio::spawn(async move {
        loop {
            dialer.select_next_some().await;
        }
    });
    // The stranger was there first.
    let mut incoming = 0;
    until(&mut listener, |event| match event {
        SwarmEvent::IncomingConnection { send_back_addr, .. } => {
            assert!(!send_back_addr.iter().any(|part| part == Protocol::Tcp(stranger)));
            incoming += 1;
            None
        }
        SwarmEvent::IncomingConnectionError { error, .. } => panic!("{error}"),
        SwarmEvent::ConnectionEstablished { .. } => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(incoming, 1);
}

#[tokio::test]
async fn the_port_of_stock_tcp_is_not_the_knocks() {
    let mut both = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_other_transport(knock)
        .unwrap()
        .with_behaviour(|_| ping::Behaviour::default())
        .unwrap()
        .build();
    both.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let stock = until(&mut both, |event| match event {
        SwarmEvent::NewListenAddr { address, .. } => Some(address.clone()),
        _ => None,
    })
    .await;
    let error = both.listen_on(stock.clone().with(Protocol::Tls)).unwrap_err();
    let found = libp2p_knock::Failure::find(&error);
    assert!(matches!(found, Some(Error::PortInUse { .. })), "{error:?}");
    assert!(is_marked(&listen(&mut both).await));
}
