//! The muxer of rust-libp2p at the other end.

use super::live::{Driven, Pipe, full_house, ours, pass, within};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p_core::Endpoint;
use libp2p_core::upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _};
use std::io;
use tokio::io::DuplexStream;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

type Stock = Driven<libp2p_yamux::Muxer<Pipe>>;

fn stock(pipe: DuplexStream, side: Endpoint) -> Stock {
    let config = libp2p_yamux::Config::default();
    let upgraded = match side {
        Endpoint::Dialer => config.upgrade_outbound(pipe.compat(), "/yamux/1.0.0"),
        Endpoint::Listener => config.upgrade_inbound(pipe.compat(), "/yamux/1.0.0"),
    };
    Driven::new(upgraded.into_inner().expect("needs no bytes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn forty_streams_both_ways_between_ours_and_theirs_in_either_part() {
    for (holds, n) in [(13, 20_000), (1_000, 300_000), (1 << 20, 2 << 20)] {
        let (one, other) = tokio::io::duplex(holds);
        let (mut one, mut other) = (ours(one, Endpoint::Dialer), stock(other, Endpoint::Listener));
        full_house(&mut one, &mut other, 20, n).await;
        within(one.close()).await.expect("closes");

        let (one, other) = tokio::io::duplex(holds);
        let (mut one, mut other) = (ours(one, Endpoint::Listener), stock(other, Endpoint::Dialer));
        full_house(&mut one, &mut other, 20, n).await;
        within(other.close()).await.expect("closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_stream_is_half_closed_on_both() {
    let (one, other) = tokio::io::duplex(1_000);
    let (one, mut other) = (ours(one, Endpoint::Dialer), stock(other, Endpoint::Listener));
    let mut asking = one.open().await;
    asking.write_all(b"question").await.expect("writes");
    asking.close().await.expect("closes");
    let mut answering = other.accept().await;
    let mut got = Vec::new();
    within(answering.read_to_end(&mut got)).await.expect("reads");
    assert_eq!(got, b"question");
    answering.write_all(b"answer").await.expect("writes");
    answering.close().await.expect("closes");
    let mut got = Vec::new();
    within(asking.read_to_end(&mut got)).await.expect("reads");
    assert_eq!(got, b"answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_either_drops_is_gone_for_the_other_behind_its_data() {
    let (one, other) = tokio::io::duplex(1_000);
    let (one, mut other) = (ours(one, Endpoint::Dialer), stock(other, Endpoint::Listener));
    let mut dropped = one.open().await;
    dropped.write_all(b"last").await.expect("writes");
    dropped.flush().await.expect("flushes");
    drop(dropped);
    let mut got = Vec::new();
    let mut theirs = other.accept().await;
    within(theirs.read_to_end(&mut got))
        .await
        .expect("theirs calls a reset an end");
    assert_eq!(got, b"last");

    let mut dropped = other.open().await;
    dropped.write_all(b"last").await.expect("writes");
    dropped.flush().await.expect("flushes");
    drop(dropped);
    let mut got = Vec::new();
    let mut ours = one_accept(one).await;
    let error = within(ours.read_to_end(&mut got)).await.expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(got, b"last");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_filled_the_window_of_a_stream_that_is_closed_and_dropped_learns_of_it() {
    // The pipe holds everything: theirs then sends all it has before it looks for more.
    let (one, other) = tokio::io::duplex(1 << 20);
    let (one, mut other) = (ours(one, Endpoint::Dialer), stock(other, Endpoint::Listener));
    let (mut asking, mut beside) = (one.open().await, one.open().await);
    asking.write_all(b"question").await.expect("writes");
    asking.close().await.expect("closes");
    let mut answering = other.accept().await;
    within(answering.write_all(&vec![0; 256 << 10]))
        .await
        .expect("a window");
    let mut waiting = Box::pin(answering.write_all(b"more"));
    assert!(futures::poll!(&mut waiting).is_pending());

    // The first answer may come before all of the window has, the second one cannot.
    beside.write_all(b"?").await.expect("writes");
    beside.flush().await.expect("flushes");
    let mut echoing = other.accept().await;
    within(echoing.read_exact(&mut [0])).await.expect("reads");
    pass(&mut echoing, &mut beside).await;
    pass(&mut beside, &mut echoing).await;
    pass(&mut echoing, &mut beside).await;
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(asking);
    within(waiting).await.expect_err("there is nobody to read it");
    let mut got = Vec::new();
    within(answering.read_to_end(&mut got)).await.expect("reads");
    assert_eq!(got, b"question");
}

/// Keeps the connection alive for as long as the test goes on.
async fn one_accept(mut one: Driven<crate::muxed::Muxer<Pipe>>) -> crate::yamux::Stream<Pipe> {
    let stream = one.accept().await;
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(one)
    });
    stream
}
