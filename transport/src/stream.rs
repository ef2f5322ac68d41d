//! The authenticated byte stream: rustls between plain `AsyncRead + AsyncWrite` and whatever carries the bytes.

use crate::config::KeyExchange;
use crate::error::Error;
use crate::knock::Mode;
use crate::metrics::Metrics;
use futures::future::FutureExt as _;
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures::ready;
use futures_timer::Delay;
use libp2p_identity::PeerId;
use rustls::Connection;
use std::fmt;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};
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
/// Reads and writes are cancel safe: a dropped read or write future loses nothing, and bytes that a write has reported
/// as taken go out with the next write, flush, read or close. A clean end of the stream is the other end's
/// `close_notify`; a connection cut without one is [`io::ErrorKind::UnexpectedEof`].
pub struct TlsStream<S> {
    io: S,
    tls: Connection,
    peer: PeerId,
    role: Role,
    mode: Mode,
    close_timeout: Duration,
    closing: Option<Delay>,
    metrics: Metrics,
}

/// The facts about a stream that its bytes do not carry.
pub(crate) struct About {
    pub(crate) peer: PeerId,
    pub(crate) role: Role,
    pub(crate) mode: Mode,
    pub(crate) close_timeout: Duration,
    pub(crate) metrics: Metrics,
}

impl<S> TlsStream<S> {
    pub(crate) fn new(io: S, tls: Connection, about: About) -> Self {
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

/// Runs the handshake to its end, with `first` in front of the first flight and in the same write.
///
/// Written out here, and not taken from an adapter, for what it does *not* do: when the other end is refused no alert
/// is sent. To it, and to whoever listens, all refusals look the same.
///
/// Not cancel safe: a handshake that is dropped cannot be gone on with, so the socket is dropped with it.
pub(crate) async fn handshake<S>(io: &mut S, tls: &mut Connection, first: &[u8], metrics: &Metrics) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// A server flight with X25519MLKEM768 is about 1.6 kB.
    const ROOM: usize = 4096;

    let mut flight = first.to_vec();
    let mut room = vec![0; ROOM];
    loop {
        while tls.wants_write() {
            let sealed = tls.write_tls(&mut flight)?;
            metrics.written(sealed);
        }
        if !flight.is_empty() {
            io.write_all(&flight).await?;
            io.flush().await?;
            flight.clear();
        }
        if !tls.is_handshaking() {
            return Ok(());
        }
        let n = io.read(&mut room).await?;
        if n == 0 {
            return Err(Error::Closed);
        }
        metrics.read(n);
        let mut received = &room[..n];
        while !received.is_empty() {
            tls.read_tls(&mut received)?;
            tls.process_new_packets()?;
        }
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
                Ok(n) => self.metrics.written(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
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

    /// Seals through `seal` what there is room for and hands on what the socket takes. Pending only if nothing was
    /// taken, and then the socket will wake us.
    fn poll_seal(
        &mut self,
        cx: &mut Context<'_>,
        seal: impl Fn(&mut rustls::Writer<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let taken = seal(&mut self.tls.writer())?;
            match self.poll_drain(cx)? {
                Poll::Pending if taken == 0 => return Poll::Pending,
                // The buffer was full and is empty now.
                Poll::Ready(()) if taken == 0 => {}
                _ => return Poll::Ready(Ok(taken)),
            }
        }
    }
}

impl<S> AsyncRead for TlsStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Whoever wrote and then only reads counts on the rest going out.
        if this.tls.wants_write()
            && let Poll::Ready(Err(error)) = this.poll_drain(cx)
        {
            return Poll::Ready(Err(error));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            match this.tls.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            ready!(this.poll_fill(cx))?;
        }
    }
}

impl<S> AsyncWrite for TlsStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().poll_seal(cx, |writer| writer.write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().poll_seal(cx, |writer| writer.write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    /// `close_notify`, then the close of the socket, together within the close timeout.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_none() {
            this.tls.send_close_notify();
        }
        let deadline = this.closing.get_or_insert_with(|| Delay::new(this.close_timeout));
        if deadline.poll_unpin(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(this.poll_drain(cx))?;
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
