//! A muxer whose streams are counted and whose end is bounded.

use super::activity::{Activity, Opener};
use super::purpose::Purpose;
use super::registry::Place;
use futures::future::FutureExt as _;
use futures::io::{AsyncRead, AsyncWrite, IoSlice, IoSliceMut};
use futures::ready;
use futures_timer::Delay;
use libp2p_core::muxing::{StreamMuxer, StreamMuxerEvent};
use std::fmt;
use std::io;
use std::iter::once;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use web_time::Instant;

/// Counts the streams of the muxer inside.
///
/// Closing it takes the transport's close timeout at most: rust-libp2p awaits a closing connection without a limit, so a
/// peer that has stopped reading could otherwise stay connected for as long as it likes.
pub struct Muxer<M> {
    inner: M,
    activity: Activity,
    close_timeout: Duration,
    closing: Option<Delay>,
    /// Given up when the connection ends.
    _place: Place,
}

impl<M> Muxer<M> {
    pub(crate) fn new(inner: M, activity: Activity, place: Place, close_timeout: Duration) -> Self {
        Self {
            inner,
            activity,
            close_timeout,
            closing: None,
            _place: place,
        }
    }

    fn counted<S>(&self, inner: S, opener: Opener) -> Substream<S> {
        self.activity.count(opener);
        Substream {
            inner,
            opener,
            purpose: Purpose::NEW,
            activity: self.activity.clone(),
        }
    }
}

impl<M> fmt::Debug for Muxer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Muxer")
            .field("activity", &self.activity)
            .field("closing", &self.closing.is_some())
            .finish_non_exhaustive()
    }
}

impl<M> StreamMuxer for Muxer<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: Unpin,
{
    type Substream = Substream<M::Substream>;
    type Error = Error<M::Error>;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let this = self.get_mut();
        let stream = ready!(Pin::new(&mut this.inner).poll_inbound(cx)).map_err(Error::Muxer)?;
        Poll::Ready(Ok(this.counted(stream, Opener::Remote)))
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let this = self.get_mut();
        let stream = ready!(Pin::new(&mut this.inner).poll_outbound(cx)).map_err(Error::Muxer)?;
        Poll::Ready(Ok(this.counted(stream, Opener::Local)))
    }

    /// [`Error::CloseTimedOut`] when the time is up; the connection is then to be dropped.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        if let Poll::Ready(closed) = Pin::new(&mut this.inner).poll_close(cx) {
            return Poll::Ready(closed.map_err(Error::Muxer));
        }
        let timeout = this.close_timeout;
        ready!(this.closing.get_or_insert_with(|| Delay::new(timeout)).poll_unpin(cx));
        Poll::Ready(Err(Error::CloseTimedOut(timeout)))
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.get_mut().inner).poll(cx).map_err(Error::Muxer)
    }
}

/// A stream of a counted connection: counted until it is dropped, whichever way it ended.
pub struct Substream<S> {
    inner: S,
    opener: Opener,
    purpose: Purpose,
    activity: Activity,
}

impl<S> Substream<S> {
    /// Takes note of bytes that moved, if there are any. `by` sent them, and they begin with those
    /// in `pieces`.
    fn note<'a>(
        &mut self,
        moved: Poll<io::Result<usize>>,
        by: Opener,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(Ok(mut left @ 1..)) = moved else {
            return moved;
        };
        if by == self.opener && matches!(self.purpose, Purpose::Unknown(_)) {
            for piece in pieces {
                let piece = &piece[..piece.len().min(left)];
                left -= piece.len();
                self.purpose = self.purpose.heard(piece);
            }
            if self.purpose == Purpose::KeepsAlive {
                self.activity.discount(self.opener);
            }
        }
        if self.purpose == Purpose::Other {
            self.activity.touch(now());
        }
        moved
    }
}

impl<S> Drop for Substream<S> {
    fn drop(&mut self) {
        if self.purpose != Purpose::KeepsAlive {
            self.activity.discount(self.opener);
        }
        if self.purpose == Purpose::Other {
            self.activity.touch(now());
        }
    }
}

impl<S> fmt::Debug for Substream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Substream").finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Substream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.note(read, Opener::Remote, once(&*buf))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.inner).poll_read_vectored(cx, bufs);
        this.note(read, Opener::Remote, bufs.iter().map(|buf| &**buf))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Substream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.note(written, Opener::Local, once(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.note(written, Opener::Local, bufs.iter().map(|buf| &**buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}

/// Why a counted connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error<E> {
    /// The muxer inside says so.
    #[error(transparent)]
    Muxer(E),
    /// It was closing for this long, and the other end did not take it.
    #[error("the connection did not close within {0:?}")]
    CloseTimedOut(Duration),
}

/// The clock of last activities: a call without a system call on the usual platforms, beside which a read or a write that
/// moves bytes is dear.
fn now() -> Instant {
    Instant::now()
}
