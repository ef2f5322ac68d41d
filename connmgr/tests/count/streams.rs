use futures::future::{Either, FutureExt as _, poll_fn, select};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, Transport as _, noise, quic, tcp, yamux};
use libp2p_connmgr::count::{Activity, Error, Muxer, Registry, Transport};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

type Stack = Boxed<(PeerId, StreamMuxerBox)>;

/// Makes one.
type Make = fn(&Keypair) -> Stack;

const STACKS: [(&str, Make, &str); 3] = [
    ("knock", knock, "/ip4/127.0.0.1/tcp/0/tls"),
    ("noise", noise, "/ip4/127.0.0.1/tcp/0"),
    ("quic", quic, "/ip4/127.0.0.1/udp/0/quic-v1"),
];

fn knock(key: &Keypair) -> Stack {
    let transport = libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key).unwrap());
    transport
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}

fn noise(key: &Keypair) -> Stack {
    tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed()
}

fn quic(key: &Keypair) -> Stack {
    let transport = quic::tokio::Transport::new(quic::Config::new(key));
    transport
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}

/// One end of a counted connection.
struct End {
    muxer: Muxer<StreamMuxerBox>,
    activity: Activity,
    registry: Registry,
    // What it came from must outlive some connections.
    _transport: Transport<Stack>,
}

/// As [`connect_now`]. A sealed knock must be younger than the process that it knocks at, to the clock tick, and tests
/// begin so soon after theirs that one now and then is not.
async fn connect(stack: Make, listen: &str) -> (End, End) {
    loop {
        match connect_now(stack, listen).await {
            Ok(ends) => return ends,
            Err(error) => println!("once more: {error}"),
        }
    }
}

/// Both ends of a new connection, dialler first, each joined as a Swarm would report it.
async fn connect_now(stack: Make, listen: &str) -> Result<(End, End), std::io::Error> {
    let (left, right) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (left_id, right_id) = (left.public().to_peer_id(), right.public().to_peer_id());
    let (dialling, listening) = (Registry::new(), Registry::new());
    let mut dialer = Transport::new(stack(&left), dialling.clone());
    let mut listener = Transport::new(stack(&right), listening.clone());
    listener.listen_on(ListenerId::next(), listen.parse().unwrap()).unwrap();
    let address = loop {
        if let TransportEvent::NewAddress { listen_addr, .. } = next(&mut listener).await {
            break listen_addr.with_p2p(right_id).unwrap();
        }
    };
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let dial = dialer.dial(address.clone(), opts).unwrap();
    let accept = async {
        loop {
            if let TransportEvent::Incoming {
                upgrade,
                local_addr,
                send_back_addr,
                ..
            } = next(&mut listener).await
            {
                // QUIC needs its endpoint driven to complete a handshake.
                let drive = Box::pin(async {
                    loop {
                        next(&mut listener).await;
                    }
                });
                let Either::Right((accepted, _)) = select(drive, upgrade).await;
                break (accepted.unwrap(), local_addr, send_back_addr);
            }
        }
    };
    // The same for the dialler's.
    let drive = Box::pin(async {
        loop {
            next(&mut dialer).await;
        }
    });
    // Whichever end is ready first has to be driven for the other one to become so.
    let both = Box::pin(async {
        match select(Box::pin(dial), Box::pin(accept)).await {
            Either::Left((dialled, accept)) => {
                let (peer, mut muxer) = dialled?;
                let accepted = driving(&mut muxer, accept).await;
                Ok::<_, std::io::Error>(((peer, muxer), accepted))
            }
            Either::Right((((peer, mut muxer), local, remote), dial)) => {
                let dialled = driving(&mut muxer, dial).await?;
                Ok((dialled, ((peer, muxer), local, remote)))
            }
        }
    });
    let Either::Right((both, _)) = select(drive, both).await;
    let (dialled, accepted) = both?;
    let (peer, muxer) = dialled;
    assert_eq!(peer, right_id);
    let point = ConnectedPoint::Dialer {
        address,
        role_override: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let left = End {
        muxer,
        activity: dialling.join(&peer, &point).expect("joined"),
        registry: dialling,
        _transport: dialer,
    };
    let ((peer, muxer), local_addr, send_back_addr) = accepted;
    assert_eq!(peer, left_id);
    let point = ConnectedPoint::Listener {
        local_addr,
        send_back_addr,
    };
    let right = End {
        muxer,
        activity: listening.join(&peer, &point).expect("joined"),
        registry: listening,
        _transport: listener,
    };
    Ok((left, right))
}

async fn driving<F: Future + Unpin>(muxer: &mut Muxer<StreamMuxerBox>, mut future: F) -> F::Output {
    poll_fn(|cx| {
        while let Poll::Ready(event) = muxer.poll_unpin(cx) {
            event.unwrap();
        }
        future.poll_unpin(cx)
    })
    .await
}

type Event = TransportEvent<
    <Transport<Stack> as libp2p::Transport>::ListenerUpgrade,
    <Transport<Stack> as libp2p::Transport>::Error,
>;

async fn next(transport: &mut Transport<Stack>) -> Event {
    poll_fn(|cx| Pin::new(&mut *transport).poll(cx)).await
}

type Substream = libp2p_connmgr::count::Substream<SubstreamBox>;

/// Opens a stream at `from`, and greets over it, until it arrives at `to`.
async fn open(from: &mut End, to: &mut End) -> (Substream, Substream) {
    let mut opened = poll_fn(|cx| {
        drive(from, cx);
        drive(to, cx);
        from.muxer.poll_outbound_unpin(cx)
    })
    .await
    .unwrap();
    // Nothing moves unless both ends are driven.
    let mut greeting = Box::pin(async {
        opened.write_all(b"x").await.unwrap();
        opened.flush().await.unwrap();
    })
    .fuse();
    let arrived = poll_fn(|cx| {
        let _ = greeting.poll_unpin(cx);
        drive(from, cx);
        drive(to, cx);
        to.muxer.poll_inbound_unpin(cx)
    })
    .await
    .unwrap();
    drop(greeting);
    (opened, arrived)
}

fn drive(end: &mut End, cx: &mut Context<'_>) {
    while let Poll::Ready(event) = end.muxer.poll_unpin(cx) {
        event.unwrap();
    }
}

#[tokio::test]
async fn streams_are_counted_at_both_ends_over_every_transport() {
    for (name, stack, listen) in STACKS {
        let (mut left, mut right) = connect(stack, listen).await;
        let counts = |end: &End| (end.activity.inbound(), end.activity.outbound(), end.activity.streams());
        assert_eq!((counts(&left), counts(&right)), ((0, 0, 0), (0, 0, 0)), "{name}");
        assert_eq!((left.registry.waiting(), right.registry.waiting()), (0, 0), "{name}");

        let first = open(&mut left, &mut right).await;
        let second = open(&mut left, &mut right).await;
        let third = open(&mut right, &mut left).await;
        assert_eq!((counts(&left), counts(&right)), ((1, 2, 3), (2, 1, 3)), "{name}");
        drop(first.0);
        drop(third.1);
        assert_eq!((counts(&left), counts(&right)), ((0, 1, 1), (2, 1, 3)), "{name}");
        drop((first.1, second, third.0));
        assert_eq!((counts(&left), counts(&right)), ((0, 0, 0), (0, 0, 0)), "{name}");
    }
}

#[tokio::test]
async fn bytes_that_arrive_are_activity() {
    for (name, stack, listen) in STACKS {
        let (mut left, mut right) = connect(stack, listen).await;
        let (mut near, mut far) = open(&mut left, &mut right).await;
        let before = right.activity.last();
        // The clock is one of seconds.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let mut two = [0; 2];
        let read = Box::pin(async {
            near.write_all(b"y").await.unwrap();
            near.flush().await.unwrap();
            far.read_exact(&mut two).await
        });
        let pump = Box::pin(poll_fn(|cx| {
            drive(&mut left, cx);
            drive(&mut right, cx);
            Poll::<()>::Pending
        }));
        let Either::Left((read, _)) = select(read, pump).await else {
            unreachable!("the second never ends")
        };
        read.unwrap();
        assert!(right.activity.last() > before, "{name}");
    }
}

#[tokio::test]
async fn what_is_counted_outlives_the_connection_and_then_shows_no_stream() {
    let (_, stack, listen) = STACKS[0];
    let (mut left, mut right) = connect(stack, listen).await;
    let streams = open(&mut left, &mut right).await;
    let activity = left.activity.clone();
    drop((left, right));
    assert_eq!(activity.streams(), 1);
    drop(streams);
    assert_eq!(activity.streams(), 0);
}

/// A muxer that never gets around to closing, as one whose peer has stopped reading.
struct Stuck;

impl StreamMuxer for Stuck {
    type Substream = SubstreamBox;
    type Error = std::io::Error;

    fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<SubstreamBox, std::io::Error>> {
        Poll::Pending
    }

    fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<SubstreamBox, std::io::Error>> {
        Poll::Pending
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Pending
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, std::io::Error>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn a_connection_that_does_not_close_is_given_up_in_time() {
    const LIMIT: Duration = Duration::from_millis(50);
    let (_, stack, listen) = STACKS[1];
    let inner = stack(&Keypair::generate_ed25519())
        .map(|(peer, _), _| (peer, Stuck))
        .boxed();
    let mut dialer = Transport::new(inner, Registry::new()).with_close_timeout(LIMIT);
    let mut listener = stack(&Keypair::generate_ed25519());
    listener.listen_on(ListenerId::next(), listen.parse().unwrap()).unwrap();
    let mut address: Option<Multiaddr> = None;
    while address.is_none() {
        let event = poll_fn(|cx| Pin::new(&mut listener).poll(cx)).await;
        address = event.into_new_address();
    }
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let dial = dialer.dial(address.unwrap(), opts).unwrap();
    let accept = pin!(async {
        let mut upgrades = Vec::new();
        loop {
            let event = poll_fn(|cx| Pin::new(&mut listener).poll(cx)).await;
            if let Some((upgrade, _)) = event.into_incoming() {
                upgrades.push(tokio::spawn(upgrade));
            }
        }
    });
    let Either::Left((dialled, _)) = select(dial, accept).await;
    let (_, mut muxer) = dialled.unwrap();
    let start = std::time::Instant::now();
    let closed = poll_fn(|cx| muxer.poll_close_unpin(cx)).await;
    assert!(matches!(closed, Err(Error::CloseTimedOut(LIMIT))), "{closed:?}");
    assert!(start.elapsed() >= LIMIT);
}
