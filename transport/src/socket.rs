//! One socket that has not authenticated, as a future that reads and never writes.

use crate::at_once::poll_at_once;
use crate::knock::reader::Reader;
use crate::knock::v3::Opened;
use crate::silence::pool::Slot;
use crate::upgrade::Shared;
use crate::user_code::Hook;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use futures::task::AtomicWaker;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

/// Reads in a row from one socket, at most, so that one that never stops sending does not keep the others from being
/// heard.
const READS: usize = 16;

/// Turns in which what has come is read from a socket that is to be closed, at most: 1 MB, more than the system keeps of one that
/// nobody has read from.
const CLOSING_TURNS: u8 = 16;

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

    fn is_closed(&self) -> bool {
        self.verdict.load(Ordering::Acquire) == CLOSE
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
    /// Nothing that came in may stay unread: a socket closed with bytes unread answers with a reset. So many turns are left for
    /// that.
    Closing(S, u8),
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

    /// One that has to go.
    pub(crate) fn closing(slot: Slot, signal: Arc<Signal>, shared: Arc<Shared>, io: S) -> Self {
        Self::new(slot, signal, shared, State::Closing(io, CLOSING_TURNS))
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
            (State::Head(io, _) | State::Flight(io, ..) | State::Draining(io), CLOSE) => {
                State::Closing(io, CLOSING_TURNS)
            }
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

    /// The inner transport's sockets are the user's code too. One that panics is one that has
    /// ended.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Step<S>> {
        let this = self.get_mut();
        match catch_unwind(AssertUnwindSafe(|| this.step(cx))) {
            Ok(step) => step,
            Err(panic) => {
                let user_code = &this.shared.config.user_code;
                user_code.caught(Hook::Inner, panic);
                let state = std::mem::replace(&mut this.state, State::Resolved);
                // What it owns may panic once more as it goes.
                let _ = user_code.run(Hook::Inner, || drop(state));
                Poll::Ready(Step::Ended(this.slot))
            }
        }
    }
}

impl<S> Socket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Step<S>> {
        self.signal.waker.register(cx.waker());
        self.obey();
        let slot = self.slot;
        for _ in 0..READS {
            match &mut self.state {
                State::Connecting(socket) => {
                    self.state = match socket.as_mut().poll(cx) {
                        // Even if its time is over already: bytes may have come with it.
                        Poll::Ready(Some(io)) => State::Head(io, self.shared.reader()),
                        Poll::Ready(None) => State::Resolved,
                        // Not ours yet: dropped, it is the inner transport's to close.
                        Poll::Pending if self.signal.is_closed() => State::Resolved,
                        Poll::Pending => return Poll::Pending,
                    };
                    self.obey();
                }
                State::Head(io, reader) => {
                    let Some(n) = ready!(poll_read(io, cx, reader.space())) else {
                        self.state = State::Resolved;
                        continue;
                    };
                    reader.advance(n, |claimed| self.shared.may_v2(claimed));
                    if reader.gathered().is_some()
                        && let State::Head(io, reader) = std::mem::replace(&mut self.state, State::Resolved)
                    {
                        return Poll::Ready(Step::Head(slot, io, reader));
                    }
                }
                State::Flight(io, _, room, filled) => {
                    let Some(n) = ready!(poll_read(io, cx, &mut room[*filled..])) else {
                        self.state = State::Resolved;
                        continue;
                    };
                    *filled += n;
                    if *filled == room.len()
                        && let State::Flight(io, opened, sealed, _) =
                            std::mem::replace(&mut self.state, State::Resolved)
                    {
                        return Poll::Ready(Step::Flight(slot, io, opened, sealed));
                    }
                }
                State::Draining(io) => {
                    let mut sink = [0; 4096];
                    if ready!(poll_read(io, cx, &mut sink)).is_none() {
                        self.state = State::Resolved;
                    }
                }
                State::Closing(io, _) => {
                    match poll_rest(io, cx) {
                        Poll::Ready(Some(_)) => continue,
                        Poll::Ready(None) => {}
                        // Whoever does not let it be closed has it dropped.
                        Poll::Pending => {
                            let _: Poll<io::Result<()>> = Pin::new(io).poll_close(cx);
                        }
                    }
                    self.state = State::Resolved;
                }
                State::Resolved => return Poll::Ready(Step::Ended(slot)),
            }
        }
        if let State::Closing(_, turns) = &mut self.state {
            *turns -= 1;
            if *turns == 0 {
                // It sends faster than it can be read, and its time is over.
                self.state = State::Resolved;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Reads what is there.
fn poll_rest<S: AsyncRead + Unpin>(io: &mut S, cx: &mut Context<'_>) -> Poll<Option<usize>> {
    let mut sink = [0; 4096];
    poll_at_once(cx, |cx| poll_read(io, cx, &mut sink))
}

/// `None` at the end, and when it has broken: both end it, and nobody is told which it was.
fn poll_read<S: AsyncRead + Unpin>(io: &mut S, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<Option<usize>> {
    match ready!(Pin::new(io).poll_read(cx, room)) {
        Ok(n @ 1..) => Poll::Ready(Some(n)),
        Ok(0) | Err(_) => Poll::Ready(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::silence::pool::Pool;
    use crate::silence::prefix::Prefix;
    use futures::task::noop_waker_ref;
    use libp2p_identity::Keypair;
    use std::num::NonZeroUsize;
    use std::sync::Mutex;
    use std::time::Duration;
    use web_time::Instant;

    /// Bytes that have come, and whether there is an end behind them.
    struct Peer {
        left: Arc<Mutex<usize>>,
        ended: bool,
    }

    impl AsyncRead for Peer {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
            let mut left = self.left.lock().expect("nobody panics");
            let n = room.len().min(*left);
            *left -= n;
            match (n, self.ended) {
                (0, false) => Poll::Pending,
                (n, _) => Poll::Ready(Ok(n)),
            }
        }
    }

    impl AsyncWrite for Peer {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            panic!("a byte to a stranger")
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn slot() -> Slot {
        let mut pool = Pool::new(NonZeroUsize::MIN, Duration::from_secs(120));
        pool.on_accept(Instant::now(), Prefix::V4([0; 3]), false, (), 0).0
    }

    #[test]
    fn a_socket_that_is_closed_leaves_nothing_unread_at_whatever_step_it_is() {
        let shared = Shared::new(Config::new(&Keypair::generate_ed25519()).expect("an Ed25519 key"));
        let slot = slot();
        for bytes in [0, 1, 100, 300, 5000, 70_000] {
            for polls_before in 0..3 {
                for (drained, ended) in [(false, false), (false, true), (true, false), (true, true)] {
                    let (signal, left) = (Arc::<Signal>::default(), Arc::new(Mutex::new(bytes)));
                    let peer = Peer {
                        left: left.clone(),
                        ended,
                    };
                    let through = async { Some(peer) };
                    let mut socket = Socket::connecting(slot, signal.clone(), shared.clone(), Box::pin(through));
                    let mut cx = Context::from_waker(noop_waker_ref());
                    if drained {
                        signal.drain();
                    }
                    let mut step = Poll::Pending;
                    for _ in 0..polls_before {
                        if step.is_pending() {
                            step = Pin::new(&mut socket).poll(&mut cx);
                        }
                    }
                    signal.close();
                    for _ in 0..16 {
                        if step.is_pending() {
                            step = Pin::new(&mut socket).poll(&mut cx);
                        }
                    }
                    let at = format!("{bytes} bytes, {polls_before} polls, drained {drained}, ended {ended}");
                    match step {
                        Poll::Ready(Step::Ended(_)) => assert_eq!(*left.lock().expect("nobody panics"), 0, "{at}"),
                        // It was heard before it was closed, and is the listener's to drain.
                        Poll::Ready(Step::Head(..)) => assert!(polls_before > 0 && !drained, "{at}"),
                        _ => panic!("{at}"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_socket_that_never_comes_is_dropped_when_its_time_is_over() {
        let shared = Shared::new(Config::new(&Keypair::generate_ed25519()).expect("an Ed25519 key"));
        let slot = slot();
        let signal = Arc::<Signal>::default();
        let never = Box::pin(futures::future::pending::<Option<Peer>>());
        let mut socket = Socket::connecting(slot, signal.clone(), shared, never);
        let mut cx = Context::from_waker(noop_waker_ref());
        assert!(Pin::new(&mut socket).poll(&mut cx).is_pending());
        signal.drain();
        assert!(Pin::new(&mut socket).poll(&mut cx).is_pending());
        signal.close();
        assert!(Pin::new(&mut socket).poll(&mut cx).is_ready());
    }
}
