//! What a dialer is told, and when it does what.

mod dropped;

use crate::common::*;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p_core::transport::{DialOpts, PortUse, TransportError};
use libp2p_core::{Endpoint, Multiaddr, Transport as _};
use libp2p_identity::Keypair;
use libp2p_knock::unanswered::Heard;
use libp2p_knock::{Error, Failure, KeyExchange, Mode, Role, Stage};
use std::time::Duration;

fn refused(result: Result<impl Sized, TransportError<Failure>>) -> Error {
    match result {
        Ok(_) => panic!("the dial was taken"),
        Err(TransportError::Other(failure)) => {
            assert_eq!(failure.stage(), Stage::Address);
            failure.into_error()
        }
        Err(TransportError::MultiaddrNotSupported(address)) => panic!("{address} is not supported"),
    }
}

#[tokio::test]
async fn friends_talk_both_ways_and_each_knows_the_other() {
    let mut listener = victim(config(2)).await;
    let dial = authenticated(config(1))
        .dial(listener.address.clone(), dialer())
        .unwrap();
    let (found, mut ours) = soon("the dial", dial).await.unwrap();
    let (caller, mut theirs) = listener.upgraded().await.unwrap();
    assert_eq!((found, caller), (peer(2), peer(1)));
    assert_eq!((ours.peer(), theirs.peer()), (peer(2), peer(1)));
    assert_eq!((ours.role(), theirs.role()), (Role::Dialer, Role::Listener));
    assert_eq!(ours.mode(), Mode::Yamux);
    assert_eq!(ours.key_exchange(), Some(KeyExchange::X25519MlKem768));
    assert_eq!(theirs.key_exchange(), ours.key_exchange());

    let message: Vec<u8> = (0..1_000_000u32).map(|i| i as u8).collect();
    let echo = async {
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).await.unwrap();
        theirs.write_all(&received).await.unwrap();
        theirs.close().await.unwrap();
    };
    let say = async {
        ours.write_all(&message).await.unwrap();
        ours.close().await.unwrap();
        let mut back = Vec::new();
        ours.read_to_end(&mut back).await.unwrap();
        back
    };
    let ((), back) = soon("the echo", futures::future::join(echo, say)).await;
    assert!(back == message, "{} bytes came back", back.len());
}

#[tokio::test]
async fn a_dial_without_a_peer_id_is_an_error_that_says_so() {
    let address: Multiaddr = "/ip4/127.0.0.1/tcp/4001/tls".parse().unwrap();
    let error = refused(tcp(1).dial(address.clone(), dialer()));
    assert!(matches!(&error, Error::MissingPeerId { address: named } if *named == address));
    assert!(error.to_string().contains("/p2p/"), "{error}");
}

#[tokio::test]
async fn other_transports_addresses_are_left_to_them() {
    for address in [
        format!("/ip4/127.0.0.1/tcp/4001/p2p/{}", peer(2)),
        format!("/memory/7/tls/p2p/{}", peer(2)),
        "/memory/7/tls".to_owned(),
        format!("/dns4/localhost/tcp/4001/tls/p2p/{}", peer(2)),
        format!("/ip4/127.0.0.1/udp/4001/quic-v1/p2p/{}", peer(2)),
        format!("/ip4/127.0.0.1/tcp/443/tls/ws/p2p/{}", peer(2)),
    ] {
        let address: Multiaddr = address.parse().unwrap();
        match tcp(1).dial(address.clone(), dialer()) {
            Err(TransportError::MultiaddrNotSupported(back)) => assert_eq!(back, address, "as the user wrote it"),
            Err(TransportError::Other(failure)) => panic!("{address}: {failure}"),
            Ok(_) => panic!("{address} was dialled"),
        }
    }
}

#[tokio::test]
async fn a_peer_that_the_address_names_twice_is_one_peer() {
    let mut listener = victim(config(2)).await;
    let twice = listener
        .address
        .clone()
        .with(libp2p_core::multiaddr::Protocol::P2p(peer(2)));
    let dial = authenticated(config(1)).dial(twice, dialer()).unwrap();
    let (found, _) = soon("the dial", dial).await.unwrap();
    assert_eq!(found, peer(2));
    listener.upgraded().await.unwrap();

    let ours = format!("/ip4/127.0.0.1/tcp/0/tls/p2p/{0}/p2p/{0}", peer(2));
    listen(authenticated(config(2)), peer(2), &ours).await;

    let two = format!("/ip4/127.0.0.1/tcp/4001/tls/p2p/{}/p2p/{}", peer(2), peer(3));
    let two: Multiaddr = two.parse().unwrap();
    assert!(!libp2p_knock::is_knock_address(&two));
    assert!(matches!(
        authenticated(config(1)).dial(two, dialer()),
        Err(TransportError::MultiaddrNotSupported(_))
    ));
}

/// Whatever `inner` is, a circuit through a relay that it could reach is not its own.
fn leaves_circuits_alone<T>(inner: T, relay: Multiaddr)
where
    T: libp2p_core::Transport + Unpin + Send + 'static,
    T::Output: futures::AsyncRead + futures::AsyncWrite + Unpin + Send + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    use libp2p_core::multiaddr::Protocol;
    let mut transport = libp2p_knock::Transport::new(inner, config(1));
    for relay in [relay.clone(), relay.with(Protocol::Tls)] {
        let circuit = relay.with(Protocol::P2p(peer(2))).with(Protocol::P2pCircuit);
        let (plain, marked) = (circuit.clone(), circuit.with(Protocol::Tls));
        let to = Protocol::P2p(peer(3));
        for address in [plain.clone().with(to.clone()), marked.clone().with(to)] {
            match transport.dial(address.clone(), dialer()) {
                Err(TransportError::MultiaddrNotSupported(back)) => assert_eq!(back, address),
                Err(TransportError::Other(failure)) => panic!("{address}: {failure}"),
                Ok(_) => panic!("{address} was dialled"),
            }
        }
        for address in [plain, marked] {
            let id = libp2p_core::transport::ListenerId::next();
            match transport.listen_on(id, address.clone()) {
                Err(TransportError::MultiaddrNotSupported(back)) => assert_eq!(back, address),
                other => panic!("{address}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn circuits_are_left_to_transports_that_carry_them() {
    // Memory and Unix sockets take no notice of what follows a peer in an address.
    leaves_circuits_alone(
        libp2p_core::transport::MemoryTransport::default(),
        "/memory/7".parse().unwrap(),
    );
    leaves_circuits_alone(
        libp2p::tcp::tokio::Transport::default(),
        "/ip4/127.0.0.1/tcp/4001".parse().unwrap(),
    );
    #[cfg(unix)]
    {
        use libp2p_core::Transport as _;
        use tokio_util::compat::TokioAsyncReadCompatExt as _;
        let sockets = libp2p_uds::Config::new().map(|stream: tokio::net::UnixStream, _| stream.compat());
        let path = libp2p_core::multiaddr::Protocol::Unix("/nowhere/socket".into());
        leaves_circuits_alone(sockets, path.into());
    }
    // Names are looked up before it is asked what the address is.
    let names = libp2p::dns::tokio::Transport::custom(
        libp2p::tcp::tokio::Transport::default(),
        libp2p::dns::ResolverConfig::default(),
        libp2p::dns::ResolverOpts::default(),
    );
    leaves_circuits_alone(names, "/ip4/127.0.0.1/tcp/4001".parse().unwrap());
}

#[tokio::test]
async fn peers_whose_keys_cannot_be_knocked_at_are_refused_before_any_packet() {
    for (keypair, word) in [
        (Keypair::generate_secp256k1(), "Secp256k1"),
        (Keypair::generate_ecdsa(), "RSA or ECDSA"),
    ] {
        let address = format!("/ip4/127.0.0.1/tcp/4001/tls/p2p/{}", keypair.public().to_peer_id());
        let error = refused(tcp(1).dial(address.parse().unwrap(), dialer()));
        assert!(matches!(error, Error::UnsupportedKey { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn dialling_ourselves_is_an_error() {
    let address = format!("/ip4/127.0.0.1/tcp/4001/tls/p2p/{}", peer(1));
    assert!(matches!(
        refused(tcp(1).dial(address.parse().unwrap(), dialer())),
        Error::SelfDial
    ));
}

#[tokio::test]
async fn nobody_at_the_address_is_an_inner_error() {
    // Bound, so that nobody else gets the port, and not listened on.
    let free = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    free.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into())
        .unwrap();
    let port = free.local_addr().unwrap().as_socket().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{port}/tls/p2p/{}", peer(2));
    let failure = tcp(1)
        .dial(address.parse().unwrap(), dialer())
        .unwrap()
        .await
        .unwrap_err();
    assert_eq!(failure.stage(), Stage::Inner);
    assert!(matches!(failure.error(), Error::Inner(_)));
}

/// A listener that is somebody else does not even understand the knock: it was made for another key.
#[tokio::test]
async fn a_wrong_peer_at_the_address_meets_our_knock_with_silence() {
    let mut listener = victim(config(3).dangerous().with_close_time(Duration::from_millis(300))).await;
    let socket = listener.socket.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}/tls/p2p/{}", socket.port(), peer(2));
    let dial = tcp(1).dial(address.parse().unwrap(), dialer()).unwrap();
    let failure = soon("the dial", dial).await.unwrap_err();
    assert_eq!(*unanswered(&failure).heard(), Heard::Closed);
    assert_eq!(failure.stage(), Stage::Knock);
    listener.nothing_for(Duration::from_millis(50)).await;
}

/// Somebody at peer 2's address who answers our knock, which takes no secret, and then shows a certificate of
/// `certificate_of`, `count` times. What our dial says to that. His own handshake fails, and is not finished.
async fn dialled_at_an_impostor(certificate_of: u8, count: usize) -> Error {
    let impostor = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = at_peer_2(impostor.local_addr().unwrap());
    let serve = tokio::task::spawn_blocking(move || {
        let (mut socket, _) = impostor.accept().unwrap();
        std::io::Read::read_exact(&mut socket, &mut [0; 97]).unwrap();
        let mut tls = tls_server(certificate_of, count);
        let shake = tls.complete_io(&mut socket);
        (shake.is_err(), tls.is_handshaking())
    });
    let failure = soon(
        "the dial",
        libp2p_knock::tokio::Transport::new(old(1))
            .dial(address, dialer())
            .unwrap(),
    )
    .await
    .unwrap_err();
    assert_eq!(serve.await.unwrap(), (true, true), "the impostor's handshake went on");
    failure.into_error()
}

fn at_peer_2(socket: std::net::SocketAddr) -> Multiaddr {
    let address = format!("/ip4/127.0.0.1/tcp/{}/tls/p2p/{}", socket.port(), peer(2));
    address.parse().unwrap()
}

fn tls_server(certificate_of: u8, count: usize) -> rustls::ServerConnection {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = rustls_identity(certificate_of, count);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"/yamux/1.0.0".to_vec()];
    rustls::ServerConnection::new(std::sync::Arc::new(config)).unwrap()
}

#[tokio::test]
async fn an_impostor_who_answers_the_knock_is_named_and_gets_no_byte_more() {
    match dialled_at_an_impostor(3, 1).await {
        Error::WrongPeer { expected, found } => assert_eq!((expected, found), (peer(2), peer(3))),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_certificates_from_the_listener_are_refused() {
    match dialled_at_an_impostor(2, 2).await {
        Error::Certificate(refusal) => assert_eq!(refusal, libp2p_knock::CertificateRefusal::Count(2)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_listener_that_never_answers_is_given_up_after_the_handshake_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = at_peer_2(silent.local_addr().unwrap());
    let limit = Duration::from_millis(200);
    let mut transport = authenticated(config(1).with_handshake_timeout(limit));
    let dial = transport.dial(address, dialer()).unwrap();
    let (held, result) = futures::future::join(silent.accept(), dial).await;
    let failure = result.unwrap_err();
    let unanswered = unanswered(&failure);
    assert_eq!((unanswered.heard(), unanswered.after()), (&Heard::Nothing, limit));
    drop(held);
}

/// Both ends of a hole punch dial. Here one of them connects to a socket that knocks, as if the SYNs had crossed.
#[tokio::test]
async fn a_dialer_in_the_listeners_role_keeps_silent_until_it_is_knocked_at() {
    use tokio_util::compat::TokioAsyncReadCompatExt as _;
    let meeting = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = meeting.local_addr().unwrap().port();
    let address = |seed| {
        format!("/ip4/127.0.0.1/tcp/{port}/tls/p2p/{}", peer(seed))
            .parse::<Multiaddr>()
            .unwrap()
    };

    let mut silent = authenticated(config(2));
    let dial = tokio::spawn(silent.dial(address(1), opts(Endpoint::Listener)).unwrap());
    let (socket, _) = meeting.accept().await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(150), socket.peek(&mut byte)).await;
    assert!(early.is_err(), "the listener's part spoke first");

    // The other end, in the dialer's part, over a transport whose "connect" is this very socket.
    let mut knocking = libp2p_knock::Authenticated::new(Given(Some(socket.compat())), config(1));
    let knock = knocking.dial(address(2), opts(Endpoint::Dialer)).unwrap();
    let (found, stream) = soon("the knock", knock).await.unwrap();
    let (caller, answered) = soon("the answer", dial).await.unwrap().unwrap();
    assert_eq!((found, caller), (peer(2), peer(1)));
    assert_eq!((stream.role(), answered.role()), (Role::Dialer, Role::Listener));
}

#[tokio::test]
async fn in_the_listeners_role_somebody_elses_knock_is_refused() {
    use tokio::io::AsyncWriteExt as _;
    let meeting = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!(
        "/ip4/127.0.0.1/tcp/{}/tls/p2p/{}",
        meeting.local_addr().unwrap().port(),
        peer(1)
    );
    let dial = tokio::spawn(
        authenticated(old(2).with_handshake_timeout(Duration::from_millis(300)))
            .dial(address.parse().unwrap(), opts(Endpoint::Listener))
            .unwrap(),
    );
    let (mut socket, _) = meeting.accept().await.unwrap();
    socket.write_all(&knock(3, 2)).await.unwrap();
    let failure = soon("the dial", dial).await.unwrap().unwrap_err();
    match failure.error() {
        Error::WrongPeer { expected, found } => assert_eq!((*expected, *found), (peer(1), peer(3))),
        other => panic!("{other:?}"),
    }
    let mut back = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut back)
        .await
        .unwrap();
    assert!(back.is_empty());
}

/// A transport with one connection, made beforehand.
struct Given<S>(Option<S>);

impl<S: Send + Unpin + 'static> libp2p_core::Transport for Given<S> {
    type Output = S;
    type Error = std::io::Error;
    type ListenerUpgrade = futures::future::Pending<Result<S, std::io::Error>>;
    type Dial = futures::future::Ready<Result<S, std::io::Error>>;

    fn listen_on(
        &mut self,
        _: libp2p_core::transport::ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: libp2p_core::transport::ListenerId) -> bool {
        false
    }

    fn dial(&mut self, _: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        Ok(futures::future::ready(Ok(self.0.take().expect("dialled once"))))
    }

    fn poll(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<libp2p_core::transport::TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        std::task::Poll::Pending
    }
}

#[cfg(all(feature = "fast-open", target_os = "linux"))]
#[tokio::test]
async fn fast_open_leaves_other_transports_addresses_alone_as_stock_tcp_does() {
    let (mut fast, mut stock) = (
        libp2p_knock::tokio::FastOpen::default(),
        libp2p::tcp::tokio::Transport::default(),
    );
    for address in [
        "/ip4/127.0.0.1/tcp/1/ws".to_owned(),
        format!("/ip4/127.0.0.1/tcp/1/p2p/{}/p2p-circuit/p2p/{}", peer(2), peer(3)),
        format!("/ip4/127.0.0.1/tcp/1/p2p/{}", peer(2)),
    ] {
        let address: Multiaddr = address.parse().unwrap();
        let taken = fast.dial(address.clone(), dialer()).is_ok();
        assert_eq!(taken, stock.dial(address.clone(), dialer()).is_ok(), "{address}");
    }
}

#[tokio::test]
async fn no_timeout_at_all_is_a_timeout_like_any_other() {
    let never = Duration::MAX;
    let config = config(2)
        .dangerous()
        .with_close_time(never)
        .with_handshake_timeout(never)
        .with_close_timeout(never);
    let mut listener = victim(config.clone()).await;
    let dial =
        authenticated(crate::common::config(1).with_handshake_timeout(never)).dial(listener.address.clone(), dialer());
    let (_, mut stream) = soon("the dial", dial.unwrap()).await.unwrap();
    listener.upgraded().await.unwrap();
    soon("the close", stream.close()).await.unwrap();
}

/// Listens with `inner` on a port that another program holds at another address and does not share.
#[cfg(target_os = "linux")]
fn listening_on_a_port_that_is_held<T>(inner: &mut T, mark: &str) -> std::net::TcpListener
where
    T: libp2p_core::Transport<Error: std::fmt::Debug> + Unpin,
{
    for _ in 0..50 {
        // On whichever port is free at both.
        let held = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let address = format!("/ip4/127.0.0.1/tcp/{port}{mark}").parse().unwrap();
        if inner
            .listen_on(libp2p_core::transport::ListenerId::next(), address)
            .is_ok()
        {
            return held;
        }
    }
    panic!("fifty ports are taken");
}

/// A dial that is to come from the listening port binds that port at every address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dial_whose_listening_port_cannot_be_shared_comes_from_another_port() {
    let mut callee = victim(config(2)).await;
    let in_use = |error: &(dyn std::error::Error + 'static)| {
        let error = error.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
    };

    let mut stock = libp2p::tcp::tokio::Transport::default();
    let _held = listening_on_a_port_that_is_held(&mut stock, "");
    let to = format!("/ip4/127.0.0.1/tcp/{}", callee.socket.unwrap().port());
    let error = stock.dial(to.parse().unwrap(), dialer()).unwrap().await.unwrap_err();
    assert!(in_use(&error), "libp2p-tcp alone succeeds, or fails otherwise: {error}");

    let mut ours = authenticated(config(1));
    let held = listening_on_a_port_that_is_held(&mut ours, "/tls");
    let dial = ours.dial(callee.address.clone(), dialer()).unwrap();
    let (found, stream) = soon("the dial", dial).await.unwrap();
    assert_eq!(found, peer(2));
    let port = held.local_addr().unwrap().port();
    let from = stream.get_ref().0.local_addr().unwrap();
    assert_ne!(from.port(), port);
    callee.upgraded().await.unwrap();

    // In the listener's part of a hole punch the other end expects that port, and is told of no
    // other.
    let punch = ours.dial(callee.address.clone(), opts(Endpoint::Listener)).unwrap();
    let failure = soon("the punch", punch).await.unwrap_err();
    assert_eq!(failure.stage(), Stage::Inner);
    match failure.error() {
        Error::Inner(error) => assert!(in_use(&**error), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[cfg(all(feature = "fast-open", target_os = "linux"))]
#[tokio::test]
async fn a_fast_open_whose_listening_port_cannot_be_shared_comes_from_another_port() {
    let mut callee = victim(config(2)).await;
    let mut ours = libp2p_knock::Authenticated::new(libp2p_knock::tokio::FastOpen::default(), config(1));
    let _held = listening_on_a_port_that_is_held(&mut ours, "/tls");
    let dial = ours.dial(callee.address.clone(), dialer()).unwrap();
    let (found, _) = soon("the dial", dial).await.unwrap();
    assert_eq!(found, peer(2));
    callee.upgraded().await.unwrap();
}
