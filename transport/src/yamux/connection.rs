//! A [`Session`] and the stream of bytes below it, shared by the connection's owner and its streams.
//!
//! Whoever writes to a stream seals and sends in his own task. The stream of bytes is taken out of the lock for that, so
//! nobody ever waits for the lock longer than it takes to look something up: who finds it taken is woken when it is back.
//!
//! The socket wakes one task, the connection's; that one wakes who waits to write, some at a time, for as long as
//! the socket takes what they bring, and whoever has written wakes the next.

mod below;

use super::chunks::{CHUNK, chunk, give_back};
use super::frame::{HEADER, Header, Kind, NORMAL};
use super::session::{Body, Ended, Session};
use super::{Config, Stream};
use crate::timer::Deadline;
use below::{Io, Sent, Unwinding};
use futures::future::FutureExt as _;
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use futures::task::noop_waker;
use libp2p_core::Endpoint;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use web_time::Instant;

/// How often the connection's task reads before others have their turn: a quarter of a megabyte in bulk.
const READS_PER_TURN: usize = 32;

/// How many of those who wait to write are woken at once. The first of them may fill the socket again.
const WOKEN_PER_TURN: usize = 4;

/// How long reading goes on, at most, when nothing can be written any more: a socket whose other
/// end has closed it refuses to take anything, and may say only a moment later that there is
/// something to read.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The owner's end: opens, accepts, reads.
pub(crate) struct Connection<C> {
    shared: Arc<Shared<C>>,
    reading: Reading,
    /// Not while the other end leaves unheard what it made us say.
    listens: bool,
    /// The other end's last word. The streams hear of it when what they have sent has gone out, as
    /// far as it goes.
    farewell: Option<Header>,
    /// How long to go on reading now that nothing can be written any more.
    failing: Option<Deadline>,
}

/// Where in the sequence of frames we are.
enum Reading {
    Header { bytes: [u8; HEADER], have: usize },
    Body { of: Body, left: usize },
}

const NEXT_HEADER: Reading = Reading::Header {
    bytes: [0; HEADER],
    have: 0,
};

pub(crate) struct Shared<C>(Mutex<State<C>>);

pub(crate) struct State<C> {
    pub(crate) session: Session,
    /// None while somebody uses it, and once the connection is dropped.
    io: Option<Io<C>>,
    dropped: bool,
    /// It panicked, and is gone with that.
    lost: bool,
    /// The connection's task, which the socket wakes.
    driver: Waker,
    /// It has been woken and has not run yet.
    driver_woken: bool,
    /// It found the stream of bytes taken.
    driver_waits: bool,
    /// Something was written that nobody has flushed.
    flush: bool,
    /// Streams whose owners found the stream of bytes taken, or full.
    waiting: VecDeque<(u32, Waker)>,
}

impl<C> Shared<C> {
    fn lock(&self) -> MutexGuard<'_, State<C>> {
        // Nothing panics while it is held, and if it did the numbers would still be numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the session, has its headers sent, and wakes whom it concerns.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut State<C>) -> R) -> R {
        let mut state = self.lock();
        let done = act(&mut state);
        if state.session.has_unsaid() {
            state.wake_driver();
        }
        wake(state);
        done
    }
}

/// Ends the lock, then wakes: who is woken may want it.
fn wake<C>(mut state: MutexGuard<'_, State<C>>) {
    let woken = std::mem::take(&mut state.session.woken);
    drop(state);
    woken.into_iter().for_each(Waker::wake);
}

impl<C> State<C> {
    fn wake_driver(&mut self) {
        if !self.driver_woken {
            self.driver_woken = true;
            self.session.woken.push(self.driver.clone());
        }
    }

    /// Has the connection's task send what lies about.
    pub(crate) fn flush_soon(&mut self) {
        if self.flush {
            self.wake_driver();
        }
    }

    /// Whether who waits to write may fill the record that has begun before it goes out: a short one costs as much as a
    /// full one. The connection's task looks again behind them.
    fn leaves_flush(&mut self) -> bool {
        self.flush = !self.waiting.is_empty();
        self.flush
    }

    /// The owner of a stream waits until he may try again to write.
    fn wait(&mut self, id: u32, waker: &Waker) {
        match self.waiting.iter_mut().find(|(waiting, _)| *waiting == id) {
            Some((_, old)) => old.clone_from(waker),
            None => self.waiting.push_back((id, waker.clone())),
        }
    }

    /// Some of those who wait may try, all of them once the connection has ended.
    fn wake_waiting(&mut self) {
        let n = match self.session.ended() {
            Some(_) => self.waiting.len(),
            None => self.waiting.len().min(WOKEN_PER_TURN),
        };
        self.session
            .woken
            .extend(self.waiting.drain(..n).map(|(_, waker)| waker));
    }

    /// Nobody owns this stream any more.
    pub(crate) fn forget(&mut self, id: u32) {
        self.session.forget(id);
        self.waiting.retain(|(waiting, _)| *waiting != id);
    }

    /// Takes the stream of bytes, with everything that is to be said first.
    fn take(&mut self) -> Option<Io<C>> {
        let mut io = self.io.take()?;
        if io.rest.is_empty() {
            self.session.said();
        }
        io.rest.append(&mut self.session.take_unsaid());
        Some(io)
    }

    /// What comes back when the connection is gone comes back too late.
    fn put_back(&mut self, io: Io<C>) -> Option<Io<C>> {
        if self.dropped {
            return Some(io);
        }
        self.io = Some(io);
        None
    }
}

/// For the connection's task: takes the stream of bytes, or is woken when it is free.
fn poll_take<C>(mut state: MutexGuard<'_, State<C>>, cx: &mut Context<'_>) -> Poll<Io<C>> {
    state.driver.clone_from(cx.waker());
    state.driver_woken = false;
    let io = state.take();
    state.driver_waits = io.is_none();
    if io.is_some() {
        state.flush = false;
    }
    wake(state);
    io.map_or(Poll::Pending, Poll::Ready)
}

impl<C> Connection<C>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    pub(crate) fn new(io: C, side: Endpoint, config: &Config) -> Self {
        let state = State {
            session: Session::new(side, config),
            io: Some(Io::new(io)),
            dropped: false,
            lost: false,
            driver: noop_waker(),
            driver_woken: false,
            driver_waits: false,
            flush: false,
            waiting: VecDeque::new(),
        };
        Self {
            shared: Arc::new(Shared(Mutex::new(state))),
            reading: NEXT_HEADER,
            listens: true,
            farewell: None,
            failing: None,
        }
    }

    pub(crate) fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream<C>>> {
        let id = ready!(self.shared.with(|state| state.session.open(Instant::now(), cx.waker())))?;
        Poll::Ready(Ok(Stream::new(id, self.shared.clone())))
    }

    pub(crate) fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream<C>>> {
        let id = ready!(self.shared.with(|state| state.session.accept(cx.waker())))?;
        Poll::Ready(Ok(Stream::new(id, self.shared.clone())))
    }

    /// Reads and sends for all streams. Never ready but with what ended the connection.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let state = self.shared.lock();
        if let Some(ended) = state.session.ended() {
            return Poll::Ready(ended.into());
        }
        let mut io = ready!(poll_take(state, cx));
        let turn = self.turn(&mut io, cx);
        let farewell = self.farewell.take_if(|_| turn.is_ok());
        let mut flushed = matches!(turn, Ok(Sent::Flushed)).then_some(0);
        if farewell.is_some() || turn.is_err() {
            io.rest.append(&mut self.shared.lock().session.take_unsaid());
            flushed = io.part(cx);
        }

        let mut state = self.shared.lock();
        if let Some(but) = flushed {
            state.session.flushed(but);
        }
        match (&turn, farewell) {
            (Err(error), _) => state.session.end(Ended::Broken(error.kind())),
            (Ok(_), Some(farewell)) => _ = state.session.header(farewell, Instant::now()),
            (Ok(_), None) => {}
        }
        state.io = Some(io);
        let ended = state.session.ended();
        let sent = matches!(turn, Ok(Sent::All | Sent::Flushed));
        if sent || ended.is_some() {
            state.wake_waiting();
            // Not all of them at once, and not all of them have to want to any more. While the socket is full it is the
            // socket that wakes us.
            if state.flush || !state.waiting.is_empty() {
                state.wake_driver();
            }
        }
        wake(state);
        match (turn, ended) {
            (Err(error), _) => Poll::Ready(error),
            (_, Some(ended)) => Poll::Ready(ended.into()),
            _ => Poll::Pending,
        }
    }

    /// Sends what is to be said, reads what there is, and says how far that got.
    fn turn(&mut self, io: &mut Io<C>, cx: &mut Context<'_>) -> io::Result<Sent> {
        // Reading goes on when the socket is full: the other end's may be full as well, and it waits for us to read. It
        // also goes on when nothing can be written any more, as long as there is something.
        self.say(io, cx);
        let mut waits = false;
        for _ in 0..READS_PER_TURN {
            if !self.listens && !self.say(io, cx) {
                waits = true;
                break;
            }
            match self.poll_read(io, cx)? {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Ok(Sent::Some),
                Poll::Pending => {
                    waits = true;
                    break;
                }
            }
        }
        let sent = self.say(io, cx);
        if !sent {
            // Nobody has to wake us for it: the socket does.
            io.rest.append(&mut self.shared.lock().session.take_unsaid());
        }
        if !waits {
            cx.waker().wake_by_ref();
        } else if let Some(failed) = io.failed {
            // What made it fail may be a close, and the word of that on its way.
            let patience = self.failing.get_or_insert_with(|| Deadline::after(AFTER_FAILURE));
            if patience.poll_unpin(cx).is_ready() {
                return Err(failed.into());
            }
        }
        if !sent {
            return Ok(Sent::Some);
        }
        if self.shared.lock().leaves_flush() {
            return Ok(Sent::All);
        }
        Ok(match Pin::new(&mut io.inner).poll_flush(cx)? {
            Poll::Ready(()) => Sent::Flushed,
            Poll::Pending => Sent::Some,
        })
    }

    /// Sends what is to be said. False while the socket is full, which wakes us, and when it takes nothing any more.
    fn say(&mut self, io: &mut Io<C>, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(Ok(())) = io.poll_rest(cx) {
            let mut state = self.shared.lock();
            state.session.said();
            self.listens = state.session.listens();
            io.rest = state.session.take_unsaid();
            if io.rest.is_empty() {
                return true;
            }
        }
        false
    }

    /// Reads once. False when the connection ends with what was read.
    fn poll_read(&mut self, io: &mut Io<C>, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let (of, left) = match &mut self.reading {
            Reading::Body { of, left } => (of, left),
            Reading::Header { bytes, have } => {
                let n = ready!(Pin::new(&mut io.inner).poll_read(cx, &mut bytes[*have..]))?;
                if n == 0 {
                    if *have > 0 {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    if let Some(failed) = io.failed {
                        return Poll::Ready(Err(failed.into()));
                    }
                    // It was closed in order below, which says the same.
                    self.farewell = Some(Header::go_away(NORMAL));
                    return Poll::Ready(Ok(false));
                }
                *have += n;
                if *have < HEADER {
                    return Poll::Ready(Ok(true));
                }
                let decoded = Header::decode(bytes);
                self.reading = NEXT_HEADER;
                return Poll::Ready(self.header(decoded, io, cx));
            }
        };
        let mut chunk = chunk();
        let room = CHUNK.min(*left);
        let n = match Pin::new(&mut io.inner).poll_read(cx, &mut chunk[..room]) {
            Poll::Ready(Ok(n)) => n,
            nothing => {
                give_back(chunk);
                return nothing.map_ok(|_| false);
            }
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        *left -= n;
        let back = match of {
            Body::Of(id) => self.shared.lock().session.body(*id, chunk, n),
            Body::None | Body::Skip => Some(chunk),
        };
        back.into_iter().for_each(give_back);
        if *left == 0 {
            self.reading = NEXT_HEADER;
        }
        Poll::Ready(Ok(true))
    }

    fn header(
        &mut self,
        decoded: Result<Header, super::ProtocolError>,
        io: &mut Io<C>,
        cx: &mut Context<'_>,
    ) -> io::Result<bool> {
        if let Ok(header) = decoded
            && header.kind == Kind::GoAway
        {
            self.farewell = Some(header);
            return Ok(false);
        }
        let mut state = self.shared.lock();
        let done = match decoded {
            Ok(header) => state
                .session
                .header(header, Instant::now())
                .map(|body| (body, header.length)),
            Err(error) => Err(state.session.refuse(error)),
        };
        let ended = state.session.ended().is_some();
        self.listens = state.session.listens();
        match done {
            Ok((Body::None, _)) => {}
            Ok((of, length)) => {
                self.reading = Reading::Body {
                    of,
                    left: length as usize,
                }
            }
            Err(error) => {
                let mut last = state.session.take_unsaid();
                drop(state);
                io.rest.append(&mut last);
                // The other end hears of it if the socket takes it now.
                if let Poll::Ready(Ok(())) = io.poll_rest(cx) {
                    let _ = Pin::new(&mut io.inner).poll_flush(cx);
                }
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(!ended)
    }

    /// Sends what was written, then the end of the connection, and closes what is below.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        state.session.close();
        if state.lost {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut io = ready!(poll_take(state, cx));
        let closed = io.poll_close(cx);
        let mut state = self.shared.lock();
        state.io = Some(io);
        state.wake_waiting();
        wake(state);
        closed
    }
}

impl<C> Shared<C>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    /// Sends as much of `bytes` as one frame takes.
    pub(crate) fn poll_send(&self, id: u32, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        let header = ready!(state.session.may_send(id, bytes.len(), cx.waker()))?;
        let Some(mut io) = state.take() else {
            state.wait(id, cx.waker());
            return Poll::Pending;
        };
        // The socket is to wake the connection's task and not this one: it has room for one.
        let driver = state.driver.clone();
        drop(state);
        let body = &bytes[..header.length as usize];
        let unwinding = Unwinding(self);
        let sent = io.poll_frame(&mut Context::from_waker(&driver), header.encode(), body);
        std::mem::forget(unwinding);

        let mut state = self.lock();
        match &sent {
            Poll::Ready(Ok(())) => {
                state.session.sent(header);
                state.flush = true;
                // The next may go on. One that does not want to any more is no reason for the others to wait.
                if let Some((_, next)) = state.waiting.pop_front() {
                    state.session.woken.push(next);
                    state.wake_driver();
                }
            }
            // It reads what there still is, and then ends the connection.
            Poll::Ready(Err(_)) => state.wake_driver(),
            Poll::Pending => state.wait(id, cx.waker()),
        }
        // It may have to read, even though the socket is full.
        if state.driver_waits {
            state.wake_driver();
        }
        let late = state.put_back(io);
        wake(state);
        drop(late);
        sent.map_ok(|()| body.len())
    }
}

impl<C> Drop for Connection<C> {
    /// Streams may outlive their connection. They can read what has been received, and nothing else.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.session.end(Ended::Here);
        state.dropped = true;
        let io = state.io.take();
        state.wake_waiting();
        wake(state);
        drop(io);
    }
}
