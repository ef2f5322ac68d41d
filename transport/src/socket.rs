//! One socket that has not authenticated, as a future that reads and never writes.

use crate::knock::reader::Reader;
use crate::knock::v3::Opened;
use crate::silence::pool::Slot;
use crate::upgrade::Shared;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use futures::task::AtomicWaker;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

/// Reads in a row from one socket, at most, so that one that never stops sending does not keep the others from being
/// heard.
const READS: usize = 16;

/// What the pool has decided about a socket, which it does not hold itself.
#[derive(Default)]
pub(crate) struct Signal {
    verdict: AtomicU8,
    waker: AtomicWaker,
}

const DRAIN: u8 = 1;
const CLOSE: u8 = 2;

impl Signal {
    /// It is not listened to any more.
    pub(crate) fn drain(&self) {
        self.say(DRAIN);
    }

    /// Its time is over.
    pub(crate) fn close(&self) {
        self.say(CLOSE);
    }

    fn say(&self, verdict: u8) {
        self.verdict.fetch_max(verdict, Ordering::AcqRel);
        self.waker.wake();
    }
}

/// See the module. Resolves when there is something to decide, or when nothing is left of it.
pub(crate) struct Socket<S> {
    slot: Slot,
    signal: Arc<Signal>,
    shared: Arc<Shared>,
    state: State<S>,
}

enum State<S> {
    /// The inner transport's upgrade is not through.
    Connecting(BoxFuture<'static, Option<S>>),
    Head(S, Reader),
    /// The flight, as far as it has come.
    Flight(S, Box<Opened>, Vec<u8>, usize),
    Draining(S),
    /// Nothing that came in may stay unread: a socket closed with bytes unread answers with a reset.
    Closing(S),
    Resolved,
}

/// What a socket has come to.
pub(crate) enum Step<S> {
    Head(Slot, S, Reader),
    Flight(Slot, S, Box<Opened>, Vec<u8>),
    /// It has ended, broken, or been closed.
    Ended(Slot),
}

impl<S> Socket<S> {
    /// One that was accepted.
    pub(crate) fn connecting(
        slot: Slot,
        signal: Arc<Signal>,
        shared: Arc<Shared>,
        socket: BoxFuture<'static, Option<S>>,
    ) -> Self {
        Self::new(slot, signal, shared, State::Connecting(socket))
    }

    /// One whose head is longer than it looked.
    pub(crate) fn gathering(slot: Slot, signal: Arc<Signal>, shared: Arc<Shared>, io: S, reader: Reader) -> Self {
        Self::new(slot, signal, shared, State::Head(io, reader))
    }

    /// One whose head was in order.
    pub(crate) fn awaiting_flight(
        slot: Slot,
        signal: Arc<Signal>,
        shared: Arc<Shared>,
        io: S,
        opened: Box<Opened>,
    ) -> Self {
        let room = vec![0; opened.sealed_len()];
        Self::new(slot, signal, shared, State::Flight(io, opened, room, 0))
    }

    /// One that was turned away.
    pub(crate) fn draining(slot: Slot, signal: Arc<Signal>, shared: Arc<Shared>, io: S) -> Self {
        Self::new(slot, signal, shared, State::Draining(io))
    }

    fn new(slot: Slot, signal: Arc<Signal>, shared: Arc<Shared>, state: State<S>) -> Self {
        Self {
            slot,
            signal,
            shared,
            state,
        }
    }

    /// Does what the pool has decided.
    fn obey(&mut self) {
        let verdict = self.signal.verdict.load(Ordering::Acquire);
        if verdict == 0 {
            return;
        }
        self.state = match (std::mem::replace(&mut self.state, State::Resolved), verdict) {
            // Not ours yet: dropped, it is the inner transport's to close.
            (State::Connecting(_), CLOSE) => State::Resolved,
            (State::Head(io, _) | State::Flight(io, ..) | State::Draining(io), CLOSE) => State::Closing(io),
            (State::Head(io, _) | State::Flight(io, ..), _) => State::Draining(io),
            (state, _) => state,
        };
    }
}

impl<S> Future for Socket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Step<S>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Step<S>> {
        let this = self.get_mut();
        this.signal.waker.register(cx.waker());
        this.obey();
        let slot = this.slot;
        for _ in 0..READS {
            match &mut this.state {
                State::Connecting(socket) => {
                    this.state = match ready!(socket.as_mut().poll(cx)) {
                        Some(io) => State::Head(io, this.shared.reader()),
                        None => State::Resolved,
                    };
                    this.obey();
                }
                State::Head(io, reader) => {
                    let Some(n) = ready!(poll_read(io, cx, reader.space())) else {
                        this.state = State::Resolved;
                        continue;
                    };
                    reader.advance(n, |claimed| this.shared.may_v2(claimed));
                    if reader.gathered().is_some()
                        && let State::Head(io, reader) = std::mem::replace(&mut this.state, State::Resolved)
                    {
                        return Poll::Ready(Step::Head(slot, io, reader));
                    }
                }
                State::Flight(io, _, room, filled) => {
                    let Some(n) = ready!(poll_read(io, cx, &mut room[*filled..])) else {
                        this.state = State::Resolved;
                        continue;
                    };
                    *filled += n;
                    if *filled == room.len()
                        && let State::Flight(io, opened, sealed, _) =
                            std::mem::replace(&mut this.state, State::Resolved)
                    {
                        return Poll::Ready(Step::Flight(slot, io, opened, sealed));
                    }
                }
                State::Draining(io) => {
                    let mut sink = [0; 4096];
                    if ready!(poll_read(io, cx, &mut sink)).is_none() {
                        this.state = State::Resolved;
                    }
                }
                State::Closing(io) => {
                    let mut sink = [0; 4096];
                    match poll_read(io, cx, &mut sink) {
                        Poll::Ready(Some(_)) => continue,
                        Poll::Ready(None) => {}
                        // Whoever does not let it be closed has it dropped.
                        Poll::Pending => {
                            let _: Poll<io::Result<()>> = Pin::new(io).poll_close(cx);
                        }
                    }
                    this.state = State::Resolved;
                }
                State::Resolved => return Poll::Ready(Step::Ended(slot)),
            }
        }
        if let State::Closing(_) = this.state {
            // It sends faster than it can be read, and its time is over.
            this.state = State::Resolved;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// `None` at the end, and when it has broken: both end it, and nobody is told which it was.
fn poll_read<S: AsyncRead + Unpin>(io: &mut S, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<Option<usize>> {
    match ready!(Pin::new(io).poll_read(cx, room)) {
        Ok(n @ 1..) => Poll::Ready(Some(n)),
        Ok(0) | Err(_) => Poll::Ready(None),
    }
}
