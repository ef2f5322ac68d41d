//! The properties that rust-yamux's own test harness demands of a muxer, over TCP: of ours at both
//! ends, and of ours with rust-libp2p's at the other end, in either role.

use super::live::{bytes, within};
use crate::muxed::Muxer;
use crate::yamux::Config;
use futures::future::{BoxFuture, FutureExt as _, poll_fn};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use libp2p_core::muxing::StreamMuxerExt as _;
use libp2p_core::upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _};
use libp2p_core::{Endpoint, StreamMuxer};
use proptest::prelude::*;
use std::io;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

type Socket = Compat<TcpStream>;

/// Send and receive buffers of a socket, in bytes; the system's where there are none.
type Buffers = Option<(u32, u32)>;

fn socket(buffers: Buffers) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some((send, receive)) = buffers {
        socket.set_send_buffer_size(send).expect("a size");
        socket.set_recv_buffer_size(receive).expect("a size");
    }
    socket
}

async fn sockets(buffers: Buffers) -> (Socket, Socket) {
    let listening = socket(buffers);
    listening
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("binds");
    let listening: TcpListener = listening.listen(8).expect("listens");
    let to = listening.local_addr().expect("bound");
    let dial = async { socket(buffers).connect(to).await };
    let (dialled, accepted) = futures::future::join(dial, listening.accept()).await;
    let (dialled, accepted) = (dialled.expect("connects"), accepted.expect("accepts").0);
    for socket in [&dialled, &accepted] {
        // As libp2p-tcp does: an echo in small pieces would wait for delayed acknowledgements.
        socket.set_nodelay(true).expect("an option");
    }
    (dialled.compat(), accepted.compat())
}

fn ours(socket: Socket, side: Endpoint, config: &Config) -> Muxer<Socket> {
    Muxer::new(socket, side, config, Duration::from_secs(5))
}

fn stock(socket: Socket, side: Endpoint) -> libp2p_yamux::Muxer<Socket> {
    let config = libp2p_yamux::Config::default();
    let upgraded = match side {
        Endpoint::Dialer => config.upgrade_outbound(socket, "/yamux/1.0.0"),
        Endpoint::Listener => config.upgrade_inbound(socket, "/yamux/1.0.0"),
    };
    upgraded.into_inner().expect("needs no bytes")
}

/// What a test needs of a muxer.
trait Peer: StreamMuxer<Substream: Unpin + Send + 'static, Error: Into<io::Error>> + Send + Unpin + 'static {}

impl<M> Peer for M where
    M: StreamMuxer<Substream: Unpin + Send + 'static, Error: Into<io::Error>> + Send + Unpin + 'static
{
}

/// Echoes every stream of the other end's and closes it, in the task that drives the connection,
/// until the other end has closed the connection. Returns the number of streams; fails if a stream
/// does.
async fn serve<M: Peer>(mut muxer: M) -> io::Result<usize> {
    let mut workers = FuturesUnordered::new();
    let (mut served, mut over) = (0, false);
    poll_fn(|cx| {
        loop {
            match workers.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(()))) => {
                    served += 1;
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) if over => return Poll::Ready(Ok(served)),
                Poll::Ready(None) | Poll::Pending => {}
            }
            if over {
                return Poll::Pending;
            }
            if let Poll::Ready(event) = muxer.poll_unpin(cx) {
                over = event.is_err();
                continue;
            }
            match muxer.poll_inbound_unpin(cx) {
                Poll::Ready(Ok(stream)) => workers.push(echo(stream)),
                Poll::Ready(Err(_)) => over = true,
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    {
        let (mut reading, mut writing) = (&mut stream).split();
        futures::io::copy(&mut reading, &mut writing).await?;
    }
    stream.close().await
}

/// Sends each message on a stream of its own, reads it back, and closes the stream; then closes the
/// connection. Returns the number of streams. In tasks of their own or in the task that drives the
/// connection.
///
/// The socket stays. The kernel resets one that is dropped with unread bytes, and throws away what
/// it has not sent. rust-libp2p's muxer drops its socket when it has closed, so it does not dial
/// where many streams end at once.
async fn send<M: Peer>(muxer: &mut M, mut messages: Vec<Vec<u8>>, spawn: bool) -> io::Result<usize> {
    let mut workers: FuturesUnordered<BoxFuture<'static, io::Result<()>>> = FuturesUnordered::new();
    let mut sent = 0;
    poll_fn(|cx| {
        loop {
            if messages.is_empty() && workers.is_empty() {
                futures::ready!(muxer.poll_close_unpin(cx)).map_err(Into::into)?;
                return Poll::Ready(Ok(sent));
            }
            if let Poll::Ready(Some(done)) = workers.poll_next_unpin(cx) {
                done?;
                sent += 1;
                continue;
            }
            if !messages.is_empty()
                && let Poll::Ready(stream) = muxer.poll_outbound_unpin(cx)
            {
                let stream = stream.map_err(Into::into)?;
                let work = exchange(stream, messages.pop().expect("not empty"));
                workers.push(match spawn {
                    true => tokio::spawn(work).map(|done| done.expect("does not panic")).boxed(),
                    false => work.boxed(),
                });
                continue;
            }
            match muxer.poll_unpin(cx) {
                Poll::Ready(event) => _ = event.map_err(Into::into)?,
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, message: Vec<u8>) -> io::Result<()> {
    there_and_back(&mut stream, &message).await?;
    stream.close().await
}

async fn there_and_back<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    let (mut reading, mut writing) = stream.split();
    let write = async {
        writing.write_all(message).await?;
        writing.flush().await
    };
    let mut back = vec![0; message.len()];
    futures::future::try_join(write, reading.read_exact(&mut back)).await?;
    assert!(back == message, "another message came back");
    Ok(())
}

/// Drives a connection that has nothing to do but to carry its streams.
async fn carry<M: Peer>(mut muxer: M) {
    while poll_fn(|cx| {
        if let Poll::Ready(event) = muxer.poll_unpin(cx) {
            return Poll::Ready(event.is_ok());
        }
        muxer.poll_inbound_unpin(cx).map(|stream| stream.is_ok())
    })
    .await
    {}
}

async fn open<M: Peer>(muxer: &mut M) -> M::Substream {
    let opened = poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await;
    opened.map_err(Into::into).expect("opens")
}

async fn accept<M: Peer>(muxer: &mut M) -> M::Substream {
    let accepted = poll_fn(|cx| {
        if let Poll::Ready(Err(error)) = muxer.poll_unpin(cx) {
            return Poll::Ready(Err(error));
        }
        muxer.poll_inbound_unpin(cx)
    });
    accepted.await.map_err(Into::into).expect("a stream")
}

/// Runs `test` with ours at both ends, and with rust-libp2p's as the listener.
macro_rules! dialled_by_ours {
    ($config:expr, $buffers:expr, $test:expr) => {{
        let (config, buffers) = (&$config, $buffers);
        let (dialer, listener) = sockets(buffers).await;
        $test(
            ours(dialer, Endpoint::Dialer, config),
            ours(listener, Endpoint::Listener, config),
        )
        .await;
        let (dialer, listener) = sockets(buffers).await;
        $test(
            ours(dialer, Endpoint::Dialer, config),
            stock(listener, Endpoint::Listener),
        )
        .await;
    }};
}

/// The same, and with rust-libp2p's as the dialer.
macro_rules! between_all {
    ($config:expr, $buffers:expr, $test:expr) => {{
        dialled_by_ours!($config, $buffers, $test);
        let (dialer, listener) = sockets($buffers).await;
        $test(
            stock(dialer, Endpoint::Dialer),
            ours(listener, Endpoint::Listener, &$config),
        )
        .await;
    }};
}

fn within_a_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(within(work));
}

/// The sizes of messages.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..2_000_usize, 0..60)
}

fn messages(sizes: &[usize]) -> Vec<Vec<u8>> {
    (0..).zip(sizes).map(|(number, size)| bytes(number, *size)).collect()
}

fn config() -> impl Strategy<Value = Config> {
    (0..3_u32, any::<bool>()).prop_map(|(window, rest)| {
        Config::default()
            .with_max_stream_window(window * (1 << 20))
            .with_max_connection_window(if rest { u32::MAX } else { 0 })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::with_cases(6) })]

    #[test]
    fn every_message_comes_back_and_every_stream_is_closed_by_both_ends(
        sizes in sizes(),
        config in config(),
    ) {
        within_a_runtime(async {
            async fn check<A: Peer, B: Peer>(mut dialer: A, listener: B, messages: Vec<Vec<u8>>) {
                let expected = messages.len();
                let (served, sent) = futures::future::join(serve(listener), send(&mut dialer, messages, false)).await;
                assert_eq!(served.expect("every stream closes"), expected);
                assert_eq!(sent.expect("every stream closes"), expected);
            }
            dialled_by_ours!(config, None, |dialer, listener| check(dialer, listener, messages(&sizes)));
        });
    }

    #[test]
    fn a_stream_that_was_read_to_its_end_closes_after_the_other_end_has_closed_the_connection(
        sizes in sizes(),
        config in config(),
    ) {
        within_a_runtime(async {
            async fn check<A: Peer, B: Peer>(mut dialer: A, listener: B, messages: Vec<Vec<u8>>) {
                let client = async {
                    let mut stream = open(&mut dialer).await;
                    {
                        let work = async {
                            there_and_back(&mut stream, &vec![1; 256 << 10]).await?;
                            for message in &messages {
                                there_and_back(&mut stream, message).await?;
                            }
                            stream.close().await
                        };
                        let mut work = std::pin::pin!(work);
                        let done = poll_fn(|cx| {
                            if let Poll::Ready(Err(error)) = dialer.poll_unpin(cx) {
                                return Poll::Ready(Err(error.into()));
                            }
                            work.as_mut().poll(cx)
                        });
                        done.await.expect("the whole exchange");
                    }
                    poll_fn(|cx| dialer.poll_close_unpin(cx)).await.map_err(Into::into).expect("closes");
                };
                let (served, ()) = futures::future::join(serve(listener), client).await;
                assert_eq!(served.expect("the stream closes"), 1);
            }
            between_all!(config, None, |dialer, listener| check(dialer, listener, messages(&sizes)));
        });
    }

    #[test]
    fn a_stream_closed_by_one_end_still_carries_the_answer_of_the_other(size in 1..5_000_usize) {
        within_a_runtime(async {
            async fn check<A: Peer, B: Peer>(mut dialer: A, mut listener: B, message: Vec<u8>) {
                let server = async {
                    let mut stream = accept(&mut listener).await;
                    tokio::spawn(carry(listener));
                    let mut got = vec![0; message.len()];
                    stream.read_exact(&mut got).await?;
                    stream.write_all(&got).await?;
                    stream.close().await
                };
                let client = async {
                    let mut stream = open(&mut dialer).await;
                    tokio::spawn(carry(dialer));
                    stream.write_all(&message).await?;
                    stream.close().await?;
                    let mut got = Vec::new();
                    stream.read_to_end(&mut got).await?;
                    assert!(got == message);
                    io::Result::Ok(())
                };
                futures::future::try_join(server, client).await.expect("works");
            }
            between_all!(Config::default(), None, |dialer, listener| check(dialer, listener, bytes(1, size)));
        });
    }
}

#[test]
fn five_hundred_streams_at_once_are_echoed_over_sockets_with_small_buffers() {
    const STREAMS: usize = 512;
    let size = match std::env::var_os("YAMUX_LONG") {
        Some(_) => 128 << 10,
        None => 8 << 10,
    };
    within_a_runtime(async {
        async fn check<A: Peer, B: Peer>(mut dialer: A, listener: B, size: usize) {
            let serving = tokio::spawn(serve(listener));
            let messages = vec![bytes(1, size); STREAMS];
            assert_eq!(send(&mut dialer, messages, true).await.expect("all of them"), STREAMS);
            assert_eq!(serving.await.expect("does not panic").expect("all of them"), STREAMS);
        }
        for buffers in [None, Some((16 << 10, 32 << 10)), Some((32 << 10, 128 << 10))] {
            dialled_by_ours!(Config::default(), buffers, |dialer, listener| check(
                dialer, listener, size
            ));
        }
    });
}

/// Both ends may be unable to write at the same time. They get on by reading.
#[test]
fn an_echo_of_more_than_the_connection_holds_does_not_lock_both_ends() {
    within_a_runtime(async {
        let (dialer, listener) = tokio::io::duplex(1_024);
        let (dialer, listener) = (dialer.compat(), listener.compat());
        let (config, limit) = (Config::default(), Duration::from_secs(5));
        let mut dialer = Muxer::new(dialer, Endpoint::Dialer, &config, limit);
        let listener = Muxer::new(listener, Endpoint::Listener, &config, limit);
        let serving = tokio::spawn(serve(listener));
        let stream = open(&mut dialer).await;
        tokio::spawn(carry(dialer));
        exchange(stream, vec![1; 1 << 20]).await.expect("works");
        serving.abort();
    });
}

#[test]
fn a_257th_stream_waits_until_one_is_acknowledged() {
    within_a_runtime(async {
        async fn check<A: Peer, B: Peer>(mut dialer: A, listener: B) {
            let mut streams = Vec::new();
            for _ in 0..256 {
                streams.push(open(&mut dialer).now_or_never().expect("without waiting"));
            }
            assert!(
                open(&mut dialer).now_or_never().is_none(),
                "before anything is acknowledged"
            );
            let serving = tokio::spawn(serve(listener));
            let work = async {
                let exchanges = streams.into_iter().map(|stream| exchange(stream, b"ping".to_vec()));
                futures::future::try_join_all(exchanges).await
            };
            let (mut work, mut one_more, mut through) = (std::pin::pin!(work), None, false);
            poll_fn(|cx| {
                if !through && let Poll::Ready(done) = work.as_mut().poll(cx) {
                    done.expect("all of them");
                    through = true;
                }
                if one_more.is_none()
                    && let Poll::Ready(stream) = dialer.poll_outbound_unpin(cx)
                {
                    one_more = stream.ok();
                }
                if through && one_more.is_some() {
                    return Poll::Ready(());
                }
                assert!(dialer.poll_unpin(cx).is_pending(), "the connection ended");
                Poll::Pending
            })
            .await;
            let last = exchange(one_more.expect("acknowledged"), b"ping".to_vec());
            let mut last = std::pin::pin!(last);
            let done = poll_fn(|cx| {
                assert!(dialer.poll_unpin(cx).is_pending(), "the connection ended");
                last.as_mut().poll(cx)
            });
            done.await.expect("works");
            poll_fn(|cx| dialer.poll_close_unpin(cx))
                .await
                .map_err(Into::into)
                .expect("closes");
            assert_eq!(serving.await.expect("does not panic").expect("all of them"), 257);
        }
        between_all!(Config::default(), None, check);
    });
}
