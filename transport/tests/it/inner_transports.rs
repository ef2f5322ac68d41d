//! The same over everything that carries bytes.

use crate::common::*;
use futures::future::poll_fn;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p_core::multiaddr::Protocol;
use libp2p_core::muxing::{StreamMuxer, StreamMuxerExt as _};
use libp2p_core::transport::MemoryTransport;
use libp2p_core::{Multiaddr, Transport};
use std::pin::pin;

/// Two peers, knock, TLS, yamux, one substream and an echo over it.
pub(crate) async fn echo_over<T>(make: impl Fn() -> T, address: Multiaddr)
where
    T: Transport + Unpin + Send + 'static,
    T::Output: futures::AsyncRead + futures::AsyncWrite + Unpin + Send + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    let transport = libp2p_knock::Transport::new(make(), config(2));
    let mut listener = listen_at(transport, peer(2), address).await;
    let mut dialling = libp2p_knock::Transport::new(make(), config(1));
    let dial = dialling.dial(listener.address.clone(), dialer()).unwrap();
    // Both at once: a memory channel has no kernel to buffer for it.
    let (dialled, accepted) = soon("the connection", futures::future::join(dial, listener.upgraded())).await;
    let ((found, ours), (caller, theirs)) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!((found, caller), (peer(2), peer(1)));
    let echoed = echo(ours, theirs).await;
    assert_eq!(echoed, b"over any byte stream");
}

/// One substream, opened by the dialer, that comes back as it went. Each end drives its muxer while it waits.
async fn echo<M>(mut ours: M, mut theirs: M) -> Vec<u8>
where
    M: StreamMuxer + Unpin + Send + 'static,
    M::Substream: futures::AsyncRead + futures::AsyncWrite + Send + Unpin,
    M::Error: Send + std::fmt::Debug,
{
    let server = tokio::spawn(async move {
        let mut stream = poll_fn(|cx| {
            let _ = theirs.poll_unpin(cx);
            theirs.poll_inbound_unpin(cx)
        })
        .await
        .unwrap();
        let serve = async {
            let mut room = [0; 64];
            let n = stream.read(&mut room).await.unwrap();
            stream.write_all(&room[..n]).await.unwrap();
            stream.close().await.unwrap();
        };
        beside(&mut theirs, serve).await;
        // Until the other end has read it all and closes.
        while poll_fn(|cx| theirs.poll_unpin(cx)).await.is_ok() {}
    });
    let client = async {
        let mut stream = poll_fn(|cx| ours.poll_outbound_unpin(cx)).await.unwrap();
        let ask = async {
            stream.write_all(b"over any byte stream").await.unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.unwrap();
            back
        };
        let back = beside(&mut ours, ask).await;
        poll_fn(|cx| ours.poll_close_unpin(cx)).await.unwrap();
        back
    };
    let back = soon("the echo", client).await;
    soon("the other end", server).await.unwrap();
    back
}

/// `work`, with the muxer driven beside it.
async fn beside<M: StreamMuxer + Unpin, T>(muxer: &mut M, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let _ = muxer.poll_unpin(cx);
        work.as_mut().poll(cx)
    })
    .await
}

#[tokio::test]
async fn over_ipv4() {
    echo_over(
        libp2p::tcp::tokio::Transport::default,
        "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap(),
    )
    .await;
}

#[tokio::test]
async fn over_ipv6() {
    echo_over(
        libp2p::tcp::tokio::Transport::default,
        "/ip6/::1/tcp/0/tls".parse().unwrap(),
    )
    .await;
}

#[cfg(all(feature = "fast-open", target_os = "linux"))]
#[tokio::test]
async fn over_tcp_with_fast_open_whatever_the_kernel_is_set_to() {
    use libp2p_knock::tokio::FastOpen;
    for address in [
        "/ip4/127.0.0.1/tcp/0/tls",
        "/ip6/::1/tcp/0/tls",
        "/ip4/0.0.0.0/tcp/0/tls",
    ] {
        echo_over(FastOpen::default, address.parse().unwrap()).await;
    }
}

#[tokio::test]
async fn over_memory() {
    echo_over(MemoryTransport::default, "/memory/0/tls".parse().unwrap()).await;
}

#[cfg(unix)]
#[tokio::test]
async fn over_a_unix_socket() {
    use tokio_util::compat::TokioAsyncReadCompatExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket").to_string_lossy().into_owned();
    let address = Multiaddr::from(Protocol::Unix(path.into())).with(Protocol::Tls);
    let make = || libp2p_uds::Config::new().map(|stream: tokio::net::UnixStream, _| stream.compat());
    echo_over(make, address).await;
}
