//! The authenticated byte stream: rustls between plain `AsyncRead + AsyncWrite` and whatever carries the bytes.

use crate::config::KeyExchange;
use crate::error::Error;
use crate::knock::Mode;
use crate::metrics::Metrics;
use crate::timer::Deadline;
use futures::future::FutureExt as _;
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use libp2p_identity::PeerId;
use rustls::Connection;
use std::fmt;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Which end of the TLS handshake we were. Not always who opened the socket: in a hole punch both ends do, and one of
/// them takes the listener's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// We knocked and were the TLS client.
    Dialer,
    /// We were knocked at and were the TLS server.
    Listener,
}

/// A byte stream whose other end is a known peer.
///
/// Writes gather in full TLS records: small ones need a flush (or a read that waits) to go out, and share a record and a
/// system call if they come together. An idle stream holds no buffer of ours; rustls keeps one of 4 KiB.
///
/// Reads and writes are cancel safe: a dropped read or write future loses nothing that it reported as taken. A clean end of the stream is the other end's
/// `close_notify`; a connection cut without one is [`io::ErrorKind::UnexpectedEof`].
pub struct TlsStream<S> {
    io: S,
    tls: Connection,
    peer: PeerId,
    role: Role,
    mode: Mode,
    close_timeout: Duration,
    closing: Option<Deadline>,
    metrics: Metrics,
    /// Less than a record of plain bytes, waiting for more or for a flush. Holds no memory while the stream is idle.
    partial: Vec<u8>,
    /// Plain bytes that were sealed since the socket last took everything.
    sealed: usize,
    flush_on_read: bool,
    /// Whether `io` holds bytes that it was not, or not successfully, told to flush.
    unflushed: bool,
    /// Who waits to write. A read that pushes has the socket wake the reader instead, and hands that on.
    writer: Option<Waker>,
}

/// The most that one TLS record carries (RFC 8446, section 5.1).
const RECORD: usize = 16_384;

/// Sealed bytes that may wait for the socket before a write has to.
const BACKLOG: usize = 4 * RECORD;

/// The facts about a stream that its bytes do not carry.
pub(crate) struct About {
    pub(crate) peer: PeerId,
    pub(crate) role: Role,
    pub(crate) mode: Mode,
    pub(crate) close_timeout: Duration,
    pub(crate) metrics: Metrics,
}

impl<S> TlsStream<S> {
    pub(crate) fn new(io: S, mut tls: Connection, about: About) -> Self {
        // `BACKLOG` is the limit, and it knows of whole records.
        tls.set_buffer_limit(None);
        let About {
            peer,
            role,
            mode,
            close_timeout,
            metrics,
        } = about;
        Self {
            io,
            tls,
            peer,
            role,
            mode,
            close_timeout,
            closing: None,
            metrics,
            partial: Vec::new(),
            sealed: 0,
            flush_on_read: false,
            unflushed: false,
            writer: None,
        }
    }

    /// The other end, proven by its certificate's key.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Our part in the handshake.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What is spoken inside.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The group that the keys were exchanged in.
    pub fn key_exchange(&self) -> Option<KeyExchange> {
        key_exchange(&self.tls)
    }

    /// Lets a flush wait until the next read finds nothing, so that what is written in between shares records and
    /// writes. For the owner that always reads after it has written and flushed, as a muxer does: yamux flushes behind
    /// each frame and then polls for input. Anybody else would wait for an answer to a question that was never sent.
    ///
    /// Default `false`; [`Transport`](crate::Transport) sets it.
    pub fn set_flush_on_read(&mut self, defer: bool) {
        self.flush_on_read = defer;
    }

    /// The stream below. Writing to it, or reading from it, breaks the connection.
    pub fn get_ref(&self) -> &S {
        &self.io
    }
}

pub(crate) fn key_exchange(tls: &Connection) -> Option<KeyExchange> {
    tls.negotiated_key_exchange_group()
        .and_then(|group| KeyExchange::of(group.name()))
}

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("peer", &self.peer)
            .field("role", &self.role)
            .field("mode", &self.mode)
            .field("key_exchange", &self.key_exchange())
            .finish_non_exhaustive()
    }
}

impl<S> TlsStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Hands sealed records to the socket until none is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut writer = Blocking { io: &mut self.io, cx };
            match self.tls.write_tls(&mut writer) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.unflushed = true;
                    self.metrics.written(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.sealed = 0;
        Poll::Ready(Ok(()))
    }

    /// Everything out: the record that is not full yet, and what the socket has not taken.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.partial.is_empty() {
            let partial = std::mem::take(&mut self.partial);
            self.sealed += partial.len();
            self.tls.writer().write_all(&partial)?;
        }
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Remembers who waits to write.
    fn waiting<T>(&mut self, cx: &Context<'_>, poll: Poll<T>) -> Poll<T> {
        self.writer = poll.is_pending().then(|| cx.waker().clone());
        poll
    }

    /// Reads what the socket has and opens it. Ready with the number of bytes, 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut reader = Blocking { io: &mut self.io, cx };
        let n = match self.tls.read_tls(&mut reader) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        };
        self.metrics.read(n);
        self.tls
            .process_new_packets()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Poll::Ready(Ok(n))
    }
}

impl<S> AsyncRead for TlsStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            match this.tls.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // In our words: what reads this is mostly a log line about a program that ended.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, Error::Closed)));
                }
                done => return Poll::Ready(done),
            }
            // Whoever waits for an answer counts on his question going out. Should it fail, the next write will say
            // so; there may still be something to read.
            if this.unflushed || this.tls.wants_write() || !this.partial.is_empty() {
                let _ = this.poll_push(cx);
                // On a stream that is split the other half waits in another task.
                if let Some(writer) = this.writer.take()
                    && !writer.will_wake(cx.waker())
                {
                    writer.wake();
                }
            }
            ready!(this.poll_fill(cx))?;
        }
    }
}

impl<S> AsyncWrite for TlsStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Takes whole records as they come and keeps what does not fill one for the next write, or for the flush.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.sealed >= BACKLOG {
            let drained = this.poll_drain(cx);
            ready!(this.waiting(cx, drained))?;
        }
        let room = RECORD - this.partial.len();
        let Some(rest) = buf.len().checked_sub(room) else {
            this.partial.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        };
        let taken = room + rest.min(BACKLOG) / RECORD * RECORD;
        let sealed = this
            .tls
            .writer()
            .write_vectored(&[IoSlice::new(&this.partial), IoSlice::new(&buf[..taken])])?;
        debug_assert_eq!(sealed, this.partial.len() + taken, "rustls buffers without a limit");
        if taken == buf.len() {
            this.partial = Vec::new();
        } else {
            this.partial.clear();
        }
        this.sealed += sealed;
        if this.sealed >= BACKLOG
            && let Poll::Ready(Err(error)) = this.poll_drain(cx)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flush_on_read {
            return Poll::Ready(Ok(()));
        }
        let pushed = this.poll_push(cx);
        this.waiting(cx, pushed)
    }

    /// `close_notify`, then the close of the socket, together within the close timeout.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_none() {
            let partial = std::mem::take(&mut this.partial);
            this.tls.writer().write_all(&partial)?;
            this.tls.send_close_notify();
        }
        let deadline = this.closing.get_or_insert_with(|| Deadline::after(this.close_timeout));
        if deadline.poll_unpin(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let drained = this.poll_drain(cx);
        ready!(this.waiting(cx, drained))?;
        match ready!(Pin::new(&mut this.io).poll_close(cx)) {
            // The other end was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

/// Lets rustls, which knows no futures, read and write: `Pending` becomes `WouldBlock`.
struct Blocking<'a, 'b, S> {
    io: &'a mut S,
    cx: &'a mut Context<'b>,
}

fn blocking<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl<S: AsyncRead + Unpin> io::Read for Blocking<'_, '_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.io).poll_read(self.cx, buf))
    }
}

impl<S: AsyncWrite + Unpin> io::Write for Blocking<'_, '_, S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.io).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.io).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
