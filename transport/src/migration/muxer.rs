//! A connection of one of two worlds.

use super::metrics::Open;
use futures::future::Either;
use libp2p_core::muxing::{StreamMuxer, StreamMuxerEvent};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The muxer of a connection that a [`Migration`](crate::Migration) has made: the stock transport's (`S`) or the
/// knock's (`K`).
pub struct MigrationMuxer<S, K> {
    inner: Either<S, K>,
    /// Counts it as open.
    _open: Open,
}

impl<S, K> MigrationMuxer<S, K> {
    pub(super) fn new(inner: Either<S, K>, open: Open) -> Self {
        Self { inner, _open: open }
    }

    /// Whether the connection is a knock's.
    pub fn is_knock(&self) -> bool {
        matches!(self.inner, Either::Right(_))
    }
}

impl<S, K> fmt::Debug for MigrationMuxer<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MigrationMuxer")
            .field("is_knock", &self.is_knock())
            .finish_non_exhaustive()
    }
}

impl<S, K> MigrationMuxer<S, K>
where
    S: StreamMuxer + Unpin,
    K: StreamMuxer + Unpin,
{
    fn inner(self: Pin<&mut Self>) -> Pin<&mut Either<S, K>> {
        Pin::new(&mut self.get_mut().inner)
    }
}

impl<S, K> StreamMuxer for MigrationMuxer<S, K>
where
    S: StreamMuxer + Unpin,
    K: StreamMuxer + Unpin,
{
    type Substream = <Either<S, K> as StreamMuxer>::Substream;
    type Error = <Either<S, K> as StreamMuxer>::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        self.inner().poll_inbound(cx)
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        self.inner().poll_outbound(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner().poll_close(cx)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.inner().poll(cx)
    }
}
