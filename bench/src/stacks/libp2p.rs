//! The libp2p stacks, at the level at which a Swarm uses them, and the least that drives a connection of theirs.

use super::tls_fresh::FreshTls;
use super::{Stream, Target};
use crate::service::{Counters, serve};
use anyhow::{Context as _, Result, ensure};
use futures::future::poll_fn;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p_core::transport::timeout::TransportTimeout;
use libp2p_core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p_core::upgrade::Version;
use libp2p_core::{Endpoint as Role, Multiaddr, StreamMuxer, Transport};
use libp2p_identity::{Keypair, PeerId};
use libp2p_knock::KeyExchange;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

const PROTOCOL: &str = "/bench/1";

type AnyTransport = Boxed<(PeerId, StreamMuxerBox)>;

pub(crate) struct Endpoint {
    transport: AnyTransport,
    peer: PeerId,
    address: fn(SocketAddr) -> Multiaddr,
}

impl Endpoint {
    /// Boxed, and given the time limit, as `SwarmBuilder` does with every transport.
    fn new<T, M>(key: &Keypair, transport: T, address: fn(SocketAddr) -> Multiaddr) -> Self
    where
        T: Transport<Output = (PeerId, M)> + Send + Unpin + 'static,
        T::Dial: Send,
        T::ListenerUpgrade: Send,
        T::Error: Send + Sync,
        M: StreamMuxer + Send + 'static,
        M::Substream: Send + 'static,
        M::Error: Send + Sync + 'static,
    {
        let transport = transport.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
        Self {
            transport: TransportTimeout::new(transport, Duration::from_secs(10)).boxed(),
            peer: key.public().to_peer_id(),
            address,
        }
    }
}

fn over_tcp(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()))
}

fn tcp() -> libp2p_tcp::tokio::Transport {
    libp2p_tcp::tokio::Transport::new(libp2p_tcp::Config::default())
}

/// With the default groups when `groups` is empty.
pub(super) fn knock(groups: &[KeyExchange]) -> Result<Endpoint> {
    let key = Keypair::generate_ed25519();
    let mut config = config(&key)?;
    if !groups.is_empty() {
        config = config.with_key_exchange(groups)?;
    }
    Ok(over(&key, tcp(), config))
}

pub(super) fn knock_v2() -> Result<Endpoint> {
    let key = Keypair::generate_ed25519();
    // Handshakes of one peer from one prefix are two a second for a thousand openings; version 2 has no table of replays.
    const OPENINGS: u32 = 1_000_000;
    let config = config(&key)?
        .with_version(libp2p_knock::Version::V2)?
        .with_max_openings(OPENINGS.try_into()?)?;
    Ok(over(&key, tcp(), config))
}

/// With X25519 alone the first flight fits the SYN.
pub(super) fn knock_fast_open(groups: &[KeyExchange]) -> Result<Endpoint> {
    let key = Keypair::generate_ed25519();
    let config = config(&key)?.with_key_exchange(groups)?;
    Ok(over(&key, libp2p_knock::tokio::FastOpen::default(), config))
}

/// A listener that opens as many knocks as it is sent, and holds as many sockets as come: what a measurement asks for is
/// not to be refused as a flood.
fn config(key: &Keypair) -> Result<libp2p_knock::Config> {
    // A table of replays for more than a node ever opens would be memory that each knock touches for the first time.
    const OPENINGS: u32 = 4_000;
    const WAITING: usize = 100_000;
    Ok(libp2p_knock::Config::new(key)?
        .with_max_openings(OPENINGS.try_into()?)?
        .with_max_waiting(WAITING.try_into()?))
}

fn over<T>(key: &Keypair, inner: T, config: libp2p_knock::Config) -> Endpoint
where
    T: Transport + Send + Unpin + 'static,
    T::Output: futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    // As `libp2p_knock::tokio::Transport` does it.
    let transport = libp2p_knock::Transport::new(inner, config).with_executor(|task| drop(tokio::spawn(task)));
    Endpoint::new(key, transport, |socket| over_tcp(socket).with(Protocol::Tls))
}

pub(super) fn noise() -> Result<Endpoint> {
    let key = Keypair::generate_ed25519();
    let transport = tcp()
        .upgrade(Version::V1Lazy)
        .authenticate(libp2p_noise::Config::new(&key)?)
        .multiplex(libp2p_yamux::Config::default());
    Ok(Endpoint::new(&key, transport, over_tcp))
}

pub(super) fn tls_as_shipped() -> Result<Endpoint> {
    let key = Keypair::generate_ed25519();
    let transport = tcp()
        .upgrade(Version::V1Lazy)
        .authenticate(libp2p_tls::Config::new(&key)?)
        .multiplex(libp2p_yamux::Config::default());
    Ok(Endpoint::new(&key, transport, over_tcp))
}

pub(super) fn tls_without_resumption() -> Result<Endpoint> {
    let key = Keypair::generate_ed25519();
    let transport = tcp()
        .upgrade(Version::V1Lazy)
        .authenticate(FreshTls::new(&key)?)
        .multiplex(libp2p_yamux::Config::default());
    Ok(Endpoint::new(&key, transport, over_tcp))
}

pub(super) fn quic() -> Endpoint {
    let key = Keypair::generate_ed25519();
    let transport = libp2p_quic::tokio::Transport::new(libp2p_quic::Config::new(&key));
    Endpoint::new(&key, transport, |socket| {
        Multiaddr::from(socket.ip())
            .with(Protocol::Udp(socket.port()))
            .with(Protocol::QuicV1)
    })
}

impl Endpoint {
    pub(super) async fn listen(mut self, ip: IpAddr, counters: Arc<Counters>) -> Result<Target> {
        let address = (self.address)(SocketAddr::new(ip, 0));
        self.transport.listen_on(ListenerId::next(), address)?;
        let socket = loop {
            if let TransportEvent::NewAddress { listen_addr, .. } = self.next().await {
                break SocketAddr::new(ip, port(&listen_addr).context("a listener without a port")?);
            }
        };
        let peer = Some(self.peer);
        tokio::spawn(async move {
            loop {
                let TransportEvent::Incoming { upgrade, .. } = self.next().await else {
                    continue;
                };
                let counters = counters.clone();
                tokio::spawn(async move {
                    if let Ok((_, muxer)) = upgrade.await {
                        let _live = counters.live();
                        // It ends with an error when the dialer leaves.
                        let _ = accept_substreams(muxer, &counters).await;
                    }
                });
            }
        });
        Ok(Target { socket, peer })
    }

    async fn next(
        &mut self,
    ) -> TransportEvent<<AnyTransport as Transport>::ListenerUpgrade, <AnyTransport as Transport>::Error> {
        poll_fn(|cx| Pin::new(&mut self.transport).poll(cx)).await
    }

    /// Does not borrow the node: a Swarm has several dials under way as well.
    pub(super) fn dial(&mut self, target: &Target) -> Result<impl Future<Output = Result<Opener>> + use<>> {
        let expected = target.peer.context("libp2p dials a peer")?;
        let address = (self.address)(target.socket).with(Protocol::P2p(expected));
        let opts = DialOpts {
            role: Role::Dialer,
            port_use: PortUse::New,
        };
        let dialling = self.transport.dial(address, opts)?;
        Ok(async move {
            let (peer, muxer) = dialling.await?;
            // What a Swarm compares after every dial.
            ensure!(peer == expected, "dialled {expected} and met {peer}");
            let (opener, requests) = mpsc::channel(1);
            tokio::spawn(open_substreams(muxer, requests));
            Ok(Opener(opener))
        })
    }
}

fn port(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|protocol| match protocol {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    })
}

/// The dialer's hold on its connection, which ends when it is dropped.
pub(crate) struct Opener(mpsc::Sender<oneshot::Sender<SubstreamBox>>);

impl Opener {
    pub(super) async fn open(&self) -> Result<Stream> {
        let (answer, substream) = oneshot::channel();
        self.0.send(answer).await.context("the connection has ended")?;
        let substream = substream.await.context("the connection has ended")?;
        let (_, stream) = multistream_select::dialer_select_proto(substream, [PROTOCOL], Version::V1Lazy).await?;
        Ok(Box::new(stream))
    }
}

/// The one task that drives a dialer's muxer.
async fn open_substreams(
    mut muxer: StreamMuxerBox,
    mut requests: mpsc::Receiver<oneshot::Sender<SubstreamBox>>,
) -> std::io::Result<()> {
    let mut request = None;
    poll_fn(|cx| {
        loop {
            if muxer.poll_unpin(cx)?.is_ready() {
                continue;
            }
            if request.is_none() {
                match requests.poll_recv(cx) {
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Ready(next) => request = next,
                    Poll::Pending => {}
                }
            }
            if request.is_some()
                && let Poll::Ready(substream) = muxer.poll_outbound_unpin(cx)?
            {
                let _ = request.take().map(|request| request.send(substream));
                continue;
            }
            return match muxer.poll_inbound_unpin(cx)? {
                Poll::Ready(_unasked) => continue,
                Poll::Pending => Poll::Pending,
            };
        }
    })
    .await
}

/// The one task that drives a listener's muxer. Each substream is served by a task of its own.
async fn accept_substreams(mut muxer: StreamMuxerBox, counters: &Arc<Counters>) -> std::io::Result<()> {
    poll_fn(|cx| {
        loop {
            if muxer.poll_unpin(cx)?.is_ready() {
                continue;
            }
            let Poll::Ready(substream) = muxer.poll_inbound_unpin(cx)? else {
                return Poll::Pending;
            };
            let counters = counters.clone();
            tokio::spawn(async move {
                if let Ok((_, stream)) = multistream_select::listener_select_proto(substream, [PROTOCOL]).await {
                    // It ends with an error when the dialer leaves.
                    let _ = serve(stream, &counters).await;
                }
            });
        }
    })
    .await
}
