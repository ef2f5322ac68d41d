//! The bytes below TLS: counted, and limited from the end of the handshake on.

use crate::peers::Shared;
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// More came over the wire than all streams with the peer allow for together.
#[derive(Debug, thiserror::Error)]
#[error("more bytes came over the wire than all streams allow for")]
pub(crate) struct OverLimit;

/// What one socket has carried.
#[derive(Default)]
pub(crate) struct Meter {
    read: AtomicU64,
    written: AtomicU64,
    bound: OnceLock<(Arc<Shared>, u64)>,
}

impl Meter {
    /// The handshake is over: from now on the limit of `peer` holds, and its counters count.
    pub(crate) fn bind(&self, peer: Arc<Shared>) {
        let read = self.read.load(Ordering::Relaxed);
        peer.counters.rawconn_read_bytes.add(read);
        peer.counters.rawconn_written_bytes.add(self.written());
        let _ = self.bound.set((peer, read));
    }

    pub(crate) fn read_since_handshake(&self) -> u64 {
        let before = self.bound.get().map_or(0, |(_, read)| *read);
        self.read.load(Ordering::Relaxed).saturating_sub(before)
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn has_read(&self, n: usize) -> io::Result<()> {
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        if let Some((peer, _)) = self.bound.get() {
            peer.counters.rawconn_read_bytes.add(n as u64);
            if !peer.allows(n) {
                return Err(io::Error::other(OverLimit));
            }
        }
        Ok(())
    }

    fn has_written(&self, n: usize) {
        self.written.fetch_add(n as u64, Ordering::Relaxed);
        if let Some((peer, _)) = self.bound.get() {
            peer.counters.rawconn_written_bytes.add(n as u64);
        }
    }
}

/// A socket with a [`Meter`].
pub(crate) struct Metered<S> {
    io: S,
    meter: Arc<Meter>,
}

impl<S> Metered<S> {
    pub(crate) fn new(io: S) -> Self {
        Self {
            io,
            meter: Arc::default(),
        }
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    #[cfg(test)]
    pub(crate) fn get_ref(&self) -> &S {
        &self.io
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        Poll::Ready(this.meter.has_read(n).map(|()| n))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.meter.has_written(n);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        this.meter.has_written(n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_close(cx)
    }
}
