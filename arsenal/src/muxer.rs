//! The least that drives a muxer: echo on every substream, or one byte there and back.

use anyhow::{Result, ensure};
use futures::future::{Either, poll_fn, select};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p_core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

/// Sends back what comes in, on every substream the other end opens, until the connection ends.
///
/// # Errors
///
/// How it ended.
pub async fn serve_echo(mut muxer: StreamMuxerBox) -> io::Result<()> {
    loop {
        let stream = poll_fn(|cx| poll_inbound(&mut muxer, cx)).await?;
        tokio::spawn(async move {
            let (read, mut write) = stream.split();
            // It ends with an error when the dialer leaves.
            let _ = futures::io::copy(read, &mut write).await;
        });
    }
}

/// Opens a substream and sees one byte come back.
///
/// # Errors
///
/// When the connection ends before that, or another byte comes.
pub async fn echo(muxer: &mut StreamMuxerBox) -> Result<()> {
    let mut stream = poll_fn(|cx| {
        if let Poll::Ready(stream) = muxer.poll_outbound_unpin(cx)? {
            return Poll::Ready(Ok::<_, io::Error>(stream));
        }
        while poll_inbound(muxer, cx)?.is_ready() {}
        Poll::Pending
    })
    .await?;
    let there_and_back = async {
        stream.write_all(b"e").await?;
        stream.flush().await?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await?;
        ensure!(answer == *b"e", "another byte came back");
        Ok(())
    };
    let drive = async {
        loop {
            poll_fn(|cx| poll_inbound(muxer, cx)).await?;
        }
    };
    match select(pin!(there_and_back), pin!(drive)).await {
        Either::Left((done, _)) => done,
        Either::Right((ended, _)) => {
            let ended: io::Result<std::convert::Infallible> = ended;
            ended.map(|never| match never {})?
        }
    }
}

fn poll_inbound(muxer: &mut StreamMuxerBox, cx: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
    while muxer.poll_unpin(cx)?.is_ready() {}
    muxer.poll_inbound_unpin(cx)
}
