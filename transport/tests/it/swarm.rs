//! The transport inside a stock Swarm.

use crate::common::*;
use futures::StreamExt as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Transport as _, noise, ping, tcp, yamux};
use libp2p_knock::{Config, Error, Failure};
use libp2p_swarm::{ConnectionDenied, ConnectionId, FromSwarm, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm};
use std::task::{Context, Poll};
use std::time::Duration;

pub(crate) type Event = ping::Event;

/// A Swarm that pings as soon as it is connected.
pub(crate) struct Pinging {
    pub(crate) swarm: Swarm<ping::Behaviour>,
}

fn boxed<T, M>(transport: T) -> Boxed<(PeerId, StreamMuxerBox)>
where
    T: libp2p::Transport<Output = (PeerId, M)> + Send + Unpin + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
    T::Error: Send + Sync,
    M: libp2p::core::StreamMuxer + Send + 'static,
    M::Substream: Send,
    M::Error: Send + Sync,
{
    transport
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}

fn swarm_config() -> libp2p::swarm::Config {
    libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60))
}

pub(crate) fn pinging_swarm(transport: libp2p_knock::tokio::Transport, peer: PeerId) -> Pinging {
    let behaviour = ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(50)));
    Pinging {
        swarm: Swarm::new(boxed(transport), behaviour, peer, swarm_config()),
    }
}

impl Pinging {
    /// Listens, and returns the first address.
    pub(crate) async fn listening(&mut self, address: &str) -> Multiaddr {
        self.swarm.listen_on(address.parse().unwrap()).unwrap();
        soon("the listen address", async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = self.swarm.select_next_some().await {
                    return address;
                }
            }
        })
        .await
    }
}

/// Drives the swarm until a ping came back.
pub(crate) async fn wait_for_ping(pinging: &mut Pinging) -> Event {
    loop {
        if let SwarmEvent::Behaviour(event) = pinging.swarm.select_next_some().await {
            event.result.as_ref().expect("a ping that came back");
            return event;
        }
    }
}

#[tokio::test]
async fn one_line_makes_a_stock_swarm_knock_and_dns_names_work() {
    let build = |seed| {
        libp2p::SwarmBuilder::with_existing_identity(keypair(seed))
            .with_tokio()
            .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(Config::new(key)?)))
            .unwrap()
            .with_dns()
            .unwrap()
            .with_behaviour(|_| ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(50))))
            .unwrap()
            .build()
    };
    let mut listening = Pinging { swarm: build(2) };
    let address = listening.listening("/ip4/127.0.0.1/tcp/0/tls").await;
    let port = socket_of(&address).unwrap().port();
    let mut dialling = Pinging { swarm: build(1) };
    let by_name: Multiaddr = format!("/dns4/localhost/tcp/{port}/tls/p2p/{}", peer(2))
        .parse()
        .unwrap();
    dialling.swarm.dial(by_name).unwrap();
    let both = futures::future::join(wait_for_ping(&mut dialling), wait_for_ping(&mut listening));
    let (there, back) = soon("pings both ways", both).await;
    assert_eq!((there.peer, back.peer), (peer(2), peer(1)));
}

#[tokio::test]
async fn a_builder_refuses_a_key_that_cannot_knock_and_says_which() {
    let keypair = libp2p_identity::Keypair::generate_secp256k1();
    let error = libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(Config::new(key)?)))
        .err()
        .expect("secp256k1 cannot knock");
    assert!(error.to_string().contains("Secp256k1"), "{error}");
}

/// Behind TCP, DNS and the boxes of the builder.
#[tokio::test]
async fn our_error_is_found_in_what_the_swarm_reports() {
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(keypair(1))
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(Config::new(key)?)))
        .unwrap()
        .with_dns()
        .unwrap()
        .with_behaviour(|_| ping::Behaviour::default())
        .unwrap()
        .build();
    let nameless: Multiaddr = "/ip4/127.0.0.1/tcp/4001/tls".parse().unwrap();
    swarm.dial(nameless.clone()).unwrap();
    let error = outgoing_error(&mut swarm).await;
    assert!(
        matches!(&error.0, Error::MissingPeerId { address } if *address == nameless),
        "{error:?}"
    );
    assert!(error.1.contains("names no peer"), "{}", error.1);

    let impostor = victim(config(3).dangerous().with_close_time(Duration::from_millis(200))).await;
    let port = impostor.socket.unwrap().port();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}/tls/p2p/{}", peer(2))
        .parse()
        .unwrap();
    swarm.dial(address).unwrap();
    let error = outgoing_error(&mut swarm).await;
    assert!(
        matches!(&error.0, Error::Unanswered(unanswered) if *unanswered.peer() == peer(2)),
        "{error:?}"
    );
}

/// The reason for the next failed dial, and how the Swarm prints it.
async fn outgoing_error(swarm: &mut Swarm<ping::Behaviour>) -> (Error, String) {
    soon("a failed dial", async {
        loop {
            let SwarmEvent::OutgoingConnectionError { error, .. } = swarm.select_next_some().await else {
                continue;
            };
            let shown = error.to_string();
            let DialError::Transport(errors) = error else {
                panic!("{shown}");
            };
            let found = Failure::find(&errors[0].1).unwrap_or_else(|| panic!("not found in {shown}"));
            // `Error` cannot be cloned, as the sources in it cannot.
            let owned = match found {
                Error::MissingPeerId { address } => Error::MissingPeerId {
                    address: address.clone(),
                },
                Error::Unanswered(unanswered) => Error::Unanswered(unanswered.clone()),
                other => panic!("{other:?}"),
            };
            return (owned, shown);
        }
    })
    .await
}

#[tokio::test]
async fn two_swarms_that_dial_each_other_at_once_both_connect() {
    for _ in 0..20 {
        let mut one = pinging_swarm(tcp(1), peer(1));
        let mut two = pinging_swarm(tcp(2), peer(2));
        let address_one = one
            .listening("/ip4/127.0.0.1/tcp/0/tls")
            .await
            .with_p2p(peer(1))
            .unwrap();
        let address_two = two
            .listening("/ip4/127.0.0.1/tcp/0/tls")
            .await
            .with_p2p(peer(2))
            .unwrap();
        one.swarm.dial(address_two.clone()).unwrap();
        two.swarm.dial(address_one.clone()).unwrap();
        let both = futures::future::join(
            ping_or_redial(&mut one, &address_two),
            ping_or_redial(&mut two, &address_one),
        );
        let (there, back) = soon("pings both ways", both).await;
        assert_eq!((there.peer, back.peer), (peer(2), peer(1)));
    }
}

/// With `PortUse::Reuse` and both ends listening, the two SYNs cross on one pair of ports and become one connection:
/// TCP's simultaneous open, the heart of a hole punch, without a NAT.
/// Two that dial each other's listening port from their own at the very same moment may meet in one TCP connection (a
/// simultaneous open, RFC 9293, 3.5), where both knock and nobody answers: stock transports fail there too. Whoever has
/// no connection then dials again.
async fn ping_or_redial(pinging: &mut Pinging, address: &Multiaddr) -> Event {
    loop {
        match pinging.swarm.select_next_some().await {
            SwarmEvent::Behaviour(event) => {
                event.result.as_ref().expect("a ping that came back");
                return event;
            }
            SwarmEvent::OutgoingConnectionError { .. } if pinging.swarm.connected_peers().next().is_none() => {
                pinging.swarm.dial(address.clone()).unwrap();
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn in_a_simultaneous_open_the_one_with_the_listeners_role_answers() {
    let mut one = pinging_swarm(tcp(1), peer(1));
    let mut two = pinging_swarm(tcp(2), peer(2));
    let address_one = one
        .listening("/ip4/127.0.0.1/tcp/0/tls")
        .await
        .with_p2p(peer(1))
        .unwrap();
    let address_two = two
        .listening("/ip4/127.0.0.1/tcp/0/tls")
        .await
        .with_p2p(peer(2))
        .unwrap();
    let dial = |peer, address| {
        DialOpts::peer_id(peer)
            .addresses(vec![address])
            .condition(PeerCondition::Always)
    };
    one.swarm.dial(dial(peer(2), address_two).build()).unwrap();
    two.swarm
        .dial(dial(peer(1), address_one).override_role().build())
        .unwrap();
    let established = |pinging: &mut Pinging| {
        let swarm = std::mem::replace(&mut pinging.swarm, pinging_swarm(tcp(9), peer(9)).swarm);
        async move {
            let mut swarm = swarm;
            loop {
                if let SwarmEvent::ConnectionEstablished { endpoint, .. } = swarm.select_next_some().await {
                    return (swarm, endpoint);
                }
            }
        }
    };
    let both = futures::future::join(established(&mut one), established(&mut two));
    let ((_one, first), (_two, second)) = soon("connections", both).await;
    // Whether the SYNs really crossed is the kernel's affair; who is whose TLS client is ours.
    assert!(matches!(
        first,
        ConnectedPoint::Dialer {
            role_override: Endpoint::Dialer,
            ..
        }
    ));
    assert!(
        second.is_listener()
            || matches!(
                second,
                ConnectedPoint::Dialer {
                    role_override: Endpoint::Listener,
                    ..
                }
            )
    );
}

/// A behaviour that has something to say whenever it is asked: every other poll, as one that never let go would starve
/// every transport there is (`Swarm::poll_next_event` asks the behaviour first and starts over when it answers).
#[derive(Default)]
struct Chatty {
    quiet: bool,
    said: u64,
}

impl NetworkBehaviour for Chatty {
    type ConnectionHandler = libp2p::swarm::dummy::ConnectionHandler;
    type ToSwarm = u64;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(libp2p::swarm::dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: libp2p::core::transport::PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(libp2p::swarm::dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<u64, THandlerInEvent<Self>>> {
        self.quiet = !self.quiet;
        if self.quiet {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.said += 1;
        Poll::Ready(ToSwarm::GenerateEvent(self.said))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dials_and_knocks_progress_beside_a_behaviour_that_is_always_ready() {
    let chatty = |seed| Swarm::new(boxed(tcp(seed)), Chatty::default(), peer(seed), swarm_config());
    let (mut listening, mut dialling) = (chatty(2), chatty(1));
    listening
        .listen_on("/ip4/127.0.0.1/tcp/0/tls".parse().unwrap())
        .unwrap();
    let address = soon("the listen address", async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = listening.select_next_some().await {
                return address;
            }
        }
    })
    .await;
    dialling.dial(address.with_p2p(peer(2)).unwrap()).unwrap();
    let established = |mut swarm: Swarm<Chatty>| {
        tokio::spawn(async move {
            let mut found = None;
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { peer_id, .. } => found = Some(peer_id),
                    // The connection may be there before the first word is. The words go on all the same.
                    SwarmEvent::Behaviour(_) if found.is_some() => return (found, swarm),
                    _ => {}
                }
            }
        })
    };
    let both = futures::future::join(established(listening), established(dialling));
    let (there, back) = soon("both ends connected", both).await;
    let ((caller, _listening), (found, _dialling)) = (there.unwrap(), back.unwrap());
    assert_eq!((caller, found), (Some(peer(1)), Some(peer(2))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_parallel_dials_all_arrive() {
    const DIALS: usize = 1_000;
    rlimit::increase_nofile_limit(8 * DIALS as u64).expect("can raise the limit");
    let transport = libp2p_knock::Transport::new(tcp::tokio::Transport::default(), patient(2));
    let mut listener = listen(transport, peer(2), "/ip4/127.0.0.1/tcp/0/tls").await;
    let mut dialling = libp2p_knock::Transport::new(tcp::tokio::Transport::default(), patient(1));
    let dials: Vec<_> = (0..DIALS)
        .map(|_| dialling.dial(listener.address.clone(), dialer()).unwrap())
        .map(tokio::spawn)
        .collect();
    let accepted = async {
        let mut connections = Vec::new();
        while connections.len() < DIALS {
            connections.push(listener.upgraded().await.expect("an inbound connection"));
        }
        connections
    };
    let both = futures::future::join(futures::future::join_all(dials), accepted);
    let (dialled, accepted) = tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .expect("all of them");
    assert_eq!(accepted.len(), DIALS);
    for dial in dialled {
        assert_eq!(dial.unwrap().expect("an outbound connection").0, peer(2));
    }
}

/// A thousand handshakes with both ends on two slow cores take longer than one may take, and a thousand sockets may be
/// accepted before the first of them gets to send its knock.
fn patient(seed: u8) -> Config {
    config(seed)
        .with_max_waiting(100_000.try_into().unwrap())
        .with_max_openings(100_000.try_into().unwrap())
        .unwrap()
        .with_handshake_timeout(Duration::from_secs(60))
}

/// Stock TCP + Noise with everything lazily negotiated, to show that both live side by side.
#[tokio::test]
async fn a_stock_dialer_at_a_knock_port_gets_no_byte_and_fails() {
    let listener = victim(config(2).dangerous().with_close_time(Duration::from_millis(300))).await;
    let stock = tcp::tokio::Transport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&keypair(1)).unwrap())
        .multiplex(yamux::Config::default());
    let mut swarm = Swarm::new(boxed(stock), ping::Behaviour::default(), peer(1), swarm_config());
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", listener.socket.unwrap().port(), peer(2))
        .parse()
        .unwrap();
    swarm.dial(address).unwrap();
    let failed = soon("a failed dial", async {
        loop {
            if let SwarmEvent::OutgoingConnectionError { error, .. } = swarm.select_next_some().await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(failed, DialError::Transport(_)), "{failed}");
}
