//! The authenticated byte stream: TLS records between plain `AsyncRead + AsyncWrite` and whatever carries the bytes.

use crate::config::KeyExchange;
use crate::error::Error;
use crate::inbound::{Found, Inbound};
use crate::knock::Mode;
use crate::metrics::Metrics;
use crate::records::{MAX_PLAIN, Records, alert_for};
use crate::timer::Deadline;
use futures::future::FutureExt as _;
use futures::io::{AsyncBufRead, AsyncRead, AsyncWrite};
use futures::ready;
use libp2p_identity::PeerId;
use rustls::AlertDescription;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
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
/// system call if they come together. An idle stream holds no buffer; one that waits for the rest of a record holds what
/// has come of it, and one whose data nobody reads up to 80 KiB.
///
/// Reads and writes are cancel safe: a dropped read or write future loses nothing that it reported as taken. Read as an
/// [`AsyncBufRead`], it hands out what it opened where it lies. A clean end of the stream is the other end's
/// `close_notify`; a connection cut without one is [`io::ErrorKind::UnexpectedEof`].
pub struct TlsStream<S> {
    io: S,
    records: Records,
    about: About,
    closing: Option<Deadline>,
    inbound: Inbound,
    /// Less than a record of plain bytes, waiting for more or for a flush. Holds no memory while the stream is idle.
    partial: Vec<u8>,
    /// Sealed records that the socket has not taken, the first of them without its first `sent` bytes.
    outbound: VecDeque<Vec<u8>>,
    sent: usize,
    /// Plain bytes that were sealed since the socket last took everything.
    sealed: usize,
    /// Whether `io` holds bytes that it was not, or not successfully, told to flush.
    unflushed: bool,
    /// Who waits to write. A read that pushes has the socket wake the reader instead, and hands that on.
    writer: Option<Waker>,
}

/// Sealed bytes that may wait for the socket before a write has to.
const BACKLOG: usize = 4 * MAX_PLAIN;

/// The facts about a stream that its bytes do not carry.
pub(crate) struct About {
    pub(crate) peer: PeerId,
    pub(crate) role: Role,
    pub(crate) mode: Mode,
    pub(crate) key_exchange: Option<KeyExchange>,
    pub(crate) close_timeout: Duration,
    pub(crate) metrics: Metrics,
}

impl<S> TlsStream<S> {
    /// `received` is what came behind the handshake, still sealed.
    pub(crate) fn new(io: S, records: Records, received: Vec<u8>, about: About) -> Self {
        Self {
            io,
            records,
            about,
            closing: None,
            inbound: Inbound::new(received),
            partial: Vec::new(),
            outbound: VecDeque::new(),
            sent: 0,
            sealed: 0,
            unflushed: false,
            writer: None,
        }
    }

    /// The other end, proven by its certificate's key.
    pub fn peer(&self) -> PeerId {
        self.about.peer
    }

    /// Our part in the handshake.
    pub fn role(&self) -> Role {
        self.about.role
    }

    /// What is spoken inside.
    pub fn mode(&self) -> Mode {
        self.about.mode
    }

    /// The group that the keys were exchanged in.
    pub fn key_exchange(&self) -> Option<KeyExchange> {
        self.about.key_exchange
    }

    /// The stream below. Writing to it, or reading from it, breaks the connection.
    pub fn get_ref(&self) -> &S {
        &self.io
    }
}

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("peer", &self.about.peer)
            .field("role", &self.about.role)
            .field("mode", &self.about.mode)
            .field("key_exchange", &self.about.key_exchange)
            .finish_non_exhaustive()
    }
}

impl<S> TlsStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Hands sealed records to the socket until none is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        /// A full backlog and the small records between.
        const AT_ONCE: usize = 8;
        while !self.outbound.is_empty() {
            let mut slices = [IoSlice::new(&[]); AT_ONCE];
            let mut count = 0;
            for (slice, record) in slices.iter_mut().zip(&self.outbound) {
                let skip = if count == 0 { self.sent } else { 0 };
                *slice = IoSlice::new(&record[skip..]);
                count += 1;
            }
            let mut n = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..count]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.about.metrics.written(n);
            while let Some(record) = self.outbound.front()
                && n >= record.len() - self.sent
            {
                n -= record.len() - self.sent;
                self.sent = 0;
                self.outbound.pop_front();
            }
            self.sent += n;
        }
        self.outbound = VecDeque::new();
        self.sealed = 0;
        Poll::Ready(Ok(()))
    }

    /// Everything out: the record that is not full yet, and what the socket has not taken.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seal_partial()?;
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// What came and was not handed on. Empty only at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        loop {
            match self.inbound.open(&mut self.records) {
                Ok(Found::Data | Found::End) => return Poll::Ready(Ok(self.inbound.data())),
                Ok(Found::Nothing) => {}
                Err(error) => {
                    // Goes out with the close.
                    let _ = self.records.seal_alert(alert_for(&error), &mut self.outbound);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            }
            // Whoever waits for an answer counts on his question going out. Should it fail, the next write will say
            // so; there may still be something to read.
            if self.unflushed || !self.outbound.is_empty() || !self.partial.is_empty() {
                let _ = self.poll_push(cx);
                // On a stream that is split the other half waits in another task.
                if let Some(writer) = self.writer.take()
                    && !writer.will_wake(cx.waker())
                {
                    writer.wake();
                }
            }
            let n = ready!(self.inbound.poll_fill(&mut self.io, cx))?;
            if n == 0 {
                // In our words: what reads this is mostly a log line about a program that ended.
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, Error::Closed)));
            }
            self.about.metrics.read(n);
        }
    }

    fn seal_partial(&mut self) -> io::Result<()> {
        if self.partial.is_empty() {
            return Ok(());
        }
        let partial = std::mem::take(&mut self.partial);
        self.sealed += partial.len();
        self.records
            .seal(&[&partial], &mut self.outbound)
            .map_err(io::Error::other)
    }

    /// Remembers who waits to write.
    fn waiting<T>(&mut self, cx: &Context<'_>, poll: Poll<T>) -> Poll<T> {
        self.writer = poll.is_pending().then(|| cx.waker().clone());
        poll
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
        let data = ready!(this.poll_data(cx))?;
        let n = data.len().min(buf.len());
        buf[..n].copy_from_slice(&data[..n]);
        this.inbound.consume(n);
        Poll::Ready(Ok(n))
    }
}

/// Without a copy: what is handed out is a record where it was opened, 16 KiB at most.
impl<S> AsyncBufRead for TlsStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.get_mut().poll_data(cx)
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        self.get_mut().inbound.consume(n);
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
        let room = MAX_PLAIN - this.partial.len();
        if buf.len() < room {
            this.partial.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        let (first, rest) = buf.split_at(room);
        let mut seal = |chunks: &[&[u8]]| this.records.seal(chunks, &mut this.outbound).map_err(io::Error::other);
        seal(&[&this.partial, first])?;
        let mut taken = room;
        for record in rest[..rest.len().min(BACKLOG)].chunks_exact(MAX_PLAIN) {
            seal(&[record])?;
            taken += MAX_PLAIN;
        }
        this.sealed += this.partial.len() + taken;
        if taken == buf.len() {
            this.partial = Vec::new();
        } else {
            this.partial.clear();
        }
        if this.sealed >= BACKLOG
            && let Poll::Ready(Err(error)) = this.poll_drain(cx)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let pushed = this.poll_push(cx);
        this.waiting(cx, pushed)
    }

    /// `close_notify`, then the close of the socket, together within the close timeout.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_none() {
            this.seal_partial()?;
            this.records
                .seal_alert(AlertDescription::CloseNotify, &mut this.outbound)
                .map_err(io::Error::other)?;
        }
        let deadline = this
            .closing
            .get_or_insert_with(|| Deadline::after(this.about.close_timeout));
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
