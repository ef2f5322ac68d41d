//! Closing takes a bounded time, whatever the other end does.

use crate::common::*;
use futures::future::poll_fn;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p_core::Transport as _;
use libp2p_core::muxing::StreamMuxerExt as _;
use libp2p_core::transport::MemoryTransport;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_millis(300);

fn in_time(since: Instant) -> bool {
    (LIMIT..LIMIT * 10).contains(&since.elapsed())
}

/// Writes until the other end's window is full.
async fn stuff(stream: &mut (impl futures::AsyncWrite + Unpin)) {
    let filling = poll_fn(|cx| {
        loop {
            match Pin::new(&mut *stream).poll_write(cx, &[0; 65536]) {
                Poll::Ready(written) => assert!(written.unwrap() > 0),
                Poll::Pending => return Poll::Ready(()),
            }
        }
    });
    // The kernel moves bytes from one socket to the other on its own time: full is when nothing goes on fitting in.
    filling.await;
    while tokio::time::timeout(Duration::from_millis(200), stream.write(&[0; 65536]))
        .await
        .is_ok()
    {}
}

#[tokio::test]
async fn a_stream_whose_other_end_does_not_read_is_given_up_at_the_close_timeout() {
    let mut listener = victim(config(2)).await;
    let mut transport = authenticated(config(1).with_close_timeout(LIMIT));
    let (_, mut ours) = transport
        .dial(listener.address.clone(), dialer())
        .unwrap()
        .await
        .unwrap();
    let (_, _theirs) = listener.upgraded().await.unwrap();
    stuff(&mut ours).await;
    let started = Instant::now();
    let error = soon("the close", ours.close()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(in_time(started), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_whose_other_end_does_not_read_is_given_up_at_the_close_timeout() {
    let make = |seed| libp2p_knock::Transport::new(MemoryTransport::default(), config(seed).with_close_timeout(LIMIT));
    let mut listener = listen(make(2), peer(2), "/memory/0/tls").await;
    let dial = make(1).dial(listener.address.clone(), dialer()).unwrap();
    let (dialled, accepted) = futures::future::join(dial, listener.upgraded()).await;
    // Held, and never polled again: it neither reads nor answers the close.
    let (_, _theirs) = accepted.unwrap();
    let (_, mut ours) = dialled.unwrap();
    let mut stream = poll_fn(|cx| ours.poll_outbound_unpin(cx)).await.unwrap();
    // A memory channel holds 4,096 writes, whatever their size, and TLS 64 KiB more.
    for _ in 0..10_000 {
        let _ = futures::poll!(stream.write(&[0; 16]));
        let _ = futures::poll!(poll_fn(|cx| ours.poll_unpin(cx)));
    }
    let started = Instant::now();
    let error = soon("the close", poll_fn(|cx| ours.poll_close_unpin(cx)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(in_time(started), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_that_is_cut_is_told_from_one_that_is_closed() {
    let mut listener = victim(config(2)).await;
    for close in [true, false] {
        let dial = authenticated(config(1))
            .dial(listener.address.clone(), dialer())
            .unwrap();
        let (_, mut ours) = soon("the dial", dial).await.unwrap();
        let (_, mut theirs) = listener.upgraded().await.unwrap();
        ours.write_all(b"last words").await.unwrap();
        ours.flush().await.unwrap();
        if close {
            ours.close().await.unwrap();
        }
        drop(ours);
        let mut heard = Vec::new();
        let end = soon("the end", theirs.read_to_end(&mut heard)).await;
        assert_eq!(heard, b"last words");
        match end {
            Ok(_) => assert!(close, "a cut looked like a close"),
            Err(error) => assert!(!close && error.kind() == io::ErrorKind::UnexpectedEof, "{error}"),
        }
    }
}

/// Drives a muxer beside `work`, and says what became of it.
async fn beside<M, T>(muxer: &mut M, work: impl Future<Output = T>) -> T
where
    M: libp2p_core::StreamMuxer + Unpin,
{
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        let _ = muxer.poll_unpin(cx);
        work.as_mut().poll(cx)
    })
    .await
}

#[tokio::test]
async fn a_stream_closes_after_the_other_end_has_closed_the_connection() {
    let make = |seed| libp2p_knock::Transport::new(libp2p::tcp::tokio::Transport::default(), config(seed));
    let mut listener = listen(make(2), peer(2), "/ip4/127.0.0.1/tcp/0/tls").await;
    let dial = make(1).dial(listener.address.clone(), dialer()).unwrap();
    let (_, mut ours) = soon("the dial", dial).await.unwrap();
    let (_, mut theirs) = listener.upgraded().await.unwrap();

    let client = async move {
        let mut asking = poll_fn(|cx| ours.poll_outbound_unpin(cx)).await.unwrap();
        beside(&mut ours, async {
            asking.write_all(b"question").await.unwrap();
            let mut answer = [0; 6];
            asking.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"answer");
            asking.close().await.unwrap();
        })
        .await;
        poll_fn(|cx| ours.poll_close_unpin(cx)).await.unwrap();
    };
    let server = async move {
        let mut answering = poll_fn(|cx| {
            let _ = theirs.poll_unpin(cx);
            theirs.poll_inbound_unpin(cx)
        })
        .await
        .unwrap();
        beside(&mut theirs, async {
            answering.read_exact(&mut [0; 8]).await.unwrap();
            answering.write_all(b"answer").await.unwrap();
            answering.flush().await.unwrap();
        })
        .await;
        let ended = poll_fn(|cx| theirs.poll_unpin(cx)).await.unwrap_err();
        (answering, ended)
    };
    let both = futures::future::join(client, server);
    let ((), (mut answering, ended)) = soon("the answer, and the close", both).await;
    assert_eq!(ended.kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(
        answering.read(&mut [0]).await.unwrap(),
        0,
        "the other end had closed its direction"
    );
    answering.close().await.unwrap();
}
