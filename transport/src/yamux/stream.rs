//! What a user holds of a stream.

use super::chunks::Chunks;
use super::connection::Shared;
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use web_time::Instant;

/// Bytes that have been read before the connection is told. Less than half of the smallest window, so that the other end
/// never waits for it.
const REPORTED_AT: u32 = 64 * 1024;

/// One stream of a connection.
///
/// Writes go out with a flush, with the next read that has to wait, or when there is enough for full TLS records. A flush
/// is done at once and does not wait for the socket. Reads and writes are cancel safe.
///
/// Dropping a stream that was not closed resets it: the other end can read what had been sent, and gets
/// [`io::ErrorKind::ConnectionReset`] behind it.
pub struct Stream<C> {
    id: u32,
    shared: Arc<Shared<C>>,
    /// Taken from the connection, so that reading needs no lock.
    received: Chunks,
    read: u32,
}

impl<C> Stream<C> {
    pub(crate) fn new(id: u32, shared: Arc<Shared<C>>) -> Self {
        Self {
            id,
            shared,
            received: Chunks::default(),
            read: 0,
        }
    }

    /// The number it has on the wire: odd when the dialer opened it.
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl<C> fmt::Debug for Stream<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<C> AsyncRead for Stream<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.received.is_empty() {
            let read = std::mem::take(&mut this.read);
            let received = ready!(this.shared.with(|state| {
                let received = state.session.receive(this.id, read, Instant::now(), cx.waker());
                if received.is_pending() {
                    // Whoever waits for an answer counts on his question going out.
                    state.flush_soon();
                }
                received
            }))?;
            let Some(received) = received else {
                return Poll::Ready(Ok(0));
            };
            this.received = received;
        }
        let n = this.received.read(buf);
        // A window is less than 4 GiB, and so is what can be read of it.
        this.read += n as u32;
        if this.read >= REPORTED_AT {
            let read = std::mem::take(&mut this.read);
            this.shared
                .with(|state| state.session.read(this.id, read, Instant::now()));
        }
        Poll::Ready(Ok(n))
    }
}

impl<C> AsyncWrite for Stream<C>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.shared.poll_send(self.id, buf, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.with(super::connection::State::flush_soon);
        Poll::Ready(Ok(()))
    }

    /// Closes our direction. The other end reads the end of the stream behind everything that was written.
    ///
    /// Succeeds at once and does not wait for the socket. It also succeeds when the other end has
    /// closed the connection in order before, or has closed its own direction of the stream before
    /// the connection broke. In both cases it fails, with what ended the connection, if something
    /// that was written on this stream has not left. Reset by the other end, a stream whose end was
    /// not read fails with [`io::ErrorKind::ConnectionReset`].
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.with(|state| state.session.finish(self.id)))
    }
}

impl<C> Drop for Stream<C> {
    fn drop(&mut self) {
        self.shared.with(|state| state.forget(self.id));
    }
}
