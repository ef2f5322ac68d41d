//! The authenticated byte stream: TLS records between plain `AsyncRead + AsyncWrite` and whatever carries the bytes.

use crate::at_once::poll_at_once;
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
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
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
/// Reads and writes are cancel safe: a dropped read or write future loses nothing that it reported
/// as taken, and keeps the other half of a split stream from nothing. Read as an [`AsyncBufRead`],
/// it hands out what it opened where it lies.
///
/// A clean end of the stream is the other end's `close_notify`; a connection cut without one is
/// [`io::ErrorKind::UnexpectedEof`]. Behind such an end one may still write. The end is answered
/// with a `close_notify` by [`close`](futures::AsyncWriteExt::close), or when the stream is
/// dropped. A stream that is dropped before it has ended, and without a close, looks cut to the
/// other end.
///
/// A record that is no good fails that read and everything after it but the close, with
/// [`io::ErrorKind::InvalidData`] and a [`rustls::Error`] in it. The other end is told which fault
/// it was, once, by the alert that TLS has for it, as far as the socket takes it at once or before
/// the stream is dropped.
pub struct TlsStream<S> {
    io: S,
    records: Records,
    about: About,
    closing: Option<Deadline>,
    /// Whether it was closed in time.
    closed: bool,
    inbound: Inbound,
    /// What the other end did wrong. Nothing is read or written after that.
    fault: Option<rustls::Error>,
    /// Less than a record of plain bytes, waiting for more or for a flush. Holds no memory while the stream is idle.
    partial: Vec<u8>,
    /// Sealed records that the socket has not taken, the first of them without its first `sent` bytes.
    outbound: VecDeque<Vec<u8>>,
    sent: usize,
    /// Plain bytes that were sealed since the socket last took everything.
    sealed: usize,
    /// Whether `io` holds bytes that it was not, or not successfully, told to flush.
    unflushed: bool,
    /// The task that waits to write, and the task that waits to read and for what was written to go
    /// out before. The socket has room for one waker: it is given one that wakes both.
    writer: Option<Waker>,
    pusher: Option<Waker>,
    /// [`TlsStream::part`], which needs to know more of `S` than a `drop` does.
    part: fn(&mut Self),
}

/// Wakes two tasks.
struct Both(Waker, Waker);

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake_by_ref();
        self.1.wake_by_ref();
    }
}

/// A waker of the task that polls and, if another one waits for the same, of that too.
fn with<'a>(own: &'a Waker, other: Option<&Waker>) -> Cow<'a, Waker> {
    match other {
        Some(other) if !other.will_wake(own) => Cow::Owned(Arc::new(Both(own.clone(), other.clone())).into()),
        _ => Cow::Borrowed(own),
    }
}

/// Sealed bytes that may wait for the socket before a write has to.
const BACKLOG: usize = 4 * MAX_PLAIN;

/// How often one poll reads from the socket for the sake of a byte of data. Records may be empty,
/// or say nothing.
const FILLS_PER_POLL: usize = 4;

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
    pub(crate) fn new(io: S, records: Records, received: Vec<u8>, about: About) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        Self {
            io,
            records,
            about,
            closing: None,
            closed: false,
            inbound: Inbound::new(received),
            fault: None,
            partial: Vec::new(),
            outbound: VecDeque::new(),
            sent: 0,
            sealed: 0,
            unflushed: false,
            writer: None,
            pusher: None,
            part: Self::part,
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
        self.pusher = None;
        Poll::Ready(Ok(()))
    }

    fn has_unsent(&self) -> bool {
        self.unflushed || !self.outbound.is_empty() || !self.partial.is_empty()
    }

    /// Everything out, for a read that waits: a reader that waits for an answer counts on its
    /// question going out. Should it fail, the next write will say so; there may still be something
    /// to read.
    fn push_to_read(&mut self, cx: &mut Context<'_>) {
        let waker = with(cx.waker(), self.writer.as_ref());
        let pushed = self.poll_push(&mut Context::from_waker(&waker));
        self.pusher = pushed.is_pending().then(|| cx.waker().clone());
        // On a stream that is split the other half waits in another task, and need not any more.
        if pushed.is_ready()
            && let Some(writer) = self.writer.take()
            && !writer.will_wake(cx.waker())
        {
            writer.wake();
        }
    }

    /// What came and was not handed on. Empty only at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        for _ in 0..FILLS_PER_POLL {
            if self.fault.is_some() {
                return Poll::Ready(Err(self.faulted()));
            }
            match self.inbound.open(&mut self.records) {
                Ok(Found::Data | Found::End) => return Poll::Ready(Ok(self.inbound.data())),
                Ok(Found::Nothing) => {}
                Err(fault) => {
                    self.tell(fault);
                    let waker = with(cx.waker(), self.writer.as_ref());
                    let _ = self.poll_push(&mut Context::from_waker(&waker));
                    // It will not be taken any more.
                    self.writer.take().into_iter().for_each(Waker::wake);
                    return Poll::Ready(Err(self.faulted()));
                }
            }
            if self.has_unsent() {
                self.push_to_read(cx);
            }
            let n = ready!(self.inbound.poll_fill(&mut self.io, cx))?;
            if n == 0 {
                // In our words: what reads this is mostly a log line about a program that ended.
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, Error::Closed)));
            }
            self.about.metrics.read(n);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Seals what tells the other end of its fault, behind what was written before, and remembers
    /// the fault.
    fn tell(&mut self, fault: rustls::Error) {
        match alert_for(&fault).filter(|_| self.closing.is_none()) {
            Some(alert) => {
                let _ = self.seal_partial();
                let _ = self.records.seal_alert(alert, &mut self.outbound);
            }
            None => self.partial = Vec::new(),
        }
        self.fault = Some(fault);
    }

    /// What every read and write says after a fault.
    fn faulted(&self) -> io::Error {
        let kind = io::ErrorKind::InvalidData;
        match &self.fault {
            Some(fault) => io::Error::new(kind, fault.clone()),
            None => kind.into(),
        }
    }

    /// The last that can be said when the stream is dropped, as far as the socket takes it without
    /// waiting: what is left of a fault, or the answer to the other end's close.
    fn part(&mut self) {
        let answers = self.fault.is_none() && self.inbound.has_ended();
        if self.closing.is_some() || !(answers || self.fault.is_some()) || std::thread::panicking() {
            return;
        }
        if answers {
            let close = AlertDescription::CloseNotify;
            if self.seal_partial().is_err() || self.records.seal_alert(close, &mut self.outbound).is_err() {
                return;
            }
        }
        let _ = poll_at_once(&mut Context::from_waker(Waker::noop()), |cx| {
            ready!(self.poll_push(cx))?;
            Pin::new(&mut self.io).poll_close(cx)
        });
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

    /// Has the socket wake the task that writes, and the one that waits to read and for the same.
    fn writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Self, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let waker = with(cx.waker(), self.pusher.as_ref());
        let polled = poll(self, &mut Context::from_waker(&waker));
        self.writer = polled.is_pending().then(|| cx.waker().clone());
        polled
    }
}

impl<S> Drop for TlsStream<S> {
    fn drop(&mut self) {
        (self.part)(self);
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
        if this.fault.is_some() {
            return Poll::Ready(Err(this.faulted()));
        }
        if this.closing.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.sealed >= BACKLOG {
            ready!(this.writing(cx, Self::poll_drain))?;
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
        if this.sealed >= BACKLOG {
            let waker = with(cx.waker(), this.pusher.as_ref());
            if let Poll::Ready(Err(error)) = this.poll_drain(&mut Context::from_waker(&waker)) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let pushed = this.writing(cx, Self::poll_push);
        if this.fault.is_some() {
            return Poll::Ready(Err(this.faulted()));
        }
        pushed
    }

    /// `close_notify`, then the close of the socket, together within the close timeout. Behind a
    /// fault the close of the socket alone. Writing fails with [`io::ErrorKind::BrokenPipe`] from
    /// then on; reading goes on.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closed {
            return Poll::Ready(Ok(()));
        }
        if this.closing.is_none() && this.fault.is_none() {
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
        let closed = this.writing(cx, |this, cx| {
            ready!(this.poll_drain(cx))?;
            Pin::new(&mut this.io).poll_close(cx)
        });
        match ready!(closed) {
            // The other end was faster.
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => {
                this.closed = true;
                Poll::Ready(Ok(()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
