//! One connection, whatever carries it: reads, writes, and ends when it is no longer wanted.

use crate::engine::frame::Violation;
use crate::engine::outgoing::Outgoing;
use crate::engine::peer::WORK;
use crate::engine::slots::Role;
use crate::meter::Meter;
use crate::peers::Lease;
use futures::future::FutureExt as _;
use futures::io::{AsyncBufRead, AsyncWrite};
use futures::ready;
use futures_timer::Delay;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long a connection may take nothing that is written to it, and how long it may take to close. Each byte it takes
/// starts the time anew: a long message over a slow line is no reason to give up (W5).
const STALL: Duration = Duration::from_secs(5);

/// What a connection that stands by may bring before it is looked at. It is not read further.
const STANDBY: usize = 64 << 10;

/// Reads, and writes of a batch, in one turn, at most: other connections have theirs. A read brings a record of TLS, 16 KiB.
const TURNS: usize = 20;

/// Reads before it is looked at what there is to write: what TLS reads of the socket at once.
const READS: usize = 4;

/// Writes in a batch: each is taken by TLS, four records or a few frames.
const WRITES: usize = 16;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum End {
    /// There is another one, no stream any more, or the host is closed.
    #[error("it is no longer wanted")]
    Unwanted,
    #[error("the other end closed it")]
    Closed,
    #[error("it broke")]
    Io(#[source] io::Error),
    #[error("nothing could be written for {STALL:?}")]
    Stalled,
    #[error("the other end does not keep to the protocol")]
    Violation(#[from] Violation),
}

/// Runs a connection. Done when it is closed, a few seconds after its end at most.
pub(crate) struct Link<S> {
    io: S,
    lease: Lease,
    meter: Option<Arc<Meter>>,
    /// What came while it stood by, and was not looked at.
    kept: Vec<u8>,
    out: Outgoing,
    unflushed: bool,
    /// Since when nothing could be written.
    stall: Option<(Delay, u64)>,
    /// Bytes that were written, as far as can be told.
    written: u64,
    /// When something is due that no byte will bring.
    due: Option<(Delay, Instant)>,
    ending: Option<(End, Delay)>,
}

impl<S> Link<S>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    /// `meter` counts what lies below, if anything does.
    pub(crate) fn new(io: S, lease: Lease, meter: Option<Arc<Meter>>) -> Self {
        Self {
            io,
            lease,
            meter,
            kept: Vec::new(),
            out: Outgoing::default(),
            unflushed: false,
            stall: None,
            written: 0,
            due: None,
            ending: None,
        }
    }

    /// Pending when nothing can be done; an error, or the end of what is to be done, otherwise.
    fn run(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let (role, timeout) = self.lease.role(cx);
        let active = match role {
            Role::Closed => return Poll::Ready(End::Unwanted),
            Role::Standby => false,
            Role::Active => true,
        };
        if self.is_due(timeout, cx) {
            // The role will say.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !active {
            return self.stand_by(cx);
        }
        match self.exchange(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Whether `timeout` has come; wakes when it does.
    fn is_due(&mut self, timeout: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(at) = timeout else {
            self.due = None;
            return false;
        };
        if self.due.as_ref().is_none_or(|(_, due)| *due != at) {
            let delay = Delay::new(at.saturating_duration_since(Instant::now()));
            self.due = Some((delay, at));
        }
        self.due
            .as_mut()
            .is_some_and(|(delay, _)| delay.poll_unpin(cx).is_ready())
    }

    /// Keeps what comes, and says when the first byte has.
    fn stand_by(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while self.kept.len() < STANDBY {
            match ready!(Pin::new(&mut self.io).poll_fill_buf(cx)) {
                Ok([]) => return Poll::Ready(End::Closed),
                Ok(bytes) => {
                    let n = bytes.len().min(STANDBY - self.kept.len());
                    self.kept.extend_from_slice(&bytes[..n]);
                    Pin::new(&mut self.io).consume(n);
                }
                Err(error) => return Poll::Ready(error.into()),
            }
            self.lease.spoke();
        }
        Poll::Pending
    }

    /// Writes and reads until neither is possible, or others should have their turn.
    fn exchange(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let (mut turns, mut work) = (0, self.look_at_kept()?);
        while turns < TURNS && work < WORK {
            let wrote = self.write(cx)?;
            turns += 1;
            // What is sent meanwhile wakes us; what is read may have opened a stream that has something to say, and does not.
            let mut reads = 0;
            while reads < READS && work < WORK {
                let Some(more) = self.read(cx)? else {
                    break;
                };
                reads += 1;
                work += more;
            }
            if reads == 0 && !wrote {
                return Ok(());
            }
            turns += reads;
        }
        // Not by waking ourselves at once: to tokio that is work that goes on, and it would look at the sockets of others only
        // after dozens of our turns.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Ok(())
    }

    /// Takes what came while it stood by, or some of it, and says how much work that was.
    fn look_at_kept(&mut self) -> Result<usize, End> {
        let mut rest = &self.kept[..];
        if rest.is_empty() {
            return Ok(0);
        }
        // How much of all that came over the wire is content shows at the end of it.
        let mut work = self.lease.receive(&mut rest, None)?;
        let taken = self.kept.len() - rest.len();
        self.kept.drain(..taken);
        if self.kept.is_empty() {
            self.kept = Vec::new();
        } else {
            work = WORK;
        }
        Ok(work)
    }

    /// How much work was done for what was read, if anything was.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<Option<usize>, End> {
        let Poll::Ready(bytes) = Pin::new(&mut self.io).poll_fill_buf(cx)? else {
            return Ok(None);
        };
        if bytes.is_empty() {
            return Err(End::Closed);
        }
        // Of the last read of the socket, which may have brought more than this.
        let raw = self.meter.as_ref().map(|meter| meter.read_since_handshake());
        let mut rest = bytes;
        let work = self.lease.receive(&mut rest, raw)?;
        let taken = bytes.len() - rest.len();
        Pin::new(&mut self.io).consume(taken);
        Ok(Some(work))
    }

    /// Whether something was written, so that it is worth coming back.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut budget = WRITES;
        loop {
            if self.out.is_empty() {
                self.lease.fill(&mut self.out);
            }
            if self.out.is_empty() {
                break;
            }
            match Pin::new(&mut self.io).poll_write(cx, self.out.chunk()) {
                Poll::Pending => return self.stalled(cx).map(|()| false),
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(n)) => {
                    if let Some(payload) = self.out.advance(n) {
                        self.lease.discard(payload);
                    }
                    self.written += n as u64;
                    self.unflushed = true;
                    self.stall = None;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
            budget -= 1;
            if budget == 0 {
                return Ok(true);
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Pending => self.stalled(cx)?,
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    self.stall = None;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Nothing can be written now: how long has that been so?
    fn stalled(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        // Below TLS, where a slow line shows before a whole record is gone.
        let progress = self.meter.as_ref().map_or(self.written, |meter| meter.written());
        loop {
            let (delay, seen) = self.stall.get_or_insert_with(|| (Delay::new(STALL), progress));
            if delay.poll_unpin(cx).is_pending() {
                return Ok(());
            }
            if *seen == progress {
                return Err(End::Stalled);
            }
            self.stall = None;
        }
    }
}

impl<S> Drop for Link<S> {
    fn drop(&mut self) {
        self.lease.discard(self.out.take());
    }
}

impl<S> Future for Link<S>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        if this.ending.is_none() {
            let end = ready!(this.run(cx));
            this.ending = Some((end, Delay::new(STALL)));
        }
        if let Some((_, delay)) = &mut this.ending {
            let over = delay.poll_unpin(cx).is_ready();
            if !over && Pin::new(&mut this.io).poll_close(cx).is_pending() {
                return Poll::Pending;
            }
        }
        let (end, _) = this.ending.take().expect("set above");
        Poll::Ready(end)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::frame::{Header, Kind};
    use crate::engine::id::{Key, StreamId};
    use crate::engine::peer::Outbound;
    use crate::limits::{Limits, Priority};
    use crate::peers::{Need, Registry, Setup, lock};
    use futures::io::{AsyncRead, BufReader};
    use libp2p_identity::{Keypair, PeerId};
    use std::sync::Mutex;

    /// Never brings anything and cannot be written to.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::Error::other("broken")))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other("broken")))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other("broken")))
        }
    }

    /// Brings what there is, once, and keeps what is written.
    struct Still {
        brings: io::Cursor<Vec<u8>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl AsyncRead for Still {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            match io::Read::read(&mut self.brings, buf) {
                Ok(0) => Poll::Pending,
                read => Poll::Ready(read),
            }
        }
    }

    impl AsyncWrite for Still {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            lock(&self.written).extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_an_open_lets_go_goes_out_at_once_and_not_when_something_else_comes() {
        let registry = registry();
        let (shared, ticket, _) = registry
            .open(peer(2), "x", Priority::Default, Limits::default())
            .unwrap();
        shared.send(ticket, Outbound::Plain, "waiting".into());
        let lease = registry.arrived(&peer(2), true).unwrap();
        let key = |seed| Key::of_peer(&peer(seed));
        let stream = StreamId::new(&key(1), &key(2), b"x");
        let (kind, length) = (Kind::Open, 1);
        let mut open = Vec::new();
        Header { kind, stream, length }.encode(&mut open);
        open.push(b'x');
        let written = Arc::default();
        let io = Still {
            brings: io::Cursor::new(open),
            written: Arc::clone(&written),
        };
        // One poll: nothing here wakes anybody.
        let mut link = Link::new(BufReader::new(io), lease, None);
        assert!(futures::poll!(&mut link).is_pending());
        assert!(lock(&written).ends_with(b"waiting"), "{:?}", lock(&written));
    }

    fn registry() -> Arc<Registry> {
        Arc::new(Registry::new(Setup {
            local: peer(1),
            identity: None,
            ed25519_only: true,
            memory: 1 << 20,
            dial_interval: Duration::from_secs(3),
        }))
    }

    fn peer(seed: u8) -> PeerId {
        Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
    }

    #[tokio::test]
    async fn a_connection_that_cannot_be_written_to_ends_and_another_is_wanted() {
        // W11: where the original cannot set a deadline its writer goes, and the reader keeps a connection that is half dead.
        let registry = registry();
        let opened = registry.open(peer(2), "x", Priority::Default, Limits::default());
        assert!(opened.is_ok());
        let lease = registry.arrived(&peer(2), true).unwrap();
        assert_eq!(registry.need(&peer(2)), Need::Nothing);
        let end = Link::new(BufReader::new(Broken), lease, None).await;
        assert!(matches!(end, End::Io(_)), "{end:?}");
        assert_eq!(registry.need(&peer(2)), Need::Connection);
    }
}
