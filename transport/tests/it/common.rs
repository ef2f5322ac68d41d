//! What the tests of this crate share: identities, a listener that runs by itself, and raw sockets that misbehave.

use futures::channel::{mpsc, oneshot};
use futures::{FutureExt as _, StreamExt as _};
use libp2p_core::transport::{DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p_core::{Endpoint, Multiaddr, Transport};
use libp2p_identity::{Keypair, PeerId};
use libp2p_knock::unanswered::Unanswered;
use libp2p_knock::{Config, Error, Failure, Identity, SignError, Version};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Long enough for anything that is going to happen, on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// `work`, or a panic that says that it never came.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

pub(crate) fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes")
}

pub(crate) fn peer(seed: u8) -> PeerId {
    keypair(seed).public().to_peer_id()
}

pub(crate) fn config(seed: u8) -> Config {
    Config::new(&keypair(seed)).expect("Ed25519")
}

/// Of a node that knocks with version 2: whose knocks raw sockets can make, and send again.
pub(crate) fn old(seed: u8) -> Config {
    config(seed).with_version(Version::V2).expect("can sign")
}

pub(crate) fn tcp(seed: u8) -> libp2p_knock::tokio::Transport {
    libp2p_knock::tokio::Transport::new(config(seed))
}

/// Knock and TLS over TCP, without a muxer.
pub(crate) fn authenticated(config: Config) -> libp2p_knock::Authenticated<libp2p::tcp::tokio::Transport> {
    libp2p_knock::Authenticated::new(libp2p::tcp::tokio::Transport::default(), config)
}

pub(crate) fn dialer() -> DialOpts {
    opts(Endpoint::Dialer)
}

pub(crate) fn opts(role: Endpoint) -> DialOpts {
    DialOpts {
        role,
        port_use: PortUse::Reuse,
    }
}

/// An identity for raw sockets: the public trait, implemented once more.
pub(crate) struct Key(pub(crate) Keypair);

impl Identity for Key {
    fn public_key(&self) -> [u8; 32] {
        self.0.clone().try_into_ed25519().expect("Ed25519").public().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let signature = self.0.sign(message).map_err(|e| SignError(Box::new(e)))?;
        Ok(signature.try_into().expect("64 bytes"))
    }
}

pub(crate) fn key(seed: u8) -> Key {
    Key(keypair(seed))
}

/// The knock of `from` at `to`.
pub(crate) fn knock(from: u8, to: u8) -> [u8; 97] {
    libp2p_knock::knock::v2::seal(&key(from), &key(to).public_key()).expect("signs")
}

/// The certificate of `seed`, put together from the checked-in vector.
pub(crate) fn certificate(seed: u8) -> Vec<u8> {
    let vector = include_str!("../vectors/certificate-seed01.hex").replace(char::is_whitespace, "");
    let mut der = hex::decode(vector).expect("hex");
    der[72..104].copy_from_slice(&key(seed).public_key());
    let signature = key(seed).sign(&der[3..104]).expect("signs");
    der[114..].copy_from_slice(&signature);
    der
}

/// The certificate of `seed`, `count` times, and its key, as rustls takes them.
pub(crate) fn rustls_identity(
    seed: u8,
    count: usize,
) -> (
    Vec<rustls::pki_types::CertificateDer<'static>>,
    rustls::pki_types::PrivateKeyDer<'static>,
) {
    // RFC 8410: a PKCS#8 Ed25519 key is a constant and the seed.
    let mut pkcs8 = hex::decode("302e020100300506032b657004220420").expect("hex");
    pkcs8.extend_from_slice(&[seed; 32]);
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(pkcs8);
    (vec![certificate(seed).into(); count], key.into())
}

/// A TLS client that believes any server and shows `certificates`: whose, and how often.
pub(crate) fn gullible_config(
    version: &'static SupportedProtocolVersion,
    certificates: Option<(u8, usize)>,
) -> ClientConfig {
    gullible_config_of(rustls::crypto::aws_lc_rs::default_provider(), version, certificates)
}

/// The same with cryptography of one's own.
pub(crate) fn gullible_config_of(
    provider: rustls::crypto::CryptoProvider,
    version: &'static SupportedProtocolVersion,
    certificates: Option<(u8, usize)>,
) -> ClientConfig {
    #[derive(Debug)]
    struct Gullible(Arc<rustls::crypto::CryptoProvider>);

    impl rustls::client::danger::ServerCertVerifier for Gullible {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }

    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .expect("a configuration")
        .with_root_certificates(RootCertStore::empty());
    let mut config = match certificates {
        None => builder.with_no_client_auth(),
        Some((seed, count)) => {
            let (chain, key) = rustls_identity(seed, count);
            builder.with_client_auth_cert(chain, key).expect("a configuration")
        }
    };
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(Gullible(provider)));
    config.alpn_protocols = vec![b"/yamux/1.0.0".to_vec()];
    config.enable_sni = false;
    config
}

pub(crate) fn gullible_client(
    version: &'static SupportedProtocolVersion,
    certificates: Option<(u8, usize)>,
) -> ClientConnection {
    let config = gullible_config(version, certificates);
    ClientConnection::new(Arc::new(config), ServerName::try_from("0.0.0.0").expect("an address")).expect("a client")
}

/// What a listener saw.
pub(crate) enum Seen<O> {
    /// `Incoming`: somebody knocked rightly.
    Incoming {
        local_addr: Multiaddr,
        send_back_addr: Multiaddr,
    },
    /// The upgrade of an `Incoming` ended.
    Upgraded(Result<O, Failure>),
    Closed,
}

/// A transport that listens and is polled by a task of its own. Dropped, the transport is.
pub(crate) struct Listening<O> {
    /// With `/p2p/<peer>`.
    pub(crate) address: Multiaddr,
    /// As `address`, for raw sockets.
    pub(crate) socket: Option<SocketAddr>,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen<O>>,
    remove: mpsc::UnboundedSender<()>,
}

impl<O> Listening<O> {
    /// Removes the listener, which is still there or the test fails.
    pub(crate) fn remove(&self) {
        self.remove.unbounded_send(()).expect("the task runs");
    }

    pub(crate) async fn next(&mut self) -> Seen<O> {
        soon("the listener", self.seen.next()).await.expect("the task runs")
    }

    /// The next upgrade that ended.
    pub(crate) async fn upgraded(&mut self) -> Result<O, Failure> {
        loop {
            if let Seen::Upgraded(result) = self.next().await {
                return result;
            }
        }
    }

    /// The error of the next upgrade, which must have failed.
    pub(crate) async fn error(&mut self) -> Error {
        match self.upgraded().await {
            Ok(_) => panic!("the upgrade succeeded"),
            Err(failure) => failure.into_error(),
        }
    }

    /// Nothing has been seen, and nothing is within `time`.
    pub(crate) async fn nothing_for(&mut self, time: Duration) {
        if let Ok(Some(_)) = tokio::time::timeout(time, self.seen.next()).await {
            panic!("the listener saw something");
        }
    }
}

/// Lets `transport` listen at `address` and polls it from then on.
pub(crate) async fn listen<T>(transport: T, peer: PeerId, address: &str) -> Listening<T::Output>
where
    T: Transport<Error = Failure> + Unpin + Send + 'static,
    T::Output: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    listen_at(transport, peer, address.parse().expect("a multiaddr")).await
}

/// The same at an address that has no text form (a Unix socket's).
pub(crate) async fn listen_at<T>(mut transport: T, peer: PeerId, address: Multiaddr) -> Listening<T::Output>
where
    T: Transport<Error = Failure> + Unpin + Send + 'static,
    T::Output: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    let id = ListenerId::next();
    transport.listen_on(id, address).expect("can listen");
    let (address_tx, address_rx) = oneshot::channel();
    let mut address_tx = Some(address_tx);
    let (seen_tx, seen) = mpsc::unbounded();
    let (remove, mut removals) = mpsc::unbounded();

    tokio::spawn(async move {
        loop {
            let event = futures::future::poll_fn(|cx| {
                match removals.poll_next_unpin(cx) {
                    Poll::Ready(Some(())) => assert!(transport.remove_listener(id), "the listener was there"),
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => {}
                }
                Pin::new(&mut transport).poll(cx).map(Some)
            })
            .await;
            let Some(event) = event else { return };
            match event {
                TransportEvent::NewAddress { listen_addr, .. } => {
                    if let Some(tx) = address_tx.take() {
                        let _ = tx.send(listen_addr);
                    }
                }
                TransportEvent::Incoming {
                    upgrade,
                    local_addr,
                    send_back_addr,
                    ..
                } => {
                    let _ = seen_tx.unbounded_send(Seen::Incoming {
                        local_addr,
                        send_back_addr,
                    });
                    let seen_tx = seen_tx.clone();
                    tokio::spawn(upgrade.map(move |result| {
                        let _ = seen_tx.unbounded_send(Seen::Upgraded(result));
                    }));
                }
                TransportEvent::ListenerClosed { reason, .. } => {
                    reason.expect("closed on demand");
                    let _ = seen_tx.unbounded_send(Seen::Closed);
                }
                TransportEvent::ListenerError { error, .. } => panic!("{error}"),
                TransportEvent::AddressExpired { .. } => {}
            }
        }
    });

    let address = soon("the listen address", address_rx).await.expect("the task runs");
    Listening {
        socket: socket_of(&address),
        address: address.with_p2p(peer).expect("no peer yet"),
        seen,
        remove,
    }
}

/// The TCP socket that an address leads to.
pub(crate) fn socket_of(address: &Multiaddr) -> Option<SocketAddr> {
    use libp2p_core::multiaddr::Protocol;
    let mut protocols = address.iter();
    let ip = match protocols.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match protocols.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// What a dial knows whose knock was not answered.
pub(crate) fn unanswered(failure: &Failure) -> &Unanswered {
    match failure.error() {
        Error::Unanswered(unanswered) => unanswered,
        other => panic!("{other:?}"),
    }
}

/// A listener of `config(2)` on the loopback, without a muxer: what most attacks need.
pub(crate) async fn victim(config: Config) -> Victim {
    let peer = config.local_peer_id();
    listen(authenticated(config), peer, "/ip4/127.0.0.1/tcp/0/tls").await
}

pub(crate) type Stream = libp2p_knock::TlsStream<libp2p::tcp::tokio::TcpStream>;
pub(crate) type Victim = Listening<(PeerId, Stream)>;

impl Victim {
    /// A raw connection. Closed from this end, it holds its port for a minute; for listeners that want to dial from that
    /// port as well, which are all of ours, it does so only unless it says that it may be shared.
    pub(crate) async fn connect(&self) -> TcpStream {
        let to = self.socket.expect("TCP");
        let socket = if to.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        };
        let socket = socket.expect("a socket");
        socket.set_reuseaddr(true).expect("may be shared");
        socket.connect(to).await.expect("connects")
    }

    /// A raw connection that sends `bytes`, then reads to its end: what came back, and how long after the connect
    /// began, so that a loaded machine can only make it longer.
    pub(crate) async fn probe(&self, bytes: &[u8]) -> (Vec<u8>, Duration) {
        let started = std::time::Instant::now();
        let mut socket = self.connect().await;
        socket.write_all(bytes).await.expect("sends");
        let mut answer = Vec::new();
        let ended = soon("the end of a probe", socket.read_to_end(&mut answer)).await;
        ended.expect("an ordinary end, not a reset");
        (answer, started.elapsed())
    }
}
