//! One connection's streams and its timer: what a handler has of this.

use super::echo::Echo;
use super::protocol::{Accept, Ask};
use super::{Question, Quiet, Schedule, UnderWay};
use futures::future::FutureExt as _;
use futures::io::{AsyncRead as _, AsyncWrite as _};
use futures_timer::Delay;
use libp2p_swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p_swarm::{ConnectionId, Stream, StreamUpgradeError, SubstreamProtocol};
use smallvec::SmallVec;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use web_time::Instant;

/// Streams that are held for the other end, at most; the oldest gives way. The other end needs one
/// for each of its behaviours that keeps this connection.
const MOST_ECHOES: usize = 4;

/// What a timer takes for granted; it is simply set again.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Keeps one connection and asks its other end. Costs one timer at most, and a poll a look at each
/// stream.
#[derive(Debug)]
pub(crate) struct Alive {
    connection: ConnectionId,
    schedule: Schedule,
    quiet: Quiet,
    /// Whether questions, of any handler on this connection, are no streams to `quiet`.
    watched: bool,
    accepts: bool,
    line: Line,
    echoes: SmallVec<[Echo<Stream>; 1]>,
    /// What has come of the last one and was not told yet.
    question: Question,
    timer: Option<(Instant, Delay)>,
}

/// Our stream to the other end.
#[derive(Debug)]
enum Line {
    None,
    /// The Swarm was asked for one.
    Opening {
        ask: Ask,
        _under_way: UnderWay,
    },
    /// The other end holds it.
    Held(Stream),
    /// A byte is on its way there and back; no later than this.
    Asking {
        stream: Stream,
        written: bool,
        until: Instant,
    },
}

/// What a handler is to do.
#[derive(Debug)]
pub(crate) enum Told {
    /// Ask for a stream.
    Open(SubstreamProtocol<Ask>),
    /// Tell the behaviour that there was an answer, as it wanted to know.
    Answered,
    /// Tell the behaviour that there was none.
    Silent,
}

impl Alive {
    /// `accepts`: whether the other end may have this one keep the connection as well.
    pub(crate) fn new(connection: ConnectionId, schedule: Schedule, accepts: bool) -> Self {
        Self {
            connection,
            schedule,
            quiet: Quiet::default(),
            watched: false,
            accepts,
            line: Line::None,
            echoes: SmallVec::new(),
            question: Question::Routine,
            timer: None,
        }
    }

    pub(crate) fn keep(&mut self, keep: bool) {
        self.schedule.keep(keep, Instant::now());
        if !keep && !matches!(self.line, Line::Opening { .. }) {
            self.line = Line::None;
        }
    }

    pub(crate) fn ask_now(&mut self) {
        self.schedule.ask_now();
    }

    /// Whether [`quiet_since`](Self::quiet_since) is of interest. Else questions count as streams,
    /// as they restart the other end's idle timeout.
    pub(crate) fn watch(&mut self, watched: bool) {
        self.watched = watched;
    }

    fn is_asked(&self) -> bool {
        self.watched && UnderWay::is_on(self.connection)
    }

    /// From when on the connection has carried no stream but questions. `None` while there is one,
    /// and during a question, which may hide one.
    pub(crate) fn quiet_since(&self) -> Option<Instant> {
        self.quiet.since().filter(|_| !self.is_asked())
    }

    pub(crate) fn listen_protocol(&self) -> SubstreamProtocol<Accept> {
        SubstreamProtocol::new(Accept(self.accepts), ())
    }

    pub(crate) fn connection_keep_alive(&self) -> bool {
        self.quiet.asked();
        self.schedule.is_on() || !self.echoes.is_empty()
    }

    pub(crate) fn on_connection_event(&mut self, event: ConnectionEvent<'_, Accept, Ask>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                if self.echoes.len() >= MOST_ECHOES {
                    self.echoes.remove(0);
                }
                self.echoes.push(Echo::new(protocol));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                self.answered(protocol);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                error: StreamUpgradeError::Timeout,
                ..
            }) => {
                let patience = self.schedule.patience();
                let line = std::mem::replace(&mut self.line, Line::None);
                // The time runs from when the Swarm was asked for a stream. Where all are in use
                // there may be none, or one so late that too little time is left for an answer.
                if matches!(line, Line::Opening { ask, .. } if !ask.was_asked_for(patience / 2)) {
                    self.schedule.unasked(Instant::now());
                } else {
                    self.question = self.schedule.silent(Instant::now());
                }
            }
            // A refusal is an answer. A connection that is broken ends without us.
            ConnectionEvent::DialUpgradeError(_) => self.answered(None),
            _ => {}
        }
    }

    /// The other end has answered: with its stream, if it has accepted.
    fn answered(&mut self, stream: Option<Stream>) {
        self.question = self.schedule.answered(stream.is_some(), Instant::now());
        self.line = match stream {
            Some(stream) if self.schedule.is_held() => Line::Held(stream),
            _ => Line::None,
        };
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Told> {
        self.quiet.pass(self.is_asked());
        self.echoes.retain(|echo| echo.poll(cx).is_pending());
        loop {
            self.poll_line(cx);
            match std::mem::take(&mut self.question) {
                Question::Routine => {}
                Question::Answered => return Poll::Ready(Told::Answered),
                Question::Silent => return Poll::Ready(Told::Silent),
            }
            let now = Instant::now();
            // A stream that was let go of has to come before the next can be asked for.
            if !matches!(self.line, Line::Opening { .. }) && self.schedule.is_due(self.quiet.began(), now) {
                let patience = self.schedule.patience();
                match std::mem::replace(&mut self.line, Line::None) {
                    Line::Held(stream) => {
                        let until = now + patience.min(LONGEST);
                        self.line = Line::Asking {
                            stream,
                            written: false,
                            until,
                        };
                        continue;
                    }
                    _ => {
                        let ask = Ask::default();
                        self.line = Line::Opening {
                            ask: ask.clone(),
                            _under_way: UnderWay::new(self.connection),
                        };
                        return Poll::Ready(Told::Open(SubstreamProtocol::new(ask, ()).with_timeout(patience)));
                    }
                }
            }
            ready!(self.poll_timer(now, cx));
        }
    }

    fn poll_line(&mut self, cx: &mut Context<'_>) {
        match &mut self.line {
            Line::None | Line::Opening { .. } => {}
            Line::Held(stream) => {
                // Nothing is to come but the end.
                if Pin::new(stream).poll_read(cx, &mut [0]).is_ready() {
                    self.line = Line::None;
                    self.schedule.released(Instant::now());
                }
            }
            Line::Asking { stream, written, until } => {
                let (now, until) = (Instant::now(), *until);
                match poll_ask(stream, written, cx) {
                    Poll::Ready(Ok(())) => {
                        if let Line::Asking { stream, .. } = std::mem::replace(&mut self.line, Line::None) {
                            self.answered(Some(stream));
                        }
                    }
                    Poll::Ready(Err(_)) => {
                        self.line = Line::None;
                        self.schedule.again();
                    }
                    Poll::Pending if until <= now => {
                        self.line = Line::None;
                        self.question = self.schedule.silent(now);
                    }
                    Poll::Pending => {}
                }
            }
        }
    }

    /// Ready when there may be something to do.
    fn poll_timer(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let next = match &self.line {
            Line::Opening { .. } => None,
            Line::Asking { until, .. } => Some(*until),
            Line::None | Line::Held(_) => self.schedule.next(self.quiet.began()),
        };
        let Some(next) = next else {
            self.timer = None;
            return Poll::Pending;
        };
        // Moved back with each stream, and rarely forward: one that fires early is set again.
        let timer = match &mut self.timer {
            Some(timer) if timer.0 <= next => timer,
            other => other.insert((next, Delay::new(next.saturating_duration_since(now).min(LONGEST)))),
        };
        ready!(timer.1.poll_unpin(cx));
        self.timer = None;
        Poll::Ready(())
    }
}

/// One byte there and back.
fn poll_ask(stream: &mut Stream, written: &mut bool, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut stream = Pin::new(stream);
    if !*written {
        if ready!(stream.as_mut().poll_write(cx, &[0]))? == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *written = true;
    }
    ready!(stream.as_mut().poll_flush(cx))?;
    match ready!(stream.poll_read(cx, &mut [0]))? {
        0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        _ => Poll::Ready(Ok(())),
    }
}
